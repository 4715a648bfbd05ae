"""Prints what a configuration does with the images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlbench.analysis.classes import SPLITS, ClassFigures
from tlbench.analysis.summary import Configuration
from tlbench.report import wording
from tlbench.report.ends import SHARES, ends
from tlbench.report.terminal.printing import plain, say

if TYPE_CHECKING:
    from rich.console import Console

OF_ALL = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
          "top5_accuracy": "top-5 accuracy", "nll": "NLL", "ece": "calibration error"}  # fmt: skip
"""Figures of all classes that stand below the table -> their names."""
NO_IMAGES = "no images"


def print_classes(console: Console, row: Configuration, found: Sequence[ClassFigures], split: str) -> None:
    """Prints a line a class, the worst first and those without images last, and below them the figures of all."""
    from rich.table import Table

    seeds = wording.count(row["seeds"], "seed")
    what = f"{SPLITS[split]} images of {row['dataset']}{wording.conditions([row])}"
    say(console, f"{wording.label(row)}: {what}, {seeds}", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("class", overflow="fold")
    for heading in ("images", "accuracy", "precision", "F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("most often taken for", overflow="fold")
    for one in sorted(found, key=lambda each: (each.accuracy is None, each.accuracy or 0.0, -each.images[1])):
        table.add_row(
            plain(one.name),
            images(one),
            accuracy(one),
            wording.percent(one.precision),
            wording.percent(one.f1),
            plain(taken_for(one)),
        )
    console.print(table)
    shown = [(words, f"{name}_{split}") for name, words in OF_ALL.items()]
    texts = [f"{words} {wording.interval(row, name)}" for words, name in shown if row.get(name) is not None]
    say(console, "; ".join(texts))


def images(one: ClassFigures) -> str:
    """Writes the images of a class: ``12``, of seeds with splits of their own ``11 to 14``."""
    fewest, most = one.images
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def accuracy(one: ClassFigures) -> str:
    """Writes ``83.3 % (55.2 to 95.3)``, or that there are no images."""
    if one.accuracy is None:
        return NO_IMAGES
    if one.low is None or one.high is None:
        return wording.percent(one.accuracy)
    reach = ends(one.accuracy, one.low, one.high, wording.share_end, whole=SHARES)
    return f"{wording.percent(one.accuracy)} ({reach})"


def taken_for(one: ClassFigures) -> str:
    """Writes ``Kiwi, 12.5 %``: the class that its images are most often mistaken for."""
    return f"{one.taken_for}, {wording.percent(one.mistaken)}" if one.taken_for else ""
