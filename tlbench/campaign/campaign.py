"""Measures a run: a campaign plans its steps, has those that are left measured, and takes in each record.

One file, since whoever changes what a campaign holds changes how it begins and goes on.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from tlbench.analysis.expectation import Expectation
from tlbench.campaign.asked import Asked
from tlbench.campaign.batches import Batches, InOrder
from tlbench.campaign.check import check, decode_images
from tlbench.campaign.driver import Driver, Source
from tlbench.campaign.engine import LOCAL, Engine, Setup
from tlbench.campaign.few import with_folds
from tlbench.campaign.journal import Journal
from tlbench.campaign.leaving import Weights
from tlbench.campaign.local import Local
from tlbench.campaign.measuring import RunCell, run_step
from tlbench.campaign.memory import Memory, about_the_cache, expectation, keep_times, remember_layouts
from tlbench.campaign.moved import Places, called, cell_at, changed_since, check_there, grid_at, relocate
from tlbench.campaign.nodes import check_nodes, facts, question
from tlbench.campaign.other_tests import about_untested, check_trained, untested
from tlbench.campaign.plugins import load_plugins, with_those_of
from tlbench.campaign.room import with_room
from tlbench.campaign.seen import Seen
from tlbench.campaign.spool import recover
from tlbench.campaign.steps import Needs, Step, left, siblings, steps
from tlbench.campaign.stop import Stop, held
from tlbench.campaign.twins import ROLE, next_twin
from tlbench.console import say, surviving
from tlbench.data.fetching import downloading
from tlbench.errors import UserError, no_exit
from tlbench.grid.cell import Cell
from tlbench.grid.folding import AUTO
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.kept.trained import TRAINED
from tlbench.machine.profiles import Profile
from tlbench.records.definitions import check_same_meaning
from tlbench.records.plan import Plan
from tlbench.records.record import Record
from tlbench.records.resuming import SameInput, current, is_final
from tlbench.records.run_folder import Store, load, new_run, resume_run

FAILURES = ("failed", "oom", "timeout")
"""Statuses that ``--max-failures`` counts."""
UNSUCCESSFUL = (*FAILURES, "diverged")
"""Statuses that a run does not end well with."""


MANY = 2000
"""Cells beyond which whole records are read from the disk when they are needed, and not held."""


def brief(record: Record, settings: Settings) -> Record:
    """Returns what planning needs of a record of a run with these settings."""
    return Record(
        id=record.id,
        cell=record.cell,
        settings=settings,
        status=record.status,
        reason=record.reason,
        started=record.started,
        wall_seconds=record.wall_seconds,
        suite_version=record.suite_version,
        block=record.block,
        role=record.role,
        validity=record.validity,
        prefix={"seconds": record.prefix["seconds"]} if "seconds" in record.prefix else {},
    )


@dataclass(kw_only=True)
class Campaign:
    """A campaign is a run being measured: `planned`, what of it is `left`, and `take` for what came of a step, wherever
    that was measured. Nothing else writes records into the run's folder.
    """

    asked: Asked
    plan: Plan
    """The plan, checked."""
    begun: Store | None = None
    """Folder of a run that goes on."""
    earlier: Sequence[Record] = ()
    """Records that a run that goes on had before."""
    places: Places = field(default_factory=dict)
    """Where a run that goes on finds what has moved since it began."""
    damaged: Sequence[str] = ()
    """Lines of its records file that were set aside."""
    notes: Sequence[str] = ()
    """What the checks have found, in lines: copies among the images, and what has changed since a run began."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """Data set, as the cells name it -> what the checks have counted of it."""
    records: list[Record] = field(default_factory=list)
    """Records of this time; of a run of many cells, what choosing its twins needs of them (`brief`), if it has any."""
    counts: Counter[str] = field(default_factory=Counter)
    """Status -> records of this time, twins apart."""
    source: Source | None = None
    """What gives the steps, where that is not the plan (`tlbench.campaign.racing`)."""
    seconds_left: Callable[[], float] | None = None
    """What tells the seconds until the end, where that is not for the plan to say."""
    _decoded: bool = field(default=False, init=False, repr=False)
    _failed: int = field(default=0, init=False, repr=False)

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
        return list(self._undone.values())

    @property
    def to_come(self) -> list[Step]:
        """Returns the steps of this time that have no record yet, whatever came of those that have one."""
        return list(self._to_come.values())

    @cached_property
    def _to_come(self) -> dict[tuple[Cell, int], Step]:
        return {(step.cell, step.block): step for step in self.left}

    @cached_property
    def _undone(self) -> dict[tuple[Cell, int], Step]:
        """Returns the steps without a final record, by cell and block; `take` removes each that gets one."""
        return {(step.cell, step.block): step for step in left(self.planned, self.earlier)}

    def twins(self, *blocks: int) -> Iterator[Step]:
        """Yields what to measure again of these blocks, whose cells have been measured; without any, of every block
        that has nothing left. Each step is to be taken in before the next one is asked for, which depends on it.
        """
        undone = {step.block for step in self.undone}
        for block in blocks or [n for n in range(self.plan.settings.blocks) if n not in undone]:
            while (step := self._next_twin(block)) is not None:
                yield step

    def _next_twin(self, block: int) -> Step | None:
        settings = self.plan.settings
        # One that failed at an earlier time is measured again, as a cell is; at this time it is done.
        earlier = [record for record in self.earlier if record.role != ROLE or record.status not in FAILURES]
        return next_twin(self._cells, [*earlier, *self.records], block, settings.twins, settings.isolate)

    def failed_twins(self) -> list[Record]:
        """Returns the twins of this time that came to nothing, and those of earlier times that none has made good."""
        twins = [record for record in [*self.earlier, *self.records] if record.role == ROLE]
        good = {(one.key, one.block): place for place, one in enumerate(twins) if one.status == "ok"}
        now = len(twins) - sum(record.role == ROLE for record in self.records)
        return [
            one
            for place, one in enumerate(twins)
            if one.status in UNSUCCESSFUL and (place >= now or place > good.get((one.key, one.block), -1))
        ]

    @cached_property
    def _cells(self) -> dict[Cell, str]:
        return self.plan.cells()

    @cached_property
    def _memory(self) -> Memory:
        return Memory(self.store.run)

    def remember(self) -> None:
        """Keeps what the run has told of the machine's noise and of its cells' times for later runs; a run of no record
        tells nothing.
        """
        with surviving("what the run has told of the machine is not kept for later runs"):
            self._memory.keep(self.current())
            if self.asked.engine.engine == LOCAL:  # how long cells take elsewhere says nothing of this machine
                keep_times(self.times)

    @cached_property
    def times(self) -> Expectation:
        """Returns what tells how long cells will take; it learns from each that is measured."""
        return self._expectation(self.earlier)

    def know(self, profiles: Mapping[str, Profile]) -> None:
        """Takes in profiles, by their keys, that were made before anything is measured this time: what the run's
        earlier cells took is told of them as well.
        """
        if any(self.times.profiles.get(key) != one for key, one in profiles.items()):
            anew = self._expectation(())
            anew.know(profiles)
            anew.recall(self.earlier)
            self.__dict__["times"] = anew

    def _expectation(self, earlier: Sequence[Record]) -> Expectation:
        devices = dict.fromkeys(step.cell.device for step in self.planned)
        sizes = dict.fromkeys((step.cell.dataset, step.cell.train_size) for step in self.planned)
        known = {key: self.seen[key[0]].splits for key in sizes if key[0] in self.seen}
        stores = {dataset: found.images for dataset, found in self.seen.items()}
        return expectation(self.plan.settings, devices, known, earlier, self._siblings, stores)

    @cached_property
    def _needs(self) -> Needs:
        return Needs(self.left)

    @cached_property
    def _same_input(self) -> SameInput:
        return SameInput(self.earlier)

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
            self.say(with_room(store, store.hold))
            with_room(store, partial(store.describe, self.plan))
        else:
            store = self.begun
            self.say(with_room(store, store.hold))
            for grid in self.plan.grids:  # of several that were added each; what is there already changes nothing
                with_room(store, partial(store.extend, grid, self.plan.plugins))
        return store

    def say(self, note: str) -> None:
        """Takes in a line that a person should read; an empty one is none."""
        self.notes = [*self.notes, *filter(None, [note])]

    def release(self) -> None:
        """Lets other processes measure the run. A second time nothing happens."""
        if store := vars(self).get("store", self.begun):
            store.release()

    @property
    def is_open(self) -> bool:
        """Tells whether there is a folder to measure into."""
        return "store" in vars(self)

    def take(self, record: Record) -> Record:
        """Takes a record in; it is on the disk when this returns what was written.

        Errors: UserError when it cannot be written, or was measured of other images or weights than those before.
        """
        _ = self._undone, self._to_come  # as they were before this record
        self._same_input.check(record)
        noise: Mapping[str, Any] = {}
        with surviving("what is known of the machine's noise is not in the record"):
            noise = self._memory.of(record)
        record = replace(record, machine_noise=noise, plugins=self.plan.plugins)
        with held():
            record = with_room(self.store, partial(self.store.append, record))
            if not self._many:
                self.records.append(record)
            elif self._has_twins:
                self.records.append(brief(record, self.plan.settings))
            self.counts[record.status] += record.role == "cell"
            if record.role == "cell":
                self._to_come.pop((record.cell, record.block), None)
            if record.role == "cell" and is_final(record):
                self._undone.pop((record.cell, record.block), None)
            self._failed += record.status in FAILURES
        return record

    @cached_property
    def _many(self) -> bool:
        """Tells whether the whole records of this time would take much memory."""
        return len(self.left) > MANY

    def current(self) -> list[Record]:
        """Returns what counts of all records so far."""
        if self._many and self.is_open:
            return current(load(self.store.folder).records)
        return current([*self.earlier, *self.records])

    @property
    def reason_to_stop(self) -> str:
        """Says why to give up; empty when there is no reason."""
        if why := self._broken():
            return f"CUDA takes no more work from this process ({why}); --resume and --isolate backbone go on"
        most = self.plan.settings.max_failures
        if most is None or (failed := self._failed) < most:
            return ""
        return f"{failed} {'cell has' if failed == 1 else 'cells have'} failed (--max-failures {most})"

    def _broken(self) -> str:
        """Says why CUDA takes no more work from this process; where cells have others, it has never worked here."""
        if self.plan.settings.isolate != "none":
            return ""
        from tlbench.machine.device import broken_context

        return broken_context()

    # --- measuring --------------------------------------------------------------------------------------------

    def measure(self, step: Step, run_cell: RunCell, *, once: bool = False) -> Record:
        """Has a step measured; ``once``: a noisy one is not measured again. Its record is still to be taken in.

        Errors: as `run_step`.
        """
        settings = replace(self.plan.settings, retry_noisy=0) if once else self.plan.settings
        here, began = replace(step, cell=cell_at(step.cell, self.places)), time.monotonic()
        record = called(run_step(here, settings, run_cell, self._siblings, self._needs.after(step)), step.cell)
        with surviving("the time that is left is not corrected"):
            self.times.learn(record, (time.monotonic() - began) / record.attempts)
        return record

    def run(
        self,
        on_start: Callable[[Step], None] = lambda step: None,
        on_record: Callable[[Record], None] = lambda record: None,
        engine: Engine | None = None,
    ) -> int | None:
        """Measures what is left, on this machine or on an engine's nodes; each record is on the disk before its cell
        counts as measured. Ctrl-C and SIGTERM end it in good order, and so does a `reason_to_stop`. Returns the signal
        that ended it; None where none did.

        Errors: as `take`; also UserError when a cell cannot be as the grid asks. What is there stays.
        """
        try:
            with Stop() as stop:
                ended_by = self._run(stop, on_start, on_record, engine)
            if ended_by is None:
                self.remember()
            return ended_by
        finally:
            self.release()

    def _run(
        self,
        stop: Stop,
        on_start: Callable[[Step], None],
        on_record: Callable[[Record], None],
        engine: Engine | None,
    ) -> int | None:
        here = engine is None
        try:
            if here:  # elsewhere, nodes decode their own
                with stop.measuring():
                    self.decode_images()
        except KeyboardInterrupt:
            return stop.signal or signal.SIGINT
        used: Engine = engine or Local()
        asked = {} if here else question(self)
        mine = {} if here else facts(asked)
        try:
            used.open(self._setup({"ask": asked, "here": mine}, here), stop)
            if not here:
                check_nodes(self, used, mine, asked)
            journal = Journal(self, self.asked.engine.engine)
            driver = Driver(campaign=self, engine=used, source=self._source(used, here), stop=stop, on_start=on_start)
            driver.on_record, driver.on_change = self._with_weights(on_record, here), journal
            ended_by = driver.run()
            journal(driver, "stopped" if ended_by is not None else "finished")
            return ended_by
        finally:
            used.close()

    def _with_weights(self, on_record: Callable[[Record], None], here: bool) -> Callable[[Record], None]:
        """Returns what is told of each record, and of the weights that its cell has left."""
        if not (here and self.asked.keep):
            return on_record
        weights = Weights(self.store.folder, self.current())

        def told(record: Record) -> None:
            weights.take(record)
            on_record(record)

        return told

    def _setup(self, asked: Mapping[str, Any], here: bool) -> Setup:
        return Setup(
            settings=self.plan.settings,
            siblings=self._siblings,
            plugins=tuple(self.asked.plugins),
            folder=self.store.folder,
            trained=str(self.store.folder.resolve() / TRAINED) if here and self.asked.keep else "",
            run=self.store.run,
            wanted=self.asked.engine,
            asked=asked,
            # Twins are of any cell, also of those that were measured before.
            devices=tuple(dict.fromkeys(s.cell.device for s in (self.planned if self._has_twins else self.left))),
        )

    def _source(self, engine: Engine, here: bool) -> Source:
        if self.source is not None:
            return self.source
        if here:
            return InOrder(self, self._needs, self._in_order())
        return Batches(self, engine.slots, self._twins_at_the_end() if self._has_twins else None)

    @property
    def _has_twins(self) -> bool:
        """Tells whether cells may be measured once more. Beside neighbours, how far identical cells come out apart says
        nothing of the machine, so that these have to be asked for.
        """
        wanted, engine = self.plan.settings.twins, self.asked.engine
        return wanted != 0 and (wanted is not None or engine.engine == LOCAL or engine.exclusive)

    def _twins_at_the_end(self) -> Iterator[Step]:
        """Yields the twins of all blocks, those of which a cell has failed among them, as `_in_order` does."""
        if blocks := dict.fromkeys(step.block for step in self.left):
            yield from self.twins(*blocks)
        yield from self.twins()

    def decode_images(self) -> None:
        """Decodes the images of what is left, where the checks have not, to the size that the first cell of each data
        set takes: before that cell, whose time it is not. The first cell of another size decodes to that itself. A
        second time nothing happens.
        """
        if not self._decoded:
            steps = self.left if self.source is None else self.planned  # a race goes on with seeds of its own
            decode_images([cell_at(step.cell, self.places) for step in steps], self.plan.settings)
        self._decoded = True

    def _in_order(self) -> Iterator[Step]:
        """Yields what is left, and after each block its twins."""
        for block, of_block in itertools.groupby(self.left, key=lambda step: step.block):
            yield from of_block
            yield from self.twins(block)
        yield from self.twins()  # of blocks that an earlier time finished without them


# --- beginning ------------------------------------------------------------------------------------------------


def begin(asked: Asked) -> Campaign:
    """Returns the campaign that someone asks for, checked: a new run, or one that goes on, with the cells that are
    added to it. Nothing is written yet, but what jobs of a driver that was killed have left of a run that goes on.

    Errors: UserError naming the value, the choices and the next step, or what is not as it was at the start.
    """
    if asked.download and not asked.measures:
        raise UserError("--download: nothing is downloaded where nothing is measured; leave it or --dry-run away")
    with no_exit(), downloading(say if asked.download else None):
        return _new(asked) if asked.resume is None else _go_on(asked, asked.resume)


def _new(asked: Asked) -> Campaign:
    plugins = load_plugins(asked.plugins)
    settings = Settings(**asked.settings)
    notes = asked.about_axes()
    check_trained(asked.wanted, settings)
    found: dict[str, Seen] = {}
    grid = check(asked.wanted, settings, notes.append, _into(found), asked.measures, asked.elsewhere)
    notes += about_the_cache() if asked.measures else []
    plan = Plan(grids=with_folds(grid, found), settings=settings, plugins=plugins)
    return Campaign(asked=asked, plan=plan, notes=notes, seen=found)


def _into(found: dict[str, Seen]) -> Callable[[str, Seen], None]:
    return lambda dataset, has: found.update({dataset: has})


def _go_on(asked: Asked, run_name: str) -> Campaign:
    guards = {setting.field for setting in SETTINGS.values() if setting.guards}
    fixed = {name: value for name, value in asked.settings.items() if name not in guards}
    store, plan = resume_run(run_name, fixed)
    notes = [with_room(store, store.hold)] if asked.measures else []
    try:
        return _prepared(asked, store, plan, [note for note in notes if note])
    except BaseException:
        store.release()
        raise


def _prepared(asked: Asked, store: Store, plan: Plan, notes: list[str]) -> Campaign:
    """Returns the campaign of a run that goes on, checked against what it has measured. Errors: UserError."""
    guards = {setting.field for setting in SETTINGS.values() if setting.guards}
    changed = {name: value for name, value in asked.settings.items() if name in guards}
    if asked.engine.engine != LOCAL and plan.settings.isolate == "none":
        changed = {"isolate": "backbone", **changed}  # on nodes cells have processes of their own
    names, others = with_those_of(str(asked.resume), [plan.plugins], asked.plugins)
    notes = [*notes, *others]
    plan = replace(plan, settings=replace(plan.settings, **changed), plugins=load_plugins(names))
    loaded = load(store.folder)
    found: dict[str, Seen] = {}
    wanted = asked.wanted.axes if asked.grid else asked.axes
    if asked.grid and "fold" not in asked.wanted.named:  # then the run's own folds are meant, as ever
        wanted = {name: values for name, values in wanted.items() if name != "fold"}
    axes, places = relocate(plan, loaded.records, wanted)
    check_there(plan, places)
    for grid in plan.grids:
        check(grid_at(grid, places), plan.settings, notes.append, _into(found), asked.measures, asked.elsewhere)
    if AUTO in axes.get("fold", ()):
        raise UserError(
            "--folds auto is for a run that begins; say how many folds the cells that are added have, or off"
        )
    for added in _added(plan, axes):
        moved = grid_at(added, places)
        checked = check(moved, plan.settings, notes.append, _into(found), asked.measures, asked.elsewhere)
        plan = plan.extended(added.with_axes({"device": checked.axes["device"]}))
    campaign = Campaign(
        asked=replace(asked, plugins=tuple(names), redo=_redo(asked, plan.settings)),
        plan=plan,
        begun=store,
        earlier=loaded.records,
        places=places,
        damaged=loaded.damaged,
        notes=list(dict.fromkeys(notes)),
        seen=found,
    )
    cells = [step.cell for step in campaign.planned]
    told = about_the_cache() if asked.measures else []
    if not asked.redo_untested:
        finished = [record for record in current(loaded.records) if record.role != ROLE]
        told = [*about_untested(finished, plan.settings), *told]
    campaign.notes = [*campaign.notes, *changed_since(cells, loaded.records, plan.settings, places), *told]
    remember_layouts(loaded.records)
    check_same_meaning((step.cell for step in campaign.left), loaded.records)
    if not asked.measures:
        return campaign
    campaign = _with_spooled(campaign, store)
    _check_unchanged(campaign)
    return campaign


def _check_unchanged(campaign: Campaign) -> None:
    """Raises UserError where cells that were never measured would be measured of other images or weights than those
    that were, of which no record of theirs could tell.
    """
    told = {record.cell for record in campaign.earlier}
    new: dict[str | None, list[Cell]] = {}
    for cell in dict.fromkeys(step.cell for step in campaign.left if step.cell not in told):
        new.setdefault(cell.relabel, []).append(cell)
    for relabel, cells in new.items():  # labels are part of what images are known by
        alike = [record for record in campaign.earlier if record.cell.relabel == relabel]
        # Of corrections that are new, what lies there with the labels as they were.
        alike = alike or [record for record in campaign.earlier if record.cell.relabel is None]
        if others := changed_since(cells, alike, campaign.plan.settings, campaign.places):
            raise UserError(
                f"{others[0]}: what is left would be measured of something else than what is there; put back what it "
                "was, or start a new run"
            )


def _redo(asked: Asked, settings: Settings) -> Callable[[Record], bool]:
    """Returns what tells whether a record is to be made anew."""
    if not asked.redo_untested:
        return asked.redo
    return lambda record: asked.redo(record) or bool(untested(record, settings))


def _added(plan: Plan, axes: Mapping[str, tuple[Any, ...]]) -> list[Grid]:
    """Returns the grids that axes which are given to a run that goes on make of its first one, and of that which has
    the data sets that were put into folds by themselves; a data set that is new takes the first one's folds.
    """
    if not axes:
        return []
    first = plan.grids[0]
    folded = [
        grid
        for grid in plan.grids[1:]
        if "fold" not in axes and grid.axes["dataset"] != first.axes["dataset"]
        and {**grid.axes, "dataset": (), "fold": ()} == {**first.axes, "dataset": (), "fold": ()}
    ]  # fmt: skip
    if "dataset" not in axes:
        return [grid.with_axes(axes) for grid in (first, *folded)]
    rest, made = list(axes["dataset"]), []
    for grid in folded:
        if own := tuple(name for name in rest if name in grid.axes["dataset"]):
            made.append(grid.with_axes({**axes, "dataset": own}))
            rest = [name for name in rest if name not in own]
    return [first.with_axes({**axes, "dataset": tuple(rest)}), *made] if rest else made


def _with_spooled(campaign: Campaign, store: Store) -> Campaign:
    """Returns the campaign with what jobs have measured, and its driver has not written down, as earlier records: it is
    written now. Errors: UserError when it cannot be.
    """
    found, notes = recover(campaign, store)
    if not found and not notes:
        return campaign
    remember_layouts(found)
    return replace(campaign, earlier=[*campaign.earlier, *found], notes=[*campaign.notes, *notes])
