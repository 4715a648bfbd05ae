"""Figures: drawn from any run or with a reason why not; nothing overlaps or is cut off; one look for all."""

import itertools
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from images import leading
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image
from records import RANDOM, example_run, failure, record
from tiers import sweep

import tlbench
from tlbench.analysis.frame import frame, rows
from tlbench.analysis.summary import summarise
from tlbench.backbones import list_backbones
from tlbench.data.short_names import data_sets
from tlbench.errors import NotApplicable
from tlbench.heads import HEADS
from tlbench.policies.table import POLICIES
from tlbench.report import markup
from tlbench.report.plots import PLOTS, accuracy, labels, names, speed
from tlbench.report.plots import look as look_module
from tlbench.report.plots.look import Look
from tlbench.report.plots.names import COLORS

FEW = ("accuracy_against_cost",)
MADE = example_run(devices=("cpu", "cuda"), batch_sizes=(8, 32), seeds=(0, 1))
EXAMPLE = rows(MADE, "example")
OF_IMAGES = ("confusion", "reliability")
"""Figures that files beside the records tell (tests/test_class_pictures.py)."""


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
@pytest.mark.parametrize("name", sweep([name for name in PLOTS if name not in OF_IMAGES], FEW))
def test_the_same_bytes_from_rows_and_from_a_frame(name):
    table = SIZED.get(name, EXAMPLE)
    figure = PLOTS[name].draw(frame(table))
    assert isinstance(figure, Figure)
    one = look_module.as_svg(figure, name)
    other = look_module.as_svg(PLOTS[name].draw(summarise(table)), name)
    assert one == other


def wild_run():
    """Two blocks that have nothing in common, so that intervals span many decades; long names; one device."""
    made = example_run(
        backbones=("efficientnet_lite0", "resnet18"), policies=("linear_probe", "lp_ft"), seeds=(0, 1), blocks=(0, 1)
    )
    return [replace(r, rounds=tuple(replace(x, seconds=x.seconds * 40**r.block) for x in r.rounds)) for r in made]


def sized(made):
    """The records at three train sizes each."""
    return [
        replace(r, cell=replace(r.cell, train_size=size), samples={**r.samples, "train": size or 400})
        for size in (50, 150, None)
        for r in made
    ]


def and_elsewhere(made):
    """The records with the accuracy on another data set, a little lower than on the test images."""
    return [
        replace(r, other_tests={"phone": {"dataset": "folder:phone", "accuracy": 0.9 * r.accuracy_test, "images": 40}})
        if r.accuracy_test is not None
        else r
        for r in made
    ]


FEW_CELLS = example_run(policies=("linear_probe", "full"), heads=("linear",), seeds=(0, 1))
OF_ITS_OWN = {"label_efficiency": sized, "elsewhere": and_elsewhere}
"""Figure that needs a run of its own -> what makes it of records."""
SIZED = {name: rows(make(FEW_CELLS), name) for name, make in OF_ITS_OWN.items()}
"""Figure that needs a run of its own -> that run."""
RUNS = {"example": rows(leading(MADE), "example"), "wild": rows(wild_run(), "wild")}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", sweep(PLOTS, FEW))
def test_nothing_is_cut_off_and_no_text_lies_on_another(name, run):
    try:
        figure = PLOTS[name].draw(summarise(SIZED.get(name, RUNS[run])))
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


def look_of(*records):
    """The look of a run, and what a policy, a backbone and a head are drawn with in it."""
    made = summarise(rows(records))
    look = Look.of(made)
    return {name: thing for row in made for name, thing in (
        (row["freeze"], (look.color(row), look.sign(row))),
        (row["backbone"], look.marker(row)),
        (f"head {row['head']}", look.filling(row)),
    )}  # fmt: skip


OURS = tuple(text for name, policy in POLICIES.items() for text in policy.examples or (name,))
"""The table's policies without arguments."""


def test_all_policies_have_a_look_of_their_own():
    assert len(set(names.tones(OURS).values())) == len(OURS) > len(COLORS)


TOGETHER = ("linear_probe", "last_1", "last_2", "norm", "bias", "full", "lora", "lp_ft")


def test_policies_that_stand_together_have_a_colour_each():
    looks = look_of(*(record(freeze=name) for name in TOGETHER))
    assert len({looks[name][0] for name in TOGETHER}) == len(COLORS)
    assert {looks[name][1] for name in TOGETHER} == {""}


def test_every_row_of_the_tables_has_a_look_of_its_own():
    """Its name alone decides it: a new policy or head needs an entry."""
    assert set(OURS) - set(names.TONES) <= {"stage_1"}
    assert set(names.HEADS) == set(HEADS)
    for given in (names.TONES, names.BACKBONES, names.HEADS):
        assert len(set(given.values())) == len(given)
    assert set(names.BACKBONES) <= {row["backbone"] for row in list_backbones()}


RUNS_OF_OTHERS = {
    "alone": ("full",),
    "the best last": ("norm", "linear_probe", "full"),
    "the best first": ("full", "linear_probe", "norm"),
    "with strangers": ("mine", "full", "convs", "full(1)", "last_7+bn=freeze", "stage_2"),
    "all": OURS,
}


@pytest.mark.parametrize("run", RUNS_OF_OTHERS)
def test_a_things_look_is_the_same_in_every_run(run):
    backbones = ("mine", "resnet18", "vgg16") if run != "alone" else ("resnet18",)
    heads = ("mlp", "linear", "mine") if run != "alone" else ("mlp",)
    looks = look_of(*(
        record(freeze=policy, backbone=backbone, head=head)
        for policy in RUNS_OF_OTHERS[run] for backbone in backbones for head in heads
    ))  # fmt: skip
    assert looks["full"] == (names.VIOLET, "")
    assert looks["resnet18"] == "o"
    assert looks["head mlp"] == "none"


def test_a_name_that_nobody_knows_has_a_look_by_its_hash():
    alone, beside = look_of(record(freeze="mine")), look_of(record(freeze="mine"), record(freeze="full"))
    assert alone["mine"] == beside["mine"] == (names.VIOLET, "dot")
    assert names.markers(["mine"])["mine"] == names.markers(["mine", "resnet18"])["mine"]


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (names.tones, len(names.OTHER_TONES)),
        (names.markers, len(names.MARKERS)),
        (names.fillings, len(names.FILLINGS)),
    ],
)
def test_names_that_would_look_the_same_are_kept_apart(given, count):
    strangers = [f"mine{n}" for n in range(count)]
    looks = given(strangers)
    assert len(set(looks.values())) == count
    assert given(strangers[::-1]) == looks
    assert len(given([*strangers, "one more"])) == count + 1


def test_other_arguments_keep_the_colour():
    tones = names.tones(["lora", "lora(r=4)", "full+bn=freeze"])
    assert {tones["lora"].color, tones["lora(r=4)"].color} == {names.PINK}
    assert tones["lora(r=4)"].sign == tones["full+bn=freeze"].sign == "dot"


def test_weights_of_a_file_are_not_the_backbones_own():
    given = names.markers(["resnet18", "resnet18 (weights of a.pt)"])
    assert given["resnet18"] == "o" != given["resnet18 (weights of a.pt)"]
    assert names.markers(["resnet18 (weights of a.pt)"]) == {"resnet18 (weights of a.pt)": "o"}


def test_random_weights_are_drawn_smaller():
    made = summarise(rows([record(), record(initial=RANDOM)]))
    look = Look.of(made)
    sizes = {row["weights"]: look.size(row) for row in made}
    assert sizes["random"] < sizes["pretrained"]
    assert {look.marker(row) for row in made} == {"o"}


def drawn(figure):
    """(path of the marker, colour of its edge, of its face, size) of every point of a figure."""
    found = set()
    for points in figure.findobj(PathCollection):
        paths, sizes = points.get_paths(), points.get_sizes()
        edges, faces = points.get_edgecolors(), points.get_facecolors()
        for n in range(len(points.get_offsets())):
            pick = [sequence[n % len(sequence)] if len(sequence) else None for sequence in (edges, faces, sizes)]
            found.add((paths[n % len(paths)].vertices.tobytes(), *(None if p is None else str(p) for p in pick)))
    return found


@pytest.mark.parametrize("name", ["accuracy_against_cost", "throughput"])
def test_heads_can_be_told_in_a_figure_and_in_its_legend(name):
    def of(head):
        made = record(head=head, accuracies=(0.5, 0.8, 0.9))
        return PLOTS[name].draw(summarise(rows([made])))

    seen = [drawn(of(head)) for head in ("linear", "mlp", "ridge", "logreg")]
    assert all(a != b for n, a in enumerate(seen) for b in seen[:n])
    both = PLOTS[name].draw(summarise(rows([record(head="linear"), record(head="mlp")])))
    assert {"head linear", "head mlp"} <= legend_of(both)
    assert not {text for text in legend_of(of("linear")) if text.startswith("head")}


def legend_of(figure):
    """Everything that its legends name."""
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


@pytest.mark.parametrize("name", sweep(PLOTS, FEW))
def test_each_precision_has_a_panel(name):
    run = [
        replace(r, cell=replace(r.cell, precision=precision), id=f"{r.id}-{precision}")
        for precision in ("fp32", "bf16")
        for r in example_run(backbones=("resnet18",), policies=("linear_probe", "full"), seeds=(0, 1))
    ]
    try:
        figure = PLOTS[name].draw(summarise(rows(run, "x")))
    except NotApplicable:
        return
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert all("fp32" in title or "bf16" in title for title in titles)
    assert name == "speedup" or len(titles) % 2 == 0


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
    for color in [*COLORS, names.NO_POLICY]:
        own = np.array(XYZ[1]) @ linear(color)
        assert (max(own, page) + 0.05) / (min(own, page) + 0.05) > 2.5


def test_random_weights_can_be_told_in_the_legend():
    figure = accuracy.accuracy_against_cost(summarise(rows([record(), record(backbone="vgg16", initial=RANDOM)])))
    assert {"resnet18", "vgg16 (random weights)"} <= legend_of(figure)


def test_points_link_to_their_cells():
    summary = summarise(rows([record(), record(freeze="full")]))
    svg = look_module.as_svg(accuracy.accuracy_against_cost(summary), "x")
    for row in summary:
        assert f'xlink:href="#cell-{row["configuration"]}">' in svg  # without a target: in the same page


def test_points_say_what_they_are():
    seeds = enumerate((0.8, 0.81, 0.82))
    made = summarise(rows([record(freeze="full", head="mlp", seed=n, accuracies=(0, 0, a)) for n, a in seeds]))
    svg = look_module.as_svg(accuracy.accuracy_against_cost(made), "x")
    (title,) = set(re.findall(r"<a [^>]*><title>([^<]*)</title>", svg))
    name, *figures = title.split("\n")
    assert name == "resnet18 · full · mlp"
    assert re.fullmatch(r"test accuracy 81\.0 % \(.* to .*\)", figures[0])
    assert figures[1].startswith("training 3.3")


def test_a_point_of_inference_says_how_fast_it_is():
    made = summarise(rows([record(task="infer", backbone="<b>&", latency=[0.1] * 30)]))
    svg = look_module.as_svg(speed.latency(made), "x")
    (title,) = set(re.findall(r"<a [^>]*><title>([^<]*)</title>", svg))
    assert title.startswith("inference &lt;b&gt;&amp; · linear\n")
    assert "images/s" in title
    assert title.endswith("one image 100 ms")


def test_the_front_joins_what_no_other_beats():
    cells = {"full": (9.0, 0.9), "norm": (3.0, 0.8), "bias": (5.0, 0.7), "last_1": (1.0, 0.5)}
    made = [record(seconds=(s,) * 3, accuracies=(0, 0, a), freeze=name) for name, (s, a) in cells.items()]
    figure = accuracy.accuracy_against_cost(summarise(rows(made)))
    (line,) = (line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert list(zip(*line.get_data(), strict=True)) == [(3.0, 0.5), (9.0, 0.8), (27.0, 0.9), (27.0, 0.9)]


def ringed(axes):
    rings = [one for one in axes.collections if isinstance(one, PathCollection) and set(one.get_sizes()) == {160}]
    return [tuple(map(float, place)) for one in rings for place in one.get_offsets()]


@pytest.mark.parametrize("measured_often", [True, False])
def test_no_ring_is_round_a_cell_that_one_of_unknown_interval_beats(measured_often):
    """What was measured once may lie anywhere, so that whom it beats by the estimates is not sure to be unbeaten."""
    slow = [
        record(seconds=(s,) * 3, accuracies=(0, 0, a), freeze="norm", seed=seed)
        for seed, (s, a) in enumerate([(5.0, 0.80), (5.01, 0.801), (4.99, 0.799)])
    ]
    fast = [
        record(seconds=(s / 5,) * 3, accuracies=(0, 0, a + 0.1), freeze="last_1", seed=seed)
        for seed, (s, a) in enumerate([(5.0, 0.80), (5.01, 0.801), (4.99, 0.799)][: 3 if measured_often else 1])
    ]
    (ax,) = accuracy.accuracy_against_cost(summarise(rows([*slow, *fast]))).axes
    assert len(ringed(ax)) == measured_often
    assert all(x < 5 for x, _ in ringed(ax))


IGNORANT = {
    "chance": {"accuracies": (0, 0, 0.1)},
    "below chance": {"accuracies": (0, 0, 0.02)},
    "interval over chance": {"accuracies": (0, 0, 0.13)},
}


@pytest.mark.parametrize("kind", IGNORANT)
def test_the_front_begins_where_something_was_learned(kind):
    """The cheapest cell of all, but no better than a guess among the ten classes."""
    made = [
        record(seconds=(0.1,) * 3, **IGNORANT[kind]),
        record(seconds=(3.0,) * 3, accuracies=(0, 0, 0.8), freeze="full"),
    ]
    (ax,) = accuracy.accuracy_against_cost(summarise(rows(made))).axes
    (line,) = (line for line in ax.lines if line.get_drawstyle() == "steps-post")
    assert line.get_xdata()[0] == pytest.approx(9.0)


def test_where_nothing_was_learned_is_no_front():
    made = [record(freeze=name, accuracies=(0, 0, 0.1)) for name in ("full", "norm")]
    (ax,) = accuracy.accuracy_against_cost(summarise(rows(made))).axes
    assert not [line for line in ax.lines if line.get_drawstyle() == "steps-post"]


def test_the_heat_map_says_why_a_cell_is_empty():
    records = [
        record(), record(backbone="vgg16"), failure("not_applicable", "x", backbone="vgg16", freeze="norm", epochs=3),
        failure("oom", "x", freeze="norm", epochs=3), record(freeze="full"),
    ]  # fmt: skip
    figure = accuracy.heat_map(summarise(rows(records)))
    shown = sorted(text.get_text() for text in figure.axes[0].texts)
    assert shown == ["90", "90", "90", "n/a", "oom", "–"]


@pytest.mark.parametrize(
    ("axis", "values", "title"),
    [
        ("head", ("linear", "mlp", "ridge"), "linear_probe · digits · cpu"),
        ("dataset", ("digits", "folder:/a/ants", "folder:/b/ants"), "linear_probe · linear · cpu"),
        ("freeze", ("full", "norm", "bias"), "linear · digits · cpu"),
    ],
)
def test_a_heat_map_has_no_panels_of_a_single_cell(axis, values, title):
    figure = accuracy.heat_map(summarise(rows([record(**{axis: value}) for value in values])))
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == title
    assert [text.get_text() for text in ax.texts] == ["90"] * 3


@pytest.mark.parametrize("given", [{}, {"device": "cuda"}, {"precision": "bf16"}])
def test_a_heat_map_of_single_cells_is_not_drawn(given):
    with pytest.raises(NotApplicable, match="the table has its accuracy"):
        accuracy.heat_map(summarise(rows([record(), record(**given)])))


# --- names and ticks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "short"),
    [
        (["digits", "folder:/home/me/photos/ants-bees"], ["digits", "ants-bees"]),
        (["folder:/a/x/images", "folder:/a/y/images"], ["x/images", "y/images"]),
        (["folder:/a/x/images", "folder:/b/x/images", "folder:z"], ["a/x/images", "b/x/images", "z"]),
        (["folder:images", "folder:/a/images"], ["images", "a/images"]),
        (["digits", "folder:digits"], ["digits", "folder:digits"]),
        (["folder:/", "folder:C:\\photos\\ants"], ["folder:/", "ants"]),
        (
            ["folder:/a/ants (images 12ab)", "folder:/a/ants (images 34cd)"],
            ["ants (images 12ab)", "ants (images 34cd)"],
        ),
    ],
)
def test_short_names_of_data_sets(given, short):
    assert data_sets(given) == dict(zip(given, short, strict=True))


LONG = "timm:vit_huge_patch14_clip_378.some_long_tag_ft_in12k_in1k"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", sweep(PLOTS, FEW))
def test_very_long_names_are_shortened(name):
    """matplotlib warned that it had no room left for the panels, and titles were cut off in the middle of a path."""
    made = example_run(
        backbones=("resnet18",), policies=("linear_probe", "full"), seeds=(0, 1), batch_sizes=(8, 32),
        dataset=f"folder:/{'/'.join(['a very long folder'] * 8)}",
    )  # fmt: skip
    policies = {"full": "lora(r=128,alpha=256)+bn=freeze"}
    run = [
        replace(r, cell=replace(r.cell, backbone=f"{LONG}{n}", freeze=policies.get(r.cell.freeze, r.cell.freeze)))
        for n in (0, 1)
        for r in made
    ]
    run = leading(run, names=[f"{LONG} of class {n}" for n in range(10)])
    try:
        figure = PLOTS[name].draw(summarise(rows(OF_ITS_OWN.get(name, list)(run), "x")))
    except NotApplicable:
        assert name in ("speedup", "freeze_efficiency")
        return
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in texts(figure):
        assert -1 <= box.x0 <= box.x1 <= width + 1, f"{text!r} is cut off"
        assert -1 <= box.y0 <= box.y1 <= height + 1, f"{text!r} is cut off"
    for ax in figure.axes:
        assert ax.get_position().width * width > 0.45 * width, "the names leave no room"
        named = [label.get_text() for label in ax.get_yticklabels()]
        assert len(set(named)) == len(named)
        assert "/a very" not in ax.get_title(loc="left")


@pytest.mark.parametrize(
    ("make", "values", "texts"),
    [
        (labels.percent_ticks, [0.1005, 0.101, 0.1015], ["10.05 %", "10.10 %", "10.15 %"]),
        (labels.percent_ticks, [0.1008, 0.101, 0.1012], ["10.08 %", "10.10 %", "10.12 %"]),
        (labels.percent_ticks, [0.0, 0.5, 1.0], ["0 %", "50 %", "100 %"]),
        (labels.percent_ticks, [0.125, 0.15], ["12.5 %", "15.0 %"]),
        (labels.percent_ticks_by_tens, [0.001, 0.01, 0.1], ["0.1 %", "1 %", "10 %"]),
        (labels.plain_ticks, [15.25, 15.3], ["15.25", "15.3"]),
        (labels.plain_ticks, [1000, 1500, 2e6], ["1 k", "1.5 k", "2 M"]),
        (labels.plain_ticks, [12_340, 12_345], ["12.34 k", "12.345 k"]),
    ],
)
def test_ticks_say_their_value(make, values, texts):
    assert make().format_ticks(values) == texts


@pytest.mark.parametrize(("around", "span"), [(0.0, 1e-5), (0.1, 1e-3), (0.1, 0.9), (0.999, 1e-3)])
def test_no_tick_of_an_accuracy_stands_twice(around, span):
    ends = [
        record(freeze=name, accuracies=(0, 0, min(1, around + share))) for name, share in (("full", 0), ("norm", span))
    ]
    (ax,) = accuracy.accuracy_against_cost(summarise(rows(ends))).axes
    shown = [text for text, _ in texts(ax.figure) if text.endswith("%")]
    assert len(set(shown)) == len(shown) > 2


@pytest.mark.parametrize("high", [1.003, 1.3, 4, 1e4])
def test_ticks_of_a_logarithmic_axis_have_room(high):
    made = [record(seconds=(s,) * 3, freeze=name) for name, s in (("full", high), ("norm", 1.0))]
    figure = accuracy.accuracy_against_cost(summarise(rows(made)))
    FigureCanvasAgg(figure).draw()
    (ax,) = figure.axes
    low, top = ax.get_xlim()
    inside = [tick for tick in ax.get_xticks() if low <= tick <= top]
    assert 2 <= len(inside) <= 8


@pytest.mark.parametrize("speeds", [(150, 70e3), (200, 65e3), (24e3, 99e3), (41e3, 99e3), (9_000, 11_000), (3, 80_000)])
def test_ticks_of_speeds_do_not_run_into_each_other(speeds):
    """``50 k`` and ``75 k`` did: of two to three decades only two powers of ten are inside."""
    made = [
        record(
            task="infer", backbone=name, seconds=(64 / speed,) * 3, latency=(0.01,) * 20, weights="/x/a-checkpoint.pth"
        )
        for name, speed in zip(("efficientnet_v2_s_with_a_long_name", "mobilenet_v3_small"), speeds, strict=True)
    ]
    figure = PLOTS["throughput"].draw(summarise(rows(made)))
    shown = sorted(
        (box for text, box in texts(figure) if re.fullmatch(r"[\d.]+( [kM])?", text)), key=lambda box: box.x0
    )
    assert len(shown) >= 2
    assert all(one.x1 + 2 < other.x0 for one, other in itertools.pairwise(shown))


# --- paper and ink --------------------------------------------------------------------------------------------


def test_a_png_is_black_on_white(tmp_path):
    """A dark notebook showed navy on nothing."""
    figure = accuracy.accuracy_against_cost(summarise(rows([record(), record(freeze="full")])))
    figure.savefig(tmp_path / "x.png", dpi=72)
    pixels = np.asarray(Image.open(tmp_path / "x.png").convert("RGBA"))
    assert pixels[..., 3].min() == 255
    assert pixels[0, 0].tolist() == [255] * 4
    assert sum(to_rgb(look_module.INK)) < 0.05
    assert {text.get_color() for text in figure.findobj(mpl.text.Text) if text.get_text()} <= {look_module.INK}


def test_an_svg_leaves_the_paper_to_the_page():
    svg = look_module.as_svg(accuracy.accuracy_against_cost(summarise(rows([record(), record(freeze="full")]))), "x")
    inside = markup.inline_svg(svg, "x")
    assert 'class="paper"' in svg
    assert "#ffffff" not in inside
    assert look_module.INK not in inside
    assert "currentColor" in inside


@pytest.mark.exhaustive
def test_no_date_and_no_address_but_namespaces_in_an_svg():
    svg = look_module.as_svg(speed.throughput(summarise(EXAMPLE)), "throughput")
    addresses = set(re.findall(r'"(https?://[^"]+)"', svg))
    assert all("w3.org" in a or "purl.org" in a or "creativecommons" in a for a in addresses)
    assert to_hex(look_module.INK) in svg


def test_plots_by_name():
    assert tlbench.plots.PLOTS["heat_map"] is tlbench.plots.heat_map is PLOTS["heat_map"]
