"""Heads: sizes, and the training-free ones against scikit-learn's own predictions on the same features."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from tlbench import heads
from tlbench.errors import NotApplicable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS, LOGREG_CS, LOGREG_STEPS, MLP_WIDTH, RIDGE_ALPHAS, Fitted, fit
from tlbench.measure.cell import run_cell
from tlbench.measure.fitting import put

TRAINED = [name for name, head in HEADS.items() if head.fit is None]
FITTED = [name for name, head in HEADS.items() if head.fit is not None]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_maps_features_to_logits(name):
    head = HEADS[name].build(12, 5)
    assert head(torch.rand(7, 12)).shape == (7, 5)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("linear", 12 * 5 + 5),
        ("dropout_linear", 12 * 5 + 5),
        ("mlp", 12 * MLP_WIDTH + MLP_WIDTH + MLP_WIDTH * 5 + 5),
        ("cosine", 12 * 5 + 1),
    ],
)
def test_parameters(name, count):
    assert sum(p.numel() for p in HEADS[name].build(12, 5).parameters()) == count


def test_what_is_known_of_heads_is_of_heads_that_are_there():
    assert {"linear", "dropout_linear", "mlp", "cosine"} <= {*TRAINED}
    assert {*SCIKIT} <= {*FITTED}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_head_tells_classes_apart(name):
    """Whatever it is, and the same again."""
    *data, x_test = features(3, offset=5.0)
    found = predictions(name, *data, x_test)
    assert found.tolist() == predictions(name, *data, x_test).tolist()
    x, y = data[:2]
    assert (predictions(name, *data, x) == y).mean() > 0.6


def test_cosine_does_not_see_lengths():
    head = HEADS["cosine"].build(12, 5)
    x = torch.rand(3, 12)
    torch.testing.assert_close(head(7 * x), head(x))
    with torch.no_grad():
        head[0].weight.mul_(3)
    torch.testing.assert_close(head(7 * x), head(x))


def features(classes: int, samples: int = 90, width: int = 20, seed: int = 0, offset: float = 0.0):
    """Class centres with noise, as (x, y, x_val, y_val, x_test); every class is in every part."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    parts = []
    for count in (samples, samples // 2, samples):
        y = np.concatenate([np.arange(classes), rng.integers(classes, size=count)])
        # Unequal scales and a common offset, as pooled features have them.
        x = (centres[y] + 1.5 * rng.normal(size=(len(y), width))) * np.linspace(0.1, 3, width) + offset
        parts += [x, y]
    return parts[:5]


def predictions(name: str, x, y, x_val, y_val, x_test) -> np.ndarray:
    """As the run makes them: what was fitted, in 32 bits, and the largest logit."""
    head = HEADS[name].build(x.shape[1], int(y.max()) + 1)
    put(fit(name, x, y, x_val, y_val), head)
    with torch.no_grad():
        return head(torch.from_numpy(x_test).float()).argmax(1).numpy()


def scikit_nearest_mean(x, y, x_val, y_val):
    """SimpleShot's CL2N, step by step: centred by the mean of the training images, length 1, the nearest centroid."""
    return make_pipeline(StandardScaler(with_std=False), Normalizer(), NearestCentroid()).fit(x, y)


def scikit_ridge(x, y, x_val, y_val):
    return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=RIDGE_ALPHAS)).fit(x, y)


def scikit_logreg(x, y, x_val, y_val):
    """At the value that was chosen; which one that is has a test of its own."""
    chosen = fit("logreg", x, y, x_val, y_val).chosen["C"]
    return make_pipeline(StandardScaler(), LogisticRegression(C=chosen, max_iter=LOGREG_STEPS)).fit(x, y)


SCIKIT = {"nearest_mean": scikit_nearest_mean, "ridge": scikit_ridge, "logreg": scikit_logreg}


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize(
    "classes", [2, pytest.param(3, marks=pytest.mark.exhaustive), pytest.param(12, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("name", SCIKIT)
def test_predictions_are_scikit_learns(name, classes, offset):
    *data, x_test = features(classes, offset=offset)
    expected = SCIKIT[name](*data).predict(x_test)
    found = predictions(name, *data, x_test)
    assert found.tolist() == expected.tolist()
    assert len(set(found.tolist())) == classes


@pytest.mark.exhaustive
@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_of_logreg_are_scikit_learns(classes):
    """Logits are more than their largest: the loss that is reported comes from them."""
    *data, x_test = features(classes)
    fitted = fit("logreg", *data)
    logits = torch.from_numpy(x_test @ fitted.weight.T + fitted.bias)
    expected = torch.from_numpy(scikit_logreg(*data).predict_proba(x_test))
    torch.testing.assert_close(logits.softmax(1), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCIKIT)
def test_more_features_than_images(name):
    *data, x_test = features(4, samples=20, width=200)
    assert predictions(name, *data, x_test).tolist() == SCIKIT[name](*data).predict(x_test).tolist()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCIKIT)
def test_dead_features_do_no_harm(name):
    """A ReLU may be off for all images."""
    *data, x_test = features(3)
    for part in (data[0], data[2], x_test):
        part[:, :5] = 0
    with warnings.catch_warnings(action="error"):
        found = predictions(name, *data, x_test)
    with warnings.catch_warnings(action="ignore"):
        assert found.tolist() == SCIKIT[name](*data).predict(x_test).tolist()


def test_a_tie_goes_to_the_first_class_as_in_scikit_learn():
    x = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    y = np.array([0, 1, 2])
    middle = np.array([[0.0, 0.0], [-3.0, 0.0]])  # as far from class 0 as from class 1
    expected = scikit_nearest_mean(x, y, x, y).predict(middle)
    assert expected.tolist() == [0, 0]
    assert predictions("nearest_mean", x, y, x, y, middle).tolist() == expected.tolist()


def test_a_tie_between_strengths_goes_to_the_stronger_regularisation():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 3)) + 100 * y[:, None]  # every C gets all of them right
    assert fit("logreg", x, y, x, y).chosen == {"C": min(LOGREG_CS), "edge": "least C"}


@pytest.mark.exhaustive
def test_logreg_chooses_on_validation_data():
    x, y, x_val, y_val, _ = features(3)
    chosen = {fit("logreg", x, y, x_val, labels).chosen["C"] for labels in (y_val, (y_val + 1) % 3, y_val[::-1])}
    assert len(chosen) > 1, "other validation labels, another C"


@pytest.mark.exhaustive
@pytest.mark.parametrize("sizes", [(2, 90, 20), (3, 90, 20), (12, 90, 20), (4, 20, 200), (10, 500, 64)])
def test_logreg_chooses_the_best_of_the_official_range(sizes):
    """To an image: each value alone, from nothing and to a hundredth of the gradient, is what it is held against."""
    x, y, x_val, y_val, _ = features(*sizes)
    z = StandardScaler().fit(x)
    scores = {
        c: LogisticRegression(C=c, max_iter=LOGREG_STEPS, tol=1e-5)
        .fit(z.transform(x), y)
        .score(z.transform(x_val), y_val)
        for c in LOGREG_CS[::3]
    }
    fitted = fit("logreg", x, y, x_val, y_val)
    found = ((x_val @ fitted.weight.T + fitted.bias).argmax(1) == y_val).mean()
    assert found >= max(scores.values()) - 1.01 / len(y_val)


def test_the_official_range_of_logreg():
    np.testing.assert_allclose(LOGREG_CS, np.logspace(-7, 2, 100), rtol=1e-12)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sizes", [(4, 20, 200), (5, 300, 100), (10, 500, 64)])
def test_100_values_of_logreg_cost_no_more_than_7_did(sizes, monkeypatch):
    """In steps of L-BFGS, all the fits of the path and the last one together."""
    steps = []
    plain = LogisticRegression.fit

    def counted(self, *args):
        plain(self, *args)
        steps.append(int(self.n_iter_[0]))
        return self

    monkeypatch.setattr(LogisticRegression, "fit", counted)
    x, y, x_val, y_val, _ = features(*sizes)
    fit("logreg", x, y, x_val, y_val)
    assert len(steps) == 101
    now = sum(steps)
    steps.clear()
    for c in 10.0 ** np.arange(-4, 3):
        LogisticRegression(C=c, max_iter=LOGREG_STEPS).fit(StandardScaler().fit_transform(x), y)
    assert now <= sum(steps)


@pytest.mark.parametrize(("best", "edge"), [(0, {"edge": "least C"}), (7, {}), (98, {}), (99, {"edge": "largest C"})])
def test_a_choice_on_the_edge_of_the_range_says_so(best, edge, monkeypatch):
    monkeypatch.setattr(heads, "_scores_along_the_path", lambda *_: [float(i == best) for i in range(100)])
    x, y, x_val, y_val, _ = features(3)
    assert fit("logreg", x, y, x_val, y_val).chosen == {"C": LOGREG_CS[best], **edge}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_fitted_head_computes_in_32_bits(precision):
    """The weights of a strong penalty are too small for 16."""
    x = features(3)[0]
    head = HEADS["logreg"].build(x.shape[1], 3)
    put(Fitted(weight=np.full((3, x.shape[1]), 1e-9), bias=np.zeros(3)), head)
    given = torch.from_numpy(x).to(precision)
    with torch.autocast("cpu", precision), torch.no_grad():
        assert torch.equal(head(given), head[0](given.float()))
        assert head(given).dtype == torch.float32
        assert head(given).abs().max() > 0


def test_nearest_mean_and_ridge_do_not_look_at_validation_data():
    x, y, x_val, y_val, x_test = features(3)
    for name in ("nearest_mean", "ridge"):
        one = predictions(name, x, y, x_val, y_val, x_test)
        other = predictions(name, x, y, -x_val, (y_val + 1) % 3, x_test)
        assert one.tolist() == other.tolist()


def test_ridge_says_what_it_chose():
    x, y, x_val, y_val, _ = features(3)
    expected = scikit_ridge(x, y, x_val, y_val)[-1].alpha_
    assert fit("ridge", x, y, x_val, y_val).chosen == {"alpha": expected}
    assert expected in RIDGE_ALPHAS


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SCIKIT)
def test_one_image_a_class(name):
    *data, x_test = features(4, samples=0)
    with warnings.catch_warnings(action="error"):
        found = predictions(name, *data, x_test)
    with warnings.catch_warnings(action="ignore"):
        assert found.tolist() == SCIKIT[name](*data).predict(x_test).tolist()


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_class_without_training_images_is_not_applicable(name, missing):
    x, y, x_val, y_val, _ = features(3)
    keep = y != missing
    with pytest.raises(NotApplicable, match=f"class {missing} has none"):
        fit(name, x[keep], y[keep], x_val, y_val)


@settings(deadline=None)  # the machine may be busy
@given(classes=st.integers(2, 6), samples=st.integers(0, 40), width=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_nearest_mean_picks_a_nearest_mean(classes, samples, width, seed):
    """Whatever the features; a tie within rounding may go either way."""
    x, y, x_val, y_val, x_test = features(classes, samples, width, seed)
    found = predictions("nearest_mean", x, y, x_val, y_val, x_test)
    unit = Normalizer().fit_transform
    z, z_test = unit(x - x.mean(0)), unit(x_test - x.mean(0))
    means = np.stack([z[y == label].mean(0) for label in range(classes)])
    distances = ((z_test[:, None] - means) ** 2).sum(2)
    chosen = distances[np.arange(len(found)), found]
    assert np.all(chosen <= distances.min(1) + 1e-4 * (1 + distances.max(1)))


@pytest.mark.parametrize("name", FITTED)
def test_a_cell_with_a_fitted_head(name):
    """From images to figures; the trunk is as it was, whatever the head holds beside its parameters."""
    cell = Cell(backbone="resnet18", weights="random", head=name, train_size=60, image_size=32, layout="contiguous")
    made = run_cell(cell, Settings())
    assert (made.status, made.reason) == ("ok", "")
    assert made.frozen_sha256_before == made.frozen_sha256_after
    assert made.accuracy_test > 0.3
    assert made.accuracy_val == made.rounds[-1].accuracy_val
    assert made.definitions == ({"head": HEADS[name].version} if HEADS[name].version > 1 else {})


def test_a_fitted_head_is_not_augmented():
    """It takes each image once, as it is, and was reported as trained with --augment."""
    cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, layout="contiguous")
    found = run_cell(replace(cell, head="ridge", augment="flip", freeze="linear_probe"), Settings())
    assert found.status == "not_applicable"
    assert "leave --augment out" in found.reason
