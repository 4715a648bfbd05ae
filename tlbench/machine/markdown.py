"""Texts in Markdown that others have chosen: none of them may become more than a text there."""

from __future__ import annotations

import re
from typing import Any

from tlbench.errors import printable


def markdown(value: Any) -> str:
    """Escapes text so that Markdown shows it as it is, also inside a table: nothing in it becomes a list, a link, a
    formula or the name of a person.
    """
    text = printable(str(value).replace("\n", " "))
    text = re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", text)
    text = re.sub(r"^(\s*)(?:([+-])(?=\s|$)|(\d+)(?=[.)](?:\s|$)))", _begun, text)
    text = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp)(?=:)", r"\1\\", text)
    text = re.sub(r"(?i)\bwww(?=\.)", r"www\\", text)
    # A backslash does not keep GitHub from this one, which it looks for in the finished text.
    return re.sub(r"(?<![\w.+-])@(?=\w)|@(?=[\w-]+\.\w)", "<span>@</span>", text)


def _begun(found: re.Match[str]) -> str:
    """Takes from the beginning of a line what would make an item of it: ``+ x``, ``1. x``."""
    space, mark, number = found.groups()
    return f"{space}\\{mark}" if mark else f"{space}{number}\\"
