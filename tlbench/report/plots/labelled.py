"""Figure of label efficiency: test accuracy against the number of training images, by policy and backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from tlbench.analysis.label_efficiency import Crossing, Curve, crossings, curves
from tlbench.errors import NotApplicable
from tlbench.report import size_words, wording
from tlbench.report.plots import labels
from tlbench.report.plots.accuracy import accuracy_axes
from tlbench.report.plots.draw import by_panel, draw_marks, join_points, new_figure, say_shown, with_more
from tlbench.report.plots.look import INK, MOST_PANELS, WIDTH_INCHES, Entry, Look, Point, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 2.5
BETWEEN_TICKS = 0.12
"""Inches that lie at least between the texts of two ticks."""
AXES_INCHES = WIDTH_INCHES - 1.0
"""Width of a panel, less what stands on its left, about."""


@styled
def label_efficiency(rows: Sequence[Point]) -> Figure:
    """Draws test accuracy against training images, a line a policy with a band over images and seeds, a panel a
    backbone; crosses mark where two policies cross beyond chance, with the interval of that place.
    """
    found = curves(rows)
    if not found:
        raise NotApplicable(
            "no policy was trained at several train sizes with a test accuracy; run with --train-size 50,100,200,all"
        )
    look, shown = Look.of(rows), [_with_images(curve) for curve in found]
    by_curve = {id(points[0]): curve for points, curve in zip(shown, found, strict=True)}
    by_model: dict[str, list[list[Point]]] = {}
    for title, firsts in by_panel([points[0] for points in shown], "dataset", "device").items():
        kept = set(map(id, firsts))
        for points in shown:
            if id(points[0]) in kept:
                by_model.setdefault(f"{wording.model(points[0])} · {title}", []).append(points)
    best = sorted(by_model, key=lambda t: -max(p[-1]["accuracy_val"] or 0 for p in by_model[t]))[:MOST_PANELS]
    panels = {title: [row for points in by_model[title] for row in points] for title in by_model if title in best}
    every = [row for drawn in panels.values() for row in drawn]
    pairs = [one for one in crossings(found) if one.found.outcome == "crosses"]
    legend = [*look.legend(every), [CROSSING] if pairs else []]
    figure, axes = new_figure(panels, PANEL_INCHES, legend)
    for ax, title, drawn in axes:
        members = by_model[title]
        _draw_curves(ax, members, look)
        accuracy_axes(ax, drawn, "images", "labelled training images")
        _size_ticks(ax, [row["images"] for row in drawn])
        inside = {by_curve[id(points[0])].last["configuration"] for points in members}
        _draw_crossings(ax, [one for one in pairs if one.first["configuration"] in inside])
    if len(by_model) > len(panels):
        say_shown(axes[0][0], len(panels), len(by_model), "backbones, the most accurate")
    return figure


def words(rows: Sequence[Point]) -> list[str]:
    """Returns what the figure shows in sentences: where policies cross, and what was chosen among."""
    found = curves(rows)
    told = [f"{text[:1].upper()}{text[1:]}." for text in size_words.crossings(crossings(found))]
    if any(curve.others for curve in found):
        told.append(
            "Of several heads or settings of a policy, the one with the best validation accuracy at the largest size "
            "is drawn."
        )
    return told


def _with_images(curve: Curve) -> list[Point]:
    return [with_more(row, images=images) for row, images in zip(curve.rows, curve.images, strict=True)]


def _draw_curves(ax: Axes, curves_of: Sequence[Sequence[Point]], look: Look) -> None:
    """Draws lines, marks and the bands of their 95 % intervals; a single seed has no band."""
    lines = []
    for points in curves_of:
        known = [row for row in points if row["accuracy_test_low"] is not None]
        if len(known) > 1:
            ax.fill_between(
                [row["images"] for row in known], [row["accuracy_test_low"] for row in known],
                [row["accuracy_test_high"] for row in known], color=look.color(known[0]), alpha=0.13, lw=0, zorder=1,
            )  # fmt: skip
        places = [(row["images"], row["accuracy_test"]) for row in points]
        lines.append((places, look.color(points[0]), look.dashes(points[0]["head"])))
    join_points(ax, lines, 1.4)
    drawn = [row for points in curves_of for row in points]
    draw_marks(ax, drawn, [(row["images"], row["accuracy_test"]) for row in drawn], look, share=0.6)


CROSSING = Entry(
    (Line2D([], [], color=INK, lw=1.2), Line2D([], [], color=INK, marker="x", ls="", ms=6, mew=1.6)),
    "two policies cross, and the 95 % interval of where",
)


def _draw_crossings(ax: Axes, pairs: Sequence[Crossing]) -> None:
    for one in (pair.found for pair in pairs):
        if one.size is not None and one.accuracy is not None and one.low is not None and one.high is not None:
            bar = [[(one.low, one.accuracy), (one.high, one.accuracy)]]
            ax.add_collection(LineCollection(bar, colors=INK, lw=1.2, zorder=4), autolim=False)
            ax.scatter([one.size], [one.accuracy], marker="x", s=36, color=INK, lw=1.6, zorder=5)


def _size_ticks(ax: Axes, sizes: Sequence[float]) -> None:
    """Puts ticks at the sizes that were measured, as many of them as have room beside each other, the ends first."""
    low, high = ax.get_xlim()
    inch = AXES_INCHES / math.log(high / low)
    every = sorted(set(sizes))
    taken: list[float] = []
    for size in [every[-1], every[0], *every[1:-1]]:
        wide = labels.inches(f"{round(size):,}") + BETWEEN_TICKS
        if all(abs(math.log(size / other)) * inch >= wide for other in taken):
            taken.append(size)
    ax.xaxis.set_major_locator(FixedLocator(sorted(taken)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: f"{round(value):,}")
