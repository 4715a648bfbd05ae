"""A grid, checked and run: every check that can be made before anything expensive starts, then cell after cell."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tlbench import device as machine
from tlbench import run
from tlbench.backbones import WEIGHTS, check_backbone, check_weights, load_backbone
from tlbench.compute import ALLOCATORS
from tlbench.data import BAD_IMAGES, check_dataset
from tlbench.errors import lookup
from tlbench.grid import COMPILE, FUSED, LAYOUTS, PRECISIONS, TASKS, Cell, Grid
from tlbench.heads import HEADS
from tlbench.job import load
from tlbench.policies import parse_policy
from tlbench.prefix import MODES
from tlbench.record import Record, Settings
from tlbench.seeds import seed_for
from tlbench.store import Store
from tlbench.timing import Clock, plain_clock
from tlbench.train import AUGMENTATIONS, OPTIMIZERS, SCHEDULES


def check(grid: Grid, settings: Settings) -> Grid:
    """The grid with its devices resolved, after every check that can be made before anything expensive starts.

    Errors: UserError naming the value, the choices and the next step.
    """
    tables: dict[str, tuple[str, Any]] = {
        "task": ("task", TASKS),
        "precision": ("precision", PRECISIONS),
        "layout": ("layout", LAYOUTS),
        "compile": ("choice for --compile", COMPILE),
        "fused": ("choice for --fused", FUSED),
        "head": ("head", HEADS),
        "optimizer": ("optimizer", {"auto": None, **OPTIMIZERS}),
        "schedule": ("schedule", SCHEDULES),
        "augment": ("augmentation", AUGMENTATIONS),
    }
    for axis, (kind, table) in tables.items():
        for value in grid.axes.get(axis, ()):
            lookup(table, kind, value)
    lookup(BAD_IMAGES, "choice for --bad-images", settings.bad_images)
    lookup(MODES, "choice for --prefix", settings.prefix)
    lookup(ALLOCATORS, "choice for --allocator", settings.allocator)
    for name in grid.axes["backbone"]:
        check_backbone(name)
    for spec in grid.axes["weights"]:
        check_weights(spec, grid.axes["backbone"])
    for policy in grid.axes["freeze"]:
        parse_policy(policy)
    for dataset in grid.axes["dataset"]:
        check_dataset(dataset)
    grid = grid.with_axes({"device": machine.resolve_devices(grid.axes["device"])})
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in grid.axes["weights"]:
        if spec not in WEIGHTS:
            for name in grid.axes["backbone"]:
                load_backbone(name, spec)
    for cell in _one_for_each_folder(grid):
        spec = load_backbone(cell.backbone, "random").input
        load(cell, settings, spec, cell.image_size or spec.size)
    return grid


def _one_for_each_folder(grid: Grid) -> Iterator[Cell]:
    """A cell of each folder and training size: what a seed changes is no matter of reading."""
    seen = set()
    for cell in grid.expand():
        key = (cell.dataset, cell.train_size)
        if (cell.dataset.startswith("folder:") or cell.train_size) and key not in seen:
            seen.add(key)
            yield cell


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement of a run."""

    cell: Cell
    name: str
    block: int = 0
    role: str = "cell"


def steps(grid: Grid, settings: Settings) -> list[Step]:
    """All measurements of a run, in order. One block takes the cells as they stand; several repeat the grid, each
    in an order of its own (shuffled by block), so that a drift of the machine favours no cell.

    Every block begins and ends with the same cell, measured alike: how much those two differ is the run's noise floor.
    """
    cells = grid.expand()
    found = []
    for block in range(settings.blocks):
        order = list(cells)
        if settings.blocks > 1:
            random.Random(seed_for(0, "block-order", str(block))).shuffle(order)
        own = [Step(cell=cell, name=grid.id_of(cell), block=block) for cell in order]
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


def run_step(step: Step, grid: Grid, settings: Settings, clock: Clock = plain_clock) -> Record:
    """Runs one measurement; a noisy one again, as often as the settings say."""
    siblings = grid.axes["freeze"]
    record = None
    for attempt in range(1, settings.retry_noisy + 2):
        record = run.run_cell(
            step.cell, settings, clock, name=step.name, siblings=siblings, block=step.block, role=step.role
        )
        record = replace(record, attempts=attempt)
        if record.status != "ok" or record.validity == "ok":
            break
    assert record is not None
    return record


def run_grid(
    grid: Grid,
    settings: Settings,
    store: Store,
    on_start: Callable[[Step], None] = lambda step: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Runs every cell of a checked grid; each record is on disk before the next cell starts.

    An interrupted cell is the last.
    """
    records = []
    for step in steps(grid, settings):
        on_start(step)
        record = run_step(step, grid, settings)
        store.append(record)
        records.append(record)
        on_record(record)
        if record.status == "interrupted":
            break
    return records
