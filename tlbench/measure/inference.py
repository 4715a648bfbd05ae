"""Inference, timed: single images and batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from tlbench.machine.clock import Clock, now
from tlbench.machine.device import peak_memory
from tlbench.measure.build import BuiltCell
from tlbench.measure.peaks import kept_by_others
from tlbench.measure.timed import Timed, nothing
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation

LEAST_ROUND_SECONDS, MOST_BATCHES = 1.0, 10_000
"""Of a round in batches on CUDA: NVML's counters of energy move ten times a second, and clocks take as long to rise."""


class Inference:
    """Runs the inference of a built cell: latency image by image, then throughput in batches."""

    def __init__(self, built: BuiltCell) -> None:
        self.built = built
        self._forward = start_inference(built)
        self._latency, self._throughput = Timed(built), Timed(built)
        self.batches = built.settings.throughput_batches
        """Of a round; more on a GPU, where a round would be over before clocks and counters have settled."""
        self.compile_seconds: float | None = None

    def warm_up(self) -> int | None:
        """Runs every batch shape that is timed. Returns the peak memory in bytes."""
        device, size = self.built.arithmetic.device, self.built.cell.batch_size
        calls = self._forward(size, 2), self._forward(1, 3)
        first = sum(_seconds(call) for call in (*calls, *calls))  # the second ones record CUDA graphs
        peak = peak_memory(device, calls[0])
        again = [_seconds(call) for call in calls]
        if self.built.compiled is not None:
            self.compile_seconds = max(0.0, first - 2 * sum(again))
        self.batches = batches_of_a_round(self.built, again[0] / 2)
        return None if peak is None else peak - kept_by_others(self.built)

    def run(self, clock: Clock) -> None:
        """Times single images, then rounds of a few batches."""
        settings, size = self.built.settings, self.built.cell.batch_size
        self._latency.run(clock, nothing, self._forward(1, 1), settings.latency_rounds)  # timed
        self._forward(size, 2)()  # the caches now hold the single image's sizes
        batches = self._forward(size, self.batches)
        self._throughput.run(clock, nothing, batches, settings.throughput_rounds)  # timed

    def rounds(self) -> tuple[Round, ...]:
        """Returns the finished rounds of the throughput."""
        images = self.built.cell.batch_size * self.batches
        return tuple(Round(phase="throughput", samples=images, **seen) for seen in self._throughput.rounds())

    def energy(self) -> float | None:
        """Returns the joules of the batches; None where the machine does not tell."""
        return self._throughput.energy()

    @property
    def latency_seconds(self) -> tuple[float, ...]:
        """Returns the seconds of each single image so far."""
        return tuple(self._latency.seconds)

    @property
    def latency_noisy(self) -> int:
        """Counts the single images whose time is not to be trusted."""
        return sum(1 for seen in self._latency.rounds() if seen["noisy"])

    def last_evaluation(self) -> Evaluation | None:
        """Returns None: inference asks no model what an image is."""
        return None


def batches_of_a_round(built: BuiltCell, seconds: float) -> int:
    """Returns the batches of a round where one takes so many seconds: the setting's, or as many as a GPU needs."""
    wanted = built.settings.throughput_batches
    if built.arithmetic.device.type == "cpu":
        return wanted
    return max(wanted, min(math.ceil(LEAST_ROUND_SECONDS / max(seconds, 1e-6)), MOST_BATCHES))


def _seconds(call: Callable[[], None]) -> float:
    begin = now()
    call()
    return now() - begin


def start_inference(built: BuiltCell) -> Callable[[int, int], Callable[[], None]]:
    """Returns what makes a call that runs a batch of so many images (at most the cell's) so many times."""
    built.model.eval()
    model: Any = built.model if built.compiled is None else built.compiled.of(0, built.model)
    source = built.sources["train"]
    batch = source.normalise(source.raw(torch.arange(built.cell.batch_size) % len(source))[0])

    def forward(images: int, times: int) -> Callable[[], None]:
        taken = batch if images == len(batch) else batch[:images].clone()

        def call() -> None:
            with torch.inference_mode(), built.arithmetic.autocast():
                for _ in range(times):
                    model(taken)

        return call

    return forward
