"""Figures from a tidy frame (`tlbench.load`, `tlbench.frame.frame`): each takes it and returns a matplotlib Figure.

One look for all of them: the freeze policy is the colour, the backbone the marker, and every point is a
configuration, averaged over its seeds and blocks, with its 95 % intervals. Nothing here reads or writes files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.errors import NotApplicable
from tlbench.frame import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

WIDTH_INCHES = 5.2
PANEL_INCHES = 3.1
LEGEND_ROW_INCHES = 0.22
MANY = 1500
"""Points beyond which a figure holds them as an image: as vectors they would be megabytes."""

INK = "#123456"
"""Text and axes. The report replaces it by the page's own colour, so that one figure serves light and dark."""
COLORS = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#a6761d", "#8a8a8a", "#e7298a", "#9a9400",
)  # fmt: skip
"""After Okabe and Ito 2008 and seaborn's "colorblind", without what is too pale on white or too dark on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
NO_POLICY = "#8a8a8a"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#9a9a9a",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tlbench",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A row of the table."""

    title: str
    caption: str
    draw: Callable[[pd.DataFrame], Figure]
    """Errors: NotApplicable saying what the frame lacks."""


# --- the common look ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Look:
    """Colour (and filling) by policy, marker by backbone."""

    colors: Mapping[str, str]
    open: frozenset[str]
    """Policies drawn as open markers: there are more policies than colours."""
    markers: Mapping[str, str]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Look:
        rows = list(rows)
        policies = list(dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train"))
        backbones = list(dict.fromkeys(r["backbone"] for r in rows))
        return cls(
            colors={"none": NO_POLICY, **dict(zip(policies, itertools.cycle(COLORS)))},
            open=frozenset(p for n, p in enumerate(policies) if n // len(COLORS) % 2),
            markers=dict(zip(backbones, itertools.cycle(MARKERS))),
        )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a configuration, of a frame of one row a record."""
    plain = frame.astype(object).where(frame.notna(), None)
    return summarise({str(k): v for k, v in item.items()} for item in plain.to_dict("records"))


def _panels(rows: Sequence[Row], by: Sequence[str]) -> dict[str, list[Row]]:
    """Title -> rows, a panel for each combination of the columns."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(" · ".join(str(row[name]) for name in by), []).append(row)
    return panels


def _figure(panels: int, legend: Sequence[Line2D] = (), height: float = PANEL_INCHES) -> tuple[Figure, list[Axes]]:
    """Panels below each other, which reads on a phone as well, and the legend under them."""
    rows = -(-len(legend) // 3)
    total = panels * height + rows * LEGEND_ROW_INCHES
    figure = Figure(figsize=(WIDTH_INCHES, total), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    if legend:
        figure.legend(handles=list(legend), loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.3)
    return figure, list(axes)


def _legend(rows: Sequence[Row], look: Look) -> list[Line2D]:
    policies = dict.fromkeys(r["freeze"] for r in rows if r["task"] == "train")
    backbones = dict.fromkeys(r["backbone"] for r in rows)
    return [
        *(
            Line2D([], [], marker="s", ls="", color=look.colors[p], mfc="none" if p in look.open else None, label=p)
            for p in policies
        ),
        *(Line2D([], [], marker=look.markers[b], ls="", color=INK, label=b) for b in backbones),
    ]


def _scatter(ax: Axes, rows: Sequence[Row], x: str, y: str, look: Look) -> None:
    """A point and its error bars for each row; each point links to the row's section in the report."""
    many = len(rows) > MANY
    for row in rows:
        color = look.colors[row["freeze"]]
        for vertical, name in ((False, x), (True, y)):
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            if low is not None:
                ends = ([row[x]] * 2, [low, high]) if vertical else ([low, high], [row[y]] * 2)
                ax.plot(*ends, color=color, lw=1, alpha=0.6, zorder=2, rasterized=many)
    data = pd.DataFrame({name: [r[name] for r in rows] for name in (x, y, "freeze", "backbone", "configuration")})
    sns.scatterplot(
        data=data, x=x, y=y, hue="freeze", style="backbone", palette=dict(look.colors), markers=dict(look.markers),
        s=42, linewidth=0.8, edgecolor="none", legend=False, ax=ax, zorder=3, rasterized=many,
    )  # fmt: skip
    points = ax.collections[-1]
    points.set_facecolor(["none" if r["freeze"] in look.open else look.colors[r["freeze"]] for r in rows])
    points.set_edgecolor([look.colors[r["freeze"]] for r in rows])
    points.set_urls([f"#cell-{r['configuration']}" for r in rows])


def _percent(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))


# --- the figures ----------------------------------------------------------------------------------------------


def _accuracy_against(frame: pd.DataFrame, x: str, label: str) -> Figure:
    rows = [r for r in _rows(frame) if r["accuracy_test"] is not None and r[x]]
    if not rows:
        raise NotApplicable("no finished cell measures accuracy")
    look = Look.of(_rows(frame))
    panels = _panels(
        rows, ("dataset", "device", "machine") if len({r["machine"] for r in rows}) > 1 else ("dataset", "device")
    )
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(panels), _legend(rows, look))
        for ax, (title, own) in zip(axes, panels.items(), strict=True):
            _scatter(ax, own, x, "accuracy_test", look)
            ax.set(title=title, xscale="log", xlabel=label, ylabel="test accuracy")
            _percent(ax)
    return figure


def accuracy_against_cost(frame: pd.DataFrame) -> Figure:
    """Test accuracy against the seconds of the whole training."""
    return _accuracy_against(frame, "training_seconds", "training time, seconds")


def accuracy_against_parameters(frame: pd.DataFrame) -> Figure:
    """Test accuracy against the number of parameters that train."""
    return _accuracy_against(frame, "trainable_parameters", "trainable parameters")


def throughput(frame: pd.DataFrame) -> Figure:
    """Images a second, a panel for each task and device."""
    every = _rows(frame)
    rows = [r for r in every if r["images_per_second"]]
    if not rows:
        raise NotApplicable("no finished cell has a throughput")
    look = Look.of(every)
    panels = _panels(rows, ("task", "device"))
    backbones = list(dict.fromkeys(r["backbone"] for r in rows))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(len(panels), _legend(rows, look)[: len(look.colors) - 1], 0.9 + 0.3 * len(backbones))
        for ax, (title, own) in zip(axes, panels.items(), strict=True):
            for row in own:
                row["place"] = backbones.index(row["backbone"])  # type: ignore[index]
            _scatter(ax, own, "images_per_second", "place", look)
            ax.set(title=title, xscale="log", xlabel="images per second", ylabel="", ylim=(len(backbones) - 0.5, -0.5))
            ax.set_yticks(range(len(backbones)), backbones)
    return figure


PLOTS: dict[str, Plot] = {
    "accuracy_against_cost": Plot(
        title="Accuracy against training time",
        caption="Up and to the left is better. Bars are 95 % intervals over seeds.",
        draw=accuracy_against_cost,
    ),
    "accuracy_against_parameters": Plot(
        title="Accuracy against trainable parameters",
        caption="Few trainable parameters need not mean little work: the table has the times.",
        draw=accuracy_against_parameters,
    ),
    "throughput": Plot(
        title="Throughput", caption="Further right is faster. Inference does not depend on the policy.", draw=throughput
    ),
}
