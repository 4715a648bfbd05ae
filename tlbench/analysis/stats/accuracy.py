"""Accuracies over images and seeds at once: one interval for "new images, a new seed", and comparisons with the best.

The images of a split and the seeds are two samples that are crossed: every seed's model answers the same images, or, where
splits are drawn anew, images that partly repeat. A mean of S seeds then has the variance

    V(images) + sigma² / S,

where V(images) sums over images the square of all that an image adds to the mean, whichever seeds saw it (Liang and
Zeger 1986: images are the clusters), and sigma is the seeds' own spread, beyond what other images would explain anyway.
V(images) is known well from the images. sigma is hardly known from 2 or 3 seeds: it is averaged over instead, with weights
from the spread that was seen and a prior (`TYPICAL`). That it covers as often as it says, for spreads of seeds from 0.3 to
2 points, is shown by simulation (`bench/trust/accuracy.py`).

What another set of training images would change is in neither part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tlbench.analysis.stats.student import CONFIDENCE, Floats, Interval, upper_tail

Place = Literal["best", "tied", "behind", "cannot say"]
Codes = NDArray[np.int64]

PSEUDO = 1.0
"""Discordant images that are added to those seen, so that few images which agree by chance do not promise certainty."""
SPREADS = np.geomspace(0.001, 0.6, 72)
"""Spreads of seeds that are averaged over, as shares of the binomial spread of one image, sqrt(p (1 - p))."""
TYPICAL, DOUBT, TAIL = 1 / 15, 0.6, 4
"""The prior of a spread is half of Student's t with `TAIL` degrees of freedom. Its scale is `TYPICAL` (2 points at an
accuracy of 90 %) where nothing speaks for another: few seeds are taken to differ by that much until more of them, or
those of other cells, show that they do not. `DOUBT` is the spread of the scale's logarithm."""
SCALES = np.geomspace(0.01, 0.2, 18)
"""Scales that are averaged over."""
DRAWS = 4000
ROUNDING = 1e-12
MOST_PAIRED = 100
"""Cells beyond which pairs are bounded instead of compared one by one: their number grows with the square."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Holds which images each seed's model of a cell classified correctly."""

    images: tuple[Codes, ...]
    """For each seed (n,) numbers of the images: the same number is the same image, in every seed and every cell."""
    correct: tuple[Floats, ...]
    """For each seed (n,) 1 for correct, 0 for wrong; between them where a seed was measured several times."""

    def __post_init__(self) -> None:
        if not self.images or any(
            i.shape != c.shape or not i.size for i, c in zip(self.images, self.correct, strict=True)
        ):
            raise ValueError("need for each of one or more seeds as many images as results, and at least one")

    @property
    def accuracies(self) -> Floats:
        """Returns the accuracy of each seed."""
        return np.array([c.mean() for c in self.correct])


def counted(right: Sequence[float], images: int, first: int) -> Scores:
    """Returns scores of which only the accuracies are known, ``right``, one a seed, on the same number of images.

    The images count as the same for all seeds, as alike in their results as the accuracies allow, and as none of another
    cell's (``first`` is the number of the first): what is claimed from them is claimed with more caution than need be.
    """
    codes = np.arange(first, first + images, dtype=np.int64)
    return Scores(
        images=(codes,) * len(right),
        correct=tuple(np.clip(share * images - np.arange(images), 0.0, 1.0) for share in right),
    )


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
    """It is no further than this behind the best cell, whichever that is (Hsu 1984), for all cells at once."""
    at_least: float
    """It is at least so far behind the leader, for all pairs at once; 0 where it may be level."""
    standing: Place
    """``best``: the leader by estimate; ``tied``: it may be as good as the leader; ``behind``: it is not; ``cannot say``:
    one seed on either side."""
    seeds_help: bool
    """More seeds may tell it from the leader; else the images are too few for that, however many seeds there are."""

    def within(self, margin: float) -> bool | None:
        """Tells whether it lies within ``margin`` of the best; None where the intervals cannot say."""
        if self.at_most <= margin:
            return True
        return False if self.at_least > margin else None


# --- variances ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the means of K cells vary by."""

    means: Floats
    """(K,)"""
    seeds: Floats
    """(K,) number of seeds."""
    images: Floats
    """(K, K) covariance that the images leave."""
    lasting: Floats
    """(K, K) the part of it that more seeds do not take away."""
    effective: Floats
    """(K,) images that would leave as much, were each seen once."""
    noise: Floats
    """(K,) what other images alone would make accuracies of two seeds differ by, as a variance."""
    seen: Floats
    """(K,) variance of the accuracies over seeds; nan for one seed."""

    @property
    def smoothed(self) -> Floats:
        """Returns the binomial variance of one image, (K,), never 0: 2 images of each kind are added."""
        share = (self.means * self.effective + 2) / (self.effective + 4)
        return share * (1 - share)


def _parts(cells: Sequence[Scores]) -> _Parts:
    found, codes = np.unique(np.concatenate([i for c in cells for i in c.images]), return_inverse=True)
    sums = np.zeros((len(cells), found.size))
    within, at = np.zeros((len(cells), 3)), 0
    for number, cell in enumerate(cells):
        seeds, weights, squares = len(cell.images), np.zeros(found.size), 0.0
        for images, correct in zip(cell.images, cell.correct, strict=True):
            place = codes[at : at + images.size]
            at += images.size
            share = np.bincount(place, (correct - correct.mean()) / images.size, found.size)
            squares += float(share @ share)
            sums[number] += share / seeds
            weights += np.bincount(place, minlength=found.size) / (images.size * seeds)
        within[number] = squares, seeds, 1 / float(weights @ weights)
    squares, seeds, effective = within.T
    images = sums @ sums.T
    own = np.diag(images)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(seeds > 1, np.maximum(squares - seeds * own, 0) / (seeds - 1), 0.0)
        seen = np.array([c.accuracies.var(ddof=1) if len(c.images) > 1 else math.nan for c in cells])
    lasting = images - np.diag(np.minimum(noise / seeds, own))
    scale = effective / np.maximum(effective - 3, 1)
    images = images * np.sqrt(np.outer(scale, scale))
    return _Parts(
        means=np.array([c.accuracies.mean() for c in cells]),
        seeds=seeds, images=images, lasting=lasting, effective=effective,
        noise=noise + 0.5 / effective**2, seen=seen,
    )  # fmt: skip


def _spreads(parts: _Parts) -> tuple[Floats, Floats]:
    """Returns what the seeds' own spread of each cell may be, (K, G), and how likely each is, (K, G)."""
    spreads = SPREADS * np.sqrt(parts.smoothed)[:, None]
    variance = parts.noise[:, None] + spreads**2
    freedom = np.where(np.isnan(parts.seen), 0.0, parts.seeds - 1)[:, None]
    seen = np.nan_to_num(parts.seen)[:, None]
    logs = -freedom / 2 * (np.log(variance) + seen / variance)
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    prior = (1 + (SPREADS / SCALES[:, None]) ** 2 / TAIL) ** (-(TAIL + 1) / 2)
    prior *= SPREADS  # the grid's step, which grows with the spread
    prior /= prior.sum(axis=1, keepdims=True)  # (scales, G)
    evidence = np.log(likelihood @ prior.T).sum(axis=0) - (np.log(SCALES / TYPICAL) / DOUBT) ** 2 / 2
    weight = np.exp(evidence - evidence.max())
    mixed = likelihood * (weight @ prior)
    return spreads, mixed / mixed.sum(axis=1, keepdims=True)


# --- one interval ---------------------------------------------------------------------------------------------


def accuracy_interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean accuracy over seeds, with the interval for new images and a new seed; none for one seed.

    The interval is that of Wilson 1927, at the number of images that would leave as much variance as images and seeds
    together do: it keeps within 0 and 1.
    """
    parts = _parts([scores])
    share, seeds = float(parts.means[0]), len(scores.images)
    if seeds < 2:
        return Interval(estimate=share, low=None, high=None, n=seeds, confidence=confidence)
    effective, smoothed = float(parts.effective[0]), float(parts.smoothed[0])
    pseudo = PSEUDO / effective**2
    design = (float(parts.images[0, 0]) + pseudo) / (share * (1 - share) / effective + pseudo)
    spreads, weights = _spreads(parts)
    images = design * smoothed / effective
    variances = images + spreads[0] ** 2 / seeds
    reach = _quantile(np.sqrt(variances), weights[0], confidence)
    n = smoothed / reach**2  # Wilson's n, at a z of 1
    centre = (share + 0.5 / n) / (1 + 1 / n)
    half = math.sqrt(share * (1 - share) / n + 0.25 / n**2) / (1 + 1 / n)
    low, high = min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
    return Interval(estimate=share, low=low, high=high, n=seeds, confidence=confidence)


def _quantile(deviations: Floats, weights: Floats, confidence: float) -> float:
    """Returns what a mixture of normals around 0 exceeds, on either side, in 1 - ``confidence`` of the draws."""
    low, high = 0.0, 40.0 * float(deviations.max())
    for _ in range(60):
        middle = (low + high) / 2
        beyond = 2 * float(weights @ special.ndtr(-middle / deviations))
        low, high = (middle, high) if beyond > 1 - confidence else (low, middle)
    return high


# --- comparisons with the best --------------------------------------------------------------------------------


def against_the_best(cells: Mapping[str, Scores], confidence: float = CONFIDENCE, draws: int = DRAWS) -> list[Against]:
    """Returns how each cell stands against the best one, best first.

    ``behind`` holds for all pairs at once (max-T over draws of images and seeds); ``at_most`` is the upper end of Hsu's interval for the distance to the best. Cells are paired by their images.
    A leader that beats each other one, in a comparison of two at the same confidence, is decided, and all are behind it:
    that needs no adjustment for their number (Gutmann and Maymin 1987). Where a cell has one seed only, nothing is said
    of it; where that is the leader, of none.
    """
    names = list(cells)
    if not names:
        return []
    parts = _parts([cells[name] for name in names])
    repeated = np.flatnonzero(parts.seeds > 1)
    order = np.argsort(-parts.means, kind="stable")
    leader = int(order[0])
    ends = {
        "at_most": np.ones(len(names)),
        "at_least": np.zeros(len(names)),
        "decided": np.zeros(len(names), dtype=bool),
    }
    ends["seeds_help"] = np.ones(len(names), dtype=bool)
    if leader in repeated and repeated.size > 1:
        found = _ends(parts, repeated, int(np.flatnonzero(repeated == leader)[0]), confidence, draws)
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
    parts: _Parts, chosen: NDArray[np.intp], leader: int, confidence: float, draws: int
) -> dict[str, NDArray[np.generic]]:
    """Returns at_most, at_least, decided (in a comparison of two with the leader) and seeds_help of the chosen cells."""
    means, seeds = parts.means[chosen], parts.seeds[chosen]
    spreads, weights = (each[chosen] for each in _spreads(parts))
    images = parts.images[np.ix_(chosen, chosen)] + np.diag(PSEUDO / parts.effective[chosen] ** 2)
    drawn = _draw(images, spreads / np.sqrt(seeds)[:, None], weights, draws)
    gaps = means[None, :] - means[:, None]  # [i, j]: how far i lies behind j
    reach, onesided = (_paired if chosen.size <= MOST_PAIRED else _bounded)(drawn, confidence)
    np.fill_diagonal(onesided, 0.0)
    alone = _beyond(np.abs(drawn - drawn[:, leader : leader + 1]), confidence)
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


def _beyond(apart: Floats, confidence: float) -> Floats:
    """Returns for each column of draws, (draws, K), what all but 1 - ``confidence`` of them keep within."""
    last = min(len(apart) - 1, math.ceil(confidence * len(apart)))
    ends: Floats = np.maximum(np.partition(apart, last, axis=0)[last], ROUNDING)
    return ends


def _draw(images: Floats, spreads: Floats, weights: Floats, draws: int) -> Floats:
    """Draws deviations of the means, (draws, K): those of the images together, those of the seeds apart."""
    rng = np.random.default_rng(0)  # always alike, so that a report can be made again
    values, vectors = np.linalg.eigh(images)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Floats = rng.standard_normal((draws, len(images))) @ root.T
    for n, (sizes, likely) in enumerate(zip(spreads, weights, strict=True)):
        picked = sizes[np.minimum(np.searchsorted(np.cumsum(likely), rng.random(draws)), sizes.size - 1)]
        drawn[:, n] += picked * rng.standard_normal(draws)
    return drawn


def _paired(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Returns how far two means may lie apart by chance, (K, K): for all pairs at once on both sides, and [i, j] for all
    cells i at once against one j on one side. Each pair is measured by what it alone would need (Beran 1988): cells whose
    seeds tell little do not widen what is said of others.
    """
    count = drawn.shape[1]
    highest, alone, onesided = np.zeros(len(drawn)), np.ones((count, count)), np.zeros((count, count))
    for j in range(count):
        apart = drawn - drawn[:, j : j + 1]
        alone[:, j] = _beyond(np.abs(apart), confidence)
        apart /= alone[:, j]
        apart[:, j] = -math.inf
        above = apart.max(axis=1)
        highest = np.maximum(highest, above)  # every pair comes twice, once from each side
        onesided[:, j] = np.quantile(above, confidence) * alone[:, j]
    return np.quantile(highest, confidence) * alone, onesided


def _bounded(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Returns the same, no smaller, for very many cells: both of a pair lie as far from the mean of all as they may."""
    away = np.abs(drawn - drawn.mean(axis=1, keepdims=True))
    alone = _beyond(away, confidence)
    reach = float(np.quantile((away / alone).max(axis=1), confidence)) * (alone[:, None] + alone[None, :])
    return reach, reach.copy()
