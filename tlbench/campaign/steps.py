"""Puts the measurements of a run in order, and says which are left: each finished record takes one away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tlbench.errors import lookup
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.values import split_values
from tlbench.records.plan import Plan
from tlbench.records.record import STATUSES, Record
from tlbench.records.resuming import Identity, identity_of, todo
from tlbench.seeds import seed_for


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step is one measurement of a run."""

    cell: Cell
    name: str
    block: int = 0
    role: str = "cell"

    @property
    def identity(self) -> Identity:
        """Returns what `tlbench.records.resuming` knows it by."""
        return identity_of(self.cell, self.role, self.block)


def steps(plan: Plan) -> list[Step]:
    """Returns all measurements of a run, in order. One block takes the cells as they stand; several repeat the grid,
    each in an order of its own (shuffled by block), so that a drift of the machine favours no cell.

    Every block begins and ends with the same cell, measured alike: how much those two differ is the run's noise floor.
    """
    cells, blocks = plan.cells(), plan.settings.blocks
    witness = _witness(plan.grids[0])
    name = f"A/A {plan.grids[0].id_of(witness)}"
    ordered = []
    for block in range(blocks):
        order = list(cells)
        if blocks > 1:
            random.Random(seed_for(0, "block-order", str(block))).shuffle(order)
        cell_steps = [Step(cell=cell, name=cells[cell], block=block) for cell in order]
        twin = Step(cell=witness, name=name, block=block, role="aa")
        ordered += [twin, *cell_steps, twin]
    return ordered


def _witness(grid: Grid) -> Cell:
    """Returns the cell that is measured twice more in a block: from the middle of those that train, where there are
    any. The first of a grid is often its cheapest, whose short rounds vary more than the others'.
    """
    cells = grid.expand()
    trained = [cell for cell in cells if cell.task == "train"] or cells
    return trained[len(trained) // 2]


RERUN = {
    **STATUSES,
    "noisy": "something else ran while its rounds were timed",
    "throttled": "the machine was held back",
    "drifting": "its rounds became slower or faster",
}
"""Cells that can be asked for anew when a run is resumed: status or validity -> what it means."""


def parse_rerun(text: str | None) -> Callable[[Record], bool]:
    """Turns ``noisy,failed`` into what tells whether a finished record is to be measured again. Errors: UserError."""
    words = split_values(text) if text is not None else []
    for word in words:
        lookup(RERUN, "choice for --rerun", word)
    return lambda record: record.status in words or (record.validity in words and record.validity != "ok")


def left(
    planned: Sequence[Step], records: Sequence[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[Step]:
    """Returns the steps that are still to be measured (`tlbench.records.resuming.todo`)."""
    if not records:
        return list(planned)  # no key of 10,000 cells need be made
    return [planned[position] for position in todo([step.identity for step in planned], records, redo)]


def siblings(grids: Sequence[Grid]) -> tuple[str, ...]:
    """Returns the freeze policies of grids: what one of them computes of the frozen layers serves the others."""
    return tuple(dict.fromkeys(policy for grid in grids for policy in grid.axes["freeze"]))


class Twins:
    """Holds the twins that are left, for those who take the cells in an order of their own (pytest): one is measured
    before the first cell of a block, the other when its last is done.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._block: int | None = None
        self._left: dict[int, list[Step]] = {}
        for step in steps:
            if step.role == "aa":
                self._left.setdefault(step.block, []).append(step)

    def enter(self, block: int) -> list[Step]:
        """Returns what to measure before a cell of this block: what is left of the block before, and one of its own."""
        if block == self._block:
            return []
        before = [] if self._block is None else self._left.pop(self._block, [])
        self._block = block
        twins = self._left.get(block, [])
        return [*before, twins.pop()] if len(twins) > 1 else before

    def finish(self, undone: set[int]) -> list[Step]:
        """Returns what to measure at the end: what is left of the last block, and of those that are not ``undone``."""
        done = [block for block in self._left if block == self._block or block not in undone]
        return [step for block in done for step in self._left.pop(block)]


class Needs:
    """Counts what the steps that are left still need of the activations in memory, so that those of a grid with
    hundreds of seeds do not pile up.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._left = Counter(key for step in steps for key in self._keys(step.cell))

    def after(self, step: Step) -> str:
        """Returns what to keep (`tlbench.measure.place.KEEP`) after a step, which from now on counts as done."""
        same_seed, any_seed = self._keys(step.cell)
        self._left.subtract((same_seed, any_seed))
        if self._left[same_seed] > 0:
            return "all"
        return "pretrained" if self._left[any_seed] > 0 else "nothing"

    @staticmethod
    def _keys(cell: Cell) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Returns keys of cells that may share activations: those of the seed, and those of other seeds as well."""
        shared = (cell.task, cell.backbone, cell.weights, cell.dataset, cell.device, cell.image_size, cell.precision)
        return (*shared, cell.seed), shared
