"""`tlbench status`: what a run is doing, as its folder tells it."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import pytest
from made_engine import Made, campaign
from records import record
from survivors import CELLS, GRID, begin, run

from tlbench.analysis import raced
from tlbench.campaign import journal
from tlbench.campaign.steps import as_measured, left, steps
from tlbench.campaign.unfinished import unfinished
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records.holder import LOCK, Holder
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load

NAMES = [f"resnet18-{freeze}-linear-digits-cpu-s{seed}" for freeze in ("linear_probe", "full") for seed in (0, 1, 2)]


@pytest.fixture
def half(tmp_path):
    """A run of six cells, of which three have a record: one of them has failed."""
    one = campaign(tmp_path / "run")
    for step, status in zip(one.planned, ["ok", "ok", "failed"], strict=False):
        made = record(freeze=step.cell.freeze)
        one.take(replace(made, id=step.name, cell=step.cell, settings=one.plan.settings, status=status))
    one.release()
    return tmp_path / "run"


def told(folder, **changes):
    """Writes what a driver would, that measures the run now."""
    now = time.time()
    plain = {
        "engine": "ray", "slots": 2, "began": now - 100, "updated": now, "planned": 6, "done": 3, "left": 3,
        "statuses": {"ok": 2, "failed": 1}, "seconds_left": 120.0, "ended": "",
        "running": [
            {"name": NAMES[3], "block": 0, "node": "gpu-7/ab12cd34", "since": now - 61},
            {"name": NAMES[4], "block": 1, "node": "", "since": now - 5},
        ],
    }  # fmt: skip
    (folder / journal.FILE).write_text(json.dumps({**plain, **changes}))


@pytest.fixture
def held(half):
    holder = Holder(half)
    yield half
    holder.release()


def test_a_run_that_is_measured(held, command):
    told(held)
    before = {path: path.read_bytes() for path in held.iterdir()}
    status, out, err = command("status", held)
    assert (status, err) == (0, "")
    done, by, first, second, left = out.splitlines()
    assert done == "2 of 6 measurements are done, 4 left (2 ok, 1 failed)"
    assert by.startswith(f"Measured by process {os.getpid()} on host ")
    assert by.endswith(", by the engine ray, up to 2 cells at a time")
    assert re.fullmatch(rf"  {NAMES[3]} on gpu-7/ab12cd34, for 1:\d\d", first)
    assert re.fullmatch(rf"  {NAMES[4]} block 1, for 0:\d\d", second)
    assert re.fullmatch(r"About [12]:\d\d left, until \d\d:\d\d", left)
    assert {path: path.read_bytes() for path in held.iterdir()} == before


def test_what_is_measured_a_second_time_is_said_in_words(held, command):
    told(held, running=[{"name": f"A/A {NAMES[0]}", "block": 0, "node": "gpu-7", "since": time.time()}])
    _, out, _ = command("status", held)
    assert "A/A" not in out
    assert f"  {NAMES[0]} (measured a second time, to see the noise) on gpu-7, for 0:0" in out


def test_more_cells_than_fit_on_a_screen_are_counted(held, command):
    now = time.time()
    told(held, running=[{"name": f"cell {n}", "block": 0, "node": "", "since": now} for n in range(1000)])
    _, out, _ = command("status", held)
    assert "\n  cell 39, for 0:0" in out
    assert "  and 960 more" in out
    assert "cell 40" not in out


def test_words_that_are_old_are_said_to_be(held, command):
    told(held, updated=time.time() - 3600)
    _, out, _ = command("status", held)
    assert "(as of 1:00:0" in out


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"ended": ""}', '{"engine": 3, "slots": "x"}'])
def test_words_that_cannot_be_read_cost_only_themselves(text, held, command):
    (held / journal.FILE).write_text(text)
    status, out, err = command("status", held)
    assert (status, err) == (0, "")
    assert out.startswith("2 of 6 measurements are done")
    assert f"Measured by process {os.getpid()}" in out


def test_a_run_that_nobody_measures(half, command):
    told(half)
    status, out, err = command("status", half)
    assert (status, err) == (1, "")
    assert out.splitlines()[1:] == ["No process measures it now", f"To go on: tlbench run --resume {half}"]


@pytest.mark.parametrize(("age", "status"), [(5, 0), (3600, 1)])
def test_where_there_are_no_locks_what_was_written_last_tells(age, status, held, command, monkeypatch):
    monkeypatch.setattr("tlbench.machine.locks.try_lock", lambda file: None)
    told(held, updated=time.time() - age)
    os.utime(held / LOCK, (1e9, 1e9))
    given, out, err = command("status", held)
    assert (given, err) == (status, "")
    if age == 5:
        assert f"\nMeasured by process {os.getpid()} on host " in out
        assert f"\n  {NAMES[3]} on gpu-7/" in out
        assert re.search(r"\n\(its file system has no locks; .* wrote 0:0\d ago\)\n", out)
    else:
        assert f"cannot be told: its file system has no locks, and process {os.getpid()} on host " in out
        assert "No process measures it now" not in out
    (held / LOCK).unlink()
    assert "No process measures it now" in command("status", held)[1]


def test_a_run_that_has_just_begun(tmp_path, command):
    one = campaign(tmp_path / "run")
    _ = one.store
    status, out, _ = command("status", tmp_path / "run")
    assert status == 0
    assert out.startswith("0 of 6 measurements are done, 6 left\nMeasured by process ")
    one.release()


def test_a_run_that_is_finished(tmp_path, command):
    one = campaign(tmp_path / "run")
    assert one.run(engine=Made()) is None
    assert journal.read(tmp_path / "run").ended == "finished"
    status, out, _ = command("status", tmp_path / "run")
    assert (status, out) == (0, "6 of 6 measurements are done, 0 left (6 ok)\nIt is finished\n")


def test_a_run_whose_policy_of_a_plugin_fixes_the_weights_is_finished_without_the_plugin(tmp_path):
    """It asks for `auto`, and its records have `random`: all of it seemed to be left."""
    plan = Plan(
        grids=(Grid(axes={"freeze": ("from_noise", "linear_probe"), "weights": ("auto",)}),), settings=Settings()
    )
    records = [
        replace(record(freeze=step.cell.freeze), cell=replace(step.cell, weights=weights))
        for step, weights in zip(steps(plan), ("random", "auto"), strict=True)
    ]
    assert left(steps(plan), records)
    assert left(as_measured(plan, records), records) == []
    assert [step.cell.freeze for step in left(as_measured(plan, records[1:]), records[1:])] == ["from_noise"]
    known = [replace(one, cell=replace(one.cell, freeze="full", weights="random")) for one in records[:1]]
    assert len(left(as_measured(plan, known), known)) == 2, "a policy that is known here fixes what it fixes"


def test_that_what_a_race_has_come_to_cannot_be_read_is_said(tmp_path):
    """Cells that it had given up were weighed with the others, and nobody was told."""
    one = campaign(tmp_path / "run")
    _ = one.store
    one.release()
    name = str(tmp_path / "run")
    assert "are not finished" in unfinished([record()], [name])[0]
    (tmp_path / "run" / raced.FILE).write_text("{")
    assert unfinished([record()], [name]) == [
        f"{name}: its race.json cannot be read, so that cells that the race gave up are weighed with the others"
    ]


def test_what_a_driver_writes_while_it_measures(tmp_path, monkeypatch, command):
    monkeypatch.setattr(journal, "LEAST_SECONDS", 0)
    monkeypatch.setattr(journal, "SHARE", 1000)
    seen = []

    class Looking(Made):
        def wait(self, seconds):
            if (tmp_path / "run" / journal.FILE).exists():
                seen.append(command("status", tmp_path / "run")[1])
            return super().wait(seconds)

    one = campaign(tmp_path / "run")
    assert one.run(engine=Looking(nodes=2)) is None
    assert any("by the engine" in text and " on node1, for 0:0" in text for text in seen)
    counts = [int(text.split()[0]) for text in seen]
    assert counts == sorted(counts)


def test_there_is_no_such_run(command, tmp_path):
    for name in ("none-such", tmp_path):
        status, out, err = command("status", name)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_run_of_another_process_and_after_it_was_killed(tmp_path, command):
    process = begin(run, [*GRID, "--out", tmp_path / "run"], tmp_path / "cache", tmp_path / "log", 0.5)
    try:
        records = tmp_path / "run" / "records.jsonl"
        until = time.monotonic() + 120
        while not (records.exists() and records.read_bytes().count(b"\n") >= 1):
            assert process.is_alive(), (tmp_path / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        status, out, err = command("status", tmp_path / "run")
        assert (status, err) == (0, "")
        assert f" of {CELLS} measurements are done, " in out
        assert f"Measured by process {process.pid} on host " in out
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.join()
    status, out, err = command("status", tmp_path / "run")
    assert (status, err) == (1, "")
    assert "No process measures it now" in out
    assert len(load(tmp_path / "run").records) == int(out.split()[0])


def test_a_run_may_be_named_by_its_records(half, command, monkeypatch):
    assert command("status", half / "records.jsonl")[1] == command("status", half)[1]
    shutil.rmtree(half)
    assert command("status", half)[0] == 2


def test_what_was_measured_again_counts_once(half, command):
    """Seven of six measurements were done, one of them a failure that was no more."""
    store = Store(half)
    records = load(half).records
    left = [one for one in NAMES if one not in {r.id for r in records if r.status == "ok"}]
    again = {r.id: r for r in records}
    for name in left:
        freeze, seed = name.split("-")[1], int(name[-1])
        cell = replace(again[NAMES[0]].cell, freeze=freeze, seed=seed)
        store.append(replace(record(freeze=freeze, seed=seed), id=name, cell=cell))
    out = command("status", half)[1]
    assert "6 of 6 measurements are done, 0 left (6 ok)" in out
