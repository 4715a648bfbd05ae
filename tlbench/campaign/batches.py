"""What an engine is given, and in which order: here steps one by one, elsewhere batches that share a frozen prefix.

Batches are cut so that no node waits for another at the end, and the longest are given out first. A batch fills the
frozen prefix once, so that one is cut no finer than that pays for, unless nodes would have nothing to do.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tlbench.analysis.expectation import Expectation
from tlbench.campaign.engine import Batch, Task
from tlbench.campaign.moved import Places, cell_at
from tlbench.campaign.steps import Needs, Step
from tlbench.grid.cell import Cell
from tlbench.machine import layouts
from tlbench.records.record import Record

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign

PIECES = 24
"""Batches that a node gets at least where there are enough cells: the last of them ends about when the others do, also
where cells take other times than was expected (`bench/engines.py`).
"""
Key = tuple[object, ...]


class Tasks:
    """Makes tasks of steps, and knows the steps that they were made of."""

    def __init__(self, places: Places) -> None:
        self._places, self._made = places, 0
        self._moved: dict[int, Step] = {}

    def of(self, step: Step, keep: str) -> Task:
        """Returns the task of a step, which names images and weights by where they lie now."""
        here = cell_at(step.cell, self._places)
        self._made += 1
        if here != step.cell:
            self._moved[self._made] = step
            step = replace(step, cell=here)
        return Task(number=self._made, step=step, keep=keep)

    def step_of(self, task: Task) -> Step:
        """Returns the step that a task was made of."""
        return self._moved.get(task.number, task.step)

    def measured(self, task: Task) -> None:
        """Forgets a task that has its record."""
        self._moved.pop(task.number, None)


class InOrder:
    """Gives the steps of a campaign one by one, each when the one before it is there: the next one may depend on it."""

    def __init__(self, campaign: Campaign, needs: Needs, steps: Iterator[Step]) -> None:
        self._needs, self._steps = needs, steps
        self._tasks = Tasks(campaign.places)
        self._number = 0

    def next(self) -> Batch | None:
        """Returns the next step; None at the end."""
        if (step := next(self._steps, None)) is None:
            return None
        self._number += 1
        return Batch(number=self._number, tasks=(self._tasks.of(step, self._needs.after(step)),))

    def step_of(self, task: Task) -> Step:
        """Returns the step of a task as the run knows it."""
        return self._tasks.step_of(task)

    def again(self, tasks: Sequence[Task]) -> None:
        """Does nothing: what has no record here was stopped, and the run with it."""

    def ended(self, batch: Batch) -> None:
        """Does nothing."""

    def taken(self, task: Task, record: Record) -> None:
        """Takes in that a task has its record."""
        self._tasks.measured(task)


# --- for several nodes ----------------------------------------------------------------------------------------


class Batches:
    """Gives a campaign's steps in batches, the longest of a block first; and after them its twins, one by one.

    Where the memory layout of a backbone is still to be measured, its first batch measures it and the others wait for
    its first record: nodes that chose for themselves would give the seeds of one row different last bits.
    """

    def __init__(self, campaign: Campaign, slots: int, twins: Iterator[Step] | None = None) -> None:
        self._tasks, self._number, self._out = Tasks(campaign.places), 0, 0
        self._twins = iter(()) if twins is None else twins
        self._waiting: deque[tuple[Step, ...]] = deque(batches(campaign.left, campaign.times, slots))
        self._lost: deque[tuple[Task, ...]] = deque()
        self._needs, self._layouts = Needs(campaign.left), _Layouts()

    def next(self) -> Batch | None:
        """Returns the longest batch that may begin now; None where none may."""
        if self._lost:
            return self._made(self._lost.popleft())
        held: list[tuple[Step, ...]] = []
        found = None
        while self._waiting and found is None:
            steps = self._waiting.popleft()
            if self._layouts.holds(steps[0].cell):
                held.append(steps)
            else:
                found = steps
        self._waiting.extendleft(reversed(held))
        if found is None:
            return self._twin()
        # Other batches of the same prefix may come to the same node, which then has it already.
        return self._made(tuple(self._tasks.of(step, self._needs.after(step)) for step in found))

    def _twin(self) -> Batch | None:
        """Returns the next twin once everything else is measured: which one it is depends on that."""
        if self._waiting or self._out or (step := next(self._twins, None)) is None:
            return None
        return self._made((self._tasks.of(step, "nothing"),))

    def _made(self, tasks: tuple[Task, ...]) -> Batch:
        self._number, self._out = self._number + 1, self._out + 1
        self._layouts.begins(tasks[0].step.cell)
        return Batch(number=self._number, tasks=tasks, layouts=layouts.told())

    def step_of(self, task: Task) -> Step:
        """Returns the step of a task as the run knows it."""
        return self._tasks.step_of(task)

    def again(self, tasks: Sequence[Task]) -> None:
        """Takes back what was lost, to be given out before anything else."""
        self._lost.append(tuple(tasks))

    def ended(self, batch: Batch) -> None:
        """Takes in that nothing more comes of a batch."""
        self._out -= 1
        self._layouts.ended(batch.tasks[0].step.cell)

    def taken(self, task: Task, record: Record) -> None:
        """Takes in that a task has its record."""
        self._tasks.measured(task)
        if record.layout:  # one that failed before has none, and the next one chooses
            self._layouts.known(task.step.cell)


@dataclass(kw_only=True)
class _Layouts:
    """Says which cells wait for another one's memory layout."""

    _known: set[Key] = field(default_factory=set)
    _measuring: dict[Key, int] = field(default_factory=dict)

    def holds(self, cell: Cell) -> bool:
        key = _layout_of(cell)
        return cell.layout == "auto" and key not in self._known and bool(self._measuring.get(key))

    def begins(self, cell: Cell) -> None:
        key = _layout_of(cell)
        self._measuring[key] = self._measuring.get(key, 0) + 1

    def ended(self, cell: Cell) -> None:
        self._measuring[_layout_of(cell)] -= 1

    def known(self, cell: Cell) -> None:
        self._known.add(_layout_of(cell))


FEW_IMAGES = 8
"""Images of `tlbench.machine.layout.CALIBRATION_IMAGES`, whose module takes torch."""


def _layout_of(cell: Cell) -> Key:
    """Returns what cells with one memory layout have in common."""
    here = cell.backbone, cell.precision, cell.device, cell.layout, cell.image_size
    # A few images tell it on a CPU, for both tasks.
    few = min(cell.batch_size, FEW_IMAGES)
    return (*here, few) if cell.device == "cpu" else (*here, cell.task, cell.batch_size)


def prefix_of(step: Step) -> Key:
    """Returns what the cells of a batch share: backbone, weights, images and their size, precision, device."""
    cell = step.cell
    # Random weights are others with each seed, and so is what they compute.
    seed = cell.seed if cell.weights == "random" else None
    return (
        *(step.block, cell.task, cell.backbone, cell.weights, cell.dataset, cell.image_size),
        *(cell.precision, cell.device, seed, _layout_of(cell)),
    )


# --- cutting --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Group:
    """Holds the steps of a block that share a frozen prefix, and what they are expected to take."""

    steps: list[Step]
    fill: float
    """Seconds of what each batch of them does anew: the frozen prefix, a process that starts."""
    each: list[float]
    """Seconds of each step beyond that."""
    pieces: int = 1

    @property
    def longest(self) -> float:
        """Returns the seconds of its longest piece, about."""
        return self.fill + sum(self.each) / self.pieces


def batches(steps: Sequence[Step], times: Expectation, slots: int) -> list[tuple[Step, ...]]:
    """Returns steps in batches for so many nodes, by block, the longest first."""
    groups: dict[Key, list[Step]] = {}
    for step in steps:
        groups.setdefault(prefix_of(step), []).append(step)
    by_block: dict[int, list[_Group]] = {}
    for together in groups.values():
        by_block.setdefault(together[0].block, []).append(_group(together, times))
    ordered: list[tuple[Step, ...]] = []
    for block in sorted(by_block):
        _cut(by_block[block], max(slots, 1))
        pieces = [piece for group in by_block[block] for piece in _pieces(group)]
        ordered += [piece for _, piece in sorted(pieces, key=lambda piece: -piece[0])]
    return ordered


def _group(steps: list[Step], times: Expectation) -> _Group:
    """Returns a group with what it is expected to take; where nothing tells, every cell takes as long as another."""
    known = times.alone([step.cell for step in steps])
    if known is None:
        return _Group(steps=steps, fill=0.0, each=[1.0] * len(steps))
    return _Group(steps=steps, fill=known[0], each=known[1])


def _cut(groups: list[_Group], slots: int) -> None:
    """Says into how many pieces each group is cut."""
    whole = sum(group.longest for group in groups)
    piece = whole / (slots * PIECES)
    for group in groups:
        # A piece is worth at least the prefix that it fills.
        longest = max(piece - group.fill, group.fill, 1e-9)
        # A sum of seconds less one of its parts is not quite the others: the last digit must not make a piece more.
        wanted = math.ceil(sum(group.each) / longest * (1 - 1e-9))
        group.pieces = min(len(group.steps), max(1, wanted))
    lacking = slots - sum(group.pieces for group in groups)
    heap = [(-group.longest, number) for number, group in enumerate(groups) if group.pieces < len(group.steps)]
    heapq.heapify(heap)
    while lacking > 0 and heap:
        _, number = heapq.heappop(heap)
        group = groups[number]
        group.pieces += 1
        lacking -= 1
        if group.pieces < len(group.steps):
            heapq.heappush(heap, (-group.longest, number))


def _pieces(group: _Group) -> Iterator[tuple[float, tuple[Step, ...]]]:
    """Yields the pieces of a group with their seconds: alike as far as its cells allow, which stay in their order.

    Where a piece ends is told from the group's beginning: what each is too short by would else add up in the last one.
    """
    share = max(sum(group.each) / group.pieces, 1e-9)
    before = 0.0
    pieces: dict[int, list[tuple[Step, float]]] = {}
    for step, own in zip(group.steps, group.each, strict=True):
        place = min(int((before + own / 2) / share), group.pieces - 1)
        pieces.setdefault(place, []).append((step, own))
        before += own
    for piece in pieces.values():
        yield group.fill + sum(own for _, own in piece), tuple(step for step, _ in piece)
