"""Gives all figures one look: the freeze policy is the colour, the backbone with its weights the marker.

A point is a configuration, averaged over its seeds and blocks; bars are 95 % intervals. Nothing here reads or writes
files.
"""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.analysis.frame import rows_of
from tlbench.analysis.summary import Configuration, summarise
from tlbench.policies.parse import place_in_table
from tlbench.report import wording

if TYPE_CHECKING:
    import pandas as pd

Point = Mapping[str, Any]
"""A configuration's row, with what a figure adds to it."""
Draw = Callable[[Sequence[Configuration]], Figure]

WIDTH_INCHES = 5.2
PANEL_INCHES = 3.0
DOTS_PER_INCH = 150
LINE_INCHES = 0.24
"""Height of a line of text in a row of labels or in the legend."""
MANY = 1500
"""Most points drawn as vectors; with more a figure holds them as an image, since vectors would be megabytes."""
MOST_LINES = 30
"""Most labelled lines of a figure; the report's table has all."""
MOST_PANELS = 9

INK = "#123456"
"""Colour of text and axes. The report replaces it by the page's own, so that one figure serves light and dark."""
COLORS = ("#0268c0", "#e58c09", "#01aa86", "#7922fd", "#cf220a", "#e47fd0", "#b3a354", "#a6553f")
"""Colours of which any two are at least 20 apart in CIE Lab, also as the colour-blind see them (the three simulations
of Machado 2009), and each has a contrast of 2.5 or more both on white and on the report's dark page.
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
    """A plot is a row of the table of figures: what it is called, what is said of it and how it is drawn."""

    title: str
    caption: str
    draw: Draw
    """Draws a frame of records or `tlbench.analysis.summary`'s rows. Errors: NotApplicable saying what they lack."""


def styled(draw: Draw) -> Any:
    """Lets a figure be drawn from a frame of one row a record as well, and gives it the common style."""

    @functools.wraps(draw)
    def wrapped(data: pd.DataFrame | Sequence[Configuration]) -> Figure:
        rows = data if isinstance(data, Sequence) else summarise(rows_of(data))
        with mpl.rc_context(STYLE):
            return draw(rows)

    return wrapped


def as_svg(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG document with text that stays text, the same bytes for the same figure. ``name`` keeps
    its internal names apart from those of other figures in one page.
    """
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        # Not `savefig`, which draws every figure twice.
        figure.set_dpi(DOTS_PER_INCH)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '\n <rect class="paper" width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


# --- the common look ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look gives colour (and filling) by policy, marker by backbone and weights."""

    colors: Mapping[str, str]
    open: frozenset[str]
    """Policies that are drawn as open markers, since there are more policies than colours."""
    markers: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[Point]) -> Look:
        """Shares colours and markers out among the policies and backbones of the rows."""
        policies = policies_of(rows)
        models = list(dict.fromkeys(map(wording.model, rows)))
        return cls(
            colors={"none": NO_POLICY, **dict(zip(policies, itertools.cycle(COLORS), strict=False))},
            open=frozenset(p for n, p in enumerate(policies) if n // len(COLORS) % 2),
            markers=dict(zip(models, itertools.cycle(MARKERS), strict=False)),
        )

    def color(self, row: Point) -> str:
        return self.colors[row["freeze"]]

    def fill(self, row: Point) -> str:
        return "none" if row["freeze"] in self.open else self.color(row)

    def legend(self, rows: Sequence[Point], policies: bool = True, models: bool = True) -> list[Line2D]:
        """Returns the entries for what the rows have."""
        listed = policies_of(rows) if policies else []
        named = dict.fromkeys(map(wording.model, rows)) if models else {}
        return [
            *(
                Line2D([], [], marker="s", ls="", color=self.colors[p], mfc="none" if p in self.open else None, label=p)
                for p in listed
            ),
            *(Line2D([], [], marker=self.markers[m], ls="", color=INK, label=m) for m in named),
        ]


def policies_of(rows: Iterable[Point]) -> list[str]:
    """Returns the policies in the order of their table, so that the best one of a run does not change the colours."""
    names = dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train")
    return sorted(names, key=lambda text: (place_in_table(text), text))
