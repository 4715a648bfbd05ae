"""Writes texts and figures as they may stand in Markdown and HTML."""

from __future__ import annotations

import re
from typing import Any

from tlbench.report.plots import look


def markdown(value: Any) -> str:
    """Escapes text so that Markdown shows it as it is, also inside a table."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", str(value)).replace("\n", " ")


def code(text: str) -> str:
    """Writes text as Markdown's code, fenced by more backticks than it has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text.replace(chr(10), ' ')}{space}{fence}"


def inline_svg(svg: str, title: str) -> str:
    """Returns a figure for the page: in the page's own colours, with no name that another figure in it may have too."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<rect class=\"paper\"[^>]*/>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' id="(?!C\d)[A-Za-z][\w.]*_\d{1,5}"', "", svg)  # what is left is named by its content
    svg = svg.replace(look.INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
