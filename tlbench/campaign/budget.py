"""The budget of a race: seconds of the clock, from the command's start to its last line, over all times that it goes
on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlbench.errors import UserError

LEAST = 1.0
MOST = 366 * 24 * 3600.0
REPORT_SECONDS = 15.0
"""Seconds that are kept for summary and report."""
REPORT_SHARE = 0.15
"""Share of a small budget that is kept for them at most."""
LATE_SHARE, LATE_SECONDS = 0.05, 60.0
"""A measurement that takes longer than was expected may exceed the budget by this share of it, and by so many seconds,
before it is ended: what was spent on it would be lost."""


def parse_budget(text: object, dashes: str = "--") -> float:
    """Reads a budget: ``20m``, ``2h``, ``90`` (seconds). Errors: UserError with the value and what was expected."""
    from tlbench.analysis.recommend import parse_seconds

    expected = f"{dashes}budget {str(text)!r} is not a time such as 90s, 20m or 2h"
    try:
        seconds = parse_seconds(str(text))
    except UserError:
        raise UserError(expected) from None
    if seconds < LEAST:
        raise UserError(f"{expected}: nothing can be measured in less than a second")
    if seconds > MOST:
        raise UserError(f"{expected}: that is more than a year")
    return seconds


def seconds_since_start() -> float:
    """Returns the seconds since this process began, as the system tells; 0 where it does not."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


@dataclass(kw_only=True)
class Budget:
    """Counts the seconds of a race."""

    seconds: float
    """All that may be spent, by earlier times as well."""
    before: float = 0.0
    """Seconds that earlier times have spent."""
    began: float = 0.0
    """When this time began, by the clock."""
    clock: Callable[[], float] = time.monotonic
    kept_back: float = 0.0
    """Seconds that are kept for making the picked cell's model."""

    @property
    def spent(self) -> float:
        """Returns the seconds that are spent by now."""
        return self.before + self.clock() - self.began

    @property
    def for_measuring(self) -> float:
        """Returns the seconds that measurements have, those that are spent included."""
        return self.seconds - min(REPORT_SECONDS, REPORT_SHARE * self.seconds) - self.kept_back

    @property
    def left(self) -> float:
        """Returns the seconds that are left for measurements."""
        return self.for_measuring - self.spent

    @property
    def longest(self) -> float:
        """Returns the seconds after which a measurement that begins now is ended."""
        return max(self.left + self.late, LEAST)

    @property
    def late(self) -> float:
        """Returns the seconds by which the budget may be exceeded for what would be lost otherwise."""
        return min(LATE_SECONDS, LATE_SHARE * self.seconds)
