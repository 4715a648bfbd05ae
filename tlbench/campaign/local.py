"""The engine that is this machine: one cell at a time, in a process of its own or in this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tlbench.campaign.engine import Batch, Done, Event, Setup
from tlbench.campaign.measuring import measured, measuring
from tlbench.campaign.stop import Stop
from tlbench.measure.place import Place


class Local:
    """Measures what it is given, in order, each time that it is waited for."""

    slots = 1

    def __init__(self) -> None:
        self._open = ExitStack()
        self._events: Iterator[Event] | None = None

    def open(self, setup: Setup, stop: Stop) -> None:
        """Starts nothing yet: the first cell of a process does."""
        self._setup = setup
        self._run_cell = self._open.enter_context(measuring(setup.settings, stop, setup.plugins))

    def ask(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns nothing: the checks before a run were made on this very machine."""
        return {}

    def leave_out(self, nodes: Sequence[str]) -> None:
        """Does nothing: there is no other node."""

    def room(self) -> int:
        """Returns 1 where there is nothing to do."""
        return int(self._events is None)

    def submit(self, batch: Batch) -> None:
        """Takes a batch; the one before it has ended."""
        self._events = self._measure(batch)

    def _measure(self, batch: Batch) -> Iterator[Event]:
        setup, at = self._setup, Place(trained=self._setup.trained)
        yield from measured(batch.tasks, setup.settings, self._run_cell, setup.siblings, at)
        yield Done(batch=batch.number)

    def wait(self, seconds: float) -> Sequence[Event]:
        """Measures until something has happened, however long that takes. Errors: as `measured`."""
        if self._events is None:
            return []
        event = next(self._events)
        if isinstance(event, Done):
            self._events = None
        return [event]

    def cancel(self) -> None:
        """Does nothing: the signal that stops a run has reached the cell already."""

    def close(self) -> None:
        """Ends the processes of the cells."""
        self._open.close()
