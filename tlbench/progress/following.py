"""Prints what a run is about to measure, then follows it: a line for each cell, and a bar with the time left."""

from __future__ import annotations

import importlib.util
import math
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tlbench.analysis.expectation import Expectation
from tlbench.grid.cell import Cell
from tlbench.grid.values import about, clock_time
from tlbench.progress.words import Names, finished, repeated, round_seconds
from tlbench.records.record import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

LABEL = 9
"""Characters of the column that says what a line is about."""
AT_LEAST = 0.05
"""Share of the time that a cell has taken so far which it is given still, whatever was expected of it."""
RARELY = 100
"""All steps that are left are gone through anew once this many times as long has passed as that took."""
FEW = 20
"""So few steps are gone through each time."""
SHARE = "its share: what the frozen layers compute was computed once, for every cell that takes it"


class Planned(Protocol):
    """Is one measurement of a run: `tlbench.campaign.steps.Step`."""

    @property
    def cell(self) -> Cell: ...
    @property
    def block(self) -> int: ...
    @property
    def role(self) -> str: ...


def print_outlook(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Prints what a run is about to measure; each line's first word is what it is about, written once."""
    before = ""
    for label, line in lines:
        text = f"{label if label != before else '':{LABEL}}{line}"
        tell(console, text, LABEL)
        before = label


def tell(console: Console, line: str, indent: int) -> None:
    """Prints a line, wrapped on a terminal; in a log it stays one line, for whoever searches it."""
    if console.is_terminal or console.is_jupyter:
        line = textwrap.fill(line, console.width, subsequent_indent=" " * indent, break_on_hyphens=False)
    console.print(line, markup=False, soft_wrap=True)


class RunProgress:
    """Prints a line for each finished cell; on a terminal and in a notebook also a bar whose time left moves.

    ``with RunProgress(campaign.left, campaign.times, console) as progress: campaign.run(progress.start,
    progress.finish)``
    """

    def __init__(
        self,
        steps: Sequence[Planned],
        times: Expectation,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``steps`` are those to be measured, in order; ``times`` learns from each that is measured, before `finish` is
        told of it.
        """
        self._console, self._times, self._clock = console, times, clock
        self._left = [(step.cell, step.block) for step in steps]
        self._total, self._done = len(steps), 0
        self._names = Names([step.cell for step in steps], [step.block for step in steps])
        self._took: dict[tuple[Cell, int], float] = {}
        self._current: tuple[str, float, float | None] | None = None
        self._known = all(times.knows(step.cell.device) for step in steps)
        self._whole: float | None = None
        self._counted, self._again = 0, -math.inf
        self._rest = self._total_left()
        self._explained = False
        self._began = clock()
        self._bar = bar_of(console, self, len(steps))

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # a rich before 14.3 ends a bar that was never shown with an empty line
            self._bar.stop()

    def start(self, step: Planned) -> None:
        """Takes in that a step begins."""
        name = self._names.of(step.cell, step.block)
        expected = self._times.seconds(step.cell, step.block)
        if step.role == "cell":
            # Of all that is left, less this one: what it starts and computes is there for those after it.
            whole = self._total_left()
            self._rest = None if whole is None or expected is None else max(whole - expected, 0.0)
        else:  # a twin comes on top of what is left
            name, self._rest = f"{name}, again", self._total_left()
        self._known = self._times.knows(step.cell.device)
        self._current = (name, self._clock(), expected)
        self._bar.refresh()

    def finish(self, record: Record) -> None:
        """Prints what came of a step."""
        key = (record.cell, record.block)
        name = self._names.of(*key, random=bool(record.weights) and not record.weights.get("pretrained"))
        if record.role == "cell":
            self._done += 1
            self._current = None
            if not self._known:  # the rule of thumb gives way to what was measured
                self._again = -math.inf
            self._rest = self._total_left()
            self._known = True
            self._bar.advance(self._bar.task_ids[0])
            line = f"{self._done}/{self._total} {name}: {finished(record)}"
            if self._done < self._total and (left := self.left()) is not None:
                line += f", {clock_time(left)} left"
            self._took[key] = round_seconds(record)
        else:
            line = f"again {name}: {repeated(record, self._took.get(key))}"
        tell(self._console, line, 4)
        if record.prefix.get("boundaries") and not self._explained:
            self._explained = True
            tell(self._console, f"    ({SHARE})", 4)

    def _total_left(self) -> float | None:
        """Returns the seconds of the steps that are not done. Each is looked at anew where there is time for it: of
        50,000, all of them before and after each would take longer than many of them do.
        """
        now = self._clock()
        if now >= self._again or self._whole is None or self._total - self._done <= FEW:
            self._whole = self._times.total(self._left[self._done :])
            self._again = (after := self._clock()) + RARELY * (after - now)
        else:
            known = self._times.total(self._left[self._counted : self._done]) or 0.0
            self._whole = max(self._whole - known, 0.0)
        self._counted = self._done
        return self._whole

    def left(self) -> float | None:
        """Returns the seconds that are left now; None where nothing tells."""
        if self._current is None:
            return self._rest
        _, began, expected = self._current
        if expected is None or self._rest is None:
            return None
        elapsed = self._clock() - began
        # A rule of thumb that is too short for this cell is too short for those after it.
        late = 1.0 if self._known else max(1.0, elapsed / max(expected, 1e-9))
        return max(expected - elapsed, AT_LEAST * elapsed) + self._rest * late

    def words(self) -> str:
        """Writes what the bar shows of now: ``1:02, 2:31 left · resnet18 full linear, 0:14``."""
        now, left = self._clock(), self.left()
        known = "time left: cannot say yet" if left is None else f"{clock_time(left)} left"
        if left is not None and not self._known:
            known = f"roughly {about(left)} left"
        text = f"{clock_time(now - self._began)}, {known}"
        if self._current is None:
            return text
        name, began, _ = self._current
        return f"{text} · {name}, {clock_time(now - began)}"


class Speaks(Protocol):
    """Says what a bar shows of now."""

    def words(self) -> str: ...


def bar_of(console: Console, progress: Speaks, total: int) -> Progress:
    """Returns rich's bar, which is not shown in a log, nor in a notebook that lacks what moves there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    moves = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    bar = Progress(
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        _now(progress),
        console=console,
        disable=not (console.is_terminal or moves),
        expand=True,
        refresh_per_second=2,
    )
    bar.add_task("", total=total)
    return bar


def _now(progress: Speaks) -> ProgressColumn:
    """Returns the column that says what `RunProgress.words` says, anew each time that it is shown."""
    from rich.progress import ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Now(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Returns the words of now; what has no room is cut off."""
            return Text(progress.words(), no_wrap=True, overflow="ellipsis")

    return Now(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
