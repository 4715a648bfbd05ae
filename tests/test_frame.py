"""Rows, one row a configuration, and the tidy frame, on hand-made records."""

import csv
import io
import json
import math
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import RANDOM, example_run, failure, record

import tlbench
from tlbench.analysis import grouping
from tlbench.analysis.derived import quantile
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.frame import COLUMNS, EXPORT_COLUMNS, SELDOM, row, rows, write_csv
from tlbench.analysis.summary import SUMMARY_FIGURES, summarise
from tlbench.errors import UserError
from tlbench.grid.axes import TRAINING_ONLY
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.records import machine
from tlbench.records.lines import encode
from tlbench.records.record import Record
from tlbench.records.run_folder import Store
from tlbench.report.columns import TABLE

T95 = {1: 12.706204736, 2: 4.302652730, 3: 3.182446305}  # two-sided 95 % quantiles of Student's t, from a printed table


def one(records, run="r"):
    summary = summarise(rows(records, run))
    assert len(summary) == 1
    return summary[0]


# --- one record -----------------------------------------------------------------------------------------------


def test_a_training_row():
    made = row(record(seconds=(1.0, 3.0, 2.0), accuracies=(0.1, 0.2, 0.3), accuracy_test=0.25, seed=7), "a run")
    names = ("task", "backbone", "freeze", "head", "seed", "status", "run", "weights")
    assert [made[name] for name in names] == [
        "train",
        "resnet18",
        "linear_probe",
        "linear",
        7,
        "ok",
        "a run",
        "pretrained",
    ]
    assert made["epoch_seconds"] == 2.0
    assert made["training_seconds"] == 6.0
    assert made["images_per_second"] == 50.0  # 100 images in the median epoch's two seconds
    assert (made["accuracy_val"], made["accuracy_test"]) == (0.3, 0.25)
    assert made["latency_p50_ms"] is None


def test_an_inference_row():
    made = row(record(task="infer", seconds=[0.5] * 4, latency=[n / 1000 for n in range(1, 101)]))
    assert made["freeze"] == "none"
    assert made["epoch_seconds"] is None
    assert made["training_seconds"] is None
    assert made["images_per_second"] == 128.0  # two batches of 32 in half a second
    assert made["latency_p50_ms"] == pytest.approx(50.5)
    assert made["latency_p95_ms"] == pytest.approx(95.05)
    assert made["latency_p99_ms"] is None  # 100 images are too few for it


@pytest.mark.parametrize(
    "made", [record(), failure("failed", "x"), record(task="infer")], ids=["train", "failed", "infer"]
)
def test_rows_have_exactly_the_documented_columns(made):
    assert set(row(made)) == {*COLUMNS, *SELDOM, "record"}
    assert set(one([made])) == {*SUMMARY_FIGURES, "values", "group", "timed", "record", "metric", "scores", "problems"}


def test_two_checkpoints_of_one_name_are_told_apart_in_the_export():
    sources = [{"source": f"{place}/best.pth", "sha256": place * 64, "pretrained": True} for place in "ab"]
    made = [record(weights=one["source"], initial=one) for one in sources]
    told = [tuple(row(one)[name] for name in ("weights", "variant", "weights_sha256")) for one in made]
    assert told == [("best.pth", "", "a" * 64), ("best.pth", "", "b" * 64)]


def test_two_image_sizes_are_told_apart_in_the_export(command, tmp_path):
    store = Store(tmp_path / "run")
    for size in (160, 224):
        store.append(record(image_size=size))
    status, out, _ = command("export", store.folder)
    assert status == 0
    one, other = csv.DictReader(io.StringIO(out))
    identifying = set(EXPORT_COLUMNS[: EXPORT_COLUMNS.index("status")]) | {
        "image_size",
        "epochs",
        "batch_size",
        "variant",
    }
    assert {name for name in identifying if one[name] != other[name]} == {"image_size"}
    assert (one["image_size"], other["image_size"]) == ("160", "224")


def test_many_damaged_lines_are_a_few_warnings(tmp_path):
    """There was one for each."""
    store = Store(tmp_path / "run")
    store.append(record())
    with (tmp_path / "run" / "records.jsonl").open("a") as file:
        file.write("not a record\n" * 50)
    with pytest.warns(UserWarning, match="set aside") as told:
        tlbench.load(tmp_path / "run")
    assert len(told) == 4
    assert "set aside 47 more such lines" in str(told[-1].message)


def test_the_export_has_the_columns_that_were_promised():
    assert ",".join(EXPORT_COLUMNS) == (
        "task,backbone,weights,freeze,head,dataset,device,precision,seed,status,reason,total_parameters,"
        "trainable_parameters,epoch_seconds,training_seconds,accuracy_val,accuracy_test,images_per_second,"
        "latency_p50_ms,latency_p95_ms,peak_memory_bytes,"
        "image_size,epochs,train_images,batch_size,variant,block,id,run,weights_sha256"  # later ones come behind
    )


def test_phases_are_never_pooled():
    made = record(seconds=(1.0, 1.0, 9.0, 9.0), accuracies=(0.1, 0.2, 0.3, 0.4))
    phases = ("head", "head", "all", "all")
    scheduled = row(replace(made, rounds=tuple(replace(r, phase=p) for r, p in zip(made.rounds, phases, strict=True))))
    assert scheduled["epoch_seconds"] is None
    assert scheduled["images_per_second"] is None
    assert scheduled["training_seconds"] == 20.0
    assert scheduled["phases"] == {"head": 1.0, "all": 9.0}


def test_the_one_off_cost_of_a_kept_prefix_counts_as_training():
    made = row(record(seconds=(1.0, 1.0, 1.0), prefix={"seconds": 5.0, "where": "memory", "bytes": 10}))
    assert made["training_seconds"] == 8.0
    assert made["epoch_seconds"] == 1.0
    assert (made["prefix_seconds"], made["prefix_where"], made["prefix_bytes"]) == (5.0, "memory", 10)


def test_training_flops_of_a_schedule_are_the_mean_over_its_epochs():
    made = record(
        seconds=(1.0,) * 4, accuracies=(0.5,) * 4, flops={"forward": 1e9, "train_step": {"head": 1e9, "all": 3e9}}
    )
    phases = ("head", "all", "all", "all")
    made = replace(made, rounds=tuple(replace(r, phase=p) for r, p in zip(made.rounds, phases, strict=True)))
    assert row(made)["flops_train_step"] == 2.5e9


def test_the_share_of_the_ceiling():
    made = record(
        seconds=(2.0,) * 3, flops={"forward": 1e9, "train_step": {"linear_probe": 2e9}}, ceiling_flops_per_second=4e11
    )
    assert row(made)["ceiling_share"] == pytest.approx(50 * 2e9 / 4e11)
    assert row(replace(made, ceiling_flops_per_second=None))["ceiling_share"] is None


@pytest.mark.parametrize(
    ("weights", "initial", "label"),
    [
        ("auto", {"source": "X", "pretrained": True}, "pretrained"),
        ("auto", RANDOM, "random"),
        ("random", RANDOM, "random"),
        ("/a/b/best.pt", {"source": "/a/b/best.pt", "pretrained": True}, "best.pt"),
        ("auto", {}, "auto"),
        ("/a/b/best.pt", {}, "checkpoint"),
    ],
)
def test_the_weights_that_a_cell_really_started_from(weights, initial, label):
    assert row(record(weights=weights, initial=initial))["weights"] == label


def test_axes_without_a_column_show_when_they_are_not_at_their_defaults():
    assert row(record())["variant"] == ""
    assert row(record(train_size=150, lr=0.01, augment="flip"))["variant"] == "train-size=150 lr=0.01 augment=flip"


def test_records_of_old_versions_can_be_read():
    """Only the fields of the first version, with the checksum they were written with."""
    data = record().to_dict()
    old = ("schema", "id", "cell", "settings", "status", "started", "suite_version", "rounds", "weights", "environment")
    first = {name: data[name] for name in old}
    first["cell"] = {
        name: data["cell"][name] for name in ("task", "backbone", "freeze", "head", "dataset", "device", "seed")
    }
    first["rounds"] = [{"phase": "x", "seconds": 2.0, "samples": 10}]
    made = row(Record.from_dict(first))
    assert made["epoch_seconds"] == 2.0
    assert made["accuracy_test"] is None
    assert made["flops_train_step"] is None
    assert one([Record.from_dict(first)])["accuracy_test"] is None


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values, share):
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-6)


# --- one configuration ----------------------------------------------------------------------------------------


def test_seeds_are_averaged_with_students_interval():
    accuracies, times = [0.80, 0.84, 0.88], [1.0, 2.0, 4.0]
    made = one(
        [
            record(seconds=(t,) * 3, accuracies=(0, 0, a), seed=n)
            for n, (a, t) in enumerate(zip(accuracies, times, strict=True))
        ]
    )
    half = T95[2] * stdev(accuracies) / math.sqrt(3)
    assert made["accuracy_val"] == pytest.approx(0.84)
    assert made["accuracy_val_low"] == pytest.approx(0.84 - half)
    assert made["accuracy_val_high"] == pytest.approx(0.84 + half)
    logs = [math.log(t) for t in times]
    half = T95[2] * stdev(logs) / math.sqrt(3)
    assert made["epoch_seconds"] == pytest.approx(2.0)  # the geometric mean
    assert made["epoch_seconds_low"] == pytest.approx(math.exp(mean(logs) - half))
    assert made["epoch_seconds_high"] == pytest.approx(math.exp(mean(logs) + half))
    assert (made["seeds"], made["units"], made["records"], made["records_ok"]) == (3, 3, 3, 3)


def test_the_test_sets_own_uncertainty_stands_apart():
    made = one([record(accuracy_test=0.9, samples={"train": 100, "val": 50, "test": 100})])
    # Wilson's interval of 90 out of 100, worked out by hand from its formula
    z = 1.959963985
    centre, half = 90 + z * z / 2, z * math.sqrt(90 * 10 / 100 + z * z / 4)
    assert made["accuracy_test_wilson_low"] == pytest.approx((centre - half) / (100 + z * z))
    assert made["accuracy_test_wilson_high"] == pytest.approx((centre + half) / (100 + z * z))


def test_one_seed_has_no_interval():
    made = one([record()])
    for name in ("accuracy_test", "epoch_seconds", "images_per_second"):
        assert made[name] is not None
        assert made[f"{name}_low"] is made[f"{name}_high"] is None


def test_blocks_are_the_unit_of_time_and_seeds_of_accuracy():
    made = one([
        record(seconds=(t,) * 3, accuracies=(0, 0, a), seed=seed, block=block)
        for seed, block, t, a in ((0, 0, 1.0, 0.8), (1, 0, 1.0, 0.9), (0, 1, 4.0, 0.8), (1, 1, 4.0, 0.9))
    ])  # fmt: skip
    assert (made["seeds"], made["units"]) == (2, 2)
    assert made["epoch_seconds"] == pytest.approx(2.0)
    assert made["values"]["epoch_seconds"] == {("r", 0): pytest.approx(1.0), ("r", 1): pytest.approx(4.0)}
    assert made["values"]["accuracy_val"] == {0: pytest.approx(0.8), 1: pytest.approx(0.9)}


def test_two_runs_of_one_configuration_are_two_blocks():
    summary = summarise([*rows([record(seconds=(1.0,) * 3)], "a"), *rows([record(seconds=(4.0,) * 3)], "b")])
    assert len(summary) == 1
    assert summary[0]["units"] == 2
    assert summary[0]["seeds"] == 1
    assert summary[0]["epoch_seconds"] == pytest.approx(2.0)
    assert summary[0]["run"] == "a, b"


def test_other_machines_are_never_averaged():
    other = {**record().environment, "stable": {**record().environment["stable"], "torch": "9.9"}}
    summary = summarise(rows([record(), record(environment=other)]))
    assert len(summary) == 2
    assert summary[0]["machine"] != summary[1]["machine"]
    differences = machine.machine_differences([record(), record(environment=other)])
    assert {name: sorted(values.values()) for name, values in differences.items()} == {"torch": ["2.11.0", "9.9"]}


def test_weights_that_came_out_differently_are_never_averaged():
    """``auto`` found none in one run and had them in the next."""
    summary = summarise(rows([record(initial=RANDOM), record(seed=1)]))
    assert [made["weights"] for made in summary] == ["random", "pretrained"]


def test_a_seed_that_failed_before_its_weights_were_known_goes_with_the_others():
    made = one([record(), failure("failed", "no memory", seed=1, epochs=3, initial={}, image_size=None)])
    assert made["status"] == "failed"
    assert made["weights"] == "pretrained"
    assert made["records"] == 2


def test_flagged_records_are_left_out_of_the_times_and_said_to_be():
    made = one([
        record(seconds=(1.0,) * 3, seed=0),
        record(seconds=(9.0,) * 3, seed=1, validity="noisy", validity_reason="a busy neighbour"),
    ])  # fmt: skip
    assert made["epoch_seconds"] == 1.0
    assert made["seeds"] == 2  # the accuracy does not suffer from noise
    assert made["validity"] == "noisy"
    assert made["validity_reason"] == "1 of 2, left out of the times: a busy neighbour"


def test_where_all_records_are_flagged_their_times_are_shown_with_the_flag():
    made = one([record(seconds=(9.0,) * 3, validity="throttled", validity_reason="hot")])
    assert made["epoch_seconds"] == 9.0
    assert made["validity"] == "throttled"
    assert made["validity_reason"] == "1 of 1, all there is: hot"


def test_a_seed_that_failed_makes_the_configuration_fail_visibly():
    made = one([record(accuracies=(0, 0, 0.8)), failure("diverged", "epoch 2: the loss is nan", seed=3, epochs=3)])
    assert made["status"] == "diverged"
    assert made["reason"] == "seed 3: epoch 2: the loss is nan"
    assert (made["records"], made["records_ok"]) == (2, 1)
    assert made["accuracy_val"] == 0.8


def test_training_rows_show_what_their_model_costs_in_use():
    records = [record(), record(task="infer", latency=[0.01] * 30, seconds=(0.5,) * 3), record(head="mlp")]
    train, _, other = summarise(rows(records))
    assert train["inference_latency_p50_ms"] == pytest.approx(10.0)
    assert train["inference_images_per_second"] == 128.0
    assert train["latency_p50_ms"] is None
    assert other["inference_latency_p50_ms"] is None


CONFIGURATIONS = {"train": ("8a618d29", "33b396e9"), "infer": ("ca3c8b07", "33b396e9")}
OTHERWISE = {
    "freeze": "full", "seed": 7, "epochs": 3, "train_size": 50, "optimizer": "sgd", "lr": 0.01, "backbone_lr": 1e-4,
    "weight_decay": 0.1, "schedule": "constant", "warmup": 0.5, "label_smoothing": 0.1, "augment": "flip",
    "bn_momentum": "keep", "fused": "off", "fold": "1of5", "split_seed": 3, "relabel": "fixed.csv",
    "class_weights": "balanced", "sampler": "balanced", "patience": 3,
}  # fmt: skip
"""A value of each axis that inference does not depend on, other than the default."""


def test_every_axis_of_training_alone_is_tried():
    assert set(OTHERWISE) == set(TRAINING_ONLY)


@pytest.mark.parametrize("name", OTHERWISE)
def test_inference_cells_that_differ_in_training_alone_are_one_configuration(name):
    """Grids collapse such an axis to the first value that they have."""
    (other,) = Grid(axes={"task": ("infer",), name: (OTHERWISE[name],)}).expand()
    plain = record(task="infer")
    made = row(replace(plain, cell=replace(other, epochs=1)))
    same = row(plain)
    assert (made.configuration, made.inference, made.variant) == (same.configuration, same.inference, "")
    assert grouping.identity(made) == grouping.identity(same)


@pytest.mark.parametrize("name", [name for name in OTHERWISE if name != "seed"])
def test_training_cells_that_differ_in_such_an_axis_are_two(name):
    (cell,) = Grid(axes={name: (OTHERWISE[name],)}).expand()
    made, plain = (replace(record(), cell=one) for one in (cell, Cell()))
    assert grouping.identity(row(made)) != grouping.identity(row(plain))
    assert len(summarise(rows([made, plain]))) == 2


def test_the_hashes_of_records_at_their_defaults_stay():
    """They name the rows of reports that exist."""
    train, infer = row(record()), row(record(task="infer"))
    assert (train.configuration, train.inference) == CONFIGURATIONS["train"]
    assert (infer.configuration, infer.inference) == CONFIGURATIONS["infer"]


# --- the table of figures -------------------------------------------------------------------------------------


def test_a_row_is_read_by_the_names_of_its_columns_too():
    made = row(record())
    assert {name: made[name] for name in COLUMNS} == {name: getattr(made, name) for name in COLUMNS}
    with pytest.raises(KeyError):
        made["has_valid_times"]


def test_every_figure_of_a_configuration_has_its_place_in_the_csv_and_its_table():
    """Also where the order that people know does not name it."""
    headings = {name for name, figure in FIGURES.items() if figure.heading}
    assert headings <= {column.name.removeprefix("inference_") for column in TABLE}
    assert {name for name, figure in FIGURES.items() if figure.average} <= set(SUMMARY_FIGURES)


def test_what_is_compared_is_better_one_way():
    for figure in FIGURES.values():
        assert bool(figure.better) == (figure.average in ("units", "seeds", "most")), figure.name


def test_what_only_measures_the_noise_is_no_repeat_of_the_cell():
    made = one(
        [record(seconds=(1.0,) * 3, role="aa"), record(seconds=(2.0,) * 3), record(seconds=(1.1,) * 3, role="aa")]
    )
    assert made["records"] == 1
    assert made["epoch_seconds"] == 2.0
    assert summarise(rows([record(role="aa")])) == []


# --- tables ---------------------------------------------------------------------------------------------------


def test_csv_keeps_every_digit_and_leaves_the_unknown_empty():
    text = io.StringIO()
    write_csv([row(record(accuracy_test=1 / 3, seconds=(0.1, 0.2, 0.30000000000000004)))], text)
    (line,) = csv.DictReader(io.StringIO(text.getvalue()))
    assert float(line["accuracy_test"]) == 1 / 3
    assert line["latency_p50_ms"] == ""
    assert line["reason"] == ""


@pytest.fixture
def run(tmp_path):
    store = Store(tmp_path / "run")
    for made in (
        record(seed=0),
        record(seed=1),
        failure("failed", "boom", freeze="norm"),
        record(task="infer", latency=[0.1]),
    ):
        store.append(made)
    return store


def test_a_run_as_a_tidy_frame(run):
    data = tlbench.load(run.folder)
    assert isinstance(data, pd.DataFrame)
    assert list(data.columns) == list(COLUMNS)
    assert data["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert data["epoch_seconds"].dtype == float
    assert math.isnan(data["epoch_seconds"].iloc[2])
    assert data["round_seconds"].iloc[0] == [1.0, 1.1, 1.2]
    assert set(data["run"]) == {str(run.folder)}


def test_several_runs_and_a_damaged_line(run, tmp_path):
    other = Store(tmp_path / "other")
    other.append(replace(record(), started="2026-01-02T00:00:00+00:00"))  # else it were a copy
    with other.path.open("a") as file:
        file.write(encode(record())[:-20] + "\n")
    with pytest.warns(UserWarning, match="records.jsonl:2"):
        data = tlbench.load(run.folder, other.folder)
    assert len(data) == 5


def test_an_empty_run_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="no records in"):
        tlbench.load(Store(tmp_path / "empty").folder)


def test_import_tlbench_knows_no_other_name():
    with pytest.raises(AttributeError, match="nothing"):
        _ = tlbench.nothing
    assert tlbench.plots.PLOTS


def test_the_export_of_a_run(run, command):
    status, out, _ = command("export", run.folder)
    assert status == 0
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["status"] for line in lines] == ["ok", "ok", "failed", "ok"]
    assert tuple(lines[0]) == EXPORT_COLUMNS
    assert [line["id"] for line in lines] == [item["id"] for _, item in tlbench.load(run.folder).iterrows()]
    status, out, _ = command("export", run.folder, "--format", "json")
    assert [item["seed"] for item in json.loads(out)] == [0, 1, 0, 0]


def test_the_export_leaves_out_what_only_measures_the_noise(run, command):
    run.append(record(seed=0, role="aa"))
    assert len(command("export", run.folder)[1].splitlines()) == 5


def test_an_unknown_format(run, command):
    status, _, err = command("export", run.folder, "--format", "xml")
    assert status == 2
    assert "unknown format 'xml'" in err


def test_every_record_of_a_run_belongs_to_a_row():
    records = example_run(devices=("cpu", "cuda"))
    assert sum(made["records"] for made in summarise(rows(records))) == len(records)
