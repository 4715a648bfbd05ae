"""Where the time of a training step goes."""

from __future__ import annotations

import copy
from statistics import median

from torch import Tensor

from tlbench.machine.clock import now
from tlbench.measure.build import Job
from tlbench.measure.evaluation import _trainer
from tlbench.policies.base import Phase
from tlbench.train.loop import Trainer
from tlbench.train.recipe import Recipe


def _detail(job: Job, plan: list[Phase], recipe: Recipe) -> dict[str, float]:
    """Seconds of a training step by part (medians over an epoch of the first phase), in a pass of its own on a clone:
    waiting for the device after each part costs time that the measured epochs do not have.

    ``launch`` is a share of forward and backward: what they would still take of no images, from steps of two.
    """
    trainer = _trainer(job, copy.deepcopy(job.model), plan[:1], recipe)
    trainer.start_epoch()
    for module, training in trainer.modes:
        module.training = training
    size = len(trainer.order[0])
    whole = [_parts(trainer, number, positions) for number, positions in enumerate(trainer.order)]
    found = {name: median(parts[name] for parts in whole) for name in whole[0]}
    if size > FEW_IMAGES:
        few = [_parts(trainer, 0, trainer.order[0][:FEW_IMAGES]) for _ in range(1 + FEW_ROUNDS)][1:]
        both, both_few = (median(p["forward"] + p["backward"] for p in parts) for parts in (whole, few))
        found["launch"] = max(0.0, (size * both_few - FEW_IMAGES * both) / (size - FEW_IMAGES))
    return found


FEW_IMAGES, FEW_ROUNDS = 2, 9
"""Of the steps that tell what a step takes whatever the batch: BatchNorm cannot train on less."""


def _parts(trainer: Trainer, number: int, positions: Tensor) -> dict[str, float]:
    """Seconds of one training step by part."""
    assert trainer.optimizer is not None
    marks = [now()]
    activations, labels = trainer.batch(number, positions)
    marks.append(now())
    loss = trainer.loss(activations, labels)
    marks.append(now())
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    marks.append(now())
    trainer.optimizer.step()
    marks.append(now())
    names = ("data", "forward", "backward", "optimizer")
    return {name: end - begin for name, begin, end in zip(names, marks, marks[1:], strict=False)}
