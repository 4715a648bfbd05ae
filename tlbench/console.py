"""The console that words and tables are printed with. rich is imported when one is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tlbench.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 10_000
"""Characters of a line that nobody's terminal cuts: a row of a table is a line, for ``grep`` and its like."""


def new_console(**options: Any) -> Console:
    """Returns rich's console, in which a text (a name, the words of a library) moves no cursor and sets no colour: as
    wide as the terminal, or as $COLUMNS says, and as wide as need be where the words go elsewhere.
    """
    from rich.console import Console

    class Shown(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            """Makes a text of rich's from one that others may have chosen."""
            return super().render_str(printable(text, keep="\n\t"), **how)

    console = Shown(highlight=False, **options)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console
