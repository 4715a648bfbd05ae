"""The driver of a run: whatever becomes of nodes and batches, in whatever order, each cell is recorded once, and what
was delivered is not lost.
"""

import itertools
import random
import signal
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_engine import GRID, Drawn, Made, campaign, measured
from records import record

from tlbench.campaign import driver as driver_module
from tlbench.campaign.asked import Asked
from tlbench.campaign.batches import Batches
from tlbench.campaign.campaign import Campaign
from tlbench.campaign.engine import Began, Done, Impossible, Lost, Refused, Wanted
from tlbench.campaign.twins import ROLE
from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.records.plan import Plan
from tlbench.records.resuming import identity
from tlbench.records.run_folder import load

LARGER = {
    "backbone": ("resnet18", "vgg16"),
    "freeze": ("linear_probe", "full"),
    "seed": (0, 1, 2, 3),
    "layout": ("contiguous",),
}
SKIP = Wanted(engine="made", skip_bad_nodes=True)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """A node that does not answer is given up after a tenth of a second."""
    monkeypatch.setattr(driver_module, "GRACE_SECONDS", -4.9)
    monkeypatch.setattr(driver_module, "POLL_SECONDS", 0)


def on_disk(one):
    return load(one.store.folder).records


def check_once(one, found=None):
    """Every identity of the plan has one record, and no other has any."""
    counted = Counter(map(identity, on_disk(one) if found is None else found))
    assert counted == Counter(step.identity for step in one.planned)


# --- whatever happens -------------------------------------------------------------------------------------------


ANY = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@ANY
@given(
    seed=st.integers(0, 2**32), nodes=st.integers(1, 6), lost=st.sampled_from([0.0, 0.1, 0.5]), blocks=st.integers(1, 2)
)
def test_every_cell_is_recorded_once(seed, nodes, lost, blocks, homes):
    one = campaign(next(homes) / "run", {**LARGER, "layout": ("auto",)}, SKIP, blocks=blocks)
    engine = Drawn(random.Random(seed), nodes, lost, refusing=seed % nodes)
    assert one.run(engine=engine) is None
    check_once(one)
    assert engine.closed
    assert one.undone == [] or {r.status for r in on_disk(one)} & {"failed", "oom"}
    assert {identity(event.record) for event in engine.delivered} <= {
        identity(r) for r in on_disk(one) if r.status == "ok"
    }


@ANY
@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 6), stop_after=st.integers(1, 15))
def test_a_signal_in_the_middle_loses_nothing_that_was_delivered(seed, nodes, stop_after, homes):
    one = campaign(next(homes) / "run", LARGER, SKIP)
    engine, came = Drawn(random.Random(seed), nodes, 0.2), itertools.count(1)

    def stop(_):
        if next(came) == stop_after:
            signal.raise_signal(signal.SIGTERM)

    assert one.run(on_record=stop, engine=engine) == signal.SIGTERM
    assert engine.cancelled
    found = on_disk(one)
    assert all(count == 1 for count in Counter(map(identity, found)).values())
    assert {identity(event.record) for event in engine.delivered} <= set(map(identity, found))
    assert len(found) >= stop_after


@ANY
@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 6), most=st.integers(1, 4))
def test_a_run_gives_up_when_enough_cells_have_failed(seed, nodes, most, homes):
    one = campaign(next(homes) / "run", LARGER, SKIP, max_failures=most)
    rng = random.Random(seed)

    class Failing(Drawn):
        def plan(self, node, batch):
            for event in super().plan(node, batch):
                failed = hasattr(event, "record") and self.rng.random() < 0.4
                yield replace(event, record=replace(event.record, status="failed")) if failed else event

    engine = Failing(rng, nodes, 0.1)
    assert one.run(engine=engine) is None
    found = on_disk(one)
    failed = sum(r.status in ("failed", "oom") for r in found)
    assert bool(one.reason_to_stop) == (failed >= most)
    assert {identity(event.record) for event in engine.delivered} <= set(map(identity, found))
    if not one.reason_to_stop:
        check_once(one, found)


# --- nodes that are lost ----------------------------------------------------------------------------------------


class Losing(Made):
    """Loses the node in the place of an event, by its kind, of one of the cells."""

    def __init__(self, at, times=10**6):
        super().__init__(nodes=2)
        self.at, self.losses, self.times = at, 0, times

    def plan(self, node, batch):
        for event, task in self._events(node, batch):
            mine = task is not None and (task.step.cell.freeze, task.step.cell.seed) == ("full", 0)
            if mine and self.losses < self.times and self.at == type(event).__name__:
                self.losses += 1
                yield Lost(batch=batch.number, reason=f"{node} is gone")
                return
            yield event

    def _events(self, node, batch):
        for task in batch.tasks:
            yield Began(task=task.number, node=node), task
            yield measured(task, node), task
        yield Done(batch=batch.number), None


def test_a_cell_that_takes_three_nodes_down_has_failed(tmp_path):
    one, engine = campaign(tmp_path / "run"), Losing("Measured")
    assert one.run(engine=engine) is None
    assert engine.losses == 3
    check_once(one)
    (failed,) = [r for r in on_disk(one) if r.status != "ok"]
    assert (failed.status, failed.cell.freeze, failed.cell.seed) == ("failed", "full", 0)
    assert failed.reason.startswith("3 nodes were lost while they measured it; the last: node")
    assert (failed.engine, failed.node[:4]) == ("made", "node")


def test_a_cell_whose_nodes_are_lost_twice_is_measured(tmp_path):
    one, engine = campaign(tmp_path / "run"), Losing("Measured", times=2)
    assert one.run(engine=engine) is None
    check_once(one)
    assert {r.status for r in on_disk(one)} == {"ok"}


def test_nodes_that_are_always_lost_before_they_begin_a_cell_end(tmp_path):
    """The words of a cell that kills its node at once may not arrive."""
    one, engine = campaign(tmp_path / "run"), Losing("Began")
    assert one.run(engine=engine) is None
    assert engine.losses == driver_module.MOST_IN_VAIN
    check_once(one)
    (failed,) = [r for r in on_disk(one) if r.status != "ok"]
    assert failed.reason.startswith("10 nodes were lost before they had begun it; the last: node")


def test_a_batch_that_is_done_without_its_records_is_not_tried_for_ever(tmp_path):
    class Forgetful(Made):
        def plan(self, node, batch):
            yield Done(batch=batch.number)

    one = campaign(tmp_path / "run", {"freeze": ("full",)})
    assert one.run(engine=Forgetful()) is None
    (found,) = on_disk(one)
    assert found.status == "failed"
    assert driver_module.NO_RECORD in found.reason


def test_a_node_without_memory_is_a_record_and_not_tried_again(tmp_path):
    class Full(Made):
        def plan(self, node, batch):
            yield Began(task=batch.tasks[0].number, node=node)
            yield Lost(batch=batch.number, reason="no memory", status="oom")

    one, engine = campaign(tmp_path / "run"), Full()
    assert one.run(engine=engine) is None
    check_once(one)
    assert {(r.status, r.reason) for r in on_disk(one)} == {("oom", "no memory")}


def test_what_was_lost_comes_first(tmp_path):
    class Once(Made):
        def plan(self, node, batch):
            events = list(super().plan(node, batch))
            return [*events[:1], Lost(batch=batch.number, reason="gone")] if len(self.given) == 1 else events

    one, engine = campaign(tmp_path / "run", LARGER, None), Once(nodes=1)
    assert one.run(engine=engine) is None
    lost, after = engine.given[:2]
    assert [task.number for task in after.tasks] == [task.number for task in lost.tasks]
    assert after.number != lost.number


def test_a_record_that_comes_twice_counts_once(tmp_path):
    class Twice(Made):
        def plan(self, node, batch):
            for event in super().plan(node, batch):
                yield event
                yield event

    one = campaign(tmp_path / "run")
    assert one.run(engine=Twice()) is None
    check_once(one)


# --- nodes that refuse, and cells that cannot be ----------------------------------------------------------------


class All(Made):
    """Tells of all nodes at once."""

    def turn(self, busy):
        return busy


def test_a_node_that_refuses_ends_the_run_and_what_came_with_its_words_is_kept(tmp_path):
    class Refusing(All):
        def plan(self, node, batch):
            if node != "node0":
                return super().plan(node, batch)
            return [
                Began(task=batch.tasks[0].number, node=node),
                Refused(node=node, lines=("a", "b"), batch=batch.number),
            ]

    one, engine = campaign(tmp_path / "run", LARGER), Refusing(nodes=3)
    with pytest.raises(UserError, match=r"^node0: a; b; mend it, or go on without it by --skip-bad-nodes$"):
        one.run(engine=engine)
    assert engine.cancelled
    assert engine.closed
    assert len(engine.delivered) >= 2
    assert {identity(e.record) for e in engine.delivered} == set(map(identity, on_disk(one)))


def test_a_run_goes_on_without_nodes_that_refuse(tmp_path):
    one = campaign(tmp_path / "run", LARGER, SKIP)
    assert one.run(engine=Drawn(random.Random(0), 4, 0.0, refusing=3)) is None
    check_once(one)
    assert sum("is left out: it has no torch" in note for note in one.notes) >= 1


def test_a_run_waits_for_nodes_where_none_is_there_yet(tmp_path):
    class Late(Made):
        def __init__(self):
            super().__init__(nodes=1)
            self.waited = 0

        def room(self):
            return super().room() if self.waited > 3 else 0

        def wait(self, seconds):
            self.waited += 1
            return super().wait(seconds)

    one = campaign(tmp_path / "run")
    assert one.run(engine=Late()) is None
    check_once(one)


def test_a_cell_that_cannot_be_ends_the_run_and_what_was_delivered_with_it_is_kept(tmp_path):
    class Unfit(All):
        def plan(self, node, batch):
            events = list(super().plan(node, batch))
            return [events[0], Impossible(reason="the images have changed")] if node == "node0" else events

    one, engine = campaign(tmp_path / "run", LARGER), Unfit(nodes=3)
    with pytest.raises(UserError, match=r"^the images have changed$"):
        one.run(engine=engine)
    assert len(engine.delivered) >= 2
    assert {identity(e.record) for e in engine.delivered} == set(map(identity, on_disk(one)))
    assert engine.closed


def test_a_record_that_is_on_its_way_when_a_run_is_stopped_is_kept(tmp_path):
    """Nobody has told yet that its cell began."""

    class Slow(All):
        def turn(self, busy):
            return busy if self.cancelled else busy[:1]

    one, engine = campaign(tmp_path / "run"), Slow(nodes=2)
    came = []

    def stop(made):
        came.append(made)
        if len(came) == 1:  # the second signal ends the process
            signal.raise_signal(signal.SIGINT)

    assert one.run(on_record=stop, engine=engine) == signal.SIGINT
    assert {r.node for r in on_disk(one)} == {"node0", "node1"}


@pytest.mark.parametrize("how", ["a signal", "a cell that cannot be"])
def test_an_engine_hears_at_the_end_that_all_it_returned_is_written_down(how, tmp_path):
    class Unfit(All):
        def plan(self, node, batch):
            events = list(super().plan(node, batch))
            impossible = how != "a signal" and node == "node0"
            return [events[0], Impossible(reason="the images have changed")] if impossible else events

        def room(self):
            calls.append("room")
            return super().room()

        def wait(self, seconds):
            calls.append("wait")
            return super().wait(seconds)

    calls = []
    one, engine = campaign(tmp_path / "run", LARGER), Unfit(nodes=3)
    if how == "a signal":
        came = itertools.count(1)
        stop = {"on_record": lambda record: next(came) == 1 and signal.raise_signal(signal.SIGINT)}
        assert one.run(engine=engine, **stop) == signal.SIGINT
    else:
        with pytest.raises(UserError):
            one.run(engine=engine)
    assert calls[-2:] == ["wait", "room"]


def test_an_engine_is_asked_for_no_more_once_a_record_cannot_be_written(tmp_path, monkeypatch):
    """It may keep what was not written down, and forgets it when it is asked again."""
    one, engine = campaign(tmp_path / "run", LARGER), All(nodes=3)
    waited = []
    real = engine.wait
    monkeypatch.setattr(engine, "wait", lambda seconds: waited.append(seconds) or real(seconds))

    def full(record):
        raise UserError("cannot write: no space")

    _ = one.store
    monkeypatch.setattr(one.store, "append", full)
    with pytest.raises(UserError, match=r"^cannot write: no space$"):
        one.run(engine=engine)
    assert engine.delivered
    assert len(waited) == 2, "once for what began, once for its record"
    assert engine.closed


# --- layouts and twins ------------------------------------------------------------------------------------------


@pytest.fixture
def no_layouts(monkeypatch):
    monkeypatch.setattr(layouts, "_remembered", {})


def many(**axes):
    return {"freeze": ("linear_probe", "full"), "seed": tuple(range(8)), "layout": ("auto",), **axes}


def test_other_batches_wait_until_a_layout_is_known(tmp_path, no_layouts):
    class Told(Made):
        def plan(self, node, batch):
            for event in super().plan(node, batch):
                known = {f"key of {batch.tasks[0].step.cell.backbone}": (1.0, len(self.given))}
                yield replace(event, layouts=known) if hasattr(event, "record") else event

    one, engine = campaign(tmp_path / "run", many(backbone=("resnet18", "vgg16"))), Told(nodes=4)
    assert one.run(engine=engine) is None
    check_once(one)
    assert len(engine.given) > 2
    first = {}
    for batch in engine.given:
        backbone = batch.tasks[0].step.cell.backbone
        key = f"key of {backbone}"
        assert (key in batch.layouts) == (backbone in first), "only the first one measures it"
        first.setdefault(backbone, batch)
    assert {batch.layouts.get("key of vgg16") for batch in engine.given} - {None} == {layouts.told()["key of vgg16"]}


def test_a_cell_that_fails_before_it_chose_a_layout_lets_no_other_batch_begin(tmp_path, no_layouts):
    class Failing(Made):
        def plan(self, node, batch):
            events = list(super().plan(node, batch))
            if len(self.given) == 1:
                events[1] = replace(events[1], record=replace(events[1].record, status="failed", layout={}))
            return events

        def turn(self, busy):
            self.most = max(getattr(self, "most", 0), len(busy))
            return busy[:1]

    one, engine = campaign(tmp_path / "run", many()), Failing(nodes=4)
    began = []
    one.run(on_start=lambda step: began.append(len(engine.given)), engine=engine)
    assert len(engine.given) > 3
    assert began[1] <= 2, "cells begin one by one until one of them chooses it"


def test_what_a_second_node_found_of_a_layout_changes_nothing(tmp_path, no_layouts):
    found = itertools.count(1)

    class Each(Made):
        def plan(self, node, batch):
            mine = {"a key": (1.0, float(next(found)))}
            for event in super().plan(node, batch):
                yield replace(event, layouts=mine) if hasattr(event, "record") else event

    one = campaign(tmp_path / "run", {"backbone": ("resnet18", "vgg16", "vgg11"), "freeze": ("full",)})
    assert one.run(engine=Each(nodes=1)) is None
    assert layouts.told()["a key"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("exclusive", "twins", "count"),
    [(False, None, 0), (True, None, 1), (False, 2, 2), (True, 0, 0)],
)
def test_twins_come_last_and_only_where_they_tell_something(exclusive, twins, count, tmp_path):
    class Long(Made):
        def plan(self, node, batch):
            for event in super().plan(node, batch):
                seconds = 200.0 if hasattr(event, "record") and event.record.role == "cell" else 1.0
                yield (
                    replace(event, record=replace(event.record, wall_seconds=seconds))
                    if hasattr(event, "record")
                    else event
                )

    wanted = Wanted(engine="made", exclusive=exclusive)
    one, engine = campaign(tmp_path / "run", {**GRID, "seed": tuple(range(20))}, wanted, twins=twins), Long()
    assert one.run(engine=engine) is None
    roles = [r.role for r in on_disk(one)]
    assert (roles.count(ROLE) >= 1) == (count >= 1)
    assert roles == sorted(roles, key=lambda role: role == ROLE)
    if twins:
        assert roles.count(ROLE) == twins


def test_a_block_with_a_failed_cell_has_twins_as_on_one_machine(tmp_path):
    class Failing(Made):
        def plan(self, node, batch):
            for event in super().plan(node, batch):
                bad = hasattr(event, "record") and event.record.cell.seed == 2
                yield replace(event, record=replace(event.record, status="failed")) if bad else event

    one = campaign(tmp_path / "run", twins=1)
    assert one.run(engine=Failing()) is None
    assert [r.role for r in on_disk(one)].count(ROLE) == 1


# --- what a long run holds --------------------------------------------------------------------------------------


def test_a_run_of_many_cells_holds_no_records(tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.campaign.campaign.MANY", 3)
    one = campaign(tmp_path / "run")
    assert one.run(engine=Made()) is None
    assert one.records == []
    assert one.undone == []
    assert len(one.current()) == 6


def test_what_is_undone_goes_with_each_record(tmp_path):
    one = campaign(tmp_path / "run")
    steps = one.planned
    for place, status in enumerate(["ok", "failed", "diverged"]):
        made = record(freeze=steps[place].cell.freeze)
        one.take(replace(made, id=steps[place].name, cell=steps[place].cell, status=status))
    assert one.undone == [steps[1], *steps[3:]]
    one.release()


def test_what_other_batches_need_of_a_prefix_stays_at_the_node():
    grid = Grid().with_axes(
        {"freeze": ("linear_probe", "last_1"), "seed": tuple(range(20)), "weights": ("pretrained",)}
    )
    one = Campaign(asked=Asked(), plan=Plan(grids=(grid,), settings=Settings(isolate="backbone", threads=1)))
    source, kept = Batches(one, 2), []
    while (batch := source.next()) is not None:
        kept += [task.keep for task in batch.tasks]
        for task in batch.tasks:
            source.taken(task, replace(record(), layout={"chosen": "contiguous"}))
        source.ended(batch)
    assert len(kept) == 40
    assert kept[-1] == "nothing"
    assert "nothing" not in kept[:-1]
