"""How far apart identical cells come out: the noise floor, moderated by what is known of the machine from before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tlbench.analysis.stats.student import CONFIDENCE, exp, logs_of, t_quantile

PRIOR_FREEDOM = 8
"""Most degrees of freedom that earlier knowledge counts for. With 8, one pair of a machine whose pairs vary by 4 % has
a floor of 10 % in the median, and covers 0.94 to 0.97 whatever the noise (`bench/trust.py`); with 4, normal noise is
covered too often (0.98), and with 12 a run that is noisier than the earlier ones is told too late.
"""
QUIET = 0.10
"""Largest floor of a run that is called quiet."""
USELESS = 1.0
"""Floor from which on nothing can be compared."""

Mood = Literal["quiet", "noisy", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Says what is known before a pair is measured: the spread of a log ratio of two identical cells."""

    log_sd: float
    freedom: float
    """Degrees of freedom behind it; at most `PRIOR_FREEDOM` of them count."""
    source: Literal["twins", "rounds", "both"] = "twins"
    """Where it is from: pairs of earlier runs on this machine, or how the rounds of this run's cells vary."""
    pairs: float = 0
    """Pairs of earlier runs among it."""


def filled_up(twins: Prior | None, rounds: Prior | None) -> Prior | None:
    """Returns what is known before a pair is measured: earlier pairs, and where these are few, rounds beside them.

    The degrees of freedom of the rounds are those that the pairs leave of `PRIOR_FREEDOM`, so that a first pair does
    not take away what the rounds tell.
    """
    if twins is None or rounds is None:
        return twins or rounds
    left = min(rounds.freedom, PRIOR_FREEDOM - twins.freedom)
    if left <= 0:
        return twins
    freedom = twins.freedom + left
    variance = (twins.freedom * twins.log_sd**2 + left * rounds.log_sd**2) / freedom
    return Prior(log_sd=math.sqrt(variance), freedom=freedom, source="both", pairs=twins.pairs)


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Says how far apart two identical cells come out, as a fraction: 0.03 means a ratio of 1.03 or its inverse.

    ``relative`` is the floor, ``seen`` the difference that the pairs really showed (None without any), ``n`` the A/A
    ratios behind it, ``noisy`` those of them of which a side was flagged, ``prior`` what was known before.
    """

    relative: float
    seen: float | None
    n: int
    blocks: int
    noisy: int = 0
    prior: Prior | None = None
    confidence: float = CONFIDENCE

    @property
    def mood(self) -> Mood:
        """Returns quiet or noisy: the floor in a word."""
        return "quiet" if self.relative <= QUIET and 2 * self.noisy <= self.n else "noisy"


def noise_floor(
    ratios: ArrayLike, blocks: int, confidence: float = CONFIDENCE, *, prior: Prior | None = None, noisy: int = 0
) -> NoiseFloor:
    """Returns the A/A floor, from the ratios of two identical cells (or of one pair of whole A/A runs each).

    ``blocks`` is how many such ratios a comparison averages: the number of blocks, or 1 where each ratio already comes
    from whole runs. Identical cells have a true ratio of 1, so the mean square of the n log ratios is their variance
    with n degrees of freedom. A prior moderates it: variance (d₀ s₀² + Σ log²) / (d₀ + n), with d₀ + n degrees of
    freedom (Smyth 2004, "Linear models and empirical Bayes methods"), d₀ at most `PRIOR_FREEDOM`. A further A/A
    comparison then stays within t(d₀ + n) · s / √blocks in 95 of 100. The floor is that bound or the difference seen,
    whichever is larger. Without a prior, one ratio gives a floor 12.7 times itself, which is all that one ratio knows.
    Without a ratio the prior is all there is. Errors: ValueError without both.

    It presumes normal noise of the logs that every pair draws anew. One-sided and contaminated noise is covered less
    often (0.93); an offset that two identical cells keep from block to block is in no pair's noise.
    """
    logs = logs_of(ratios) if np.size(ratios) else np.empty(0)
    if blocks < 1:
        raise ValueError(f"a comparison averages 1 block or more, got {blocks}")
    freedom = 0.0 if prior is None else min(prior.freedom, PRIOR_FREEDOM)
    if logs.size + freedom <= 0:
        raise ValueError("a noise floor needs a pair, or what is known from before")
    squares = float(np.sum(logs**2)) + (freedom * prior.log_sd**2 if prior is not None else 0.0)
    spread = math.sqrt(squares / (logs.size + freedom))
    seen = abs(float(logs.mean())) if logs.size else 0.0
    bound = t_quantile(logs.size + freedom, confidence) * spread / math.sqrt(blocks)
    return NoiseFloor(
        relative=exp(max(bound, seen)) - 1,
        seen=exp(seen) - 1 if logs.size else None,
        n=int(logs.size),
        blocks=blocks,
        noisy=noisy,
        prior=prior,
        confidence=confidence,
    )


def contrasts(values: ArrayLike) -> list[float]:
    """Returns k - 1 ratios of k positive measurements of one cell, unrelated and each with the spread of a ratio of
    two: every measurement against the mean of those before it (Helmert's contrasts, on logs).
    """
    logs = logs_of(values)
    return [exp((float(logs[j]) - float(logs[:j].mean())) * math.sqrt(2 * j / (j + 1))) for j in range(1, logs.size)]
