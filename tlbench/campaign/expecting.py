"""How long the measurements of a race will take: by what was expected of such cells before anything was measured, then
by what a cell's own seeds took.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean

from tlbench.analysis.expectation import OWN_SECONDS, SPEED, START_SECONDS, Expectation, timed_seconds
from tlbench.campaign.isolate import ALIVE
from tlbench.campaign.leaving import may_leave
from tlbench.grid.cell import Cell
from tlbench.records.record import Record

GPU_SPEED = 100 * SPEED
"""Operations a second that a GPU of which nothing is known is taken to do."""
TRIED = 1.6
"""Passes of a model that is trained again, over all images: it is tried on those to validate and to test on once it is
written.
"""
SLOWER = 1.3
"""By how much such a try is slower than the pass that keeps what frozen layers compute."""
ROUGH = 2.5
"""By how much the rule of thumb may be too long: of a policy that was never timed on this machine it must not keep a
race from a look, which the budget ends all the same.
"""


class Expecting:
    """Expects the seconds of cells; `learn` takes in what one took. ``times`` learns by itself, as the run goes on."""

    def __init__(self, times: Expectation) -> None:
        self._times = times
        self._own: dict[str, list[float]] = {}
        self._making: dict[str, tuple[float, float]] = {}
        """Cell of the race -> seconds of the making of its model, but for what a process begins with: of the weights
        that it has left, and by training it again."""
        self._started: set[str] = set()
        self._alive: OrderedDict[str, None] = OrderedDict()
        """Backbones whose processes are there, the one that was used last behind."""

    def begin(self) -> None:
        """Begins a new time of measuring: no process of an earlier one is there, nor what it has kept in memory."""
        self._alive.clear()
        self._started.clear()

    def has_timed(self, cell: Cell) -> bool:
        """Tells whether cells of its policy were timed on its device, in this race or in earlier runs."""
        return self._times.has_timed(cell)

    def expected_seconds(self, cell: Cell) -> float:
        """Returns the seconds that a cell would take if it were the next one: the start of its process and its frozen
        layers included, where they are not there yet.
        """
        return self.of_all([cell])

    def of_all(self, cells: Sequence[Cell]) -> float:
        """Returns the seconds of several cells, one after the other."""
        device = cells[0].device
        if not self._times.knows(device) and device not in self._times.speeds:
            self._times.speeds = {**self._times.speeds, device: SPEED if device == "cpu" else GPU_SPEED}
        seconds = self._times.total([(cell, 0) for cell in cells]) or 0.0
        return seconds if self._times.has_timed(cells[0]) else seconds / ROUGH

    def of_another_seed(self, name: str, cells: Sequence[Cell]) -> float:
        """Returns the seconds of one more seed of a cell of the race, all its folds together."""
        own = self._own.get(name)
        if not own:
            return self.of_all(cells)
        known = None if cells[0].backbone in self._alive else self._times.alone(cells)
        return fmean(own) + (known[0] if known is not None else 0.0)

    def alone(self, name: str, left: bool) -> float:
        """Returns the seconds of the making of a cell's model, of which a seed was measured: libraries, images and
        weights, and a try of the weights that it has ``left``, or else all of its training.
        """
        tried, trained = self._making.get(name, (0.0, 0.0))
        return START_SECONDS + OWN_SECONDS + (tried if left else trained)

    def by_rule(self, cells: Sequence[Cell]) -> float:
        """Returns the seconds of several cells that share frozen layers, by the rule of thumb alone."""
        return self._times.rule_seconds(cells)

    def making(self, cells: Sequence[Cell], seconds: float) -> float:
        """Returns the same for a cell of which nothing was measured yet: it is expected to take so many ``seconds``,
        nearly all of them for its frozen layers where its weights need no more training.
        """
        share = SLOWER * self._times.share_to_look_at(cells[0]) if may_leave(cells[0]) else TRIED
        return START_SECONDS + OWN_SECONDS + share * seconds

    def learn(self, name: str, records: Sequence[Record]) -> None:
        """Takes in what a seed of a cell took, by the records of its folds."""
        own = sum(map(self._own_seconds, records))
        self._own.setdefault(name, []).append(own)
        fill = max(float(record.prefix.get("seconds") or 0.0) for record in records)
        trained_again = own / len(records) + TRIED * fill
        self._making[name] = _tried(records[0], fill), trained_again
        self._alive[records[0].cell.backbone] = None
        self._alive.move_to_end(records[0].cell.backbone)
        while len(self._alive) > ALIVE:
            self._alive.popitem(last=False)

    def _own_seconds(self, record: Record) -> float:
        """Returns what a measurement would take once more: without the start of its process, and without frozen layers
        that are there for other seeds as well.
        """
        fresh = record.cell.backbone not in self._started
        self._started.add(record.cell.backbone)
        kept = record.weights.get("pretrained") and not record.prefix.get("shared")
        # What a screen has computed of them is charged, but was not waited for here.
        there = float(record.prefix.get("screened_seconds") or 0.0)
        fill = float(record.prefix.get("seconds") or 0.0) - there if kept else 0.0
        own = max((record.wall_seconds or 0.0) - fill, 0.05)
        return min(own, timed_seconds(record) + OWN_SECONDS) if fresh else own


def _tried(record: Record, fill: float) -> float:
    """Returns the seconds of trying the weights that a cell has left, on validation and on test images."""
    counts = record.samples
    looked_at = counts.get("val", 0) + counts.get("test", 0)
    share = looked_at / max(sum(counts.get(split, 0) for split in ("train", "val", "test")), 1)
    validated = max((one.evaluation_seconds or 0.0 for one in record.rounds), default=0.0)
    evaluated = (record.test_seconds or 0.0) + validated
    return max(SLOWER * fill * share, evaluated)
