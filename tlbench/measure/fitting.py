"""Training-free heads: features once, then a fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tlbench.errors import NotApplicable
from tlbench.heads import fit
from tlbench.machine import device as machine
from tlbench.machine.clock import Clock, plain_clock
from tlbench.measure.build import Job
from tlbench.measure.evaluation import _evaluate
from tlbench.measure.timed import Timed, _nothing, _sum
from tlbench.records.record import Round


def _fit_head(job: Job, clock: Clock, facts: dict[str, Any]) -> None:
    """A training-free head: one round extracts the features (or takes them, where they are kept), another fits."""
    facts["rounds"] = []
    if not job.data.measures_accuracy:
        raise NotApplicable(
            f"the head {job.cell.head} is fitted to labels, and {job.data.name} has none that mean anything"
        )
    job.model.eval()
    samples = len(job.data.train)
    features: dict[str, Any] = {}
    _features(job, "train", limit=job.cell.batch_size)  # warm-up
    facts["peak_memory_bytes"] = machine.peak_memory(
        job.compute.device, lambda: _features(job, "train", limit=job.cell.batch_size) and None
    )
    extraction, fitting = Timed(job), Timed(job)
    extraction.run(clock, _nothing, lambda: features.update(train=_features(job, "train")), 1)
    features["val"] = _features(job, "val")
    fitting.run(
        plain_clock,
        _nothing,
        lambda: features.update(fitted=fit(job.cell.head, *features["train"], *features["val"])),
        1,
    )
    facts["energy_joules"] = _sum(extraction.energy(), fitting.energy())
    fitted = features["fitted"]
    layer = job.model[-1][0]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.weight))
        layer.bias.copy_(torch.from_numpy(fitted.bias))
    facts["recipe"] = dict(fitted.chosen)
    val = _evaluate(job, "val", len(job.model) - 1)
    facts["rounds"] = [
        Round(phase="features", samples=samples, **extraction.rounds()[0]),
        Round(
            phase="fit",
            samples=samples,
            trainable_parameters=facts["trainable_parameters"],
            accuracy_val=val.accuracy if val else None,
            loss_val=val.loss if val else None,
            **fitting.rounds()[0],
        ),
    ]


def _features(job: Job, split: str, limit: int | None = None) -> tuple[Any, Any]:
    """Features (n, d) float64 and labels (n,) of a split, as numpy arrays."""
    source, trunk = job.sources[split], job.model[:-1]
    stored = source.stored(len(trunk), None)
    parts, labels = [], []
    with torch.inference_mode(), job.compute.autocast():
        for positions in torch.arange(min(len(source), limit or len(source))).split(job.cell.batch_size):
            if stored:
                found, own = stored(positions)
            else:
                images, own = source.raw(positions)
                found = trunk(source.normalise(images))
            parts.append(found.double().cpu())
            labels.append(own.cpu())
    return torch.cat(parts).numpy(), torch.cat(labels).numpy()
