"""Prints one thing against another: two runs, two devices or precisions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from tlbench.analysis.compare import Change, Comparison
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.speedup import Speedup, Speedups
from tlbench.analysis.summary import Configuration
from tlbench.report import comparison_words as words
from tlbench.report import wording
from tlbench.report.terminal.printing import MOST_ROWS, plain, say

if TYPE_CHECKING:
    from rich.console import Console


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints a table for each figure, each reason once, what has no partner, how machines differ, the gates' answer."""
    for line in words.sides(comparison):
        say(console, line, style="bold")
    for line in words.conditions(comparison):
        say(console, line)
    for metric, changes in words.by_metric(comparison).items():
        console.print()
        say(console, words.heading(comparison, metric), style="bold")
        _changes(console, changes)
    console.print()
    for line in words.reasons(comparison):
        say(console, line)
    for line in (*words.image_by_image(comparison), *words.unmatched(comparison)):
        say(console, line)
    for line in words.gates(comparison):
        say(console, line, style="bold" if line.startswith("Gate") else None)


def _changes(console: Console, changes: Sequence[Change]) -> None:
    """Prints the cells of a figure, those that changed and those that cannot be told first."""
    from rich.table import Table

    shared = words.common(changes)
    if shared:
        say(console, f"All of them: {' · '.join(shared)}", indent=2)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    first, *headings = words.headings(changes[0].metric)
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=heading != "verdict")
    for change in changes[:MOST_ROWS]:
        name, *cells = words.cells(change, shared)
        table.add_row(plain(name), *cells)
    console.print(table)
    if len(changes) > MOST_ROWS:
        say(console, f"… and {len(changes) - MOST_ROWS} more (all of them: --json, --markdown)")


def pair_names(groups: Sequence[Speedups], told: Collection[str] = ()) -> Callable[[Speedup], str]:
    """Returns what names a pair: ``resnet18 · last_1 · linear``, and in what pairs differ, but for the columns
    that are ``told`` beside it.
    """
    known = {*told, *(group.axis for group in groups)}
    differs = _differing([pair.base for group in groups for pair in group.pairs], known)
    return lambda pair: wording.label(pair.base, differs)


def _differing(rows: Sequence[Configuration], told: Collection[str]) -> list[str]:
    """Returns the columns that differ, without those that are told beside the name."""
    return [column for column in wording.varying(rows) if column not in told]


ONE_IMAGE = (FIGURES["latency_p50_ms"].speedup or ("", ""))[1]
"""What is measured image by image, whatever the cell's batch size."""


def print_speedups(console: Console, groups: Sequence[Speedups]) -> None:
    """Prints each matched pair, geometric means by policy and batch size, and what has no partner."""
    from rich.table import Table

    named = pair_names(groups, ("batch_size",))
    for group in groups:
        pairs = wording.count(len(group.pairs), "matched pair")
        same = wording.conditions([pair.base for pair in group.pairs])
        say(console, f"{group.new} over {group.base}: {pairs}{same}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("cell", "of"):
            table.add_column(heading, overflow="fold")
        for heading in ("batch", "times as fast"):
            table.add_column(heading, justify="right")
        for pair in sorted(group.pairs, key=lambda p: -p.ratio.estimate)[:MOST_ROWS]:
            batch = "1" if pair.what == ONE_IMAGE else str(pair.base["batch_size"])
            table.add_row(plain(named(pair)), pair.what, batch, wording.ratio(pair.ratio))
        console.print(table)
        if len(group.pairs) > MOST_ROWS:
            say(console, f"… and {len(group.pairs) - MOST_ROWS} more")
        console.print()
        means = {"all": group.overall()} if group.pairs else {}
        means |= {f"policy {value}": mean for value, mean in group.by("freeze").items() if value != "none"}
        batches = group.by("batch_size")
        means |= {f"batch size {value}": mean for value, mean in batches.items()} if len(batches) > 1 else {}
        for name, mean in means.items():
            if mean is not None:
                say(console, f"{name}: {wording.ratio(mean)} times as fast, the geometric mean over cells")
        differs = _differing(group.unmatched, ("device", "precision"))
        for row in group.unmatched[:MOST_ROWS]:
            where = f"on {row['device']}, {row['precision']}"
            say(console, f"without a partner: {row['task']} {wording.label(row, differs)} {where}")
        for line in group.unlike:
            say(console, f"not the same thing: {line}")
        if len(group.unmatched) > MOST_ROWS:
            say(console, f"… and {len(group.unmatched) - MOST_ROWS} more without a partner")
