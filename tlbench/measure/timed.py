"""The timed rounds of a cell, and what was seen during each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from tlbench.machine import sensors
from tlbench.machine.clock import Clock, EnoughRounds
from tlbench.machine.noise import Noise, Watch, energy, noisy
from tlbench.measure.build import BuiltCell
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation


class Measured(Protocol):
    """Owns the timed rounds of a cell: the finished ones are there whatever comes after them."""

    def rounds(self) -> tuple[Round, ...]:
        """Returns the finished rounds."""

    def energy(self) -> float | None:
        """Returns the joules of the finished rounds; None where the machine does not tell."""

    def last_evaluation(self) -> Evaluation | None:
        """Returns what the model says of the validation images in the end; None where it was not asked."""


class Timed:
    """Holds the timed rounds of a cell and what was seen during each; finished ones are kept whatever comes after."""

    def __init__(self, built: BuiltCell) -> None:
        device = built.arithmetic.device
        self.cuda, self.limit = device.type == "cuda", built.settings.noise_limit
        self.read = sensors.reader(device.type, device.index)
        self.counter_seconds = sensors.ENERGY_RESOLUTION_SECONDS[device.type]
        self.seconds: list[float] = []
        self.watches: list[Watch] = []
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, clock: Clock, setup: Callable[[], None], target: Callable[[], None], rounds: int) -> None:
        """Has a clock time so many calls of ``target``, each after one of ``setup``, or fewer where that raises
        `EnoughRounds`. Errors: what else these raise.
        """
        if self.cuda:
            setup, target = self._between_events(setup, target)
        watch = Watch(setup, self.read)
        self.watches.append(watch)
        try:
            clock(watch.setup, target, rounds, self.seconds)
        except EnoughRounds:
            pass
        finally:
            watch.close()

    def _between_events(self, setup: Callable[[], None], target: Callable[[], None]) -> tuple[Callable[[], None], ...]:
        """Returns the two with events around the target, which are made before it: CUDA makes one at its first use."""
        pair: list[torch.cuda.Event] = []

        def before() -> None:
            setup()
            pair[:] = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            for event in pair:
                event.record()

        def call() -> None:
            start, end = pair
            start.record()
            target()
            end.record()
            self.events.append((start, end))

        return before, call

    def rounds(self) -> list[dict[str, Any]]:
        """Returns what is known of each finished round, as fields of `Round`."""
        rounds = [
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
        for fields, (start, end) in zip(rounds, self.events, strict=False):
            fields["event_seconds"] = start.elapsed_time(end) / 1000
        return rounds

    def energy(self) -> float | None:
        """Returns the joules of the finished rounds; None where the machine does not tell."""
        return energy(self._seen()[: len(self.seconds)], self.seconds, self.counter_seconds)

    def _seen(self) -> list[Noise]:
        return [noise for watch in self.watches for noise in watch.rounds]


def nothing() -> None:
    """Stands in for a setup where a round needs none."""
