"""The measurements of a run, in order, and which of them are left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tlbench.errors import lookup
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.grid.values import split_values
from tlbench.records.plan import Plan
from tlbench.records.record import STATUSES, Record
from tlbench.records.resuming import Identity, todo
from tlbench.seeds import seed_for


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement of a run."""

    cell: Cell
    name: str
    block: int = 0
    role: str = "cell"

    @property
    def identity(self) -> Identity:
        """As `tlbench.records.run_folder` knows it."""
        return self.cell.key, self.role, self.block


def steps(grid: Grid, settings: Settings, added: Sequence[Grid] = ()) -> list[Step]:
    """All measurements of a run, in order. One block takes the cells as they stand; several repeat the grid, each
    in an order of its own (shuffled by block), so that a drift of the machine favours no cell. ``added`` are the grids
    by which the run was extended.

    Every block begins and ends with the same cell, measured alike: how much those two differ is the run's noise floor.
    """
    cells = Plan(grids=(grid, *added), settings=settings, versions={}, started="").cells()
    found = []
    for block in range(settings.blocks):
        order = list(cells)
        if settings.blocks > 1:
            random.Random(seed_for(0, "block-order", str(block))).shuffle(order)
        own = [Step(cell=cell, name=cells[cell], block=block) for cell in order]
        twin = witness(grid, block)
        found += [twin, *own, twin]
    return found


def witness(grid: Grid, block: int = 0) -> Step:
    """The measurement that is made twice in a block: a cell from the middle of those that train, where there are any.
    The first of a grid is often its cheapest, whose short rounds vary more than the others'.
    """
    cells = grid.expand()
    trained = [cell for cell in cells if cell.task == "train"] or cells
    cell = trained[len(trained) // 2]
    return Step(cell=cell, name=f"A/A {grid.id_of(cell)}", block=block, role="aa")


RERUN = {
    **STATUSES,
    "noisy": "something else ran while its rounds were timed",
    "throttled": "the machine was held back",
    "drifting": "its rounds became slower or faster",
}
"""What can be asked for anew when a run is resumed: cells of a status or of a validity."""


def parse_rerun(text: str | None) -> Callable[[Record], bool]:
    """``noisy,failed`` -> whether a finished record is to be measured again. Errors: UserError."""
    words = split_values(text) if text is not None else []
    for word in words:
        lookup(RERUN, "choice for --rerun", word)
    return lambda record: record.status in words or (record.validity in words and record.validity != "ok")


def left(
    planned: Sequence[Step], records: Sequence[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[Step]:
    """The steps that are still to be measured (`tlbench.records.resuming.todo`)."""
    return [planned[position] for position in todo([step.identity for step in planned], records, redo)]


def siblings(grids: Sequence[Grid]) -> tuple[str, ...]:
    """The freeze policies of grids: what one of them computes of the frozen layers serves the others."""
    return tuple(dict.fromkeys(policy for grid in grids for policy in grid.axes["freeze"]))


class Needs:
    """What the steps that are left still need of the activations in memory, so that those of a grid with hundreds of
    seeds do not pile up.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self._left = Counter(key for step in steps for key in self._keys(step.cell))

    def after(self, step: Step) -> str:
        """What to keep (`tlbench.measure.cell.KEEP`) after one of the steps, which from now on counts as done."""
        own, others = self._keys(step.cell)
        self._left.subtract((own, others))
        if self._left[own] > 0:
            return "all"
        return "pretrained" if self._left[others] > 0 else "nothing"

    @staticmethod
    def _keys(cell: Cell) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Of cells that may share activations: those of the seed, and those of other seeds as well."""
        shared = (cell.task, cell.backbone, cell.weights, cell.dataset, cell.device, cell.image_size, cell.precision)
        return (*shared, cell.seed), shared
