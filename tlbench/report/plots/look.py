"""Gives all figures one look: the freeze policy is the colour, the backbone the marker, the head its filling.

A point is a configuration, averaged over its seeds and blocks; bars are 95 % intervals. Nothing here reads or writes
files. One file, since all of it is that one look.
"""

from __future__ import annotations

import functools
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary
from xml.sax.saxutils import escape

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.analysis.frame import rows_of
from tlbench.analysis.summary import Configuration, summarise
from tlbench.errors import NotApplicable, UserError, printable
from tlbench.policies.parse import place_in_table
from tlbench.report import wording
from tlbench.report.plots import names
from tlbench.report.plots.picture import Picture, in_style

if TYPE_CHECKING:
    import pandas as pd

Point = Mapping[str, Any]
"""A configuration's row, with what a figure adds to it."""
Draw = Callable[[Sequence[Configuration]], Figure]

WIDTH_INCHES = 4.4
"""A figure is legible in one column of a paper, which is some 3.3 inches wide, and on a phone."""
PANEL_INCHES = 2.8
DOTS_PER_INCH = 150
LINE_INCHES = 0.24
"""Height of a line of text in a row of labels or in the legend."""
MANY = 1500
"""Most points drawn as vectors; with more a figure holds them as an image, since vectors would be megabytes."""
MOST_LINES = 30
"""Most labelled lines of a figure; the report's table has all."""
MOST_PANELS = 9

INK = "#010101"
"""Colour of text and axes: black to the eye, and nothing else's. The report replaces it by the page's own, so that one
figure serves light and dark; matplotlib leaves plain black out of an SVG.
"""
LARGE, SMALL = 40.0, 18.0
"""Areas of a marker, and of one of random weights, in square points."""
CORE, RING, DOT = 0.5, 1.38, 7.0
"""Sizes of a marker's filled middle and of the ring around it, as shares of its own; area of the dot, square points."""

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
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "savefig.facecolor": "auto",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollars in it is a name
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot is a row of the table of figures: what it is called, what is said of it and how it is drawn."""

    title: str
    caption: str
    draw: Draw
    """Draws a frame of records or `tlbench.analysis.summary`'s rows. Errors: NotApplicable saying what they lack."""
    words: Callable[[Sequence[Configuration]], Sequence[str]] | None = None
    """Says in sentences what the figure shows of these configurations, behind its caption; None where the caption says
    all."""

    def __call__(self, data: pd.DataFrame | Sequence[Configuration]) -> Picture:
        """Draws a frame of `tlbench.load`, also one that was filtered, put together with others or read from a file, or
        a summary. What is returned shows itself in a notebook: the figure, or what is missing for it.

        Errors: UserError for what is neither.
        """
        try:
            with in_style(STYLE):
                return Picture(title=self.title, figure=self.draw(shown(summary_of(data))), style=STYLE)
        except NotApplicable as error:
            return Picture(title=self.title, figure=None, missing=str(error))


def summary_of(data: pd.DataFrame | Sequence[Configuration]) -> Sequence[Configuration]:
    """Returns a row a configuration, of a frame of a row a record; of a summary, itself.

    Errors: NotApplicable naming columns that the frame lacks; UserError for what is neither.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        return data
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return summarise(rows_of(data))
    raise UserError(f"a figure is drawn from a frame that tlbench.load gives, not from {type(data).__name__}")


def shown(summary: Sequence[Configuration]) -> list[Configuration]:
    """Returns rows whose texts show all of themselves, and nothing but themselves (`tlbench.errors.printable`)."""
    return [
        {name: printable(value, keep="\n") if type(value) is str else value for name, value in row.items()}
        for row in summary
    ]


def styled(draw: Draw) -> Any:
    """Lets a figure be drawn from a frame of one row a record as well, and gives it the common style."""

    @functools.wraps(draw)
    def wrapped(data: pd.DataFrame | Sequence[Configuration]) -> Figure:
        with in_style(STYLE):
            return draw(summary_of(data))

    return wrapped


def as_svg(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG document with text that stays text, the same bytes for the same figure. ``name`` keeps
    its internal names apart from those of other figures in one page. A point says what it is when it is pointed at.
    """
    text = io.StringIO()
    figure.patch.set_visible(False)  # the paper is the page's, or the rectangle below
    with in_style({**STYLE, "svg.hashsalt": name}):
        # Not `savefig`, which draws every figure twice.
        figure.set_dpi(DOTS_PER_INCH)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    figure.patch.set_visible(True)
    told = _TOLD.get(figure, {})
    svg = _LINK.sub(lambda link: f'<a xlink:href="{link[1]}">{_title(told.get(link[1], ""))}', text.getvalue())
    clips: dict[str, str] = {}
    own = f"p{zlib.crc32(name.encode('utf-8', 'surrogatepass')):08x}-"
    svg = _CLIP.sub(lambda clip: clip[1] + clips.setdefault(clip[2], f"{own}{len(clips)}"), svg)
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + '\n <rect class="paper" width="100%" height="100%" fill="#ffffff"/>' + svg[start:]


_TOLD: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()
"""Figure -> where a point links to -> what it says when it is pointed at."""


def tell(figure: Any, link: str, words: str) -> None:
    """Lets a figure's points that link there say these words when they are pointed at in an SVG."""
    _TOLD.setdefault(figure, {})[link] = words


_LINK = re.compile(r'<a xlink:href="(#[^"]*)"(?: target="_blank")?>')
"""How matplotlib writes a point's link; since 3.11 with a target, which would open the page once more."""


_CLIP = re.compile(r'(url\(#|<clipPath id=")(p[0-9a-f]{10})\b')
"""Where matplotlib names what cuts a panel off, by a hash of its corners: their last bits differ from one layout of a
figure to the next."""


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


# --- the common look ------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """An entry of a legend: marks that are drawn over each other, and what they mean."""

    marks: tuple[Line2D, ...]
    label: str


Legend = Sequence[Sequence[Entry]]
"""Groups of entries; each begins a line of its own."""


class Mark(NamedTuple):
    """Says how the points of a row are drawn."""

    name: str
    link: str
    color: str
    sign: str
    marker: str
    filling: names.Filling
    size: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look gives colour and sign by policy, marker by backbone, filling by head; see `tlbench.report.plots.names`. A
    backbone with random weights has a smaller marker.
    """

    tones: Mapping[str, names.Tone]
    markers: Mapping[str, str]
    fillings: Mapping[str, names.Filling]
    differs: Sequence[str]
    """Columns that a point's words name, as those of the report's table do."""

    @classmethod
    def of(cls, rows: Sequence[Point]) -> Look:
        """Returns the look of all policies, backbones and heads of the rows."""
        return cls(
            tones={"none": names.Tone(names.NO_POLICY), **names.tones(policies_of(rows))},
            markers=names.markers(map(_marked, rows)),
            fillings=names.fillings(r["head"] for r in rows),
            differs=wording.varying(rows),
        )

    def color(self, row: Point) -> str:
        return self.tones[row["freeze"]].color

    def sign(self, row: Point) -> str:
        return self.tones[row["freeze"]].sign

    def marker(self, row: Point) -> str:
        return self.markers[_marked(row)]

    def filling(self, row: Point) -> names.Filling:
        return self.fillings[row["head"]]

    def dashes(self, head: str) -> tuple[float, tuple[float, ...]]:
        """Returns how the lines of a head are dashed."""
        return names.DASHES[self.fillings[head]]

    def size(self, row: Point) -> float:
        """Returns the area of a marker in square points."""
        return SMALL if row["weights"] == "random" else LARGE

    def mark(self, row: Point) -> Mark:
        """Returns all of it, and the row's name in the report's links."""
        name = row["configuration"]
        looks = self.color(row), self.sign(row), self.marker(row), self.filling(row), self.size(row)
        return Mark(name, f"#cell-{name}", *looks)

    def legend(self, rows: Sequence[Point], policies: bool = True, models: bool = True) -> list[list[Entry]]:
        """Returns the entries for what the rows have: of heads where there are several, or one that is not `linear`."""
        listed = policies_of(rows) if policies else []
        named = sorted({wording.model(row): row for row in rows}.items()) if models else []
        heads = heads_of(rows)
        return [
            [Entry(_marks("s", self.tones[p].color, sign=self.tones[p].sign), p) for p in listed],
            [Entry(_marks(self.marker(r), INK, size=self.size(r)), name) for name, r in named],
            [Entry(_marks("o", INK, self.fillings[h]), f"head {h}") for h in heads] if heads != ["linear"] else [],
        ]


def _marked(row: Point) -> str:
    """Returns what decides the marker: weights of a file are other ones than the backbone's own."""
    return row["backbone"] if row["weights"] in ("random", "pretrained", "auto") else wording.model(row)


def _marks(
    marker: str, color: str, filling: names.Filling = "full", sign: str = "", size: float = LARGE
) -> tuple[Line2D, ...]:
    """Returns what a point is drawn with, as lines of a legend."""
    style: Any = {"marker": marker, "ls": "", "ms": math.sqrt(size), "color": color, "mew": 1}
    marks = [Line2D([], [], fillstyle="none" if filling == "core" else filling, markerfacecoloralt="none", **style)]
    if filling == "core":
        marks.append(Line2D([], [], **style | {"ms": CORE * math.sqrt(size), "mew": 0}))
    if "ring" in sign:
        marks.append(
            Line2D([], [], fillstyle="none", **style | {"ms": RING * math.sqrt(size), "color": INK, "mew": 0.9})
        )
    if "dot" in sign:
        marks.append(Line2D([], [], **style | {"marker": "o", "ms": math.sqrt(DOT), "color": INK, "mew": 0}))
    return tuple(marks)


def heads_of(rows: Iterable[Point]) -> list[str]:
    """Returns the heads in the order of their table."""
    order = [*names.HEADS]
    found = {r["head"]: r["head"].partition("@")[0] for r in rows}
    return sorted(found, key=lambda head: (order.index(found[head]) if found[head] in order else len(order), head))


def policies_of(rows: Iterable[Point]) -> list[str]:
    """Returns the policies in the order of their table, which legends and heat maps have."""
    policies = dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train")
    return sorted(policies, key=lambda text: (place_in_table(text), text))
