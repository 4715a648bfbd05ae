"""Rounded figures: never wrong by more than the rounding, never zero for what is unknown."""

import re
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import RANDOM, record

from tlbench.analysis.figures import Kind
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.report import wording

FACTORS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@given(st.floats(1e-9, 1e15))
def test_three_significant_digits(value):
    shown = wording.number(value)
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.0051)
    assert len(shown.replace(",", "").replace(".", "").lstrip("0")) >= 3 or value >= 100


@given(st.integers(0, 10**15))
def test_short_counts(value):
    number, _, letter = wording.short(value).partition(" ")
    assert float(number.replace(",", "")) * FACTORS[letter] == pytest.approx(value, rel=0.0051)


@given(st.floats(0, 1e6))
def test_seconds(value):
    units = {"s": 1, "min": 60, "h": 3600}
    total = sum(
        float(n.replace(",", "")) * units[u] for n, u in re.findall(r"([\d.,]+) (s|min|h)\b", wording.seconds(value))
    )
    assert total == pytest.approx(value, rel=0.01, abs=1e-12)


@pytest.mark.parametrize("show", [*wording.IN_WORDS.values(), *wording.IN_TABLE.values()])
def test_the_unknown_is_a_dash(show):
    assert show(None) == "–"


@pytest.mark.parametrize("written", [wording.IN_WORDS, wording.IN_TABLE])
def test_every_kind_of_figure_is_written_somehow(written):
    assert set(written) == set(get_args(Kind))


@pytest.mark.parametrize(
    ("value", "shown"), [(0.999949, "100.0 %"), (0.95312, "95.3 %"), (0.0, "0.0 %"), (1.0, "100.0 %")]
)
def test_percent(value, shown):
    assert wording.percent(value) == shown


def test_an_interval_of_an_accuracy_ends_at_one():
    (row,) = summarise(rows([record(accuracies=(0, 0, a), seed=n) for n, a in enumerate((1.0, 0.99, 0.98))]))
    assert row["accuracy_val_high"] == 1
    assert wording.interval(row, "accuracy_val") == "99.0 % (96.5 to 100.0, seeds only)"


def labels(records):
    made = summarise(rows(records))
    return [wording.label(row, wording.varying(made)) for row in made]


def test_a_label_has_what_differs_and_no_more():
    assert labels([record(), record(freeze="full")]) == ["resnet18 · linear_probe · linear", "resnet18 · full · linear"]
    assert labels([record(), record(batch_size=8)]) == [
        "resnet18 · linear_probe · linear · batch 32", "resnet18 · linear_probe · linear · batch 8",
    ]  # fmt: skip
    assert labels([record(lr=0.01), record(task="infer")])[1] == "resnet18 · linear"
    assert labels([record(lr=0.01), record(lr=0.1)])[0] == "resnet18 · linear_probe · linear · lr=0.01"
    assert labels([record(), record(device="cuda")])[1] == "resnet18 · linear_probe · linear · cuda"


def test_labels_of_different_configurations_differ():
    other = {**record().environment, "stable": {**record().environment["stable"], "torch": "9"}}
    changes = (
        {}, {"initial": RANDOM}, {"weights": "random", "initial": RANDOM}, {"device": "cuda"}, {"environment": other},
        {"image_size": 64}, {"dataset": "folder:x"}, {"precision": "bf16"}, {"train_size": 50},
        {"seconds": (1.0,) * 9, "accuracies": (0.5,) * 9},
    )  # fmt: skip
    records = [record(**change) for change in changes]
    named = labels(records)
    # Weights that are random since no others were at hand are those that someone asked for.
    assert len(set(named)) == len(named) == len(records) - 1


def test_a_layout_is_named_only_where_one_backbone_came_in_two():
    """`--layout auto` takes for each backbone what is faster, so that the backbone tells the layout already."""

    def of(chosen, **given):
        made = record(started=chosen, **given)
        return replace(made, cell=replace(made.cell, layout=chosen), layout={"chosen": chosen})

    by_backbone = [of("contiguous"), of("channels_last", backbone="mobilenet_v3_small")]
    assert "memory_format" not in wording.varying(summarise(rows(by_backbone)))
    both = [of("contiguous"), of("channels_last")]
    assert "memory_format" in wording.varying(summarise(rows(both)))
