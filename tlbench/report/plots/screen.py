"""The figure of a screen: what each backbone's frozen features are worth, against what a pass over the images takes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from tlbench.analysis.screens import Screened
from tlbench.errors import NotApplicable
from tlbench.report.plots import labels
from tlbench.report.plots.look import LINE_INCHES, MOST_LINES, STYLE, WIDTH_INCHES
from tlbench.report.plots.picture import Picture, in_style

TITLE = "What frozen features are worth"
RIDGE, KNN = "#0072b2", "#e69f00"
"""Colours of the two columns: of Okabe and Ito's palette, which the colour-blind tell apart."""


def screen_picture(rows: Sequence[Screened]) -> Picture:
    """Draws the rows of a screen that were looked at; the best are at the top."""
    try:
        with in_style(STYLE):
            return Picture(title=TITLE, figure=_drawn(rows), style=STYLE)
    except NotApplicable as error:
        return Picture(title=TITLE, figure=None, missing=str(error))


def _drawn(rows: Sequence[Screened]) -> Figure:
    """Returns the figure. Errors: NotApplicable where no backbone was looked at."""
    shown = sorted((row for row in rows if row.ridge is not None), key=lambda row: -(row.ridge or 0))[:MOST_LINES]
    if not shown:
        raise NotApplicable("no backbone's features were looked at")
    figure = Figure(figsize=(WIDTH_INCHES, 0.9 + LINE_INCHES * len(shown)), layout="constrained")
    ax = figure.subplots()
    places = range(len(shown))
    for label, color, values in (
        ("ridge", RIDGE, [row.ridge for row in shown]),
        ("5 nearest neighbours", KNN, [row.knn for row in shown]),
    ):
        ax.plot([100 * (value or 0) for value in values], places, "o", color=color, label=label, ms=6)
    names = [f"{row.backbone}, {row.seconds:.1f} s" if row.seconds is not None else row.backbone for row in shown]
    ax.set_yticks(list(places), labels.named(names, 2.2))
    ax.invert_yaxis()
    ax.set_title(TITLE)
    ax.set_xlabel("% of training images right, each left out of its own fit")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
