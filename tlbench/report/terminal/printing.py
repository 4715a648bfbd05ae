"""Prints lines in the terminal, in which nothing that comes from a record is taken for markup."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


MOST_ROWS = 40
"""Most rows of a table or a list; the report has all of them."""


def say(console: Console, line: str, indent: int = 0, style: str | None = None) -> None:
    """Prints a line, wrapped under its own indentation; nothing in it is markup."""
    space = " " * indent
    wrapped = textwrap.fill(
        line, console.width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )  # fmt: skip
    console.print(wrapped, markup=False, soft_wrap=True, style=style)


def say_below(console: Console, line: str, wrap: bool = True) -> None:
    """Prints a line under another one; one that is not to be wrapped is a command."""
    if wrap:
        say(console, line, indent=2)
    else:  # a command, to be copied whole
        console.print(f"  {line}", markup=False, soft_wrap=True, style="dim")


def plain(text: str) -> str:
    """Escapes text for a table, so that nothing in it is markup."""
    from rich.markup import escape

    return escape(text)
