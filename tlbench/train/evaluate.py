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
    predictions, loss, correct, samples = [], 0.0, 0, len(source)
    with torch.inference_mode(), source.arithmetic.autocast():
        for positions in torch.arange(samples).split(batch_size):
            if stored:
                inputs, labels = stored(positions)
            else:
                images, labels = source.raw(positions)
                inputs = source.normalise(images)
            logits = tail(inputs).float()
            # In doubles, so that it does not depend on the batches.
            loss += float(functional.cross_entropy(logits, labels, reduction="none").double().sum())
            predicted = logits.argmax(1)
            correct += int((predicted == labels).sum())
            predictions.append(predicted.cpu())
    return Evaluation(
        accuracy=correct / samples, loss=loss / samples, predictions=torch.cat(predictions), seconds=now() - begin
    )
