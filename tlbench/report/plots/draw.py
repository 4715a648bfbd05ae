"""Holds what the figures are drawn with: panels, points with their intervals, axes, labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots.look import MANY, WIDTH_INCHES, Look, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def by_panel(rows: Iterable[Point], *columns: str) -> dict[str, list[Point]]:
    """Maps titles to rows: a panel for each combination of columns, and of the machine where a device has several."""
    rows = list(rows)
    places = {(r["device"], r["machine"]) for r in rows}
    if "device" in columns and len(places) > len({device for device, _ in places}):
        columns = (*columns, "machine")
    panels: dict[str, list[Point]] = {}
    for row in rows:
        words = {
            "machine": f"machine {row['machine']}",
            "task": {"train": "training", "infer": "inference"}[row["task"]],
        }
        panels.setdefault(" · ".join(words.get(name, str(row[name])) for name in columns), []).append(row)
    return panels


LONGEST = 72
"""Most characters of a panel's title: paths may be longer than a figure is wide."""


def shortened(title: str) -> str:
    """Returns the beginning and the end of a title that is too long."""
    return title if len(title) <= LONGEST else f"{title[:24]}…{title[-(LONGEST - 25) :]}"


def new_figure(
    panels: Mapping[str, Sequence[Point]], heights: Sequence[float] | float, legend: Sequence[Line2D] = ()
) -> tuple[Figure, list[tuple[Axes, str, Sequence[Point]]]]:
    """Returns a figure and (axes, title, rows) of its panels. They stand below each other, which reads on a phone as
    well, with the legend under them.
    """
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
        ax.set_title(shortened(title))
    return figure, [(ax, title, rows) for ax, (title, rows) in zip(axes, panels.items(), strict=True)]


def _legend_columns(legend: Sequence[Line2D]) -> int:
    """Returns as many columns as fit: a character is about 0.075 inches wide."""
    longest = max((len(str(line.get_label())) for line in legend), default=1)
    return max(1, min(4, int(WIDTH_INCHES / (0.4 + 0.075 * longest))))


def scatter(ax: Axes, rows: Sequence[Point], x: str, y: str, look: Look) -> None:
    """Draws a point and its interval both ways for each row; each point links to the row's section in the report."""
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


def join_points(ax: Axes, lines: Sequence[tuple[Any, str, str]], width: float = 1) -> None:
    """Draws lines through points, as (points, colour, dashes)."""
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
"""Factor by which a logarithmic axis goes beyond its points: an interval of two blocks can span many decades, and would
make all points one. What is wider leaves the panel.
"""


def log_axis(axis: Any, values: Iterable[float]) -> None:
    """Makes an axis over the points logarithmic, with labels in plain numbers, enough of them within one decade too."""
    shown = [value for value in values if value]
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.axes.autoscale_view()
    low, high = sorted(axis.get_view_interval())
    low, high = max(low, min(shown) / MARGIN), min(high, max(shown) * MARGIN)
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    decades = math.log10(high / low)
    few, several, many = (1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=few if decades > 2.5 else several if decades > 0.8 else many))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axis.set_minor_formatter(NullFormatter())


def tick(value: float) -> str:
    """Writes ``0.5``, ``20``, ``1 k``, ``1.5 M``."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.999 * factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def percent_tick(value: float, _: object) -> str:
    """Writes a share as ``95 %``."""
    return f"{100 * value:.3g} %"


def name_lines(ax: Axes, labels: Sequence[str]) -> None:
    """Makes the y axis categorical, the first line on top."""
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylabel("")


def say_shown(ax: Axes, title: str, shown: int, total: int, what: str) -> None:
    """Says in the title when a figure shows only some."""
    if shown < total:
        ax.set_title(f"{shortened(title)}\n({shown} of {total} {what}; the table has all)")


def need(rows: Sequence[Point], otherwise: str) -> list[Point]:
    """Returns the rows as a list. Errors: NotApplicable where there are none."""
    if not rows:
        raise NotApplicable(otherwise)
    return list(rows)


def with_figures(rows: Sequence[Point], *names: str) -> list[Point]:
    """Returns the rows that finished and have all these figures."""
    return [r for r in rows if r["records_ok"] and all(r[name] is not None for name in names)]
