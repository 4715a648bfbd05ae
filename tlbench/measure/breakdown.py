"""Where the time of a training step goes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from torch import Tensor

from tlbench.machine.clock import now
from tlbench.measure.build import BuiltCell
from tlbench.measure.outcome import make_trainer
from tlbench.policies.base import Phase
from tlbench.train.loop import Trainer
from tlbench.train.recipe import Recipe

FEW_IMAGES, FEW_ROUNDS = 2, 9
"""Images and number of the small steps that tell what a step takes however few the images: BatchNorm cannot train on
less than two."""


def step_parts(built: BuiltCell, plan: Sequence[Phase], recipe: Recipe) -> dict[str, float]:
    """Measures the seconds of a training step by part: medians over an epoch of the first phase.

    It is a pass of its own on a clone, since waiting for the device after each part costs time that the measured
    epochs do not have. ``launch`` is a share of forward and backward: what they would still take of no images, from
    steps of two.
    """
    trainer = make_trainer(built, copy.deepcopy(built.model), plan[:1], recipe)
    trainer.start_epoch()
    trainer.set_modes()
    size = len(trainer.order[0])
    whole = [_parts(trainer, number, positions) for number, positions in enumerate(trainer.order)]
    seconds = {name: median(parts[name] for parts in whole) for name in whole[0]}
    if size > FEW_IMAGES:
        few = [_parts(trainer, 0, trainer.order[0][:FEW_IMAGES]) for _ in range(1 + FEW_ROUNDS)][1:]
        both, both_few = (median(p["forward"] + p["backward"] for p in parts) for parts in (whole, few))
        seconds["launch"] = max(0.0, (size * both_few - FEW_IMAGES * both) / (size - FEW_IMAGES))
    return seconds


def _parts(trainer: Trainer, number: int, positions: Tensor) -> dict[str, float]:
    """Measures the seconds of one training step by part, in order: the very step that is timed, listened to."""
    marks = [("", now())]
    trainer.step(number, positions, lambda part: marks.append((part, now())))
    return {part: end - begin for (_, begin), (part, end) in pairwise(marks)}
