"""Speed-ups of matched cells, worked out by hand, and the gate on them."""

import math
from dataclasses import replace

import pytest
from records import example_run, failure, record

from tlbench.analysis.frame import rows
from tlbench.analysis.speedup import gate, speedups
from tlbench.analysis.summary import summarise
from tlbench.records.run_folder import Store

CPU_TIMES = (10.0, 10.5, 11.0)
CUDA_TIMES = (1.0, 1.05, 1.02)


def pair(cpu=CPU_TIMES, cuda=CUDA_TIMES, **cell):
    """A cell on both devices, a seed for each time."""
    return [
        record(seconds=(time,) * 3, device=device, seed=seed, **cell)
        for device, times in (("cpu", cpu), ("cuda", cuda))
        for seed, time in enumerate(times)
    ]


@pytest.fixture
def runs(tmp_path):
    """One run a device, as they come from two machines."""
    made = [
        *pair(), *pair(freeze="full", cuda=tuple(2 * t for t in CUDA_TIMES)),
        *(record(task="infer", device=d, seconds=(s,) * 3, latency=[ms / 1000] * 30, block=block)
          for d, s, ms in (("cpu", 0.8, 8.0), ("cuda", 0.1, 2.0)) for block in (0, 1)),
    ]  # fmt: skip
    folders = {device: Store(tmp_path / device) for device in ("cpu", "cuda")}
    for one in made:
        folders[one.cell.device].append(one)
    return [store.folder for store in folders.values()]


def by_hand(slow, fast):
    """Welch's interval of a ratio of geometric means, on logs; t of 4 degrees of freedom and about."""
    a, b = [math.log(x) for x in slow], [math.log(x) for x in fast]
    mean = [sum(x) / 3 for x in (a, b)]
    shares = [sum((v - m) ** 2 for v in x) / 2 / 3 for x, m in zip((a, b), mean, strict=True)]
    freedom = sum(shares) ** 2 / sum(s * s / 2 for s in shares)
    return math.exp(mean[0] - mean[1]), math.sqrt(sum(shares)), freedom


def test_ratio_and_interval_worked_out_by_hand():
    (found,) = speedups(summarise(rows(pair())))
    assert (found.base, found.new) == ("cpu", "cuda")
    (one,) = found.pairs
    ratio, error, freedom = by_hand(CPU_TIMES, CUDA_TIMES)
    assert one.ratio.estimate == pytest.approx(ratio)
    assert 2 < freedom < 4
    # Student's t at 95 % for 2 and for 4 degrees of freedom bounds the half width
    half = math.log(one.ratio.high / one.ratio.estimate)
    assert 2.776 * error < half < 4.303 * error
    assert math.log(one.ratio.estimate / one.ratio.low) == pytest.approx(half)


def test_equal_spreads_have_four_degrees_of_freedom():
    (found,) = speedups(summarise(rows(pair(cuda=tuple(t / 8 for t in CPU_TIMES)))))
    one = found.pairs[0].ratio
    _, error, freedom = by_hand(CPU_TIMES, CPU_TIMES)
    assert freedom == pytest.approx(4)
    assert one.estimate == pytest.approx(8)
    assert one.low == pytest.approx(8 * math.exp(-2.776445 * error))
    assert one.high == pytest.approx(8 * math.exp(2.776445 * error))


def test_two_runs_give_a_ratio_for_each_matched_cell(runs, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    status, out, _ = command("speedup", *runs)
    assert status == 0
    text = " ".join(out.split())
    assert "cuda over cpu: 4 matched pairs" in text
    assert "resnet18 · linear_probe · linear an epoch of training 32 10.3 (" in text
    assert "inference in batches 32 8.00 (8.00 to 8.00)" in text
    assert "inference of one image 1 4.00 (4.00 to 4.00)" in text
    assert "policy linear_probe: 10.3 times as fast" in text
    assert "policy full: 5.13 times as fast" in text


@pytest.mark.parametrize(("least", "status"), [("3.9", 0), ("4.5", 1), ("20", 1)])
def test_the_gate(runs, command, least, status):
    assert command("speedup", *runs, "--min", least)[0] == status


def test_an_interval_on_both_sides_of_the_bound_cannot_say():
    found = speedups(summarise(rows(pair(cpu=(8.0, 10.0, 12.0)))))
    status, reasons = gate(found, 10)
    assert status == 2
    assert "on both sides of 10" in reasons[0]


def test_one_measurement_cannot_say():
    found = speedups(summarise(rows(pair(cpu=(10.0,), cuda=(1.0,)))))
    status, reasons = gate(found, 5)
    assert status == 2
    assert "10 without an interval" in reasons[0]


def test_nothing_matches(tmp_path, command):
    store = Store(tmp_path)
    store.append(record())
    store.append(record(device="cuda", batch_size=64))
    status, out, err = command("speedup", tmp_path, "--min", "5")
    assert status == 2
    assert "no two finished cells differ in their device alone" in err
    assert "without a partner: train resnet18 · linear_probe · linear · batch 64 on cuda" in " ".join(out.split())


def test_only_what_differs_in_nothing_else_is_matched():
    records = [
        record(),
        record(device="cuda", freeze="full"),
        record(device="cuda", epochs=3, image_size=32),
        record(seed=1),
    ]
    (found,) = speedups(summarise(rows(records)))
    assert found.pairs == ()
    assert len(found.unmatched) == 3


def test_inference_is_matched_whatever_was_trained_beside_it():
    trained = {"cpu": {"train_size": 100, "lr": 0.01}, "cuda": {}}
    records = [
        record(task=task, device=device, seconds=(1.0,) * 3, latency=[0.01] * 30 if task == "infer" else (), **given)
        for device, given in trained.items()
        for task in ("train", "infer")
    ]
    (found,) = speedups(summarise(rows(records)))
    assert {one.figure for one in found.pairs} == {"images_per_second", "latency_p50_ms"}
    assert {row["task"] for row in found.unmatched} == {"train"}


def test_a_failed_cell_has_no_partner():
    (found,) = speedups(
        summarise(rows([*pair()[:3], failure("oom", "x", device="cuda", epochs=3), record(device="cuda", head="mlp")]))
    )
    assert found.pairs == ()


def test_schedules_are_compared_by_their_whole_training():
    records = example_run(
        policies=("lp_ft",), devices=("cpu", "cuda"), backbones=("mobilenet_v3_small",), heads=("linear",)
    )
    (found,) = speedups(summarise(rows(records)))
    assert {one.figure for one in found.pairs} == {"training_seconds", "images_per_second", "latency_p50_ms"}


def test_precisions_on_one_machine():
    records = [
        record(seconds=(t,) * 3, precision=p, seed=n)
        for p, t0 in (("fp32", 3.0), ("bf16", 1.5))
        for n, t in enumerate((t0, t0 * 1.01))
    ]
    (found,) = speedups(summarise(rows(records)), "precision")
    assert (found.base, found.new) == ("fp32", "bf16")
    assert found.pairs[0].ratio.estimate == pytest.approx(2)
    (other,) = speedups(summarise(rows(records)), "precision", "bf16")
    assert other.pairs[0].ratio.estimate == pytest.approx(0.5)


def test_geometric_means_by_policy_and_batch_size():
    records = [
        r
        for batch, factor in ((8, 1), (32, 4))
        for r in pair(cuda=tuple(t / factor for t in CPU_TIMES), batch_size=batch)
    ]
    (found,) = speedups(summarise(rows(records)))
    assert {k: v.estimate for k, v in found.by("batch_size").items()} == {8: pytest.approx(1), 32: pytest.approx(4)}
    assert found.overall().estimate == pytest.approx(2)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--axis", "colour"), "unknown axis 'colour'"), (("--base", "tpu"), "no finished cell has device 'tpu'")],
)
def test_bad_input(runs, command, options, said):
    status, _, err = command("speedup", *runs, *options)
    assert status == 2
    assert said in err


def test_a_run_given_twice_would_count_double(runs, command):
    status, _, err = command("speedup", runs[0], runs[0])
    assert status == 2
    assert "given twice" in err


def test_a_run_in_which_nothing_was_measured_does_not_succeed(command, tmp_path, monkeypatch):
    """All cells skipped for want of weights: a build that only looks at the exit status must hear of it."""
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    status, out, _ = command(
        "run", "--backbone=resnet18", "--weights=pretrained", "--freeze=linear_probe", "--epochs=1", "--image-size=32",
        "--isolate=none", "--twins=0", "--out", tmp_path / "run",
    )  # fmt: skip
    assert status == 1
    assert "No cell was measured: all are skipped" in " ".join(out.split())


def test_seeds_that_share_one_fill_are_one_measurement():
    """Three seeds of a fitted head have the same seconds, nearly: a gate took that for certainty."""
    fill = {"seconds": 10.0, "training_seconds": 5.0, "images": 500, "views": 0, "fills": ["a"], "shared": True}
    made = []
    for device, seconds in (("cpu", 4.0), ("cuda", 1.0)):
        for seed in range(3):
            one = record(seconds=(0.01 * (seed + 1),), accuracies=(0.5,), head="ridge", seed=seed, device=device)
            shared = {**fill, "training_seconds": seconds, "fills": [device]}
            rounds = tuple(replace(one.rounds[0], phase=phase) for phase in ("features", "fit"))
            made.append(replace(one, prefix=shared, rounds=rounds))
    found = speedups(summarise(rows(made)))
    (pair,) = [pair for group in found for pair in group.pairs]
    assert pair.ratio.low is None
    assert gate(found, 1.5)[0] == 2
