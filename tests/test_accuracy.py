"""Intervals of accuracies over images and seeds, and comparisons with the best; small runs of their simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulations import accuracy as simulation
from simulations import learning

from tlbench.analysis.stats import (
    Scores,
    accuracy,
    accuracy_interval,
    against_the_best,
    counted,
    surely_above,
    wilson,
)


def scores(*seeds, first=0):
    correct = [np.asarray(one, dtype=float) for one in seeds]
    return Scores(images=tuple(first + np.arange(c.size) for c in correct), correct=tuple(correct))


def easiest(right, images):
    return np.arange(images) < right


def test_the_table_of_cells_and_images_need_not_be_whole(monkeypatch):
    draw = np.random.default_rng(0)

    def cell():
        images = tuple(draw.permutation(60)[:40] for _ in range(3))
        return Scores(images=images, correct=tuple(draw.integers(0, 2, 40).astype(float) for _ in range(3)))

    cells = [cell() for _ in range(5)]
    cells.append(scores(easiest(9, 10), easiest(8, 10), first=1000))  # shares no image with the others
    whole = accuracy.parts_of(cells)
    monkeypatch.setattr(accuracy, "TABLE", 6 * 7)
    pieces = accuracy.parts_of(cells)
    assert pieces.images == pytest.approx(whole.images, rel=1e-12, abs=1e-15)
    assert pieces.lasting == pytest.approx(whole.lasting, rel=1e-12, abs=1e-15)


def test_one_seed_has_no_interval():
    assert accuracy_interval(scores(easiest(9, 10))).low is None


def test_it_holds_what_the_images_alone_leave():
    """Seeds that agree image by image say nothing new of images: the interval is no narrower than Wilson's."""
    found, alone = accuracy_interval(scores(*[easiest(90, 100)] * 5)), wilson(90, 100)
    assert found.estimate == pytest.approx(0.9)
    assert found.low < alone.low + 0.003
    assert found.high > alone.high - 0.003


def test_more_seeds_narrow_it_down_to_what_the_images_leave():
    widths = []
    for seeds in (2, 3, 5, 10, 40):
        found = accuracy_interval(scores(*[easiest(900, 1000)] * seeds))
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    alone = wilson(900, 1000)
    assert widths[-1] == pytest.approx(alone.high - alone.low, rel=0.05)


def test_seeds_that_differ_widen_it():
    alike = accuracy_interval(scores(*[easiest(900, 1000)] * 3))
    apart = accuracy_interval(scores(easiest(850, 1000), easiest(900, 1000), easiest(950, 1000)))
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)


def test_images_that_are_twice_in_a_split_count_once():
    once = scores(*[easiest(45, 50)] * 3)
    twice = Scores(
        images=tuple(np.concatenate([i, i]) for i in once.images),
        correct=tuple(np.concatenate([c, c]) for c in once.correct),
    )
    a, b = accuracy_interval(once), accuracy_interval(twice)
    assert (b.low, b.high) == (pytest.approx(a.low, abs=0.005), pytest.approx(a.high, abs=0.005))


@given(
    st.integers(2, 4).flatmap(
        lambda seeds: st.integers(1, 40).flatmap(
            lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=seeds, max_size=seeds)
        )
    )
)
def test_it_stays_within_nothing_and_all(drawn):
    found = accuracy_interval(scores(*drawn))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high - found.low > 0.01


def test_a_clear_gap_is_decided_and_a_single_image_is_not():
    clear = against_the_best({"a": scores(*[easiest(950, 1000)] * 3), "b": scores(*[easiest(800, 1000)] * 3)})
    assert [(one.name, one.standing) for one in clear] == [("a", "best"), ("b", "behind")]
    close = against_the_best({"a": scores(*[easiest(96, 100)] * 3), "b": scores(*[easiest(95, 100)] * 3)})
    assert close[1].standing == "tied"
    assert close[1].within(0.01) is None


def test_pairing_by_image_tells_more_than_counts():
    """On the same images, wrong only where the leader is as well, a cell is told from it sooner than on others."""
    leader, other = [easiest(1900, 2000)] * 10, [easiest(1860, 2000)] * 10
    paired = against_the_best({"a": scores(*leader), "b": scores(*other)})
    apart = against_the_best({"a": scores(*leader), "b": scores(*other, first=5000)})
    assert paired[1].standing == "behind"
    assert apart[1].at_most > paired[1].at_most


def test_within_a_point_needs_the_whole_interval():
    near = against_the_best({"a": scores(*[easiest(9500, 10000)] * 10), "b": scores(*[easiest(9490, 10000)] * 10)})
    assert near[1].within(0.01) is True
    far = against_the_best({"a": scores(*[easiest(9500, 10000)] * 10), "b": scores(*[easiest(9000, 10000)] * 10)})
    assert far[1].within(0.01) is False


def test_one_seed_cannot_say():
    found = against_the_best({"a": scores(*[easiest(95, 100)] * 3), "b": scores(easiest(50, 100))})
    assert found[1].standing == "cannot say"
    assert found[1].within(0.01) is None
    assert {one.standing for one in against_the_best({"a": scores([1, 1]), "b": scores([0, 1], [0, 1])})} == {
        "cannot say"
    }


def test_more_seeds_help_only_where_the_images_suffice():
    """30 of 100 images speak for one, 30 for the other: no number of seeds changes that."""
    few = {"a": scores(*[easiest(91, 100)] * 3), "b": scores(*[np.roll(easiest(90, 100), 30)] * 3)}
    assert not against_the_best(few)[1].seeds_help
    rng = np.random.default_rng(0)
    many = {
        "a": scores(*(rng.random(4000) < 0.92 for _ in range(3))),
        "b": scores(*(rng.random(4000) < 0.90 for _ in range(3))),
    }
    assert against_the_best(many)[1].seeds_help


def test_counts_keep_the_accuracies_and_pair_with_nothing():
    known = counted([0.953, 0.95], 200, 7)
    assert known.accuracies == pytest.approx([0.953, 0.95])
    assert known.images[0].min() == 7


def test_very_many_cells_are_bounded_not_left_out():
    rng = np.random.default_rng(1)
    cells = {f"{n:03}": scores(*(rng.random(400) < 0.7 for _ in range(3))) for n in range(150)}
    cells["best"] = scores(*(rng.random(400) < 0.95 for _ in range(3)))
    found = against_the_best(cells)
    assert found[0].name == "best"
    assert all(one.standing == "behind" for one in found[1:])


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 40), st.floats(0, 1))
def test_what_is_surely_above_is_above(right, more, share):
    """Whatever the spread of the seeds and the number of images."""
    images = max(*right, 1) + more
    shares = [one / images for one in right]
    if surely_above(shares, images, share):
        low = accuracy_interval(counted(shares, images, 0)).low
        assert low is not None
        assert low > share


def test_most_that_have_learned_something_surely_have():
    assert surely_above([0.8, 0.82, 0.79], 200, 0.2)
    assert not surely_above([0.8, 0.82, 0.79], 200, 0.7)
    assert not surely_above([0.8], 200, 0.2), "one seed has no such interval"


def test_scores_need_images():
    with pytest.raises(ValueError, match="at least one"):
        Scores(images=(), correct=())
    with pytest.raises(ValueError, match="at least one"):
        Scores(images=(np.arange(2),), correct=(np.ones(3),))


# --- the simulation, small ------------------------------------------------------------------------------------


@pytest.mark.parametrize("redrawn", [False, True], ids=["fixed", "redrawn"])
def test_the_interval_covers_as_often_as_it_says(redrawn):
    trust = simulation
    world = trust.World(images=153, seeds=3, redrawn=redrawn, luck=1.0, truth=(0.9,) * 4)
    assert trust.covered(world, 60) >= 0.90  # 240 intervals, of 15 or fewer of which may miss


@pytest.mark.parametrize("redrawn", [False, True], ids=["fixed", "redrawn"])
def test_equal_cells_are_seldom_decided(redrawn):
    trust = simulation
    world = trust.World(images=153, seeds=3, redrawn=redrawn, luck=1.0, truth=(0.9, 0.9))
    said = trust.decisions(world, 80)
    assert said["false decided"] <= 0.10
    assert said["false behind"] <= 0.10


def test_a_cell_more_than_a_point_worse_is_seldom_called_within_one():
    trust = simulation
    world = trust.World(images=400, seeds=3, redrawn=False, luck=0.3, truth=(0.97, 0.9599))
    assert trust.decisions(world, 80)["false within"] <= 0.10


def test_a_gap_of_five_points_is_found():
    trust = simulation
    world = trust.World(images=2485, seeds=5, redrawn=False, luck=1.0, truth=(0.90, 0.85, 0.85))
    assert trust.decisions(world, 20)["decided"] >= 0.8


@pytest.mark.exhaustive
def test_the_whole_table_keeps_its_bars():
    trust = simulation
    for row in trust.table(120, images=(36, 153), seeds=(5,), cells=(2, 8)):
        assert row["coverage"] >= 0.92, row
        assert max(row[name] for name in ("false decided", "false behind", "false within")) <= 0.09, row


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_cell_that_knows_nothing_seldom_passes_and_one_that_learned_is_seldom_set_aside(seeds):
    assert learning.set_aside(153, seeds, majority=0.5, accuracy=0.5, trials=150) >= 0.92
    assert learning.set_aside(153, seeds, majority=0.5, accuracy=0.7, trials=150) <= 0.08
