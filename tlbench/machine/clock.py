"""Clocks. One reading of time for all devices: synchronise, then read the wall clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol


def now() -> float:
    """Returns the seconds of a monotonic clock, read after the work queued on CUDA is done.

    torch is looked up, not imported: where it was never loaded there is nothing to wait for.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class EnoughRounds(Exception):
    """A setup raises it to end a measurement before all of its rounds: nothing has gone wrong."""


class Clock(Protocol):
    """A clock times the rounds of one measurement."""

    def __call__(
        self, setup: Callable[[], None], target: Callable[[], None], rounds: int, seconds: list[float]
    ) -> None:
        """Calls setup and target alternately, ``rounds`` times, and appends the seconds each target took.

        An error leaves the seconds of the rounds before it in the list; so does `EnoughRounds`, which it lets through.
        """


def plain_clock(setup: Callable[[], None], target: Callable[[], None], rounds: int, seconds: list[float]) -> None:
    """Times rounds with `now`; this is the clock of ``tlbench run``."""
    for _ in range(rounds):
        setup()
        start = now()
        target()
        seconds.append(now() - start)
