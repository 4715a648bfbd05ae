"""Statistics: hand-worked numbers, agreement with scipy, invariants, and simulated coverage, errors and power."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from tiers import sweep

from tlbench.analysis.stats import (
    COMPARISONS,
    Interval,
    alternated_ratio,
    block_ratios,
    difference_of,
    exact,
    geometric_mean,
    holm,
    log_interval,
    mcnemar,
    mean_interval,
    noise_floor,
    paired_difference,
    paired_ratio,
    pareto,
    rank,
    ratio_of,
    verdict,
    wilson,
)
from tlbench.analysis.stats.student import deviation, mean

fixed = settings(derandomize=True, deadline=None)

seconds = st.floats(1e-6, 1e6)
samples = st.lists(seconds, min_size=1, max_size=8)
pairs = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=8)
probabilities = st.lists(st.floats(0, 1), max_size=20)


def ends(interval: Interval) -> tuple[float, ...]:
    return tuple(math.nan if x is None else x for x in (interval.low, interval.estimate, interval.high))


def near(found: Interval, low: float | None, estimate: float | None, high: float | None, rel: float = 1e-6):
    """Whether an interval is the given one; None stands for an end that cannot be given."""
    wanted = tuple(math.nan if x is None else x for x in (low, estimate, high))
    return ends(found) == pytest.approx(wanted, rel=rel, nan_ok=True)


# --- hand-worked numbers


def test_mean_interval_by_hand():
    # mean 2, deviation 1, t(2) = 4.302653: half-width 4.302653 / sqrt(3) = 2.484138
    found = mean_interval([1, 2, 3])
    assert near(found, -0.484138, 2.0, 4.484138)
    assert (found.n, found.confidence) == (3, 0.95)


def test_log_interval_by_hand():
    # logs 0, 1, 2 by the same t: e^(1 ± 2.484138)
    assert near(log_interval([1, math.e, math.e**2]), math.exp(-1.484138), math.e, math.exp(3.484138))


def test_wilson_by_hand():
    # z² / n = 0.384146: centre (0.9 + 0.192073) / 1.384146 = 0.788987,
    # half-width sqrt(0.09 · 0.384146 + 0.384146² / 4) / 1.384146 = 0.193137
    assert near(wilson(9, 10), 0.595850, 0.9, 0.982124, rel=1e-5)


def test_paired_ratio_by_hand():
    # ratios 1.1, 1.2, 1.3: logs 0.095310, 0.182322, 0.262364; mean 0.179999, deviation 0.083551
    found = paired_ratio([1.1, 2.4, 5.2], [1, 2, 4])
    half = 4.302653 * 0.083551 / math.sqrt(3)
    assert near(found.interval, math.exp(0.179999 - half), 1.197216, math.exp(0.179999 + half), rel=1e-4)


def test_alternated_ratio_by_hand():
    # round ratios 1, 1.1, 9 and 1, 1.2, 1.3, 1.3: medians 1.1 and, between 1.2 and 1.3 on the log scale, sqrt(1.56)
    blocks = [([2, 1.1, 9], [2, 1, 1]), ([1, 2.4, 1.3, 1.3], [1, 2, 1, 1])]
    assert block_ratios(blocks) == pytest.approx([1.1, math.sqrt(1.56)])
    assert alternated_ratio(blocks) == paired_ratio(block_ratios(blocks), [1, 1])
    assert alternated_ratio(blocks[:1]).p_value is None


def test_mcnemar_by_hand():
    # 1 and 5 images of 8 on which one alone is right: p = 2 (1 + 6) / 2^6
    a = np.array([1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b, found.images) == (1, 5, 8)
    assert found.p_value == pytest.approx(14 / 64)


def test_mcnemar_of_the_same_predictions_is_one():
    assert mcnemar(np.ones(3, bool), np.ones(3, bool)).p_value == 1.0


def test_holm_by_hand():
    # 0.01 × 4, 0.02 × 3, 0.03 × 2 (below the step before it, so 0.06 again), 0.5 × 1
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []


def test_geometric_mean_by_hand():
    assert geometric_mean([2, 8]).estimate == pytest.approx(4)
    assert near(geometric_mean([0.5, 1, 2]), 2**-2.484138, 1.0, 2**2.484138)


def test_noise_floor_by_hand():
    # log ratios ±0.01: rms 0.01, t(2) = 4.302653, two blocks: e^(4.302653 · 0.01 / sqrt(2)) - 1
    floor = noise_floor(np.exp([0.01, -0.01]), blocks=2)
    assert floor.relative == pytest.approx(math.expm1(0.04302653 / math.sqrt(2)), rel=1e-6)
    assert (floor.seen, floor.n, floor.blocks) == (pytest.approx(0, abs=1e-12), 2, 2)
    # a steady difference of 2 % over 20 blocks is the floor itself; the bound of chance, 0.93 %, is less
    assert noise_floor([1.02] * 20, blocks=20).relative == pytest.approx(0.02)
    # one ratio alone: t(1) = 12.706205
    assert noise_floor([1.01], blocks=1).relative == pytest.approx(1.01**12.706205 - 1, rel=1e-6)


# --- agreement with scipy


@fixed
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=200))
def test_mean_and_deviation_are_numpys_to_the_last_bit(values):
    array = np.array(values)
    assert (mean(array), deviation(array)) == (float(array.mean()), float(array.std(ddof=1)))


@fixed
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8, unique=True), st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_interval_agrees_with_scipy(values, confidence):
    scipys = reference.ttest_1samp(values, 0).confidence_interval(confidence)
    assert near(mean_interval(values, confidence), scipys.low, np.mean(values), scipys.high)


@fixed
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8, unique=True),
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8, unique=True),
)
def test_ratio_of_agrees_with_scipys_welch(new, base):
    logs = np.log(new), np.log(base)
    assume(min(np.std(x) for x in logs) > 1e-6)
    scipys = reference.ttest_ind(*logs, equal_var=False)
    found = ratio_of(new, base)
    interval = scipys.confidence_interval(0.95)
    assume(interval.high < 500)
    assert near(
        found.interval, math.exp(interval.low), math.exp(logs[0].mean() - logs[1].mean()), math.exp(interval.high)
    )
    assert found.p_value == pytest.approx(scipys.pvalue, rel=1e-6)
    assert found.interval.n == min(len(new), len(base))


@fixed
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_paired_difference_agrees_with_scipy(values):
    a, b = np.array(values).T
    assume(np.std(a - b) > 1e-6)
    scipys = reference.ttest_rel(a, b)
    found = paired_difference(a, b)
    interval = scipys.confidence_interval(0.95)
    assert found.p_value == pytest.approx(scipys.pvalue, rel=1e-6)
    assert ends(found.interval) == pytest.approx((interval.low, np.mean(a - b), interval.high), rel=1e-6, abs=1e-9)


@pytest.mark.exhaustive
@fixed
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy_and_stays_within_0_and_1(counts):
    scipys = reference.binomtest(*counts).proportion_ci(method="wilson")
    found = wilson(*counts)
    assert ends(found)[::2] == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert 0 <= found.low < found.high <= 1


@fixed
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_agrees_with_scipys_binomial_test(images):
    a, b = np.array(images).T
    found = mcnemar(a, b)
    if found.only_a + found.only_b:
        scipys = reference.binomtest(found.only_a, found.only_a + found.only_b).pvalue
        assert found.p_value == pytest.approx(scipys)
    assert found.p_value == mcnemar(b, a).p_value


# --- invariants


@pytest.mark.parametrize("interval", [mean_interval, log_interval, geometric_mean])
def test_one_value_has_no_interval(interval):
    found = interval([2.0])
    assert (found.estimate, found.low, found.high, found.n) == (pytest.approx(2), None, None, 1)
    assert found.excludes(1.0) is None


@pytest.mark.parametrize("comparison", COMPARISONS.values(), ids=lambda f: f.__name__)
def test_one_pair_has_neither_interval_nor_p_value(comparison):
    found = comparison([2.0], [1.0])
    assert (found.interval.low, found.interval.high, found.p_value) == (None, None, None)


@pytest.mark.parametrize("comparison", [difference_of, ratio_of])
def test_one_value_on_one_side_is_too_few(comparison):
    found = comparison([2.0, 2.1, 2.2], [1.0])
    assert (found.interval.n, found.interval.low, found.p_value) == (1, None, None)


@fixed
@given(samples, st.floats(1e-3, 1e3))
def test_log_interval_scales_with_its_unit(values, unit):
    scaled = log_interval([unit * v for v in values])
    assert ends(scaled) == pytest.approx(tuple(unit * e for e in ends(log_interval(values))), rel=1e-6, nan_ok=True)


@fixed
@given(samples, samples, st.floats(1e-3, 1e3))
def test_a_ratio_does_not_know_the_unit(new, base, unit):
    scaled = ratio_of([unit * v for v in new], [unit * v for v in base])
    assert ends(scaled.interval) == pytest.approx(ends(ratio_of(new, base).interval), rel=1e-6, nan_ok=True)


@fixed
@given(samples, samples)
def test_an_unpaired_ratio_turned_round_is_its_inverse(a, b):
    one, other = ratio_of(a, b), ratio_of(b, a)
    inverse = tuple(1 / e if e else math.inf for e in reversed(ends(other.interval)))
    assert ends(one.interval) == pytest.approx(inverse, rel=1e-6, nan_ok=True)
    assert one.p_value == pytest.approx(other.p_value)


@fixed
@given(pairs)
def test_a_paired_ratio_turned_round_is_its_inverse(values):
    a, b = np.array(values).T
    one, other = paired_ratio(a, b), paired_ratio(b, a)
    inverse = tuple(1 / e if e else math.inf for e in reversed(ends(other.interval)))
    assert ends(one.interval) == pytest.approx(inverse, rel=1e-6, nan_ok=True)
    assert one.p_value == other.p_value


@fixed
@given(pairs, st.lists(st.floats(0.1, 10), min_size=8, max_size=8))
def test_drift_that_both_share_cancels_in_a_paired_ratio(values, drift):
    a, b = np.array(values).T
    d = np.array(drift[: len(values)])
    drifted = paired_ratio(a * d, b * d)
    assert ends(drifted.interval) == pytest.approx(ends(paired_ratio(a, b).interval), rel=1e-6, nan_ok=True)


@fixed
@given(pairs, st.lists(st.floats(0.1, 10), min_size=8, max_size=8))
def test_drift_from_round_to_round_cancels_in_an_alternated_ratio(values, drift):
    a, b = np.array(values).T
    d = np.array(drift[: len(values)])
    assert block_ratios([(a * d, b * d)]) == pytest.approx(block_ratios([(a, b)]))
    assert block_ratios([(a, b)])[0] == pytest.approx(1 / block_ratios([(b, a)])[0])


@fixed
@given(pairs)
def test_interval_and_p_value_say_the_same(values):
    a, b = np.array(values).T
    for found in (paired_ratio(a, b), ratio_of(a, b)):
        assume(found.p_value is None or abs(found.p_value - 0.05) > 1e-6)
        assert found.interval.excludes(1.0) == (None if found.p_value is None else found.p_value < 0.05)


@fixed
@given(samples)
def test_more_confidence_is_wider(values):
    assume(len(values) > 1)
    narrow, wide = log_interval(values, 0.8), log_interval(values, 0.99)
    assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


@fixed
@given(probabilities)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    adjusted = holm(p)
    for raw, risen in zip(p, adjusted, strict=True):
        assert raw <= risen <= min(1.0, len(p) * raw) + 1e-12
    by_p = [adjusted[i] for i in np.argsort(p, kind="stable")]
    assert by_p == sorted(by_p)


@fixed
@given(probabilities, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    adjusted = holm(p)
    assert holm([p[i] for i in order]) == pytest.approx([adjusted[i] for i in order])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([1.0, math.nan]),
        lambda: mean_interval([[1.0, 2.0]]),
        lambda: mean_interval([1.0, 2.0], confidence=95),
        lambda: log_interval([1.0, 0.0]),
        lambda: ratio_of([1.0, -1.0], [1.0, 2.0]),
        lambda: paired_ratio([1.0, 2.0], [1.0]),
        lambda: paired_difference([1.0], [1.0, 2.0]),
        lambda: alternated_ratio([([1.0, 2.0], [1.0])]),
        lambda: alternated_ratio([]),
        lambda: wilson(0, 0),
        lambda: wilson(3, 2),
        lambda: wilson(1, 2, confidence=95),
        lambda: mcnemar([True], [True, False]),
        lambda: mcnemar([0.9], [0.1]),
        lambda: holm([0.5, 1.5]),
        lambda: holm([math.nan]),
        lambda: noise_floor([1.0], blocks=0),
        lambda: rank({"a": [1.0, 2.0], "b": [1.0]}, True, paired=True),
    ],
)
def test_what_has_no_answer_is_refused(mistake):
    with pytest.raises(ValueError):
        mistake()


# --- verdict


def ratio(estimate: float, low: float | None, high: float | None) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, n=5)


@pytest.mark.parametrize(
    ("interval", "floor", "p", "margin", "outcome", "word"),
    [
        (ratio(1.2, 1.1, 1.3), 0.03, None, None, "changed", "exceeds the noise floor of 3.0%"),
        (ratio(0.8, 0.7, 0.9), 0.03, 0.01, None, "changed", "excludes 1"),
        (ratio(1.2, 1.1, 1.3), 0.03, 0.06, None, "same", "Holm"),
        (ratio(1.02, 1.01, 1.03), 0.03, None, None, "same", "does not exceed"),
        (ratio(1 / 1.02, 1 / 1.03, 1 / 1.01), 0.021, None, None, "same", "does not exceed"),
        (ratio(1 / 1.02, 1 / 1.03, 1 / 1.01), 0.0199, None, None, "changed", "exceeds"),
        (ratio(1.2, 0.9, 1.6), 0.03, None, None, "same", "includes 1"),
        (ratio(1.2, 0.9, 1.6), None, None, None, "same", "includes 1"),
        (ratio(1.2, 1.1, 1.3), None, None, None, "cannot say", "no cell was measured twice"),
        (ratio(1.2, None, None), 0.03, None, None, "cannot say", "3 blocks"),
        (ratio(1.2, 0.9, 1.6), 0.03, None, 0.1, "cannot say", "allows a change of 10%"),
        (ratio(1.0, 0.85, 1.05), 0.03, None, 0.1, "cannot say", "allows a change of 10%"),
        (ratio(1.0, 0.95, 1.05), 0.03, None, 0.1, "same", "includes 1"),
        (ratio(1.2, 1.1, 1.3), 0.25, None, 0.1, "cannot say", "does not exceed"),
    ],
)
def test_verdict(interval, floor, p, margin, outcome, word):
    found = verdict(interval, floor, p, margin)
    assert (found.outcome, word in found.reason) == (outcome, True), found


@fixed
@given(samples)
def test_a_run_compared_with_itself_is_the_same(values):
    for paired in (True, False):
        ratio = COMPARISONS[paired, True](values, values).interval
        assert verdict(ratio, 0.0).outcome == ("same" if len(values) > 1 else "cannot say")
        assert ratio.estimate == 1.0


def test_rounding_is_no_change():
    base = [0.1, 0.2, 0.3]
    assert verdict(paired_ratio([b * (1 + 1e-15) for b in base], base).interval, 0.0).outcome == "same"


# --- simulations: seeded, of so many trials that five standard errors fit between the expected rate and the limit


@pytest.mark.parametrize("n", sweep([3, 5, 10], {5}))
def test_log_normal_block_medians_are_covered(n):
    rng = np.random.default_rng(n)
    trials = 4000  # standard error 0.35 %
    found = [log_interval(np.exp(rng.normal(math.log(0.2), 0.3, n))) for _ in range(trials)]
    covered = np.mean([not i.excludes(0.2) for i in found])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("n_new", "n_base", "spread"), sweep([(3, 3, 1), (5, 5, 3), (10, 10, 3), (5, 10, 3)], {(3, 3, 1)})
)
def test_ratios_of_log_normal_medians_are_covered(n_new, n_base, spread):
    rng = np.random.default_rng(n_new)
    trials = 4000
    covered = np.mean(
        [
            not ratio_of(
                np.exp(rng.normal(math.log(1.3), 0.05, n_new)), np.exp(rng.normal(0, 0.05 * spread, n_base))
            ).interval.excludes(1.3)
            for _ in range(trials)
        ]
    )
    assert 0.93 <= covered <= 0.98  # Welch is a little wide at n = 3


def blocks_of_a_run(rng: np.random.Generator, cells: int, blocks: int, noise: float = 0.02) -> np.ndarray:
    """Medians (cells, blocks) of identical cells: the machine drifts from block to block, and within a block."""
    drift = np.cumsum(rng.normal(0, 0.05, blocks))
    slope = rng.normal(0, 0.02, blocks)
    place = np.array([rng.permutation(cells) for _ in range(blocks)]).T / cells
    return np.exp(drift + slope * place + rng.normal(0, noise, (cells, blocks)))


def changed(rng: np.random.Generator, slower: float, blocks: int, noise: float = 0.02) -> tuple[bool, bool]:
    """Whether a cell of one run is called changed against another, by the verdict and by its interval alone."""
    twin_a, twin_b, base, new = blocks_of_a_run(rng, 4, blocks, noise)
    floor = noise_floor(twin_b / twin_a, blocks).relative
    ratio = paired_ratio(new * slower, base).interval
    return verdict(ratio, floor).outcome == "changed", bool(ratio.excludes(1.0))


@pytest.mark.parametrize("blocks", sweep([3, 5, 10], {5}))
def test_identical_cells_are_rarely_called_changed_while_the_machine_drifts(blocks):
    rng = np.random.default_rng(blocks)
    found = np.mean([changed(rng, 1.0, blocks) for _ in range(2000)], axis=0)
    assert found[0] <= 0.035  # the floor takes away more than half of the interval's own errors
    assert 0.025 <= found[1] <= 0.075


@pytest.mark.parametrize("blocks", sweep([2, 5], {2}))
def test_unpaired_identical_cells_are_rarely_called_changed(blocks):
    rng = np.random.default_rng(blocks)
    trials = 2000
    false = 0
    for _ in range(trials):
        twin_a, twin_b, base, new = blocks_of_a_run(rng, 4, blocks)
        floor = noise_floor(twin_b / twin_a, blocks).relative
        false += verdict(ratio_of(new, base).interval, floor).outcome == "changed"
    assert false / trials <= 0.05


@pytest.mark.parametrize(
    ("blocks", "noise", "power"), sweep([(3, 0.01, 0.95), (5, 0.02, 0.95), (10, 0.03, 0.95)], {(3, 0.01, 0.95)})
)
def test_a_planted_ten_percent_is_found(blocks, noise, power):
    rng = np.random.default_rng(blocks)
    assert np.mean([changed(rng, 1.1, blocks, noise)[0] for _ in range(1000)]) >= power


@pytest.mark.parametrize("blocks", sweep([1, 3, 10], {3}))
def test_a_further_pair_stays_within_the_noise_floor(blocks):
    rng = np.random.default_rng(blocks)
    trials = 4000
    beyond = 0
    for _ in range(trials):
        seen, further = np.exp(rng.normal(0, 0.02, (2, blocks)))
        effect = abs(math.log(paired_ratio(further, np.ones(blocks)).interval.estimate))
        beyond += effect > math.log1p(noise_floor(seen, blocks).relative)
    assert 0.02 <= beyond / trials <= 0.065


@pytest.mark.exhaustive
def test_holm_keeps_a_whole_run_from_a_false_alarm():
    rng = np.random.default_rng(0)
    runs = 400  # of 12 identical cells against 12 more
    alarms = 0
    for _ in range(runs):
        medians = blocks_of_a_run(rng, 24, 5)
        found = [paired_ratio(medians[i], medians[12 + i]) for i in range(12)]
        adjusted = holm([c.p_value for c in found])
        alarms += any(verdict(c.interval, 0.0, p).outcome == "changed" for c, p in zip(found, adjusted, strict=True))
    assert alarms / runs <= 0.09  # 5 % is promised, at a standard error of 1.1 %


# --- ranks


def test_rank_calls_ties_ties():
    ranked = rank({"far": [0.50, 0.52, 0.51], "near": [0.90, 0.92, 0.88], "top": [0.91, 0.90, 0.92]}, True)
    assert [(r.name, r.standing) for r in ranked] == [("top", "best"), ("near", "tied"), ("far", "behind")]
    assert ranked[0].gap is None
    assert ranked[1].gap.estimate == pytest.approx(-0.01)
    assert ranked[2].probability_best < 0.02 < ranked[1].probability_best < ranked[0].probability_best


def test_rank_of_times_is_by_ratio_and_the_lowest_is_best():
    times = {"slow": [2.0, 2.1, 1.9], "fast": [1.0, 1.05, 0.95], "alike": [1.01, 1.06, 0.96]}
    ranked = rank(times, False, logarithmic=True)
    assert [(r.name, r.standing) for r in ranked] == [("fast", "best"), ("alike", "tied"), ("slow", "behind")]
    assert ranked[2].gap.estimate == pytest.approx(2.0, rel=1e-2)
    assert ranked[0].probability_best > ranked[1].probability_best > ranked[2].probability_best
    assert ranked[0].estimate == log_interval([1.0, 1.05, 0.95]).estimate


def test_pairing_by_seed_decides_what_unpaired_seeds_cannot():
    values = {"a": [0.70, 0.80, 0.90], "b": [0.69, 0.79, 0.89]}
    nudged = {"a": values["a"], "b": [0.69, 0.788, 0.89]}
    assert rank(nudged, True)[1].standing == "tied"
    paired = rank(nudged, True, paired=True)
    assert (paired[1].standing, paired[0].probability_best > 0.95) == ("behind", True)


def test_one_value_each_cannot_be_ranked():
    ranked = rank({"a": [0.9], "b": [0.8]}, True)
    assert [(r.name, r.standing, r.probability_best) for r in ranked] == [
        ("a", "cannot say", None),
        ("b", "cannot say", None),
    ]


def test_a_name_measured_once_is_left_undecided_and_does_not_count():
    ranked = rank({"a": [0.9, 0.91], "b": [0.1, 0.11], "once": [0.5]}, True)
    by_name = {r.name: r for r in ranked}
    assert by_name["once"].standing == "cannot say"
    assert by_name["once"].probability_best is None
    assert by_name["a"].probability_best + by_name["b"].probability_best == pytest.approx(1)


def test_a_leader_measured_once_leaves_all_undecided():
    ranked = rank({"once": [0.99], "a": [0.9, 0.91], "b": [0.1, 0.11]}, True)
    assert {(r.standing, r.probability_best) for r in ranked} == {("cannot say", None)}


def test_the_only_name_is_the_best_of_one():
    assert [(r.standing, r.probability_best) for r in rank({"a": [0.9, 0.91]}, True)] == [("best", None)]
    assert rank({}, True) == []


def test_equal_values_share_the_probability():
    ranked = rank({"a": [0.5, 0.5], "b": [0.5, 0.5]}, True)
    assert [(r.standing, r.probability_best) for r in ranked] == [("best", 0.5), ("tied", 0.5)]


names_and_values = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1
)


@settings(fixed, max_examples=50)
@given(names_and_values, st.booleans(), st.randoms(use_true_random=False))
def test_rank_does_not_depend_on_order_and_its_probabilities_add_up(values, higher, random):
    ranked = rank(values, higher, draws=200)
    shuffled = list(values)
    random.shuffle(shuffled)
    assert rank({name: values[name] for name in shuffled}, higher, draws=200) == ranked
    estimates = [r.estimate for r in ranked]
    assert estimates == sorted(estimates, reverse=higher)
    known = [r.probability_best for r in ranked if r.probability_best is not None]
    assert not known or sum(known) == pytest.approx(1)


@pytest.mark.parametrize("paired", [True, False])
def test_probability_of_being_best_is_that_of_the_t_distribution(paired):
    a, b = [0.90, 0.93, 0.87], [0.85, 0.89, 0.86]
    found = {r.name: r.probability_best for r in rank({"a": a, "b": b}, True, paired=paired, draws=100_000)}
    if paired:  # exactly: the one-sided p-value of the paired t test
        wanted = 1 - reference.ttest_rel(a, b, alternative="greater").pvalue
    else:  # the difference of two t variables, integrated
        x = np.linspace(0, 1, 200_001)[1:-1]
        mean, error = [np.mean(v) for v in (a, b)], [reference.sem(v) for v in (a, b)]
        quantiles = reference.t.ppf(x, 2, mean[0], error[0])
        wanted = np.mean(reference.t.cdf(quantiles, 2, mean[1], error[1]))
    assert found["a"] == pytest.approx(wanted, abs=0.007)


@pytest.mark.parametrize("n", sweep([3, 10], {3}))
def test_probability_of_being_best_is_not_overconfident(n):
    """Over many runs with true means spread like the noise, the leader is the best as often as it is said to be."""
    rng = np.random.default_rng(n)
    trials, said, true = 800, 0.0, 0
    for _ in range(trials):
        means = rng.normal(0, 1, 4)
        drawn = means[:, None] + rng.normal(0, 1, (4, n)) + rng.normal(0, 1, n)
        leader = rank({str(i): v for i, v in enumerate(drawn)}, True, paired=True, draws=300)[0]
        said += leader.probability_best / trials
        true += int(leader.name) == means.argmax()
    assert said == pytest.approx(true / trials, abs=0.07)


# --- the Pareto front


def brute_force(points):
    """The definition, pair by pair: every corner of one box against every corner of the other."""

    def corners(interval):
        low = -math.inf if interval.low is None else interval.low
        return low, math.inf if interval.high is None else interval.high

    def dominates(cost, value, other_cost, other_value):
        return cost <= other_cost and value >= other_value and (cost < other_cost or value > other_value)

    boxes = [(corners(c), corners(v)) for c, v in points]
    answer = []
    for i, (c, v) in enumerate(boxes):
        others = [box for j, box in enumerate(boxes) if j != i]
        # the worst of the other against the best of this one; then the best of the other against the worst of this one
        surely = any(dominates(oc[1], ov[0], c[0], v[1]) for oc, ov in others)
        perhaps = any(dominates(oc[0], ov[1], c[1], v[0]) for oc, ov in others)
        answer.append("dominated" if surely else "cannot say" if perhaps else "on the front")
    return answer


# few distinct ends, so that equal costs and values are frequent
coarse = st.integers(0, 6).map(float)
known = st.tuples(coarse, coarse, coarse).map(sorted).map(lambda x: Interval(low=x[0], estimate=x[1], high=x[2], n=3))
interval = st.one_of(known, coarse.map(exact), coarse.map(lambda x: Interval(low=None, estimate=x, high=None, n=1)))


@pytest.mark.exhaustive
@settings(fixed, max_examples=300)
@given(st.lists(st.tuples(interval, interval), max_size=10))
def test_pareto_equals_brute_force(points):
    found = pareto(points)
    assert [p.position for p in found] == brute_force(points)
    for i, p in enumerate(found):
        assert (p.by is None) == (p.position == "on the front")
        assert p.by != i
        if p.by is not None:  # the one that is named does, or may, dominate
            assert brute_force([points[i], points[p.by]])[0] == p.position


@fixed
@given(st.lists(st.tuples(coarse, coarse), min_size=1, max_size=30))
def test_the_front_of_exact_points_is_never_dominated_nor_empty(points):
    positions = [p.position for p in pareto([(exact(c), exact(v)) for c, v in points])]
    assert "cannot say" not in positions
    front = [p for p, position in zip(points, positions, strict=True) if position == "on the front"]
    assert front
    for cost, value in front:
        assert not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)


def test_pareto_by_hand():
    cheap, dear = (
        Interval(low=0.9, estimate=1.0, high=1.1, n=5),
        Interval(low=1.9, estimate=2.0, high=2.1, n=5),
    )
    good, better, poor = (
        Interval(low=0.80, estimate=0.82, high=0.84, n=5),
        Interval(low=0.83, estimate=0.85, high=0.87, n=5),
        Interval(low=0.5, estimate=0.5, high=0.5, n=5),
    )
    found = pareto([(cheap, good), (dear, better), (dear, poor)])
    # the dear one may not be better at all: its accuracy's interval overlaps the cheap one's
    assert [p.position for p in found] == ["on the front", "cannot say", "dominated"]
    assert [p.by for p in found] == [None, 0, 0]


def test_equal_points_share_the_front_when_exact_and_stay_undecided_when_measured():
    exactly = (exact(1), exact(2))
    assert [p.position for p in pareto([exactly, exactly])] == ["on the front"] * 2
    measured = (Interval(low=0.9, estimate=1.0, high=1.1, n=3), exact(2))
    assert [p.position for p in pareto([measured, measured])] == ["cannot say"] * 2


def test_a_point_measured_once_is_never_on_the_front_for_certain():
    once = (Interval(low=None, estimate=1.0, high=None, n=1), exact(0.9))
    better = (exact(5.0), exact(0.95))
    worse = (exact(5.0), exact(0.5))
    found = pareto([once, better, worse])
    assert [p.position for p in found] == ["cannot say", "on the front", "dominated"]
    assert pareto([once])[0].position == "on the front"  # of one


def test_ten_thousand_points_do_not_take_quadratic_work(monkeypatch):
    """Counts comparisons instead of seconds: at most some hundred for each point, where all pairs would be 10,000."""
    count = 0

    class Counted(float):
        def __lt__(self, other):
            nonlocal count
            count += 1
            return float.__lt__(self, other)

    rng = np.random.default_rng(0)
    costs, values = rng.random((2, 10_000))
    points = [
        (Interval(low=Counted(c), estimate=c, high=Counted(c + 0.01), n=3), exact(v))
        for c, v in zip(costs, values, strict=True)
    ]
    count = 0
    assert len(pareto(points)) == 10_000
    assert 10_000 < count < 10_000 * 200
