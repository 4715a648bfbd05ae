"""What a cell's model has learned, on its validation and test images."""

from __future__ import annotations

import math

import torch
from torch import nn

from tlbench.measure.build import Job
from tlbench.policies.base import Phase
from tlbench.train.activations import chunk_of
from tlbench.train.evaluate import Evaluation, evaluate
from tlbench.train.loop import Diverged, Trainer
from tlbench.train.recipe import Recipe


class DivergedAfter(Diverged):
    """An evaluation shows it first."""


def _evaluate(job: Job, split: str, pristine: int, model: nn.Sequential | None = None) -> Evaluation | None:
    if not job.data.measures_accuracy:
        return None
    source = job.sources[split]
    model = job.model if model is None else model
    # The batches of the prefix are known to fit.
    found = evaluate(model, source, len(source), job.cell.batch_size, pristine, chunk_of(job.size))
    if not math.isfinite(found.loss):
        raise DivergedAfter(f"after it, the loss on the {split} images is {found.loss}")
    return found


def _merged(job: Job) -> nn.Sequential:
    """The model without adapters. Errors: RuntimeError when merging changed what it computes."""
    if job.adapter is None or job.adapter.merge is None:
        return job.model
    job.model.eval()
    source = job.sources["val"]
    images = source.normalise(source.raw(torch.arange(min(len(source), job.cell.batch_size)))[0])
    with torch.inference_mode():
        before = job.model(images)
    merged = job.adapter.merge(job.injected)
    with torch.inference_mode():
        after = merged.eval()(images)
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
        raise RuntimeError(f"the merged model's logits differ by {float((before - after).abs().max()):.2g}")
    return merged


def _trainer(job: Job, model: nn.Sequential, plan: list[Phase], recipe: Recipe) -> Trainer:
    source = job.sources["train"]
    compiled = job.compiled if model is job.model else None
    return Trainer(model, plan, recipe, source, len(source), job.cell.batch_size, job.cell.seed, compiled)
