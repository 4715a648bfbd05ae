"""The README's figures are those of the published records."""

import re
import shlex
from pathlib import Path

import pytest

import tlbench
from tlbench.analysis.summary import summarise
from tlbench.backbones import CUSTOM
from tlbench.cli.app import read_rows
from tlbench.policies.table import POLICIES
from tlbench.records.run_folder import load
from tlbench.report import wording

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "results" / "published"


def mean_and_interval(row):
    low, high = (wording.number(100 * row[f"accuracy_test_{end}"]) for end in ("low", "high"))
    return f"{wording.percent(row['accuracy_test'])} ({low} to {high})"


TRAINING = {
    "backbone": lambda row: row["backbone"],
    "freeze": lambda row: row["freeze"],
    "test accuracy": lambda row: wording.percent(row["accuracy_test"]),
    "training, s": lambda row: wording.number(row["training_seconds"]),
    "an epoch of it, s": lambda row: wording.number(row["epoch_seconds"]),
    "trainable parameters": lambda row: wording.whole(row["trainable_parameters"]),
}
TABLES = {
    "hero": ("groceries-cpu", "train", TRAINING | {"test accuracy": mean_and_interval}),
    "look": ("groceries-look-cpu", "train", TRAINING | {"test accuracy": mean_and_interval}),
    "first": ("quick-cpu", "train", TRAINING),
    "inference": (
        "quick-cpu",
        "infer",
        {
            "backbone": lambda row: row["backbone"],
            "images/s": lambda row: wording.number(row["images_per_second"]),
            "one image, median, ms": lambda row: wording.number(row["latency_p50_ms"]),
            "95th percentile, ms": lambda row: wording.number(row["latency_p95_ms"]),
        },
    ),
}
"""Name of a table -> the folder of its records, their task, and its columns."""


def shown(name):
    """The table of the linear heads that were measured, seeds averaged, as the README has it."""
    folder, task, columns = TABLES[name]
    rows = [
        row
        for row in summarise(read_rows([PUBLISHED / folder]))
        if (row["task"], row["head"]) == (task, "linear") and row["records_ok"]
    ]
    align = "|".join("---" if column in ("backbone", "freeze") else "---:" for column in columns)
    lines = [" | ".join(draw(row) for draw in columns.values()) for row in rows]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{align}|", *(f"| {line} |" for line in lines)])


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_show_the_published_records(name):
    assert shown(name) in README, f"the README should hold\n\n{shown(name)}"


@pytest.mark.parametrize(
    ("folder", "counts"),
    [("quick-cpu", (24, 6)), ("ants-bees-cpu", (36, 0)), ("groceries-cpu", (30, 0)), ("groceries-look-cpu", (4, 0))],
)
def test_every_published_record_is_finished_and_the_machine_is_named(folder, counts):
    records = tlbench.load(PUBLISHED / folder)
    cells = records[records.role == "cell"]
    left_out = cells[cells.status != "ok"]
    assert set(left_out.status) <= {"skipped"}
    assert set(left_out.backbone) <= {"resnet18"}  # its weights were not at hand
    assert tuple(((cells.task == task) & (cells.status == "ok")).sum() for task in ("train", "infer")) == counts
    stable = load(PUBLISHED / folder).records[0].environment["stable"]
    for name in ("torch", "torchvision"):
        assert f"{name} {stable[name].partition('+')[0]}" in " ".join(README.split())


def test_published_records_name_no_folder_of_the_machine_that_made_them():
    for path in PUBLISHED.rglob("*"):
        if path.is_file() and path.suffix != ".npz":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r'"/(?:home|root|work|tmp|Users|mnt)/', text), path


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
COMMANDS = [line for line in LINES if line.startswith("tlbench ") and "--engine" not in line]
"""Those for more than one machine are in `test_examples_engines`."""


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
    assert len(COMMANDS) == 6
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


# --- what it says of other pages' figures -----------------------------------------------------------------------


def test_how_far_plans_are_off_is_said_as_on_their_page():
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| from profiles alone |")]
    figures = re.findall(r"([\d.]+) %", line)
    times, memory, *_ = [[f"{float(figure):.0f}" for figure in some] for some in (figures[:2], figures[2:])]
    assert (
        f"off by {times[0]} % in the median of 60 cells, by {times[1]} % at the 90th percentile; "
        f"memory by {memory[0]} and {memory[1]} %"
    ) in README


def test_what_training_all_of_the_smallest_costs_beside_its_last_stage():
    """On a machine on which an epoch took twice as long."""
    rows = [row for name in ("groceries-cpu", "groceries-look-cpu") for row in summarise(read_rows([PUBLISHED / name]))]
    seconds = {(row["backbone"], row["freeze"]): row["training_seconds"] for row in rows if row["head"] == "linear"}
    whole = seconds["efficientnet_lite0", "full"] / 2
    own, largest = (whole / seconds[f"efficientnet_lite{number}", "last_1"] for number in (0, 2))
    text = " ".join(README.split())
    assert f"about {own:.1f} times the seconds of the former and {largest:.1f} times those of the latter" in text
