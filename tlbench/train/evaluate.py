"""Accuracy, loss, predictions and logits of a model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlbench.machine.clock import now
from tlbench.train.source import Source

MOST_HELD = 2**28
"""Bytes of logits that are held as they are, where they were computed, before they are brought to half precision."""
LOWEST = float(torch.finfo(torch.float16).min)
"""What a logit further below the largest of its image is kept as: its probability is 0 in any arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Holds what came of a whole split."""

    accuracy: float
    loss: float
    predictions: Tensor
    """Predicted classes (n,), int64, on the CPU."""
    seconds: float
    logits: Tensor | None = None
    """(n, classes) float16, on the CPU (`below_the_largest`); None where they were not asked for."""


def evaluate(
    model: nn.Sequential,
    source: Source,
    batch_size: int,
    pristine: int = 0,
    stored_batch_size: int = 1,
    keep_logits: bool = False,
) -> Evaluation:
    """Returns accuracy, mean loss, predictions, and where wanted logits, in eval mode; leaves the model in eval mode.

    The first ``pristine`` stages still have their initial weights: where their activations are kept, they are taken,
    in batches of at least ``stored_batch_size``. ``seconds`` has nothing of what keeping the logits takes.
    """
    begin = now()
    model.eval()
    stored = source.stored(pristine, None) if pristine else None
    tail = model[pristine:] if stored else model
    if stored:
        batch_size = max(batch_size, stored_batch_size)
    device, samples = source.arithmetic.device, len(source)
    predictions = []
    kept = _Kept() if keep_logits else None
    loss, correct = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))
    with torch.inference_mode(), source.arithmetic.autocast():
        for positions in torch.arange(samples, device=(stored or source).place).split(batch_size):
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
            if kept is not None:
                kept.take(logits)
        # One transfer for all: each one makes the device wait. Doubles hold classes exactly.
        found = torch.cat([torch.stack([loss, correct]), *(part.double() for part in predictions)]).cpu()
    seconds = now() - begin - (kept.seconds if kept is not None else 0.0)
    return Evaluation(
        accuracy=found[1].item() / samples,
        loss=found[0].item() / samples,
        predictions=found[2:].long(),
        seconds=seconds,
        logits=kept.all() if kept is not None else None,
    )


class _Kept:
    """Keeps the logits of batches; says what that took of the time before `all`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._held: list[Tensor] = []
        self._parts: list[Tensor] = []
        self._bytes = 0

    def take(self, logits: Tensor) -> None:
        """Takes the logits of the next batch (b, classes); once they are many, those so far give up their room."""
        self._held.append(logits)
        self._bytes += logits.nbytes
        if self._bytes > MOST_HELD:
            begin = now()
            self._bring()
            self.seconds += now() - begin

    def all(self) -> Tensor:
        """Returns what `below_the_largest` says of all of them."""
        self._bring()
        return torch.cat(self._parts)

    def _bring(self) -> None:
        if self._held:
            self._parts.append(below_the_largest(self._held))
            self._held, self._bytes = [], 0


def below_the_largest(logits: Sequence[Tensor]) -> Tensor:
    """Returns how far logits lie below the largest of their image, (n, classes) float16 on the CPU: 0 for the largest,
    negative for the others, no less than `LOWEST`.

    Softmax, cross-entropy and ranks depend on nothing else. Half precision holds what lies near 0, where all the
    probability is, to 11 bits, however large the logits themselves are; they could overflow, their differences could
    only become probabilities of 0. ``logits``: (b, classes) in batches, on any device.
    """
    with torch.inference_mode():
        parts = [(one - one.amax(1, keepdim=True)).clamp(min=LOWEST).half() for one in logits]
        return torch.cat(parts).cpu()
