"""Accuracy against labelled images: the sizes, the curves, where two cross, the figure, and what a verdict weighs."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import identities
from matplotlib.backends.backend_agg import FigureCanvasAgg
from records import record
from simulations import crossing as simulation

from tlbench.analysis.commands import command
from tlbench.analysis.frame import frame, rows
from tlbench.analysis.label_efficiency import (
    crossings,
    curves,
    of_size,
    of_the_most_images,
    train_size,
    without_smaller,
)
from tlbench.analysis.recommend import Limits, recommend
from tlbench.analysis.stats import Scores, crossing
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.campaign.check import about_sizes
from tlbench.campaign.seen import Seen
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.records.images import PerImage, SplitResults
from tlbench.report import size_words
from tlbench.report.contents import ordered
from tlbench.report.headline import sentences
from tlbench.report.plots import PLOTS
from tlbench.report.plots.labelled import words
from tlbench.report.plots.look import as_svg
from tlbench.report.terminal.recommendation import told

IMAGES = 2000
SIZES = (50, 100, 200, None)
ALL = 400
STEEP = {"full": (0.60, 0.72, 0.84, 0.92), "linear_probe": (0.76, 0.78, 0.80, 0.82), "norm": (0.50, 0.60, 0.70, 0.78)}
"""Accuracies at each size: full overtakes linear_probe between 100 and 200, norm no one."""


def point(policy, accuracy, size, seed, all_images=ALL, **given):
    """A record with test and validation results on images of which the easiest are right, with luck by seed."""
    rng = np.random.default_rng([seed, size or 0, len(policy), given.get("backbone", "") == "resnet50"])
    splits = {}
    for split in ("val", "test"):
        right = np.arange(IMAGES) / IMAGES + 0.08 * rng.standard_normal(IMAGES) < accuracy
        labels = (np.arange(IMAGES) % 2).astype(np.uint8)
        splits[split] = SplitResults(
            images=identities(split, IMAGES), labels=labels, predictions=np.where(right, labels, 1 - labels)
        )
    count = all_images if size is None else min(size, all_images)
    made = record(
        freeze=policy, train_size=size, seed=seed, samples={"train": count, "val": IMAGES, "test": IMAGES}, **given
    )
    accuracies = {f"accuracy_{split}": float(found.correct.mean()) for split, found in splits.items()}
    return replace(made, per_image=PerImage(splits), **accuracies)


def run(policies=("full", "linear_probe"), sizes=SIZES, seeds=range(3), **given):
    return [
        point(policy, accuracy, size, seed, **given)
        for policy in policies
        for size, accuracy in zip(SIZES, STEEP[policy], strict=True)
        if size in sizes
        for seed in seeds
    ]


def summary(*args, **given):
    return summarise(rows(run(*args, **given)))


# --- `all` as a size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [("all", (None,)), ("50,100,all", (50, 100, None)), ("ALL", (None,)), ([50, "all"], (50, None)), (50, (50,))],
)
def test_all_is_a_train_size(text, values):
    assert parse_axis("train_size", text) == values


def test_names_and_commands_tell_all_from_the_others():
    grid = Grid(axes={"train_size": (50, None)})
    assert [grid.id_of(cell).rpartition("-")[2] for cell in grid.expand()] == ["n50", "nall"]
    assert Grid().id_of(Cell()) == Cell().id
    both = shlex.split(command([record(train_size=size) for size in (50, None)]))
    assert both[both.index("--train-size") + 1] == "50,all"
    assert "--train-size" not in command([record()])


SEEN = Seen(
    name="x", classes=2, images=300, parts={"train": (203, 207), "val": (40, 40), "test": (40, 40)}, smallest="a",
    fewest=(100, 104), dropped=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "lines"),
    [
        ((None,), []),
        ((50, 200, None), []),
        ((207, None), ["x: --train-size 207 takes all 207 images there are to train on, as all does"]),
        ((207,), []),
        ((50, 300), ["x: --train-size 300 takes all 207 images there are to train on"]),
    ],
)
def test_what_is_beyond_is_said_before_the_run(sizes, lines):
    assert about_sizes(SEEN, sizes) == lines


# --- curves ---------------------------------------------------------------------------------------------------


def test_a_curve_is_what_differs_in_size_alone():
    found = curves(summary())
    assert [(curve.last["freeze"], curve.images) for curve in found] == [
        ("full", (50, 100, 200, 400)), ("linear_probe", (50, 100, 200, 400)),
    ]  # fmt: skip
    assert [train_size(row) for row in found[0].rows] == [50, 100, 200, None]
    assert curves(summary(sizes=(50,))) == []


def test_sizes_with_the_same_images_count_once():
    same = [*run(("full",), sizes=(50, None)), *(point("full", 0.92, 1000, seed) for seed in range(3))]
    (curve,) = curves(summarise(rows(same)))
    assert [train_size(row) for row in curve.rows] == [50, None]
    near = [*run(("full",), sizes=(50, 200, None), all_images=207)]
    assert curves(summarise(rows(near)))[0].images == (50, 200, 207)


def test_of_several_heads_the_best_by_validation_is_drawn_and_nothing_is_chosen_by_test():
    tempting = [replace(r, accuracy_test=1.0, per_image=None) for r in run(("norm",), head="mlp")]
    tempting = [replace(r, cell=replace(r.cell, freeze="full")) for r in tempting]
    (curve,) = curves(summarise(rows([*run(("full",)), *tempting])))
    assert (curve.last["head"], curve.others) == ("linear", 1)


# --- crossings ------------------------------------------------------------------------------------------------


def test_where_one_policy_overtakes_another():
    (pair,) = crossings(curves(summary()))
    assert (pair.first["freeze"], pair.second["freeze"]) == ("full", "linear_probe")
    assert pair.found.outcome == "crosses"
    assert 100 < pair.found.low < pair.found.size < pair.found.high < 200
    text = size_words.crossing(pair)
    assert text.startswith("full overtakes linear_probe at about 1")
    assert "training images (1" in text


def test_the_order_of_policies_does_not_matter():
    one, other = (crossings(curves(summary(policies)))[0] for policies in (("full", "norm"), ("norm", "full")))
    assert one.found.outcome == other.found.outcome == "one leads"
    assert one.first["freeze"] == other.first["freeze"] == "full"
    assert "full is ahead of norm at all 4 sizes, 50 to 400 training images" in size_words.crossing(one)


def test_one_seed_cannot_say():
    (pair,) = crossings(curves(summary(seeds=(0,))))
    assert pair.found.outcome == "cannot say"
    assert size_words.crossing(pair).endswith("cannot be said: one seed tells no spread")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((100, 200), "overtakes"),
        ((200, None), "is ahead of linear_probe at all 2 sizes"),
    ],
)
def test_what_is_said_is_of_the_sizes_that_both_have(sizes, words):
    (pair,) = crossings(curves(summary(sizes=sizes)))
    assert words in size_words.crossing(pair)


def test_where_they_may_be_level_it_says_how_far():
    level = [point("norm", a, size, seed) for size, a in zip(SIZES, STEEP["full"], strict=True) for seed in range(3)]
    (pair,) = crossings(curves(summarise(rows([*run(("full",)), *level]))))
    assert pair.found.outcome == "cannot say"
    assert "may be level" in size_words.crossing(pair)


def test_without_results_on_single_images_their_number_has_to_do():
    plain = [replace(r, per_image=None) for r in run()]
    (pair,) = crossings(curves(summarise(rows(plain))))
    (known,) = crossings(curves(summary()))
    assert pair.found.outcome == known.found.outcome == "crosses"
    assert pair.found.high - pair.found.low > known.found.high - known.found.low
    unknown = [replace(r, samples={"train": r.samples["train"]}) for r in plain]
    (pair,) = crossings(curves(summarise(rows(unknown))))
    assert pair.found.outcome == "cannot say"


def test_backbones_are_not_held_against_each_other():
    found = crossings(curves(summarise(rows([*run(("full",)), *run(("linear_probe",), backbone="resnet50")]))))
    assert found == []


def scores(*accuracies, seeds=3, images=400):
    return [
        Scores(
            images=(np.arange(images),) * seeds,
            correct=tuple((np.arange(images) < round(a * images)).astype(float) for _ in range(seeds)),
        )
        for a in accuracies
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda n: st.tuples(*(st.lists(st.floats(0, 1), min_size=n, max_size=n) for _ in range(2)))
    )
)
def test_whatever_the_curves_the_interval_holds_the_estimate(drawn):
    sizes = [50.0 * 2**n for n in range(len(drawn[0]))]
    found = crossing(sizes, *(scores(*curve, images=100) for curve in drawn), draws=400)
    if found.outcome == "crosses":
        assert sizes[0] <= found.low <= found.size <= found.high <= sizes[-1]
        assert found.at_first == -found.at_last != 0
        assert 0 <= found.accuracy <= 1
    else:
        assert found.size is found.low is found.high is None


@pytest.mark.parametrize("sizes", [(50,), (50, 50), (100, 50)])
def test_sizes_must_grow(sizes):
    with pytest.raises(ValueError, match="sizes that grow"):
        crossing(sizes, scores(*[0.5] * len(sizes)), scores(*[0.6] * len(sizes)))


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize(("name", "least"), [("cross, 6 points a doubling", 0.9), ("the same everywhere", None)])
def test_what_is_said_of_crossings_is_true_as_often_as_it_says(name, least, seeds):
    truth = simulation.TRUTHS[name]
    found = simulation.shares(truth, simulation.said(truth, 1000, seeds, 1.0, 40))
    assert found["false"] <= 0.10
    if least is not None:
        assert found["may be level at the place"] >= least


# --- what a verdict weighs ------------------------------------------------------------------------------------


def test_the_pick_is_among_the_largest_size_and_says_so():
    lucky = [replace(r, accuracy_val=0.99, per_image=None) for r in run(("linear_probe",), sizes=(50,))]
    others = [r for r in run() if not (r.cell.train_size == 50 and r.cell.freeze == "linear_probe")]
    (scope,) = verdicts(summarise(rows([*others, *lucky])))
    assert train_size(scope.picks[0].row) is None
    assert scope.picks[0].row["freeze"] == "full"
    assert {train_size(row) for row in scope.smaller} == {50, 100, 200}
    said = " ".join(sentences(scope))
    assert "Chosen among the cells with the most training images (400): those with fewer (50, 100, 200) are no" in said
    assert "By test accuracy, full overtakes linear_probe at about 1" in said


def test_with_one_size_nothing_of_sizes_is_said():
    (scope,) = verdicts(summary(sizes=(50,)))
    assert (scope.smaller, scope.crossings) == ((), ())
    assert "training images" not in " ".join(sentences(scope)[1:])


def test_where_nothing_crosses_it_says_why():
    (scope,) = verdicts(summary(seeds=(0,)))
    assert "no policy is known to overtake another in test accuracy: one seed cannot tell" in size_words.overtaking(
        scope
    )
    (scope,) = verdicts(summary(("full", "norm")))
    assert size_words.overtaking(scope).endswith("overtake another in test accuracy.")


def test_more_than_there_is_stands_with_all():
    beyond = [point(name, a, 1000, seed) for name, a in (("norm", 0.8), ("full", 0.92)) for seed in range(3)]
    made = summarise(rows([*run(("full",)), *beyond]))
    chosen, smaller = of_the_most_images(made)
    assert {(row["freeze"], train_size(row)) for row in chosen} == {("full", None), ("norm", 1000)}
    assert len(smaller) == 3
    assert without_smaller(made) == chosen


def test_recommend_picks_at_one_size():
    made = summary()
    found = recommend(made, Limits())
    assert (train_size(found.pick), found.pick["freeze"]) == (None, "full")
    aside = next(one for one in found.excluded if train_size(one.row) == 50)
    assert told(aside.row, aside.reasons[0]).startswith(
        "trained on 50 images: accuracies are weighed at one train size"
    )
    small = recommend(made, Limits(train_size="50"))
    assert (train_size(small.pick), small.pick["freeze"]) == (50, "linear_probe")
    assert recommend(made, Limits(train_size="all")).pick is found.pick


@pytest.mark.parametrize(("size", "text"), [("77", "there are: 50, 100, 200, all"), ("x", "neither all nor a number")])
def test_a_size_that_is_not_there_is_named(size, text):
    with pytest.raises(UserError, match=text):
        of_size(summary(), size)


# --- the figure -----------------------------------------------------------------------------------------------


def drawn(made):
    return PLOTS["label_efficiency"].draw(made)


def test_the_figure_has_a_panel_a_backbone_lines_bands_and_crossings():
    made = ordered(rows([*run(), *run(backbone="resnet50")]))
    figure = drawn(made)
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert list(ax.get_xticks()) == [50, 100, 200, 400]
        assert ax.get_xlabel() == "labelled training images"
        assert sum("Poly" in type(one).__name__ for one in ax.collections) == 2
    text = as_svg(figure, "label_efficiency")
    assert "two policies cross" in text
    plain = rows([replace(r, per_image=None) for r in run()])  # a frame knows those on the disk alone
    assert as_svg(drawn(frame(plain)), "x") == as_svg(drawn(summarise(plain)), "x")
    told_of = words(made)
    assert len(told_of) == 2
    assert all("full overtakes linear_probe at about" in one for one in told_of)
    assert {one.split()[1].rstrip(",") for one in told_of} == {"resnet18", "resnet50"}


def test_near_sizes_have_one_tick():
    figure = drawn(summary(sizes=(50, 200, None), all_images=207))
    FigureCanvasAgg(figure).draw()
    (ax,) = figure.axes
    assert list(ax.get_xticks()) == [50, 207]


def test_one_seed_has_no_band_and_no_crossing():
    figure = drawn(summary(seeds=(0,)))
    assert "two policies cross" not in as_svg(figure, "x")


def test_one_size_has_no_figure():
    with pytest.raises(NotApplicable, match="--train-size 50,100,200,all"):
        drawn(summary(sizes=(50,)))
