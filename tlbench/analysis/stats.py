"""What repeated measurements allow one to say: intervals, comparisons, ranks with ties, the Pareto front.

The unit is the block or the seed, never the round: rounds of one block share its drift. Times and ratios are treated
on the log scale, where their noise is symmetric; accuracies on their own. One value has no spread, so everything here
says "cannot say" (None) for it, never an interval of width zero. Values must be finite: leave failed blocks out first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # not scipy.stats, which takes ten times as long to import

Floats = NDArray[np.float64]
Outcome = Literal["changed", "same", "cannot say"]
Standing = Literal["best", "tied", "behind", "cannot say"]
Position = Literal["on the front", "dominated", "cannot say"]

CONFIDENCE = 0.95
ROUNDING = 1e-9  # relative: an effect below it is float rounding, not a change
LARGEST_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval; ``low`` and ``high`` are None where no interval can be given.

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
        """Whether ``value`` lies outside; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return value < self.low or value > self.high


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference or a ratio, and the two-sided p-value of "no difference" (0, or 1 for a ratio); None for n < 2."""

    interval: Interval
    p_value: float | None


def exact(value: float) -> Interval:
    """A figure that is known, not measured (a parameter count), as an axis of `pareto`."""
    return Interval(estimate=float(value), low=float(value), high=float(value), n=0, confidence=1.0)


# --- intervals of one sample


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean, with Student's t interval: accuracies over seeds.

    It knows no bounds: near 100 % its upper end may lie above 1.
    """
    return _one_sample(_sample(values), confidence).interval


def log_interval(medians: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The geometric mean of positive values, with Student's t interval on their logs: block medians in seconds.

    For ten blocks or fewer a percentile bootstrap is far too narrow.
    """
    return _as_ratio(_one_sample(_logs(medians), confidence)).interval


def geometric_mean(ratios: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The geometric mean of the ratios of several cells: the headline of a comparison of two runs.

    The interval is over cells: it speaks of cells like these, each cell a value, and is wide where cells disagree.
    """
    return log_interval(ratios, confidence)


def wilson(correct: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Accuracy on ``total`` images, with the score interval of Wilson 1927: the test set's share of the uncertainty."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} correct of {total} images is no proportion")
    z = float(special.ndtri(_upper_tail(confidence)))
    share, weight = correct / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    # at 0 and at 1 an end is the estimate itself; rounding must not carry it past
    low, high = min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
    return Interval(estimate=share, low=low, high=high, n=total, confidence=confidence)


# --- comparisons of two samples


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Mean of ``a[i] - b[i]`` with Student's t: accuracies of two cells on the same seeds."""
    return _one_sample(_differences(_sample(a), _sample(b)), confidence)


def difference_of(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Mean of ``a`` less mean of ``b``, of unequal variances and unrelated values (Welch 1947)."""
    return _welch(_sample(a), _sample(b), confidence)


def paired_ratio(new: ArrayLike, base: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Geometric mean of ``new[i] / base[i]``, Student's t on the logs: medians of two cells in the same blocks.

    Drift that both cells of a block share cancels, so this is the comparison within a run.
    """
    return _as_ratio(_one_sample(_differences(_logs(new), _logs(base)), confidence))


def ratio_of(new: ArrayLike, base: ArrayLike, confidence: float = CONFIDENCE) -> Comparison:
    """Ratio of the geometric means, Welch's t on the logs: blocks that do not belong together (other runs, devices)."""
    return _as_ratio(_welch(_logs(new), _logs(base), confidence))


def alternated_ratio(blocks: Sequence[tuple[ArrayLike, ArrayLike]], confidence: float = CONFIDENCE) -> Comparison:
    """Ratio new / base from (new, base) rounds of each block, taken in turns: the comparison of a duel."""
    return _as_ratio(_one_sample(_logs(block_ratios(blocks)), confidence))


def block_ratios(blocks: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[float]:
    """One ratio a block: the median of ``new[i] / base[i]`` over its alternated rounds; of an A/A pair, for its floor.

    Neighbours in time share their noise, which cancels here and stays in a ratio of two medians.
    """
    return [_exp(float(np.median(_differences(_logs(new), _logs(base))))) for new, base in blocks]


COMPARISONS = {
    # (paired, logarithmic)
    (False, False): difference_of,
    (False, True): ratio_of,
    (True, False): paired_difference,
    (True, True): paired_ratio,
}


@dataclass(frozen=True, kw_only=True)
class Discordance:
    """Images on which exactly one of two models is right, and the exact p-value of "equally often"."""

    only_a: int
    only_b: int
    images: int
    p_value: float


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> Discordance:
    """The exact test of McNemar 1947 on two boolean arrays over the same images, in the same order."""
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(f"need two boolean arrays over the same images, got {a.dtype}{a.shape} and {b.dtype}{b.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p_value = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    return Discordance(only_a=only_a, only_b=only_b, images=a.size, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being many (Holm 1979), in the order given; reject where one is at most alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values lie between 0 and 1, got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


# --- the noise floor and the verdict


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """How far apart two identical cells come out, as a fraction: 0.03 means a ratio of 1.03 or its inverse.

    ``relative`` is the floor, ``seen`` the difference that the A/A pair really showed, ``n`` the A/A ratios behind it.
    """

    relative: float
    seen: float
    n: int
    blocks: int
    confidence: float = CONFIDENCE


def noise_floor(ratios: ArrayLike, blocks: int, confidence: float = CONFIDENCE) -> NoiseFloor:
    """The A/A floor, from the ratios of two identical cells, one a block (or one a pair of whole A/A runs).

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
    logs = _logs(ratios)
    if blocks < 1:
        raise ValueError(f"a comparison averages 1 block or more, got {blocks}")
    seen = abs(float(logs.mean()))
    bound = _t_quantile(logs.size, confidence) * math.sqrt(float(np.mean(logs**2)) / blocks)
    return NoiseFloor(
        relative=_exp(max(bound, seen)) - 1, seen=_exp(seen) - 1, n=logs.size, blocks=blocks, confidence=confidence
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a ratio differs from 1, and the reason in words."""

    outcome: Outcome
    reason: str


def verdict(
    ratio: Interval, noise_floor: float | None, p_adjusted: float | None = None, margin: float | None = None
) -> Verdict:
    """Whether a ratio has changed: its interval excludes 1, also among many, and it exceeds the noise floor.

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
    """The outcome "same", or "cannot say" where a change of ``margin`` or more may still hide in the interval."""
    assert ratio.low is not None
    assert ratio.high is not None
    if margin is not None and (ratio.high >= 1 + margin or ratio.low <= 1 / (1 + margin)):
        return Verdict(
            outcome="cannot say", reason=f"{reason}, but allows a change of {margin:.0%}; measure more blocks"
        )
    return Verdict(outcome="same", reason=reason)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One of several comparisons: the ratio new / base, its p-value alone and among all, the verdict."""

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
    """Judge ``name -> (new, base)`` block medians: ratio, Holm over all names that have a p-value, verdict."""
    ratio = COMPARISONS[paired, True]
    found = {name: ratio(new, base, confidence) for name, (new, base) in pairs.items()}
    known = {name: c.p_value for name, c in found.items() if c.p_value is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {
        name: Judged(
            ratio=c.interval,
            p_value=c.p_value,
            p_adjusted=adjusted.get(name),
            verdict=verdict(c.interval, noise_floor, adjusted.get(name), margin),
        )
        for name, c in found.items()
    }


# --- ranks


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Where a name stands.

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
    seed: int = 0,
) -> list[Ranked]:
    """Names with their per-seed or per-block values, best first, with ties and the probability of being best.

    ``paired``: the i-th value of every name comes from the same seed or block. ``logarithmic``: times and other
    positive figures that are compared as ratios.
    The probability comes from a bootstrap that weights each value's deviation at random (multiplier bootstrap) and
    divides by a chi-square draw, so that its spread is Student's t: drawing n = 3 values with replacement instead
    leaves a third of the variance out and calls the leader far too certain.
    Ties are judged one by one against the leader, not for all at once.
    """
    names = sorted(samples)  # the order given must not change what is drawn
    values = {name: _logs(samples[name]) if logarithmic else _sample(samples[name]) for name in names}
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
        probability = _probability_best([sign * values[name] for name in repeated], repeated, paired, draws, seed)
    gap_of = COMPARISONS[paired, logarithmic]
    null = 1.0 if logarithmic else 0.0
    ranked = []
    for name in order:
        gap = None if name == leader else gap_of(samples[name], samples[leader], confidence).interval
        mean = float(values[name].mean())
        ranked.append(
            Ranked(
                name=name,
                estimate=_exp(mean) if logarithmic else mean,
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
    values: list[Floats], names: list[str], paired: bool, draws: int, seed: int, chunk: int = 500
) -> dict[str, float]:
    """Share of the draws of all means in which a name's is the highest; equal means share a draw."""
    rng = np.random.default_rng(seed)
    means = np.array([v.mean() for v in values])
    won = np.zeros(len(names))
    for start in range(0, draws, chunk):  # in chunks: 10,000 names at once would not fit into memory
        count = min(chunk, draws - start)
        drawn = means + (_shared_noise if paired else _own_noise)(values, count, rng)
        hit = drawn == drawn.max(axis=1, keepdims=True)
        won += (hit / hit.sum(axis=1, keepdims=True)).sum(axis=0)
    return {name: float(share) for name, share in zip(names, won / draws, strict=True)}


def _shared_noise(values: list[Floats], count: int, rng: np.random.Generator) -> Floats:
    """Noise of the means, (count, names), when values share seeds: one set of weights for all names of a draw."""
    deviations = np.stack([v - v.mean() for v in values])  # (names, n)
    n = deviations.shape[1]
    weights = rng.standard_normal((count, n)) / math.sqrt(n * (n - 1))
    widening = np.sqrt((n - 1) / rng.chisquare(n - 1, (count, 1)))
    noise: Floats = weights @ deviations.T * widening
    return noise


def _own_noise(values: list[Floats], count: int, rng: np.random.Generator) -> Floats:
    """Noise of the means, (count, names), when values are unrelated: weights of its own for each name.

    A sum of normally weighted deviations is normal, so only its scale is needed.
    """
    sizes = np.array([v.size for v in values])
    errors = np.array([v.std(ddof=1) for v in values]) / np.sqrt(sizes)
    noise: Floats = rng.standard_t(sizes - 1, (count, len(values))) * errors
    return noise


# --- the Pareto front


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """A point's position, and the index of a point that dominates it, or may ("cannot say"); None on the front."""

    position: Position
    by: int | None


def pareto(points: Sequence[tuple[Interval, Interval]]) -> list[Pareto]:
    """The front of (cost, value) points, low cost and high value being good; answers in the order given.

    A point dominates another when its cost is no higher and its value no lower, one of them strictly.
    "dominated": by some point, wherever in their intervals the two really lie. "on the front": by no point, wherever
    they lie. "cannot say": otherwise. An end that is None may lie anywhere, so a point measured once can leave its
    neighbours undecided; leave it out to see the front of the others. Takes O(n log n).
    """
    cost_low, cost_high = _ends([cost for cost, _ in points])
    value_low, value_high = _ends([value for _, value in points])
    surely = _dominators(cost_high, value_low, cost_low, value_high)
    perhaps = _dominators(cost_low, value_high, cost_high, value_low)
    found: list[Pareto] = []
    for sure, may in zip(surely, perhaps, strict=True):
        if sure is not None:
            found.append(Pareto(position="dominated", by=sure))
        else:
            found.append(Pareto(position="on the front" if may is None else "cannot say", by=may))
    return found


def _ends(axis: Sequence[Interval]) -> tuple[list[float], list[float]]:
    low = [-math.inf if i.low is None else i.low for i in axis]
    high = [math.inf if i.high is None else i.high for i in axis]
    return low, high


def _dominators(
    cost: list[float], value: list[float], own_cost: list[float], own_value: list[float]
) -> list[int | None]:
    """For each i some j ≠ i with cost[j] ≤ own_cost[i] and value[j] ≥ own_value[i], one of them strictly; else None.

    Sweeps by cost, keeping the two highest values so far: the second one answers for the point that holds the first.
    """
    answer: list[int | None] = [None] * len(cost)
    arrivals = sorted(range(len(cost)), key=cost.__getitem__)
    queries = sorted(range(len(cost)), key=own_cost.__getitem__)
    for strict_cost in (True, False):
        top: list[int] = []
        arrived = 0
        for i in queries:
            while arrived < len(arrivals) and (
                cost[arrivals[arrived]] < own_cost[i] or (not strict_cost and cost[arrivals[arrived]] == own_cost[i])
            ):
                top = sorted([*top, arrivals[arrived]], key=value.__getitem__, reverse=True)[:2]
                arrived += 1
            for j in top:
                better = value[j] > own_value[i] or (strict_cost and value[j] == own_value[i])
                if j != i and better and answer[i] is None:
                    answer[i] = j
    return answer


# --- the one t interval that all of the above rests on


def _one_sample(values: Floats, confidence: float) -> Comparison:
    n = values.size
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return _student(float(values.mean()), error, n - 1, n, confidence)


def _welch(a: Floats, b: Floats, confidence: float) -> Comparison:
    n = min(a.size, b.size)
    centre = float(a.mean()) - float(b.mean())
    if n < 2:
        return _student(centre, math.nan, 0, n, confidence)
    share_a, share_b = float(a.var(ddof=1)) / a.size, float(b.var(ddof=1)) / b.size
    variance = share_a + share_b
    freedom = float(a.size + b.size - 2)
    if variance > 0:
        fraction = share_a / variance  # in fractions: squares of tiny variances would underflow
        freedom = 1 / (fraction**2 / (a.size - 1) + (1 - fraction) ** 2 / (b.size - 1))
    return _student(centre, math.sqrt(variance), freedom, n, confidence)


def _student(centre: float, error: float, freedom: float, n: int, confidence: float) -> Comparison:
    """``centre`` ± t · ``error``, and the p-value of a true centre of 0; neither for n < 2."""
    if n < 2:
        return Comparison(
            interval=Interval(estimate=centre, low=None, high=None, n=n, confidence=confidence), p_value=None
        )
    half = _t_quantile(freedom, confidence) * error
    if error > 0:
        p_value = min(1.0, 2 * float(special.stdtr(freedom, -abs(centre) / error)))
    else:
        p_value = 1.0 if centre == 0 else 0.0
    interval = Interval(estimate=centre, low=centre - half, high=centre + half, n=n, confidence=confidence)
    return Comparison(interval=interval, p_value=p_value)


def _t_quantile(freedom: float, confidence: float) -> float:
    return float(special.stdtrit(freedom, _upper_tail(confidence)))


def _upper_tail(confidence: float) -> float:
    """The probability below the upper end of a two-sided interval: 0.975 for 95 %."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    return 0.5 + confidence / 2


def _as_ratio(logs: Comparison) -> Comparison:
    """From the log scale to ratios; the p-value stays."""
    i = logs.interval
    interval = Interval(
        estimate=_exp(i.estimate),
        low=None if i.low is None else _exp(i.low),
        high=None if i.high is None else _exp(i.high),
        n=i.n,
        confidence=i.confidence,
    )
    return Comparison(interval=interval, p_value=logs.p_value)


def _exp(value: float) -> float:
    return math.exp(value) if value < LARGEST_LOG else math.inf


def _sample(values: ArrayLike) -> Floats:
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.all(np.isfinite(array)):
        raise ValueError(f"need one or more finite numbers, got {values!r}")
    return array


def _logs(values: ArrayLike) -> Floats:
    array = _sample(values)
    if not np.all(array > 0):
        raise ValueError(f"ratios need positive numbers, got {values!r}")
    logs: Floats = np.log(array)
    return logs


def _differences(a: Floats, b: Floats) -> Floats:
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many values on both sides, got {a.size} and {b.size}")
    return a - b
