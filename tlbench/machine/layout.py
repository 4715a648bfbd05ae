"""The memory layout of a backbone, measured once for each machine."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlbench.machine import layouts
from tlbench.machine.arithmetic import Arithmetic

LAYOUTS = ("contiguous", "channels_last")
GAIN = 0.95
"""channels_last is taken when a step takes at most this share of the default layout's time."""
CALIBRATION_IMAGES, CALIBRATION_ROUNDS = 8, 5
"""Images of a step on a CPU, whose time grows with their number from the first on. On a GPU so few would measure how
fast kernels are launched: there a step takes the cell's batch."""

CLEAR_ROUNDS, CLEAR, CALIBRATION_SECONDS = 2, 1.15, 2.0
"""Rounds of both after which no more are measured where all of them are on one side of the choice by this factor, or
where all have taken so many seconds: what disturbs steps that long is a small part of them."""


# --- the layout, measured once per backbone and machine ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Says which memory layout a backbone gets, and why."""

    chosen: str
    requested: str
    contiguous_seconds: float | None = None
    """Median of a training step of `images`, where it was measured."""
    channels_last_seconds: float | None = None
    images: int | None = None
    """Images of that step."""
    key: str | None = None
    """What it was measured of: cells with the same have the same layout."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Says what a step is that tells the faster layout."""

    images: int
    size: int
    """Pixels a side."""
    training: bool
    """Whether it goes backward as well."""


def calibration_images(batch_size: int, device: torch.device) -> int:
    """Returns the images of a step that tells the faster layout for cells of this batch size."""
    return batch_size if device.type == "cuda" else min(batch_size, CALIBRATION_IMAGES)


def choose_layout(requested: str, key: str, images: int, measure: Callable[[], tuple[float, float]]) -> Layout:
    """Chooses the layout of a backbone. ``auto`` measures both once for a key (backbone, image size, precision,
    ``images`` of a step, machine) and keeps the result: a choice that could change from run to run would change the
    last bits.

    ``measure`` gives the seconds of a step in the default layout and in channels_last.
    """
    if requested != "auto":
        return Layout(chosen=requested, requested=requested)
    plain, last = layouts.known(key) or layouts.keep(key, measure())
    return Layout(
        chosen="channels_last" if last <= GAIN * plain else "contiguous",
        requested="auto",
        contiguous_seconds=plain,
        channels_last_seconds=last,
        images=images,
        key=key,
    )


def measure_layouts(
    build: Callable[[], nn.Module], step: Calibration, device: torch.device, precision: str
) -> tuple[float, float]:
    """Returns the median seconds of a step in the default layout and in channels_last, taken in turn.

    ``build`` gives a fresh model each time. Errors: torch.OutOfMemoryError.
    """
    steps = []
    with torch.random.fork_rng(devices=[]):
        for channels_last in (False, True):
            arithmetic = Arithmetic(device=device, precision=precision, channels_last=channels_last)
            model = build()
            arithmetic.place(model)
            model.train(step.training)
            shape = (step.images, 3, step.size, step.size)
            batch = arithmetic.arrange(torch.rand(shape).to(device, arithmetic.dtype))
            steps.append((model, arithmetic, batch, step.training))
        seconds: list[list[float]] = [[], []]
        for _ in range(CALIBRATION_ROUNDS):
            for times, one in zip(seconds, steps, strict=True):
                times.append(_step(*one))
            if _is_enough(*(times[1:] for times in seconds)):
                break
    # The first round of each warms up.
    plain, last = (statistics.median(times[1:]) for times in seconds)
    return plain, last


def _is_enough(plain: Sequence[float], last: Sequence[float]) -> bool:
    """Tells whether no further round is worth its time: of two or more, all are on one side of the choice by far, or
    they were long.
    """
    if len(plain) < CLEAR_ROUNDS:
        return False
    if sum(plain) + sum(last) >= CALIBRATION_SECONDS:
        return True
    return max(last) * CLEAR < GAIN * min(plain) or min(last) > CLEAR * GAIN * max(plain)


def _step(model: nn.Module, arithmetic: Arithmetic, images: Tensor, training: bool) -> float:
    begin = time.perf_counter()
    with arithmetic.autocast(), contextlib.nullcontext() if training else torch.inference_mode():
        loss = model(images).float().square().mean()
    if training:
        loss.backward()
        model.zero_grad(set_to_none=True)
    if arithmetic.device.type == "cuda":
        torch.cuda.synchronize(arithmetic.device)
    return time.perf_counter() - begin
