"""Comparisons with the best: which cells may be as good as the leader, and how far each may lie behind the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis.stats.accuracy import PSEUDO, Parts, Scores, parts_of, spreads_of
from tlbench.analysis.stats.functions import special
from tlbench.analysis.stats.student import CONFIDENCE, Floats, upper_tail

Place = Literal["best", "tied", "behind", "cannot say"]

DRAWS = 4000
STRICTER = 0.75
"""Share of the allowed errors that decisions are made at: at the whole of it, simulated runs of many seeds on redrawn
splits came to 5 to 6 % for 5."""
ROUNDING = 1e-12
MOST_PAIRED = 100
"""Cells beyond which pairs are bounded instead of compared one by one: their number grows with the square."""
MANY, DRAWS_OF_MANY = 400, 1000
"""Cells beyond which each is taken by itself, as if it had images of its own: that claims less, and needs no memory for
every two of them."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """Says how a cell stands against the best one."""

    name: str
    estimate: float
    n: int
    """Seeds."""
    gap: float
    """Its accuracy less the leader's."""
    at_most: float
    """It is no further than this behind the best cell, whichever that is (Hsu 1984), for all cells at once: the upper
    end of an interval with as much left out on the other side."""
    at_least: float
    """It is at least so far behind the leader, for all pairs at once; 0 where it may be level."""
    standing: Place
    """``best``: the leader by estimate; ``tied``: it may be as good as the leader; ``behind``: it is not; ``cannot
    say``: one seed on either side."""
    seeds_help: bool
    """More seeds may tell it from the leader; else the images are too few for that, however many seeds there are."""

    def within(self, margin: float) -> bool | None:
        """Tells whether it lies within ``margin`` of the best; None where the intervals cannot say."""
        if self.at_most <= margin:
            return True
        return False if self.at_least > margin else None


def against_the_best(cells: Mapping[str, Scores], confidence: float = CONFIDENCE, draws: int = DRAWS) -> list[Against]:
    """Returns how each cell stands against the best one, best first.

    ``behind`` holds for all pairs at once (max-T over draws of images and seeds); ``at_most`` is the upper end of Hsu's
    interval for the distance to the best. Cells are paired by their images. A leader that beats each other one, in a
    comparison of two at the same confidence, is decided, and all are behind it: that needs no adjustment for their
    number (Gutmann and Maymin 1987). Where a cell has one seed only, and no folds, nothing is said of it; where that is
    the leader, of none.
    """
    names = list(cells)
    if not names:
        return []
    parts = parts_of([cells[name] for name in names], paired=len(names) <= MANY)
    repeated = np.flatnonzero(parts.freedom > 0)
    order = np.argsort(-parts.means, kind="stable")
    leader = int(order[0])
    ends = {
        "at_most": np.ones(len(names)),
        "at_least": np.zeros(len(names)),
        "decided": np.zeros(len(names), dtype=bool),
    }
    ends["seeds_help"] = np.ones(len(names), dtype=bool)
    if leader in repeated and repeated.size > 1:
        ends_of = _ends if len(names) <= MANY else _ends_of_many
        found = ends_of(parts, repeated, int(np.flatnonzero(repeated == leader)[0]), confidence, draws)
        for end, values in found.items():
            ends[end][repeated] = values
    behind = (ends["at_least"] > 0) | bool(ends["decided"].sum() == len(names) - 1)
    return [
        Against(
            name=names[n],
            estimate=float(parts.means[n]),
            n=int(parts.seeds[n]),
            gap=float(parts.means[n] - parts.means[leader]),
            at_most=float(ends["at_most"][n]),
            at_least=float(ends["at_least"][n]),
            standing=_place(n == leader, leader in repeated and n in repeated, bool(behind[n])),
            seeds_help=bool(ends["seeds_help"][n]),
        )
        for n in order
    ]


def _place(leads: bool, known: bool, behind: bool) -> Place:
    if not known:
        return "cannot say"
    return "best" if leads else "behind" if behind else "tied"


def _ends(
    parts: Parts, chosen: NDArray[np.intp], leader: int, confidence: float, draws: int
) -> dict[str, NDArray[Any]]:
    """Returns at_most, at_least, decided (in a comparison of two with the leader) and seeds_help of the chosen
    cells."""
    means, seeds = parts.means[chosen], parts.seeds[chosen]
    spreads, weights = (each[chosen] for each in spreads_of(parts))
    images = parts.images[np.ix_(chosen, chosen)] + np.diag(PSEUDO / parts.effective[chosen] ** 2)
    drawn = draw(images, spreads / np.sqrt(seeds)[:, None], weights, draws)
    level = 1 - STRICTER * (1 - confidence)
    gaps = means[None, :] - means[:, None]  # [i, j]: how far i lies behind j
    reach, onesided = (_paired if chosen.size <= MOST_PAIRED else _bounded)(drawn, level)
    np.fill_diagonal(onesided, 0.0)
    alone = beyond(np.abs(drawn - drawn[:, leader : leader + 1]), level)
    lasting = parts.lasting[np.ix_(chosen, chosen)]
    own = np.diag(lasting)
    left = np.sqrt(np.maximum(own + own[leader] - 2 * lasting[leader], 0)) * special.ndtri(upper_tail(confidence))
    others = np.arange(chosen.size) != leader
    return {
        "at_most": np.maximum((gaps + onesided).max(axis=1), 0.0),
        "at_least": np.maximum(gaps[:, leader] - reach[:, leader], 0.0) * others,
        "decided": (gaps[:, leader] > alone) & others,
        "seeds_help": left < np.maximum(gaps[:, leader], ROUNDING),
    }


def _ends_of_many(
    parts: Parts, chosen: NDArray[np.intp], leader: int, confidence: float, draws: int
) -> dict[str, NDArray[Any]]:
    """Returns the same for very many cells, each by itself; no array holds every two of them."""
    means, seeds = parts.means[chosen], parts.seeds[chosen]
    spreads, weights = (each[chosen] for each in spreads_of(parts))
    variances = parts.images[chosen] + PSEUDO / parts.effective[chosen] ** 2
    drawn = np.random.default_rng(0).standard_normal((min(draws, DRAWS_OF_MANY), chosen.size)) * np.sqrt(variances)
    _add_seeds(drawn, spreads / np.sqrt(seeds)[:, None], weights, np.random.default_rng(1))
    level = 1 - STRICTER * (1 - confidence)
    away = np.abs(drawn - drawn.mean(axis=1, keepdims=True))
    alone = beyond(away, level)
    alone *= float(np.quantile((away / alone).max(axis=1), level))
    two = beyond(np.abs(drawn - drawn[:, leader : leader + 1]), level)
    lasting = parts.lasting[chosen]
    left = np.sqrt(lasting + lasting[leader]) * special.ndtri(upper_tail(confidence))
    gaps, others = means[leader] - means, np.arange(chosen.size) != leader
    return {
        "at_most": np.maximum(float((means + alone).max()) - means + alone, 0.0),
        "at_least": np.maximum(gaps - alone - alone[leader], 0.0) * others,
        "decided": (gaps > two) & others,
        "seeds_help": left < np.maximum(gaps, ROUNDING),
    }


def beyond(apart: Floats, confidence: float) -> Floats:
    """Returns for each column of draws, (draws, K), what all but 1 - ``confidence`` of them keep within."""
    last = min(len(apart) - 1, math.ceil(confidence * len(apart)))
    ends: Floats = np.maximum(np.partition(apart, last, axis=0)[last], ROUNDING)
    return ends


def draw(images: Floats, spreads: Floats, weights: Floats, draws: int) -> Floats:
    """Draws deviations of the means, (draws, K): those of the images together, those of the seeds apart."""
    rng = np.random.default_rng(0)  # always alike, so that a report can be made again
    values, vectors = np.linalg.eigh(images)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Floats = rng.standard_normal((draws, len(images))) @ root.T
    _add_seeds(drawn, spreads, weights, rng)
    return drawn


def _add_seeds(drawn: Floats, spreads: Floats, weights: Floats, rng: np.random.Generator) -> None:
    """Adds to draws (draws, K) what the seeds of each cell, apart from the others', add to its mean."""
    draws = len(drawn)
    for n, (sizes, likely) in enumerate(zip(spreads, weights, strict=True)):
        picked = sizes[np.minimum(np.searchsorted(np.cumsum(likely), rng.random(draws)), sizes.size - 1)]
        drawn[:, n] += picked * rng.standard_normal(draws)


def _paired(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Returns how far two means may lie apart by chance, (K, K): for all pairs at once on both sides, and [i, j] for
    all cells i at once against one j on one side. Each pair is measured by what it alone would need (Beran 1988): cells
    whose seeds tell little do not widen what is said of others.
    """
    count = drawn.shape[1]
    highest, alone, onesided = np.zeros(len(drawn)), np.ones((count, count)), np.zeros((count, count))
    for j in range(count):
        apart = drawn - drawn[:, j : j + 1]
        alone[:, j] = beyond(np.abs(apart), confidence)
        apart /= alone[:, j]
        apart[:, j] = -math.inf
        above = apart.max(axis=1)
        highest = np.maximum(highest, above)  # every pair comes twice, once from each side
        onesided[:, j] = np.quantile(above, upper_tail(confidence)) * alone[:, j]
    return np.quantile(highest, confidence) * alone, onesided


def _bounded(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Returns the same, no smaller, for very many cells: both of a pair lie as far from the mean of all as they may."""
    away = np.abs(drawn - drawn.mean(axis=1, keepdims=True))
    alone = beyond(away, confidence)
    reach = float(np.quantile((away / alone).max(axis=1), confidence)) * (alone[:, None] + alone[None, :])
    return reach, reach.copy()


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Says how far any two cells lie apart, and how far they may by chance."""

    means: Floats
    """(K,) accuracies, in the order of the cells."""
    reach: Floats
    """(K, K) what two accuracies may differ by through chance, for all pairs at once; infinite where one has a single
    seed."""

    def ahead(self, one: int, other: int) -> bool:
        """Tells whether a cell is more accurate than another beyond chance."""
        return bool(self.means[one] - self.means[other] > self.reach[one, other])


def all_pairs(cells: Mapping[str, Scores], confidence: float = CONFIDENCE, draws: int = DRAWS) -> Pairs:
    """Returns how far each two cells lie apart, paired by their images, over images and seeds. The work grows with the
    square of their number.
    """
    parts = parts_of(list(cells.values()))
    repeated = np.flatnonzero(parts.freedom > 0)
    reach = np.full((len(cells), len(cells)), math.inf)
    if repeated.size > 1:
        spreads, weights = (each[repeated] for each in spreads_of(parts))
        images = parts.images[np.ix_(repeated, repeated)] + np.diag(PSEUDO / parts.effective[repeated] ** 2)
        drawn = draw(images, spreads / np.sqrt(parts.seeds[repeated])[:, None], weights, draws)
        reach[np.ix_(repeated, repeated)] = _paired(drawn, 1 - STRICTER * (1 - confidence))[0]
    return Pairs(means=parts.means, reach=reach)
