"""Figures of speed: of devices, policies and backbones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from tlbench.analysis import speedup as speeds
from tlbench.analysis.derived import quantile
from tlbench.analysis.efficiency import KEPT
from tlbench.analysis.efficiency import freeze_efficiency as efficiencies
from tlbench.analysis.grouping import identity
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots import labels
from tlbench.report.plots.draw import (
    by_panel,
    figure_of_lines,
    join_points,
    log_axis,
    need,
    new_figure,
    say_shown,
    scatter,
    with_figures,
    with_more,
)
from tlbench.report.plots.look import INK, MOST_LINES, PANEL_INCHES, Look, Point, styled
from tlbench.report.plots.names import NO_POLICY

# --- speed ----------------------------------------------------------------------------------------------------


@styled
def speedup(rows: Sequence[Point]) -> Figure:
    """Draws how many times faster one device or precision is than another on matched cells, by policy and batch."""
    groups = [group for axis in ("device", "precision") for group in speeds.speedups(rows, axis) if group.pairs]
    if not groups:
        raise NotApplicable(
            "no cell was measured on two devices or precisions; report a CPU run and a CUDA run together, "
            "or run with --device cpu,cuda"
        )
    look = Look.of(rows)
    panels: dict[str, list[Point]] = {}
    several = len({r["batch_size"] for r in rows}) > 1
    for group in groups:
        for pair in group.pairs:
            what = pair.what
            line = pair.base["freeze"] if pair.base["task"] == "train" else what
            point = with_more(
                pair.new, ratio=pair.ratio.estimate, ratio_low=pair.ratio.low, ratio_high=pair.ratio.high,
                # A latency is of one image, whatever the batches.
                line=line + (f" · batch {pair.base['batch_size']}" if several and "latency" not in pair.figure else ""),
            )  # fmt: skip
            panels.setdefault(f"{group.new} over {group.base}", []).append(point)
    lines = {title: list(dict.fromkeys(p["line"] for p in panel)) for title, panel in panels.items()}
    points = [point for panel in panels.values() for point in panel]
    figure, axes = figure_of_lines(panels, lines, look.legend(points))
    for ax, title, panel in axes:
        placed = [with_more(p, place=lines[title].index(p["line"])) for p in panel]
        ax.axvline(1, color=INK, lw=1)
        scatter(ax, placed, "ratio", "place", look)
        log_axis(ax.xaxis, [1, *(p["ratio"] for p in panel)])
        ax.set_xlabel("times as fast", loc="right")
    return figure


@styled
def freeze_efficiency(rows: Sequence[Point]) -> Figure:
    """Draws the speed-up over `full` that an epoch's FLOPs promise, against the one measured; a panel a device."""
    points = [
        {**one.row, "promised": one.promised, "measured": one.measured.estimate,
         "measured_low": one.measured.low, "measured_high": one.measured.high}
        for one in efficiencies(rows)
    ]  # fmt: skip
    need(points, "no policy was timed beside full with the same settings; add full to --freeze")
    panels = by_panel(points, "device")
    look = Look.of(rows)
    figure, axes = new_figure(panels, PANEL_INCHES, look.legend(points))
    for ax, _, panel in axes:
        ends = [f(p[name] for p in panel for name in ("promised", "measured")) for f in (min, max)]
        line = [min(1.0, ends[0] / 1.2), ends[1] * 1.2]
        ax.plot(line, line, color=INK, lw=1)
        ax.plot(line, [KEPT * value for value in line], color=INK, lw=1, ls=":")
        scatter(ax, panel, "promised", "measured", look)
        log_axis(ax.xaxis, [*line, *(p["promised"] for p in panel)])
        log_axis(ax.yaxis, [*line, *(p["measured"] for p in panel)])
        ax.set(xlabel="promised by FLOPs, times as fast as full", ylabel="measured")
    return figure


@styled
def throughput(rows: Sequence[Point]) -> Figure:
    """Draws images a second by backbone, a panel for each task and device."""
    shown = need(with_figures(rows, "images_per_second"), "no finished cell has a throughput")
    look = Look.of(rows)
    panels = by_panel(shown, "task", "device")
    models = {title: list(dict.fromkeys(map(wording.model, panel))) for title, panel in panels.items()}
    legend = look.legend(shown, models=False)
    figure, axes = figure_of_lines(panels, models, legend)
    for ax, title, panel in axes:
        placed = [with_more(r, place=models[title].index(wording.model(r))) for r in panel]
        scatter(ax, placed, "images_per_second", "place", look)
        log_axis(ax.xaxis, (r["images_per_second"] for r in panel))
        ax.set_xlabel("images per second", loc="right")
    return figure


@styled
def throughput_against_batch_size(rows: Sequence[Point]) -> Figure:
    """Draws images a second against the batch size, for cells measured at two sizes or more."""
    series: dict[tuple[Any, ...], list[Point]] = {}
    for row in with_figures(rows, "images_per_second"):
        same = (*identity(row, ("batch_size",)).values(), row["machine"])
        series.setdefault(same, []).append(row)
    several = [line for line in series.values() if len({r["batch_size"] for r in line}) > 1]
    shown = [row for line in several for row in line]
    if not shown:
        raise NotApplicable("every cell was measured at one batch size; run with --batch-size 1,8,32")
    look = Look.of(rows)
    figure, axes = new_figure(by_panel(shown, "task", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, panel in axes:
        here = set(map(id, panel))
        lines = [sorted(line, key=lambda r: r["batch_size"]) for line in several if id(line[0]) in here]
        join_points(
            ax,
            [([(r["batch_size"], r["images_per_second"]) for r in line], look.color(line[0]), "-") for line in lines],
        )
        scatter(ax, panel, "batch_size", "images_per_second", look)
        log_axis(ax.yaxis, (r["images_per_second"] for r in panel))
        ax.set_xscale("log", base=2)
        sizes = sorted({r["batch_size"] for r in panel})
        if len(sizes) <= 8:
            ax.set_xticks(sizes, map(str, sizes))
        else:
            ax.xaxis.set_major_formatter(labels.plain_ticks())
        ax.set_xticks([], minor=True)
        ax.set(xlabel="batch size", ylabel="images per second")
    return figure


@styled
def latency(rows: Sequence[Point]) -> Figure:
    """Draws milliseconds of single images: the median, a bar over the middle half, a line over the middle 90 %."""
    shown = need(with_figures(rows, "latency_p50_ms"), "no inference cell finished; run with --task train,infer")
    look = Look.of(rows)
    panels = by_panel(sorted(shown, key=lambda r: r["latency_p50_ms"]), "device")
    differs = [name for name in wording.varying(shown) if name not in ("device", "machine")]
    lines = {title: [_short_label(r, differs) for r in panel[:MOST_LINES]] for title, panel in panels.items()}
    figure, axes = figure_of_lines(panels, lines, look.legend(shown))
    for ax, _, panel in axes:
        few = panel[:MOST_LINES]
        samples = [[ms for r in row["timed"] for ms in r.latency_ms or ()] for row in few]
        low, left, right, high = (
            [quantile(ms, share) if ms else math.nan for ms in samples] for share in (0.05, 0.25, 0.75, 0.95)
        )
        ax.hlines(range(len(few)), low, high, color=NO_POLICY, lw=1.2)
        widths = [b - a for a, b in zip(left, right, strict=True)]
        ax.barh(range(len(few)), widths, left=left, height=0.55, color=NO_POLICY, alpha=0.35)
        placed = [with_more(r, place=n, latency_p50_ms_low=None) for n, r in enumerate(few)]
        scatter(ax, placed, "latency_p50_ms", "place", look)
        log_axis(ax.xaxis, (quantile(own_ms, share) for own_ms in samples if own_ms for share in (0.05, 0.95)))
        ax.set_xlabel("milliseconds for one image", loc="right")
        say_shown(ax, len(few), len(panel), "cells, the fastest")
    return figure


def _short_label(row: Point, differs: Sequence[str]) -> str:
    """Returns a label that leaves room for the figure: the marker tells the weights."""
    parts = [row["backbone"], *([row["freeze"]] if row["task"] == "train" else []), row["head"]]
    parts += [wording.SOMETIMES[name](row[name]) for name in differs if row[name] not in (None, "")]
    return " · ".join(parts)
