"""Measures a run: a campaign plans its steps, has those that are left measured, and takes in each record."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tlbench.campaign.asked import Asked
from tlbench.campaign.check import check
from tlbench.campaign.isolate import Workers
from tlbench.campaign.plugins import load_plugins
from tlbench.campaign.steps import Needs, Step, Twins, left, siblings, steps
from tlbench.campaign.stop import Stop, held
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell
from tlbench.measure.place import Place
from tlbench.records.definitions import check_same_meaning
from tlbench.records.plan import Plan
from tlbench.records.record import Record
from tlbench.records.resuming import check_same_input, current
from tlbench.records.run_folder import Store, load, new_run, resume_run

FAILURES = ("failed", "oom", "timeout")
"""Statuses that ``--max-failures`` counts."""

RunCell = Callable[..., Record]
"""`tlbench.measure.cell.run_cell`, or what does the same elsewhere."""


@dataclass(kw_only=True)
class Campaign:
    """A campaign is a run being measured: `planned`, what of it is `left`, and `take` for what came of a step, wherever
    that was measured. Nothing else writes into the run's folder.
    """

    asked: Asked
    plan: Plan
    """The plan, checked."""
    begun: Store | None = None
    """Folder of a run that goes on."""
    earlier: Sequence[Record] = ()
    """Records that a run that goes on had before."""
    damaged: Sequence[str] = ()
    """Lines of its records file that were set aside."""
    records: list[Record] = field(default_factory=list)
    """Records of this time."""

    # --- what is planned, and what is left --------------------------------------------------------------------

    @cached_property
    def planned(self) -> list[Step]:
        """Returns every measurement of the run, in order."""
        return steps(self.plan)

    @cached_property
    def left(self) -> list[Step]:
        """Returns the steps to measure this time, as it began: what was missing, and what is wanted anew."""
        return left(self.planned, self.earlier, self.asked.redo)

    @property
    def undone(self) -> list[Step]:
        """Returns the steps that have no final record by now."""
        return left(self.planned, [*self.earlier, *self.records])

    @cached_property
    def twins(self) -> Twins:
        """Returns the twins that are left, for those who take the steps in an order of their own."""
        return Twins(self.left)

    @cached_property
    def _needs(self) -> Needs:
        return Needs(self.left)

    @cached_property
    def _siblings(self) -> tuple[str, ...]:
        return siblings(self.plan.grids)

    # --- what came of it --------------------------------------------------------------------------------------

    @cached_property
    def store(self) -> Store:
        """Returns the run's folder, made or extended at the first use: a run of which nothing is measured leaves none.

        Errors: UserError when it cannot be written.
        """
        if self.begun is None:
            store = new_run(self.asked.out)
            store.describe(self.plan)
        else:
            store = self.begun
            store.extend(self.plan.grids[-1])
        return store

    @property
    def is_open(self) -> bool:
        """Tells whether there is a folder to measure into."""
        return "store" in vars(self)

    def take(self, record: Record) -> Record:
        """Takes a record in; it is on the disk when this returns what was written.

        Errors: UserError when it cannot be written, or was measured of other images or weights than those before.
        """
        check_same_input(record, [*self.earlier, *self.records])
        with held():
            record = self.store.append(record)
            self.records.append(record)
        return record

    def current(self) -> list[Record]:
        """Returns what counts of all records so far."""
        return current([*self.earlier, *self.records])

    @property
    def too_many_failures(self) -> str:
        """Says why to give up; empty when there is no reason."""
        most = self.plan.settings.max_failures
        failed = sum(record.status in FAILURES for record in self.records)
        if most is None or failed < most:
            return ""
        return f"{failed} {'cell has' if failed == 1 else 'cells have'} failed (--max-failures {most})"

    # --- measuring --------------------------------------------------------------------------------------------

    def measure(self, step: Step, run_cell: RunCell, *, once: bool = False) -> Record:
        """Has a step measured; ``once``: a noisy one is not measured again. Its record is still to be taken in.

        Errors: as `run_step`.
        """
        settings = replace(self.plan.settings, retry_noisy=0) if once else self.plan.settings
        return run_step(step, settings, run_cell, self._siblings, self._needs.after(step))

    def run(
        self,
        on_start: Callable[[Step], None] = lambda step: None,
        on_record: Callable[[Record], None] = lambda record: None,
    ) -> int | None:
        """Measures what is left; each record is on disk before the next cell starts. Ctrl-C and SIGTERM end it in good
        order, and so do too many failures. Returns the signal that ended it; None where none did.

        Errors: as `take`; also UserError when a cell cannot be as the grid asks. What is there stays.
        """
        with Stop() as stop, measuring(self.plan.settings, stop, self.asked.plugins) as run_cell:
            for step in self.left:
                on_start(step)
                try:
                    record = self.measure(step, run_cell)
                except KeyboardInterrupt:  # it came when nothing of the cell was there yet, or all of it
                    return stop.signal or signal.SIGINT
                record = self.take(record)
                on_record(record)
                if record.status == "interrupted" or stop.signal is not None:
                    return stop.signal or signal.SIGINT
                if self.too_many_failures:
                    break
        return None


# --- beginning ------------------------------------------------------------------------------------------------


def begin(asked: Asked) -> Campaign:
    """Returns the campaign that someone asks for, checked: a new run, or one that goes on, with the cells that are
    added to it. Nothing is written yet.

    Errors: UserError naming the value, the choices and the next step, or what is not as it was at the start.
    """
    load_plugins(asked.plugins)
    if asked.resume is not None:
        return _go_on(asked, asked.resume)
    settings = Settings(**asked.settings)
    grid = check((asked.grid or Grid()).with_axes(asked.axes), settings)
    return Campaign(asked=asked, plan=Plan(grids=(grid,), settings=settings))


def _go_on(asked: Asked, run_name: str) -> Campaign:
    guards = {setting.field for setting in SETTINGS.values() if setting.guards}
    fixed = {name: value for name, value in asked.settings.items() if name not in guards}
    store, plan = resume_run(run_name, fixed)
    changed = {name: value for name, value in asked.settings.items() if name in guards}
    plan = replace(plan, settings=replace(plan.settings, **changed))
    for grid in plan.grids:
        check(grid, plan.settings)
    if asked.axes or asked.grid:
        added = (asked.grid or plan.grids[0]).with_axes(asked.axes)
        plan = plan.extended(check(added, plan.settings))
    loaded = load(store.folder)
    campaign = Campaign(asked=asked, plan=plan, begun=store, earlier=loaded.records, damaged=loaded.damaged)
    check_same_meaning((step.cell for step in campaign.left), loaded.records)
    return campaign


# --- measuring ------------------------------------------------------------------------------------------------


def run_step(
    step: Step, settings: Settings, run_cell: RunCell, siblings: Sequence[str] = (), keep: str = "all"
) -> Record:
    """Runs one measurement; a noisy one again, as often as the settings say, and what is finished is not given up for
    a repetition that fails.

    Errors: KeyboardInterrupt when there is nothing yet; UserError, as `tlbench.measure.cell.run_cell`.
    """
    place = Place(name=step.name, block=step.block, role=step.role, siblings=tuple(siblings), keep=keep)
    record = None
    for attempt in range(1, settings.retry_noisy + 2):
        try:
            again = run_cell(step.cell, settings, place=replace(place, again=attempt > 1))
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


@contextmanager
def measuring(settings: Settings, stop: Stop, plugins: Sequence[str] = ()) -> Iterator[RunCell]:
    """Yields what runs a cell: here, or in a process of its own."""
    if settings.isolate != "none":
        KEPT.images.forget()  # what the checks have decoded is for other processes to hold
        with Workers(settings, stop, plugins) as workers:
            yield workers.run_cell
        return

    def here(*arguments: Any, **words: Any) -> Record:
        with stop.measuring():
            return cell.run_cell(*arguments, **words)

    yield here
