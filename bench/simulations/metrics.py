"""Simulates what is said of balanced accuracy and macro F1: how often the interval covers, and how often one of two
equal cells is falsely decided to be better.

Images are as in `simulations.accuracy`: each has a difficulty that cells and seeds share. They belong to classes of
uneven sizes, some of one image, and a class is harder or easier than others: what a metric is in the population of all
images and seeds, for classes in these shares, is known exactly. A wrong answer is any other class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from simulations.accuracy import DRAWS, POINT, SHARES
from tlbench.analysis.metrics import DECIDING, Metric
from tlbench.analysis.stats import Scores, accuracy_interval, against_the_best

SIZES = {
    "even": (40,) * 10,
    "uneven": (1, 2, 3, 4, 6, 8, 12, 20, 40, 80),
    "rare": (*(1, 2, 3) * 8, *(5, 10, 40) * 6),
}
"""Name -> images of each class in a split."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Says what is simulated."""

    sizes: tuple[int, ...]
    """Images of each class."""
    seeds: int
    luck: float
    """Spread of the seeds' accuracies, in points of a hundred."""
    recall: float
    """Mean of the classes' accuracies in the population."""
    spread: float = 0.08
    """Spread of the classes' accuracies around it."""
    cells: int = 1

    @property
    def recalls(self) -> np.ndarray:
        """Returns the accuracy of each class in the population: large and small classes are hard alike."""
        place = np.random.default_rng(7).permutation(len(self.sizes))
        offsets = np.linspace(-1, 1, len(self.sizes))[place]
        return np.clip(self.recall + self.spread * (offsets - offsets.mean()), 0.02, 0.995)

    def truth(self, metric: str) -> float:
        """Returns what a metric is in the population."""
        recall, share = self.recalls, np.array(self.sizes) / sum(self.sizes)
        if metric == "balanced_accuracy":
            return float(recall.mean())
        wrong = share * (1 - recall)
        said = share * recall + (wrong.sum() - wrong) / (len(share) - 1)
        return float((2 * share * recall / (share + said)).mean())


def draw(world: World, metric: Metric, rng: np.random.Generator) -> list[Scores]:
    """Draws the results of a run, for each cell what every image of every seed adds to the metric."""
    labels = np.repeat(np.arange(len(world.sizes)), world.sizes)
    difficulty = rng.standard_normal(labels.size) * math.sqrt(SHARES["image"])
    middle = special.ndtri(world.recalls)[labels]
    density = np.exp(-(middle**2) / 2).mean() / math.sqrt(2 * math.pi)
    luck = world.luck * POINT / density
    middle = middle * math.sqrt(1 + luck**2)
    cells = []
    for _ in range(world.cells):
        taste = difficulty + rng.standard_normal(labels.size) * math.sqrt(SHARES["cell"])
        images, values, doubts = np.arange(labels.size), [], []
        for _ in range(world.seeds):
            answer = middle + luck * rng.standard_normal() + taste
            answer = answer + rng.standard_normal(labels.size) * math.sqrt(SHARES["seed"])
            other = (labels + rng.integers(1, len(world.sizes), labels.size)) % len(world.sizes)
            judged = metric.judge(labels, np.where(answer > 0, labels, other))
            values.append(judged.values)
            doubts.append(judged.doubt)
        cells.append(
            Scores(images=(images,) * world.seeds, correct=tuple(values), doubt=float(np.mean(doubts)))
        )  # fmt: skip
    return cells


def covered(world: World, metric: str, trials: int, seed: int = 0) -> float:
    """Returns the share of the intervals that hold the metric of the population."""
    rng, truth = np.random.default_rng(seed), world.truth(metric)
    hits = [
        not accuracy_interval(scores).excludes(truth)
        for _ in range(trials)
        for scores in draw(world, DECIDING[metric], rng)
    ]
    return float(np.mean(hits))


def falsely_decided(world: World, metric: str, trials: int, seed: int = 0) -> float:
    """Returns the share of the runs in which one of equal cells is said to be better than all others."""
    rng = np.random.default_rng(seed)
    decided = []
    for _ in range(trials):
        cells = {f"cell {n}": scores for n, scores in enumerate(draw(world, DECIDING[metric], rng))}
        ranked = against_the_best(cells, draws=DRAWS)
        decided.append(all(one.standing == "behind" for one in ranked[1:]))
    return float(np.mean(decided))


def table(
    trials: int,
    sizes: Sequence[str] = tuple(SIZES),
    seeds: Sequence[int] = (2, 3, 5),
    recalls: Sequence[float] = (0.6, 0.8, 0.95),
) -> Iterator[dict[str, object]]:
    """Yields a row for each metric, sizes of classes, number of seeds and mean recall."""
    for metric, name, s, recall in itertools.product(("balanced_accuracy", "macro_f1"), sizes, seeds, recalls):
        world = World(sizes=SIZES[name], seeds=s, luck=1.0, recall=recall, spread=min(0.08, 0.9 * (1 - recall)))
        two = World(sizes=SIZES[name], seeds=s, luck=1.0, recall=recall, spread=world.spread, cells=2)
        yield {
            "metric": metric, "classes": name, "seeds": s, "mean recall": f"{100 * recall:.0f} %",
            "covers": covered(world, metric, trials), "falsely decided": falsely_decided(two, metric, trials),
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
