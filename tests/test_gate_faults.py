"""What made a gate of compare pass, fail or stop where it should not have: copies, seeds, lost and impossible figures,
a reader that is gone.

One file, since all of it is what one gate answers, by the same hand-made sides.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from records import record

from tlbench.analysis.compare import compare, parse_gate
from tlbench.analysis.frame import load
from tlbench.analysis.sides import read_runs
from tlbench.analysis.stats import ANYTHING, Interval
from tlbench.records.counting import read_together
from tlbench.records.run_folder import Store
from tlbench.report import wording

ACCURACY = ("--fail-on", "accuracy_test:1%")
CELL = "train[{}-s{}]"


def store(folder, records):
    made = Store(folder)
    for one in records:
        made.append(replace(one, started=folder.name) if one.started.startswith("2026") else one)
    return folder


def seeds(accuracies, **changed):
    return [
        replace(record(seed=seed, seconds=(1 + seed / 100,) * 3, **changed), accuracy_test=accuracy)
        for seed, accuracy in accuracies.items()
    ]


def benchmarks(path, tests, median=1.0):
    """pytest-benchmark's JSON of tests: (cell, seed) -> extra_info."""
    found = [
        {"fullname": CELL.format(*name), "extra_info": extra, "stats": {"median": median}}
        for name, extra in tests.items()
    ]
    path.write_text(json.dumps({"datetime": path.name, "machine_info": {}, "benchmarks": found}))
    return path


def gated(base, new, *gates):
    sides = ([run for path in paths for run in read_runs(path)] for paths in (base, new))
    return compare(*sides, [parse_gate(gate) for gate in gates])


# --- copies ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sped(tmp_path):
    """One seed in two precisions, which say nothing of a speed-up."""
    return store(
        tmp_path / "sp", [record(precision=name, seconds=(s,) * 3) for name, s in (("fp32", 2.0), ("bf16", 1.0))]
    )


def test_a_copy_does_not_turn_cannot_say_into_a_pass(sped, tmp_path, command):
    copy = shutil.copytree(sped, tmp_path / "copy")
    gate = ("--axis", "precision", "--min", "0.1")
    status, alone, _ = command("speedup", sped, *gate)
    assert status == 2
    status, out, err = command("speedup", sped, copy, *gate)
    assert (status, out) == (2, alone)
    assert err == f"tlbench: '{copy}' repeats 2 records of '{sped}'; each counts once\n"


@pytest.mark.parametrize("name", ["summary", "efficiency", "export", "recommend", "report"])
def test_a_copy_counts_once_in_whatever_reads_several_runs(name, tmp_path, command):
    run = store(tmp_path / "run", [*seeds({0: 0.8, 1: 0.9}, freeze="full"), *seeds({0: 0.7, 1: 0.8})])
    copy = shutil.copytree(run, tmp_path / "copy")
    out = [("--out", tmp_path / n) if name == "report" else () for n in "ab"]
    alone, both = command(name, run, *out[0]), command(name, run, copy, *out[1])
    assert both[0] == alone[0]
    assert "repeats 4 records of" in both[2]
    if name == "report":
        assert (tmp_path / "b" / "report.csv").read_text() == (tmp_path / "a" / "report.csv").read_text()
    else:
        assert both[1] == alone[1]


def test_of_a_copy_that_was_resumed_what_is_new_counts(tmp_path):
    run = store(tmp_path / "run", seeds({0: 0.8, 1: 0.9}))
    copy = shutil.copytree(run, tmp_path / "copy")
    for one in seeds({2: 0.7}):
        Store(copy).append(replace(one, started="later"))
    together = read_together([run, copy])
    assert [r.cell.seed for r in together.records] == [0, 1, 2]
    assert together.runs == [str(run), str(run), str(copy)]
    with pytest.warns(UserWarning, match="repeats 2 records of .*; each counts once"):
        assert len(load(run, copy)) == 3


def test_what_a_copy_measured_anew_does_not_count_in_the_original(tmp_path):
    run = store(tmp_path / "run", [replace(r, status="failed", reason="x") for r in seeds({0: 0.8})])
    copy = shutil.copytree(run, tmp_path / "copy")
    Store(copy).append(replace(seeds({0: 0.9})[0], started="later"))
    together = read_together([run, copy])
    assert [(r.status, r.started) for r in together.records] == [("ok", "later")]
    assert any("superseded by later measurements in a copy of it" in line for line in together.notes)


def test_a_line_that_stands_twice_in_a_run_is_not_taken_for_one_that_was_replaced(tmp_path):
    run, other = (store(tmp_path / name, seeds({0: 0.8})) for name in ("run", "other"))
    records = run / "records.jsonl"
    records.write_bytes(2 * records.read_bytes())
    assert len(read_together([run, other]).records) == 2


def test_two_copies_that_went_on_with_seeds_of_their_own_share_what_they_began_with(tmp_path, command):
    run = store(tmp_path / "run", seeds({0: 0.8, 1: 0.9}))
    copies = [shutil.copytree(run, tmp_path / name) for name in ("one", "two")]
    for number, copy in enumerate(copies):
        Store(copy).append(replace(seeds({5 + number: 0.7})[0], started=copy.name))
    status, _, err = command("compare", *copies, *ACCURACY)
    assert status == 2
    assert "share measurements (2 of them)" in err
    assert len(err.splitlines()) == 1


def test_equal_figures_of_one_test_without_a_date_are_no_copy(tmp_path, command):
    paths = [
        benchmarks(tmp_path / f"{name}.json", {("x", 0): {"accuracy_test": a}, ("y", 0): {"accuracy_test": 0.5}})
        for name, a in (("a", 0.5), ("b", 0.6))
    ]
    for number, path in enumerate(paths):
        data = json.loads(path.read_text())
        data["benchmarks"][1]["stats"]["median"] += number
        path.write_text(json.dumps({**data, "datetime": None}))
    assert "share" not in command("compare", *paths)[2]


# --- seeds ----------------------------------------------------------------------------------------------------


def test_accuracies_that_changed_places_are_not_identical(tmp_path, command):
    old = benchmarks(tmp_path / "a.json", {("x", s): {"accuracy_test": a} for s, a in ((0, 0.5), (1, 0.6))})
    new = benchmarks(tmp_path / "b.json", {("x", s): {"accuracy_test": a} for s, a in ((0, 0.6), (1, 0.5))})
    status, out, _ = command("compare", old, new, *ACCURACY)
    assert status == 2
    assert "identical" not in out
    assert command("compare", old, _dated(old, "c.json"), *ACCURACY)[0] == 0


def _dated(path, name):
    data = json.loads(path.read_text())
    other = path.parent / name
    other.write_text(json.dumps({**data, "datetime": name}))
    return other


def test_identical_holds_for_every_run_of_either_side(tmp_path):
    """The first runs agree; the second ones do not, though their mean is the same."""
    runs = {
        name: [store(tmp_path / f"{name}{n}", [replace(r, predictions_sha256=f"{r.cell.seed}{sha}")
                                               for r in seeds({0: 0.8, 1: 0.9})])
               for n, sha in enumerate(hashes)]
        for name, hashes in {"base": "xy", "new": "xz", "like": "xx", "alike": "xx"}.items()
    }  # fmt: skip
    assert gated(runs["base"], runs["new"], "accuracy_test:0%").exit_status == 2
    assert gated(runs["like"], runs["alike"], "accuracy_test:0%").exit_status == 0


def test_what_is_shown_of_an_accuracy_is_over_the_seeds_that_both_sides_have(tmp_path, command):
    accuracies = {0: 0.80, 1: 0.82, 2: 0.90, 3: 0.91, 4: 0.92}
    old = store(tmp_path / "old", seeds(accuracies))
    new = store(tmp_path / "new", seeds({0: 0.82, 1: 0.80}))
    found = gated([old], [new])
    (change,) = [c for c in found.changes if c.metric == "accuracy_test"]
    assert (change.base, change.new) == (pytest.approx(0.81), pytest.approx(0.81))
    assert change.effect.estimate == pytest.approx(0)
    assert found.overall["accuracy_test"].estimate == pytest.approx(0)
    out = " ".join(command("compare", old, new)[1].split())
    assert "test accuracy is over the seeds that both sides have, without 2, 3, 4 of the base" in out
    one = store(tmp_path / "one", seeds({0: 0.7, 9: 0.9}))
    (change,) = [c for c in gated([new], [one]).changes if c.metric == "accuracy_test"]
    assert change.reason.startswith("one seed is shared by both sides")
    assert (change.base, change.new) == (0.82, 0.7)


# --- figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_a_cell_that_lost_the_gated_figure_is_no_pass(order, tmp_path, command):
    both = {(cell, seed): {"accuracy_test": 0.9} for cell in "xy" for seed in (0, 1)}
    old = benchmarks(tmp_path / "old.json", both)
    new = benchmarks(tmp_path / "new.json", {key: extra if key[0] == "x" else {} for key, extra in both.items()})
    status, out, _ = command("compare", *(old, new)[::order], *ACCURACY)
    assert status == 2
    told = "".join(out.split())  # a long path is broken wherever the line ends
    for begin in ("Cannot decide", "Figures are missing"):
        assert "".join(f"{begin}: no accuracy_test in {new}: train[y]".split()) in told


def test_a_validation_accuracy_alone_is_compared(tmp_path, command):
    tests = {("x", seed): {"accuracy_val": 0.9} for seed in (0, 1)}
    old, new = (benchmarks(tmp_path / f"{name}.json", tests) for name in "ab")
    assert command("compare", old, new, "--fail-on", "accuracy_val:1%")[0] == 0
    one = {("x", 0): {"accuracy_val": 0.9}}
    old, new = (benchmarks(tmp_path / f"{name}.json", one) for name in "cd")
    assert command("compare", old, new, "--fail-on", "accuracy_val:1%")[0] == 2


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("images_per_second", 0),
        ("images_per_second", -3),
        ("images_per_second", 10**400),
        ("peak_memory_bytes", -(10**400)),
        ("latency_p50_ms", math.inf),
        ("accuracy_test", 10**400),
        ("accuracy_test", 90),
        ("accuracy_test", -0.1),
        ("median", 10**400),
        ("median", 0),
    ],
    ids=lambda value: str(value)[:9],
)
def test_a_figure_that_cannot_be_is_one_line(metric, value, tmp_path, command):
    good = benchmarks(tmp_path / "good.json", {("x", 0): {}})
    extra, median = ({}, value) if metric == "median" else ({metric: value}, 1.0)
    bad = benchmarks(tmp_path / "bad.json", {("x", 0): extra}, median)
    for paths in ((good, bad), (bad, good)):
        status, _, err = command("compare", *paths, "--fail-on", "epoch_seconds:5%")
        assert status == 2
        assert len(err.splitlines()) == 1
        assert len(err) < 400
        for part in (str(bad), CELL.format("x", 0), metric, str(value)[:30]):
            assert part in err


@pytest.mark.parametrize("machine", ["x", ["x"], 3])
def test_a_machine_that_is_no_table(machine, tmp_path, command):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": []}))
    status, _, err = command("compare", path, path)
    assert status == 2
    assert "is not pytest-benchmark's JSON" in err


def test_a_record_whose_time_is_nothing_is_one_line(tmp_path, command):
    old, new = store(tmp_path / "old", seeds({0: 0.8})), store(tmp_path / "new", [record(seconds=(0.0,) * 3)])
    status, _, err = command("compare", old, new)
    assert status == 2
    assert "epoch_seconds of" in err
    assert len(err.splitlines()) == 1


# --- a reader that is gone ------------------------------------------------------------------------------------


def closed(*arguments, both=False):
    """The exit status and the errors of a command whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from tlbench.cli import main; main()"
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=out,
            stderr=out if both else subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("form", [(), ("--json",), ("--markdown",)])
def test_a_closed_pipe_does_not_change_the_answer_of_a_gate(form, tmp_path):
    tests = {(f"cell{n}", seed): {"accuracy_test": 0.9} for n in range(60) for seed in range(4)}
    old, new = (benchmarks(tmp_path / f"{name}.json", tests) for name in "ab")
    worse = {key: {"accuracy_test": 0.5 + 0.001 * key[1]} for key in tests}
    bad = benchmarks(tmp_path / "c.json", worse)
    assert closed("compare", old, new, *ACCURACY, *form) == (0, "")
    assert closed("compare", old, bad, *ACCURACY, *form)[0] == 1
    assert closed("compare", old, new, "--fail-on", "epoch_seconds:5%", *form, both=True)[0] == 2


@pytest.mark.parametrize("name", ["summary", "export", "list", "speedup"])
def test_a_closed_pipe_is_no_failure_of_other_commands(name, sped):
    arguments = ("backbones",) if name == "list" else (sped, "--axis", "precision") if name == "speedup" else (sped,)
    assert closed(name, *arguments) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(sped):
    code = "from tlbench.cli import main; main()"
    with open("/dev/full", "wb") as out:
        done = subprocess.run([sys.executable, "-c", code, "export", str(sped)], stdout=out, stderr=subprocess.PIPE,
                              text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "tlbench: cannot write to standard output: No space left on device\n"


# --- words ----------------------------------------------------------------------------------------------------


def test_an_interval_that_says_nothing_is_words(tmp_path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def of(low, high):
        return wording.ratio(Interval(estimate=0.529, low=low, high=high, n=2))

    assert of(1.94e-8, 14_431_466) == f"0.529 ({ANYTHING})"
    assert of(0.0053, 52.8) == "0.529 (0.00530 to 52.8)"
    old, new = (store(tmp_path / f"o{n}", seeds({0: a, 1: b})) for n, a, b in ((0, 0.1, 0.9), (1, 0.9, 0.1)))
    assert ANYTHING in command("compare", old, new)[1]
    slow = [record(seconds=(s,) * 3, seed=n) for n, s in enumerate((1.0, 90.0))]
    fast = [record(seconds=(s,) * 3, seed=n, precision="bf16") for n, s in enumerate((40.0, 0.1))]
    out = command("speedup", store(tmp_path / "wide", [*slow, *fast]), "--axis", "precision", "--min", "2")[1]
    assert out.count(ANYTHING) == 2


def test_rows_of_efficiency_and_speedup_have_names_of_their_own(tmp_path, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    made = [
        record(freeze=freeze, precision=precision, image_size=size, seconds=(s,) * 3, flops={"train_step": {freeze: f}})
        for precision in ("fp32", "bf16")
        for size in (32, 64)
        for freeze, s, f in (("full", 3.0, 3e9), ("norm", 2.9, 1e9))
    ]
    run = store(tmp_path / "run", made)
    out = command("efficiency", run)[1]
    for precision in ("fp32", "bf16"):
        for size in (32, 64):
            assert out.count(f"norm · linear · {precision} · {size} px") == 1
    out = " ".join(command("speedup", run, "--axis", "precision")[1].split())
    for size in (32, 64):
        assert out.count(f"norm · linear · {size} px") == 1


# --- files of another kind ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [("table.csv", "which is a table in CSV, not a run"), ("copy.jsonl", "the first of its 500 lines")],
)
def test_a_file_of_another_kind_is_one_line(name, said, tmp_path, command):
    other = tmp_path / name
    other.write_text("a,b\n" * 500, encoding="utf-8")
    status, out, err = command("summary", other)
    assert status == 2
    assert out == ""
    assert "no records in" in err
    assert said in err
    assert len(err.splitlines()) == 1


def test_of_many_damaged_lines_the_first_are_named(tmp_path, command):
    store = Store(tmp_path / "run")
    store.append(record())
    with (store.folder / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write("no record\n" * 50)
    status, _, err = command("summary", store.folder)
    assert status == 0
    assert err.count("set aside") == 4
    assert "set aside 47 more such lines" in err
