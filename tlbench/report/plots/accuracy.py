"""Figures of accuracy: against what it costs, by backbone and policy, and over the epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.analysis import stats
from tlbench.analysis.figures import column
from tlbench.analysis.label_efficiency import without_smaller
from tlbench.analysis.learning import ignorance, learned_nothing
from tlbench.data.short_names import data_sets
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots import labels
from tlbench.report.plots.draw import (
    by_panel,
    draw_marks,
    join_points,
    log_axis,
    name_lines,
    named_lines,
    need,
    new_figure,
    say_shown,
    scatter,
    with_figures,
)
from tlbench.report.plots.library import sns
from tlbench.report.plots.look import (
    INK,
    MOST_PANELS,
    PANEL_INCHES,
    Entry,
    Look,
    Point,
    heads_of,
    policies_of,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# --- accuracy against what it costs ---------------------------------------------------------------------------


def accuracy_axes(ax: Axes, rows: Sequence[Point], x: str, label: str) -> None:
    """Makes the axes of a panel of test accuracy against something on a logarithmic scale, with a line at what knowing
    nothing scores.
    """
    log_axis(ax.xaxis, (r[x] for r in rows))
    low = min(min(r["accuracy_test"], r["accuracy_test_low"] or 1.0) for r in rows)
    high = max(max(r["accuracy_test"], r["accuracy_test_high"] or 0.0) for r in rows)
    low, high = max(0.0, low), min(1.0, high)
    room = 0.06 * max(high - low, 0.02)
    ax.set(xlabel=label, ylabel="test accuracy", ylim=(low - room, high + room))
    ax.yaxis.set_major_formatter(labels.percent_ticks())
    for least in {ignorance(row) for row in rows}:
        if least is not None and low <= least.share <= high:
            ax.axhline(least.share, color=INK, lw=0.9, ls=":", zorder=1)


@styled
def accuracy_against_cost(rows: Sequence[Point]) -> Figure:
    """Draws test accuracy against the seconds of the whole training, with the Pareto front; a panel a device."""
    shown = need(
        [r for r in with_figures(rows, "accuracy_test", "training_seconds") if r["training_seconds"] > 0],
        "no finished cell measures an accuracy",
    )
    look = Look.of(rows)
    figure, panels = new_figure(by_panel(shown, "dataset", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, panel in panels:
        _front(ax, panel)
        scatter(ax, panel, "training_seconds", "accuracy_test", look)
        accuracy_axes(ax, panel, "training_seconds", "training time, seconds")
    return figure


def _front(ax: Axes, rows: Sequence[Point]) -> None:
    """Draws steps that join the cells that no other beats in both by the estimates, and a ring round those that none
    beats wherever in their intervals the two lie; among the cells that learned something.
    """
    rows = [row for row in rows if not learned_nothing(row)]
    if not rows:
        return
    points = [(stats.exact(r["training_seconds"]), stats.exact(r["accuracy_test"])) for r in rows]
    front = [r for r, p in zip(rows, stats.pareto(points), strict=True) if p.position == "on the front"]
    front.sort(key=lambda r: r["training_seconds"])
    x, y = [r["training_seconds"] for r in front], [r["accuracy_test"] for r in front]
    ax.step([*x, max(r["training_seconds"] for r in rows)], [*y, y[-1]], where="post", color=INK, lw=1, alpha=0.6)
    sure = stats.pareto([(_interval(r, "training_seconds"), _interval(r, "accuracy_test")) for r in rows])
    ringed = [r for r, p in zip(rows, sure, strict=True) if p.position == "on the front"]
    ax.scatter(
        [r["training_seconds"] for r in ringed], [r["accuracy_test"] for r in ringed],
        s=160, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=4,
    )  # fmt: skip


def _interval(row: Point, name: str) -> stats.Interval:
    """Returns a figure's interval; of one without ends the figure may lie anywhere, where it beats others too."""
    return stats.Interval(estimate=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"], n=row["units"])


@styled
def accuracy_against_parameters(rows: Sequence[Point]) -> Figure:
    """Draws test accuracy against the number of parameters that train; a panel a data set and device."""
    shown = need(with_figures(rows, "accuracy_test", "trainable_parameters"), "no finished cell measures an accuracy")
    shown = need([r for r in shown if r["trainable_parameters"] > 0], "no cell trains a parameter")
    look = Look.of(rows)
    figure, panels = new_figure(by_panel(shown, "dataset", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, panel in panels:
        scatter(ax, panel, "trainable_parameters", "accuracy_test", look)
        accuracy_axes(ax, panel, "trainable_parameters", "trainable parameters")
    return figure


# --- the heat map ---------------------------------------------------------------------------------------------

EMPTY = {
    "not_applicable": "n/a", "skipped": "skip", "failed": "fail", "oom": "oom", "timeout": "time", "diverged": "div",
    "interrupted": "stop", "stopped": "stop", "ok": "?",
}  # fmt: skip


ACROSS = {
    "freeze": ("head", "dataset", "device"),
    "head": ("freeze", "dataset", "device"),
    "dataset": ("freeze", "head", "device"),
}
"""What may be the columns of a heat map -> what its panels are of, then."""


@styled
def heat_map(rows: Sequence[Point]) -> Figure:
    """Draws test accuracy in percent by backbone and policy, a panel a head; an empty cell says why it is empty. Where
    there is one policy only, the columns are the heads or the data sets, the first of these of which there are several.
    Of several train sizes the largest alone is shown.
    """
    trained = without_smaller([r for r in rows if r["task"] == "train"])
    shown = need(with_figures(trained, "accuracy_test"), "no finished cell measures an accuracy")
    across = next((name for name in ACROSS if len({r[name] for r in trained}) > 1), "freeze")
    panels = by_panel(trained, *ACROSS[across])
    models = {title: list(dict.fromkeys(map(wording.model, panel))) for title, panel in panels.items()}
    columns = policies_of(trained) if across == "freeze" else list(dict.fromkeys(r[across] for r in trained))
    if len(columns) == 1 and all(len(named) == 1 for named in models.values()):
        raise NotApplicable("a single cell is no map; the table has its accuracy")
    short = data_sets(columns) if across == "dataset" else {}
    texts = labels.named([short.get(name, name) for name in columns], COLUMN_INCHES)
    turned, widest = len(columns) > 6, max(labels.inches(line) for text in texts for line in text.split("\n"))
    below = 0.3 + widest if turned else 0.35 + widest / 2
    lines = {title: named_lines(models[title]) for title in panels}
    heights = [0.3 + below + height * len(models[title]) for title, (_, height, _) in lines.items()]
    figure, axes = new_figure(panels, heights, beside=max(width for _, _, width in lines.values()))
    ends = [f(r["accuracy_test"] for r in shown) for f in (min, max)]
    for ax, title, panel in axes:
        grid: dict[tuple[int, int], list[Point]] = {}
        for row in panel:
            grid.setdefault((models[title].index(wording.model(row)), columns.index(row[across])), []).append(row)
        _draw_map(ax, grid, (len(models[title]), len(columns)), ends)
        name_lines(ax, models[title], at=0.5)
        ax.set_xticks(np.arange(len(columns)) + 0.5, texts, rotation=90 if turned else 30)
        ax.tick_params(length=0)
        for label in ax.get_xticklabels():
            label.set(ha="center" if turned else "right", rotation_mode="default" if turned else "anchor")
    return figure


COLUMN_INCHES = 1.4
"""Most inches that the name of a column may be long."""


def _draw_map(
    ax: Axes, grid: Mapping[tuple[int, int], Sequence[Point]], shape: tuple[int, int], ends: Sequence[float]
) -> None:
    """Colours the cells of a map of (rows, columns) by their accuracy between two ends, and writes it into them."""
    values, texts = np.full(shape, np.nan), np.full(shape, "–", dtype=object)
    for place, group in grid.items():
        values[place], texts[place] = _heat(group)
    sns.heatmap(
        values, annot=texts, fmt="", mask=np.isnan(values), cmap="cividis", vmin=ends[0], vmax=ends[1], cbar=False,
        ax=ax, linewidths=0.6, linecolor="#9a9a9a", annot_kws={"fontsize": 8}, xticklabels=False, yticklabels=False,
    )  # fmt: skip
    for y, x in zip(*np.nonzero(np.isnan(values)), strict=True):  # where there is no colour, there is a reason
        ax.text(x + 0.5, y + 0.5, texts[y, x], ha="center", va="center", fontsize=8, color=INK)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.grid(False)


def _heat(group: Sequence[Point]) -> tuple[float, str]:
    """Returns accuracy and text of a cell: of several settings the one with the best validation accuracy."""
    good = with_figures(group, "accuracy_test")
    if not good:
        return math.nan, EMPTY[group[0]["status"]]
    best = max(good, key=lambda r: r["accuracy_val"] or 0)
    return best["accuracy_test"], f"{100 * best['accuracy_test']:.0f}" + ("*" if len(group) > 1 else "")


# --- training and noise ---------------------------------------------------------------------------------------


@styled
def learning_curves(rows: Sequence[Point]) -> Figure:
    """Draws validation accuracy after each epoch against the seconds of training so far; a panel a backbone."""
    curves = {r["configuration"]: _curve(r) for r in rows if r["task"] == "train" and r["records_ok"]}
    shown = [r for r in rows if len(curves.get(r["configuration"], ())) > 1]
    if not shown:
        raise NotApplicable("no cell was trained for several epochs with an accuracy after each")
    look = Look.of(rows)
    by_model: dict[str, list[Point]] = {}
    for title, panel in by_panel(shown, "dataset", "device").items():
        for row in panel:
            by_model.setdefault(f"{wording.model(row)} · {title}", []).append(row)
    best = sorted(by_model, key=lambda t: -max(r["accuracy_val"] or 0 for r in by_model[t]))[:MOST_PANELS]
    legend = look.legend(shown, models=False)
    if legend[-1]:
        legend[-1] = [Entry((Line2D([], [], color=INK, ls=look.dashes(h)),), f"head {h}") for h in heads_of(shown)]
    figure, axes = new_figure({t: by_model[t] for t in by_model if t in best}, 2.1, legend)
    for ax, _, drawn in axes:
        lines = [(curves[row["configuration"]], look.color(row), look.dashes(row["head"])) for row in drawn]
        join_points(ax, lines, 1.3)
        points = [(point, row) for row in drawn for point in curves[row["configuration"]]]
        draw_marks(ax, [row for _, row in points], [point for point, _ in points], look, share=0.25)
        log_axis(ax.xaxis, [x for row in drawn for x, _ in curves[row["configuration"]]])
        ax.set(xlabel="training time so far, seconds", ylabel="validation accuracy")
        ax.yaxis.set_major_formatter(labels.percent_ticks())
    if len(by_model) > len(best):
        say_shown(axes[0][0], len(best), len(by_model), "backbones, the most accurate")
    return figure


def _curve(row: Point) -> list[tuple[float, float]]:
    """Returns (seconds so far, validation accuracy) after each epoch, averaged over the seeds that have it. Training
    begins with the training images' share of computing the frozen prefix.
    """
    runs = []
    named = ("shared_seconds", "round_seconds", "round_accuracy_val")
    for shared, seconds, accuracies in zip(*(column(row["timed"], name) for name in named), strict=True):
        begin = shared or 0.0
        passed = [begin + since for since in itertools.accumulate(seconds)]
        runs.append([(t, a) for t, a in zip(passed, accuracies, strict=True) if a is not None])
    # Some stop before the others: from there on the curve is of those that go on.
    there = [[run[n] for run in runs if n < len(run)] for n in range(max(map(len, runs), default=0))]
    # The slowest may be the first to stop: time goes on all the same.
    times = itertools.accumulate((fmean(seconds for seconds, _ in some) for some in there), max)
    return list(zip(times, (fmean(accuracy for _, accuracy in some) for some in there), strict=True))
