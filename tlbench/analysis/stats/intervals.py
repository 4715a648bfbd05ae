"""Intervals of one sample, and comparisons of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tlbench.analysis.stats.functions import special
from tlbench.analysis.stats.student import (
    CONFIDENCE,
    Comparison,
    Interval,
    as_ratio,
    differences,
    exp,
    interval_of,
    logs_of,
    one_sample,
    ratio_interval,
    sample,
    upper_tail,
    welch,
)


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean, with Student's t interval: for accuracies over seeds.

    It knows no bounds: near 100 % its upper end may lie above 1.
    """
    return interval_of(sample(values), confidence)


def log_interval(medians: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Returns the geometric mean of positive values, with Student's t on their logs: for block medians in seconds.

    For ten blocks or fewer a percentile bootstrap is far too narrow.
    """
    return ratio_interval(interval_of(logs_of(medians), confidence))


def geometric_mean(ratios: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Returns the geometric mean of the ratios of several cells: the headline of a comparison of two runs.

    The interval is over cells: it speaks of cells like these, each cell a value, and is wide where cells disagree.
    """
    return log_interval(ratios, confidence)


def wilson(correct: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Returns the accuracy on ``total`` images, with the score interval of Wilson 1927, for so many images alone."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} correct of {total} images is no proportion")
    z = float(special.ndtri(upper_tail(confidence)))
    share, weight = correct / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    # at 0 and at 1 an end is the estimate itself; rounding must not carry it past
    low, high = min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
    return Interval(estimate=share, low=low, high=high, n=total, confidence=confidence)


# --- comparisons of two samples -------------------------------------------------------------------------------


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Returns the mean of ``a[i] - b[i]`` with Student's t: for accuracies of two cells on the same seeds."""
    return one_sample(differences(sample(a), sample(b)), confidence)


def difference_of(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Returns the mean of ``a`` less the mean of ``b``, of unequal variances and unrelated values (Welch 1947)."""
    return welch(sample(a), sample(b), confidence)


def paired_ratio(new: ArrayLike, base: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Returns the geometric mean of ``new[i] / base[i]``, Student's t on the logs: for medians from the same blocks.

    Drift that both cells of a block share cancels, so this is the comparison within a run.
    """
    return as_ratio(one_sample(differences(logs_of(new), logs_of(base)), confidence))


def ratio_of(new: ArrayLike, base: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Returns the ratio of the geometric means, Welch's t on the logs: for unrelated blocks (other runs, devices)."""
    return as_ratio(welch(logs_of(new), logs_of(base), confidence))


def alternated_ratio(blocks: Sequence[tuple[ArrayLike, ArrayLike]], confidence: float = CONFIDENCE) -> Comparison:
    """Returns the ratio new / base from (new, base) rounds of each block, taken in turns: the comparison of a duel."""
    return as_ratio(one_sample(logs_of(block_ratios(blocks)), confidence))


def block_ratios(blocks: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[float]:
    """Returns one ratio a block: the median of ``new[i] / base[i]`` over its alternated rounds, also for A/A floors.

    Neighbours in time share their noise, which cancels here and stays in a ratio of two medians.
    """
    return [exp(float(np.median(differences(logs_of(new), logs_of(base))))) for new, base in blocks]


COMPARISONS = {
    # (paired, logarithmic)
    (False, False): difference_of,
    (False, True): ratio_of,
    (True, False): paired_difference,
    (True, True): paired_ratio,
}


@dataclass(frozen=True, kw_only=True)
class Discordance:
    """Counts the images on which exactly one of two models is right, with the exact p-value of "equally often"."""

    only_a: int
    only_b: int
    images: int
    p_value: float


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> Discordance:
    """Runs the exact test of McNemar 1947 on two boolean arrays over the same images, in the same order."""
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(f"need two boolean arrays over the same images, got {a.dtype}{a.shape} and {b.dtype}{b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p_value = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    return Discordance(only_a=only_a, only_b=only_b, images=a.size, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for being many (Holm 1979), in the order given; reject where one is at most alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values lie between 0 and 1, got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
