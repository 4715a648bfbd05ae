"""Runs that go on with something else than before: images that have moved, changed or are grouped, grids, axes."""

import re
from dataclasses import replace

import pytest
from conftest import save_image
from made_engine import campaign
from records import record

from tlbench.campaign import against, batches, duel_side
from tlbench.campaign.against import Turns
from tlbench.engines.submitit_options import _number
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.machine.layout import CALIBRATION_IMAGES
from tlbench.records.run_folder import Store, load, load_start

TINY = [
    "--backbone=mobilenet_v3_small", "--weights=random", "--image-size=32", "--twins=0", "--task=train", "--head=ridge",
    "--freeze=linear_probe", "--isolate=none", "--layout=contiguous", "--logits=off",
]  # fmt: skip


def _axes():
    """The axes of `TINY` as a grid's file has them."""
    lines = [option.removeprefix("--").partition("=") for option in TINY]
    axes = {"backbone", "weights", "image-size", "task", "head", "freeze", "layout"}
    return "".join(
        f"{name.replace('-', '_')} = [{value if value.isdigit() else repr(value)}]\n"
        for name, _, value in lines
        if name in axes
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    for n in range(12):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(tmp_path / "photos" / label / f"shop{n % 4}_{n}.png", color, (24, 20), seed=n + color)
    return tmp_path


def test_a_run_whose_images_have_moved_goes_on_with_cells_left(here, command):
    """What is said before a run looked at the old place, and ended it."""
    assert command("run", "photos", *TINY, "--folds=off", "--out=run")[0] == 0
    (here / "photos").rename(here / "moved")
    for more in (["--dry-run"], []):
        status, _, err = command("run", "--resume", "run", "--dataset", "folder:moved", "--seeds", "1", *more)
        assert status == 0, err
        assert re.search(r"moved: 24\s+images", " ".join(err.split()))
    assert {r.cell.seed for r in load(here / "run").records} == {0, 1}


def test_the_same_images_in_groups_are_another_data_set(here, command):
    """They were measured under the name of those without, by another split, and pooled with them."""
    assert command("run", "photos", *TINY, "--folds=off", "--out=run")[0] == 0
    status, _, err = command("run", "--resume", "run", "--dataset", "folder:photos?group=(shop\\d)", "--seeds", "1")
    assert status == 0, err
    assert sorted(r.cell.dataset for r in load(here / "run").records) == [
        "folder:photos",
        "folder:photos?group=(shop\\d)",
    ]


def test_groups_are_not_lost_when_images_move(here, command):
    assert command("run", "photos?group=(shop\\d)", *TINY, "--folds=off", "--out=run")[0] == 0
    (here / "photos").rename(here / "moved")
    status, _, err = command("run", "--resume", "run", "--dataset", "folder:moved", "--seeds", "1")
    assert status == 2
    assert "groups of" in err
    status, _, err = command("run", "--resume", "run", "--dataset", "folder:moved?group=(shop\\d)", "--seeds", "1")
    assert status == 0, err


def test_images_that_have_changed_end_a_run_that_has_cells_left(here, command):
    """Of a backbone that was not measured before nothing noticed it."""
    assert command("run", "photos", *TINY, "--folds=off", "--out=run")[0] == 0
    save_image(here / "photos" / "dark" / "new.png", 30, (24, 20), seed=99)
    status, _, err = command("run", "--resume", "run", "--backbone", "resnet18", "--weights", "random")
    assert status == 2
    assert "would be measured of something else" in err
    assert len(load(here / "run").records) == 1


def test_a_cell_that_cannot_be_had_ends_no_run_whose_images_have_changed(here, command):
    """It is always left; nothing is mixed by trying it again."""
    assert command("run", "photos", *TINY, "--folds=off", "--out=run")[0] == 0
    store = Store(here / "run")
    (one,) = load(here / "run").records
    left = replace(one, id="other", cell=replace(one.cell, seed=7), status="skipped", reason="not here")
    store.append(left)
    save_image(here / "photos" / "dark" / "new.png", 30, (24, 20), seed=99)
    _, _, err = command("run", "--resume", "run")
    assert "would be measured of something else" not in err


def test_corrections_that_were_edited_end_no_run_of_others(here, command):
    (here / "fix.csv").write_text("file,class\ndark/shop0_0.png,light\n")
    (here / "fix2.csv").write_text("file,class\ndark/shop1_1.png,light\n")
    assert command("run", "photos", *TINY, "--folds=off", "--relabel=fix.csv", "--out=run")[0] == 0
    (here / "fix.csv").write_text("file,class\ndark/shop2_2.png,light\n")
    status, _, err = command("run", "--resume", "run", "--relabel", "fix2.csv")
    assert status == 0, err


def test_every_grid_that_is_added_is_written_down(here, command):
    """Of two the last was: after a kill the cells of the first were never measured."""
    assert command("run", *TINY, "--dataset=digits,folder:photos", "--train-size=20", "--out=run")[0] == 0
    assert len(load_start(here / "run").plan.grids) == 2, "one of the photographs in folds"
    assert command("run", "--resume", "run", "--seeds", "0,1")[0] == 0
    planned = {(c.dataset, c.seed) for c in load_start(here / "run").plan.cells()}
    assert planned == {(name, seed) for name in ("digits", "folder:photos") for seed in (0, 1)}


def test_a_grids_file_that_names_no_folds_keeps_those_of_the_run(here, command):
    (here / "g.toml").write_text(_axes() + "dataset = ['folder:photos']\n")
    rest = ["--twins=0", "--isolate=none", "--logits=off"]
    assert command("run", "--grid", "g.toml", *rest, "--out=run")[0] == 0
    assert len(load(here / "run").records) == 5
    status, _, err = command("run", "--resume", "run", "--grid", "g.toml")
    assert status == 0, err
    assert len(load(here / "run").records) == 5, "none is measured a sixth time, as one split"


def test_of_several_data_sets_of_a_grids_file_each_keeps_its_folds(here, command):
    (here / "g.toml").write_text("dataset = ['digits', 'folder:photos']\ntrain_size = [10]\n" + _axes())
    rest = ["--twins=0", "--isolate=none", "--logits=off"]
    assert command("run", "--grid", "g.toml", *rest, "--out=run")[0] == 0
    before = len(load(here / "run").records)
    assert before == 6
    assert command("run", "--resume", "run", "--grid", "g.toml")[0] == 0
    assert len(load(here / "run").records) == before


def test_what_a_file_says_of_its_own_data_set_is_not_named_for_another():
    grid = Grid(axes={"dataset": ("digits",), "fold": (5,), "image_size": (64,)})
    freed = [name for name in ("fold", "image_size") if name in grid.freed_by({"dataset": ("folder:x",)})]
    made = grid.asked_for({"dataset": ("folder:x",)})
    assert freed
    assert not made.named & set(freed)


def test_twins_of_what_was_measured_before_have_their_device(tmp_path):
    one = campaign(tmp_path / "run")
    for step in one.planned:
        one.take(record(freeze=step.cell.freeze, seed=step.cell.seed))
    one.release()
    assert one._setup({}, here=False).devices


def test_images_of_a_size_choose_their_own_layout():
    assert batches.FEW_IMAGES == CALIBRATION_IMAGES
    sizes = {batches._layout_of(Cell(image_size=size)) for size in (64, 128)}
    assert len(sizes) == 2
    assert batches._layout_of(Cell(batch_size=8)) == batches._layout_of(Cell(batch_size=64))
    assert batches._layout_of(Cell(batch_size=4)) != batches._layout_of(Cell(batch_size=64))


def test_blocks_of_other_code_are_not_gone_on_with(tmp_path):
    before = Turns(against="main", arguments=(), blocks=2, code={"base": "a", "new": "b"})
    against._check_code(tmp_path, before, before)
    against._check_code(tmp_path, before, None)
    after = Turns(against="main", arguments=(), blocks=2, code={"base": "a", "new": "c"})
    with pytest.raises(UserError, match="other code of new"):
        against._check_code(tmp_path, after, before)
    against._check_code(tmp_path, after, Turns(against="main", arguments=(), blocks=2))  # of an earlier version


def test_the_code_of_this_version_is_hashed():
    assert re.fullmatch("[0-9a-f]{64}", against._this_version().code())


def test_a_duel_measures_where_the_record_was_measured():
    one = record(dataset="folder:/old")
    moved = replace(one, places={"dataset": "folder:/new"}, settings=replace(one.settings, also_test=("x=digits",)))
    side = duel_side.parse_side(moved.id, [moved])
    assert side.cell.dataset == "folder:/new"
    assert side.settings.also_test == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("0123", "0123"), ("2024_01", "2024_01"), ("12", 12), ("1.5", 1.5), ("1e3", 1000.0), ("true", True),
     ("nan", "nan"), ("1.", "1."), ("a100", "a100")],
)  # fmt: skip
def test_an_option_that_only_looks_like_a_number_stays_as_it_is(text, value):
    found = _number(text)
    assert found == value
    assert type(found) is type(value)
