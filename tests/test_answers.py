"""The comparison with what people would pick instead, with stand-ins for the environments that have it."""

import csv
import json
import sys
from dataclasses import replace

import pytest
from conftest import save_image
from peers import answers

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.records.run_folder import Store

STAND_IN = """#!{python}
import json, shutil, sys, time
if sys.argv[1] == "-c" and "find_spec" in sys.argv[2]:
    sys.exit({lacks})
if sys.argv[1] == "-c":
    out = sys.argv[sys.argv.index("--out") + 1]
    print("asked", *sys.argv[3:])
    if {leaves}:
        shutil.copytree('{run}', out)
    if {status}:
        print("tlbench: nothing fits the budget")
        sys.exit({status})
else:
    job = json.load(open(sys.argv[2]))
    assert job["budget_seconds"] + job["started"] > time.time()
    if {status}:
        sys.exit("a peer's last word")
    result = dict(right=3, images=4, testing_seconds=0.01, about="1 epoch", versions=dict(torch="2"))
    json.dump(result, open(job["result"], "w"))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes in train/, val/ and test/."""
    root, numbers = tmp_path_factory.mktemp("answers") / "photos", iter(range(1000))
    for part, count in (("train", 6), ("val", 4), ("test", 5)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(root / part / label / f"{n}.png", color, seed=next(numbers))
    return root


@pytest.fixture(scope="module")
def run(photos):
    """A run of two cells on them."""
    store = Store(photos.parent / "run")
    cell = Cell(
        backbone="shufflenet_v2_x0_5", weights="random", image_size=32, dataset=f"folder:{photos}", epochs=1,
        layout="contiguous",
    )  # fmt: skip
    for head in ("ridge", "nearest_mean"):
        store.append(run_cell(replace(cell, head=head), Settings()))
    return store.folder


@pytest.fixture
def stand_in(tmp_path, run):
    """Makes a program that stands in for the Python of another environment."""

    def make(name="python", status=0, lacks=0, leaves=None):
        path = tmp_path / name
        leaves = status == 0 if leaves is None else leaves
        path.write_text(STAND_IN.format(python=sys.executable, run=run, status=status, lacks=lacks, leaves=leaves))
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def asked(monkeypatch, capsys):
    """Runs the comparison: what it printed, and its last words where it ended early."""

    def ask(*options):
        monkeypatch.setattr("sys.argv", ["answers.py", *map(str, options)])
        try:
            answers.main()
        except SystemExit as told:
            return capsys.readouterr().out, str(told.code)
        return capsys.readouterr().out, ""

    return ask


@pytest.fixture
def no_weights(monkeypatch):
    """Writes no weights, which takes seconds."""
    monkeypatch.setattr(answers, "export", lambda backbone, folder: (224, (0.5,) * 3, (0.5,) * 3))


def test_all_are_asked_with_the_same_budget(asked, no_weights, photos, stand_in, tmp_path):
    python, out = stand_in(), tmp_path / "answers.json"
    said, words = asked(
        "--data", f"folder:{photos}", "--minutes", "1,2", "--autogluon", python, "--fastai", python,
        "--tlbench", python, "--out", out,
    )  # fmt: skip
    assert words == ""
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == ["tlbench find", "autogluon", "fastai"] * 2
    assert sum("75.0 % (30.1 to 95.4)" in row for row in rows) == 4
    assert "of 2 cells in 2 measurements" in rows[2]
    kept = json.loads(out.read_text())
    assert [one["minutes"] for one in kept] == [1, 1, 1, 2, 2, 2]
    assert kept[1]["accuracy"] == 0.75
    assert kept[0]["images"] == 10
    assert kept[1]["versions"] == {"torch": "2"}


def test_without_the_peers_find_is_asked_alone_and_that_is_said(asked, no_weights, photos, stand_in):
    said, words = asked("--data", f"folder:{photos}", "--minutes", "1", "--tlbench", stand_in())
    assert words == ""
    assert "tlbench find" in said
    assert "fastai: left out; name the Python of an environment that has it with --fastai" in said


def test_what_fails_is_a_row_with_its_last_words(asked, no_weights, photos, stand_in):
    said, words = asked(
        "--data", f"folder:{photos}", "--minutes", "1", "--tlbench", stand_in("a", status=2), "--fastai",
        stand_in("b", status=1),
    )  # fmt: skip
    assert words == ""
    assert "none: exit status 2: tlbench: nothing fits the budget" in said
    assert "none: exit status 1: a peer's last word" in said


def test_an_answer_that_is_there_counts_though_something_failed(asked, no_weights, photos, stand_in, tmp_path):
    """A cell that failed, or a model that could not be kept, ends `find` with 1, and its verdict is there."""
    python, out = stand_in(status=1, leaves=True), tmp_path / "answers.json"
    said, words = asked("--data", f"folder:{photos}", "--minutes", "1", "--tlbench", python, "--out", out)
    assert words == ""
    (row,) = [line for line in said.splitlines() if line.startswith("| tlbench find")]
    assert "none:" not in row
    assert "of 2 cells in 2 measurements; exit status 1: tlbench: nothing fits the budget" in row
    assert "no model" in row
    (kept,) = json.loads(out.read_text())
    assert kept["images"] == 10
    assert kept["problem"] == "exit status 1: tlbench: nothing fits the budget"


def test_where_no_answer_is_there_the_last_words_are_told(asked, no_weights, photos, stand_in):
    said, words = asked("--data", f"folder:{photos}", "--minutes", "1", "--tlbench", stand_in(status=1))
    assert words == ""
    assert "none: exit status 1: tlbench: nothing fits the budget; cannot read run" in said


BAD = {
    "no interpreter": (["--fastai", "/nowhere/python"], "'/nowhere/python' is no program here"),
    "no budget": (["--minutes", "0"], "no number of minutes"),
    "a word for a budget": (["--minutes", "five"], "no number of minutes"),
    "another backbone": (["--peer-backbone", "resnet18"], "choose among efficientnet_lite0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_one_line(case, asked, photos):
    options, words = BAD[case]
    _, told = asked("--data", f"folder:{photos}", *options)
    assert words in told
    assert "\n" not in told


def test_an_environment_without_its_peer_is_one_line(asked, photos, stand_in):
    _, told = asked("--data", f"folder:{photos}", "--autogluon", stand_in(lacks=1))
    assert "has no module autogluon.multimodal; install it there" in told


def test_photographs_without_a_test_split_are_refused(asked, tmp_path):
    for part in ("train", "val"):
        for label in ("a", "b"):
            save_image(tmp_path / "two" / part / label / "0.png")
    _, told = asked("--data", f"folder:{tmp_path / 'two'}")
    assert "no split 'test' of its own" in told or "no split 'val' of its own" in told
    assert "photographs in files" in asked("--data", "digits")[1]


def test_the_peers_get_the_same_photographs_and_weights(photos, tmp_path):
    torch = pytest.importorskip("torch")
    task = answers.prepared(f"folder:{photos}", "efficientnet_lite0", "efficientnet_lite0", tmp_path / "given")
    rows = list(csv.DictReader((tmp_path / "given" / "test.csv").open()))
    assert len(rows) == 10
    assert {row["label"] for row in rows} == {"dark", "light"}
    assert all(row["image"].startswith(str(photos.resolve() / "test")) for row in rows)
    state = torch.load(task.weights / "pytorch_model.bin", weights_only=True)
    told = json.loads((task.weights / "config.json").read_text())
    assert not [name for name in state if name.startswith("classifier")]
    assert (told["architecture"], told["num_features"]) == ("tf_efficientnet_lite0", 1280)
    import timm

    timm.create_model(told["architecture"], pretrained=False, num_classes=0).load_state_dict(state)
    assert (task.image_size, task.mean) == (224, (0.5, 0.5, 0.5))


def test_a_list_gives_what_it_names(photos):
    from peers import listed

    rows = listed.photographs(f"folder:{photos}")
    assert len(rows) == 30
    assert {row.part for row in rows} == {"train", "val", "test"}
    assert all(row.file.is_file() and row.file.parent.name == row.label for row in rows)
