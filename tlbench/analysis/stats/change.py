"""Says how far apart identical cells come out (the noise floor), and whether a ratio is a change beyond it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tlbench.analysis.stats.intervals import COMPARISONS, holm
from tlbench.analysis.stats.student import CONFIDENCE, Interval, exp, logs_of, t_quantile

Outcome = Literal["changed", "same", "cannot say"]
ROUNDING = 1e-9  # relative: an effect below it is float rounding, not a change


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Says how far apart two identical cells come out, as a fraction: 0.03 means a ratio of 1.03 or its inverse.

    ``relative`` is the floor, ``seen`` the difference that the A/A pair really showed, ``n`` the A/A ratios behind it.
    """

    relative: float
    seen: float
    n: int
    blocks: int
    confidence: float = CONFIDENCE


def noise_floor(ratios: ArrayLike, blocks: int, confidence: float = CONFIDENCE) -> NoiseFloor:
    """Returns the A/A floor, from the ratios of two identical cells, one a block (or one a pair of whole A/A runs).

    ``blocks`` is how many such ratios a comparison averages: the number of blocks for one ratio a block, 1 where each
    ratio already comes from whole runs. Identical cells have a true ratio of 1, so the root mean square of the n log
    ratios is their spread with n degrees of freedom, and a further A/A comparison stays within t(n) · rms / √blocks in
    95 of 100. The floor is that bound or the difference seen, whichever is larger: the bound keeps one lucky pair from
    giving a floor of nothing and, unlike the largest ratio seen, does not rise as blocks are added. One ratio gives a
    floor 12.7 times itself, which is all that one ratio knows.

    It presumes that every block draws its noise anew. An offset that two identical cells keep from block to block
    (models that stay alive, and with them their place in memory) is in no block's noise, and one pair shows only one
    draw of it: rebuild the cells in every block, or give one ratio for each of several A/A pairs and ``blocks=1``.
    """
    logs = logs_of(ratios)
    if blocks < 1:
        raise ValueError(f"a comparison averages 1 block or more, got {blocks}")
    seen = abs(float(logs.mean()))
    bound = t_quantile(logs.size, confidence) * math.sqrt(float(np.mean(logs**2)) / blocks)
    return NoiseFloor(
        relative=exp(max(bound, seen)) - 1, seen=exp(seen) - 1, n=logs.size, blocks=blocks, confidence=confidence
    )


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
    shown = f"{ratio.estimate:.3f} ({100 * ratio.confidence:g} %: {ratio.low:.3f} to {ratio.high:.3f})"
    effect, alpha = abs(math.log(ratio.estimate)), 1 - ratio.confidence
    if not ratio.excludes(1.0) or effect <= ROUNDING:
        return _unchanged(ratio, margin, f"{shown} includes 1")
    if p_adjusted is not None and p_adjusted > alpha:
        return _unchanged(
            ratio, margin, f"{shown} is not beyond chance among so many comparisons (Holm: p = {p_adjusted:.2g})"
        )
    if noise_floor is None:
        return Verdict(outcome="cannot say", reason=f"{shown} excludes 1, but no A/A pair tells the noise floor")
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


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Holds one of several comparisons: the ratio new / base, its p-value alone and among all, the verdict."""

    ratio: Interval
    p_value: float | None
    p_adjusted: float | None
    verdict: Verdict


def compare(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]],
    noise_floor: float | None,
    *,
    paired: bool = False,
    confidence: float = CONFIDENCE,
    margin: float | None = None,
) -> dict[str, Judged]:
    """Judges ``name -> (new, base)`` block medians: ratio, Holm over all names that have a p-value, verdict."""
    ratio = COMPARISONS[paired, True]
    comparisons = {name: ratio(new, base, confidence) for name, (new, base) in pairs.items()}
    p_values = {name: c.p_value for name, c in comparisons.items() if c.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {
        name: Judged(
            ratio=c.interval,
            p_value=c.p_value,
            p_adjusted=adjusted.get(name),
            verdict=verdict(c.interval, noise_floor, adjusted.get(name), margin),
        )
        for name, c in comparisons.items()
    }
