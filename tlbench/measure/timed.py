"""The timed rounds of a cell, and what was seen during each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tlbench.machine import sensors
from tlbench.machine.clock import Clock
from tlbench.machine.noise import Noise, Watch, energy, noisy
from tlbench.measure.build import Job


class Timed:
    """The timed rounds of a cell and what was seen during each; the finished ones are kept whatever comes after."""

    def __init__(self, job: Job) -> None:
        device = job.compute.device
        self.cuda, self.limit = device.type == "cuda", job.settings.noise_limit
        self.read = sensors.reader(device.type, device.index)
        self.counter_seconds = sensors.ENERGY_RESOLUTION_SECONDS[device.type]
        self.seconds: list[float] = []
        self.watches: list[Watch] = []
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, clock: Clock, setup: Callable[[], None], target: Callable[[], None], rounds: int) -> None:
        """Errors: whatever ``target`` raises."""
        watch = Watch(setup, self.read)
        self.watches.append(watch)
        try:
            clock(watch.setup, self._between_events(target) if self.cuda else target, rounds, self.seconds)
        finally:
            watch.close()

    def _between_events(self, target: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            target()
            end.record()
            self.events.append((start, end))

        return call

    def rounds(self) -> list[dict[str, Any]]:
        """Fields of `Round`, for each finished one."""
        found = [
            {
                "seconds": s,
                "pressure": n.pressure,
                "switches": n.switches,
                "noisy": noisy(n, s, self.limit),
                "throttled": ", ".join(n.throttled),
                "clock_mhz": n.clock_mhz,
            }
            for s, n in zip(self.seconds, self._seen(), strict=False)
        ]
        for fields, (start, end) in zip(found, self.events, strict=False):
            fields["event_seconds"] = start.elapsed_time(end) / 1000
        return found

    def energy(self) -> float | None:
        """Joules of the finished rounds."""
        return energy(self._seen()[: len(self.seconds)], self.seconds, self.counter_seconds)

    def _seen(self) -> list[Noise]:
        return [noise for watch in self.watches for noise in watch.rounds]


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _nothing() -> None:
    pass


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
