"""How well frozen features suit a task, before anything is trained: scores of (features, labels), and whether such
scores rank backbones as training them does.

No score looks at validation or test images. `logme` is the evidence of You et al. (ICML 2021; fixed point as in
"Ranking and Tuning Pre-trained Models", JMLR 2022, and its authors' code); `ridge_accuracy` and `knn_accuracy` are
leave-one-out accuracies, which say in a person's own unit what a linear layer and what mere neighbourhood make of the
features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

RANK = 1e-10
"""Singular values up to this count as zero, as in the authors' code."""
STEPS, CLOSE, TINY = 11, 1e-3, 1e-5
"""Steps of the fixed point at most, the relative change at which it stands still, and what keeps denominators from
zero: the authors' values."""
ALPHAS = tuple(10.0 ** (power / 2) for power in range(-4, 11))
"""Strengths of ridge regression on standardised features that are tried."""
NEIGHBOURS = 5
LEAST = 5
"""Backbones that a rank correlation needs: of 4, even a perfect order comes about by chance in 1 of 24 cases."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Holds features and labels, and what several scores need of them."""

    features: Floats
    """(n, d)"""
    labels: Labels
    """(n,) from 0 to classes - 1, each at least once."""

    @property
    def targets(self) -> Floats:
        """Returns (n, classes), 1 where an image is of a class."""
        classes = int(self.labels.max()) + 1
        found: Floats = (self.labels[:, None] == np.arange(classes)).astype(np.float64)
        return found

    @cached_property
    def plain(self) -> tuple[Floats, Floats]:
        """Returns left singular vectors (n, k) and singular values (k,) of the features as they are."""
        return _decomposed(self.features)

    @cached_property
    def standardised(self) -> tuple[Floats, Floats]:
        """Returns the same of features whose columns have mean 0 and deviation 1, constant ones left at 0."""
        centred = self.features - self.features.mean(0)
        deviation = centred.std(0)
        return _decomposed(centred / np.where(deviation > 0, deviation, 1.0))


def task(features: NDArray[np.floating], labels: NDArray[np.integer]) -> Task:
    """Returns features (n, d) and labels (n,) for the scores. Errors: ValueError for features that are no numbers."""
    given = features.astype(np.float64)
    if not np.isfinite(given).all():
        raise ValueError("the features are not all finite numbers")
    return Task(features=given, labels=labels.astype(np.int64))


def _decomposed(matrix: Floats) -> tuple[Floats, Floats]:
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    kept = values > RANK
    return left[:, kept], values[kept]


# --- scores ---------------------------------------------------------------------------------------------------


def logme(given: Task) -> float | None:
    """Returns the largest log evidence of a Bayesian linear model of each class's targets, per image, averaged over the
    classes. Higher is better; values of different data sets cannot be compared. None of features that tell nothing,
    since they hardly differ between images: their evidence grows without end as alpha goes to 0 or to infinity.

    Of targets y with variance 1 / beta, and weights with variance 1 / alpha, in the basis of the features' singular
    vectors; t = alpha / beta is iterated to where gamma = sum(s^2 / (s^2 + t)) fits both.
    """
    left, values = given.plain
    images, dimensions = given.features.shape
    squares = values[:, None] ** 2
    projected = (left.T @ given.targets) ** 2  # (k, classes)
    unexplained = given.targets.sum(0) - projected.sum(0)  # squares of zeros and ones are themselves
    classes = projected.shape[1]
    evidences = np.empty(classes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # what comes of them is no figure
        for label in range(classes):
            x2, rest = projected[:, label], float(unexplained[label])
            evidences[label] = _evidence(squares[:, 0], x2, rest, images, dimensions)
        found = float(evidences.mean())
    return found if np.isfinite(found) else None


def _evidence(squares: Floats, x2: Floats, rest: float, images: int, dimensions: int) -> float:
    t = 1.0
    for _ in range(STEPS):
        gamma = (squares / (squares + t)).sum()
        weights = (squares * x2 / (squares + t) ** 2).sum()
        residual = (x2 / (1 + squares / t) ** 2).sum() + rest
        alpha, beta = gamma / (weights + TINY), (images - gamma) / (residual + TINY)
        before, t = t, alpha / beta
        if abs(t - before) / before <= CLOSE:
            break
    evidence = dimensions * np.log(alpha) + images * np.log(beta) - np.log(alpha + beta * squares).sum()
    evidence -= beta * residual + alpha * weights + images * np.log(2 * np.pi)
    return float(evidence / (2 * images))


def ridge_accuracy(given: Task) -> float:
    """Returns the share of images that ridge regression on the other images' features classifies correctly: exact
    leave-one-out, its strength chosen among `ALPHAS` by the squared error of the same, as `RidgeCV` of scikit-learn.

    The choice makes it optimistic by a little: it is for comparing features, not for expecting an accuracy.
    """
    left, values = given.standardised
    targets = given.targets
    means = targets.mean(0)
    projected = left.T @ (targets - means)
    best, found = np.inf, 0.0
    for alpha in ALPHAS:
        shrunk = values**2 / (values**2 + alpha)
        fitted = means + left @ (shrunk[:, None] * projected)
        leverage = (left**2 * shrunk).sum(1) + 1 / len(targets)
        left_out = targets - (targets - fitted) / np.maximum(1 - leverage, RANK)[:, None]
        error = ((targets - left_out) ** 2).mean()
        if error < best:
            best, found = error, float((left_out.argmax(1) == given.labels).mean())
    return found


def knn_accuracy(given: Task, neighbours: int = NEIGHBOURS) -> float:
    """Returns the share of images that most of the nearest others (by the cosine of centred features, each counted by
    it) have the class of.
    """
    centred = given.features - given.features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), RANK)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    count = min(neighbours, len(unit) - 1)
    nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
    weight = np.take_along_axis(likeness, nearest, axis=1) + 1  # from 0 to 2: a negative vote makes no sense
    votes = (given.targets[nearest] * weight[..., None]).sum(1)
    return float((votes.argmax(1) == given.labels).mean())


# --- whether scores rank as training does ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Says how a column ranks backbones, beside the accuracies that were measured."""

    column: str
    backbones: int
    """Backbones with both."""
    tau: float | None
    """Kendall's tau, where the best count most (weighted hyperbolically, Vigna 2015); None where too few have both."""
    chance: float | None
    """Share of random orders with at least this tau."""


ORDERS = 2000
"""Random orders that a tau is held against."""


def ranking(column: str, scores: Mapping[str, float | None], accuracies: Mapping[str, float]) -> Ranking:
    """Returns how a column's values (backbone -> score, higher is better) rank backbones with accuracies."""
    both = [name for name, value in scores.items() if value is not None and name in accuracies]
    if len(both) < LEAST:
        return Ranking(column=column, backbones=len(both), tau=None, chance=None)
    given = np.array([scores[name] for name in both], np.float64)
    wanted = np.array([accuracies[name] for name in both], np.float64)
    found = weighted_tau(wanted, given)
    chance = np.random.default_rng(0)
    others = np.array([weighted_tau(wanted, chance.permutation(given)) for _ in range(ORDERS)])
    share = (1 + int((others >= found - RANK).sum())) / (1 + ORDERS)
    return Ranking(column=column, backbones=len(both), tau=found, chance=share)


def weighted_tau(wanted: Floats, given: Floats) -> float:
    """Returns Kendall's tau of two rankings, where an exchange counts by 1 / rank of both in ``wanted``; 0 where either
    has no order. `scipy.stats.weightedtau` with ``rank`` by ``wanted``, without its import.
    """
    order = np.argsort(-wanted, kind="stable")
    weight = np.empty(len(wanted))
    weight[order] = 1 / (1 + np.arange(len(wanted)))
    pairs = np.triu_indices(len(wanted), 1)
    both = weight[pairs[0]] + weight[pairs[1]]
    a, b = (np.sign(one[pairs[0]] - one[pairs[1]]) for one in (wanted, given))
    norm = np.sqrt((both * a**2).sum() * (both * b**2).sum())
    return float((both * a * b).sum() / norm) if norm else 0.0


def in_words(rankings: Sequence[Ranking], size: str = "parameters") -> list[str]:
    """Says of each column how it ranked the backbones, and where it was no better than the one called ``size``."""
    known = {one.column: one for one in rankings}
    by_size = known.get(size)
    lines = []
    for one in rankings:
        if one.tau is None:
            continue
        text = f"{one.column}: tau {one.tau:.2f} with the accuracies measured, over {one.backbones} backbones"
        if one.chance is not None and one.chance > 0.05:
            text += f"; a random order does as well in {100 * one.chance:.0f} % of cases"
        if one.column != size and by_size is not None and by_size.tau is not None and one.tau <= by_size.tau:
            text += "; no better than model size"
        lines.append(text)
    return lines
