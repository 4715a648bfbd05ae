"""Cross-validation with learners that really learn: how often the interval of all out-of-fold predictions holds what
the models are worth on new images, and how often one of two equals is called worse.

Images are points of two Gaussian classes, of whose features the first few tell the class. A linear learner (ridge) and
an unstable one (the nearest training image) are trained on each fold's rest as tlbench does it: less a part for
validation. What a linear model is worth is known exactly; of the other it is measured on 2,000 new images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tlbench.analysis.stats import Scores, accuracy_interval, against_the_best
from tlbench.data.folds import assign
from tlbench.data.splits import HELD_OUT

Floats = NDArray[np.float64]
Predict = Callable[[Floats], NDArray[np.int64]]
NEW = 2000
"""New images that the nearest neighbour is measured on."""
TELLING = 4
"""Features that tell the classes."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Says what is simulated."""

    images: int
    features: int
    apart: float
    """Distance of the classes' means, in standard deviations of a feature."""
    learner: str = "ridge"
    folds: int = 5
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Holds one cross-validation and what its models are worth."""

    scores: Scores
    of_folds: float
    """Accuracy of the models of all folds and seeds on new images."""
    of_all: float
    """The same of models that are trained on all images."""


def _draw(world: World, count: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    labels = rng.integers(0, 2, count)
    labels[:6] = np.arange(6) % 2  # three of each class at least
    points = rng.standard_normal((count, world.features))
    points[:, :TELLING] += (labels[:, None] - 0.5) * world.apart / math.sqrt(TELLING)
    return points, labels


New = tuple[Floats, NDArray[np.int64]]
"""New images, and their classes."""


def _worth(world: World, points: Floats, labels: NDArray[np.int64], new: New) -> tuple[Predict, float]:
    """Returns what a trained learner predicts, and its accuracy on new images."""
    if world.learner == "nearest":

        def nearest(asked: Floats) -> NDArray[np.int64]:
            apart = (asked**2).sum(axis=1)[:, None] - 2 * asked @ points.T + (points**2).sum(axis=1)
            return labels[apart.argmin(axis=1)]

        return nearest, float((nearest(new[0]) == new[1]).mean())
    centre, signs = points.mean(axis=0), 2.0 * labels - 1
    centred, middle = points - centre, signs.mean()
    kernel = centred @ centred.T + 10.0 * np.eye(len(points))
    weights = centred.T @ np.linalg.solve(kernel, signs - middle)

    def linear(asked: Floats) -> NDArray[np.int64]:
        return ((asked - centre) @ weights + middle > 0).astype(np.int64)

    mean = np.zeros(world.features)
    mean[:TELLING] = 0.5 * world.apart / math.sqrt(TELLING)
    length = float(np.linalg.norm(weights)) or 1.0
    ends = [(side * mean - centre) @ weights + middle for side in (1, -1)]
    return linear, float(special.ndtr(ends[0] / length) + special.ndtr(-ends[1] / length)) / 2


def cross_validate(world: World, rng: np.random.Generator, points: Floats, labels: NDArray[np.int64]) -> Measured:
    """Returns what folds find of these images, each seed with folds of its own."""
    new = _draw(world, NEW if world.learner == "nearest" else 8, rng)
    images = np.arange(len(labels))
    correct, folds, worths = [], [], []
    for _ in range(world.seeds):
        fold_of = assign(labels, images, world.folds, int(rng.integers(2**31)))
        right = np.zeros(len(labels))
        for fold in range(world.folds):
            rest = np.flatnonzero(fold_of != fold)
            kept = rest[rng.random(rest.size) >= HELD_OUT]
            kept = kept if len(set(labels[kept])) == 2 else rest
            predict, worth = _worth(world, points[kept], labels[kept], new)
            test = fold_of == fold
            right[test] = predict(points[test]) == labels[test]
            worths.append(worth * test.sum())
        correct.append(right)
        folds.append(fold_of)
    scores = Scores(images=(images,) * world.seeds, correct=tuple(correct), folds=tuple(folds))
    of_all = _worth(world, points, labels, new)[1]
    return Measured(scores=scores, of_folds=sum(worths) / len(labels) / world.seeds, of_all=of_all)


def coverage(world: World, trials: int, seed: int = 0) -> dict[str, float]:
    """Returns how often the interval holds the accuracy of the folds' models on new images, and that of a model of all
    images, which has seen more; how wide it is; and both accuracies.
    """
    rng = np.random.default_rng([seed, world.images, world.features])
    found = []
    for _ in range(trials):
        measured = cross_validate(world, rng, *_draw(world, world.images, rng))
        interval = accuracy_interval(measured.scores)
        assert interval.low is not None, "folds tell how far models differ"
        assert interval.high is not None, "folds tell how far models differ"
        held = [interval.low <= worth <= interval.high for worth in (measured.of_folds, measured.of_all)]
        found.append([*held, interval.high - interval.low, measured.of_folds, measured.of_all])
    names = ("coverage", "coverage of all", "width", "accuracy", "accuracy of all")
    return dict(zip(names, map(float, np.mean(found, axis=0)), strict=True))


def false_decisions(world: World, trials: int, cells: int = 2, seed: int = 0) -> float:
    """Returns how often, of configurations that are equally good, some are called worse than the best: each sees
    features of its own, which tell as much as those of any other, of the same images.
    """
    rng = np.random.default_rng([seed, world.images, cells])
    false = 0
    for _ in range(trials):
        _, labels = _draw(world, world.images, rng)
        named = {}
        for number in range(cells):
            points = rng.standard_normal((world.images, world.features))
            points[:, :TELLING] += (labels[:, None] - 0.5) * world.apart / math.sqrt(TELLING)
            named[str(number)] = cross_validate(world, rng, points, labels).scores
        false += any(one.standing == "behind" for one in against_the_best(named, draws=1000))
    return false / trials


def table(
    trials: int,
    images: Sequence[int] = (30, 60, 150, 400),
    features: Sequence[int] = (5, 50, 500),
    apart: Sequence[float] = (1.5, 3.0, 5.0),
    learners: Sequence[str] = ("ridge", "nearest"),
) -> Iterator[dict[str, object]]:
    """Yields a row for each number of images and each learner: the worst over features and classes."""
    for n, learner in itertools.product(images, learners):
        worlds = [World(images=n, features=f, apart=a, learner=learner) for f in features for a in apart]
        found = [coverage(world, trials) for world in worlds]
        yield {
            "images": n, "learner": learner,
            "coverage": min(one["coverage"] for one in found),
            "mean coverage": float(np.mean([one["coverage"] for one in found])),
            "coverage of a model of all": min(one["coverage of all"] for one in found),
            "width": float(np.mean([one["width"] for one in found])),
            "false decisions": max(false_decisions(w, max(1, trials // 4)) for w in worlds[:2]),
        }  # fmt: skip


def lines(trials: int) -> list[str]:
    """Returns the lines of the table."""
    written: list[str] = []
    for number, row in enumerate(table(trials)):
        if number == 0:
            written += [f"| {' | '.join(row)} |", f"|{'---:|' * len(row)}"]
        texts = [f"{100 * value:.1f} %" if isinstance(value, float) else str(value) for value in row.values()]
        written.append(f"| {' | '.join(texts)} |")
    return written
