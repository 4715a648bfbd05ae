"""Holds what the figures are drawn with: panels, points with their intervals, axes, labels."""

from __future__ import annotations

import functools
import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend_handler import HandlerTuple
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as MarkerPath
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import Affine2D

from tlbench.data.short_names import data_sets
from tlbench.errors import NotApplicable
from tlbench.report.plots import labels
from tlbench.report.plots.look import (
    CORE,
    DOT,
    INK,
    LINE_INCHES,
    MANY,
    RING,
    WIDTH_INCHES,
    Entry,
    Legend,
    Look,
    Point,
    tell,
)
from tlbench.report.plots.ticks import log_locator

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def by_panel(rows: Iterable[Point], *columns: str) -> dict[str, list[Point]]:
    """Maps titles to rows: a panel for each combination of columns; of the machine, too, where a device has several,
    and of the precision where there are several.
    """
    rows = list(rows)
    places = {(r["device"], r["machine"]) for r in rows}
    if "device" in columns and len(places) > len({device for device, _ in places}):
        columns = (*columns, "machine")
    if "device" in columns and "precision" not in columns and len({r["precision"] for r in rows}) > 1:
        columns = (*columns, "precision")
    short = data_sets({r["dataset"] for r in rows})
    panels: dict[str, list[Point]] = {}
    for row in rows:
        words = {
            "machine": f"machine {row['machine']}",
            "task": {"train": "training", "infer": "inference"}[row["task"]],
            "dataset": short[row["dataset"]],
        }
        panels.setdefault(" · ".join(words.get(name, str(row[name])) for name in columns), []).append(row)
    return panels


TITLE_INCHES = 0.16
"""Height of a further line of a title."""
TITLE_AT = 1.0
"""Where a title stands, as a share of its panel's height: above it, where no panel has ticks or a factor of them.
matplotlib would look for these by laying out all labels, each time that it draws or measures.
"""


def new_figure(
    panels: Mapping[str, Sequence[Point]],
    heights: Sequence[float] | float,
    legend: Legend = (),
    beside: float = 0.7,
) -> tuple[Figure, list[tuple[Axes, str, Sequence[Point]]]]:
    """Returns a figure and (axes, title, rows) of its panels. They stand below each other, which reads on a phone as
    well, with the legend under them. ``beside``: inches on the left of the panels, for what names their lines.
    """
    titles = {title: labels.broken(title, WIDTH_INCHES - beside - 0.15) for title in panels}
    each = [heights] * len(panels) if isinstance(heights, int | float) else list(heights)
    each = [h + TITLE_INCHES * titles[title].count("\n") for h, title in zip(each, panels, strict=True)]
    below = sum(_group_inches(group) for group in legend)
    height = sum(each) + below
    room = (0, below / height, 1, 1 - below / height)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout=ConstrainedLayoutEngine(rect=room))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=each)[:, 0]
    _put_legend(figure, legend, below, height)
    for ax, title in zip(axes, panels, strict=True):
        ax.set_title(titles[title], y=TITLE_AT)
    return figure, [(ax, title, rows) for ax, (title, rows) in zip(axes, panels.items(), strict=True)]


LEGEND_POINTS = 8.5
LEGEND_INCHES = 0.16
"""Height of a line of a legend."""


def _legend_columns(group: Sequence[Entry]) -> int:
    """Returns how many columns of a group of a legend fit beside each other, filled one after the other."""
    widths = [0.4 + labels.inches(entry.label, LEGEND_POINTS) for entry in group]
    for columns in range(len(group), 1, -1):
        if sum(max(part) for part in np.array_split(widths, columns)) <= WIDTH_INCHES:
            return columns
    return 1


def _group_inches(group: Sequence[Entry]) -> float:
    return LEGEND_INCHES * math.ceil(len(group) / _legend_columns(group)) + 0.07 if group else 0.0


def _put_legend(figure: Figure, legend: Legend, below: float, height: float) -> None:
    """Writes the groups of a legend, each on lines of its own, into the lowest ``below`` inches of ``height``."""
    top = below
    for group in legend:
        if not group:
            continue
        drawn = figure.legend(
            handles=[entry.marks for entry in group],
            labels=[labels.fitted(entry.label, WIDTH_INCHES - 0.5, LEGEND_POINTS) for entry in group],
            handler_map={tuple: HandlerTuple()},
            loc="upper left", bbox_to_anchor=(0, top / height), ncols=_legend_columns(group), handletextpad=0.4,
            columnspacing=1.2, borderaxespad=0.1, borderpad=0.2, labelspacing=0.3, handlelength=1.6,
        )  # fmt: skip
        drawn.set_in_layout(False)
        top -= _group_inches(group)


# --- points ---------------------------------------------------------------------------------------------------


def with_more(row: Point, **more: Any) -> Point:
    """Returns a row with further figures. It is not copied: each of 50,000 records may be a point."""
    below: Any = row
    return ChainMap(more, below)


@functools.cache
def _path(marker: str, filling: str) -> MarkerPath:
    """Returns the outline of a marker, or of the part of it that is filled."""
    style = MarkerStyle(marker, fillstyle=filling if filling in ("left", "right", "top", "bottom") else "full")  # type: ignore[arg-type]
    scale = CORE if filling == "core" else 1.0
    return style.get_path().transformed(style.get_transform() + Affine2D().scale(scale))


def scatter(ax: Axes, rows: Sequence[Point], x: str, y: str, look: Look) -> None:
    """Draws a point and its interval both ways for each row; each point links to the row's section in the report and
    says what it is when it is pointed at.
    """
    bars, colors = [], []
    for row in rows:
        for upright, name in ((False, x), (True, y)):
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            if low is not None and high is not None:
                bars.append([(row[x], low), (row[x], high)] if upright else [(low, row[y]), (high, row[y])])
                colors.append(look.color(row))
    scatter_at(ax, rows, [(row[x], row[y]) for row in rows], look, bars, colors)


def scatter_at(
    ax: Axes,
    rows: Sequence[Point],
    places: Sequence[tuple[float, float]],
    look: Look,
    bars: Sequence[Any] = (),
    colors: Sequence[str] = (),
) -> None:
    """Draws a point for each row at its place, over bars of some colours. One row may stand there many times."""
    many = len(rows) > MANY
    ax.add_collection(LineCollection(bars, colors=colors, lw=1, alpha=0.55, zorder=2, rasterized=many), autolim=True)
    draw_marks(ax, rows, places, look)


def draw_marks(
    ax: Axes, rows: Sequence[Point], places: Sequence[tuple[float, float]], look: Look, share: float = 1
) -> None:
    """Draws the marker of each row at its place: filling, outline and sign; ``share`` of its area."""
    different = {id(row): row for row in rows}  # many points may be of one
    known = {name: look.mark(row) for name, row in different.items()}
    marks = [known[id(row)] for row in rows]
    sizes = [share * mark.size for mark in marks]
    outlines = [_path(mark.marker, "full") for mark in marks]
    colors = [mark.color for mark in marks]
    parts = [mark.filling not in ("full", "none") for mark in marks]
    inside = [_path(mark.marker, mark.filling) for mark in marks]
    rings = ["ring" in mark.sign for mark in marks]
    dots = ["dot" in mark.sign for mark in marks]
    full = [mark.color if mark.filling == "full" else "none" for mark in marks]
    rounds, round_path = [RING**2 * size for size in sizes], [_path("o", "full")] * len(rows)
    for chosen, paths, areas, faces, edges, width in (
        (rings, outlines, rounds, ["none"] * len(rows), [INK] * len(rows), 0.9),
        (parts, inside, sizes, colors, ["none"] * len(rows), 0.0),
        ([True] * len(rows), outlines, sizes, full, colors, 1.0),
        (dots, round_path, [share * DOT] * len(rows), [INK] * len(rows), ["none"] * len(rows), 0.0),
    ):
        kept = [n for n, drawn in enumerate(chosen) if drawn]
        if not kept:
            continue
        points = ax.scatter(
            [places[n][0] for n in kept], [places[n][1] for n in kept], s=[areas[n] for n in kept],
            facecolors=[faces[n] for n in kept], edgecolors=[edges[n] for n in kept], lw=width, zorder=3,
            rasterized=len(rows) > MANY,
        )  # fmt: skip
        points.set_paths([paths[n] for n in kept])
        # The last that is drawn at a place is what is pointed at: all have the link and the words.
        points.set_urls([marks[n].link for n in kept])
    for name, row in {marks[n].name: rows[n] for n in range(len(rows))}.items():
        tell(ax.figure, f"#cell-{name}", labels.about_point(row, look.differs))


def join_points(ax: Axes, lines: Sequence[tuple[Any, str, Any]], width: float = 1) -> None:
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
    if low == high:  # all in one place
        low, high = low / MARGIN, high * MARGIN
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    axis.set_major_locator(log_locator(low, high))
    axis.set_major_formatter(labels.plain_ticks())
    axis.set_minor_formatter(NullFormatter())


NAME_INCHES = 1.75
"""Most inches that the names of lines take of a figure's width."""


def named_lines(names: Sequence[str]) -> tuple[list[str], float, float]:
    """Returns the names of lines so that they fit, the height that each line needs and the width of the widest name, in
    inches.
    """
    texts = labels.named(names, NAME_INCHES)
    height = LINE_INCHES + 0.15 * max((text.count("\n") for text in texts), default=0)
    return texts, height, max((labels.inches(line) for text in texts for line in text.split("\n")), default=0.0)


def figure_of_lines(
    panels: Mapping[str, Sequence[Point]], names: Mapping[str, Sequence[str]], legend: Legend = ()
) -> tuple[Figure, list[tuple[Axes, str, Sequence[Point]]]]:
    """Returns `new_figure`'s for panels whose y axis names lines, as high as these need."""
    needs = {title: named_lines(names[title]) for title in panels}
    heights = [0.75 + height * len(texts) for texts, height, _ in needs.values()]
    figure, axes = new_figure(panels, heights, legend, max(width for _, _, width in needs.values()))
    for ax, title, _ in axes:
        name_lines(ax, names[title])
    return figure, axes


def name_lines(ax: Axes, names: Sequence[str], at: float = 0.0) -> None:
    """Makes the y axis categorical, the first line on top, the middle of the first at ``at``."""
    ax.set_ylim(len(names) - 0.5 + at, at - 0.5)
    ax.set_yticks([n + at for n in range(len(names))], named_lines(names)[0], linespacing=1.1)
    ax.set_ylabel("")


def say_shown(ax: Axes, shown: int, total: int, what: str) -> None:
    """Says in the title when a figure shows only some."""
    if shown < total:
        ax.set_title(f"{ax.get_title(loc='left')}\n({shown} of {total} {what}; the table has all)", y=TITLE_AT)


def need(rows: Sequence[Point], otherwise: str) -> list[Point]:
    """Returns the rows as a list. Errors: NotApplicable where there are none."""
    if not rows:
        raise NotApplicable(otherwise)
    return list(rows)


def with_figures(rows: Sequence[Point], *names: str) -> list[Point]:
    """Returns the rows that finished and have all these figures."""
    return [r for r in rows if r["records_ok"] and all(r[name] is not None for name in names)]
