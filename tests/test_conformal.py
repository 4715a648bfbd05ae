"""Sets of classes hold the right class as often as was asked for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlbench.errors import UserError
from tlbench.kept import conformal


def drawn(chance, images, classes=5, sharp=2.0):
    """Logits and labels of a model that knows something."""
    labels = chance.integers(classes, size=images)
    logits = chance.normal(size=(images, classes))
    logits[np.arange(images), labels] += sharp
    return logits, labels


@pytest.mark.parametrize("images", [40, 153, 400])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_coverage_over_many_draws_is_what_was_asked_for(images, coverage):
    chance = np.random.default_rng(images)
    covered = []
    for _ in range(400):
        logits, labels = drawn(chance, 2 * images)
        probabilities = conformal.softmax(logits)
        scores = conformal.scores_of(probabilities[:images], labels[:images])
        inside = conformal.sets_of(probabilities[images:], conformal.limit_of(scores, coverage))
        covered.append(inside[np.arange(images), labels[images:]].mean())
    rank = math.ceil((images + 1) * coverage)
    expected = rank / (images + 1)  # exact for scores without ties
    assert abs(np.mean(covered) - expected) < 4 * np.std(covered) / math.sqrt(len(covered))
    assert coverage - 1e-9 <= expected <= coverage + 1 / (images + 1)


def test_falling_short_is_said_as_often_as_chance_has_it():
    chance, short = np.random.default_rng(0), []
    for _ in range(400):
        logits, labels = drawn(chance, 300)
        probabilities = conformal.softmax(logits)
        scores = conformal.scores_of(probabilities[:120], labels[:120])
        short.append(conformal.held_against(scores.tolist(), probabilities[120:], labels[120:])["short"])
    assert np.mean(short) <= conformal.SURE + 3 * math.sqrt(conformal.SURE * 0.95 / 400)


def test_images_of_another_kind_are_found_to_fall_short():
    chance = np.random.default_rng(0)
    logits, labels = drawn(chance, 200)
    other, others = drawn(chance, 300, sharp=0.5)
    scores = conformal.scores_of(conformal.softmax(logits), labels)
    assert conformal.held_against(scores.tolist(), conformal.softmax(other), others)["short"]


@given(st.integers(1, 300), st.floats(0.01, 0.99))
@settings(max_examples=200, deadline=None)
def test_the_limit_is_the_score_of_the_rank(n, coverage):
    scores = np.sort(np.random.default_rng(n).random(n))
    limit = conformal.limit_of(scores.tolist(), coverage)
    below = int((scores <= limit).sum())
    if math.isinf(limit):
        assert n < conformal.fewest(coverage)
    else:
        assert below >= (n + 1) * coverage - 1e-6
        assert below - 1 < (n + 1) * coverage


def test_with_too_few_images_every_class_is_in_the_set():
    assert conformal.limit_of([0.1] * 18, 0.95) == math.inf
    assert conformal.limit_of([0.1] * 19, 0.95) == 0.1
    assert conformal.fewest(0.95) == 19


def test_of_many_images_a_chance_sample_is_kept():
    probabilities = np.random.default_rng(0).random((conformal.MOST_SCORES + 500, 2))
    scores = conformal.scores_of(probabilities, np.zeros(len(probabilities), int))
    assert len(scores) == conformal.MOST_SCORES
    assert (np.diff(scores) >= 0).all()


@pytest.mark.parametrize("coverage", [0, 1, -1, 2, float("nan")])
def test_what_is_no_share_is_refused(coverage):
    with pytest.raises(UserError, match="coverage"):
        conformal.limit_of([0.1], coverage)


def test_softmax_takes_any_logits():
    found = conformal.softmax(np.array([[1e4, 0.0], [-1e4, -1e4]]))
    assert np.allclose(found, [[1, 0], [0.5, 0.5]])


def ridge(x, y, classes=2):
    """Probabilities that a ridge regression on one-hot targets, sharpened, gives to the classes of other points."""
    centre = x.mean(0)
    weight = np.linalg.solve(
        (x - centre).T @ (x - centre) + 2 * np.eye(x.shape[1]), (x - centre).T @ np.eye(classes)[y]
    )
    return lambda points: conformal.softmax(6 * (points - centre) @ weight)


@pytest.mark.parametrize(("features", "apart"), [(5, 1.5), (20, 2.5), (30, 1.0)])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_by_scores_of_folds_hold_the_right_class_of_new_images(features, apart, coverage):
    """Of points of two classes, by five folds of 60 and a model of all of them: as often as asked for, over many draws,
    and never less than what is proven of CV+, also where there are half as many features as points."""
    chance = np.random.default_rng(features)
    folds, new, held = 5, 200, []

    def points(count):
        labels = chance.integers(2, size=count)
        found = chance.normal(size=(count, features))
        found[:, 0] += apart * labels
        return found, labels

    for _ in range(150):
        x, y = points(60)
        other, others = points(new)
        of = np.arange(60) % folds
        probabilities = np.empty((60, 2))
        for fold in range(folds):
            probabilities[of == fold] = ridge(x[of != fold], y[of != fold])(x[of == fold])
        limit = conformal.limit_of(conformal.scores_of(probabilities, y).tolist(), coverage)
        inside = conformal.sets_of(ridge(x, y)(other), limit)
        held.append(inside[np.arange(new), others].mean())
    error = np.std(held) / math.sqrt(len(held))
    assert np.mean(held) > coverage - 0.015 - 3 * error
    assert np.mean(held) > 1 - 2 * (1 - coverage)
