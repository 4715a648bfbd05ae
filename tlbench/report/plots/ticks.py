"""Places the ticks of a logarithmic axis: as many as it has room for, none whose text would run into another's."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.ticker import Locator, LogLocator, MaxNLocator

from tlbench.report.plots import labels

MOST_TICKS = 6
SUBS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Multiples of powers of ten that may have ticks, the most first: who has too many of one has enough of the next."""
GAP_INCHES = 0.08
"""Least room between the texts of two ticks."""
TEXT_INCHES = 0.14
"""Height of the text of a tick."""


def log_locator(low: float, high: float) -> Locator:
    """Returns what places the ticks of a logarithmic axis: evenly where the axis is much shorter than a decade. Over
    several decades, even ticks would all stand at its end.
    """
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for subs in SUBS:
        ticks = sum(low <= sub * power <= high for power in powers for sub in subs)
        if ticks < 3:
            return WithRoom(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        if ticks <= MOST_TICKS:
            return WithRoom(LogLocator(subs=subs))
    return WithRoom(LogLocator(numticks=MOST_TICKS))


class WithRoom(Locator):
    """Leaves out the ticks of another locator whose text would run into that of the one before, at the size that the
    axis has when it is drawn: names of lines beside a panel may leave little of it.
    """

    axis: Any  # matplotlib's own, and never another one: it has a figure
    wanted: Locator

    def __init__(self, wanted: Locator) -> None:
        self.wanted = wanted

    def set_axis(self, axis: Any) -> None:
        """Takes the axis, as `Locator.set_axis`."""
        super().set_axis(axis)
        self.wanted.set_axis(axis)

    def __call__(self) -> list[float]:
        """Returns the places of the ticks, as values."""
        low, high = sorted(self.axis.get_view_interval())
        inside = [float(value) for value in self.wanted() if low <= value <= high]
        return self._apart(inside, low, high)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Returns the places of the ticks between two values."""
        inside = [float(value) for value in self.wanted.tick_values(vmin, vmax) if vmin <= value <= vmax]
        return self._apart(inside, vmin, vmax)

    def _apart(self, values: list[float], low: float, high: float) -> list[float]:
        """Returns those of ascending values whose texts have room beside each other."""
        across = self.axis.axis_name == "x"
        box, dots = self.axis.axes.bbox, self.axis.axes.figure.dpi
        length = (box.width if across else box.height) / dots
        span = math.log(high / low) if high > low > 0 else 0.0
        if not span:
            return values
        kept: list[float] = []
        end = -math.inf
        for value, text in zip(values, labels.plain_ticks().format_ticks(values), strict=True):
            place = length * math.log(value / low) / span
            half = (labels.inches(text) if across else TEXT_INCHES) / 2
            if place - half >= end:
                kept.append(value)
                end = place + half + GAP_INCHES
        return kept
