"""Ranks with ties, and the probability of being the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tlbench.analysis.stats.intervals import COMPARISONS
from tlbench.analysis.stats.student import CONFIDENCE, Floats, Interval, exp, logs_of, sample

Standing = Literal["best", "tied", "behind", "cannot say"]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Says where a name stands.

    ``gap`` is its difference to the leader (name - leader; name / leader on the log scale); None for the leader.
    "best" is the leader by estimate, "tied" a name whose gap's interval includes no difference, "behind" one whose
    does not, "cannot say" one with fewer than 2 values or against a leader with fewer.
    ``probability_best`` is among the names with 2 values or more; None where the name or the leader has fewer, or
    where no second name has as many.
    """

    name: str
    estimate: float
    n: int
    gap: Interval | None
    standing: Standing
    probability_best: float | None


def rank(
    samples: Mapping[str, ArrayLike],
    higher_is_better: bool,
    *,
    paired: bool = False,
    logarithmic: bool = False,
    confidence: float = CONFIDENCE,
    draws: int = 4000,
) -> list[Ranked]:
    """Ranks names by their per-seed or per-block values, best first, with ties and the probability of being best.

    ``paired``: the i-th value of every name comes from the same seed or block. ``logarithmic``: times and other
    positive figures that are compared as ratios.
    The probability comes from a bootstrap that weights each value's deviation at random (multiplier bootstrap) and
    divides by a chi-square draw, so that its spread is Student's t: drawing n = 3 values with replacement instead
    leaves a third of the variance out and calls the leader far too certain.
    Ties are judged one by one against the leader, not for all at once.
    """
    names = sorted(samples)  # the order given must not change what is drawn
    values = {name: logs_of(samples[name]) if logarithmic else sample(samples[name]) for name in names}
    if not names:
        return []
    if paired and len({v.size for v in values.values()}) > 1:
        raise ValueError("paired values must be as many for every name; keep the seeds that all of them have")
    sign = 1.0 if higher_is_better else -1.0
    order = sorted(names, key=lambda name: -sign * float(values[name].mean()))
    leader = order[0]
    repeated = [name for name in names if values[name].size > 1]
    probability: dict[str, float] = {}
    if leader in repeated and len(repeated) > 1:
        probability = _probability_best([sign * values[name] for name in repeated], repeated, paired, draws)
    gap_of = COMPARISONS[paired, logarithmic]
    null = 1.0 if logarithmic else 0.0
    ranked = []
    for name in order:
        gap = None if name == leader else gap_of(samples[name], samples[leader], confidence).interval
        mean = float(values[name].mean())
        ranked.append(
            Ranked(
                name=name,
                estimate=exp(mean) if logarithmic else mean,
                n=values[name].size,
                gap=gap,
                standing=_standing(gap, null, values[leader].size),
                probability_best=probability.get(name),
            )
        )
    return ranked


def _standing(gap: Interval | None, null: float, leader_n: int) -> Standing:
    if gap is None:
        return "best" if leader_n > 1 else "cannot say"
    excluded = gap.excludes(null)
    if excluded is None:
        return "cannot say"
    return "behind" if excluded else "tied"


def _probability_best(
    values: list[Floats], names: list[str], paired: bool, draws: int, chunk: int = 500
) -> dict[str, float]:
    """Returns the share of the draws of all means in which a name's is the highest; equal means share a draw."""
    rng = np.random.default_rng(0)  # always alike, so that a ranking can be repeated
    means = np.array([v.mean() for v in values])
    won = np.zeros(len(names))
    for start in range(0, draws, chunk):  # in chunks: 10,000 names at once would not fit into memory
        count = min(chunk, draws - start)
        drawn = means + (_shared_noise if paired else _own_noise)(values, count, rng)
        hit = drawn == drawn.max(axis=1, keepdims=True)
        won += (hit / hit.sum(axis=1, keepdims=True)).sum(axis=0)
    return {name: float(share) for name, share in zip(names, won / draws, strict=True)}


def _shared_noise(values: list[Floats], count: int, rng: np.random.Generator) -> Floats:
    """Draws noise of the means, (count, names), when values share seeds: one set of weights for all names of a draw."""
    deviations = np.stack([v - v.mean() for v in values])  # (names, n)
    n = deviations.shape[1]
    weights = rng.standard_normal((count, n)) / math.sqrt(n * (n - 1))
    widening = np.sqrt((n - 1) / rng.chisquare(n - 1, (count, 1)))
    noise: Floats = weights @ deviations.T * widening
    return noise


def _own_noise(values: list[Floats], count: int, rng: np.random.Generator) -> Floats:
    """Draws noise of the means, (count, names), when values are unrelated: weights of its own for each name.

    A sum of normally weighted deviations is normal, so only its scale is needed.
    """
    sizes = np.array([v.size for v in values])
    errors = np.array([v.std(ddof=1) for v in values]) / np.sqrt(sizes)
    noise: Floats = rng.standard_t(sizes - 1, (count, len(values))) * errors
    return noise
