"""Writes texts and figures as they may stand in Markdown and HTML."""

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


def unbroken(text: str) -> Any:
    """Escapes text for the page, where no option of a command (``--blocks 3``) breaks at its dashes."""
    from markupsafe import Markup, escape

    parts = re.split(r"((?<![\w-])--[a-z][\w-]*(?: \d+)?)", text)
    marked = [Markup('<span class="unbroken">{}</span>').format(t) if n % 2 else escape(t) for n, t in enumerate(parts)]
    return Markup("").join(marked)


def code(text: str) -> str:
    """Writes text as Markdown's code, fenced by more backticks than it has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{printable(text.replace(chr(10), ' '))}{space}{fence}"


def inline_svg(svg: str, title: str) -> str:
    """Returns a figure for the page: in the page's own colours, with no name that another figure in it may have too."""
    from markupsafe import escape

    from tlbench.report.plots import look  # not before there is a figure: the rest can do without matplotlib

    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<rect class=\"paper\"[^>]*/>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' id="(?!C\d)[A-Za-z][\w.]*_\d{1,5}"', "", svg)  # what is left is named by its content
    svg = svg.replace(look.INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
