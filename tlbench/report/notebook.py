"""The terminal's verdict and tables as text and as HTML, for what shows itself in a notebook or at Python's prompt."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tlbench.analysis.frame import rows
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.summary import SUMMARY, summarise
from tlbench.analysis.verdict import verdicts
from tlbench.errors import printable
from tlbench.records.record import Record
from tlbench.report.terminal.summary import print_tables, print_verdicts
from tlbench.report.verdict_words import question

if TYPE_CHECKING:
    Print = Callable[[Console, Sequence[Record], str], None]

WIDTH = 100
"""Characters of a line of text."""
WIDE = 1000
"""Width at which a table has all its columns: a notebook scrolls."""
NO_MATH = 'class="tex2jax_ignore mathjax_ignore"'
"""What pandas writes as well: a notebook would typeset names with dollars in them."""


class _Pieces(Console):
    """Keeps what is printed, tables as such."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), width=WIDE, force_terminal=False, force_jupyter=False)
        self.pieces: list[str | Table] = []

    def print(self, *objects: Any, **_: Any) -> None:
        """Keeps a table or a line, an empty one too."""
        self.pieces += [one if isinstance(one, Table) else str(one) for one in objects or [""]]


def _printed(what: Print, records: Sequence[Record], run: str, width: int) -> str:
    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=False, force_jupyter=False, color_system=None, highlight=False
    )  # fmt: skip
    what(console, records, run)
    lines = (line.rstrip() for line in text.getvalue().strip("\n").split("\n"))
    return printable("\n".join(lines), keep="\n\t")


def verdict(records: Sequence[Record], run: str, width: int = WIDTH) -> str:
    """Returns the verdicts as the terminal prints them, in lines of so many characters."""
    return _printed(print_verdicts, records, run, width)


def picks(records: Sequence[Record], run: str) -> list[dict[str, Any]]:
    """Returns the answers of all verdicts: question, standing, reason and command, and what is known of the columns of
    report.csv (`tlbench.analysis.summary.SUMMARY`) for the configuration that answers, None being left out.
    """
    table = rows(records, run)
    return [
        {
            "question": question(pick),
            **{name: pick.row[name] for name in SUMMARY if pick.row is not None and pick.row[name] is not None},
            "standing": pick.standing,
            "reason": pick.reason,
            "command": pick.command,
        }
        for scope in verdicts(summarise(table), noise_floors(table))
        for pick in scope.picks
    ]


def table(records: Sequence[Record], run: str, width: int = WIDTH) -> str:
    """Returns the tables and what is said below them, as the terminal prints them at a width in characters."""
    return _printed(print_tables, records, run, width)


def table_html(records: Sequence[Record], run: str, last: str = "") -> str:
    """Returns the same as HTML, with all columns; ``last`` is a line below it."""
    console = _Pieces()
    print_tables(console, records, run)
    parts = [_as_html(one) if isinstance(one, Table) else _line(one) for one in [*console.pieces, last]]
    return "\n".join(filter(None, parts))


def _shown(text: str) -> str:
    return escape(printable(text, keep="\n\t"))


def _line(text: str) -> str:
    return f'<div {NO_MATH} style="white-space: pre-wrap">{_shown(text)}</div>' if text.strip() else ""


def preformatted(text: str) -> str:
    """Returns lines as HTML that breaks them only where a window is too narrow."""
    return f'<pre {NO_MATH} style="white-space: pre-wrap">{_shown(text)}</pre>'


def _as_html(table: Table) -> str:
    """Returns a terminal's table as one of HTML, its cells as plain text."""
    aligned = ["right" if one.justify == "right" else "left" for one in table.columns]
    sides = [f' style="text-align: {side}; padding: 0.1em 0.6em"' for side in aligned]
    heads = "".join(f"<th{side}>{_cell(one.header)}</th>" for one, side in zip(table.columns, sides, strict=True))
    lines = zip(*(list(one.cells) for one in table.columns), strict=True)
    body = "\n".join(
        "<tr>" + "".join(f"<td{side}>{_cell(one)}</td>" for one, side in zip(line, sides, strict=True)) + "</tr>"
        for line in lines
    )
    return f"<table {NO_MATH}>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(content: Any) -> str:
    return _shown(content.plain if isinstance(content, Text) else Text.from_markup(str(content)).plain)
