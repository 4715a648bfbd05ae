"""Figures of speed: of devices, policies and backbones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tlbench.analysis import speedup as speeds
from tlbench.analysis.derived import quantile
from tlbench.analysis.efficiency import KEPT
from tlbench.analysis.efficiency import freeze_efficiency as efficiencies
from tlbench.analysis.frame import identity
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.plots.draw import (
    by_panel,
    join_points,
    log_axis,
    name_lines,
    need,
    new_figure,
    say_shown,
    scatter,
    tick,
    with_figures,
)
from tlbench.report.plots.look import INK, LINE_INCHES, MOST_LINES, NO_POLICY, PANEL_INCHES, Look, Point, styled

# --- speed ----------------------------------------------------------------------------------------------------


@styled
def speedup(rows: Sequence[Point]) -> Figure:
    """How many times faster one device or precision is than another, on matched cells, by policy and batch size."""
    found = [one for axis in ("device", "precision") for one in speeds.speedups(rows, axis) if one.pairs]
    if not found:
        raise NotApplicable(
            "no cell was measured on two devices or precisions; report a CPU run and a CUDA run together, "
            "or run with --device cpu,cuda"
        )
    look = Look.of(rows)
    panels: dict[str, list[Point]] = {}
    several = len({r["batch_size"] for r in rows}) > 1
    for one in found:
        for pair in one.pairs:
            what = pair.what
            line = pair.base["freeze"] if pair.base["task"] == "train" else what
            point = {
                **pair.new, "ratio": pair.ratio.estimate, "ratio_low": pair.ratio.low, "ratio_high": pair.ratio.high,
                "line": line + (f" · batch {pair.base['batch_size']}" if several else ""),
            }  # fmt: skip
            panels.setdefault(f"{one.new} over {one.base}", []).append(point)
    lines = {title: list(dict.fromkeys(p["line"] for p in own)) for title, own in panels.items()}
    points = [point for own in panels.values() for point in own]
    figure, axes = new_figure(panels, [0.8 + LINE_INCHES * len(lines[t]) for t in panels], look.legend(points))
    for ax, title, own in axes:
        placed = [{**p, "place": lines[title].index(p["line"])} for p in own]
        ax.axvline(1, color=INK, lw=1)
        scatter(ax, placed, "ratio", "place", look)
        log_axis(ax.xaxis, [1, *(p["ratio"] for p in own)])
        name_lines(ax, lines[title])
        ax.set_xlabel("times as fast", loc="right")
    return figure


@styled
def freeze_efficiency(rows: Sequence[Point]) -> Figure:
    """The speed-up over `full` that an epoch's FLOPs promise, against the one measured; a panel a device."""
    points = [
        {**one.row, "promised": one.promised, "measured": one.measured.estimate,
         "measured_low": one.measured.low, "measured_high": one.measured.high}
        for one in efficiencies(rows)
    ]  # fmt: skip
    need(points, "no policy was timed beside full with the same settings; add full to --freeze")
    panels = by_panel(points, "device")
    look = Look.of(rows)
    figure, axes = new_figure(panels, PANEL_INCHES, look.legend(points))
    for ax, _, own in axes:
        ends = [f(p[name] for p in own for name in ("promised", "measured")) for f in (min, max)]
        line = [min(1.0, ends[0] / 1.2), ends[1] * 1.2]
        ax.plot(line, line, color=INK, lw=1)
        ax.plot(line, [KEPT * value for value in line], color=INK, lw=1, ls=":")
        scatter(ax, own, "promised", "measured", look)
        log_axis(ax.xaxis, [*line, *(p["promised"] for p in own)])
        log_axis(ax.yaxis, [*line, *(p["measured"] for p in own)])
        ax.set(xlabel="promised by FLOPs, times as fast as full", ylabel="measured")
    return figure


@styled
def throughput(rows: Sequence[Point]) -> Figure:
    """Images a second by backbone, a panel for each task and device."""
    shown = need(with_figures(rows, "images_per_second"), "no finished cell has a throughput")
    look = Look.of(rows)
    panels = by_panel(shown, "task", "device")
    models = {title: list(dict.fromkeys(map(wording.model, own))) for title, own in panels.items()}
    legend = look.legend(shown, models=False)
    figure, axes = new_figure(panels, [0.75 + LINE_INCHES * len(models[t]) for t in panels], legend)
    for ax, title, own in axes:
        placed = [{**r, "place": models[title].index(wording.model(r))} for r in own]
        scatter(ax, placed, "images_per_second", "place", look)
        log_axis(ax.xaxis, (r["images_per_second"] for r in own))
        name_lines(ax, models[title])
        ax.set_xlabel("images per second", loc="right")
    return figure


@styled
def throughput_against_batch_size(rows: Sequence[Point]) -> Figure:
    """Images a second against the batch size, for cells measured at two sizes or more."""
    series: dict[tuple[Any, ...], list[Point]] = {}
    for row in with_figures(rows, "images_per_second"):
        same = (*identity(row, ("batch_size",)).values(), row["weights"], row["machine"])
        series.setdefault(same, []).append(row)
    several = [own for own in series.values() if len({r["batch_size"] for r in own}) > 1]
    shown = [row for own in several for row in own]
    if not shown:
        raise NotApplicable("every cell was measured at one batch size; run with --batch-size 1,8,32")
    look = Look.of(rows)
    figure, axes = new_figure(by_panel(shown, "task", "device"), PANEL_INCHES, look.legend(shown))
    for ax, _, own in axes:
        lines = [sorted(line, key=lambda r: r["batch_size"]) for line in several if line[0] in own]
        join_points(
            ax,
            [([(r["batch_size"], r["images_per_second"]) for r in line], look.color(line[0]), "-") for line in lines],
        )
        scatter(ax, own, "batch_size", "images_per_second", look)
        log_axis(ax.yaxis, (r["images_per_second"] for r in own))
        ax.set_xscale("log", base=2)
        sizes = sorted({r["batch_size"] for r in own})
        if len(sizes) <= 8:
            ax.set_xticks(sizes, map(str, sizes))
        else:
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        ax.set_xticks([], minor=True)
        ax.set(xlabel="batch size", ylabel="images per second")
    return figure


@styled
def latency(rows: Sequence[Point]) -> Figure:
    """Milliseconds of single images: the median, a bar over the middle half, a line between 5th and 95th percentile."""
    shown = need(with_figures(rows, "latency_p50_ms"), "no inference cell finished; run with --task train,infer")
    look = Look.of(rows)
    panels = by_panel(sorted(shown, key=lambda r: r["latency_p50_ms"]), "device")
    differs = [name for name in wording.varying(shown) if name not in ("device", "machine")]
    heights = [0.75 + LINE_INCHES * min(len(own), MOST_LINES) for own in panels.values()]
    figure, axes = new_figure(panels, heights, look.legend(shown))
    for ax, title, own in axes:
        few = own[:MOST_LINES]
        samples = [[ms for r in row["group"] if r.status == "ok" for ms in r.latency_ms or ()] for row in few]
        low, left, right, high = (
            [quantile(ms, share) if ms else math.nan for ms in samples] for share in (0.05, 0.25, 0.75, 0.95)
        )
        ax.hlines(range(len(few)), low, high, color=NO_POLICY, lw=1.2)
        widths = [b - a for a, b in zip(left, right, strict=True)]
        ax.barh(range(len(few)), widths, left=left, height=0.55, color=NO_POLICY, alpha=0.5)
        placed = [{**r, "place": n, "latency_p50_ms_low": None} for n, r in enumerate(few)]
        scatter(ax, placed, "latency_p50_ms", "place", look)
        log_axis(ax.xaxis, (quantile(own_ms, share) for own_ms in samples if own_ms for share in (0.05, 0.95)))
        name_lines(ax, [_short_label(r, differs) for r in few])
        ax.set_xlabel("milliseconds for one image", loc="right")
        say_shown(ax, title, len(few), len(own), "cells, the fastest")
    return figure


def _short_label(row: Point, differs: Sequence[str]) -> str:
    """A label that leaves room for the figure: the marker tells the weights."""
    parts = [row["backbone"], *([row["freeze"]] if row["task"] == "train" else []), row["head"]]
    parts += [wording.SOMETIMES[name](row[name]) for name in differs if row[name] not in (None, "")]
    text = " · ".join(parts)
    return text if len(text) <= 44 else text[:43] + "…"
