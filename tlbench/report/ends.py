"""Writes the ends of intervals, in words where they are so far apart that they say nothing."""

from __future__ import annotations

from collections.abc import Callable

from tlbench.analysis.stats import ANYTHING, says_nothing

SHARES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
"""All that an accuracy, and a difference of two, can be."""


def ends(
    estimate: float,
    low: float,
    high: float,
    write: Callable[[float], str],
    *,
    whole: tuple[float, float] | None = None,
    between: str = " to ",
) -> str:
    """Writes ``10.1 to 15.0``, or that it may be anything. ``whole``: as of `says_nothing`."""
    return ANYTHING if says_nothing(estimate, low, high, whole) else f"{write(low)}{between}{write(high)}"
