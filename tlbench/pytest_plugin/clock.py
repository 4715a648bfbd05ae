"""Makes pytest-benchmark the clock of a cell, and has it show the times of cells that ran elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class PedanticClock:
    """Makes pytest-benchmark a `tlbench.machine.clock.Clock`: its pedantic mode times the first measurement of a cell,
    so that its table, JSON and comparison show those rounds. It works once a test; further measurements of the cell are
    timed by the plain clock.
    """

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark
        self.used = False

    def __call__(
        self, setup: Callable[[], None], target: Callable[[], None], rounds: int, seconds: list[float]
    ) -> None:
        from tlbench.machine.clock import EnoughRounds, plain_clock

        if self.used:
            plain_clock(setup, target, rounds, seconds)
            return
        self.used = True
        try:
            self.benchmark.pedantic(target, setup=setup, rounds=rounds, iterations=1, warmup_rounds=0)
        except EnoughRounds:
            self.benchmark.has_error = False  # else its table leaves these rounds out
            raise
        finally:
            if self.benchmark.stats is not None:
                seconds.extend(self.benchmark.stats.stats.data)


def show(benchmark: Any, seconds: Sequence[float]) -> None:
    """Gives pytest-benchmark the times of a cell that ran in another process."""
    if not seconds:
        return
    readings = iter([reading for second in seconds for reading in (0.0, second)])
    benchmark._timer = lambda: next(readings)
    benchmark.pedantic(lambda: None, rounds=len(seconds), iterations=1, warmup_rounds=0)
