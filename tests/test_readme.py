"""The README's figures are those of the published records."""

from pathlib import Path

import pytest

import tlbench
from tlbench.records.run_folder import load
from tlbench.report import wording

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ROOT / "results" / "published" / "quick-cpu"

TRAINING = {
    "backbone (weights)": lambda row: f"{row.backbone} ({row.weights})",
    "freeze": lambda row: row.freeze,
    "test accuracy": lambda row: wording.percent(row.accuracy_test),
    "epoch, s": lambda row: wording.number(row.epoch_seconds),
    "training, s": lambda row: wording.number(row.training_seconds),
    "trainable parameters": lambda row: wording.whole(row.trainable_parameters),
}
INFERENCE = {
    "backbone (weights)": lambda row: f"{row.backbone} ({row.weights})",
    "images/s": lambda row: wording.number(row.images_per_second),
    "one image, median, ms": lambda row: wording.number(row.latency_p50_ms),
    "95th percentile, ms": lambda row: wording.number(row.latency_p95_ms),
}


def table(columns, rows):
    heads = " | ".join(columns)
    align = "|".join("---" if name.startswith(("backbone", "freeze")) else "---:" for name in columns)
    lines = [" | ".join(draw(row) for draw in columns.values()) for row in rows.itertuples()]
    return "\n".join([f"| {heads} |", f"|{align}|", *(f"| {line} |" for line in lines)])


@pytest.mark.parametrize(("task", "columns"), [("train", TRAINING), ("infer", INFERENCE)])
def test_the_tables_show_the_published_records(task, columns):
    records = tlbench.load(QUICK)
    shown = table(columns, records[(records.task == task) & (records["head"] == "linear") & (records.role == "cell")])
    assert shown in README, f"the README should hold\n\n{shown}"


def test_every_published_record_is_finished_and_the_machine_is_named():
    records = tlbench.load(QUICK)
    cells = records[records.role == "cell"]
    assert (cells.status == "ok").all()
    assert [(cells.task == task).sum() for task in ("train", "infer")] == [24, 6]
    stable = load(QUICK).records[0].environment["stable"]
    for name in ("torch", "torchvision"):
        assert f"{name} {stable[name].partition('+')[0]}" in README
