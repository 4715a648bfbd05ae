"""Puts the measurements of a run in order, and says which are left: each finished record takes one away."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tlbench.errors import lookup
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.values import split_values
from tlbench.policies.parse import is_policy
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
    """Returns all measurements of a run, in order; what is measured again to see the noise comes on top of them
    (`tlbench.campaign.twins`). One block takes the cells as they stand; several repeat the grid, each in an order of
    its own (shuffled by block), so that a drift of the machine favours no cell.
    """
    cells, blocks = plan.cells(), plan.settings.blocks
    ordered = []
    for block in range(blocks):
        order = list(cells)
        if blocks > 1:
            random.Random(seed_for(0, "block-order", str(block))).shuffle(order)
        ordered += [Step(cell=cell, name=cells[cell], block=block) for cell in order]
    return ordered


UNTESTED = "untested"
RERUN = {
    **STATUSES,
    "noisy": "something else ran while its rounds were timed",
    "throttled": "the machine was held back",
    "drifting": "its rounds became slower or faster",
    "shared": "other cells may have been measured on its node meanwhile",
    UNTESTED: "it was measured without a test that is asked for now, by --also-test or --corrupt",
}
"""Cells that can be asked for anew when a run is resumed: status or validity -> what it means."""


def parse_rerun(text: str | None) -> Callable[[Record], bool]:
    """Turns ``noisy,failed`` into what tells whether a finished record is to be measured again. Errors: UserError."""
    words = split_values(text) if text is not None else []
    for word in words:
        lookup(RERUN, "choice for --rerun", word)
    return lambda record: record.status in words or (record.validity in words and record.validity != "ok")


def as_measured(plan: Plan, records: Sequence[Record]) -> list[Step]:
    """Returns all measurements of a run, as `steps` does, for who has not loaded the run's plugins: a policy of theirs
    may be defined for one kind of weights, whatever was asked for, which then its records tell.
    """
    planned = steps(plan)
    asked, told = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for step in planned:
        asked[step.cell.freeze].add(step.cell.weights)
    for record in records:
        if record.role == "cell" and record.cell.task == "train":
            told[record.cell.freeze].add(record.cell.weights)
    fixed = {
        policy: next(iter(weights))
        for policy, weights in told.items()
        if len(weights) == 1 and not weights & asked[policy] and not is_policy(policy)
    }
    if not fixed:
        return planned
    found = [
        replace(step, cell=replace(step.cell, weights=fixed.get(step.cell.freeze, step.cell.weights)))
        for step in planned
    ]
    return list({step.identity: step for step in found}.values())


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
