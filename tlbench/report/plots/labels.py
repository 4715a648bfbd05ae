"""Writes titles, names and ticks so that they fit, and differ from each other."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import Formatter

from tlbench.analysis.summary import Configuration
from tlbench.report import wording

# --- names that fit -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def inches(text: str, size: float = 9.5, bold: bool = False) -> float:
    """Returns the width of a line of text, ``size`` in points, in inches."""
    font = FontProperties(family="sans-serif", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def fitted(text: str, width: float, size: float = 9.5, bold: bool = False) -> str:
    """Returns the text, or where it is wider than ``width`` inches its beginning and its end."""
    if inches(text, size, bold) <= width:
        return text
    few, many = 0, len(text) - 1
    while few < many:  # the most characters that fit
        kept = (few + many + 1) // 2
        few, many = (kept, many) if inches(_ends(text, kept), size, bold) <= width else (few, kept - 1)
    return _ends(text, few)


def _ends(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def named(labels: Sequence[str], width: float, size: float = 9.5) -> list[str]:
    """Returns the labels so that they fit and those that differ still do."""
    short = {label: _on_lines(label, width, size) for label in labels}
    alike = Counter(short.values())
    numbers = {text: itertools.count(1) for text in alike}
    numbered = {label: f"{text} #{next(numbers[text])}" if alike[text] > 1 else text for label, text in short.items()}
    return [numbered[label] for label in labels]


def _on_lines(label: str, width: float, size: float) -> str:
    """Returns the label on as many lines as it needs: broken before a bracket and between its parts."""
    return _broken(re.split(r" (?=\()|(?<= ·) |(?<=,) ", label), " ", width, size)


def broken(title: str, width: float) -> str:
    """Returns a bold title on as many lines as it needs, broken between its parts."""
    return _broken(title.split(" · "), " · ", width, 9.5, bold=True)


def _broken(parts: Sequence[str], between: str, width: float, size: float, bold: bool = False) -> str:
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines else part
        if lines and inches(longer, size, bold) <= width:
            lines[-1] = longer
        else:
            lines.append(fitted(part, width, size, bold))
    return "\n".join(line.removesuffix(" ·") for line in lines)


def about_point(row: Configuration, differs: Sequence[str] = ()) -> str:
    """Says what a point of a figure is, a line each: its name, how accurate it is, how fast. ``differs``: as
    `tlbench.report.wording.label` takes it.
    """
    name, figures = wording.label(row, differs), {"test accuracy ": "accuracy_test", "training ": "training_seconds"}
    if row["task"] == "infer":
        name, figures = f"inference {name}", {"": "images_per_second", "one image ": "latency_p50_ms"}
    shown = [before + wording.interval(row, figure) for before, figure in figures.items() if row[figure] is not None]
    return "\n".join([name, *shown])


# --- ticks ----------------------------------------------------------------------------------------------------

EXACT = 1e-6
"""What a tick's text may lie off, as a share of the whole."""


class Ticks(Formatter):
    """Writes ticks with as few digits as tell them apart: each says its value to a millionth."""

    def __init__(self, write: Callable[[float, int], str], digits: Iterable[int]) -> None:
        self.write, self.digits = write, tuple(digits)

    def __call__(self, value: float, pos: Any = None) -> str:
        return self.format_ticks([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Returns the texts of all ticks of an axis."""
        least = min((abs(b - a) for a, b in itertools.pairwise(values) if b != a), default=math.inf)
        for digits in self.digits:
            texts = [self.write(value, digits) for value in values]
            if all(abs(read(text) - value) <= max(EXACT * abs(value), EXACT * min(least, 1))
                   for text, value in zip(texts, values, strict=True)):  # fmt: skip
                break
        return texts


UNITS = {" T": 1e12, " G": 1e9, " M": 1e6, " k": 1e3, " %": 0.01}


def read(text: str) -> float:
    """Returns the value of a tick's text."""
    factor = next((factor for unit, factor in UNITS.items() if text.endswith(unit)), 1.0)
    return float(text.rstrip(" TGMk%").replace("−", "-")) * factor


def tick(value: float, digits: int = 3) -> str:
    """Writes ``0.5``, ``20``, ``1 k``, ``1.5 M``."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9999 * factor:
            return f"{value / factor:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def percent_tick(value: float, digits: int = 3) -> str:
    """Writes a share as ``95 %``, to so many digits."""
    return f"{100 * value:.{digits}g} %"


def plain_ticks() -> Ticks:
    """Returns what writes the ticks of an axis in plain numbers."""
    return Ticks(tick, range(3, 10))


def percent_ticks() -> Ticks:
    """Returns what writes the ticks of an axis of shares in percent, as many decimals everywhere."""
    return Ticks(lambda value, digits: f"{100 * value:.{digits}f} %", range(8))


def percent_ticks_by_tens() -> Ticks:
    """Returns what writes the ticks of a logarithmic axis of shares in percent."""
    return Ticks(percent_tick, range(3, 10))
