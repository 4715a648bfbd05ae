"""Inference, timed: single images and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import device as machine
from tlbench.machine.clock import Clock
from tlbench.measure.build import Job, build
from tlbench.measure.timed import Timed, _nothing
from tlbench.records.record import Round

# --- inference ------------------------------------------------------------------------------------------------


def _infer(cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any]) -> None:
    job = build(cell, settings, facts)
    facts["flops"] = {"forward": sum(stage["flops"] for stage in facts["stages"])}
    forward = start_inference(job)
    warm_up = forward(cell.batch_size, 2)
    warm_up()
    facts["peak_memory_bytes"] = machine.peak_memory(job.compute.device, warm_up)
    forward(1, 3)()
    latency, throughput = Timed(job), Timed(job)
    try:
        latency.run(clock, _nothing, forward(1, 1), settings.latency_rounds)
        warm_up()  # the caches now hold the single image's sizes
        many = forward(cell.batch_size, settings.throughput_batches)
        throughput.run(clock, _nothing, many, settings.throughput_rounds)
    finally:
        facts["energy_joules"] = throughput.energy()
        images = cell.batch_size * settings.throughput_batches
        facts["latency_seconds"] = tuple(latency.seconds)
        facts["latency_noisy"] = sum(1 for seen in latency.rounds() if seen["noisy"])
        facts["rounds"] = [Round(phase="throughput", samples=images, **seen) for seen in throughput.rounds()]


def start_inference(job: Job) -> Callable[[int, int], Callable[[], None]]:
    """What makes a call that runs a batch of so many images (at most the cell's) so many times."""
    job.model.eval()
    model: Any = torch.compile(job.model) if job.compiled is not None else job.model
    source = job.sources["train"]
    batch = source.normalise(source.raw(torch.arange(job.cell.batch_size) % len(source))[0])

    def forward(images: int, times: int) -> Callable[[], None]:
        taken = batch if images == len(batch) else batch[:images].clone()

        def call() -> None:
            with torch.inference_mode(), job.compute.autocast():
                for _ in range(times):
                    model(taken)

        return call

    return forward
