"""Accuracy, loss and predictions of a model on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlbench.machine.clock import now
from tlbench.train.source import Source


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Holds what came of a whole split."""

    accuracy: float
    loss: float
    predictions: Tensor
    """Predicted classes (n,), int64, on the CPU."""
    seconds: float


def evaluate(
    model: nn.Sequential, source: Source, batch_size: int, pristine: int = 0, stored_batch_size: int = 1
) -> Evaluation:
    """Returns accuracy, mean loss and predictions in eval mode; leaves the model in eval mode.

    The first ``pristine`` stages still have their initial weights: where their activations are kept, they are taken,
    in batches of at least ``stored_batch_size``.
    """
    begin = now()
    model.eval()
    stored = source.stored(pristine, None) if pristine else None
    tail = model[pristine:] if stored else model
    if stored:
        batch_size = max(batch_size, stored_batch_size)
    device, samples = source.arithmetic.device, len(source)
    predictions = []
    loss, correct = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))
    with torch.inference_mode(), source.arithmetic.autocast():
        batches = torch.arange(samples, device=(stored or source).place).split(batch_size)
        if not stored:
            source.follow(batches)
        for positions in batches:
            if stored:
                inputs, labels = stored(positions)
            else:
                images, labels = source.raw(positions)
                inputs = source.normalise(images)
            logits = tail(inputs).float()
            # In doubles, so that it does not depend on the batches.
            loss += functional.cross_entropy(logits, labels, reduction="none").double().sum()
            predicted = logits.argmax(1)
            correct += (predicted == labels).sum()
            predictions.append(predicted)
        # One transfer for all: each one makes the device wait. Doubles hold classes exactly.
        found = torch.cat([torch.stack([loss, correct]), *(part.double() for part in predictions)]).cpu()
    return Evaluation(
        accuracy=found[1].item() / samples,
        loss=found[0].item() / samples,
        predictions=found[2:].long(),
        seconds=now() - begin,
    )
