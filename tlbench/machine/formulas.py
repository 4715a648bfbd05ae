"""Texts in tables that a spreadsheet may open: none of them may become a formula there."""

from __future__ import annotations

import re

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, also in its full width; and the apostrophe itself, so that
the first one of a text is always ours."""
_BEHIND_A_MARK = re.compile(rf"(;)(?=[ \xa0]*[{''.join(map(re.escape, FORMULAS))}])")
"""Where a cell begins for a spreadsheet that takes the semicolon for what lies between cells, as in half of Europe."""
_OURS = re.compile(r"^'|(?<=;)'")


def guarded(text: str) -> str:
    """Returns a text with an apostrophe before whatever would be a formula."""
    inside = _BEHIND_A_MARK.sub(r"\1'", text)
    return f"'{inside}" if text.lstrip(" \xa0").startswith(FORMULAS) else inside


def unguarded(text: str) -> str:
    """Returns the text that `guarded` was given."""
    return _OURS.sub("", text)
