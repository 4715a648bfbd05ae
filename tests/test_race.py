"""A race spends its budget on the cells that may be the best, and excludes none that is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlbench.analysis import race as race_module
from tlbench.analysis.race import FIRST_SHARE, LOOKS, MOST_SEEDS, WRONG, Race, replayed, unaffordable

IMAGES = 300


def recorded(chance, means, spread, seeds=10, images=IMAGES, costs=None):
    """Cells with these accuracies: the same images are easy for all, and seeds differ by ``spread``."""
    hardness = chance.normal(size=images)
    made = {}
    for n, mean in enumerate(means):
        own = hardness + 0.5 * chance.normal(size=images)
        rows = []
        for _ in range(seeds):
            share = np.clip(mean + spread * chance.normal(), 0.01, 0.99)
            noisy = own + 0.4 * chance.normal(size=images)
            correct = (noisy <= np.quantile(noisy, share)).astype(float)
            rows.append(((costs or {}).get(str(n), 1.0), np.arange(images), correct))
        made[str(n)] = rows
    return made


def run(made, budget, costs=None, order=range(10)):
    race = Race(costs=costs or {name: rows[0][0] for name, rows in made.items()}, budget=budget)
    return replayed(race, made, list(order))


def truth(made):
    return {name: float(np.mean([correct.mean() for _, _, correct in rows])) for name, rows in made.items()}


def test_regret_and_exclusions_over_many_races():
    """20 cells, a quarter of what 10 seeds of each would take."""
    regret, excluded = [], 0
    for number in range(20):
        chance = np.random.default_rng(number)
        made = recorded(chance, 0.9 - 0.1 * chance.random(20), spread=0.01)
        race = run(made, 0.25 * 20 * 10, order=chance.permutation(10))
        known = truth(made)
        best = max(known, key=known.get)
        regret.append(known[best] - known[race.pick()])
        excluded += race.out.get(best) == "excluded"
    assert np.mean(np.array(regret) <= 0.01) >= 0.9
    assert excluded <= 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("spread", [0.003, 0.01, 0.02])
@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_the_best_is_seldom_excluded(spread, gap):
    excluded = 0
    for number in range(40):
        chance = np.random.default_rng(number)
        made = recorded(chance, 0.9 - gap * chance.random(12), spread=spread)
        known = truth(made)
        race = run(made, 12 * 6, order=chance.permutation(10))
        excluded += race.out.get(max(known, key=known.get)) == "excluded"
    assert excluded <= 5  # 2 are allowed by the level, as many more by chance


@pytest.mark.parametrize("budget", [30, 60, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_looked_at_once_a_rung(seed, budget, monkeypatch):
    """A look in the middle of a rung, after an exclusion or a first look at a cell, is none that was reckoned with."""
    looks = []
    made = recorded(np.random.default_rng(seed), np.linspace(0.9, 0.6, 16), 0.01)
    race = Race(costs={name: rows[0][0] for name, rows in made.items()}, budget=budget)
    before = race_module.against_the_best

    def looked(scores, level, *more):
        inside = [seeds for name, seeds in race.scores.items() if name not in race.out]
        looks.append((min(map(len, inside)), level))
        return before(scores, level, *more)

    monkeypatch.setattr(race_module, "against_the_best", looked)
    replayed(race, made, list(range(10)))
    if budget == 10_000:
        assert race.out
        assert looks
    assert {level for _, level in looks} <= {1 - WRONG / LOOKS}
    rungs = [rung for rung, _ in looks]
    assert rungs == sorted(set(rungs)), "no rung is looked at twice"
    assert min(rungs, default=2) > 1
    assert len(looks) <= LOOKS


def test_further_seeds_go_to_what_may_be_the_best():
    """A seed more of all that were in left too few for those that one was picked from."""
    made = recorded(np.random.default_rng(1), [0.9, 0.895, 0.89, *np.linspace(0.86, 0.84, 17)], 0.005)
    race = run(made, budget=50)
    seeds = {name: len(race.scores[name]) for name in made}
    assert min(seeds[name] for name in "012") >= 4
    assert np.mean([seeds[str(n)] for n in range(3, 20)]) < 2


def test_what_is_far_behind_is_measured_once():
    made = recorded(np.random.default_rng(0), [0.9, 0.89, 0.3], spread=0.01)
    race = run(made, 20)
    assert race.out == {"2": "excluded"}
    assert len(race.scores["2"]) == 1
    assert min(len(race.scores["0"]), len(race.scores["1"])) > 5


@given(
    st.lists(st.tuples(st.floats(0.2, 0.95), st.floats(0.5, 20)), min_size=1, max_size=8),
    st.floats(1, 200),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_budget_holds_and_nothing_is_measured_twice(cells, budget, seed):
    chance = np.random.default_rng(seed)
    costs = {str(n): cost for n, (_, cost) in enumerate(cells)}
    made = recorded(chance, [mean for mean, _ in cells], 0.01, images=60, costs=costs)
    race = Race(costs=costs, budget=budget)
    asked = []
    while (wanted := race.next()) is not None:
        asked.append(wanted)
        seconds, images, correct = made[wanted[0]][wanted[1]]
        race.take(*wanted, seconds, images, correct)
    assert len(set(asked)) == len(asked)
    assert race.spent <= budget + 1e-6
    assert all(seed < MOST_SEEDS for _, seed in asked)
    assert {one.name for one in race.runners()} == set(costs)
    assert set(unaffordable(race)).isdisjoint(race.scores)


def test_the_first_rung_leaves_half_of_the_budget():
    made = recorded(np.random.default_rng(0), [0.8] * 20, 0.01)
    race = Race(costs=dict.fromkeys(made, 1.0), budget=20.0)
    names = []
    while (wanted := race.next()) is not None:
        names.append(wanted)
        race.take(*wanted, *made[wanted[0]][wanted[1]])
    assert sum(seed == 0 for _, seed in names) == FIRST_SHARE * 20
    assert len(unaffordable(race)) == 10


def test_a_cell_that_fails_is_out_and_costs_what_it_took():
    race = Race(costs={"a": 1.0, "b": 1.0}, budget=10)
    race.take("a", 0, 1.5, None, None)
    assert race.out == {"a": "failed"}
    assert race.spent == 1.5
    assert race.next() == ("b", 0)


def test_predictions_are_corrected_by_what_others_took():
    race = Race(costs={"a": 1.0, "b": 2.0, "c": 3.0}, budget=100)
    for name, took in (("a", 3.0), ("b", 6.0)):
        race.take(name, 0, took, np.arange(4), np.ones(4))
    assert race.expected("c") == pytest.approx(9.0)
    assert race.expected("a") == 3.0


def test_one_cell_needs_no_race():
    race = Race(costs={"a": 1.0}, budget=100)
    assert race.next() == ("a", 0)
    race.take("a", 0, 1.0, np.arange(4), np.ones(4))
    assert race.next() is None
    assert race.pick() == "a"


def test_the_luckiest_of_many_that_were_seen_once_is_no_pick():
    race = Race(costs=dict.fromkeys("abc", 1.0), budget=10)
    for name, seeds in (("a", 3), ("b", 3), ("c", 1)):
        for seed in range(seeds):
            correct = np.ones(100)
            correct[: {"a": 10, "b": 12, "c": 9}[name]] = 0
            race.take(name, seed, 1.0, np.arange(100), correct)
    assert race.pick() == "a"


def test_of_nothing_nothing_is_picked():
    race = Race(costs={"a": 5.0}, budget=1.0)
    assert race.next() is None
    assert race.pick() is None
    assert unaffordable(race) == ["a"]


@pytest.mark.parametrize(("share", "picked"), [(0.85, "dear"), (0.76, "cheap")])
def test_one_of_fewer_seeds_is_picked_where_it_is_ahead_by_more_than_their_luck(share, picked):
    """Seeds of a cheap cell are soon there: a better one, which costs more, was no pick for having fewer."""
    race = Race(costs={"cheap": 1.0, "dear": 50.0}, budget=1000.0)
    images = np.arange(300)
    for seed in range(6):
        race.take("cheap", seed, 1.0, images, (images < 225).astype(float))
    race.take("dear", 0, 50.0, images, (images < 300 * share).astype(float))
    assert race.pick() == picked


def test_three_seeds_are_enough_to_be_picked():
    """Nine of a cheap cell took it from one that was as good in three."""
    race = Race(costs={"cheap": 1.0, "dear": 50.0}, budget=1000.0)
    images = np.arange(300)
    for name, seeds, right in (("cheap", 9, 225), ("dear", 3, 228)):
        for seed in range(seeds):
            race.take(name, seed, 1.0, images, (images < right).astype(float))
    assert race.pick() == "dear"
