"""The terminal's view of runs: verdict and table, pick under limits, comparison, speed-ups. Readable at 80 columns
and wider; nothing that comes from a record is taken for markup.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.analysis import verdict as recommend
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.records.record import Record
from tlbench.report import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tlbench.analysis.compare import Comparison
    from tlbench.analysis.recommend import Recommendation
    from tlbench.analysis.speedup import Speedups
    from tlbench.analysis.stats import Interval
    from tlbench.report.wording import Row

MOST_ROWS = 40
"""Of a table; the report has all of them."""


def print_summary(
    console: Console, records: Sequence[Record], path: Path | None = None, runs: str | Sequence[str] = ""
) -> None:
    """Verdict, table, failures with their reasons, the report's path. ``runs`` names the run of each record."""
    table = rows(records, runs)
    summary = summarise(table)
    scopes = recommend.verdicts(summary, recommend.noise_floors(table))
    for scope in scopes:
        differs = wording.varying(scope.rows)
        _verdict(console, scope, scopes, differs)
        _rows(console, scope, differs)
    _not_ok(console, summary)
    if path is not None:
        console.print(f"Report: {path}", markup=False, soft_wrap=True)


def _verdict(console: Console, scope: recommend.Scope, scopes: Sequence[recommend.Scope], differs: list[str]) -> None:
    _print(console, f"Verdict for {wording.scope_name(scope, scopes)}", style="bold")
    for pick in scope.picks:
        _print(console, f"{wording.question(pick)}: {wording.answer(pick, differs)}")
        for line in ("; ".join(wording.evidence(pick)), wording.certainty(pick, differs, most=2)):
            if line:
                _indented(console, line)
    _print(console, f"Noise floor of times: {wording.noise_floor(scope.floor)}")
    commands = dict.fromkeys(pick.command for pick in scope.picks if pick.command)
    if commands:
        _print(console, "To decide what is not, run this and report the runs together:")
    for command in commands:
        _indented(console, command, wrap=False)
    console.print()


def _rows(console: Console, scope: recommend.Scope, differs: list[str]) -> None:
    for task, columns in (("train", TRAIN), ("infer", INFER)):
        own = [row for row in scope.rows if row["task"] == task and row["records_ok"]]
        if own:
            _table(console, own, columns, differs)


Columns = dict[str, tuple[str, Any, int]]
"""Heading -> (figure, text, rank): where the terminal is too narrow for all, the highest ranks are left out first."""

TRAIN: Columns = {
    "test %": ("accuracy_test", lambda row: _accuracy(row, "accuracy_test"), 0),
    "val %": ("accuracy_val", lambda row: _accuracy(row, "accuracy_val"), 5),
    "epoch s": ("epoch_seconds", lambda row: wording.number(row["epoch_seconds"]), 0),
    "total s": ("training_seconds", lambda row: wording.number(row["training_seconds"]), 1),
    "images/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), 3),
    "trainable": ("trainable_parameters", lambda row: wording.short(row["trainable_parameters"]), 2),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), 4),
}
INFER: Columns = {
    "images/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), 0),
    "p50 ms": ("latency_p50_ms", lambda row: wording.number(row["latency_p50_ms"]), 0),
    "p95 ms": ("latency_p95_ms", lambda row: wording.number(row["latency_p95_ms"]), 0),
    "parameters": ("total_parameters", lambda row: wording.short(row["total_parameters"]), 2),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), 1),
}
ORDER = {"train": "accuracy_val", "infer": "images_per_second"}


def _accuracy(row: Row, figure: str) -> str:
    low = row[f"{figure}_low"]
    if row[figure] is None:
        return wording.UNKNOWN
    return f"{100 * row[figure]:.1f}" + (f" ±{100 * (row[figure] - low):.1f}" if low is not None else "")


def _table(console: Console, own: list[Row], columns: Columns, differs: Sequence[str]) -> None:
    from rich.measure import Measurement

    own = sorted(own, key=lambda row: -(row[ORDER[row["task"]]] or 0))
    known = {h: (draw, rank) for h, (figure, draw, rank) in columns.items() if any(r[figure] is not None for r in own)}
    for most in sorted({rank for _, rank in known.values()}, reverse=True):
        shown = {heading: draw for heading, (draw, rank) in known.items() if rank <= most}
        table = _build(own[:MOST_ROWS], shown, differs)
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)
    if len(own) > MOST_ROWS:
        console.print(f"… and {len(own) - MOST_ROWS} more rows in the report")
    for note in dict.fromkeys(note for row in own for note in _notes(row)):
        _print(console, note)
    console.print()


def _build(own: Sequence[Row], shown: Mapping[str, Any], differs: Sequence[str]) -> Table:
    """A table of these rows with these figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    names = ["backbone", *(["freeze"] if own[0]["task"] == "train" else []), "head"]
    for name in [*names, *([""] if differs else [])]:
        table.add_column(name, overflow="fold")
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in own:
        cells = [_marked(row) if name == "backbone" else row[name] for name in names]
        if differs:
            cells.append(", ".join(wording.SOMETIMES[d](row[d]) for d in differs if row[d] not in (None, "")))
        table.add_row(*map(_plain, cells), *(draw(row) for draw in shown.values()))
    return table


MARKS = {"random": "*", "auto": "?"}
"""Of backbones whose weights are not pretrained: a column of their own would not fit into 80 characters."""
FLAG = "!"


def _flagged(row: Row) -> bool:
    return row["validity"] not in (None, "ok")


def _marked(row: Row) -> str:
    """The backbone's name, with marks for its weights and for times that are flagged, or the checkpoint's name."""
    marks = MARKS.get(row["weights"], "") + (FLAG if _flagged(row) else "")
    name = str(row["backbone"]) if row["weights"] in MARKS else wording.model(row)
    return f"{name} {marks}" if marks else name


def _notes(row: Row) -> list[str]:
    """What the marks of a row mean."""
    notes = [f"{MARKS[row['weights']]} {wording.weights(row)}"] if row["weights"] in MARKS else []
    return [*notes, f"{FLAG} times flagged as {row['validity']}"] if _flagged(row) else notes


def _not_ok(console: Console, summary: Sequence[Row]) -> None:
    """Failures and skips, grouped by what they have in common."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in summary:
        if row["status"] != "ok":
            groups.setdefault((row["status"], row["reason"]), []).append(row)
    for (status, reason), own in groups.items():
        names = ", ".join(wording.label(row) for row in own[:3]) + (f" and {len(own) - 3} more" if len(own) > 3 else "")
        _print(console, f"{status.replace('_', ' ')}: {names}: {reason}")
    if groups:
        console.print()


# --- the pick under limits ------------------------------------------------------------------------------------


def print_recommendation(console: Console, found: Recommendation, summary: Sequence[Row]) -> None:
    """The pick, the runner-up, and what excluded each of the others."""
    differs = wording.varying([row for row in summary if row["task"] == "train"])
    if found.pick is None:
        console.print("No cell keeps to the limits.", style="bold")
    else:
        _named(console, "Pick", found.pick, differs)
        for caveat in found.caveats:
            _indented(console, f"Close: {caveat}.")
    if found.runner_up is not None:
        _named(console, "Runner-up", found.runner_up, differs)
        if found.tied:
            _indented(console, "Its accuracy cannot be told from the pick's. To decide, run this and report both runs:")
            _indented(console, found.command, wrap=False)
    if found.excluded:
        console.print()
        console.print("The others:", style="bold")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for one in found.excluded:
        groups.setdefault(one.reasons, []).append(one.row)
    for reasons, own in groups.items():
        for row in own[:MOST_ROWS]:
            _print(console, f"{wording.label(row, differs)}: {'; '.join(reasons)}", indent=2)
        if len(own) > MOST_ROWS:
            _print(console, f"… and {len(own) - MOST_ROWS} more for the same reason", indent=2)


def _named(console: Console, what: str, row: Row, differs: Sequence[str]) -> None:
    _print(console, f"{what}: {wording.label(row, differs)}", style="bold")
    figures = [
        f"validation accuracy {wording.interval(row, 'accuracy_val')}",
        f"test {wording.interval(row, 'accuracy_test')}",
        f"{wording.interval(row, 'training_seconds')} of training",
    ]
    if row["inference_latency_p95_ms"] is not None:
        figures.append(f"p95 latency {wording.milliseconds(row['inference_latency_p95_ms'])}")
    if row["peak_memory_bytes"] is not None:
        figures.append(f"peak memory {wording.size(row['peak_memory_bytes'])}")
    _indented(console, "; ".join(figures))


# --- run against run ------------------------------------------------------------------------------------------


def print_comparison(console: Console, found: Comparison) -> None:
    """What changed and what cannot be told, cells without a partner, differences of the machines, the gates' answer."""
    from tlbench.analysis.sides import METRICS

    _print(console, f"Base {found.base}, new {found.new}", style="bold")
    floors = sorted(set(found.floors.values()))
    told = " to ".join(dict.fromkeys(f"{100 * floor:.1f} %" for floor in (floors[:1] + floors[-1:])))
    _print(console, f"Noise floor of times: {told or 'unknown: no valid A/A pair was measured'}")
    for name, (old, new) in found.machines.items():
        _print(console, f"Not the same machine: {name} was {wording.text(old)}, is {wording.text(new)}")
    for metric, overall in found.overall.items():
        own = [change for change in found.changes if change.metric == metric]
        counts = Counter(change.verdict for change in own)
        told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("worse", "better", "same", "cannot say"))
        console.print()
        _print(console, f"{METRICS[metric].what}: {wording.count(len(own), 'cell')}: {told}", style="bold")
        if METRICS[metric].points:
            _print(console, f"mean difference {_points(overall)}", indent=2)
        else:
            _print(console, f"geometric mean of new / base {wording.ratio(overall)}", indent=2)
        shown = [change for change in own if change.verdict != "same"]
        for change in shown[:MOST_ROWS]:
            _print(console, f"{change.verdict}: {change.cell}: {change.reason}", indent=2)
        if len(shown) > MOST_ROWS:
            _print(console, f"… and {len(shown) - MOST_ROWS} more", indent=2)
    console.print()
    for what, names in (("base", found.only_base), ("new run", found.only_new)):
        for name in names:
            _print(console, f"Only in the {what}: {name}")
    for name, why in found.failed.items():
        _print(console, f"Without figures {why}: {name}")
    for change in found.regressions:
        worse = f"{100 * change.worse_by:.1f} {'points' if METRICS[change.metric].points else '%'}"
        _print(console, f"Regression: {change.metric} of {change.cell} is {worse} worse", style="bold")
    if not found.regressions:
        for reason in found.undecided:
            _print(console, f"Cannot decide: {reason}")


def _points(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{100 * interval.estimate:+.1f} points"
    return f"{100 * interval.estimate:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


# --- speed-ups ------------------------------------------------------------------------------------------------


def print_speedups(console: Console, found: Sequence[Speedups]) -> None:
    """Each matched pair, geometric means by policy and batch size, and what has no partner."""
    from rich.table import Table

    from tlbench.analysis import speedup

    for one in found:
        _print(console, f"{one.new} over {one.base}: {wording.count(len(one.pairs), 'matched pair')}", style="bold")
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("cell", "of"):
            table.add_column(heading, overflow="fold")
        for heading in ("batch", "times as fast"):
            table.add_column(heading, justify="right")
        for pair in sorted(one.pairs, key=lambda p: -p.ratio.estimate)[:MOST_ROWS]:
            cell, of = speedup.name(pair).split(", ", 1)
            table.add_row(_plain(cell), of, str(pair.base["batch_size"]), wording.ratio(pair.ratio))
        console.print(table)
        if len(one.pairs) > MOST_ROWS:
            _print(console, f"… and {len(one.pairs) - MOST_ROWS} more")
        console.print()
        means = {"all": one.overall()} if one.pairs else {}
        means |= {f"policy {value}": mean for value, mean in one.by("freeze").items() if value != "none"}
        batches = one.by("batch_size")
        means |= {f"batch size {value}": mean for value, mean in batches.items()} if len(batches) > 1 else {}
        for name, mean in means.items():
            if mean is not None:
                _print(console, f"{name}: {wording.ratio(mean)} times as fast, the geometric mean over cells")
        for row in one.unmatched[:MOST_ROWS]:
            _print(
                console, f"without a partner: {row['task']} {wording.label(row)} on {row['device']}, {row['precision']}"
            )
        if len(one.unmatched) > MOST_ROWS:
            _print(console, f"… and {len(one.unmatched) - MOST_ROWS} more without a partner")


# --- lines ----------------------------------------------------------------------------------------------------


def _print(console: Console, line: str, indent: int = 0, style: str | None = None) -> None:
    """Wrapped under its own indentation; nothing in it is markup."""
    space = " " * indent
    wrapped = textwrap.fill(
        line, console.width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )  # fmt: skip
    console.print(wrapped, markup=False, soft_wrap=True, style=style)


def _indented(console: Console, line: str, wrap: bool = True) -> None:
    if wrap:
        _print(console, line, indent=2)
    else:  # a command, to be copied whole
        console.print(f"  {line}", markup=False, soft_wrap=True, style="dim")


def _plain(text: str) -> str:
    """Nothing in it is markup, in a table either."""
    from rich.markup import escape

    return escape(text)
