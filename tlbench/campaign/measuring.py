"""Measures the tasks of a batch in order, where this process is: on one machine, and at a node for an engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from tlbench.campaign.engine import Began, Event, Measured, Task
from tlbench.campaign.isolate import Workers
from tlbench.campaign.leaving import leaving
from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop, as_it_ended
from tlbench.data.lent import name_of
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure.place import ALONE, Place
from tlbench.records.record import Record


class RunCell(Protocol):
    """Is `tlbench.measure.cell.run_cell`, or what does the same elsewhere."""

    def __call__(self, *arguments: Any, **words: Any) -> Record: ...


def run_step(
    step: Step,
    settings: Settings,
    run_cell: RunCell,
    siblings: Sequence[str] = (),
    keep: str = "all",
    at: Place = ALONE,
) -> Record:
    """Runs one measurement; a noisy one again, as often as the settings say, and what is finished is not given up for
    a repetition that fails. ``at`` says where that is: its node, and whether cells may have neighbours there.

    Errors: KeyboardInterrupt when there is nothing yet; UserError, as `tlbench.measure.cell.run_cell`.
    """
    place = replace(at, name=step.name, block=step.block, role=step.role, siblings=tuple(siblings), keep=keep)
    record = None
    for attempt in range(1, settings.retry_noisy + 2):
        try:
            again = run_cell(step.cell, settings, place=replace(place, again=attempt > 1))
        except KeyboardInterrupt:
            if record is None:
                raise
            break
        if record is not None and again.status != "ok":
            break
        record = replace(again, attempts=attempt)
        if record.status != "ok" or record.validity in ("ok", "shared"):  # which another try would be as well
            break
    assert record is not None
    return record


def measured(
    tasks: Sequence[Task], settings: Settings, run_cell: RunCell, siblings: Sequence[str], at: Place
) -> Iterator[Event]:
    """Measures tasks in order, and says of each that it has begun, and what came of it. Errors: as `run_step`."""
    for task in tasks:
        yield Began(task=task.number, node=at.node)
        begin = time.monotonic()
        here = replace(at, most_seconds=task.most_seconds)
        record = run_step(task.step, settings, run_cell, siblings, task.keep, here)
        yield Measured(task=task.number, record=record, seconds=time.monotonic() - begin)


@contextmanager
def measuring(
    settings: Settings, stop: Stop, plugins: Sequence[str] = (), environ: dict[str, str] | None = None
) -> Iterator[RunCell]:
    """Yields what runs a cell: here, or in a process of its own, which gets the environment ``environ`` (None: that of
    this one).
    """
    if settings.isolate != "none":
        from tlbench.data.store import loans

        lent = loans()
        KEPT.images.forget(lambda key: name_of(key) not in lent)  # it is for other processes to hold
        with Workers(settings, stop, plugins, environ) as workers:
            yield workers.run_cell
        return

    from tlbench.measure import cell

    def here(*arguments: Any, place: Place = ALONE, **words: Any) -> Record:
        with stop.measuring():
            record = cell.run_cell(*arguments, **{**words, "place": place, **leaving(place)})
        return as_it_ended(record, stop.signal) if stop.watches else record

    yield here
