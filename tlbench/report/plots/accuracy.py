"""Figures of accuracy: against what it costs, by backbone and policy, and over the epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tlbench.analysis import stats
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots.draw import (
    by_panel,
    join_points,
    log_axis,
    need,
    new_figure,
    percent_tick,
    say_shown,
    scatter,
    with_figures,
)
from tlbench.report.plots.look import (
    DASHES,
    INK,
    LINE_INCHES,
    MANY,
    MOST_PANELS,
    PANEL_INCHES,
    Look,
    Point,
    policies_of,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# --- accuracy against what it costs ---------------------------------------------------------------------------


def _accuracy_axes(ax: Axes, rows: Sequence[Point], x: str, label: str) -> None:
    log_axis(ax.xaxis, (r[x] for r in rows))
    low = min(min(r["accuracy_test"], r["accuracy_test_low"] or 1.0) for r in rows)
    high = max(max(r["accuracy_test"], r["accuracy_test_high"] or 0.0) for r in rows)
    low, high = max(0.0, low), min(1.0, high)
    room = 0.06 * max(high - low, 0.02)
    ax.set(xlabel=label, ylabel="test accuracy", ylim=(low - room, high + room))
    ax.yaxis.set_major_formatter(FuncFormatter(percent_tick))


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
        _accuracy_axes(ax, panel, "training_seconds", "training time, seconds")
    return figure


def _front(ax: Axes, rows: Sequence[Point]) -> None:
    """Draws steps that join the cells that no other beats in both by the estimates, and a ring round those that none
    beats wherever in their intervals the two lie.
    """
    points = [(stats.exact(r["training_seconds"]), stats.exact(r["accuracy_test"])) for r in rows]
    front = [r for r, p in zip(rows, stats.pareto(points), strict=True) if p.position == "on the front"]
    front.sort(key=lambda r: r["training_seconds"])
    x, y = [r["training_seconds"] for r in front], [r["accuracy_test"] for r in front]
    ax.step([*x, max(r["training_seconds"] for r in rows)], [*y, y[-1]], where="post", color=INK, lw=1, alpha=0.6)
    measured = [r for r in rows if r["training_seconds_low"] is not None and r["accuracy_test_low"] is not None]
    sure = stats.pareto([(_interval(r, "training_seconds"), _interval(r, "accuracy_test")) for r in measured])
    ringed = [r for r, p in zip(measured, sure, strict=True) if p.position == "on the front"]
    ax.scatter(
        [r["training_seconds"] for r in ringed], [r["accuracy_test"] for r in ringed],
        s=120, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=4,
    )  # fmt: skip


def _interval(row: Point, name: str) -> stats.Interval:
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
        _accuracy_axes(ax, panel, "trainable_parameters", "trainable parameters")
    return figure


# --- the heat map ---------------------------------------------------------------------------------------------

EMPTY = {
    "not_applicable": "n/a", "skipped": "skip", "failed": "fail", "oom": "oom", "timeout": "time", "diverged": "div",
    "interrupted": "stop", "ok": "?",
}  # fmt: skip


@styled
def heat_map(rows: Sequence[Point]) -> Figure:
    """Draws test accuracy in percent by backbone and policy, a panel a head; an empty cell says why it is empty."""
    trained = [r for r in rows if r["task"] == "train"]
    need(with_figures(trained, "accuracy_test"), "no finished cell measures an accuracy")
    policies = policies_of(trained)
    panels = by_panel(trained, "head", "dataset", "device")
    models = {title: list(dict.fromkeys(map(wording.model, panel))) for title, panel in panels.items()}
    turned = len(policies) > 6
    labels = 0.55 + 0.07 * max(map(len, policies)) if turned else 0.55
    heights = [0.35 + labels + LINE_INCHES * len(models[title]) for title in panels]
    accuracies = [r["accuracy_test"] for r in with_figures(trained, "accuracy_test")]
    figure, axes = new_figure(panels, heights)
    for ax, title, panel in axes:
        grid: dict[tuple[str, str], list[Point]] = {}
        for row in panel:
            grid.setdefault((wording.model(row), row["freeze"]), []).append(row)
        values = np.full((len(models[title]), len(policies)), np.nan)
        texts = np.full(values.shape, "–", dtype=object)
        for (model, policy), group in grid.items():
            place = models[title].index(model), policies.index(policy)
            values[place], texts[place] = _heat(group)
        sns.heatmap(
            values, annot=texts, fmt="", vmin=min(accuracies), vmax=max(accuracies), cmap="cividis", cbar=False,
            linewidths=0.6, linecolor="#9a9a9a", xticklabels=policies, yticklabels=models[title],
            annot_kws={"fontsize": 8}, ax=ax,
        )  # fmt: skip
        for y, x in zip(*np.where(np.isnan(values)), strict=True):  # seaborn leaves cells without a value unmarked
            ax.text(x + 0.5, y + 0.5, texts[y, x], ha="center", va="center", fontsize=7.5)
        ax.tick_params(axis="x", rotation=90 if turned else 30, length=0)
        ax.tick_params(axis="y", rotation=0, length=0)
        for label in ax.get_xticklabels():
            label.set(ha="center" if turned else "right", rotation_mode="default" if turned else "anchor")
        ax.grid(False)
    return figure


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
    heads = list(dict.fromkeys(r["head"] for r in shown))
    dashes = dict(zip(heads, itertools.cycle(DASHES), strict=False))
    legend = look.legend(shown, models=False)
    if len(heads) > 1:
        legend += [Line2D([], [], color=INK, ls=dashes[h], label=f"head {h}") for h in heads]
    figure, axes = new_figure({t: by_model[t] for t in by_model if t in best}, 2.3, legend)
    for ax, _, drawn in axes:
        lines = [(curves[row["configuration"]], look.color(row), dashes[row["head"]]) for row in drawn]
        join_points(ax, lines, 1.3)
        points = [(*point, look.color(row), look.fill(row)) for row in drawn for point in curves[row["configuration"]]]
        x, y, edges, fills = zip(*points, strict=True)
        ax.scatter(x, y, edgecolors=edges, facecolors=fills, s=9, lw=0.8, zorder=3, rasterized=len(points) > MANY)
        log_axis(ax.xaxis, [x for row in drawn for x, _ in curves[row["configuration"]]])
        ax.set(xlabel="training time so far, seconds", ylabel="validation accuracy")
        ax.yaxis.set_major_formatter(FuncFormatter(percent_tick))
    if len(by_model) > len(best):
        ax, title, _ = axes[0]
        say_shown(ax, title, len(best), len(by_model), "backbones, the most accurate")
    return figure


def _curve(row: Point) -> list[tuple[float, float]]:
    """Returns (seconds so far, validation accuracy) after each epoch, averaged over the seeds that have it. Training
    begins with the training images' share of computing the frozen prefix.
    """
    runs = []
    for record in row["group"]:
        if record.status == "ok":
            begin = record.shared_seconds or 0.0
            passed = [begin + since for since in itertools.accumulate(record.round_seconds)]
            runs.append([(t, a) for t, a in zip(passed, record.round_accuracy_val, strict=True) if a is not None])
    length = min(map(len, runs), default=0)
    return [(fmean(run[n][0] for run in runs), fmean(run[n][1] for run in runs)) for n in range(length)]
