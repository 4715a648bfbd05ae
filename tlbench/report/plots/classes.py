"""Figures of the classes: which are taken for which, and whether a confidence means what it says. Both are of the most
accurate configuration of each data set and device; of another one, a frame that has it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory
from numpy.typing import NDArray

from tlbench.analysis import answers as analysis
from tlbench.analysis import mistakes
from tlbench.analysis.answers import Answers
from tlbench.analysis.mistakes import Mistaken
from tlbench.errors import NotApplicable, printable
from tlbench.report import wording
from tlbench.report.class_pictures import FEW_CLASSES, MOST_WHOLE
from tlbench.report.plots import labels
from tlbench.report.plots.draw import TITLE_AT, by_panel, draw_marks, need, new_figure, say_shown
from tlbench.report.plots.look import INK, WIDTH_INCHES, Look, Point, styled
from tlbench.report.plots.names import NO_POLICY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

T = TypeVar("T")

MOST_SHOWN = 3
"""Most configurations of a figure."""
MISTAKEN = "#a3195b"
"""Colour of what is taken for another class: that of no policy. What is right has `NO_POLICY`."""
FAINTEST, DEEPEST = 0.10, 0.80
"""Opacities of the smallest share of a class that is shown, and of all of it: figures stand out on either, and the
paper, white or dark, shines through."""
NAMES_INCHES = 1.35
"""Most inches that the name of a class takes."""
TITLE_POINTS = 6
"""Of a title above its panel, as matplotlib has it."""
BESIDE_INCHES = 0.12
"""Room on either side of a matrix and the names of its rows."""
CELL_INCHES = 0.42
"""Most inches that a row of a matrix is high."""
OTHERS = "any other"
FIGURES_POINTS = 6.5
"""Size of the figures in a matrix and in bins, so that four digits fit."""


def _answered(rows: Sequence[Point], take: Callable[[Answers], T]) -> tuple[dict[str, tuple[Point, Answers, T]], int]:
    """Maps titles to the leading configurations, what their models answered and what ``take`` makes of that; and says
    how many there are of them. Errors: NotApplicable saying what the records lack.
    """
    leading = need(analysis.leaders(rows), "no finished cell measures an accuracy on test images")
    titles = {id(row): title for title, panel in by_panel(leading, "dataset", "device").items() for row in panel}
    found, reason = {}, ""
    for row in leading:
        try:
            answers = analysis.answers_of(row)
            found[f"{wording.label(row)} · {titles[id(row)]}"] = row, answers, take(answers)
        except NotApplicable as error:
            reason = reason or str(error)
    if not found:
        raise NotApplicable(reason)
    return dict(list(found.items())[:MOST_SHOWN]), len(found)


# --- what is taken for what -----------------------------------------------------------------------------------


@styled
def confusion(rows: Sequence[Point]) -> Figure:
    """Draws which classes are taken for which on the test images, summed over seeds: a row a true class, a column what
    it is taken for. Of many classes, the most often mistaken with their names, and all of them without, in an order in
    which those that are taken for each other stand side by side.
    """
    found, count = _answered(rows, lambda answers: answers.classes)
    panels: dict[str, list[Point]] = {}
    for title, (_, answers, _) in found.items():
        pairs = mistakes.mistaken(answers)
        every = list(range(len(answers.classes)))
        if len(every) <= FEW_CLASSES:
            panels[title] = [{"answers": answers, "classes": every}]
            continue
        if few := mistakes.side_by_side(mistakes.most_mistaken(pairs, FEW_CLASSES), pairs):
            most = f"the {len(few)} most often mistaken of {len(every):,} classes"
            panels[f"{title} · {most}"] = [{"answers": answers, "classes": few}]
        if len(every) <= MOST_WHOLE:
            panels[f"{title} · all {len(every):,} classes"] = [{"answers": answers, "pairs": pairs}]
    if not panels:
        raise NotApplicable("every answer is right, and there are too many classes for a matrix of all of them")
    named = {title: _names(panel[0]) for title, panel in panels.items()}
    widest = max((_width(text) for texts in named.values() for text in texts), default=0.0)
    across = WIDTH_INCHES - widest - 2 * BESIDE_INCHES
    heights = [_height(named[title], panel[0], across, widest) for title, panel in panels.items()]
    figure, axes = new_figure(panels, heights, beside=0)
    for ax, title, panel in axes:
        _title_over_all(ax)
        if "pairs" in panel[0]:
            _draw_whole(ax, panel[0]["answers"], panel[0]["pairs"])
        else:
            _draw_block(ax, panel[0]["answers"], panel[0]["classes"], named[title], across)
    say_shown(axes[-1][0], len(found), count, "data sets and devices")
    return figure


def _title_over_all(ax: Axes) -> None:
    """Lets a title begin at the left edge of the figure: beside the names of classes it would have too little room."""
    title = ax.set_title(ax.get_title(loc="left"), y=TITLE_AT)
    up = ScaledTranslation(0, TITLE_POINTS / 72, ax.figure.dpi_scale_trans)
    title.set_transform(blended_transform_factory(ax.figure.transFigure, ax.transAxes) + up)
    title.set_x(0.01)


def _names(panel: Point) -> list[str]:
    """Returns the names of a matrix's rows so that they fit; none of the matrix of all classes."""
    if "pairs" in panel:
        return []
    every = panel["answers"].classes
    return labels.named([printable(every[one]) for one in panel["classes"]], NAMES_INCHES)


def _width(name: str) -> float:
    """Returns the inches of a name, which may have several lines."""
    return max(map(labels.inches, name.split("\n")))


def _height(names: Sequence[str], panel: Point, across: float, widest: float) -> float:
    """Returns the inches of a panel: rows as high as columns are wide, at most `CELL_INCHES`."""
    if "pairs" in panel:
        return 0.55 + across
    columns = len(names) + (len(names) < len(panel["answers"].classes))
    lines = 1 + max((text.count("\n") for text in names), default=0)
    row = max(min(CELL_INCHES, across / columns), 0.16 * lines)
    return 0.6 + row * len(names) + max(widest, labels.inches(OTHERS))


def opacity(share: NDArray[np.float64] | float) -> Any:
    """Returns the opacity of a share of a class: the root, so that a few mistakes are seen beside many right answers;
    nothing is nothing."""
    deep = FAINTEST + (DEEPEST - FAINTEST) * np.sqrt(share)
    return np.where(np.asarray(share) > 0, deep, 0.0)


def _colours(shares: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns red, green, blue and opacity (rows, columns, 4) for the shares of the rows' classes."""
    from matplotlib.colors import to_rgb

    found = np.empty((*shares.shape, 4))
    found[..., :3] = np.where(right[..., None], to_rgb(NO_POLICY), to_rgb(MISTAKEN))
    found[..., 3] = opacity(shares)
    return found


def _draw_block(ax: Axes, answers: Answers, classes: Sequence[int], names: Sequence[str], across: float) -> None:
    """Draws a matrix with names and figures, so many inches wide; its last column is of other classes, if any."""
    counts = mistakes.counts_among(classes, answers)
    if len(classes) == len(answers.classes):
        counts = counts[:, :-1]
    asked = np.maximum(answers.asked[list(classes)], 1)
    colours = _colours(counts / asked[:, None], np.eye(*counts.shape, dtype=np.bool_))
    places = [(y, x) for y in range(counts.shape[0]) for x in range(counts.shape[1])]
    squares = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for y, x in places]
    faces = [tuple(colours[place]) for place in places]
    ax.add_collection(PolyCollection(squares, facecolors=faces, edgecolors="#9a9a9a", linewidths=0.5))
    for y, x in zip(*counts.nonzero(), strict=True):
        ax.text(
            x + 0.5, y + 0.5, labels.tick(counts[y, x]).replace(" ", ""), ha="center", va="center",
            fontsize=FIGURES_POINTS if counts.shape[1] > 6 else 8, color=INK, in_layout=False,
        )  # fmt: skip
    ax.set(xlim=(0, counts.shape[1]), ylim=(counts.shape[0], 0))
    ax.set_yticks(np.arange(len(names)) + 0.5, names, linespacing=1.0)
    below = [*names, OTHERS][: counts.shape[1]]
    upright = max(map(_width, below)) > 0.9 * across / counts.shape[1]
    ax.set_xticks(np.arange(len(below)) + 0.5, below, rotation=90 if upright else 0, linespacing=1.0)
    _bare(ax)
    ax.set_xlabel("taken for", loc="right")


def _draw_whole(ax: Axes, answers: Answers, pairs: Sequence[Mistaken]) -> None:
    """Draws the matrix of all classes as an image, without names."""
    classes = mistakes.side_by_side(range(len(answers.classes)), pairs)
    counts = mistakes.counts_among(classes, answers)[:, :-1]
    shares = counts / np.maximum(answers.asked[classes], 1)[:, None]
    side = len(classes)
    ax.imshow(
        _colours(shares, np.eye(side, dtype=np.bool_)),
        aspect="auto",
        interpolation="nearest",
        extent=(0, side, side, 0),
    )
    ax.set_xticks([])
    ax.set_yticks([])
    _bare(ax)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#9a9a9a", linewidth=0.6)
    ax.set_xlabel("taken for", loc="right")
    ax.set_ylabel("true class")


def _bare(ax: Axes) -> None:
    ax.tick_params(length=0)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)


# --- confidence -----------------------------------------------------------------------------------------------


@styled
def reliability(rows: Sequence[Point]) -> Figure:
    """Draws the share of answers that is right against their confidence, in bins, with the number of answers in each; a
    panel a configuration.
    """
    found, count = _answered(rows, analysis.reliability)
    look = Look.of(rows)
    figure, axes = new_figure({title: [row] for title, (row, _, _) in found.items()}, 3.1)
    for ax, title, _ in axes:
        row, _, measured = found[title]
        _draw_bins(ax, measured, row, look)
        ece, nll = wording.percent(measured.ece), wording.number(measured.nll)
        ax.set_title(f"{ax.get_title(loc='left')}\nECE {ece}, NLL {nll}", y=TITLE_AT)
    say_shown(axes[-1][0], len(found), count, "data sets and devices")
    return figure


COUNTS = -0.22
"""Where the strip with the numbers of answers begins, below the bins."""


def _draw_bins(ax: Axes, measured: analysis.Reliability, row: Point, look: Look) -> None:
    width = 1 / len(measured.bins)
    filled = [one for one in measured.bins if one.count]
    most = max(one.count for one in filled)
    middles = [(n + 0.5) * width for n, one in enumerate(measured.bins) if one.count]
    color = look.color(row)
    ax.bar(middles, [one.right for one in filled], width=0.92 * width, color=color, alpha=0.35)
    ax.bar(
        middles, [-COUNTS * 0.85 * one.count / most for one in filled], bottom=COUNTS, width=0.92 * width,
        color=NO_POLICY, alpha=0.55,
    )  # fmt: skip
    ax.plot([0, 1], [0, 1], color=INK, lw=1)
    ax.axhline(0, color=INK, lw=0.8)
    draw_marks(ax, [row] * len(filled), [(one.confidence, one.right) for one in filled], look, share=0.6)
    for middle, one in zip(middles, filled, strict=True):
        ax.text(
            middle, COUNTS + 0.01, labels.tick(one.count).replace(" ", ""), ha="center", va="bottom", rotation=90,
            fontsize=FIGURES_POINTS, color=INK, in_layout=False,
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(COUNTS, 1.02), xlabel="confidence, and below the line how many answers")
    ax.set_ylabel("right", loc="top")
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(labels.percent_ticks())
