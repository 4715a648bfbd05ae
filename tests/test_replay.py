"""A record's cell, run again from the record alone."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from records import failure, record
from tiers import sweep

from tlbench.campaign import replay
from tlbench.campaign.replay import CLOSE, DIFFERENT, EQUAL, IMPOSSIBLE, Result, held_against, rebuilt, results, select
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import cell as cell_module
from tlbench.records.record import Record, Round
from tlbench.records.run_folder import Store
from tlbench.train import loop

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16,
    layout="contiguous",
)  # fmt: skip


def kept(made: Record) -> Record:
    """As it comes back from the disk."""
    return Record.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))


@pytest.fixture(scope="module")
def trained():
    return kept(cell_module.run_cell(replace(CELL, freeze="full"), Settings()))


# --- equal ----------------------------------------------------------------------------------------------------


AGAIN = {
    "kept prefix": ({"freeze": "linear_probe", "layout": "auto"}, {}),  # in the layout that was chosen
    "pretrained": ({"backbone": "efficientnet_lite0", "weights": "auto", "image_size": 64, "freeze": "norm"}, {}),
    "schedule": (
        {"freeze": "lp_ft", "augment": "flip", "lr": "auto"}, {"prefix": "off", "deterministic": False}
    ),
    "training-free": ({"head": "ridge", "train_size": 100}, {"threads": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", sweep(AGAIN, {"kept prefix"}))
def test_a_record_comes_out_again_to_the_last_bit(case):
    changes, settings = AGAIN[case]
    made = kept(cell_module.run_cell(replace(CELL, **changes), Settings(**settings)))
    assert made.status == "ok", made.reason
    torch.rand(5)
    found = replay.replay(made)
    assert (found.outcome, found.differences) == (EQUAL, ())
    assert found.machine == {}
    assert found.compared > 10


@pytest.mark.exhaustive
def test_an_inference_record_says_which_weights_and_data():
    made = kept(cell_module.run_cell(replace(CELL, task="infer", freeze="none", epochs=1), Settings(latency_rounds=2)))
    found = replay.replay(made)
    assert found.outcome == EQUAL
    assert "initial weights" in results(made)


@pytest.mark.exhaustive
def test_a_run_that_diverged_diverges_again():
    made = kept(
        cell_module.run_cell(replace(CELL, freeze="full", optimizer="sgd", lr=1e9, backbone_lr=1e9), Settings())
    )
    assert made.status == "diverged"
    assert replay.replay(made).outcome == EQUAL


# --- not equal ------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_other_threads_are_said(trained):
    threads = trained.environment["settings"]["threads"]
    found = replay.replay(trained, threads=threads + 1)
    assert found.outcome in (EQUAL, CLOSE)
    assert found.machine == {"settings.threads": (threads, threads + 1)}


@pytest.mark.exhaustive
def test_the_recorded_threads_are_taken_whatever_this_process_has(trained):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert replay.replay(trained).outcome == EQUAL
    finally:
        torch.set_num_threads(before)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ({"data_sha256": "00" * 32}, "data"),
        ({"weights": {"sha256": "00" * 32, "pretrained": False, "source": "random"}}, "initial weights"),
        ({"accuracy_test": 2.0}, "test accuracy"),
        ({"loss_test": 99.0}, "test loss"),
        ({"recipe": {"lr": 5.0}}, "lr"),
        ({"total_parameters": 7}, "parameters"),
        ({"frozen_sha256_before": "ff" * 32}, "frozen part"),
    ],
)
def test_what_differs_is_named(trained, planted, what):
    found = held_against(replace(trained, **planted), trained)
    assert found.outcome == DIFFERENT
    assert what in [d.what for d in found.differences if not d.tolerated]


@pytest.mark.exhaustive
def test_a_different_data_set_under_the_same_name_is_found_before_anything_runs(photos):
    cell = replace(CELL, dataset=f"folder:{photos}", train_size=None, epochs=1)
    made = kept(cell_module.run_cell(cell, Settings()))
    assert replay.replay(made).outcome == EQUAL
    (photos / "train/dark/0.jpg").write_bytes((photos / "train/light/0.jpg").read_bytes())
    found = replay.replay(made)
    assert (found.outcome, found.differences) == (IMPOSSIBLE, ())
    assert f"images of folder:{photos}: {made.images_sha256[:8]} and " in found.reason
    older = replay.replay(replace(made, images_sha256=None))  # its hash cannot tell images from their split
    assert older.outcome == DIFFERENT
    assert "data" in [d.what for d in older.differences]


@pytest.mark.exhaustive
def test_a_small_difference_is_within_tolerance_and_shown(trained):
    rounds = (replace(trained.rounds[0], loss=trained.rounds[0].loss * 1.001), *trained.rounds[1:])
    found = held_against(replace(trained, rounds=rounds, predictions_sha256="00" * 32), trained)
    assert found.outcome == CLOSE
    assert [d.what for d in found.differences] == ["loss of epoch 1", "predictions"]


def test_a_result_that_is_missing_or_new_is_a_difference(trained):
    short = replace(trained, rounds=trained.rounds[:1])
    assert held_against(trained, short).outcome == DIFFERENT
    assert held_against(short, trained).outcome == DIFFERENT


def test_a_cell_that_fails_now_is_different(trained, monkeypatch):
    def fails(self, *_):
        raise RuntimeError("broken")

    monkeypatch.setattr(loop.Trainer, "run_epoch", fails)
    found = replay.replay(trained)
    assert found.outcome == DIFFERENT
    assert "broken" in found.reason
    assert ("status", "ok", "failed") in [(d.what, d.recorded, d.now) for d in found.differences]


def test_a_different_machine_is_named_with_both_values(trained):
    stable = {**trained.environment["stable"], "cpu_model": "another", "gone": 1}
    other = replace(trained, environment={**trained.environment, "stable": stable})
    found = held_against(other, trained)
    assert found.outcome == EQUAL
    assert found.machine["cpu_model"] == ("another", trained.environment["stable"]["cpu_model"])
    assert found.machine["gone"] == (1, None)


@given(st.floats(1e-6, 1e6), st.floats(-0.2, 0.2))
def test_losses_are_tolerated_relative_to_their_size(loss, change):
    tolerated = Result(value=loss, kind=replay.LOSS).tolerates(loss * (1 + change))
    if abs(abs(change) - 0.05) > 1e-6:
        assert tolerated == (abs(change) < 0.05)


@given(st.integers(1, 5000), st.integers(0, 200))
def test_accuracies_are_tolerated_by_images(images, moved):
    tolerated = Result(value=0.5, kind=replay.ACCURACY, images=images).tolerates(0.5 + moved / images)
    assert tolerated == (moved <= max(2, 0.02 * images + 1e-6))


def test_what_is_exact_tolerates_nothing():
    assert not Result(value=1, kind=replay.EXACT).tolerates(1.0000001)
    assert not Result(value=1.0, kind=replay.LOSS).tolerates(None)
    assert not Result(value="a", kind=replay.DIGEST).tolerates(None)


# --- what cannot be rebuilt -----------------------------------------------------------------------------------


def test_a_data_set_that_is_gone(photos):
    made = kept(cell_module.run_cell(replace(CELL, dataset=f"folder:{photos}", train_size=None, epochs=1), Settings()))
    shutil.rmtree(photos)
    found = replay.replay(made)
    assert found.outcome == IMPOSSIBLE
    assert str(photos) in found.reason


def test_pretrained_weights_that_are_gone_are_not_replaced_by_random_ones(trained):
    weights = {"source": "ImageNet", "sha256": "00" * 32, "pretrained": True, "reason": ""}
    made = replace(trained, cell=replace(trained.cell, weights="auto"), weights=weights)
    found = replay.replay(made)
    assert found.outcome == IMPOSSIBLE
    assert found.reason.startswith("skipped")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_device_that_is_not_here(trained):
    found = replay.replay(replace(trained, cell=replace(trained.cell, device="cuda")))
    assert found.outcome == IMPOSSIBLE
    assert "no CUDA GPU" in found.reason


def test_a_record_without_results_cannot_be_held_against_anything():
    found = replay.replay(failure("failed", "boom"))
    assert (found.outcome, found.differences) == (IMPOSSIBLE, ())


def test_an_interrupted_replay_stops(trained, monkeypatch):
    monkeypatch.setattr(loop.Trainer, "run_epoch", lambda self, *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        replay.replay(trained)


# --- from the record alone ------------------------------------------------------------------------------------


def test_what_was_left_open_is_taken_from_the_record():
    made = record(weights="auto", layout="auto", prefix={"boundaries": [3]})
    made = replace(made, layout={"chosen": "channels_last"}, prefix={"boundaries": [3]})
    cell, settings = rebuilt(made)
    assert (cell.layout, cell.weights, settings.prefix) == ("channels_last", "pretrained", "auto")
    assert settings.threads == made.environment["settings"]["threads"] == 2
    plain = replace(made, prefix={}, weights={"pretrained": False, "source": "random"})
    cell, settings = rebuilt(plain, threads=7)
    assert (cell.weights, settings.prefix, settings.threads) == ("random", "off", 7)


def test_one_record_a_cell_is_chosen():
    ok, twin, other = record(seed=0), replace(record(seed=0), role="aa", id="A/A x"), record(seed=1)
    bad = failure("failed", "boom", seed=1)
    assert select([twin, ok, bad, other]) == [ok, other]
    assert select([twin, ok, other], key=ok.key) == [ok]
    assert select([twin, ok, other], id=other.id) == [other]
    assert select([bad]) == [bad]
    assert select([twin], id="A/A x") == [twin]


def test_a_key_or_an_id_that_is_not_there():
    with pytest.raises(UserError, match="no record has the key 'x'"):
        select([record()], key="x")
    with pytest.raises(UserError, match="did you mean"):
        select([record()], id=record().id[:-1])


def test_training_free_rounds_have_no_loss():
    found = results(replace(record(), rounds=(Round(phase="features", seconds=1.0, samples=5),)))
    assert not [name for name in found if "epoch" in name]


# --- the command ----------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_the_command_says_equal_or_what_differs(command, tmp_path, trained):
    store = Store(tmp_path)
    store.append(trained)
    status, out, _ = command("replay", tmp_path)
    assert status == 0
    assert out.startswith("equal  train mobilenet_v3_small-full")
    store.append(replace(trained, id="planted", cell=replace(trained.cell, seed=1)))
    status, out, _ = command("replay", tmp_path, "--id", "planted")
    assert status == 1
    assert out.startswith("different  train planted")
    assert "\n  initial weights: " in out


def test_the_command_says_what_cannot_be_rebuilt(command, tmp_path, trained):
    Store(tmp_path).append(replace(trained, cell=replace(trained.cell, dataset="folder:/nowhere")))
    status, out, _ = command("replay", tmp_path)
    assert status == 2
    assert out.startswith("cannot be rebuilt  train")
    assert "/nowhere" in out


def test_the_command_names_a_wrong_key(command, tmp_path, trained):
    Store(tmp_path).append(trained)
    status, out, err = command("replay", tmp_path, "--key", "x")
    assert (status, out) == (2, "")
    assert "no record has the key 'x'" in err
