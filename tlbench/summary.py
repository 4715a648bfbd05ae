"""The terminal's view of a run: the verdict, the rows, where the report is. Readable at 80 columns and wider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench import recommend, wording
from tlbench.frame import rows, summarise
from tlbench.record import Record

if TYPE_CHECKING:
    from rich.console import Console

    from tlbench.wording import Row

MOST_ROWS = 40
"""Of a table; the report has all of them."""
WIDE = 110
"""Columns of the terminal from which on the tables show more."""


def print_summary(console: Console, records: Sequence[Record], path: Path | None = None) -> None:
    """Verdict, table, failures with their reasons, the report's path."""
    table = rows(records)
    summary = summarise(table)
    scopes = recommend.verdicts(summary, recommend.noise_floors(table))
    for scope in scopes:
        differs = wording.varying(scope.rows)
        _verdict(console, scope, scopes, differs)
        _rows(console, scope, differs)
        console.print()
    _not_ok(console, summary)
    if path is not None:
        console.print("Report:", end=" ")
        console.print(str(path), markup=False, soft_wrap=True)


def _verdict(console: Console, scope: recommend.Scope, scopes: Sequence[recommend.Scope], differs: list[str]) -> None:
    console.print(f"Verdict for {wording.scope_name(scope, scopes)}", style="bold", markup=False)
    for pick in scope.picks:
        console.print(f"{wording.question(pick)}: {wording.answer(pick, differs)}", markup=False)
        for line in ("; ".join(wording.evidence(pick)), wording.certainty(pick, differs, most=2)):
            if line:
                console.print(f"  {line}", markup=False)
    commands = dict.fromkeys(pick.command for pick in scope.picks if pick.command)
    for command in commands:
        console.print("To decide, run this and report both runs together:")
        console.print(f"  {command}", markup=False, soft_wrap=True, style="dim")
    console.print()


def _rows(console: Console, scope: recommend.Scope, differs: list[str]) -> None:
    for task, columns in (("train", TRAIN), ("infer", INFER)):
        own = [row for row in scope.rows if row["task"] == task and row["records_ok"]]
        if own:
            _table(console, own, columns, differs)


TRAIN: dict[str, tuple[str, Any, bool]] = {
    "test acc.": ("accuracy_test", lambda row: _accuracy(row, "accuracy_test"), False),
    "val acc.": ("accuracy_val", lambda row: _accuracy(row, "accuracy_val"), True),
    "epoch s": ("epoch_seconds", lambda row: wording.number(row["epoch_seconds"]), False),
    "total s": ("training_seconds", lambda row: wording.number(row["training_seconds"]), True),
    "images/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), False),
    "trains": ("trainable_parameters", lambda row: wording.short(row["trainable_parameters"]), False),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), True),
}
"""Heading -> (column, text, only where the terminal is wide)."""
INFER: dict[str, tuple[str, Any, bool]] = {
    "images/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), False),
    "p50 ms": ("latency_p50_ms", lambda row: wording.number(row["latency_p50_ms"]), False),
    "p95 ms": ("latency_p95_ms", lambda row: wording.number(row["latency_p95_ms"]), False),
    "parameters": ("total_parameters", lambda row: wording.short(row["total_parameters"]), True),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), True),
}
ORDER = {"train": "accuracy_val", "infer": "images_per_second"}


def _accuracy(row: Row, figure: str) -> str:
    low = row[f"{figure}_low"]
    if row[figure] is None:
        return wording.UNKNOWN
    return f"{100 * row[figure]:.1f}" + (f" ±{100 * (row[figure] - low):.1f}" if low is not None else "")


def _table(console: Console, own: list[Row], columns: dict[str, tuple[str, Any, bool]], differs: Sequence[str]) -> None:
    from rich.table import Table

    own = sorted(own, key=lambda row: -(row[ORDER[row["task"]]] or 0))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    names = ["backbone", *(["freeze"] if own[0]["task"] == "train" else []), "head"]
    for name in names:
        table.add_column(name, overflow="fold")
    if differs:
        table.add_column("", overflow="fold")
    shown = {
        heading: draw
        for heading, (figure, draw, wide) in columns.items()
        if (not wide or console.width >= WIDE) and any(row[figure] is not None for row in own)
    }
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in own[:MOST_ROWS]:
        cells = [wording.model(row) if name == "backbone" else row[name] for name in names]
        if differs:
            cells.append(", ".join(wording.SOMETIMES[d](row[d]) for d in differs if row[d] not in (None, "")))
        flag = "" if row["validity"] in (None, "ok") else f" {row['validity']}"
        table.add_row(
            *map(_plain, cells),
            *(draw(row) for draw in list(shown.values())[:-1]),
            *(draw(row) + flag for draw in list(shown.values())[-1:]),
        )
    console.print(table)
    if len(own) > MOST_ROWS:
        console.print(f"… and {len(own) - MOST_ROWS} more rows in the report")
    console.print()


def _plain(value: str) -> str:
    from rich.markup import escape

    return escape(value)


def _not_ok(console: Console, summary: Sequence[Row]) -> None:
    """Failures and skips, grouped by what they have in common."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in summary:
        if row["status"] != "ok":
            groups.setdefault((row["status"], row["reason"]), []).append(row)
    for (status, reason), own in groups.items():
        names = ", ".join(wording.label(row) for row in own[:3]) + (f" and {len(own) - 3} more" if len(own) > 3 else "")
        console.print(f"{status}: {names}: {reason}", markup=False)
    if groups:
        console.print()
