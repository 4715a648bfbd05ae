"""A grid, checked and run: every check that can be made before anything expensive starts, then cell after cell."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tlbench import device as machine
from tlbench import run
from tlbench.backbones import WEIGHTS, check_backbone, check_weights, load_backbone
from tlbench.compute import ALLOCATORS
from tlbench.data import BAD_IMAGES, check_dataset
from tlbench.data.store import forget
from tlbench.errors import UserError, lookup
from tlbench.grid import COMPILE, FUSED, LAYOUTS, PRECISIONS, TASKS, Cell, Grid, split_values
from tlbench.heads import HEADS
from tlbench.job import load
from tlbench.policies import parse_policy
from tlbench.prefix import MODES
from tlbench.record import SETTINGS, STATUSES, Record, Settings
from tlbench.seeds import seed_for
from tlbench.stop import Stop, held
from tlbench.store import Identity, Loaded, Plan, Store, check_same_input, resume_run, todo
from tlbench.store import load as load_records
from tlbench.train import AUGMENTATIONS, OPTIMIZERS, SCHEDULES
from tlbench.worker import ISOLATION, Workers

NEED_A_PROCESS = ("cell_timeout_seconds", "memory_limit_bytes")


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
    lookup(ISOLATION, "choice for --isolate", settings.isolate)
    for name, setting in SETTINGS.items():
        if setting.field in NEED_A_PROCESS and getattr(settings, setting.field) and settings.isolate == "none":
            raise UserError(f"--{name} needs --isolate backbone or cell: it holds for a process of its own")
    for name in grid.axes["backbone"]:
        check_backbone(name)
    for spec in grid.axes["weights"]:
        check_weights(spec, grid.axes["backbone"])
    for policy in grid.axes["freeze"]:
        parse_policy(policy)
    for dataset in grid.axes["dataset"]:
        check_dataset(dataset, grid.axes["train_size"])
    grid = grid.with_axes({"device": machine.resolve_devices(grid.axes["device"])})
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in grid.axes["weights"]:
        if spec not in WEIGHTS:
            for name in grid.axes["backbone"]:
                load_backbone(name, spec)
    for dataset in grid.axes["dataset"]:
        if dataset.startswith("folder:"):
            cell = grid.with_axes({"dataset": (dataset,)}).expand()[0]  # the other axes are no matter of reading
            spec = load_backbone(cell.backbone, "random").input
            load(cell, settings, spec, cell.image_size or spec.size)
    return grid


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement of a run."""

    cell: Cell
    name: str
    block: int = 0
    role: str = "cell"

    @property
    def identity(self) -> Identity:
        """As `tlbench.store` knows it."""
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


def go_on(
    run_name: str, values: Mapping[str, Any], change: Callable[[Grid], Grid] | None = None
) -> tuple[Store, Plan, Loaded]:
    """A run that was begun before: its store, its plan and its records so far. ``values`` are the settings that the
    user names this time; ``change`` makes of its first grid one whose cells are added (to the plan that is returned;
    `Store.extend` writes it down).

    Errors: UserError naming what is not as it was at the start, or as `check`.
    """
    free = {setting.field for setting in SETTINGS.values() if setting.guards}
    store, plan = resume_run(run_name, {name: value for name, value in values.items() if name not in free})
    settings = replace(plan.settings, **{name: value for name, value in values.items() if name in free})
    plan = replace(plan, settings=settings)
    for grid in plan.grids:
        check(grid, settings)
    if change is not None:
        added = check(change(plan.grids[0]), settings)
        if not set(added.expand()) <= set(plan.cells()):
            plan = replace(plan, grids=(*plan.grids, added))
    return store, plan, load_records(store.folder)


def left(
    planned: Sequence[Step], records: Sequence[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[Step]:
    """The steps that are still to be measured (`tlbench.store.todo`)."""
    return [planned[position] for position in todo([step.identity for step in planned], records, redo)]


# --- running --------------------------------------------------------------------------------------------------

FAILURES = ("failed", "oom", "timeout")
"""Statuses that ``--max-failures`` counts."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    records: list[Record]
    """Those of this time."""
    interrupted: bool = False
    signal: int | None = None
    """The one that interrupted it."""
    stopped: str = ""
    """Why it gave up before its end; empty when it did not."""


def run_step(
    step: Step,
    settings: Settings,
    measure: Callable[..., Record] = run.run_cell,
    siblings: Sequence[str] = (),
    keep: str = "all",
) -> Record:
    """Runs one measurement; a noisy one again, as often as the settings say, and what is finished is not given up for
    a repetition that fails. ``measure`` is `tlbench.run.run_cell`, or does the same elsewhere.

    Errors: KeyboardInterrupt when there is nothing yet.
    """
    record = None
    for attempt in range(1, settings.retry_noisy + 2):
        try:
            again = measure(
                step.cell, settings, name=step.name, siblings=siblings, keep=keep, block=step.block, role=step.role
            )
        except KeyboardInterrupt:
            if record is None:
                raise
            break
        if record is not None and again.status != "ok":
            break
        record = replace(again, attempts=attempt)
        if record.status != "ok" or record.validity == "ok":
            break
    assert record is not None
    return record


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
        """What to keep (`tlbench.run.KEEP`) after one of the steps, which from now on counts as done."""
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


def too_many(records: Sequence[Record], settings: Settings) -> str:
    """Why a run with these records of its own should stop; empty when it should not."""
    failed = sum(record.status in FAILURES for record in records)
    if settings.max_failures is None or failed < settings.max_failures:
        return ""
    return f"{failed} {'cell has' if failed == 1 else 'cells have'} failed (--max-failures {settings.max_failures})"


def run_grid(
    grid: Grid,
    settings: Settings,
    store: Store,
    on_start: Callable[[Step], None] = lambda step: None,
    on_record: Callable[[Record], None] = lambda record: None,
    *,
    added: Sequence[Grid] = (),
    earlier: Sequence[Record] = (),
    redo: Callable[[Record], bool] = lambda record: False,
    plugins: Sequence[str] = (),
) -> Outcome:
    """Runs every cell of a checked grid that ``earlier``, the records so far, do not have; each record is on disk
    before the next cell starts. Ctrl-C and SIGTERM end it in good order, and so do too many failures.

    Errors: UserError when a record cannot be written, or a cell cannot be as the grid asks; what is there stays.
    """
    policies = siblings((grid, *added))
    records: list[Record] = []
    interrupted, stopped = False, ""
    with Stop() as stop, measuring(settings, stop, plugins) as measure:
        planned = left(steps(grid, settings, added), earlier, redo)
        needs = Needs(planned)
        for step in planned:
            on_start(step)
            try:
                record = run_step(step, settings, measure, policies, needs.after(step))
            except KeyboardInterrupt:  # it came when nothing of the cell was there yet, or all of it
                interrupted = True
                break
            check_same_input(record, [*earlier, *records])
            with held():
                record = store.append(record)
            records.append(record)
            on_record(record)
            if record.status == "interrupted" or stop.signal is not None:
                interrupted = True
                break
            if stopped := too_many(records, settings):
                break
    return Outcome(records=records, interrupted=interrupted, signal=stop.signal, stopped=stopped)


@contextmanager
def measuring(settings: Settings, stop: Stop, plugins: Sequence[str] = ()) -> Iterator[Callable[..., Record]]:
    """What runs a cell, as `tlbench.run.run_cell` does: here, or in a process of its own."""
    if settings.isolate != "none":
        forget()  # what the checks have decoded is for other processes to hold
        with Workers(settings, stop, plugins) as workers:
            yield workers.run_cell
        return

    def here(*arguments: Any, **words: Any) -> Record:
        with stop.measuring():
            return run.run_cell(*arguments, **words)

    yield here
