"""The figure of accuracy elsewhere: on other data sets and corrupted images, against that on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from tlbench.analysis.elsewhere import CORRUPTED, known_tests, result
from tlbench.analysis.scores import Numbers
from tlbench.errors import NotApplicable
from tlbench.report.plots import labels
from tlbench.report.plots.draw import by_panel, new_figure, scatter, with_figures, with_more
from tlbench.report.plots.look import INK, PANEL_INCHES, Look, Point, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ELSEWHERE = "accuracy_elsewhere"
WORDS = {CORRUPTED: "corrupted test images"}
"""Test whose title says more than its name."""


@styled
def accuracy_elsewhere(rows: Sequence[Point]) -> Figure:
    """Draws the accuracy in each other test against that on the test images; a panel for each test, data set and
    device. Of the corruptions, all kinds together are one test.
    """
    trained = [row for row in with_figures(rows, "accuracy_test") if row["task"] == "train"]
    look, numbers = Look.of(rows), Numbers()
    panels: dict[str, list[Point]] = {}
    for title, shown in by_panel(trained, "dataset", "device").items():
        for test in known_tests(shown, kinds=False):
            found = [(row, one) for row in shown if (one := result(row, test, numbers)) is not None]
            panels[f"{WORDS.get(test.label, test.label)} · {title}"] = [
                with_more(row, **{ELSEWHERE: one.accuracy, f"{ELSEWHERE}_low": one.low, f"{ELSEWHERE}_high": one.high})
                for row, one in found
            ]
    if not panels:
        raise NotApplicable("nothing was tested elsewhere; add --also-test NAME=DATASET or --corrupt all")
    figure, axes = new_figure(panels, PANEL_INCHES, look.legend([row for shown in panels.values() for row in shown]))
    for ax, title, panel in axes:
        scatter(ax, panel, "accuracy_test", ELSEWHERE, look)
        _axes(ax, panel, title.partition(" · ")[0])
    return figure


def _axes(ax: Axes, rows: Sequence[Point], test: str) -> None:
    """Scales both axes to the points and their intervals, and draws where both accuracies are the same."""
    limits = {}
    for name in ("accuracy_test", ELSEWHERE):
        low = min(row[name] if row[f"{name}_low"] is None else row[f"{name}_low"] for row in rows)
        high = max(row[name] if row[f"{name}_high"] is None else row[f"{name}_high"] for row in rows)
        low, high = max(0.0, low), min(1.0, high)
        room = 0.06 * max(high - low, 0.02)
        limits[name] = low - room, high + room
    ax.set(xlabel="test accuracy", ylabel=f"accuracy on {test}", xlim=limits["accuracy_test"], ylim=limits[ELSEWHERE])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(labels.percent_ticks())
    ax.axline((0.0, 0.0), slope=1, color=INK, lw=0.9, ls=":", zorder=1)
