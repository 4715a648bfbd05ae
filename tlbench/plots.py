"""Figures of a run: each takes a tidy frame (`tlbench.load`) and returns a matplotlib Figure.

One look for all of them: the freeze policy is the colour, the backbone with its weights the marker. A point is a
configuration, averaged over its seeds and blocks; bars are 95 % intervals. Nothing here reads or writes files.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tlbench import speedup as speeds
from tlbench import stats, wording
from tlbench.efficiency import KEPT
from tlbench.efficiency import freeze_efficiency as efficiencies
from tlbench.errors import NotApplicable
from tlbench.frame import STEP_PARTS, quantile, summarise
from tlbench.policies import POLICIES, parse_policy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
Draw = Callable[[Sequence[Row]], Figure]

WIDTH_INCHES = 5.2
PANEL_INCHES = 3.0
LINE_INCHES = 0.24
"""Height of a line of text: of a row of labels, or of the legend."""
MANY = 1500
"""Points beyond which a figure holds them as an image: as vectors they would be megabytes."""
MOST_LINES = 30
"""Labelled lines of a figure; the report's table has all."""
MOST_PANELS = 9

INK = "#123456"
"""Text and axes. The report replaces it by the page's own colour, so that one figure serves light and dark."""
COLORS = ("#0268c0", "#e58c09", "#01aa86", "#7922fd", "#cf220a", "#e47fd0", "#b3a354", "#a6553f")
"""Any two are at least 20 apart in CIE Lab, also as the colour-blind see them (the three simulations of Machado 2009),
and each has a contrast of 2.5 or more both on white and on the report's dark page.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
DASHES = ("-", "--", ":", "-.")
NO_POLICY = "#7d8590"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#9a9a9a",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A row of the table."""

    title: str
    caption: str
    draw: Draw
    """Takes a frame of records or `tlbench.frame.summarise`'s rows. Errors: NotApplicable saying what they lack."""


def _plot(draw: Draw) -> Any:
    """Lets a figure be drawn from a frame of one row a record as well, and gives it the common style."""

    @functools.wraps(draw)
    def wrapped(data: pd.DataFrame | Sequence[Row]) -> Figure:
        rows = _rows(data) if isinstance(data, pd.DataFrame) else data
        with mpl.rc_context(STYLE):
            return draw(rows)

    return wrapped


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a configuration, of a frame of one row a record."""
    plain = frame.astype(object).where(frame.notna(), None)
    return summarise({str(key): value for key, value in item.items()} for item in plain.to_dict("records"))


def as_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG document with text that stays text, the same bytes for the same figure. ``name`` keeps its
    internal names apart from those of other figures in one page.
    """
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '\n <rect class="paper" width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


# --- the common look ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour (and filling) by policy, marker by backbone and weights."""

    colors: Mapping[str, str]
    open: frozenset[str]
    """Policies drawn as open markers: there are more policies than colours."""
    markers: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Look:
        policies = _policies(rows)
        models = list(dict.fromkeys(map(wording.model, rows)))
        return cls(
            colors={"none": NO_POLICY, **dict(zip(policies, itertools.cycle(COLORS), strict=False))},
            open=frozenset(p for n, p in enumerate(policies) if n // len(COLORS) % 2),
            markers=dict(zip(models, itertools.cycle(MARKERS), strict=False)),
        )

    def color(self, row: Row) -> str:
        return self.colors[row["freeze"]]

    def fill(self, row: Row) -> str:
        return "none" if row["freeze"] in self.open else self.color(row)

    def legend(self, rows: Sequence[Row], policies: bool = True, models: bool = True) -> list[Line2D]:
        """Entries for what the rows have."""
        own = _policies(rows) if policies else []
        named = dict.fromkeys(map(wording.model, rows)) if models else {}
        return [
            *(
                Line2D([], [], marker="s", ls="", color=self.colors[p], mfc="none" if p in self.open else None, label=p)
                for p in own
            ),
            *(Line2D([], [], marker=self.markers[m], ls="", color=INK, label=m) for m in named),
        ]


def _policies(rows: Iterable[Row]) -> list[str]:
    """In the order of the table of policies, so that the best one of a run does not change the colours."""
    known = list(POLICIES)
    names = dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train")
    return sorted(names, key=lambda text: (known.index(parse_policy(text).name), text))


def _panels(rows: Iterable[Row], *columns: str) -> dict[str, list[Row]]:
    """Title -> rows: a panel for each combination of the columns, and of the machine where a device has several."""
    rows = list(rows)
    places = {(r["device"], r["machine"]) for r in rows}
    if "device" in columns and len(places) > len({device for device, _ in places}):
        columns = (*columns, "machine")
    panels: dict[str, list[Row]] = {}
    for row in rows:
        words = {
            "machine": f"machine {row['machine']}",
            "task": {"train": "training", "infer": "inference"}[row["task"]],
        }
        panels.setdefault(" · ".join(words.get(name, str(row[name])) for name in columns), []).append(row)
    return panels


def _figure(
    panels: Mapping[str, Sequence[Row]], heights: Sequence[float] | float, legend: Sequence[Line2D] = ()
) -> tuple[Figure, list[tuple[Axes, str, Sequence[Row]]]]:
    """Panels below each other, which reads on a phone as well, and the legend under them: (axes, title, rows)."""
    each = [heights] * len(panels) if isinstance(heights, int | float) else list(heights)
    columns = _legend_columns(legend)
    below = -(-len(legend) // columns) * 0.19 + 0.1 if legend else 0.0
    figure = Figure(figsize=(WIDTH_INCHES, sum(each) + below), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=each)[:, 0]
    if legend:
        figure.legend(
            handles=list(legend), loc="outside lower left", ncols=columns, handletextpad=0.4, columnspacing=1.2,
            borderaxespad=0.1, labelspacing=0.3,
        )  # fmt: skip
    for ax, title in zip(axes, panels, strict=True):
        ax.set_title(title)
    return figure, [(ax, title, rows) for ax, (title, rows) in zip(axes, panels.items(), strict=True)]


def _legend_columns(legend: Sequence[Line2D]) -> int:
    """As many as fit: a character is about 0.075 inches wide."""
    longest = max((len(str(line.get_label())) for line in legend), default=1)
    return max(1, min(4, int(WIDTH_INCHES / (0.4 + 0.075 * longest))))


def _scatter(ax: Axes, rows: Sequence[Row], x: str, y: str, look: Look) -> None:
    """A point and its interval both ways for each row; each point links to the row's section in the report."""
    many = len(rows) > MANY
    bars, colors = [], []
    for row in rows:
        for upright, name in ((False, x), (True, y)):
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            if low is not None and high is not None:
                bars.append([(row[x], low), (row[x], high)] if upright else [(low, row[y]), (high, row[y])])
                colors.append(look.color(row))
    ax.add_collection(LineCollection(bars, colors=colors, lw=1, alpha=0.55, zorder=2, rasterized=many), autolim=True)
    data = pd.DataFrame(
        {"x": [r[x] for r in rows], "y": [r[y] for r in rows], "policy": [r["freeze"] for r in rows],
         "model": list(map(wording.model, rows))}
    )  # fmt: skip
    sns.scatterplot(
        data=data, x="x", y="y", hue="policy", style="model", palette=dict(look.colors), markers=dict(look.markers),
        s=40, edgecolor="none", legend=False, ax=ax, zorder=3, rasterized=many,
    )  # fmt: skip
    points = ax.collections[-1]
    points.set_linewidth(1)
    points.set_facecolor([look.fill(row) for row in rows])
    points.set_edgecolor([look.color(row) for row in rows])
    points.set_urls([f"#cell-{row['configuration']}" for row in rows])


def _join(ax: Axes, lines: Sequence[tuple[Any, str, str]], width: float = 1) -> None:
    """Lines through points, as (points, colour, dashes)."""
    drawn = LineCollection(
        [points for points, _, _ in lines],
        colors=[color for _, color, _ in lines],
        linestyles=[dash for _, _, dash in lines],
        lw=width,
        alpha=0.85,
        zorder=2,
        rasterized=len(lines) > MANY // 5,
    )
    ax.add_collection(drawn, autolim=True)
    ax.autoscale_view()


MARGIN = 3.0
"""How far a logarithmic axis goes beyond its points, as a factor: an interval of two blocks can span many decades, and
would make all points one. What is wider leaves the panel.
"""


def _log(axis: Any, values: Iterable[float]) -> None:
    """A logarithmic axis over the points, with labels in plain numbers, enough of them within one decade too."""
    known = [value for value in values if value]
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.axes.autoscale_view()
    low, high = sorted(axis.get_view_interval())
    low, high = max(low, min(known) / MARGIN), min(high, max(known) * MARGIN)
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    decades = math.log10(high / low)
    few, several, many = (1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=few if decades > 2.5 else several if decades > 0.8 else many))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float) -> str:
    """``0.5``, ``20``, ``1 k``, ``1.5 M``."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.999 * factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.3g} %"


def _lines(ax: Axes, labels: Sequence[str]) -> None:
    """A categorical y axis, the first line on top."""
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylabel("")


def _note(ax: Axes, title: str, shown: int, total: int, what: str) -> None:
    """Says in the title when a figure shows only some."""
    if shown < total:
        ax.set_title(f"{title}\n({shown} of {total} {what}; the table has all)")


def _need(rows: Sequence[Row], otherwise: str) -> list[Row]:
    if not rows:
        raise NotApplicable(otherwise)
    return list(rows)


def _figures_known(rows: Sequence[Row], *names: str) -> list[Row]:
    return [r for r in rows if r["records_ok"] and all(r[name] is not None for name in names)]


# --- accuracy against what it costs ---------------------------------------------------------------------------


def _accuracy_axes(ax: Axes, rows: Sequence[Row], x: str, label: str) -> None:
    _log(ax.xaxis, (r[x] for r in rows))
    low = min(min(r["accuracy_test"], r["accuracy_test_low"] or 1.0) for r in rows)
    high = max(max(r["accuracy_test"], r["accuracy_test_high"] or 0.0) for r in rows)
    low, high = max(0.0, low), min(1.0, high)
    room = 0.06 * max(high - low, 0.02)
    ax.set(xlabel=label, ylabel="test accuracy", ylim=(low - room, high + room))
    ax.yaxis.set_major_formatter(FuncFormatter(_percent))


@_plot
def accuracy_against_cost(rows: Sequence[Row]) -> Figure:
    """Test accuracy against the seconds of the whole training, with the Pareto front; a panel a device."""
    shown = _need(
        [r for r in _figures_known(rows, "accuracy_test", "training_seconds") if r["training_seconds"] > 0],
        "no finished cell measures an accuracy",
    )
    look = Look.of(rows)
    figure, panels = _figure(_panels(shown, "dataset", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, own in panels:
        _front(ax, own)
        _scatter(ax, own, "training_seconds", "accuracy_test", look)
        _accuracy_axes(ax, own, "training_seconds", "training time, seconds")
    return figure


def _front(ax: Axes, rows: Sequence[Row]) -> None:
    """The steps join the cells that no other beats in both by the estimates; a ring is round those that none beats
    wherever in their intervals the two lie.
    """
    points = [(stats.exact(r["training_seconds"]), stats.exact(r["accuracy_test"])) for r in rows]
    front = [r for r, p in zip(rows, stats.pareto(points), strict=True) if p.position == "on the front"]
    front.sort(key=lambda r: r["training_seconds"])
    x, y = [r["training_seconds"] for r in front], [r["accuracy_test"] for r in front]
    ax.step([*x, max(r["training_seconds"] for r in rows)], [*y, y[-1]], where="post", color=INK, lw=1, alpha=0.6)
    measured = [r for r in rows if r["training_seconds_low"] is not None and r["accuracy_test_low"] is not None]
    sure = stats.pareto([(_interval(r, "training_seconds"), _interval(r, "accuracy_test")) for r in measured])
    ringed = [r for r, p in zip(measured, sure, strict=True) if p.position == "on the front"]
    ax.scatter(
        [r["training_seconds"] for r in ringed], [r["accuracy_test"] for r in ringed],
        s=120, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=4,
    )  # fmt: skip


def _interval(row: Row, name: str) -> stats.Interval:
    return stats.Interval(estimate=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"], n=row["units"])


@_plot
def accuracy_against_parameters(rows: Sequence[Row]) -> Figure:
    """Test accuracy against the number of parameters that train; a panel a data set and device."""
    shown = _need(
        _figures_known(rows, "accuracy_test", "trainable_parameters"), "no finished cell measures an accuracy"
    )
    shown = _need([r for r in shown if r["trainable_parameters"] > 0], "no cell trains a parameter")
    look = Look.of(rows)
    figure, panels = _figure(_panels(shown, "dataset", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, own in panels:
        _scatter(ax, own, "trainable_parameters", "accuracy_test", look)
        _accuracy_axes(ax, own, "trainable_parameters", "trainable parameters")
    return figure


# --- the heat map ---------------------------------------------------------------------------------------------

EMPTY = {
    "not_applicable": "n/a", "skipped": "skip", "failed": "fail", "oom": "oom", "timeout": "time", "diverged": "div",
    "interrupted": "stop", "ok": "?",
}  # fmt: skip


@_plot
def heat_map(rows: Sequence[Row]) -> Figure:
    """Test accuracy in percent by backbone and policy, a panel a head; an empty cell says why it is empty."""
    trained = [r for r in rows if r["task"] == "train"]
    _need(_figures_known(trained, "accuracy_test"), "no finished cell measures an accuracy")
    policies = _policies(trained)
    panels = _panels(trained, "head", "dataset", "device")
    models = {title: list(dict.fromkeys(map(wording.model, own))) for title, own in panels.items()}
    turned = len(policies) > 6
    labels = 0.55 + 0.07 * max(map(len, policies)) if turned else 0.55
    heights = [0.35 + labels + LINE_INCHES * len(models[title]) for title in panels]
    known = [r["accuracy_test"] for r in _figures_known(trained, "accuracy_test")]
    figure, axes = _figure(panels, heights)
    for ax, title, own in axes:
        grid: dict[tuple[str, str], list[Row]] = {}
        for row in own:
            grid.setdefault((wording.model(row), row["freeze"]), []).append(row)
        values = np.full((len(models[title]), len(policies)), np.nan)
        texts = np.full(values.shape, "–", dtype=object)
        for (model, policy), group in grid.items():
            place = models[title].index(model), policies.index(policy)
            values[place], texts[place] = _heat(group)
        sns.heatmap(
            values, annot=texts, fmt="", vmin=min(known), vmax=max(known), cmap="cividis", cbar=False, linewidths=0.6,
            linecolor="#9a9a9a", xticklabels=policies, yticklabels=models[title], annot_kws={"fontsize": 8}, ax=ax,
        )  # fmt: skip
        for y, x in zip(*np.where(np.isnan(values)), strict=True):  # seaborn leaves cells without a value unmarked
            ax.text(x + 0.5, y + 0.5, texts[y, x], ha="center", va="center", fontsize=7.5)
        ax.tick_params(axis="x", rotation=90 if turned else 30, length=0)
        ax.tick_params(axis="y", rotation=0, length=0)
        for label in ax.get_xticklabels():
            label.set(ha="center" if turned else "right", rotation_mode="default" if turned else "anchor")
        ax.grid(False)
    return figure


def _heat(group: Sequence[Row]) -> tuple[float, str]:
    """Of several settings of one cell the one with the best validation accuracy."""
    good = _figures_known(group, "accuracy_test")
    if not good:
        return math.nan, EMPTY[group[0]["status"]]
    best = max(good, key=lambda r: r["accuracy_val"] or 0)
    return best["accuracy_test"], f"{100 * best['accuracy_test']:.0f}" + ("*" if len(group) > 1 else "")


# --- speed ----------------------------------------------------------------------------------------------------


@_plot
def speedup(rows: Sequence[Row]) -> Figure:
    """How many times faster one device or precision is than another, on matched cells, by policy and batch size."""
    found = [one for axis in ("device", "precision") for one in speeds.speedups(rows, axis) if one.pairs]
    if not found:
        raise NotApplicable(
            "no cell was measured on two devices or precisions; report a CPU run and a CUDA run together, "
            "or run with --device cpu,cuda"
        )
    look = Look.of(rows)
    panels: dict[str, list[Row]] = {}
    several = len({r["batch_size"] for r in rows}) > 1
    for one in found:
        for pair in one.pairs:
            what = speeds.FIGURES[pair.figure].what
            line = pair.base["freeze"] if pair.base["task"] == "train" else what
            point = {
                **pair.new, "ratio": pair.ratio.estimate, "ratio_low": pair.ratio.low, "ratio_high": pair.ratio.high,
                "line": line + (f" · batch {pair.base['batch_size']}" if several else ""),
            }  # fmt: skip
            panels.setdefault(f"{one.new} over {one.base}", []).append(point)
    lines = {title: list(dict.fromkeys(p["line"] for p in own)) for title, own in panels.items()}
    points = [point for own in panels.values() for point in own]
    figure, axes = _figure(panels, [0.8 + LINE_INCHES * len(lines[t]) for t in panels], look.legend(points))
    for ax, title, own in axes:
        placed = [{**p, "place": lines[title].index(p["line"])} for p in own]
        ax.axvline(1, color=INK, lw=1)
        _scatter(ax, placed, "ratio", "place", look)
        _log(ax.xaxis, [1, *(p["ratio"] for p in own)])
        _lines(ax, lines[title])
        ax.set_xlabel("times as fast", loc="right")
    return figure


@_plot
def freeze_efficiency(rows: Sequence[Row]) -> Figure:
    """The speed-up over `full` that an epoch's FLOPs promise, against the one measured; a panel a device."""
    points = [
        {**one.row, "promised": one.promised, "measured": one.measured.estimate,
         "measured_low": one.measured.low, "measured_high": one.measured.high}
        for one in efficiencies(rows)
    ]  # fmt: skip
    _need(points, "no policy was timed beside full with the same settings; add full to --freeze")
    panels = _panels(points, "device")
    look = Look.of(rows)
    figure, axes = _figure(panels, PANEL_INCHES, look.legend(points))
    for ax, _, own in axes:
        ends = [f(p[name] for p in own for name in ("promised", "measured")) for f in (min, max)]
        line = [min(1.0, ends[0] / 1.2), ends[1] * 1.2]
        ax.plot(line, line, color=INK, lw=1)
        ax.plot(line, [KEPT * value for value in line], color=INK, lw=1, ls=":")
        _scatter(ax, own, "promised", "measured", look)
        _log(ax.xaxis, [*line, *(p["promised"] for p in own)])
        _log(ax.yaxis, [*line, *(p["measured"] for p in own)])
        ax.set(xlabel="promised by FLOPs, times as fast as full", ylabel="measured")
    return figure


@_plot
def throughput(rows: Sequence[Row]) -> Figure:
    """Images a second by backbone, a panel for each task and device."""
    shown = _need(_figures_known(rows, "images_per_second"), "no finished cell has a throughput")
    look = Look.of(rows)
    panels = _panels(shown, "task", "device")
    models = {title: list(dict.fromkeys(map(wording.model, own))) for title, own in panels.items()}
    legend = look.legend(shown, models=False)
    figure, axes = _figure(panels, [0.75 + LINE_INCHES * len(models[t]) for t in panels], legend)
    for ax, title, own in axes:
        placed = [{**r, "place": models[title].index(wording.model(r))} for r in own]
        _scatter(ax, placed, "images_per_second", "place", look)
        _log(ax.xaxis, (r["images_per_second"] for r in own))
        _lines(ax, models[title])
        ax.set_xlabel("images per second", loc="right")
    return figure


@_plot
def throughput_against_batch_size(rows: Sequence[Row]) -> Figure:
    """Images a second against the batch size, for cells measured at two sizes or more."""
    series: dict[tuple[Any, ...], list[Row]] = {}
    for row in _figures_known(rows, "images_per_second"):
        names = (
            "task",
            "backbone",
            "weights",
            "freeze",
            "head",
            "device",
            "machine",
            "image_size",
            "variant",
            "dataset",
        )
        series.setdefault(tuple(row[name] for name in names), []).append(row)
    several = [own for own in series.values() if len({r["batch_size"] for r in own}) > 1]
    shown = [row for own in several for row in own]
    if not shown:
        raise NotApplicable("every cell was measured at one batch size; run with --batch-size 1,8,32")
    look = Look.of(rows)
    figure, axes = _figure(_panels(shown, "task", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, own in axes:
        lines = [sorted(line, key=lambda r: r["batch_size"]) for line in several if line[0] in own]
        _join(
            ax,
            [([(r["batch_size"], r["images_per_second"]) for r in line], look.color(line[0]), "-") for line in lines],
        )
        _scatter(ax, own, "batch_size", "images_per_second", look)
        _log(ax.yaxis, (r["images_per_second"] for r in own))
        ax.set_xscale("log", base=2)
        sizes = sorted({r["batch_size"] for r in own})
        if len(sizes) <= 8:
            ax.set_xticks(sizes, map(str, sizes))
        else:
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        ax.set_xticks([], minor=True)
        ax.set(xlabel="batch size", ylabel="images per second")
    return figure


@_plot
def latency(rows: Sequence[Row]) -> Figure:
    """Milliseconds of single images: the median, a bar over the middle half, a line between 5th and 95th percentile."""
    shown = _need(_figures_known(rows, "latency_p50_ms"), "no inference cell finished; run with --task train,infer")
    look = Look.of(rows)
    panels = _panels(sorted(shown, key=lambda r: r["latency_p50_ms"]), "device")
    differs = [name for name in wording.varying(shown) if name not in ("device", "machine")]
    heights = [0.75 + LINE_INCHES * min(len(own), MOST_LINES) for own in panels.values()]
    figure, axes = _figure(panels, heights, look.legend(shown))
    for ax, title, own in axes:
        few = own[:MOST_LINES]
        samples = [[ms for r in row["group"] if r["status"] == "ok" for ms in r["latency_ms"] or ()] for row in few]
        low, left, right, high = (
            [quantile(ms, share) if ms else math.nan for ms in samples] for share in (0.05, 0.25, 0.75, 0.95)
        )
        ax.hlines(range(len(few)), low, high, color=NO_POLICY, lw=1.2)
        widths = [b - a for a, b in zip(left, right, strict=True)]
        ax.barh(range(len(few)), widths, left=left, height=0.55, color=NO_POLICY, alpha=0.5)
        placed = [{**r, "place": n, "latency_p50_ms_low": None} for n, r in enumerate(few)]
        _scatter(ax, placed, "latency_p50_ms", "place", look)
        _log(ax.xaxis, (quantile(own_ms, share) for own_ms in samples if own_ms for share in (0.05, 0.95)))
        _lines(ax, [_short_label(r, differs) for r in few])
        ax.set_xlabel("milliseconds for one image", loc="right")
        _note(ax, title, len(few), len(own), "cells, the fastest")
    return figure


def _short_label(row: Row, differs: Sequence[str]) -> str:
    """A label that leaves room for the figure: the marker tells the weights."""
    parts = [row["backbone"], *([row["freeze"]] if row["task"] == "train" else []), row["head"]]
    parts += [wording.SOMETIMES[name](row[name]) for name in differs if row[name] not in (None, "")]
    text = " · ".join(parts)
    return text if len(text) <= 44 else text[:43] + "…"


SHADES = ("#8fb8de", "#5b8fc7", "#3a6ea8", "#c7a15b")


@_plot
def step_time(rows: Sequence[Row]) -> Figure:
    """Where the time of a training step goes: data, forward, backward, optimizer; mean over heads and settings."""
    names = [f"{part}_seconds" for part in STEP_PARTS]
    shown = _need(_figures_known(rows, *names), "these records do not say where a step's time goes")
    panels: dict[str, list[Row]] = {}
    for title, measured in _panels(shown, "device").items():
        groups: dict[str, list[Row]] = {}
        for row in measured:
            groups.setdefault(f"{row['backbone']} · {row['freeze']}", []).append(row)
        panels[title] = [
            {"line": line, **{name: fmean(r[name] for r in group) for name in names}} for line, group in groups.items()
        ]
    heights = [0.75 + LINE_INCHES * min(len(own), MOST_LINES) for own in panels.values()]
    legend = [Line2D([], [], marker="s", ls="", color=c, label=p) for p, c in zip(STEP_PARTS, SHADES, strict=True)]
    figure, axes = _figure(panels, heights, legend)
    for ax, title, own in axes:
        few = own[:MOST_LINES]
        totals = np.array([sum(row[name] for name in names) for row in few])
        left = np.zeros(len(few))
        for name, color in zip(names, SHADES, strict=True):
            widths = np.array([row[name] for row in few]) / totals
            ax.barh(range(len(few)), widths, left=left, color=color, height=0.7)
            left += widths
        _lines(ax, [f"{row['line']}, {wording.milliseconds(1000 * t)}" for row, t in zip(few, totals, strict=True)])
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(FuncFormatter(_percent))
        ax.set_xlabel("share of a training step", loc="right")
        _note(ax, title, len(few), len(own), "combinations")
    return figure


@_plot
def ceiling(rows: Sequence[Row]) -> Figure:
    """Floating-point operations a second, as a share of what a large matrix product reaches on the same machine."""
    shown = _need(_figures_known(rows, "ceiling_share"), "these records have no measured ceiling")
    look = Look.of(rows)
    panels = _panels(shown, "task", "device", "precision")
    models = {title: list(dict.fromkeys(map(wording.model, own))) for title, own in panels.items()}
    legend = look.legend(shown, models=False)
    figure, axes = _figure(panels, [0.75 + LINE_INCHES * len(models[t]) for t in panels], legend)
    for ax, title, own in axes:
        placed = [{**r, "place": models[title].index(wording.model(r))} for r in own]
        _scatter(ax, placed, "ceiling_share", "place", look)
        _lines(ax, models[title])
        ax.set_xlabel("share of the ceiling", loc="right")
        ax.set(xlim=(0, 1.08 * max(r["ceiling_share"] for r in own)))
        ax.xaxis.set_major_formatter(FuncFormatter(_percent))
    return figure


# --- training and noise ---------------------------------------------------------------------------------------


@_plot
def learning_curves(rows: Sequence[Row]) -> Figure:
    """Validation accuracy after each epoch against the seconds of training so far; a panel a backbone."""
    curves = {r["configuration"]: _curve(r) for r in rows if r["task"] == "train" and r["records_ok"]}
    shown = [r for r in rows if len(curves.get(r["configuration"], ())) > 1]
    if not shown:
        raise NotApplicable("no cell was trained for several epochs with an accuracy after each")
    look = Look.of(rows)
    by_model: dict[str, list[Row]] = {}
    for title, own in _panels(shown, "dataset", "device").items():
        for row in own:
            by_model.setdefault(f"{wording.model(row)} · {title}", []).append(row)
    best = sorted(by_model, key=lambda t: -max(r["accuracy_val"] or 0 for r in by_model[t]))[:MOST_PANELS]
    heads = list(dict.fromkeys(r["head"] for r in shown))
    dashes = dict(zip(heads, itertools.cycle(DASHES), strict=False))
    legend = look.legend(shown, models=False)
    if len(heads) > 1:
        legend += [Line2D([], [], color=INK, ls=dashes[h], label=f"head {h}") for h in heads]
    figure, axes = _figure({t: by_model[t] for t in by_model if t in best}, 2.3, legend)
    for ax, _, drawn in axes:
        lines = [(curves[row["configuration"]], look.color(row), dashes[row["head"]]) for row in drawn]
        _join(ax, lines, 1.3)
        points = [(*point, look.color(row), look.fill(row)) for row in drawn for point in curves[row["configuration"]]]
        x, y, edges, fills = zip(*points, strict=True)
        ax.scatter(x, y, edgecolors=edges, facecolors=fills, s=9, lw=0.8, zorder=3, rasterized=len(points) > MANY)
        _log(ax.xaxis, [x for row in drawn for x, _ in curves[row["configuration"]]])
        ax.set(xlabel="training time so far, seconds", ylabel="validation accuracy")
        ax.yaxis.set_major_formatter(FuncFormatter(_percent))
    if len(by_model) > len(best):
        ax, title, _ = axes[0]
        _note(ax, title, len(best), len(by_model), "backbones, the most accurate")
    return figure


def _curve(row: Row) -> list[tuple[float, float]]:
    """(seconds so far, validation accuracy) after each epoch, averaged over the seeds that have it."""
    runs = []
    for record in row["group"]:
        if record["status"] == "ok":
            passed = itertools.accumulate(record["round_seconds"])
            runs.append([(t, a) for t, a in zip(passed, record["round_accuracy_val"], strict=True) if a is not None])
    length = min(map(len, runs), default=0)
    return [(fmean(run[n][0] for run in runs), fmean(run[n][1] for run in runs)) for n in range(length)]


@_plot
def noise(rows: Sequence[Row]) -> Figure:
    """Spread of the timed rounds of each record: interquartile range over median. Crosses are flagged as not valid."""
    points: list[dict[str, Any]] = []
    for row in rows:
        for record in row["group"]:
            seconds = record["round_seconds"] or []
            if record["status"] == "ok" and len(seconds) >= 4 and len(set(record["round_phase"])) == 1:
                spread = (quantile(seconds, 0.75) - quantile(seconds, 0.25)) / median(seconds)
                flagged = record["validity"] not in (None, "ok")
                points.append({**row, "spread": max(spread, 1e-5), "flagged": flagged})
    if not points:
        raise NotApplicable("no record has four timed rounds of one phase, which a spread needs")
    look = Look.of(rows)
    panels = _panels(points, "task", "device")
    models = {title: list(dict.fromkeys(map(wording.model, own))) for title, own in panels.items()}
    legend = look.legend(points, models=False)
    if any(p["flagged"] for p in points):
        legend.append(Line2D([], [], marker="x", ls="", color=INK, ms=9, label="flagged"))
    figure, axes = _figure(panels, [0.75 + LINE_INCHES * len(models[t]) for t in panels], legend)
    for ax, title, own in axes:
        placed = [{**p, "place": models[title].index(wording.model(p))} for p in own]
        _scatter(ax, placed, "spread", "place", look)
        marked = [p for p in placed if p["flagged"]]
        ax.scatter(
            [p["spread"] for p in marked], [p["place"] for p in marked], marker="x", s=90, color=INK, lw=1, zorder=4
        )
        _log(ax.xaxis, (p["spread"] for p in own))
        ax.xaxis.set_major_formatter(FuncFormatter(_percent))
        _lines(ax, models[title])
        ax.set_xlabel("interquartile range, share of the median", loc="right")
    return figure


PLOTS: dict[str, Plot] = {
    "accuracy_against_cost": Plot(
        title="Accuracy against training time",
        caption="Up and to the left is better. The steps join the cells that no other beats in both; a ring is round "
        "those that stay unbeaten wherever in their intervals they lie. Bars are 95 % intervals over seeds or blocks; "
        "one that leaves the panel is wider.",
        draw=accuracy_against_cost,
    ),
    "accuracy_against_parameters": Plot(
        title="Accuracy against trainable parameters",
        caption="Few trainable parameters need not mean little work: gradients may still pass through the whole "
        "backbone. The table has the times.",
        draw=accuracy_against_parameters,
    ),
    "heat_map": Plot(
        title="Accuracy by backbone and policy",
        caption="Test accuracy in percent. n/a: means nothing for this backbone; skip: something was missing; fail, "
        "oom, time, div, stop: failed, out of memory, timed out, diverged, interrupted; –: not in the grid; *: the "
        "best of several settings by validation accuracy.",
        draw=heat_map,
    ),
    "learning_curves": Plot(
        title="Learning curves",
        caption="Validation accuracy after each epoch, the mean over seeds, against the time spent training.",
        draw=learning_curves,
    ),
    "speedup": Plot(
        title="Speed-up",
        caption="Ratio of times of matched cells, which differ in the device or precision alone. Bars are 95 % "
        "intervals over blocks or seeds; right of the line is faster.",
        draw=speedup,
    ),
    "freeze_efficiency": Plot(
        title="What freezing buys",
        caption="How many times as fast as full an epoch's FLOPs promise each policy to be, and how many times as fast "
        "it is. On the line the promise is kept; below the dotted one, which is at nine tenths of it, something that "
        "FLOPs do not count takes the time.",
        draw=freeze_efficiency,
    ),
    "throughput": Plot(
        title="Throughput", caption="Further right is faster. Inference does not depend on the policy.", draw=throughput
    ),
    "throughput_against_batch_size": Plot(
        title="Throughput against batch size",
        caption="Where the line is flat, a larger batch only costs memory.",
        draw=throughput_against_batch_size,
    ),
    "latency": Plot(
        title="Latency of one image",
        caption="The mark is the median, the bar the middle half; the line goes from the 5th to the 95th percentile.",
        draw=latency,
    ),
    "step_time": Plot(
        title="Where a step's time goes",
        caption="Of the first phase; the whole step's time stands beside the name. A mean over heads and settings.",
        draw=step_time,
    ),
    "ceiling": Plot(
        title="Share of the ceiling",
        caption="The ceiling is what a large matrix product reaches in the same precision and number of threads. "
        "The kernels of a convolution can come closer to the processor's peak than it does: a share may exceed 100 %.",
        draw=ceiling,
    ),
    "noise": Plot(
        title="Noise of the timed rounds",
        caption="A spread, not an interval: rounds of one cell share the machine's mood. Crosses are flagged records.",
        draw=noise,
    ),
}
