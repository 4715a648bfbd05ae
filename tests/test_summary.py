"""What the terminal shows."""

import io
import re

import pytest
from records import example_run, failure, record
from rich.console import Console

from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.records.run_folder import Store
from tlbench.report.terminal import print_summary


def shown(records, width=80, path=None):
    file = io.StringIO()
    print_summary(Console(file=file, width=width, highlight=False), records, path)
    return file.getvalue()


@pytest.mark.exhaustive
@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_but_a_command_or_path_is_wider_than_the_terminal(width):
    records = [
        *example_run(devices=("cpu", "cuda"), batch_sizes=(8, 32)),
        failure("failed", "a long reason " * 20, epochs=9),
    ]
    for line in shown(records, width).splitlines():
        assert len(line) <= width or line.strip().startswith("tlbench run"), line


def test_rows_first_and_the_verdict_last_where_a_terminal_stops():
    text = shown(example_run(), path="results/x/report.html")
    places = [text.index(part) for part in (
        "test %", "p50 ms", "It cannot be said yet which of ", "Most accurate: ",
        "Cheapest shown to be within one point of it: ", "Fastest at inference: ", "Noise of the times: ",
        "Report: results/x/report.html",
    )]  # fmt: skip
    assert places == sorted(places)


def test_rows_carry_intervals_where_there_are_seeds():
    text = shown([record(accuracies=(0, 0, a), seed=n) for n, a in enumerate((0.80, 0.84, 0.88))], width=120)
    assert re.search(
        r"resnet18 +linear_probe +linear +84\.0 ±9\.9 +84\.0 ±9\.9 +1\.10 +3\.30 +90\.9 +5\.13 k +500 MB", text
    )


def test_an_interval_that_is_cut_at_all_images_is_not_written_as_if_it_went_beyond():
    made = [record(accuracies=(0, 0, a), seed=n) for n, a in enumerate((1.0, 0.98, 0.9))]
    text = shown(
        [*made, *(record(accuracies=(0, 0, a), seed=n, freeze="norm") for n, a in enumerate((0.5, 0.52, 0.51)))],
        width=120,
    )
    plus, minus = map(float, re.search(r"linear +96\.0 \+(\S+)/-(\S+) ", text).groups())
    assert 96.0 + plus <= 100
    assert minus > plus
    assert "±, +/-: " in text
    assert not any(float(a) + float(b) > 100 or float(a) < float(b) for a, b in re.findall(r"(\S+) ±(\S+)", text))


@pytest.mark.parametrize("width", [80, 90, 100, 120, 200])
def test_names_are_never_broken_to_make_room_for_lesser_figures(width):
    text = shown(example_run(), width)
    assert re.search(r"^mobilenet_v3_small +linear_probe +linear +86\.1 ±1\.4", text, re.MULTILINE)
    assert "trainable" in text or width < 90


def test_random_weights_are_marked():
    text = shown(example_run())
    assert re.search(r"^resnet18 \* ", text, re.MULTILINE)
    assert "* random weights" in text
    assert re.search(r"^efficientnet_lite0 +full", text, re.MULTILINE)


def test_failures_and_skips_show_with_their_reasons():
    text = " ".join(shown(example_run()).split())
    assert "skipped: resnet18 (random weights) · lp_ft · mlp: no pretrained weights; put them into place" in text
    assert (
        "failed: mobilenet_v3_small · lora · mlp: seed 0: batch size 32: out of memory; seed 1, 2: RuntimeError: x"
        in text
    )


def test_a_flagged_row_says_so():
    text = shown(example_run())
    assert re.search(r"^resnet18 \*! +full +linear", text, re.MULTILINE)
    assert "! times flagged as noisy" in text


def test_markup_in_a_name_is_text():
    text = shown(
        [
            record(dataset="folder:[red]x", head="linear"),
            failure("failed", "[bold]y[/bold]", freeze="norm", epochs=3),
        ]
    )
    assert "[red]x" in text
    assert "[bold]y[/bold]" in text


@pytest.mark.parametrize("records", [[failure("failed", "x", epochs=3)], [record(task="infer")], [record(role="aa")]])
def test_poor_runs_can_be_shown(records):
    assert "Report: r.html" in shown(records, path="r.html")


def test_the_command(tmp_path, command):
    store = Store(tmp_path / "run")
    for made in example_run():
        store.append(made)
    status, out, _ = command("summary", store.folder)
    assert status == 0
    assert "Most accurate: efficientnet_lite0 · full · linear" in out
    status, _, err = command("summary", tmp_path / "none")
    assert status == 2
    assert "cannot read run" in err


FILL = {"seconds": 2.0, "images": 500, "views": 0, "training_seconds": 0.4, "where": "memory"}


@pytest.mark.parametrize(
    ("prefixes", "interval"),
    [
        ([{}, {}, {}], True),  # nothing was shared
        ([{**FILL, "fills": [name]} for name in "aaa"], False),
        ([{**FILL, "fills": [name]} for name in "aab"], False),
        ([{**FILL, "fills": [name]} for name in "abc"], True),
        ([FILL, FILL, FILL], False),  # an older version, which did not tell
    ],
)
@pytest.mark.parametrize("unit", ["seed", "block"])
def test_one_measurement_has_no_interval_however_often_it_stands_there(unit, prefixes, interval):
    records = [
        record(seconds=(1.0 + n / 10, 1.0), accuracies=(0.5, 0.5), prefix=prefix, **{unit: n})
        for n, prefix in enumerate(prefixes)
    ]
    (row,) = summarise(rows(records))
    assert (row["training_seconds_low"] is not None) == interval
    assert row["own_seconds_low"] is not None
    shared = 0.4 if prefixes[0] else 0.0
    assert row["training_seconds"] == pytest.approx(row["own_seconds"] + shared, rel=1e-3)
