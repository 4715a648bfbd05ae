"""Scores of frozen features are what their authors define, and rank as they should."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors

from tlbench.analysis import transferability as scores


def paper_logme(f: np.ndarray, y: np.ndarray) -> float:
    """The evidence as the paper has it, in the space of the weights: A = alpha I + beta F'F, m = beta A^-1 F'y, and the
    same starting point, number of steps, constants and end as its authors' fixed point.
    """
    n, d = f.shape
    found = []
    for label in range(int(y.max()) + 1):
        target = (y == label).astype(float)
        eigen = np.clip(np.linalg.eigvalsh(f.T @ f), 0, None)
        eigen = eigen[eigen > 1e-9 * eigen.max()]
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            m = np.linalg.solve(t * np.eye(d) + f.T @ f, f.T @ target)
            gamma = (eigen / (eigen + t)).sum()
            error = ((f @ m - target) ** 2).sum()
            alpha, beta = gamma / (m @ m + 1e-5), (n - gamma) / (error + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        log_det = np.log(alpha + beta * eigen).sum()
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - log_det / 2
        found.append((evidence - beta / 2 * error - alpha / 2 * (m @ m) - n / 2 * np.log(2 * np.pi)) / n)
    return float(np.mean(found))


def made(images, dimensions, classes, seed, sharp=1.0):
    chance = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), chance.integers(classes, size=images - classes)])
    means = sharp * chance.normal(size=(classes, dimensions))
    return means[labels] + chance.normal(size=(images, dimensions)), labels


@given(
    st.integers(0, 10**6), st.integers(12, 60), st.integers(2, 40), st.integers(2, 6), st.sampled_from([0.0, 0.5, 3.0])
)
@settings(max_examples=60, deadline=None)
def test_logme_is_the_papers_on_random_features(seed, images, dimensions, classes, sharp):
    features, labels = made(images, dimensions, classes, seed, sharp)
    if images == dimensions:
        return  # a square matrix may be so near to singular that either way loses digits
    assert scores.logme(scores.task(features, labels)) == pytest.approx(paper_logme(features, labels), abs=1e-6)


def test_logme_is_the_papers_on_the_features_of_a_network():
    import torch

    from tlbench.backbones import load_backbone
    from tlbench.data import Request, load_data

    digits = load_data("digits", Request(size=32, resize=32, interpolation="bilinear", seed=0))

    backbone = load_backbone("mobilenet_v3_small", "random")
    images = digits.train.images[digits.train.index[:120]]
    with torch.inference_mode():
        features = backbone.stages.eval()(images.float() / 255).double().numpy()
    labels = digits.train.labels[:120].numpy()
    features = 100 * (features - features.mean(0))  # random weights hardly tell images apart
    found = scores.logme(scores.task(features, labels))
    assert found == pytest.approx(paper_logme(features, labels), abs=1e-6)


def test_features_of_less_than_full_rank_do_no_harm():
    features, labels = made(40, 6, 3, 0)
    doubled = np.concatenate([features, features], axis=1)
    assert np.isfinite(scores.logme(scores.task(doubled, labels)))
    constant = np.concatenate([features, np.ones((40, 1))], axis=1)
    given = scores.task(constant, labels)
    assert scores.ridge_accuracy(given) == scores.ridge_accuracy(scores.task(features, labels))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-160])
@pytest.mark.filterwarnings("error")
def test_of_features_that_hardly_differ_logme_says_nothing(scale):
    """A deep network with random weights gave minus infinity, and a warning of NumPy's."""
    features = 1.0 + scale * np.random.default_rng(0).standard_normal((40, 8))
    spread = scale * np.random.default_rng(1).standard_normal((40, 8))
    for one in (features, spread):
        found = scores.logme(scores.task(one, np.arange(40) % 4))
        assert found is None or np.isfinite(found)
    assert scores.logme(scores.task(np.ones((40, 8)) * 0.0, np.arange(40) % 4)) is None


@pytest.mark.parametrize("name", ["logme", "ridge_accuracy", "knn_accuracy"])
def test_better_features_score_higher(name):
    score = getattr(scores, name)
    found = [
        np.mean([score(scores.task(*made(150, 20, 4, seed, sharp))) for seed in range(5)]) for sharp in (0, 0.3, 1)
    ]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_random_features_are_worth_chance():
    tasks = [made(300, 30, 3, seed, 0.0) for seed in range(20)]
    most = np.mean([np.bincount(labels).max() / 300 for _, labels in tasks])
    found = [scores.ridge_accuracy(scores.task(*one)) for one in tasks]
    assert 1 / 3 - 0.03 < np.mean(found) < most + 0.02, "always the most frequent class is as good"
    found = [scores.knn_accuracy(scores.task(*made(300, 30, 3, seed, 0.0))) for seed in range(20)]
    assert abs(np.mean(found) - 1 / 3) < 0.03


def test_leave_one_out_is_exact():
    features, labels = made(40, 7, 3, 3)
    centred = features - features.mean(0)
    standardised = centred / centred.std(0)
    targets = np.eye(3)[labels]
    chosen = RidgeCV(alphas=scores.ALPHAS, alpha_per_target=False).fit(standardised, targets).alpha_
    right = 0
    for n in range(40):
        rest = np.arange(40) != n
        x, y = standardised[rest], targets[rest]
        mean, level = x.mean(0), y.mean(0)
        weights = np.linalg.solve((x - mean).T @ (x - mean) + chosen * np.eye(7), (x - mean).T @ (y - level))
        right += int((level + (standardised[n] - mean) @ weights).argmax() == labels[n])
    assert scores.ridge_accuracy(scores.task(features, labels)) == pytest.approx(right / 40)


def test_neighbours_are_those_of_scikit_learn():
    features, labels = made(60, 8, 3, 1)
    centred = features - features.mean(0)
    distances, nearest = NearestNeighbors(n_neighbors=6, metric="cosine").fit(centred).kneighbors(centred)
    votes = np.zeros((60, 3))
    for n, (apart, others) in enumerate(zip(distances[:, 1:], nearest[:, 1:], strict=True)):
        for one, other in zip(apart, others, strict=True):
            votes[n, labels[other]] += 2 - one
    assert scores.knn_accuracy(scores.task(features, labels)) == (votes.argmax(1) == labels).mean()


def test_features_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        scores.task(np.array([[np.nan], [1.0]]), np.array([0, 1]))


# --- rank correlation -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_weighted_tau_is_scipys(pairs):
    wanted, got = (np.array(side) for side in zip(*pairs, strict=True))
    if len(set(wanted)) < len(wanted):
        return  # of ties, which is ranked first is nobody's to say
    rank = np.argsort(np.argsort(-wanted, kind="stable"), kind="stable")
    theirs = scipy.stats.weightedtau(wanted, got, rank=rank).statistic
    assert scores.weighted_tau(wanted, got) == pytest.approx(0.0 if np.isnan(theirs) else theirs)


def test_of_few_backbones_nothing_is_said():
    found = scores.ranking("logme", dict.fromkeys("abcd", 1.0), dict.fromkeys("abcd", 0.5))
    assert (found.tau, found.chance) == (None, None)


def test_a_random_column_is_seldom_taken_for_a_good_one():
    chance, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        names = [str(n) for n in range(8)]
        given = dict(zip(names, chance.random(8), strict=True))
        measured = dict(zip(names, chance.random(8), strict=True))
        wrong += scores.ranking("x", given, measured).chance < 0.05
    assert wrong <= 8  # 3 are expected


def test_words_say_when_size_does_as_well():
    names = [str(n) for n in range(8)]
    measured = {name: n / 10 for n, name in enumerate(names)}
    good = {name: float(n) for n, name in enumerate(names)}
    worse = {**good, "7": 5.5}
    lines = scores.in_words([scores.ranking("logme", worse, measured), scores.ranking("parameters", good, measured)])
    assert "no better than model size" in lines[0]
    assert "no better" not in lines[1]
    few = scores.ranking("logme", dict(itertools.islice(good.items(), 3)), measured)
    assert scores.in_words([few]) == []
