"""A race that goes on (`tlbench find --resume`), and what comes after the last measurement of one."""

import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import typer
from conftest import save_image
from images import with_images
from made_races import World
from records import record
from torchvision.models import shufflenet_v2_x0_5

import tlbench
from tlbench.analysis import raced
from tlbench.campaign import fitting
from tlbench.campaign.asked import Asked, parse_asked
from tlbench.campaign.finding import Sought, begin_race
from tlbench.cli import finding as command_find
from tlbench.errors import UserError
from tlbench.records.run_folder import load

# --- what enters later ------------------------------------------------------------------------------------------


def again(folder, **options):
    """The race of a folder as it goes on, with these options."""
    return begin_race(parse_asked({"resume": str(folder), **options}), Sought(budget="2h"))


OTHER = {
    "other images": ({"dataset": "folder:OTHER"}, "--dataset: a race is between cells of one dataset"),
    "fewer images": ({"train-size": "60"}, "--train-size: a race is between cells of one train size"),
    "another split": ({"split-seed": "1"}, "--split-seed: a race is between cells of one split seed"),
    "other folds": ({"folds": "3"}, "--folds: a race is between cells that are measured in as many folds"),
    "another decoding": ({"decode": "exact"}, "--decode: a race is between cells of one decode"),
}


@pytest.fixture
def scaled(tmp_path, photos):
    """A race on photographs that are decoded at a fraction of their size, of which every cell was looked at."""
    axes = {"dataset": (f"folder:{photos}",), "decode": ("scaled",), "backbone": ("efficientnet_lite0",)}
    return World(tmp_path / "run", budget=90, axes=axes).run().store.folder


@pytest.mark.parametrize("case", OTHER)
def test_what_enters_later_is_alike_as_well(case, scaled, photos):
    options, words = OTHER[case]
    options = {name: value.replace("OTHER", str(photos.parent / "other")) for name, value in options.items()}
    shutil.copytree(photos, photos.parent / "other")
    before = {path.name: path.read_bytes() for path in scaled.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=words):
        again(scaled, **options)
    assert {name: (scaled / name).read_bytes() for name in before} == before
    racing = again(scaled)  # the run is free
    racing.campaign.release()
    assert len(racing.cells) == 4


def test_more_backbones_may_enter(scaled):
    racing = again(scaled, backbone="efficientnet_lite1")
    racing.campaign.release()
    assert {name.split()[0] for name in racing.cells} == {"efficientnet_lite0", "efficientnet_lite1"}


def test_images_are_decoded_beforehand_as_they_were(scaled, monkeypatch):
    """Of a race whose every cell has its first seed nothing that was planned is left, and yet it measures."""
    asked = []
    monkeypatch.setattr("tlbench.campaign.campaign.decode_images", lambda cells, _: asked.extend(cells))
    racing = again(scaled)
    assert not racing.campaign.left
    racing.campaign.decode_images()
    (task,) = racing.next().tasks
    racing.campaign.release()
    assert {cell.decode for cell in asked} == {task.step.cell.decode} == {"scaled"}


# --- what moved -------------------------------------------------------------------------------------------------


BACKBONE = "shufflenet_v2_x0_5"


def checkpoint(path, seed):
    torch.manual_seed(seed)
    torch.save(shufflenet_v2_x0_5().state_dict(), path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A race of one seed whose photographs and checkpoint have moved away since; and where they are now."""
    home = tmp_path_factory.mktemp("moved")
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(20):
            save_image(home / "old/photos" / label / f"{n}.png", color, seed=color + n)
    checkpoint(home / "old/ck.pth", 1)
    given = {
        "backbone": BACKBONE, "weights": str(home / "old/ck.pth"), "image_size": 32, "freeze": "linear_probe",
        "head": ["ridge", "nearest_mean"], "folds": "off", "isolate": "none", "layout": "contiguous",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlbench.analysis.race.MOST_SEEDS", 1)
        tlbench.find(home / "old/photos", budget=600, out=home / "run", **given)
    (home / "old").rename(home / "new")
    return home


@pytest.fixture
def moved(home, tmp_path, monkeypatch):
    """The folder of that race, which has one more seed to go."""
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 2)
    monkeypatch.setattr("tlbench.campaign.finding.seconds_since_start", lambda: 0.0)
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_race_goes_on_where_its_images_and_its_checkpoint_lie_now(home, moved, command):
    """And the model that is kept is made of what lies there, since nothing does at the old place."""
    where = f"--dataset=folder:{home}/new/photos", f"--weights={home}/new/ck.pth"
    status, out, err = command("find", "--resume", moved, *where, "--keep", "best")
    assert status == 0, out + err
    assert f"Model: {moved / 'model'}" in out
    last = load(moved).records[-1]
    assert (last.status, last.cell.seed) == ("ok", 1)
    assert last.cell.weights == f"{home}/old/ck.pth"
    assert last.places == {"dataset": f"folder:{home}/new/photos", "weights": f"{home}/new/ck.pth"}
    assert {one.rung for one in raced.read(moved).entrants} == {2}


def test_a_race_in_python_keeps_a_model_of_what_has_moved(home, moved):
    run = tlbench.find(resume=moved, dataset=f"folder:{home}/new/photos", weights=f"{home}/new/ck.pth", keep="best")
    assert run.model == moved / "model"


@pytest.mark.parametrize("do", ["find", "run", "plan"])
def test_it_is_said_how_to_say_where_things_lie_now(do, home, moved, command):
    gone = "is not there any more, which this run was begun with; "
    for told, words in (
        ([f"--dataset=folder:{home}/new/photos"], f"'{home}/old/ck.pth' {gone}--weights PATH"),
        ([], f"'folder:{home}/old/photos' {gone}--dataset folder:PATH"),
    ):
        expected = f"tlbench: {words} says where the same lies now\n"
        assert command(do, "--resume", moved, *told) == (2, "", expected)


def test_another_checkpoint_does_not_take_its_place(home, moved, tmp_path, command):
    checkpoint(tmp_path / "ck.pth", 2)
    where = f"--dataset=folder:{home}/new/photos", f"--weights={tmp_path}/ck.pth"
    status, out, err = command("find", "--resume", moved, *where)
    assert (status, out) == (2, "")
    assert "not what this run has measured" in err
    assert len(err.splitlines()) == 1


TINY = {
    "dataset": "digits", "backbone": BACKBONE, "weights": "random", "image_size": 32, "train_size": 20, "epochs": 1,
    "freeze": "linear_probe", "head": "nearest_mean", "isolate": "none", "layout": "contiguous",
}  # fmt: skip


@pytest.mark.parametrize("way", ["command", "python"])
def test_a_model_is_kept_of_named_data_where_they_lie_now(way, tmp_path, command, monkeypatch):
    run = tlbench.run(out=tmp_path / "run", **TINY).folder
    told = []
    monkeypatch.setattr(fitting, "keep_best", lambda records, folder, moved: told.append(moved) or folder)
    if way == "command":
        status, out, _ = command("run", "--resume", run, "--data-root", tmp_path, "--keep", "best")
        assert status == 0, out
    else:
        tlbench.run(resume=run, data_root=tmp_path, keep="best")
    assert [moved.data_root for moved in told] == [str(tmp_path)]


def test_a_model_is_made_of_what_its_own_record_names(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(fitting, "fit", lambda record, run, folder, *where: told.append(where))
    moved = fitting.Moved(
        places={"dataset": {"folder:old": "folder:new", "folder:b": "folder:c"}, "weights": {"a.pth": "b.pth"}},
        data_root="root",
    )
    fitting.keep_best([with_images(record(dataset="folder:old", weights="pretrained"))], tmp_path, moved)
    assert told == [({"dataset": "folder:new"}, "root", None)]


# --- what comes after the race ----------------------------------------------------------------------------------


def by_command():
    with pytest.raises(typer.Exit):
        command_find._find(Asked(), Sought())


def by_python():
    with pytest.raises(typer.Exit):
        tlbench.find(dataset="digits", budget="15m")


@pytest.mark.parametrize("find", [by_command, by_python])
def test_the_report_and_the_making_of_the_model_are_of_the_budget(find, tmp_path, monkeypatch):
    """Also where they fail: what is left for the next time is less."""
    world = World(tmp_path / "run", budget=900).run()
    before = world.state.spent_seconds

    def conclude(*_):
        world.now += 30
        raise typer.Exit(1)

    world.campaign.damaged, world.campaign.run = (), lambda *_: None
    following = nullcontext(SimpleNamespace(start=None, finish=None))
    monkeypatch.setattr("tlbench.campaign.finding.begin_race", lambda *_: world.racing)
    monkeypatch.setattr(command_find, "race_progress", lambda _: following)
    monkeypatch.setattr(command_find, "conclude", conclude)
    monkeypatch.setattr("tlbench.api.calling._finished", conclude)
    find()
    assert world.state.spent_seconds == pytest.approx(before + 30)
