"""Validation and test images that are not alike: said where accuracies lie further apart than chance carries them."""

from dataclasses import replace

import numpy as np
import pytest
from images import results
from records import record
from simulations import splits as simulation

from tlbench.analysis import splits
from tlbench.analysis.frame import rows
from tlbench.analysis.splits import unlike_splits
from tlbench.analysis.stats import Scores, splits_differ
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.records.images import PerImage
from tlbench.report.headline import headline


def measured(val, test, freeze="full", seeds=3, sizes=(400, 2000), kept=True, **given):
    """A configuration whose seeds have these accuracies, on the same images."""
    made = []
    for seed in range(seeds):
        right = {name: np.roll(np.arange(n) < round(share * n), seed) for name, share, n in (
            ("val", val, sizes[0]), ("test", test, sizes[1])
        )}  # fmt: skip
        one = record(accuracies=(0, 0, float(right["val"].mean())), freeze=freeze, seed=seed, **given)
        one = replace(
            one,
            accuracy_test=float(right["test"].mean()),
            samples={"train": 100, "val": sizes[0], "test": sizes[1]},
            per_image=PerImage({name: results(each, name) for name, each in right.items()}) if kept else None,
        )
        made.append(one)
    return made


def said(*records):
    (scope,) = verdicts(summarise(rows(records)))
    return headline(scope)


@pytest.mark.parametrize("kept", [True, False], ids=["single images", "counts alone"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_split_that_leaks_is_said_in_one_sentence(kept, seeds):
    text = said(*measured(0.97, 0.74, kept=kept, seeds=seeds))
    (sentence,) = [part for part in text.split(". ") if "not alike" in part]
    assert sentence.startswith(
        "Validation and test images are not alike: resnet18 · full · linear gets 97.0 % of the first and 74.0 % of the "
        "second right (23.0 points apart where chance allows "
    )
    for cause in ("near-copies", "groups", "another time or place"):
        assert cause in sentence


def test_splits_that_are_alike_are_not_accused():
    assert "not alike" not in said(*measured(0.90, 0.885))
    assert "not alike" not in said(*measured(0.95, 0.80, sizes=(20, 2000), seeds=1))


def test_the_picked_cell_is_named_and_the_others_are_counted():
    text = said(
        *measured(0.97, 0.74), *measured(0.90, 0.60, freeze="norm"), *measured(0.91, 0.61, freeze="linear_probe")
    )
    assert "not alike: resnet18 · full · linear gets 97.0 %" in text
    assert ", and so do 2 more of 3 cells;" in text
    assert ", and so does one more;" in said(*measured(0.97, 0.74), *measured(0.90, 0.60, freeze="norm"))


def test_copies_that_were_found_are_named():
    text = said(*measured(0.97, 0.74, leaked_images={"val": 31, "test": 0}))
    assert "31 validation images that are copies of training images" in text


def test_a_test_split_that_is_easier_is_said_as_well():
    text = said(*measured(0.74, 0.97))
    assert "gets 74.0 % of the first and 97.0 % of the second right" in text
    assert "easier" in text
    assert "near-copies" not in text


def test_more_cells_and_what_validation_images_chose_ask_for_more():
    alone, *_ = unlike_splits(summarise(rows(measured(0.97, 0.74))))
    many = unlike_splits(
        summarise(rows([*measured(0.97, 0.74), *measured(0.75, 0.74, "norm"), *measured(0.75, 0.74, "bias")]))
    )
    tried = unlike_splits(summarise(rows(measured(0.97, 0.74, lr_trials=tuple({} for _ in range(7))))))
    chosen = unlike_splits(summarise(rows(measured(0.97, 0.74, head="logreg"))))
    assert alone.reach < many[0].reach < tried[0].reach < chosen[0].reach


def test_less_than_a_point_is_not_spoken_of():
    huge = measured(0.950, 0.942, sizes=(100_000, 100_000), seeds=1)
    assert unlike_splits(summarise(rows(huge))) == ()
    assert splits.LEAST == 0.01


def test_seeds_that_answer_the_same_images_are_no_more_images():
    rng = np.random.default_rng(0)
    val, test = rng.random(200) < 0.9, rng.random(300) < 0.9
    codes = np.arange(200), np.arange(200, 500)

    def gap(seeds):
        return splits_differ(
            Scores(images=(codes[0],) * seeds, correct=(val.astype(float),) * seeds),
            Scores(images=(codes[1],) * seeds, correct=(test.astype(float),) * seeds),
        )

    assert gap(5).error == pytest.approx(gap(1).error)
    assert gap(5).gap == pytest.approx(gap(1).gap)


def test_where_nothing_was_counted_nothing_is_said():
    made = [replace(one, samples={}, per_image=None) for one in measured(0.97, 0.74)]
    assert unlike_splits(summarise(rows(made))) == ()


# --- how often that is so -------------------------------------------------------------------------------------


@pytest.mark.parametrize("redrawn", [False, True], ids=["fixed", "redrawn"])
@pytest.mark.parametrize(("cells", "seeds", "accuracy"), [(1, 1, 0.9), (8, 3, 0.9), (8, 3, 0.98)])
def test_it_is_seldom_said_of_splits_that_are_alike(redrawn, cells, seeds, accuracy):
    world = simulation.World(val=150, test=400, seeds=seeds, cells=cells, accuracy=accuracy, redrawn=redrawn)
    assert simulation.said(world, 200) <= 0.08  # 5 %, and what 200 runs leave


def test_it_is_said_of_those_that_are_not():
    world = simulation.World(val=400, test=2485, seeds=3, cells=8, accuracy=0.75, gap=0.2)
    assert simulation.said(world, 20) == 1.0
