"""Accuracies over images and seeds at once: one interval for "new images, a new seed", and comparisons with the best.

The images of a split and the seeds are two samples that are crossed: every seed's model answers the same images, or,
where splits are drawn anew, images that partly repeat. A mean of S seeds then has the variance

    V(images) + sigma² / S,

where V(images) sums over images the square of all that an image adds to the mean, whichever seeds saw it (Liang and
Zeger 1986: images are the clusters), and sigma is the seeds' own spread, beyond what other images would explain anyway.
V(images) is known well from the images. sigma is hardly known from 2 or 3 seeds: it is averaged over instead, with
weights from the spread that was seen and a prior (`TYPICAL`). That it covers as often as it says, for spreads of seeds
from 0.3 to 2 points, is shown by simulation (`bench/trust.py`).

What another set of training images would change is in neither part.

Of a cross-validation, the folds of a seed are put together first: each image is answered once, by a model that has not
seen it, and V(images) is that of all of them. The models of folds share most of their training images, so that they are
no replicates: the variance of a seed is divided by the number of seeds, never by that of folds. How far models differ
is seen in the accuracies of folds, beyond what their different images explain; that makes an interval possible for a
single seed. It is for the models of the folds on new images (Bayle, Bayle, Janson and Mackey 2020), and it is shown by
simulation that it covers (`bench/simulations/folds.py`). One file, since all of it rests on these variances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis.stats.functions import special
from tlbench.analysis.stats.student import CONFIDENCE, Floats, Interval, mean, upper_tail

Codes = NDArray[np.int64]

PSEUDO = 1.0
"""Discordant images that are added to those seen, so that few images which agree by chance do not promise certainty."""
SPREADS = np.geomspace(0.001, 0.6, 72)
"""Spreads of seeds that are averaged over, as shares of the binomial spread of one image, sqrt(p (1 - p))."""
TYPICAL, DOUBT, TAIL = 0.08, 0.6, 4
"""The prior of a spread is half of Student's t with `TAIL` degrees of freedom. Its scale is `TYPICAL` (2.4 points at an
accuracy of 90 %) where nothing speaks for another: few seeds are taken to differ by that much until more of them, or
those of other cells, show that they do not. `DOUBT` is the spread of the scale's logarithm."""
SCALES = np.geomspace(0.01, 0.2, 18)
"""Scales that are averaged over."""
TABLE = 2_000_000
"""Numbers of the table of cells and images that are in memory at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Holds which images each seed's model of a cell classified correctly."""

    images: tuple[Codes, ...]
    """For each seed (n,) numbers of the images: the same number is the same image, in every seed and every cell."""
    correct: tuple[Floats, ...]
    """For each seed (n,) 1 for correct, 0 for wrong; between them where a seed was measured several times. Of another
    metric than accuracy numbers whose mean it is (`tlbench.analysis.metrics.Judged`), which may lie beyond."""
    folds: tuple[Codes, ...] | None = None
    """For each seed (n,) the fold of a cross-validation that each image was tested in; None without folds."""
    doubt: float = 0.0
    """Variance of one seed's mean that the images leave and these numbers do not show."""

    def __post_init__(self) -> None:
        if not self.images or any(
            i.shape != c.shape or not i.size for i, c in zip(self.images, self.correct, strict=True)
        ):
            raise ValueError("need for each of one or more seeds as many images as results, and at least one")

    @cached_property
    def accuracies(self) -> Floats:
        """Returns the accuracy of each seed."""
        return np.array([mean(c) if c.dtype == np.float64 else c.mean() for c in self.correct])


def counted(right: Sequence[float], images: int, first: int) -> Scores:
    """Returns scores of which only the accuracies are known, ``right``, one a seed, on the same number of images.

    The images count as the same for all seeds, as alike in their results as the accuracies allow, and as none of
    another cell's (``first`` is the number of the first): what is claimed from them is claimed with more caution than
    need be.
    """
    codes = np.arange(first, first + images, dtype=np.int64)
    table = (np.asarray(right, dtype=np.float64) * images)[:, None] - np.arange(images)
    return Scores(images=(codes,) * len(right), correct=tuple(np.clip(table, 0.0, 1.0)))


# --- variances ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Holds what the means of K cells vary by."""

    means: Floats
    """(K,)"""
    seeds: Floats
    """(K,) number of seeds."""
    images: Floats
    """(K, K) covariance that the images leave; (K,) of each by itself where they are not paired."""
    lasting: Floats
    """(K, K) the part of it that more seeds do not take away."""
    effective: Floats
    """(K,) images that would leave as much, were each seen once."""
    noise: Floats
    """(K,) what other images alone would make accuracies of two seeds differ by, as a variance."""
    seen: Floats
    """(K,) variance of the accuracies over seeds, or over all folds of all seeds; nan for one alone."""
    freedom: Floats
    """(K,) degrees of freedom of that: 0 where nothing tells how far models differ."""

    @property
    def smoothed(self) -> Floats:
        """Returns the binomial variance of one image, (K,), never 0: 2 images of each kind are added."""
        share = (self.means * self.effective + 2) / (self.effective + 4)
        return share * (1 - share)


def parts_of(cells: Sequence[Scores], paired: bool = True) -> Parts:
    """Returns the parts of the variance of the cells' means; what images leave is paired by their numbers, or where
    ``paired`` is not wanted, of each cell by itself: then ``images`` and ``lasting`` are their diagonals, (K,).
    """
    own = np.zeros(len(cells))
    within = np.zeros((len(cells), 3))
    sums: list[tuple[Codes, Floats]] = []
    every: list[Floats] = []
    for number, cell in enumerate(cells):
        codes, places = _numbered(cell.images)
        total, weights, square = np.zeros(codes.size), np.zeros(codes.size), 0.0
        count, accuracies = len(cell.images), cell.accuracies
        for here, correct, middle in zip(places, cell.correct, accuracies, strict=True):
            share = (correct - middle) / correct.size
            if here is not None:
                share = np.bincount(here, share, codes.size)
            square += float(share @ share)
            total += share / count
            seen_here = 1.0 if here is None else np.bincount(here, minlength=codes.size)
            weights += seen_here / (correct.size * count)
        within[number] = square, count, 1 / float(weights @ weights)
        own[number] = total @ total
        sums.append((codes, total))
        every.append(accuracies)
    squares, seeds, effective = within.T
    # Images that other seeds have as well leave the same doubt; what they have of their own, less.
    doubt = np.array([cell.doubt * np.mean([c.size for c in cell.correct]) for cell in cells]) / effective
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.where(seeds > 1, np.maximum(squares - seeds * own, 0) / (seeds - 1), 0.0)
        seen = np.array([each.var(ddof=1) if each.size > 1 else math.nan for each in every])
    less = np.minimum(noise / seeds, own)
    freedom = seeds - 1
    for number, cell in enumerate(cells):
        if cell.folds is not None and (told := _of_folds(cell, cell.folds)) is not None:
            noise[number], seen[number], freedom[number] = told
    scale = effective / np.maximum(effective - 3, 1)
    left = _together(sums) if paired else own
    return Parts(
        means=np.array([each.mean() for each in every]),
        seeds=seeds,
        images=left * (np.sqrt(np.outer(scale, scale)) if paired else scale) + (np.diag(doubt) if paired else doubt),
        lasting=left - (np.diag(less - doubt) if paired else less - doubt),
        effective=effective,
        noise=noise + 0.5 / effective**2, seen=seen, freedom=freedom,
    )  # fmt: skip


def _of_folds(cell: Scores, folds: Sequence[Codes]) -> tuple[float, float, float] | None:
    """Returns what the models of folds tell of how far models differ: what other images alone would make their
    accuracies differ by, as a variance, the variance that is seen, and its degrees of freedom; None for a single fold.
    """
    apart: list[tuple[Codes, Floats]] = []
    for images, correct, fold in zip(cell.images, cell.correct, folds, strict=True):
        apart += [(images[fold == one], correct[fold == one]) for one in np.unique(fold)]
    if len(apart) < 2:
        return None
    squares, parts = 0.0, []
    for _, right in apart:
        share = (right - right.mean()) / right.size
        squares += float(share @ share)
        parts.append(share)
    _, place = np.unique(np.concatenate([images for images, _ in apart]), return_inverse=True)
    total = np.bincount(place, np.concatenate(parts))
    count = len(apart)
    noise = max(squares - float(total @ total) / count, 0.0) / (count - 1)
    noise += 0.5 * (count / sum(right.size for _, right in apart)) ** 2  # as for seeds: accuracies are whole images
    return noise, float(np.var([right.mean() for _, right in apart], ddof=1)), count - 1.0


def _numbered(images: Sequence[Codes]) -> tuple[Codes, Sequence[NDArray[np.intp] | None]]:
    """Returns the numbers of a cell's images, each once and in order, and for each seed their places among them; None
    where the seed has just these.
    """
    first = images[0]
    if all(one is first for one in images) and bool(np.all(first[1:] > first[:-1])):
        return first, [None] * len(images)
    codes, place = np.unique(np.concatenate(images), return_inverse=True)
    return codes, np.split(place, np.cumsum([one.size for one in images[:-1]]))


def _together(sums: Sequence[tuple[Codes, Floats]]) -> Floats:
    """Returns the products of all cells' sums over the images that they share, (K, K)."""
    found = sums[0][0] if len(sums) == 1 else np.unique(np.concatenate([codes for codes, _ in sums]))
    product = np.zeros((len(sums),) * 2)
    # A few images of all cells at a time: a table of all of them may be larger than everything else.
    step = max(1, TABLE // len(sums))
    for first in range(0, found.size, step):
        some = found[first : first + step]
        table = np.zeros((len(sums), some.size))
        for row, (codes, total) in zip(table, sums, strict=True):
            low, high = np.searchsorted(codes, some[0]), np.searchsorted(codes, some[-1], side="right")
            row[np.searchsorted(some, codes[low:high])] = total[low:high]
        product += table @ table.T
    return product


def spreads_of(parts: Parts) -> tuple[Floats, Floats]:
    """Returns what the seeds' own spread of each cell may be, (K, G), and how likely each is, (K, G)."""
    spreads = SPREADS * np.sqrt(parts.smoothed)[:, None]
    variance = parts.noise[:, None] + spreads**2
    freedom = parts.freedom[:, None]
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
    """Returns the mean accuracy over seeds, with the interval for new images and a new seed; none for one seed without
    folds.

    The interval is that of Wilson 1927, at the number of images that would leave as much variance as images and seeds
    together do: it keeps within 0 and 1.
    """
    parts = parts_of([scores])
    share, seeds = float(parts.means[0]), len(scores.images)
    if not parts.freedom[0]:
        return Interval(estimate=share, low=None, high=None, n=seeds, confidence=confidence)
    spreads, weights = spreads_of(parts)
    variances = _of_images(parts) + spreads[0] ** 2 / seeds
    return _wilson(parts, _quantile(np.sqrt(variances), weights[0], confidence), seeds, confidence)


def surely_above(right: Sequence[float], images: int, share: float, confidence: float = CONFIDENCE) -> bool:
    """Tells whether the lower end of `accuracy_interval` of `counted` lies above a share, where that needs no look at
    spreads and images: it does so even for the largest spread of seeds, and for images that leave as much as they can.

    False says nothing. What `counted` images leave is at most what the mean accuracy's own binomial does.
    """
    middle, seeds = sum(right) / len(right), len(right)
    if seeds < 2:
        return False
    smoothed = (middle * images + 2) / (images + 4)
    smoothed *= 1 - smoothed
    variance = smoothed * (1 / max(images - 3, 1) + float(SPREADS[-1]) ** 2 / seeds)
    reach = float(special.ndtri(upper_tail(confidence))) * math.sqrt(variance) * MARGIN
    weight = reach**2 / smoothed
    half = math.sqrt(middle * (1 - middle) * weight + 0.25 * weight**2)
    return (middle + 0.5 * weight - half) / (1 + weight) > share


MARGIN = 1.001
"""What is added to what rounding may hide."""


def images_interval(scores: Scores, confidence: float = CONFIDENCE) -> Interval:
    """Returns the same for new images and these seeds alone; also of one seed."""
    parts = parts_of([scores])
    reach = float(special.ndtri(upper_tail(confidence))) * math.sqrt(_of_images(parts))
    return _wilson(parts, reach, len(scores.images), confidence)


def _of_images(parts: Parts) -> float:
    """Returns the variance that images leave, of one cell, never 0."""
    share, effective = float(parts.means[0]), float(parts.effective[0])
    pseudo = PSEUDO / effective**2
    design = (float(parts.images[0, 0]) + pseudo) / (share * (1 - share) / effective + pseudo)
    return design * float(parts.smoothed[0]) / effective


def _wilson(parts: Parts, reach: float, seeds: int, confidence: float) -> Interval:
    """Returns the interval of Wilson 1927 at the number of images that would reach as far."""
    share = float(parts.means[0])
    n = float(parts.smoothed[0]) / reach**2  # Wilson's n, at a z of 1
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
