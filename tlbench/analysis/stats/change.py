"""Says whether a ratio is a change beyond chance and the noise floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tlbench.analysis.stats.student import ANYTHING, Interval, says_nothing

Outcome = Literal["changed", "same", "cannot say"]
ROUNDING = 1e-9  # relative: an effect below it is float rounding, not a change


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Says whether a ratio differs from 1, and the reason in words."""

    outcome: Outcome
    reason: str


def verdict(
    ratio: Interval, noise_floor: float | None, p_adjusted: float | None = None, margin: float | None = None
) -> Verdict:
    """Judges whether a ratio has changed: its interval excludes 1, also among many, and it exceeds the noise floor.

    ``noise_floor`` is `NoiseFloor.relative`, of two runs the larger one; None where no A/A pair was measured, and then
    nothing is called changed. "same" means that no change is shown. With ``margin`` (0.10: the 10 % that a gate asks
    about) it also means that none of that size hides in the interval; where one may, the outcome is "cannot say".
    """
    if ratio.low is None or ratio.high is None:
        return Verdict(
            outcome="cannot say", reason="fewer than 2 values on a side give no interval; measure 3 blocks or more"
        )
    wide = says_nothing(ratio.estimate, ratio.low, ratio.high)
    ends = ANYTHING if wide else f"{ratio.low:.3f} to {ratio.high:.3f}"
    shown = f"{ratio.estimate:.3f} ({100 * ratio.confidence:g} %: {ends})"
    effect, alpha = abs(math.log(ratio.estimate)), 1 - ratio.confidence
    if not ratio.excludes(1.0) or effect <= ROUNDING:
        return _unchanged(ratio, margin, f"{shown} includes 1")
    if p_adjusted is not None and p_adjusted > alpha:
        return _unchanged(
            ratio, margin, f"{shown} is not beyond chance among so many comparisons (Holm: p = {p_adjusted:.2g})"
        )
    if noise_floor is None:
        return Verdict(
            outcome="cannot say",
            reason=f"{shown} excludes 1, but no cell was measured twice, which would tell the noise",
        )
    if effect <= math.log1p(noise_floor):
        return _unchanged(ratio, margin, f"{shown} does not exceed the noise floor of {noise_floor:.1%}")
    return Verdict(outcome="changed", reason=f"{shown} excludes 1 and exceeds the noise floor of {noise_floor:.1%}")


def _unchanged(ratio: Interval, margin: float | None, reason: str) -> Verdict:
    """Returns "same", or "cannot say" where a change of ``margin`` or more may still hide in the interval."""
    assert ratio.low is not None
    assert ratio.high is not None
    if margin is not None and (ratio.high >= 1 + margin or ratio.low <= 1 / (1 + margin)):
        return Verdict(
            outcome="cannot say", reason=f"{reason}, but allows a change of {margin:.0%}; measure more blocks"
        )
    return Verdict(outcome="same", reason=reason)
