"""A run, measured cell after cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tlbench.campaign.check import check
from tlbench.campaign.isolate import Workers
from tlbench.campaign.steps import Needs, Step, left, siblings, steps
from tlbench.campaign.stop import Stop, held
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell
from tlbench.records.lines import Loaded
from tlbench.records.plan import Plan
from tlbench.records.record import Record
from tlbench.records.resuming import check_same_input
from tlbench.records.run_folder import Store, resume_run
from tlbench.records.run_folder import load as load_records


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
    measure: Callable[..., Record] = cell.run_cell,
    siblings: Sequence[str] = (),
    keep: str = "all",
) -> Record:
    """Runs one measurement; a noisy one again, as often as the settings say, and what is finished is not given up for
    a repetition that fails. ``measure`` is `tlbench.measure.cell.run_cell`, or does the same elsewhere.

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
    """What runs a cell, as `tlbench.measure.cell.run_cell` does: here, or in a process of its own."""
    if settings.isolate != "none":
        KEPT.images.forget()  # what the checks have decoded is for other processes to hold
        with Workers(settings, stop, plugins) as workers:
            yield workers.run_cell
        return

    def here(*arguments: Any, **words: Any) -> Record:
        with stop.measuring():
            return cell.run_cell(*arguments, **words)

    yield here
