"""Figures: drawn from any run or with a reason why not; nothing overlaps or is cut off; one look for all."""

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from models import examples
from records import RANDOM, example_run, failure, record
from tiers import sweep

import tlbench
from tlbench.analysis.frame import frame, rows
from tlbench.analysis.summary import summarise
from tlbench.errors import NotApplicable
from tlbench.policies.table import POLICIES
from tlbench.report.plots import PLOTS, accuracy, speed
from tlbench.report.plots import look as look_module
from tlbench.report.plots.look import COLORS, Look

FEW = ("accuracy_against_cost",)
EXAMPLE = rows(example_run(devices=("cpu", "cuda"), batch_sizes=(8, 32), seeds=(0, 1)), "example")


def texts(figure):
    """(text, box in pixels) of everything written in a figure; labels of ticks beyond their axis are never drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    beyond = {
        id(label)
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in (*axis.majorTicks, *axis.minorTicks)
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    return [
        (artist.get_text(), artist.get_window_extent(canvas.get_renderer()))
        for artist in figure.findobj(mpl.text.Text)
        if artist.get_text().strip() and artist.get_visible() and id(artist) not in beyond
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sweep(PLOTS, FEW))
def test_the_same_bytes_from_rows_and_from_a_frame(name):
    figure = PLOTS[name].draw(frame(EXAMPLE))
    assert isinstance(figure, Figure)
    one = look_module.as_svg(figure, name)
    other = look_module.as_svg(PLOTS[name].draw(summarise(EXAMPLE)), name)
    assert one == other


def wild_run():
    """Two blocks that have nothing in common, so that intervals span many decades; long names; one device."""
    made = example_run(
        backbones=("efficientnet_lite0", "resnet18"), policies=("linear_probe", "lp_ft"), seeds=(0, 1), blocks=(0, 1)
    )
    return [replace(r, rounds=tuple(replace(x, seconds=x.seconds * 40**r.block) for x in r.rounds)) for r in made]


RUNS = {"example": EXAMPLE, "wild": rows(wild_run(), "wild")}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", sweep(PLOTS, FEW))
def test_nothing_is_cut_off_and_no_text_lies_on_another(name, run):
    try:
        figure = PLOTS[name].draw(summarise(RUNS[run]))
    except NotApplicable:
        assert run == "wild"
        return
    written = texts(figure)
    width, height = figure.canvas.get_width_height()
    for text, box in written:
        assert -1 <= box.x0 <= box.x1 <= width + 1, f"{text!r} is cut off"
        assert -1 <= box.y0 <= box.y1 <= height + 1, f"{text!r} is cut off"
    turned = name == "heat_map"  # the boxes of slanted labels overlap, the labels do not
    for n, (text, box) in enumerate(written):
        for other, second in written[n + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            along = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert turned or across < 1 or along < 2, f"{text!r} lies on {other!r}"


POOR = {
    "nothing finished": [failure("failed", "x", epochs=3)],
    "one record": [record()],
    "one inference record": [record(task="infer", latency=[0.1] * 30)],
    "no accuracy": [replace(record(dataset="synthetic"), accuracy_val=None, accuracy_test=None)],
    "identical cells": [record(seed=n, block=n) for n in range(3)],
    "accuracies of 0 and 1": [record(accuracies=(0, 0, 0.0)), record(accuracies=(0, 0, 1.0), freeze="full")],
    "interrupted": [failure("interrupted", "stopped by the user", epochs=3), record(freeze="full")],
    "no trainable parameter": [record(trainable_parameters=0, head="nearest_mean")],
    "no records": [],
}


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("kind", sweep(POOR, {"one record", "nothing finished"}))
def test_poor_runs_are_drawn_or_the_reason_is_told(name, kind):
    try:
        figure = PLOTS[name].draw(summarise(rows(POOR[kind])))
    except NotApplicable as error:
        assert len(str(error)) > 20
        return
    look_module.as_svg(figure, name)


@pytest.mark.parametrize("name", PLOTS)
def test_an_empty_run_has_no_figure(name):
    with pytest.raises(NotApplicable):
        PLOTS[name].draw(frame([]))


def test_all_policies_have_a_look_of_their_own():
    names = [examples(name)[0] for name in POLICIES]
    made = summarise(rows([record(freeze=name) for name in names]))
    look = Look.of(made)
    looks = {(look.color(row), look.fill(row)) for row in made}
    assert len(looks) == len(names) > len(COLORS)


def test_a_policys_colour_does_not_depend_on_which_is_best():
    records = [record(freeze=name) for name in ("full", "linear_probe", "norm")]
    colors = {tuple(sorted(Look.of(summarise(rows(order))).colors.items())) for order in (records, records[::-1])}
    assert len(colors) == 1


# Of Machado 2009 at full strength, on linear RGB
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def linear(color):
    rgb = np.array(mpl.colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE Lab of linear RGB, under D65."""
    share = np.array(XYZ) @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_are_apart_for_everyone(kind):
    seen = [lab(np.array(BLINDNESS[kind]) @ linear(color)) for color in COLORS]
    closest = min(np.linalg.norm(a - b) for n, a in enumerate(seen) for b in seen[:n])
    assert closest > 20  # 2.3 is just noticeable


@pytest.mark.parametrize("paper", ["#ffffff", "#12161c"], ids=["light", "dark"])
def test_colours_stand_out_from_the_page(paper):
    page = np.array(XYZ[1]) @ linear(paper)
    for color in [*COLORS, look_module.NO_POLICY]:
        own = np.array(XYZ[1]) @ linear(color)
        assert (max(own, page) + 0.05) / (min(own, page) + 0.05) > 2.5


def test_random_weights_can_be_told_in_the_legend():
    figure = accuracy.accuracy_against_cost(summarise(rows([record(), record(backbone="vgg16", initial=RANDOM)])))
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {"resnet18", "vgg16 (random weights)"} <= labels


def test_points_link_to_their_cells():
    summary = summarise(rows([record(), record(freeze="full")]))
    svg = look_module.as_svg(accuracy.accuracy_against_cost(summary), "x")
    for row in summary:
        assert f'xlink:href="#cell-{row["configuration"]}"' in svg


def test_the_front_joins_what_no_other_beats():
    cells = {"full": (9.0, 0.9), "norm": (3.0, 0.8), "bias": (5.0, 0.7), "last_1": (1.0, 0.5)}
    made = [record(seconds=(s,) * 3, accuracies=(0, 0, a), freeze=name) for name, (s, a) in cells.items()]
    figure = accuracy.accuracy_against_cost(summarise(rows(made)))
    (line,) = (line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert list(zip(*line.get_data(), strict=True)) == [(3.0, 0.5), (9.0, 0.8), (27.0, 0.9), (27.0, 0.9)]


def test_the_heat_map_says_why_a_cell_is_empty():
    records = [
        record(), record(backbone="vgg16"), failure("not_applicable", "x", backbone="vgg16", freeze="norm", epochs=3),
        failure("oom", "x", freeze="norm", epochs=3), record(freeze="full"),
    ]  # fmt: skip
    figure = accuracy.heat_map(summarise(rows(records)))
    shown = sorted(text.get_text() for text in figure.axes[0].texts)
    assert shown == ["90", "90", "90", "n/a", "oom", "–"]


@pytest.mark.exhaustive
def test_no_date_and_no_address_but_namespaces_in_an_svg():
    svg = look_module.as_svg(speed.throughput(summarise(EXAMPLE)), "throughput")
    addresses = set(re.findall(r'"(https?://[^"]+)"', svg))
    assert all("w3.org" in a or "purl.org" in a or "creativecommons" in a for a in addresses)
    assert to_hex(look_module.INK) in svg


def test_plots_by_name():
    assert tlbench.plots.PLOTS["heat_map"] is tlbench.plots.heat_map is PLOTS["heat_map"]
