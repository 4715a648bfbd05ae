"""Writes texts and figures as they may stand in a page, and in Markdown's code."""

from __future__ import annotations

import re
from typing import Any

from tlbench.errors import printable


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
