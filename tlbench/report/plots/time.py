"""Figures of time: where it goes, how near it is to the ceiling, and how much it varies."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.analysis.derived import quantiles
from tlbench.analysis.figures import STEP_PARTS, VALID, Row, column
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots import labels
from tlbench.report.plots.draw import (
    by_panel,
    figure_of_lines,
    log_axis,
    need,
    say_shown,
    scatter,
    scatter_at,
    with_figures,
    with_more,
)
from tlbench.report.plots.look import INK, MOST_LINES, Entry, Look, Point, styled

SHADES = ("#8fb8de", "#5b8fc7", "#3a6ea8", "#c7a15b")


@styled
def step_time(rows: Sequence[Point]) -> Figure:
    """Draws where a training step's time goes: data, forward, backward, optimizer; mean over heads and settings."""
    names = [f"{part}_seconds" for part in STEP_PARTS]
    shown = need(with_figures(rows, *names), "these records do not say where a step's time goes")
    panels: dict[str, list[Point]] = {}
    for title, measured in by_panel(shown, "device").items():
        groups: dict[str, list[Point]] = {}
        for row in measured:
            groups.setdefault(f"{row['backbone']} · {row['freeze']}", []).append(row)
        panels[title] = [
            {"line": line, **{name: fmean(r[name] for r in group) for name in names}} for line, group in groups.items()
        ]
    lines = {
        title: [
            f"{r['line']}, {wording.milliseconds(1000 * sum(r[name] for name in names))}" for r in panel[:MOST_LINES]
        ]
        for title, panel in panels.items()
    }
    parts = zip(STEP_PARTS, SHADES, strict=True)
    legend = [[Entry((Line2D([], [], marker="s", ls="", color=color),), part) for part, color in parts]]
    figure, axes = figure_of_lines(panels, lines, legend)
    for ax, _, panel in axes:
        few = panel[:MOST_LINES]
        totals = np.array([sum(row[name] for name in names) for row in few])
        left = np.zeros(len(few))
        for name, color in zip(names, SHADES, strict=True):
            widths = np.array([row[name] for row in few]) / totals
            ax.barh(range(len(few)), widths, left=left, color=color, height=0.7)
            left += widths
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(labels.percent_ticks())
        ax.set_xlabel("share of a training step", loc="right")
        say_shown(ax, len(few), len(panel), "combinations")
    return figure


@styled
def ceiling(rows: Sequence[Point]) -> Figure:
    """Draws floating-point operations a second, as a share of what a large matrix product reaches there."""
    shown = need(with_figures(rows, "ceiling_share"), "these records have no measured ceiling")
    look = Look.of(rows)
    panels = by_panel(shown, "task", "device", "precision")
    models = {title: list(dict.fromkeys(map(wording.model, panel))) for title, panel in panels.items()}
    legend = look.legend(shown, models=False)
    figure, axes = figure_of_lines(panels, models, legend)
    for ax, title, panel in axes:
        placed = [with_more(r, place=models[title].index(wording.model(r))) for r in panel]
        scatter(ax, placed, "ceiling_share", "place", look)
        ax.set_xlabel("share of the ceiling", loc="right")
        ax.set(xlim=(0, 1.08 * max(r["ceiling_share"] for r in panel)))
        ax.xaxis.set_major_formatter(labels.percent_ticks())
    return figure


@styled
def noise(rows: Sequence[Point]) -> Figure:
    """Draws the spread of the timed rounds of each record: interquartile range over median. Crosses are not valid."""
    spreads = {id(row): found for row in rows if (found := _spreads(row["group"]))}
    points = [row for row in rows if id(row) in spreads]
    if not points:
        raise NotApplicable("no record has four timed rounds of one phase, which a spread needs")
    look = Look.of(rows)
    panels = by_panel(points, "task", "device")
    models = {title: list(dict.fromkeys(map(wording.model, panel))) for title, panel in panels.items()}
    legend = look.legend(points, models=False)
    if any(flagged for found in spreads.values() for _, flagged in found):
        legend.append([Entry((Line2D([], [], marker="x", ls="", color=INK, ms=9),), "flagged")])
    figure, axes = figure_of_lines(panels, models, legend)
    for ax, title, panel in axes:
        placed = [
            (row, spread, place, flagged)
            for row, place in ((row, models[title].index(wording.model(row))) for row in panel)
            for spread, flagged in spreads[id(row)]
        ]
        scatter_at(ax, [row for row, *_ in placed], [(spread, place) for _, spread, place, _ in placed], look)
        marked = [(spread, place) for _, spread, place, flagged in placed if flagged]
        ax.scatter([x for x, _ in marked], [y for _, y in marked], marker="x", s=90, color=INK, lw=1, zorder=4)
        log_axis(ax.xaxis, (spread for _, spread, *_ in placed))
        ax.xaxis.set_major_formatter(labels.percent_ticks_by_tens())
        ax.set_xlabel("interquartile range, share of the median", loc="right")
    return figure


def _spreads(group: Sequence[Row]) -> list[tuple[float, bool]]:
    """Returns the spread of the rounds of each record that has four of one phase, and whether it is flagged."""
    found = []
    named = ("round_seconds", "round_phase", "status", "validity")
    for seconds, phases, status, validity in zip(*(column(group, name) for name in named), strict=True):
        if status == "ok" and len(seconds or ()) >= 4 and len(set(phases)) == 1:
            first, third = quantiles(seconds, (0.25, 0.75))
            found.append((max((third - first) / median(seconds), 1e-5), validity not in VALID))
    return found
