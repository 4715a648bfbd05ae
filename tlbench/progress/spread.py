"""Follows a run whose cells are measured on several nodes: a line for each that is finished, in the order of finishing,
and a bar that says how many are running and how long the rest will take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from tlbench.analysis.expectation import Expectation
from tlbench.grid.cell import Cell
from tlbench.grid.values import clock_time
from tlbench.progress.following import SHARE as ITS_SHARE
from tlbench.progress.following import Planned, bar_of, tell
from tlbench.progress.words import Names, finished, repeated, round_seconds
from tlbench.records.record import Record

if TYPE_CHECKING:
    from rich.console import Console

MOST = 2000
"""Cells of which each one's time is looked up; of more, the pace so far tells how long the rest takes."""
SHARED = "times are marked as shared, since cells may have neighbours on their node: --exclusive measures times"
AGAIN_SECONDS = 2.0
"""Time until that is looked up again."""
SHARE = 0.02
"""Most of the time that looking it up may take: there are records to be taken in."""


class Slots(Protocol):
    """Says how many cells are measured at the same time: `tlbench.campaign.engine.Engine`."""

    @property
    def slots(self) -> int: ...


class SpreadProgress:
    """Prints a line for each finished cell; on a terminal also a bar.

    ``with SpreadProgress(campaign.left, campaign.times, console, engine) as progress: campaign.run(progress.start,
    progress.finish, engine)``
    """

    def __init__(
        self,
        steps: Sequence[Planned],
        times: Expectation,
        console: Console,
        engine: Slots,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._times, self._engine, self._clock = console, times, engine, clock
        self._left = {(step.cell, step.block): None for step in steps}
        self._total = len(steps)
        self._names = Names([step.cell for step in steps], [step.block for step in steps])
        self._running: dict[tuple[Cell, int], float] = {}
        self._done, self._said_shared, self._explained = 0, False, False
        self._took: dict[tuple[Cell, int], float] = {}
        self._rest: float | None = None
        self._looked = self._next = float("-inf")
        self._began = clock()
        self._bar = bar_of(console, self, len(steps))

    def __enter__(self) -> SpreadProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._bar.disable:  # as in `RunProgress`
            self._bar.stop()

    def start(self, step: Planned) -> None:
        """Takes in that a step begins, for the first time or after its node was lost."""
        self._running[step.cell, step.block] = self._clock()

    def finish(self, record: Record) -> None:
        """Prints what came of a step, and where."""
        key = (record.cell, record.block)
        name = self._names.of(*key, random=bool(record.weights) and not record.weights.get("pretrained"))
        self._running.pop(key, None)
        at = f", on {record.node}" if record.node else ""
        if record.validity == "shared":  # said once, and not in each line
            if not self._said_shared:
                self._said_shared = True
                tell(self._console, SHARED, 0)
            record = replace(record, validity="ok", validity_reason="")
        if record.role != "cell":
            tell(self._console, f"again {name}: {repeated(record, self._took.get(key))}{at}", 4)
            return
        self._took[key] = round_seconds(record)
        self._done += 1
        self._left.pop(key, None)
        self._bar.advance(self._bar.task_ids[0])
        line = f"{self._done}/{self._total} {name}: {finished(record)}{at}"
        if self._left and (left := self.left()) is not None:
            line += f", {clock_time(left)} left"
        tell(self._console, line, 4)
        if record.prefix.get("boundaries") and not self._explained:
            self._explained = True
            tell(self._console, f"    ({ITS_SHARE})", 4)

    def left(self) -> float | None:
        """Returns the seconds that are left now, about; None where nothing tells."""
        now = self._clock()
        if now > self._next:
            self._looked, self._rest = now, self._expected(now)
            self._next = now + max(AGAIN_SECONDS, (self._clock() - now) / SHARE)
        return None if self._rest is None else max(self._rest - (now - self._looked), 0.0)

    def _expected(self, now: float) -> float | None:
        if len(self._left) > MOST:
            return (now - self._began) / self._done * len(self._left) if self._done else None
        known = self._times.total(self._left)
        if known is None:
            return None
        elapsed = sum(now - since for since in self._running.values())
        return max(known - elapsed, 0.0) / max(min(self._engine.slots, len(self._left)), 1)

    def words(self) -> str:
        """Writes what the bar shows of now: ``1:02, 2:31 left · 4 running``."""
        left = self.left()
        known = "time left: cannot say yet" if left is None else f"{clock_time(left)} left"
        return f"{clock_time(self._clock() - self._began)}, {known} · {len(self._running)} running"
