"""One thing against another: two runs, two devices or precisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlbench.analysis import speedup
from tlbench.analysis.compare import Comparison
from tlbench.analysis.sides import METRICS
from tlbench.analysis.speedup import Speedups
from tlbench.analysis.stats import Interval
from tlbench.report import wording
from tlbench.report.terminal.printing import MOST_ROWS, plain, say

if TYPE_CHECKING:
    from rich.console import Console


def print_comparison(console: Console, found: Comparison) -> None:
    """What changed and what cannot be told, cells without a partner, differences of the machines, the gates' answer."""
    say(console, f"Base {found.base}, new {found.new}", style="bold")
    floors = sorted(set(found.floors.values()))
    told = " to ".join(dict.fromkeys(f"{100 * floor:.1f} %" for floor in (floors[:1] + floors[-1:])))
    say(console, f"Noise floor of times: {told or 'unknown: no valid A/A pair was measured'}")
    for name, (old, new) in found.machines.items():
        say(console, f"Not the same machine: {name} was {wording.text(old)}, is {wording.text(new)}")
    for metric, overall in found.overall.items():
        own = [change for change in found.changes if change.metric == metric]
        counts = Counter(change.verdict for change in own)
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("worse", "better", "same", "cannot say"))
        console.print()
        say(console, f"{METRICS[metric].compared}: {wording.count(len(own), 'cell')}: {told}", style="bold")
        if METRICS[metric].points:
            say(console, f"mean difference {_points(overall)}", indent=2)
        else:
            say(console, f"geometric mean of new / base {wording.ratio(overall)}", indent=2)
        shown = [change for change in own if change.verdict != "same"]
        for change in shown[:MOST_ROWS]:
            say(console, f"{change.verdict}: {change.cell}: {change.reason}", indent=2)
        if len(shown) > MOST_ROWS:
            say(console, f"… and {len(shown) - MOST_ROWS} more", indent=2)
    console.print()
    for what, names in (("base", found.only_base), ("new run", found.only_new)):
        for name in names:
            say(console, f"Only in the {what}: {name}")
    for name, why in found.failed.items():
        say(console, f"Without figures {why}: {name}")
    for change in found.regressions:
        worse = f"{100 * change.worse_by:.1f} {'points' if METRICS[change.metric].points else '%'}"
        say(console, f"Regression: {change.metric} of {change.cell} is {worse} worse", style="bold")
    if not found.regressions:
        for reason in found.undecided:
            say(console, f"Cannot decide: {reason}")


def _points(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{100 * interval.estimate:+.1f} points"
    return f"{100 * interval.estimate:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def print_speedups(console: Console, found: Sequence[Speedups]) -> None:
    """Each matched pair, geometric means by policy and batch size, and what has no partner."""
    from rich.table import Table

    for one in found:
        say(console, f"{one.new} over {one.base}: {wording.count(len(one.pairs), 'matched pair')}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("cell", "of"):
            table.add_column(heading, overflow="fold")
        for heading in ("batch", "times as fast"):
            table.add_column(heading, justify="right")
        for pair in sorted(one.pairs, key=lambda p: -p.ratio.estimate)[:MOST_ROWS]:
            cell, of = speedup.name(pair).split(", ", 1)
            table.add_row(plain(cell), of, str(pair.base["batch_size"]), wording.ratio(pair.ratio))
        console.print(table)
        if len(one.pairs) > MOST_ROWS:
            say(console, f"… and {len(one.pairs) - MOST_ROWS} more")
        console.print()
        means = {"all": one.overall()} if one.pairs else {}
        means |= {f"policy {value}": mean for value, mean in one.by("freeze").items() if value != "none"}
        batches = one.by("batch_size")
        means |= {f"batch size {value}": mean for value, mean in batches.items()} if len(batches) > 1 else {}
        for name, mean in means.items():
            if mean is not None:
                say(console, f"{name}: {wording.ratio(mean)} times as fast, the geometric mean over cells")
        for row in one.unmatched[:MOST_ROWS]:
            say(
                console, f"without a partner: {row['task']} {wording.label(row)} on {row['device']}, {row['precision']}"
            )
        if len(one.unmatched) > MOST_ROWS:
            say(console, f"… and {len(one.unmatched) - MOST_ROWS} more without a partner")
