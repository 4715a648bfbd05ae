"""The weights that a cell has left are the model that was measured: nothing is trained again to keep it."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from test_find import options
from test_keep import BACKBONES, CELL, POLICIES
from tiers import sweep

from tlbench.campaign.fitting import fit, in_words
from tlbench.campaign.leaving import Weights, leaving, may_leave
from tlbench.grid.settings import Settings
from tlbench.kept import left, trained
from tlbench.kept.card import WEIGHTS
from tlbench.kept.trained import TRAINED
from tlbench.measure.cell import run_cell
from tlbench.measure.place import Place
from tlbench.records.run_folder import Store


def measured(folder, place=None, **changes):
    """The record of a cell of a run that leaves its weights in the run's folder."""
    cell = replace(CELL, **changes)
    place = place or Place(name=cell.id, trained=str(folder / TRAINED))
    made = run_cell(cell, Settings(), place=place, **leaving(place))
    assert made.status == "ok", made.reason
    return Store(folder).append(made)


CASES = [(backbone, policy) for backbone in BACKBONES for policy in (*POLICIES, "norm")]


@pytest.mark.parametrize(
    ("backbone", "policy"), sweep(CASES, [("mobilenet_v3_small", "last_1"), ("mobilenet_v3_small", "full")])
)
def test_the_kept_model_is_the_measured_one_to_the_last_bit(backbone, policy, tmp_path):
    made = measured(tmp_path / "run", backbone=backbone, freeze=policy)
    kept = fit(made, tmp_path / "run")
    assert kept.left == may_leave(made.cell) == (policy != "lora(r=2,alpha=4)")
    assert kept.card.measured["kept_predictions_sha256"] == made.predictions_sha256
    assert kept.card.measured["accuracy_test"] == made.accuracy_test
    assert kept.card.measured["accuracy_val"] == made.accuracy_val
    shutil.rmtree(tmp_path / "run" / TRAINED, ignore_errors=True)
    again = fit(made, tmp_path / "run", tmp_path / "again")
    assert not again.left
    one, other = (load_file(folder / WEIGHTS) for folder in (kept.folder, again.folder))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert kept.card.calibration == again.card.calibration


@pytest.mark.parametrize("changes", [{"head": "ridge"}, {"head": "mlp"}, {"freeze": "lp_ft", "epochs": 2}], ids=str)
def test_other_heads_and_policies_leave_their_weights_too(changes, tmp_path):
    made = measured(tmp_path / "run", **changes)
    kept = fit(made, tmp_path / "run")
    assert kept.left
    assert kept.card.measured["kept_predictions_sha256"] == made.predictions_sha256


def test_only_what_training_changes_lies_there(tmp_path):
    measured(tmp_path / "run")
    (path,) = (tmp_path / "run" / TRAINED).iterdir()
    assert {name.partition(".")[0] for name in load_file(path)} == {"head"}


def test_it_is_said_where_the_weights_come_from(tmp_path):
    made = measured(tmp_path / "run")
    images = made.samples["test"]
    assert in_words(fit(made, tmp_path / "run"))[0] == (
        f"the weights that were measured: {images} of {images} test images predicted as then"
    )


def cut_off(path, other):
    path.write_bytes(path.read_bytes()[:-100])


def of_another_seed(path, other):
    shutil.copy(other, path)


def of_another_policy(path, other):
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        sealed = file.metadata()
    save_file({**load_file(path), "more": next(iter(load_file(path).values())).clone()}, path, sealed)


@pytest.mark.parametrize("damage", [cut_off, of_another_seed, of_another_policy])
def test_weights_that_are_not_the_recorded_ones_are_not_taken(damage, tmp_path, capsys):
    made = measured(tmp_path / "run")
    measured(tmp_path / "other", seed=1, lr=10.0)
    (path,), (other,) = ((tmp_path / name / TRAINED).iterdir() for name in ("run", "other"))
    damage(path, other)
    kept = fit(made, tmp_path / "run")
    assert not kept.left
    assert kept.held.outcome == "equal"
    assert kept.card.measured["kept_predictions_sha256"] == made.predictions_sha256
    assert "cannot be taken" in capsys.readouterr().err


def test_weights_that_cannot_be_written_cost_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / TRAINED).write_text("a file")
    made = measured(tmp_path / "run")
    assert not fit(made, tmp_path / "run").left


def test_twins_and_folds_leave_none(tmp_path):
    cell, folder = replace(CELL), tmp_path / "run"
    measured(folder, Place(name=cell.id, trained=str(folder / TRAINED), role="twin"))
    measured(folder, fold="1of3")
    assert not list(folder.glob(f"{TRAINED}/*"))


def test_those_of_the_best_validation_accuracies_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "MOST_FILES", 2)
    folder = tmp_path / "run"
    weights, made = Weights(folder, []), []
    for seed in range(4):
        record = measured(folder, seed=seed)
        made.append(replace(record, accuracy_val=(0.3, 0.9, 0.1, 0.8)[seed]))
        weights.take(made[-1])
    there = [left.left_by(record, folder / TRAINED) is not None for record in made]
    assert there == [False, True, False, True]


def test_they_take_no_more_than_their_room(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "MOST_BYTES", 1)
    folder = tmp_path / "run"
    weights = Weights(folder, [])
    for seed, accuracy in enumerate((0.3, 0.9)):
        weights.take(replace(measured(folder, seed=seed), accuracy_val=accuracy))
    assert len(list((folder / TRAINED).iterdir())) == 1


def test_those_of_each_block_count_by_themselves(tmp_path, monkeypatch):
    """All blocks of a cell share its id."""
    monkeypatch.setattr(trained, "MOST_FILES", 1)
    folder = tmp_path / "run"
    weights, made = Weights(folder, []), []
    for block, accuracy in enumerate((0.9, 0.3)):
        place = Place(name=CELL.id, block=block, trained=str(folder / TRAINED))
        made.append(replace(measured(folder, place), accuracy_val=accuracy))
        weights.take(made[-1])
    assert [left.left_by(record, folder / TRAINED) is not None for record in made] == [True, False]


def test_they_give_way_to_a_record(tmp_path, monkeypatch):
    from tlbench.campaign.room import with_room
    from tlbench.errors import UserError

    measured(tmp_path / "run")
    tries = []

    def write():
        tries.append((tmp_path / "run" / TRAINED).exists())
        if tries[-1]:
            try:
                raise OSError(28, "no space left")
            except OSError:
                raise UserError("the disk is full")  # noqa: B904
        return "written"

    assert with_room(Store(tmp_path / "run"), write) == "written"
    assert tries == [True, False]


def test_a_run_that_keeps_its_best_trains_nothing_again(command, tmp_path):
    given = [*options(), "--twins", "0"]
    status, out, err = command("run", *given, "--keep=best", "--out", tmp_path / "run")
    assert status == 0, out + err
    assert "the weights that were measured: " in out
    assert not (tmp_path / "run" / TRAINED).exists()
    status, out, _ = command("run", *given, "--out", tmp_path / "plain")
    assert status == 0, out
    assert not (tmp_path / "plain" / TRAINED).exists()


def test_cells_in_processes_of_their_own_leave_their_weights_too(tmp_path):
    """As a whole process: here, other images stand for the digits than in the processes of cells."""
    given = [*options(isolate="backbone"), "--twins", "0", "--keep=best", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "tlbench", "run", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the weights that were measured: " in done.stdout
    assert not (tmp_path / "run" / TRAINED).exists()
