"""Inference, timed: single images and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tlbench.machine.clock import Clock
from tlbench.machine.device import peak_memory
from tlbench.measure.build import BuiltCell
from tlbench.measure.timed import Timed, nothing
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation


class Inference:
    """Runs the inference of a built cell: latency image by image, then throughput in batches."""

    def __init__(self, built: BuiltCell) -> None:
        self.built = built
        self._forward = start_inference(built)
        self._latency, self._throughput = Timed(built), Timed(built)

    def warm_up(self) -> int | None:
        """Runs every batch shape that is timed. Returns the peak memory in bytes."""
        batches = self._forward(self.built.cell.batch_size, 2)
        batches()
        peak = peak_memory(self.built.arithmetic.device, batches)
        self._forward(1, 3)()
        return peak

    def run(self, clock: Clock) -> None:
        """Times single images, then rounds of a few batches."""
        settings, size = self.built.settings, self.built.cell.batch_size
        self._latency.run(clock, nothing, self._forward(1, 1), settings.latency_rounds)  # timed
        self._forward(size, 2)()  # the caches now hold the single image's sizes
        batches = self._forward(size, settings.throughput_batches)
        self._throughput.run(clock, nothing, batches, settings.throughput_rounds)  # timed

    def rounds(self) -> tuple[Round, ...]:
        """Returns the finished rounds of the throughput."""
        images = self.built.cell.batch_size * self.built.settings.throughput_batches
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


def start_inference(built: BuiltCell) -> Callable[[int, int], Callable[[], None]]:
    """Returns what makes a call that runs a batch of so many images (at most the cell's) so many times."""
    built.model.eval()
    model: Any = torch.compile(built.model) if built.compiled is not None else built.model
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
