"""The model of a cell that was measured in folds is one of all images; what it is worth, its folds say."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import save_image

from tlbench.campaign import fitting
from tlbench.campaign.fitting import chosen, fit, folder_of, in_words
from tlbench.data import Request, load_data
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.folding import whole_of
from tlbench.grid.settings import Settings
from tlbench.kept import conformal
from tlbench.kept.card import OUT_OF_FOLD, read_card
from tlbench.kept.folds import out_of_fold
from tlbench.kept.model import load_model
from tlbench.measure.cell import run_cell
from tlbench.records.run_folder import Store, load

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, epochs=1, batch_size=16, layout="contiguous",
    split_seed=0,
)  # fmt: skip
FOLDS = 3


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    root = tmp_path_factory.mktemp("shots")
    for n in range(12):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(root / label / f"{n}.png", color, (24, 20), seed=n + color)
    return root


@pytest.fixture(scope="module")
def run(shots, tmp_path_factory):
    """A run of all folds of two seeds, as it comes back from the disk, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    store = Store(folder)
    for seed in (0, 1):
        for number in range(1, FOLDS + 1):
            cell = replace(CELL, dataset=f"folder:{shots}", fold=f"{number}of{FOLDS}", seed=seed)
            made = run_cell(cell, Settings(threads=1))
            assert made.status == "ok", made.reason
            store.append(replace(made, id=f"s{seed}-f{number}of{FOLDS}"))
    return folder, load(folder).records


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    folder, records = run
    record = chosen(records, id="s0-f2of3")
    return fit(record, folder, tmp_path_factory.mktemp("out") / "model", folds=out_of_fold(records, record))


def ask(**more):
    return Request(size=16, resize=16, interpolation="bilinear", seed=0, **more)


def test_all_images_are_trained_on(shots):
    data = load_data(f"folder:{shots}", ask(fold=(0, FOLDS)))
    assert data.positions["train"].tolist() == list(range(24))
    assert set(data.positions["val"]) <= set(range(24))
    assert data.images_sha256 == load_data(f"folder:{shots}", ask(fold=(1, FOLDS))).images_sha256


def test_the_model_is_of_all_images_and_its_accuracy_that_of_the_folds(run, kept):
    _, records = run
    card = read_card(kept.folder)
    assert card.cell["fold"] == whole_of("2of3") == "0of3"
    assert card.measured["samples"] == {"train": 24}
    told = card.measured["out_of_fold"]
    right = [one.per_image.split("test").correct for one in records]
    assert told["accuracy"] == pytest.approx(np.concatenate(right).mean())
    assert told["low"] <= told["accuracy"] <= told["high"]
    assert (told["images"], told["folds"], told["seeds"]) == (24, FOLDS, 2)
    assert "accuracy_test" not in card.measured
    assert card.recorded == {}
    words = (kept.folder / "README.md").read_text(encoding="utf-8")
    for line in (words, " ".join(in_words(kept))):
        assert "of the models of 3 folds" in line
        assert "trained on all images" in line
        assert "not seen it" in line
    assert "Trained on all 24 images" in words
    assert "on test images" not in words


def test_sets_go_by_the_scores_that_the_folds_models_gave(run, kept):
    _, records = run
    of_seed = [one.per_image.split("test") for one in records if one.cell.seed == 0]
    expected = [1 - conformal.softmax(one.logits)[np.arange(len(one.labels)), one.labels] for one in of_seed]
    card = read_card(kept.folder)
    assert card.calibration.kind == OUT_OF_FOLD
    assert np.allclose(card.calibration.scores, np.sort(np.concatenate(expected)))
    assert card.calibration.images == 24
    model = load_model(kept.folder)
    assert model.limit(0.95) == conformal.limit_of(card.calibration.scores, 0.95)
    words = (kept.folder / "README.md").read_text(encoding="utf-8")
    assert "about 95 % of cases" in words
    assert "no proof" in words
    assert "90 % for 95 %" in words
    with pytest.raises(UserError, match="99 images with logits"):
        model.limit(0.99)


def test_the_command_keeps_the_model_of_all_images(run, command, tmp_path):
    folder, records = run
    status, out, err = command("fit", folder, "--id", "s0-f1of3", "--out", tmp_path / "model")
    assert status == 0, err
    assert "making the model of s0-f1of3 on all images" in err
    assert "not compared with the record: that is of a fold" in out
    assert "accuracy: " in out
    again = read_card(tmp_path / "model")
    assert again.measured["out_of_fold"]["images"] == 24
    places = {folder_of(record, folder) for record in records if record.cell.seed == 0}
    assert len(places) == 1, "whichever fold is named"


def test_the_same_model_comes_out_of_any_fold(run, kept, tmp_path):
    folder, records = run
    record = chosen(records, id="s0-f3of3")
    other = fit(record, folder, tmp_path / "other", folds=out_of_fold(records, record))
    assert other.card.weights_sha256 == kept.card.weights_sha256


def test_a_fold_that_is_missing_is_named(run):
    _, records = run
    some = [one for one in records if one.id != "s0-f3of3"]
    with pytest.raises(UserError, match="fold 3 of 3 of seed 0 has no result; go on with the run by --resume"):
        out_of_fold(some, some[0])
    other = next(one for one in some if one.cell.seed == 1)
    assert out_of_fold(some, other).measured["seeds"] == 1, "a seed that lacks a fold is left out of the accuracy"


def test_a_cell_of_a_split_has_none(run):
    _, records = run
    assert out_of_fold(records, replace(records[0], cell=replace(records[0].cell, fold=None))) is None


def test_without_logits_there_are_no_sets_and_the_card_says_why(run, tmp_path):
    folder, records = run
    bare = [replace(one, per_image=None) if one.id == "s1-f2of3" else one for one in records]
    record = next(one for one in bare if one.cell.seed == 1)
    told = out_of_fold(bare, record)
    assert told.scores == ()
    made = fit(record, folder, tmp_path / "model", folds=told)
    assert "logits were not kept" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_the_learning_rate_is_one_that_the_folds_have_chosen(run):
    _, records = run
    rates = [0.3, 0.1, 0.01]
    auto = [
        replace(one, cell=replace(one.cell, lr="auto"), recipe={**one.recipe, "lr": lr, "backbone_lr": lr / 10})
        for one, lr in zip(records, [*rates, *rates], strict=True)
    ]
    told = out_of_fold(auto, auto[0])
    cell = told.cell(auto[0].cell)
    assert (cell.lr, cell.backbone_lr) == (0.1, 0.01)
    assert told.cell(replace(auto[0].cell, backbone_lr=5.0)).backbone_lr == 5.0
    assert out_of_fold(records, records[0]).cell(records[0].cell) == records[0].cell


def test_the_epochs_are_in_the_middle_of_those_that_the_folds_have_kept(run):
    """On all images there is nothing to stop by."""
    _, records = run
    early = [
        replace(one, cell=replace(one.cell, patience=2, epochs=9), best_epoch=best)
        for one, best in zip(records, [7, 3, 4, 7, 3, 4], strict=True)
    ]
    cell = out_of_fold(early, early[0]).cell(early[0].cell)
    assert (cell.patience, cell.epochs) == (None, 4)


def test_a_policy_that_names_its_factor_takes_no_rate_of_the_backbone(run):
    _, records = run
    auto = [
        replace(one, cell=replace(one.cell, lr="auto", freeze="full(0.5)"), recipe={"lr": 0.1, "backbone_lr": 0.05})
        for one in records
    ]
    cell = out_of_fold(auto, auto[0]).cell(auto[0].cell)
    assert (cell.lr, cell.backbone_lr) == (0.1, None)


def test_a_head_that_is_fitted_has_chosen_no_rate(run):
    _, records = run
    fitted = [replace(one, cell=replace(one.cell, lr="auto", head="ridge"), recipe={"alpha": 1.0}) for one in records]
    assert out_of_fold(fitted, fitted[0]).rates == ()


def test_of_several_seeds_one_is_kept_that_has_all_folds(run):
    _, records = run
    assert fitting._best([one for one in records if one.id != "s0-f2of3"]).cell.seed == 1


def test_a_head_that_chooses_by_validation_images_is_not_fitted_to_them(shots, monkeypatch):
    """Else logistic regression would choose the C that learns them by heart; ridge leaves out what it chooses by."""
    from tlbench.measure import fitting

    seen, real = [], fitting.fit

    def counting(name, x, y, x_val, y_val, class_weights):
        seen.append((len(x), len(x_val)))
        return real(name, x, y, x_val, y_val, class_weights)

    monkeypatch.setattr(fitting, "fit", counting)
    for head in ("logreg", "ridge"):
        cell = replace(CELL, dataset=f"folder:{shots}", head=head, fold="0of3")
        assert run_cell(cell, Settings(threads=1)).status == "ok"
    (fitted, val), (every, _) = seen
    assert (fitted + val, every) == (24, 24)
