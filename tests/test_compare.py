"""Run against run: what changed, what cannot be told, what matches nothing, and the exit status of a gate."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import example_run, failure, record

from tlbench.analysis.compare import Gate, compare, parse_gate
from tlbench.analysis.sides import METRICS, read_run
from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.records.run_folder import Store

TIMES = (1.00, 1.01, 0.99)


def store(folder, records):
    made = Store(folder)
    for one in records:
        made.append(one)
    return folder


def cells(factor=None, seeds=(0, 1, 2), **changed):
    """Two policies over three seeds and an A/A pair; ``factor`` slows one policy down."""
    made = [
        record(
            seconds=(time * (factor if factor and policy == "full" else 1),) * 3, freeze=policy, seed=seed,
            accuracies=(0.1, 0.2, 0.9 + seed / 100), **changed,
        )
        for policy in ("linear_probe", "full")
        for seed, time in zip(seeds, TIMES, strict=False)
    ]  # fmt: skip
    twins = [
        record(seconds=(time,) * 3, role="aa", seed=9, block=block) for block in (0, 1, 2) for time in (1.0, 1.001)
    ]
    return [*made, *twins]


@pytest.fixture
def base(tmp_path):
    return store(tmp_path / "base", cells())


# --- the gate -------------------------------------------------------------------------------------------------


def test_a_run_compared_with_itself_has_not_changed(base, command):
    status, out, _ = command("compare", base, base, "--fail-on", "epoch_seconds:1%", "--fail-on", "accuracy_test:0.1%")
    assert status == 0
    assert "Regression" not in out
    assert "0 worse, 0 better, 2 same, 0 cannot say" in out


def test_a_run_of_one_seed_compared_with_itself_has_not_changed(tmp_path, command):
    single = store(tmp_path / "single", example_run(seeds=(0,)))
    status, out, _ = command("compare", single, single, "--fail-on", "epoch_seconds:1%")
    assert status == 0
    assert "0 cannot say" in out


def test_a_planted_slowdown_fails_and_names_the_right_cells(base, tmp_path, command):
    new = store(tmp_path / "new", cells(factor=1.2))
    found = compare(read_run(base), read_run(new), [parse_gate("epoch_seconds:10%")])
    assert found.exit_status == 1
    assert [change.cell for change in found.regressions] == ["train resnet18 · full · linear · digits · cpu · epochs=3"]
    assert found.regressions[0].worse_by == pytest.approx(0.2)
    verdicts = {(c.cell.split(" · ")[1], c.metric): c.verdict for c in found.changes}
    assert verdicts == {("full", "epoch_seconds"): "worse", ("linear_probe", "epoch_seconds"): "same"}
    status, out, _ = command("compare", base, new, "--fail-on", "epoch_seconds:10%")
    assert status == 1
    assert "Regression: epoch_seconds of train resnet18 · full" in " ".join(out.split())
    assert command("compare", base, new, "--fail-on", "epoch_seconds:30%")[0] == 0
    assert command("compare", base, new)[0] == 0


def test_getting_faster_is_no_regression(base, tmp_path, command):
    new = store(tmp_path / "new", cells(factor=0.5))
    status, out, _ = command(
        "compare", base, new, "--fail-on", "epoch_seconds:10%", "--fail-on", "images_per_second:10%"
    )
    assert status == 0
    assert "1 better" in out


def test_fewer_images_a_second_is_a_regression(base, tmp_path):
    new = store(tmp_path / "new", cells(factor=1.25))
    found = compare(read_run(base), read_run(new), [parse_gate("images_per_second:20%")])
    assert found.exit_status == 1
    assert found.regressions[0].effect.estimate == pytest.approx(0.8)
    assert found.regressions[0].worse_by == pytest.approx(0.25)


def test_renamed_cells_cannot_be_compared(base, tmp_path, command):
    new = store(tmp_path / "new", cells(backbone="vgg16"))
    status, _, err = command("compare", base, new)
    assert status == 2
    assert "no cell of" in err
    assert "resnet18" in err
    assert "vgg16" in err


TRAINED_OTHERWISE = {"train_size": (100,), "lr": (0.01,), "optimizer": ("sgd",), "fused": ("off",), "seed": (3, 4)}


@pytest.mark.parametrize("name", TRAINED_OTHERWISE)
def test_inference_is_compared_whatever_was_trained_beside_it(tmp_path, name):
    """Of two runs whose grids differ in an axis of training, as `Grid.expand` leaves it in their inference cells."""

    def run(folder, axes):
        grid = Grid(axes={"task": ("train", "infer"), "epochs": (3,), **axes})
        return store(
            tmp_path / folder,
            [
                replace(record(task=cell.task, latency=[0.01] * 30 if cell.task == "infer" else ()), cell=cell)
                for cell in grid.expand()
            ],
        )

    found = compare(read_run(run("base", {name: TRAINED_OTHERWISE[name]})), read_run(run("new", {})), noise_floor=0.05)
    compared = {change.cell.split(" ", 1)[0] for change in found.changes}
    trained = [one for one in (*found.only_base, *found.only_new) if one.startswith("train ")]
    if name == "seed":  # of which a configuration is an average
        assert compared == {"train", "infer"}
        assert trained == []
    else:
        assert compared == {"infer"}
        assert len(trained) == 2
    assert not [one for one in (*found.only_base, *found.only_new) if one.startswith("infer ")]


def test_a_cell_without_a_partner_is_listed_and_fails_a_gate(base, tmp_path, command):
    fewer = store(tmp_path / "fewer", [r for r in cells() if r.cell.freeze != "full"])
    for old, new, side in ((base, fewer, "base"), (fewer, base, "new run")):
        status, out, _ = command("compare", old, new, "--fail-on", "epoch_seconds:10%")
        assert status == 2
        assert f"Only in the {side}: train resnet18 · full" in " ".join(out.split())
        assert command("compare", old, new)[0] == 0


def test_a_cell_that_failed_is_no_pass(base, tmp_path, command):
    records = [r for r in cells() if r.cell.freeze != "full"]
    records += [
        failure("oom", "batch size 32: out of memory", freeze="full", epochs=3, seed=seed) for seed in (0, 1, 2)
    ]
    status, out, _ = command("compare", base, store(tmp_path / "new", records), "--fail-on", "epoch_seconds:10%")
    assert status == 2
    assert "out of memory" in out


def test_one_value_a_side_cannot_be_judged(tmp_path, command):
    """Two records that differ by a fifth, but nothing that tells how far apart equal ones come out."""
    old = store(tmp_path / "old", cells(seeds=(0,)))
    new = store(tmp_path / "new", cells(seeds=(0,), factor=1.2))
    status, out, _ = command("compare", old, new, "--fail-on", "epoch_seconds:10%")
    assert status == 2
    assert "measure 3 blocks or more" in " ".join(out.split())


def test_without_a_noise_floor_nothing_is_called_changed_unless_one_is_given(tmp_path, command):
    old = store(tmp_path / "old", [r for r in cells() if r.role != "aa"])
    new = store(tmp_path / "new", [r for r in cells(factor=1.2) if r.role != "aa"])
    gate = ("--fail-on", "epoch_seconds:10%")
    status, out, _ = command("compare", old, new, *gate)
    assert status == 2
    assert "no A/A pair tells the noise floor" in " ".join(out.split())
    assert command("compare", old, new, *gate, "--noise-floor", "5%")[0] == 1
    assert command("compare", old, new, *gate, "--noise-floor", "25%")[0] == 0


def test_the_larger_noise_floor_of_two_runs_counts(base, tmp_path):
    wide = [replace(r, rounds=tuple(replace(x, seconds=1.3) for x in r.rounds)) if r.role == "aa" and n % 2 else r
            for n, r in enumerate(cells(factor=1.2))]  # fmt: skip
    new = read_run(store(tmp_path / "new", wide))
    assert min(new.floors.values()) > 0.3 > max(read_run(base).floors.values())
    found = compare(read_run(base), new, [parse_gate("epoch_seconds:10%")])
    assert found.floors == new.floors
    assert not found.regressions


def test_a_noisy_device_does_not_hide_a_change_on_a_quiet_one(tmp_path):
    def both(factor):
        quiet = [record(seconds=(t * factor,) * 3, device="cuda", seed=n) for n, t in enumerate(TIMES)]
        twins = [
            record(seconds=(t,) * 3, device=d, role="aa")
            for d, wide in (("cuda", 1.001), ("cpu", 1.5))
            for t in (1.0, wide)
        ]
        return [*quiet, *twins, *(record(seconds=(t * factor,) * 3, seed=n) for n, t in enumerate(TIMES))]

    old, new = (read_run(store(tmp_path / name, both(factor))) for name, factor in (("old", 1.0), ("new", 1.2)))
    found = compare(old, new, [parse_gate("epoch_seconds:10%")])
    assert ["cuda" in change.cell for change in found.regressions] == [True]


def test_an_accuracy_that_dropped_on_every_seed(base, tmp_path):
    worse = [replace(r, accuracy_test=r.accuracy_test - 0.05) if r.cell.freeze == "full" else r for r in cells()]
    new = read_run(store(tmp_path / "new", worse))
    found = compare(read_run(base), new, [parse_gate("accuracy_test:2%")])
    assert found.exit_status == 1
    assert [(c.cell.split(" · ")[1], c.metric) for c in found.regressions] == [("full", "accuracy_test")]
    assert found.regressions[0].effect.estimate == pytest.approx(-0.05)
    assert compare(read_run(base), new, [parse_gate("accuracy_test:6%")]).exit_status == 0


def test_a_metric_that_no_cell_has(base):
    found = compare(read_run(base), read_run(base), [Gate(metric="latency_p95_ms", limit=0.1)])
    assert found.exit_status == 2
    assert found.undecided == ("no cell has latency_p95_ms in both runs",)


def test_what_differs_between_the_machines_is_said(base, tmp_path, command):
    environment = record().environment
    other = {**environment, "stable": {**environment["stable"], "torch": "2.12.0"}}
    new = store(tmp_path / "new", cells(environment=other))
    _, out, _ = command("compare", base, new)
    assert "Not the same machine: torch was 2.11.0, is 2.12.0" in out


def test_ratio_and_interval_worked_out_by_hand(base, tmp_path):
    """Welch's interval on the logs of three values a side, equal spreads: t with 4 degrees of freedom is 2.7764."""
    new = read_run(store(tmp_path / "new", cells(factor=1.2)))
    found = compare(read_run(base), new, noise_floor=0.01)
    change = next(c for c in found.changes if "full" in c.cell and c.metric == "epoch_seconds")
    logs = [math.log(t) for t in TIMES]
    centre = sum(logs) / 3
    variance = sum((x - centre) ** 2 for x in logs) / 2
    half = 2.776445 * math.sqrt(2 * variance / 3)
    assert change.effect.low == pytest.approx(1.2 * math.exp(-half))
    assert change.effect.high == pytest.approx(1.2 * math.exp(half))
    assert found.overall["epoch_seconds"].estimate == pytest.approx(math.sqrt(1.2))


@pytest.mark.parametrize(
    "text", ["epoch_seconds", "epoch_seconds:", "epoch_seconds:ten%", "epoch_seconds:10", "epoch_seconds:-5%"]
)
def test_a_gate_that_is_no_percentage(base, command, text):
    status, _, err = command("compare", base, base, "--fail-on", text)
    assert status == 2
    assert "write it as 'epoch_seconds:10%'" in err


def test_a_gate_on_an_unknown_metric_names_the_nearest(base, command):
    status, _, err = command("compare", base, base, "--fail-on", "epoch_secnds:10%")
    assert status == 2
    assert "did you mean 'epoch_seconds'" in err


@given(st.text(max_size=30))
def test_any_gate_is_a_gate_or_a_user_error(text):
    try:
        gate = parse_gate(text)
    except UserError:
        return
    assert gate.metric in METRICS
    assert gate.limit >= 0


# --- pytest-benchmark's JSON ----------------------------------------------------------------------------------


def benchmarks(path, factor=1.0, seeds=(0, 1, 2), name="train[resnet18-full-linear-digits-cpu-s{}]"):
    """The part of pytest-benchmark's JSON that is read, as version 5 writes it."""
    found = [
        {
            "group": "train", "name": name.format(seed), "fullname": f"bench/test_train.py::{name.format(seed)}",
            "extra_info": {"accuracy_test": 0.9, "status": "ok"},
            "stats": {"min": 1, "max": 2, "mean": time * factor, "median": time * factor, "rounds": 3, "iqr": 0.1},
        }
        for seed, time in zip(seeds, TIMES, strict=False)
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine_info": {"node": "a", "cpu": {"brand": "x"}}, "benchmarks": found, "version": "5.1.0"})
    )
    return path


def test_seeds_of_pytest_benchmarks_json_are_the_values_of_a_cell(tmp_path, command):
    old = benchmarks(tmp_path / "old.json")
    new = benchmarks(tmp_path / "new.json", factor=1.5)
    run = read_run(old)
    assert list(run.values) == ["bench/test_train.py::train[resnet18-full-linear-digits-cpu]"]
    gate = ("--fail-on", "epoch_seconds:10%", "--noise-floor", "5%")
    assert command("compare", old, old, *gate)[0] == 0
    assert command("compare", old, new, *gate)[0] == 1
    assert command("compare", new, old, *gate)[0] == 0


def test_a_folder_of_json_files_is_a_block_a_file(tmp_path, command):
    for n, factor in enumerate((1.0, 1.01, 0.99)):
        benchmarks(tmp_path / "old" / f"{n}.json", factor, seeds=(0,), name="test_x")
        benchmarks(tmp_path / "new" / f"{n}.json", 2 * factor, seeds=(0,), name="test_x")
    gate = ("--fail-on", "epoch_seconds:10%", "--noise-floor", "5%")
    assert command("compare", tmp_path / "old", tmp_path / "new", *gate)[0] == 1


def test_renamed_tests_cannot_be_compared(tmp_path, command):
    old = benchmarks(tmp_path / "old.json")
    new = benchmarks(tmp_path / "new.json", name="train[other-s{}]")
    assert command("compare", old, new)[0] == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"benchmarks": []}',
        '{"benchmarks": [{}]}',
        '{"benchmarks": [{"fullname": 3, "stats": {"median": 1}}]}',
        '{"benchmarks": [{"fullname": "x", "stats": {"median": NaN}}]}',
        '{"benchmarks": [{"fullname": "x", "stats": {"median": "1"}}]}',
    ],
)
def test_what_is_no_json_of_pytest_benchmark(tmp_path, command, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    status, _, err = command("compare", path, path)
    assert status == 2
    assert str(path) in err
    assert len(err.strip().splitlines()) == 1


def test_a_missing_file(tmp_path, command):
    status, _, err = command("compare", tmp_path / "none.json", tmp_path / "none.json")
    assert status == 2
    assert "cannot read" in err
    status, _, err = command("compare", tmp_path / "none", tmp_path / "none")
    assert status == 2
    assert "cannot read run" in err
