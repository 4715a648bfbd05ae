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
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tlbench.analysis.summary import summarise
from tlbench.errors import NotApplicable
from tlbench.policies.parse import place_in_table
from tlbench.report import wording

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
    """Takes a frame of records or `tlbench.analysis.summary`'s rows. Errors: NotApplicable saying what they lack."""


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
    names = dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train")
    return sorted(names, key=lambda text: (place_in_table(text), text))


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
