"""Class weights and the balanced sampler: what torch and scikit-learn compute, whatever the policy or the store."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bits import finished
from digits import few_digits
from hypothesis import given, settings
from hypothesis import strategies as st
from models import RECIPE, Pictures, phases_of, tiny, trained, trainer
from plain_recipe import plain_training
from records import record
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from test_heads import features
from tiers import sweep
from torch import nn
from torch.nn import functional
from torch.utils.data import WeightedRandomSampler

from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import SINCE, Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS, LOGREG_STEPS, RIDGE_ALPHAS, Head, fit
from tlbench.machine.kept import KEPT
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.measure.fitting import put
from tlbench.policies.parse import parse_policy
from tlbench.records.lines import seal
from tlbench.records.plan import Plan, load_start
from tlbench.records.record import Record
from tlbench.records.run_folder import Store
from tlbench.report import wording
from tlbench.seeds import seed_for
from tlbench.train.balance import class_weights, draw_balanced
from tlbench.train.loop import batches

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
BOTH = {"class_weights": "balanced", "sampler": "balanced"}
CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16,
    layout="contiguous",
)  # fmt: skip
FITTED = [name for name, head in HEADS.items() if head.fit is not None]

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.activations.forget()
    yield
    KEPT.activations.forget()


# --- the numbers ----------------------------------------------------------------------------------------------


@settings(deadline=None)  # the machine may be busy
@given(labels_of)
def test_weights_are_scikit_learns(drawn):
    labels = torch.tensor(drawn)
    found = class_weights(labels, 7)
    there = np.unique(drawn)
    expected = torch.zeros(7)
    expected[there] = torch.from_numpy(compute_class_weight("balanced", classes=there, y=drawn)).float()
    assert torch.equal(found, expected)
    assert found[labels].double().mean() == pytest.approx(1.0)


@settings(deadline=None)  # the machine may be busy
@given(labels_of, st.integers(0, 10**6))
def test_draws_are_those_of_torchs_sampler(drawn, seed):
    labels = torch.tensor(drawn)
    counts = np.bincount(drawn)
    sampler = WeightedRandomSampler(
        [1 / counts[label] for label in drawn], len(drawn), generator=torch.Generator().manual_seed(seed)
    )
    assert draw_balanced(labels, torch.Generator().manual_seed(seed)).tolist() == list(sampler)


def test_classes_come_as_often_however_uneven_they_are():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = torch.cat([torch.cat(batches(1000, 32, 0, epoch, labels)) for epoch in range(30)])
    shares = labels[drawn].bincount() / len(drawn)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.015)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 50), st.integers(0, 50))
def test_an_epoch_draws_as_many_images_as_there_are_by_seed_and_epoch_alone(samples, size, seed, epoch):
    labels = torch.arange(samples) % 3
    parts = batches(samples, size, seed, epoch, labels)
    assert sum(map(len, parts)) == samples
    assert [len(part) for part in parts] == [len(part) for part in batches(samples, size, seed, epoch)]
    assert torch.equal(torch.cat(parts), torch.cat(batches(samples, samples, seed, epoch, labels)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_with_weights(smoothing):
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():
        model[-1][0].weight.mul_(20)  # so that losses differ between images
    recipe = replace(RECIPE, class_weights="balanced", label_smoothing=smoothing, lr=0.0, backbone_lr=0.0)
    run = trainer(model, "linear_probe", batch_size=20, recipe=recipe)
    run.start_epoch()
    run.run_epoch()
    with torch.no_grad():
        logits = model.eval()(run.source.normalise(run.source.images))
    weights = len(run.source) / (3 * run.source.labels.bincount().double())
    expected = nn.CrossEntropyLoss(weight=weights.float(), label_smoothing=smoothing)(logits, run.source.labels)
    assert run.losses == pytest.approx([float(expected)], rel=1e-6)
    assert float(expected) != pytest.approx(float(functional.cross_entropy(logits, run.source.labels)), rel=1e-3)


def test_a_class_without_training_images_counts_nothing():
    source = Pictures(classes=3)
    source.labels = source.labels.clamp(max=1)
    run = trained(tiny(), "full", source=source, recipe=replace(RECIPE, class_weights="balanced", label_smoothing=0.1))
    assert all(map(math.isfinite, run.losses))


@pytest.mark.parametrize("policy", ["linear_probe", "last_1", "full", "lp_ft", "gradual", "auto_rgn"])
def test_every_policy_draws_the_same_images_in_every_phase(policy):
    recipe = replace(RECIPE, sampler="balanced", class_weights="balanced")
    model = tiny()
    epochs = max(4, len(phases_of(model, policy)))
    run = trainer(model, policy, epochs, recipe=recipe)
    for epoch in range(epochs):
        run.start_epoch()
        run.run_epoch()
        assert torch.equal(torch.cat(run.order), torch.cat(batches(20, 8, 0, epoch, run.source.labels)))


# --- cells ----------------------------------------------------------------------------------------------------


def as_torch_does(job, recipe):
    """A plain training by torch's own loss and sampler."""
    labels, cell = job.data.train.labels.tolist(), job.cell
    weights = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    loss_of = nn.CrossEntropyLoss(
        weight=torch.tensor(weights, dtype=torch.float32), label_smoothing=recipe["label_smoothing"]
    )
    counts = np.bincount(labels)

    def order(epoch):
        generator = torch.Generator().manual_seed(seed_for(cell.seed, "batches", str(epoch)))
        sampler = WeightedRandomSampler([1 / counts[label] for label in labels], len(labels), generator=generator)
        return torch.tensor(list(sampler)).split(cell.batch_size)

    return plain_training(job, recipe, loss_of=loss_of, order=order)


@pytest.mark.parametrize("policy", sweep(["linear_probe", "full"], {"linear_probe"}))
def test_a_cell_trains_as_a_plain_loop_with_torchs_own_loss_and_sampler(policy):
    cell = Cell(
        backbone="shufflenet_v2_x0_5", weights="random", freeze=policy, image_size=32, train_size=67, epochs=2,
        batch_size=16, label_smoothing=0.1, layout="contiguous", seed=3, **BOTH,
    )  # fmt: skip
    without = Settings(prefix="off")
    with few_digits():
        made = run_cell(cell, without)
        assert (made.status, made.reason) == ("ok", "")
        plain = as_torch_does(build(cell, without, parse_policy(policy)), made.recipe)
    assert [r.loss for r in made.rounds] == plain.losses
    assert made.predictions_sha256 == plain.predictions_sha256
    assert (made.recipe["class_weights"], made.recipe["sampler"]) == ("balanced", "balanced")


GIVEN = {
    "weights": {"class_weights": "balanced"},
    "sampler": {"sampler": "balanced"},
    "both": BOTH,
    "mlp": {**BOTH, "head": "mlp", "label_smoothing": 0.1},
    "cosine": {**BOTH, "head": "cosine"},
    "last_1": {**BOTH, "freeze": "last_1"},
    "lp_ft": {**BOTH, "freeze": "lp_ft", "epochs": 3},
    "lr": {**BOTH, "lr": "auto"},
}


def rounded(made):
    """What a cell computes, less the last bits, which a prefix in other batches may change."""
    status, *_, rounds, figures, frozen = finished(made)
    losses = [loss for _, loss, *_ in rounds]
    return (status, [phase for phase, *_ in rounds], frozen, figures[-1]), losses


@pytest.mark.parametrize("name", sweep(GIVEN, {"both", "lp_ft"}))
def test_the_store_changes_nothing(name):
    cell = replace(CELL, **GIVEN[name])
    with few_digits():
        live, kept = (run_cell(cell, Settings(prefix=prefix)) for prefix in ("off", "on"))
        again = run_cell(cell, Settings(prefix="on"))
    (same, losses), (as_well, found) = rounded(live), rounded(kept)
    assert as_well == same
    assert found == pytest.approx(losses, rel=1e-5)
    assert finished(again) == finished(kept)
    assert kept.prefix["boundaries"]
    assert live.prefix == {}


@pytest.mark.exhaustive
def test_views_and_augmentation_hold_for_what_is_drawn():
    cell = replace(CELL, augment="flip", epochs=3, **BOTH)
    with few_digits():
        views = [run_cell(cell, Settings(views=2, prefix="on")) for _ in range(2)]
        live = run_cell(cell, Settings())
    assert finished(views[0]) == finished(views[1])
    assert finished(live)


@pytest.mark.parametrize(
    "changed", [{"class_weights": "balanced"}, {"sampler": "balanced"}], ids=lambda c: next(iter(c))
)
def test_metrics_count_every_image_the_same(changed):
    """Of a model that does not learn, whatever is chosen."""
    with few_digits():
        plain, other = (run_cell(replace(CELL, lr=1e-12, **given), Settings()) for given in ({}, changed))
    assert other.loss_test == pytest.approx(plain.loss_test, rel=1e-6)
    assert other.accuracy_val == plain.accuracy_val
    assert other.rounds[0].loss != plain.rounds[0].loss
    assert other.rounds[0].samples == plain.rounds[0].samples == 40


def test_what_is_not_chosen_is_not_in_a_record():
    with few_digits():
        made = run_cell(CELL, Settings())
    assert not {*SINCE} & {*made.recipe}


# --- heads that are fitted ------------------------------------------------------------------------------------

SCIKIT = {
    "ridge": lambda chosen: RidgeClassifierCV(alphas=RIDGE_ALPHAS, class_weight="balanced"),
    "logreg": lambda chosen: LogisticRegression(C=chosen["C"], max_iter=LOGREG_STEPS, class_weight="balanced"),
}


def uneven(classes, offset=0.0):
    """Features of which most are of the first class."""
    x, y, x_val, y_val, x_test = features(classes, samples=120, offset=offset)
    keep = (y == 0) | (np.arange(len(y)) % 5 == 0) | (np.arange(len(y)) < classes)
    return x[keep], y[keep], x_val, y_val, x_test


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", SCIKIT)
def test_predictions_are_scikit_learns_with_balanced_weights(name, classes):
    x, y, x_val, y_val, x_test = uneven(classes)
    fitted = fit(name, x, y, x_val, y_val, "balanced")
    head = HEADS[name].build(x.shape[1], classes)
    put(fitted, head)
    with torch.no_grad():
        found = head(torch.from_numpy(x_test).float()).argmax(1).numpy()
    expected = make_pipeline(StandardScaler(), SCIKIT[name](fitted.chosen)).fit(x, y).predict(x_test)
    assert found.tolist() == expected.tolist()
    plain = fit(name, x, y, x_val, y_val)
    assert not np.allclose(plain.weight, fitted.weight)


@pytest.mark.parametrize("name", [name for name in FITTED if name not in SCIKIT])
def test_a_head_without_weights_says_why(name):
    with pytest.raises(NotApplicable, match=r"knows no class weights, since .*: leave --class-weights out"):
        fit(name, *uneven(3)[:4], "balanced")


def test_a_head_of_a_plugin_that_knows_no_weights_says_so(monkeypatch):
    monkeypatch.setitem(HEADS, "mine", Head(summary="", build=HEADS["ridge"].build, fit=HEADS["ridge"].fit))
    with pytest.raises(NotApplicable, match="its row in the table of heads has no fit with weights"):
        fit("mine", *uneven(3)[:4], "balanced")


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize(
    "changed", [{"class_weights": "balanced"}, {"sampler": "balanced"}], ids=lambda c: next(iter(c))
)
def test_a_cell_with_a_fitted_head(name, changed):
    with few_digits():
        made = run_cell(replace(CELL, head=name, train_size=60, **changed), Settings())
    if "sampler" in changed or name not in SCIKIT:
        assert made.status == "not_applicable"
        assert name in made.reason
        assert "leave --" in made.reason
    else:
        assert (made.status, made.reason) == ("ok", "")
        assert made.recipe["class_weights"] == "balanced"


# --- axes, keys, words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["class_weights", "sampler"])
def test_a_value_that_is_none_is_refused_with_the_choices(name):
    axis = Grid(axes={name: parse_axis(name, "balanced")})
    assert axis.expand()[0] == replace(Cell(), **{name: "balanced"})
    from tlbench.grid.axes import AXES

    with pytest.raises(UserError, match="balanced"):
        AXES[name].check("balancd")


@pytest.mark.parametrize("folder", ["quick-cpu", "ants-bees-cpu"])
def test_cells_without_a_choice_keep_the_key_that_they_had(folder):
    lines = (PUBLISHED / folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    data = [json.loads(line) for line in lines]
    assert [Record.from_dict(one).key for one in data] == [one["key"] for one in data]


def test_a_choice_is_another_cell():
    cell = Cell()
    assert len({replace(cell, **{name: "balanced"}).key for name in BOTH} | {cell.key}) == 3


def test_an_older_record_reads_as_one_without_a_choice():
    data = record().to_dict()
    for name in SINCE:
        data["cell"].pop(name, None)
    assert Record.from_dict(data).cell == record().cell


def test_a_run_of_an_older_version_goes_on(tmp_path):
    Store(tmp_path).describe(Plan(grids=(Grid(),), settings=Settings()))
    path = tmp_path / "run.json"
    data = json.loads(path.read_text())
    for axes in data["grids"]:
        for name in BOTH:
            axes.pop(name, None)
    data.pop("checksum", None)
    path.write_text(seal(data))
    assert load_start(tmp_path).plan.grids[0].axes == Grid().axes


def test_labels_say_it_in_words():
    chosen = [{}, {"class_weights": "balanced"}, {"sampler": "balanced"}, {**BOTH, "lr": 0.1}]
    made = summarise(rows([record(**given) for given in chosen]))
    assert [wording.label(row, wording.varying(made)).rpartition(" · linear")[2] for row in made] == [
        "", " · with balanced class weights", " · with balanced sampling",
        " · lr=0.1 with balanced class weights and balanced sampling",
    ]  # fmt: skip
    assert wording.varying(made[:1]) == []
