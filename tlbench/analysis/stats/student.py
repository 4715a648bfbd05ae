"""Samples, and the one t interval that all statistics here rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlbench.analysis.stats.functions import special

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
LARGEST_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Holds an estimate with its confidence interval; ``low`` and ``high`` are None where no interval can be given.

    ``n`` counts the values behind it (blocks, seeds, images, pairs; the smaller side of an unpaired comparison).
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        assert (self.low is None) == (self.high is None), "an interval has both ends or neither"
        assert self.low is None or self.high is None or self.low <= self.estimate <= self.high

    def excludes(self, value: float) -> bool | None:
        """Tells whether ``value`` lies outside; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return value < self.low or value > self.high


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds a difference or a ratio, and the two-sided p-value of "no difference" (0; ratio: 1); None for n < 2."""

    interval: Interval
    p_value: float | None


WIDEST = 100.0
"""An interval of a ratio that reaches so many times beyond its estimate, either way, says nothing."""
ANYTHING = "anything: too few to tell"
"""What stands in place of the ends of an interval that says nothing."""


def says_nothing(estimate: float, low: float, high: float, whole: tuple[float, float] | None = None) -> bool:
    """Tells whether an interval holds all that one could have thought of before: of a time, a speed or a ratio `WIDEST`
    times its estimate, either way; of what has bounds, ``whole``, all between them.
    """
    if whole is not None:
        return low <= whole[0] and high >= whole[1]
    return high > WIDEST * estimate or low * WIDEST < estimate


def exact(value: float) -> Interval:
    """Returns a figure that is known, not measured (a parameter count), as an axis of `pareto`."""
    return Interval(estimate=float(value), low=float(value), high=float(value), n=0, confidence=1.0)


def one_sample(values: Floats, confidence: float) -> Comparison:
    """Returns the mean of values (n,) with Student's t interval, and the p-value of a true mean of 0."""
    n = values.size
    error = deviation(values) / math.sqrt(n) if n > 1 else math.nan
    return _student(mean(values), error, n - 1, n, confidence)


def interval_of(values: Floats, confidence: float) -> Interval:
    """Returns the interval of `one_sample` alone."""
    n = values.size
    return _interval(mean(values), deviation(values) / math.sqrt(n) if n > 1 else math.nan, n - 1, n, confidence)


def mean(values: Floats) -> float:
    """Returns what numpy's method does, to the last bit, in a third of the time: a report takes thousands of few
    values.
    """
    return float(np.add.reduce(values)) / values.size


def deviation(values: Floats) -> float:
    """Returns the standard deviation of two values or more, as numpy's method does with ``ddof=1``, to the last bit."""
    apart = values - mean(values)
    return math.sqrt(float(np.add.reduce(apart * apart)) / (values.size - 1))


def welch(a: Floats, b: Floats, confidence: float) -> Comparison:
    """Returns the mean of ``a`` less that of ``b`` with the t interval of unequal variances (Welch 1947)."""
    n = min(a.size, b.size)
    centre = float(a.mean()) - float(b.mean())
    error, freedom = unequal_error(a, b) if n > 1 else (math.nan, 0)
    return _student(centre, error, freedom, n, confidence)


def unequal_error(a: Floats, b: Floats) -> tuple[float, float]:
    """Returns the standard error of the difference of two means of unequal variances, and its degrees of freedom; of
    two values a side or more.
    """
    share_a, share_b = float(a.var(ddof=1)) / a.size, float(b.var(ddof=1)) / b.size
    variance = share_a + share_b
    freedom = float(a.size + b.size - 2)
    if variance > 0:
        fraction = share_a / variance  # in fractions: squares of tiny variances would underflow
        freedom = 1 / (fraction**2 / (a.size - 1) + (1 - fraction) ** 2 / (b.size - 1))
    return math.sqrt(variance), freedom


def _student(centre: float, error: float, freedom: float, n: int, confidence: float) -> Comparison:
    """Returns ``centre`` ± t · ``error``, and the p-value of a true centre of 0; neither for n < 2."""
    interval = _interval(centre, error, freedom, n, confidence)
    if n < 2:
        return Comparison(interval=interval, p_value=None)
    if error > 0:
        p_value = min(1.0, 2 * float(special.stdtr(freedom, -abs(centre) / error)))
    else:
        p_value = 1.0 if centre == 0 else 0.0
    return Comparison(interval=interval, p_value=p_value)


def _interval(centre: float, error: float, freedom: float, n: int, confidence: float) -> Interval:
    if n < 2:
        return Interval(estimate=centre, low=None, high=None, n=n, confidence=confidence)
    half = t_quantile(freedom, confidence) * error
    return Interval(estimate=centre, low=centre - half, high=centre + half, n=n, confidence=confidence)


@lru_cache(maxsize=10_000)  # of thousands of cells, all but a few have as many values as others
def t_quantile(freedom: float, confidence: float) -> float:
    """Returns how many standard errors an interval reaches to either side, at so many degrees of freedom."""
    return float(special.stdtrit(freedom, upper_tail(confidence)))


def upper_tail(confidence: float) -> float:
    """Returns the probability below the upper end of a two-sided interval: 0.975 for 95 %."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    return 0.5 + confidence / 2


def as_ratio(logs: Comparison) -> Comparison:
    """Takes a comparison from the log scale to ratios; the p-value stays."""
    return Comparison(interval=ratio_interval(logs.interval), p_value=logs.p_value)


def ratio_interval(logs: Interval) -> Interval:
    """Takes an interval from the log scale to ratios."""
    low, high = (None if end is None else exp(end) for end in (logs.low, logs.high))
    return Interval(estimate=exp(logs.estimate), low=low, high=high, n=logs.n, confidence=logs.confidence)


def exp(value: float) -> float:
    """Returns e to the power of ``value``; infinity where that is too large for a float."""
    return math.exp(value) if value < LARGEST_LOG else math.inf


def sample(values: ArrayLike) -> Floats:
    """Returns the values as floats (n,). Errors: ValueError unless there are one or more, all finite."""
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"need one or more finite numbers, got {values!r}")
    return array


def logs_of(values: ArrayLike) -> Floats:
    """Returns the logs (n,) of the values. Errors: ValueError unless all are positive."""
    array = sample(values)
    if not (array > 0).all():
        raise ValueError(f"ratios need positive numbers, got {values!r}")
    logs: Floats = np.log(array)
    return logs


def differences(a: Floats, b: Floats) -> Floats:
    """Returns ``a - b`` (n,). Errors: ValueError where the sides are not of the same length."""
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many values on both sides, got {a.size} and {b.size}")
    return a - b
