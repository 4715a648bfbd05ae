"""Measures what a process maps for the data of one cell: what ``--memory-limit`` counts, more than is ever in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import sensors
from tlbench.machine.device import kilobytes
from tlbench.machine.process import map_nothing_ahead
from tlbench.measure.cell import run_cell

LOOK_SECONDS = 0.005
"""Time between two looks at what is mapped, which shrinks only where memory is given back between two passes."""


def most_mapped(cell: Cell, settings: Settings) -> int:
    """Measures a cell in this process, which is to be a new one, and returns the most bytes that it had mapped for data
    meanwhile, none of them ahead. Errors: RuntimeError with the reason of a cell that does not end well.
    """
    map_nothing_ahead()
    with _watching() as most:
        record = run_cell(cell, settings)
    if record.status != "ok":
        raise RuntimeError(record.reason or record.status)
    return most[0]


@contextmanager
def _watching() -> Iterator[list[int]]:
    """Gives the most bytes mapped so far, of which the kernel keeps no mark."""
    most, done = [_data_bytes()], Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            most[0] = max(most[0], _data_bytes())

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def _data_bytes() -> int:
    return kilobytes(sensors.PROCESS / "self/status", "VmData") or 0
