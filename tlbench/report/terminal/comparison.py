"""Prints one thing against another: two runs, two devices or precisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlbench.analysis import speedup
from tlbench.analysis.compare import Comparison
from tlbench.analysis.scores import discordance
from tlbench.analysis.sides import METRICS, Run
from tlbench.analysis.speedup import Speedups
from tlbench.analysis.stats import Interval
from tlbench.report import wording
from tlbench.report.terminal.printing import MOST_ROWS, plain, say

if TYPE_CHECKING:
    from rich.console import Console


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints what changed and what cannot be told, cells without a partner, how machines differ, the gates' answer."""
    say(console, f"Base {comparison.base}, new {comparison.new}", style="bold")
    floors = sorted(set(comparison.floors.values()))
    told = " to ".join(dict.fromkeys(f"{100 * floor:.1f} %" for floor in (floors[:1] + floors[-1:])))
    say(console, f"Noise floor of times: {told or 'unknown: no valid A/A pair was measured'}")
    for name, (old, new) in comparison.machines.items():
        say(console, f"Not the same machine: {name} was {wording.text(old)}, is {wording.text(new)}")
    for metric, overall in comparison.overall.items():
        changes = [change for change in comparison.changes if change.metric == metric]
        counts = Counter(change.verdict for change in changes)
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("worse", "better", "same", "cannot say"))
        console.print()
        say(console, f"{METRICS[metric].compared}: {wording.count(len(changes), 'cell')}: {told}", style="bold")
        if METRICS[metric].points:
            say(console, f"mean difference {_points(overall)}", indent=2)
        else:
            say(console, f"geometric mean of new / base {wording.ratio(overall)}", indent=2)
        shown = [change for change in changes if change.verdict != "same"]
        for change in shown[:MOST_ROWS]:
            say(console, f"{change.verdict}: {change.cell}: {change.reason}", indent=2)
        if len(shown) > MOST_ROWS:
            say(console, f"… and {len(shown) - MOST_ROWS} more", indent=2)
    console.print()
    for what, names in (("base", comparison.only_base), ("new run", comparison.only_new)):
        for name in names:
            say(console, f"Only in the {what}: {name}")
    for name, why in comparison.failed.items():
        say(console, f"Without figures {why}: {name}")
    for change in comparison.regressions:
        worse = f"{100 * change.worse_by:.1f} {'points' if METRICS[change.metric].points else '%'}"
        say(console, f"Regression: {change.metric} of {change.cell} is {worse} worse", style="bold")
    if not comparison.regressions:
        for reason in comparison.undecided:
            say(console, f"Cannot decide: {reason}")


def print_discordances(console: Console, base: Run, new: Run) -> None:
    """Prints, for each cell in both runs, the test images of equal seeds that only one of them has right."""
    told = {
        name: wording.discordances(discordance(base.rows[name], rows, "accuracy_test"), "the base", "the new run")
        for name, rows in new.rows.items()
        if name in base.rows
    }
    told = {name: line for name, line in told.items() if line}
    if told:
        say(console, "Test images, one by one:", style="bold")
    for name, line in list(told.items())[:MOST_ROWS]:
        say(console, f"{name}: {line}", indent=2)
    if len(told) > MOST_ROWS:
        say(console, f"… and {len(told) - MOST_ROWS} more", indent=2)


def _points(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{100 * interval.estimate:+.1f} points"
    return f"{100 * interval.estimate:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def print_speedups(console: Console, groups: Sequence[Speedups]) -> None:
    """Prints each matched pair, geometric means by policy and batch size, and what has no partner."""
    from rich.table import Table

    for group in groups:
        say(console, f"{group.new} over {group.base}: {wording.count(len(group.pairs), 'matched pair')}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("cell", "of"):
            table.add_column(heading, overflow="fold")
        for heading in ("batch", "times as fast"):
            table.add_column(heading, justify="right")
        for pair in sorted(group.pairs, key=lambda p: -p.ratio.estimate)[:MOST_ROWS]:
            cell, of = speedup.name(pair).split(", ", 1)
            table.add_row(plain(cell), of, str(pair.base["batch_size"]), wording.ratio(pair.ratio))
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
        for row in group.unmatched[:MOST_ROWS]:
            say(
                console, f"without a partner: {row['task']} {wording.label(row)} on {row['device']}, {row['precision']}"
            )
        if len(group.unmatched) > MOST_ROWS:
            say(console, f"… and {len(group.unmatched) - MOST_ROWS} more without a partner")
