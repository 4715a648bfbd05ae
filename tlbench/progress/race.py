"""Follows a race: a line for each measurement, and a bar with what is left of the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from tlbench.analysis.expectation import Expectation
from tlbench.grid.cell import Cell
from tlbench.grid.values import clock_time
from tlbench.progress.following import Planned, bar_of, tell
from tlbench.progress.words import Names, finished
from tlbench.records.record import Record

if TYPE_CHECKING:
    from rich.console import Console


class Left(Protocol):
    """Says what is left of a budget: `tlbench.campaign.budget.Budget`."""

    @property
    def left(self) -> float: ...


class RaceProgress:
    """Prints a line for each measurement; on a terminal also a bar of the cells that were looked at, with the time that
    is left of the budget.

    ``with RaceProgress(cells, budget, times, console) as progress: campaign.run(progress.start, progress.finish)``
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        budget: Left,
        times: Expectation,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cells`` are those that enter, of their first seed; ``times`` says how long one of them takes."""
        self._console, self._budget, self._times, self._clock = console, budget, times, clock
        self._seen: set[Cell] = set()
        self._entered = set(cells)
        # More seeds than the first one may follow, so that each name has its own.
        self._names = Names([*cells, *(replace(cell, seed=cell.seed + 1) for cell in cells[:1])])
        self._count = 0
        self._told = frozenset({"ok"})
        self._current: tuple[str, float, float | None] | None = None
        self._bar = bar_of(console, self, len(self._entered))

    def __enter__(self) -> RaceProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:
            self._bar.stop()

    def start(self, step: Planned) -> None:
        """Takes in that a measurement begins."""
        expected = self._times.seconds(step.cell, step.block)
        self._current = self._names.of(step.cell), self._clock(), expected
        self._bar.refresh()

    def finish(self, record: Record) -> None:
        """Prints what came of a measurement."""
        self._count += 1
        self._current = None
        if record.cell in self._entered and record.cell not in self._seen:
            self._seen.add(record.cell)
            self._bar.advance(self._bar.task_ids[0])
        name = self._names.of(record.cell, random=bool(record.weights) and not record.weights.get("pretrained"))
        left = clock_time(max(self._budget.left, 0.0))
        # A race goes by accuracies: why times were disturbed is told once, and stands in the report for the others.
        brief, self._told = record.validity in self._told, self._told | {record.validity}
        said = f"{self._count} {name}: {finished(record, brief)}"
        tell(self._console, f"{said}; {left} of the budget left to measure in", 4)

    def words(self) -> str:
        """Writes what the bar shows of now: ``12:31 left · resnet18 full linear seed 1, 0:14 of about 0:20``."""
        text = f"{clock_time(max(self._budget.left, 0.0))} of the budget left to measure in"
        if self._current is None:
            return text
        name, began, expected = self._current
        about = f" of about {clock_time(expected)}" if expected is not None else ""
        return f"{text} · {name}, {clock_time(self._clock() - began)}{about}"
