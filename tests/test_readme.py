"""The README's figures are those of the published records."""

import re
import shlex
from pathlib import Path

import pytest

import tlbench
from tlbench.backbones import CUSTOM
from tlbench.policies.table import POLICIES
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


# --- the lines that it shows work as they stand ---------------------------------------------------------------


@pytest.fixture
def own_tables():
    """What a plugin has added goes again."""
    yield
    CUSTOM.pop("mynet", None)
    POLICIES.pop("convolutions", None)


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
"""Each block of code: its language, and what is in it."""
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("tlbench ")]


@pytest.fixture
def mine(monkeypatch, tmp_path, own_tables):
    """Each of the README's files of one's own is the mine.py of the lines that follow it."""
    monkeypatch.chdir(tmp_path)
    own = [text for language, text in BLOCKS if language == "python" and "from tlbench" in text]
    files = dict(zip(("backbone", "policy"), own, strict=True))

    def write(which):
        Path("mine.py").write_text(files[which], encoding="utf-8")

    return write


def test_there_are_lines_for_one_s_own_images_backbone_and_policy():
    assert len(COMMANDS) == 5
    assert sum("--plugin mine.py" in line for line in COMMANDS) == 3


@pytest.mark.parametrize("line", COMMANDS)
def test_a_line_works_as_it_stands(line, mine, photos, command):
    """With a folder of images in the place of PATH; runs are looked at, not measured."""
    mine("policy" if "convolutions" in line else "backbone")
    words = shlex.split(line)[1:]
    words = [str(photos) if word == "PATH" else word for word in words] + ["--dry-run"] * (words[0] == "run")
    status, out, err = command(*words)
    assert status == 0, err
    assert out


def test_a_backbone_of_one_s_own_is_listed(mine, command):
    mine("backbone")
    status, out, err = command("list", "backbones", "mynet", "--plugin", "mine.py")
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split()[0] == "mynet"
