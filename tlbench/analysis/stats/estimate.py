"""An estimated difference with its standard error: what it excludes, and whether it stays within a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlbench.analysis.stats.functions import special
from tlbench.analysis.stats.student import Interval, differences, sample, t_quantile, unequal_error

Gated = Literal["pass", "fail", "cannot say"]
MOST = 50
"""Most runs, blocks or seeds that are proposed."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Says how a value varies from run to run, learnt elsewhere: standard deviation and degrees of freedom."""

    sd: float
    freedom: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Holds a difference (of logs, or of accuracies), its standard error, and what that rests on."""

    centre: float
    error: float
    freedom: float
    n: int
    """Values on the smaller side, or pairs."""
    slack: float = 0.0
    """What is added to the interval at either end: a difference that somebody says equal runs may have."""

    def interval(self, confidence: float) -> Interval:
        """Returns Student's t interval, widened by ``slack``."""
        half = (t_quantile(self.freedom, confidence) * self.error if self.error else 0.0) + self.slack
        return Interval(
            estimate=self.centre, low=self.centre - half, high=self.centre + half, n=self.n, confidence=confidence
        )

    def p_value(self) -> float:
        """Returns the two-sided p-value of no difference."""
        return min(1.0, 2 * self.p_above(0.0)) if self.centre >= 0 else min(1.0, 2 * self._tail(-self.centre))

    def p_above(self, limit: float) -> float:
        """Returns the one-sided p-value of a true difference of at most ``limit``."""
        return self._tail(self.centre - limit)

    def _tail(self, distance: float) -> float:
        distance -= self.slack
        if self.error:
            return float(special.stdtr(self.freedom, -distance / self.error))
        return 0.0 if distance > 0 else 1.0

    def gated(self, limit: float, confidence: float) -> Gated:
        """Says whether the difference stays below a limit (non-inferiority, as in trials: Piaggio and others 2012):
        pass where the whole interval is below it, fail where the whole interval is above it.
        """
        found = self.interval(confidence)
        assert found.low is not None
        assert found.high is not None
        if found.high < limit:
            return "pass"
        return "fail" if found.low > limit else "cannot say"

    def enough(self, limit: float, confidence: float) -> int | None:
        """Returns how many values on a side would tell on which side of a limit the truth lies, if it lies where the
        estimate is; None where more than `MOST` would be needed.
        """
        distance = abs(limit - self.centre) - self.slack
        if distance <= 0 or not self.error:
            return None
        per_value = self.error * math.sqrt(max(self.n, 1))
        for n in range(max(self.n, 2), MOST + 1):
            if (
                t_quantile(max(1.0, self.freedom / max(self.n, 1) * n), confidence) * per_value / math.sqrt(n)
                < distance
            ):
                return n
        return None


def paired_estimate(new: Sequence[float], base: Sequence[float]) -> Estimate:
    """Returns the mean of ``new[i] - base[i]``, of two pairs or more: blocks measured in turns, or the same seeds."""
    d = differences(sample(new), sample(base))
    return Estimate(
        centre=float(d.mean()), error=float(d.std(ddof=1)) / math.sqrt(d.size), freedom=d.size - 1, n=d.size
    )


def runs_estimate(new: Sequence[float], base: Sequence[float], earlier: Spread | None = None) -> Estimate | None:
    """Returns the difference of means over runs, one value a run; runs vary alike on both sides (Student 1908).

    What is known from earlier runs counts with its degrees of freedom. None where nothing tells how runs vary: one run
    a side, and no earlier ones.
    """
    a, b = sample(new), sample(base)
    freedom = a.size + b.size - 2 + (earlier.freedom if earlier is not None else 0.0)
    if freedom <= 0:
        return None
    squares = float(np.sum((a - a.mean()) ** 2) + np.sum((b - b.mean()) ** 2))
    squares += earlier.freedom * earlier.sd**2 if earlier is not None else 0.0
    error = math.sqrt(squares / freedom * (1 / a.size + 1 / b.size))
    return Estimate(centre=float(a.mean() - b.mean()), error=error, freedom=freedom, n=min(a.size, b.size))


def unrelated_estimate(new: Sequence[float], base: Sequence[float]) -> Estimate:
    """Returns the difference of means of unrelated values, of unequal variances; without an error where a side has one
    value only.
    """
    a, b = sample(new), sample(base)
    n = min(a.size, b.size)
    error, freedom = unequal_error(a, b) if n > 1 else (0.0, 1.0)
    return Estimate(centre=float(a.mean() - b.mean()), error=error, freedom=freedom, n=n)
