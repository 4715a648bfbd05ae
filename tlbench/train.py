"""Training and evaluation of a staged model. No clock and no I/O here: `tlbench.run` times the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlbench import freeze
from tlbench.policies import HEAD, Phase
from tlbench.seeds import seed_for

HEAD_LEARNING_RATE = 3e-3
BACKBONE_LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01

Source = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions (n,) of a split -> normalised images (n, 3, S, S) and labels (n,), both on the device."""


class Diverged(Exception):
    """The loss became infinite or not a number."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of a whole split."""

    accuracy: float
    loss: float
    predictions: Tensor
    """Predicted classes (n,), int64, on the CPU."""


def batches(samples: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """A shuffled epoch as batches of positions; the same for every cell of one seed and batch size.

    The last batch may be smaller. A single image left over joins the batch before it, because BatchNorm cannot
    train on one value a channel.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "batches", str(epoch)))
    order = torch.randperm(samples, generator=generator)
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def make_optimizer(model: nn.Sequential, phase: Phase) -> torch.optim.Optimizer:
    """AdamW over exactly the parameters that train: the head at `HEAD_LEARNING_RATE`, the rest lower.

    Parameters are told apart by identity, never by value: equal tensors are still two parameters.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = HEAD_LEARNING_RATE if name.startswith(f"{HEAD}.") else BACKBONE_LEARNING_RATE
        # Biases and norm layers are one-dimensional; decaying them towards 0 only harms.
        decay = WEIGHT_DECAY if parameter.ndim > 1 else 0.0
        groups.setdefault((rate * phase.scales[name], decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
    )


def train_epoch(
    model: nn.Sequential,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    source: Source,
    order: Sequence[Tensor],
) -> tuple[float, int]:
    """One pass over the batches of ``order``.

    Returns the mean loss over the images and their number. Errors: Diverged, with the step.
    """
    freeze.set_mode(model, phase)
    boundary = freeze.cut(model)
    prefix, suffix = model[:boundary], model[boundary:]
    losses, sizes = [], []
    for positions in order:
        images, labels = source(positions)
        with torch.no_grad():  # the frozen prefix: no graph is kept for it
            activations = prefix(images)
        loss = functional.cross_entropy(suffix(activations), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        sizes.append(len(positions))
    # One transfer at the end: reading each loss would make the device wait at every step.
    values = torch.stack(losses).cpu()
    if not bool(torch.isfinite(values).all()):
        step = int((~torch.isfinite(values)).nonzero()[0]) + 1
        raise Diverged(f"the loss became {values[step - 1].item()} at step {step} of {len(order)}")
    weights = torch.tensor(sizes, dtype=values.dtype)
    return float((values * weights).sum() / weights.sum()), sum(sizes)


def evaluate(model: nn.Module, source: Source, samples: int, batch_size: int) -> Evaluation:
    """Accuracy, mean loss and predictions in eval mode; leaves the model in eval mode."""
    model.eval()
    predictions, loss, correct = [], 0.0, 0
    with torch.inference_mode():
        for positions in torch.arange(samples).split(batch_size):
            images, labels = source(positions)
            logits = model(images)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predicted = logits.argmax(1)
            correct += int((predicted == labels).sum())
            predictions.append(predicted.cpu())
    return Evaluation(accuracy=correct / samples, loss=loss / samples, predictions=torch.cat(predictions))


def epochs_of(phases: Sequence[Phase], epochs: int) -> Iterator[tuple[int, Phase]]:
    """(epoch, phase) for each epoch. Every phase gets its share, rounded, but at least one epoch.

    Errors: ValueError when there are more phases than epochs.
    """
    if epochs < len(phases):
        raise ValueError(f"{len(phases)} phases need at least {len(phases)} epochs, not {epochs}")
    total, given = sum(p.share for p in phases), 0.0
    counts: list[int] = []
    for index, phase in enumerate(phases):
        given += phase.share / total
        left = len(phases) - index - 1
        end = min(max(round(epochs * given), sum(counts) + 1), epochs - left)
        counts.append(end - sum(counts))
    epoch = 0
    for phase, count in zip(phases, counts, strict=True):
        for _ in range(count):
            yield epoch, phase
            epoch += 1
