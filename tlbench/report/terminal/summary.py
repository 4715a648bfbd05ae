"""Prints verdict and table of runs, readable at 80 columns and wider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.analysis import verdict
from tlbench.analysis.frame import rows
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.summary import Configuration, summarise
from tlbench.records.record import Record
from tlbench.report import noise_words, wording
from tlbench.report.remarks import remarks
from tlbench.report.terminal.printing import MOST_ROWS, plain, say, say_below

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_summary(
    console: Console, records: Sequence[Record], path: Path | None = None, runs: str | Sequence[str] = ""
) -> None:
    """Prints verdict, table, failures with their reasons, the report's path. ``runs`` names the run of each record."""
    table = rows(records, runs)
    summary = summarise(table)
    scopes = verdict.verdicts(summary, noise_floors(table))
    for scope in scopes:
        differs = wording.varying(scope.rows)
        _verdict(console, scope, scopes, differs)
        _rows(console, scope, differs)
    _not_ok(console, summary)
    for text in [*remarks(summary), *wording.image_problems(summary)]:
        say(console, text)
    if path is not None:
        console.print(f"Report: {path}", markup=False, soft_wrap=True)


def _verdict(console: Console, scope: verdict.Scope, scopes: Sequence[verdict.Scope], differs: list[str]) -> None:
    say(console, f"Verdict for {wording.scope_name(scope, scopes)}", style="bold")
    told: list[Configuration] = []
    for pick in scope.picks:
        again = pick.row is not None and any(pick.row is row for row in told)
        told += [pick.row] if pick.row is not None else []
        say(console, f"{wording.question(pick)}: {wording.answer(pick, differs)}{' again' * again}")
        evidence = "" if again else "; ".join(wording.evidence(pick))  # its figures stand just above
        for line in (evidence, wording.certainty(pick, differs, most=2)):
            if line:
                say_below(console, line)
    say(console, f"Noise floor of times: {noise_words.noise_floor(scope.floor)}")
    commands = dict.fromkeys(pick.command for pick in scope.picks if pick.command)
    if commands:
        say(console, "This may decide what is not; report the runs together:")
    for command in commands:
        say_below(console, command, wrap=False)
    console.print()


def _rows(console: Console, scope: verdict.Scope, differs: list[str]) -> None:
    for task, columns in (("train", TRAIN), ("infer", INFER)):
        finished = [row for row in scope.rows if row["task"] == task and row["records_ok"]]
        if finished:
            _table(console, finished, columns, differs)


Columns = dict[str, tuple[str, Any, int]]
"""Heading -> (figure, text, rank): where the terminal is too narrow for all, the highest ranks are left out first."""

TRAIN: Columns = {
    "test %": ("accuracy_test", lambda row: _accuracy(row, "accuracy_test"), 0),
    "val %": ("accuracy_val", lambda row: _accuracy(row, "accuracy_val"), 5),
    "epoch s": ("epoch_seconds", lambda row: wording.number(row["epoch_seconds"]), 0),
    "total s": ("training_seconds", lambda row: wording.number(row["training_seconds"]), 1),
    "images/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), 3),
    "trainable": ("trainable_parameters", lambda row: _trainable(row), 2),
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


def _trainable(row: Configuration) -> str:
    """Writes the parameters that train, and how many of them are no part of the model: ``9.20 M (adds 9.19 M)``."""
    added = row["added_parameters"]
    return wording.short(row["trainable_parameters"]) + (f" (adds {wording.short(added)})" if added else "")


def _accuracy(row: Configuration, figure: str) -> str:
    low, high = row[f"{figure}_low"], row[f"{figure}_high"]
    if row[figure] is None:
        return wording.UNKNOWN
    if low is None:
        return f"{100 * row[figure]:.1f}"
    mean, below, above = row[figure], max(0.0, row[figure] - low), max(0.0, high - row[figure])
    longer = max(below, above)
    if mean - longer < 0 or mean + longer > 1:  # no accuracy lies there
        return f"{100 * mean:.1f} +{100 * above:.1f}/-{100 * below:.1f}"
    # Of an interval with unequal sides the longer one: what is written holds both.
    return f"{100 * mean:.1f} ±{100 * longer:.1f}"


def _table(console: Console, finished: list[Configuration], columns: Columns, differs: Sequence[str]) -> None:
    from rich.measure import Measurement

    finished = sorted(finished, key=lambda row: -(row[ORDER[row["task"]]] or 0))
    filled = {
        h: (draw, rank) for h, (figure, draw, rank) in columns.items() if any(r[figure] is not None for r in finished)
    }
    for most in sorted({rank for _, rank in filled.values()}, reverse=True):
        shown = {heading: draw for heading, (draw, rank) in filled.items() if rank <= most}
        table = _build(finished[:MOST_ROWS], shown, differs)
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)
    if len(finished) > MOST_ROWS:
        console.print(f"… and {len(finished) - MOST_ROWS} more rows in the report")
    for note in dict.fromkeys(note for row in finished for note in _notes(row)):
        say(console, note)
    if over := wording.accuracies_over(finished):
        lopsided = any("+" in draw(row) for draw in _accuracies(shown) for row in finished[:MOST_ROWS])
        say(console, f"±{', +/-' if lopsided else ''}: {over}")
    console.print()


def _accuracies(shown: Mapping[str, Any]) -> list[Any]:
    return [draw for heading, draw in shown.items() if TRAIN.get(heading, ("",))[0].startswith("accuracy")]


def _build(finished: Sequence[Configuration], shown: Mapping[str, Any], differs: Sequence[str]) -> Table:
    """Builds a table of these rows with these figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    names = ["backbone", *(["freeze"] if finished[0]["task"] == "train" else []), "head"]
    for name in [*names, *([""] if differs else [])]:
        table.add_column(name, overflow="fold")
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in finished:
        cells = [_marked(row) if name == "backbone" else row[name] for name in names]
        if differs:
            cells.append(", ".join(wording.SOMETIMES[d](row[d]) for d in differs if row[d] not in (None, "")))
        table.add_row(*map(plain, cells), *(draw(row) for draw in shown.values()))
    return table


MARKS = {"random": "*", "auto": "?"}
"""Marks of backbones whose weights are not pretrained: a column of their own would not fit into 80 characters."""
FLAG = "!"


def _flagged(row: Configuration) -> bool:
    return row["validity"] not in (None, "ok")


def _marked(row: Configuration) -> str:
    """Returns the backbone's name with marks for weights and flagged times, or the checkpoint's name."""
    marks = MARKS.get(row["weights"], "") + (FLAG if _flagged(row) else "")
    name = str(row["backbone"]) if row["weights"] in MARKS else wording.model(row)
    return f"{name} {marks}" if marks else name


def _notes(row: Configuration) -> list[str]:
    """Says what the marks of a row mean."""
    notes = [f"{MARKS[row['weights']]} {wording.weights(row)}"] if row["weights"] in MARKS else []
    return [*notes, f"{FLAG} times flagged as {row['validity']}"] if _flagged(row) else notes


def _not_ok(console: Console, summary: Sequence[Configuration]) -> None:
    """Prints failures and skips, grouped by what they have in common."""
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for row in summary:
        if row["status"] != "ok":
            groups.setdefault((row["status"], row["reason"]), []).append(row)
    for (status, reason), group in groups.items():
        names = ", ".join(wording.label(row) for row in group[:3]) + (
            f" and {len(group) - 3} more" if len(group) > 3 else ""
        )
        say(console, f"{status.replace('_', ' ')}: {names}: {reason}")
    if groups:
        console.print()


# --- in pieces ------------------------------------------------------------------------------------------------


def print_verdicts(console: Console, records: Sequence[Record], runs: str | Sequence[str] = "") -> None:
    """Prints the verdicts alone. ``runs`` names the run of each record."""
    table = rows(records, runs)
    scopes = verdict.verdicts(summarise(table), noise_floors(table))
    for scope in scopes:
        _verdict(console, scope, scopes, wording.varying(scope.rows))


def print_tables(console: Console, records: Sequence[Record], runs: str | Sequence[str] = "") -> None:
    """Prints what stands below the verdicts: tables, failures with their reasons, remarks."""
    summary = summarise(rows(records, runs))
    scopes = verdict.verdicts(summary)
    for scope in scopes:
        if len(scopes) > 1:
            say(console, wording.scope_name(scope, scopes), style="bold")
        _rows(console, scope, wording.varying(scope.rows))
    _not_ok(console, summary)
    for text in [*remarks(summary), *wording.image_problems(summary)]:
        say(console, text)
