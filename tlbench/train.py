"""Training and evaluation of a staged model. No clock and no I/O here: `tlbench.run` times the calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlbench import freeze
from tlbench.policies import HEAD, Phase
from tlbench.seeds import seed_for

GRADIENT_BATCHES = 5
"""Batches over which relative gradient norms are averaged."""


class Diverged(Exception):
    """The loss became infinite or not a number."""


class Source(Protocol):
    """Images of one split, on the device."""

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (n,) of the split -> images (n, 3, S, S), not normalised, and labels (n,)."""

    def normalise(self, images: Tensor) -> Tensor:
        """What the backbone takes: float, scaled and normalised."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained, every value resolved."""

    optimizer: str
    lr: float
    """Of the head, at scale 1."""
    backbone_lr: float
    weight_decay: float
    schedule: str
    warmup: float
    """Share of the steps over which the rate rises from 0."""
    label_smoothing: float
    augment: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Of a whole split."""

    accuracy: float
    loss: float
    predictions: Tensor
    """Predicted classes (n,), int64, on the CPU."""


OPTIMIZERS: dict[str, dict[str, float]] = {
    "adamw": {"lr": 3e-3, "backbone_factor": 0.1, "weight_decay": 0.01},
    "sgd": {"lr": 3e-2, "backbone_factor": 0.1, "weight_decay": 1e-4},
}
"""Defaults: the head's learning rate, the backbone's as a factor of it, weight decay. SGD has momentum 0.9."""


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


def plan_epochs(phases: Sequence[Phase], epochs: int) -> list[Phase]:
    """The phase of each epoch: every phase gets its share, rounded, but at least one epoch.

    Errors: ValueError when there are more phases than epochs.
    """
    if epochs < len(phases):
        raise ValueError(f"{len(phases)} phases need at least {len(phases)} epochs, not {epochs}")
    total, given = sum(p.share for p in phases), 0.0
    plan: list[Phase] = []
    for index, phase in enumerate(phases):
        given += phase.share / total
        left = len(phases) - index - 1
        end = min(max(round(epochs * given), len(plan) + 1), epochs - left)
        plan += [phase] * (end - len(plan))
    return plan


def make_optimizer(model: nn.Sequential, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """An optimizer over exactly the parameters that train in a phase, in groups that share a rate and a decay.

    Parameters are told apart by identity, never by value: equal tensors are still two parameters. Each group
    keeps its ``base_lr``, the ``end`` of its schedule and its ``names``.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_head = name.startswith(f"{HEAD}.")
        rate = (recipe.lr if in_head else recipe.backbone_lr) * phase.scales[name] * phase.rate
        # Biases and norm layers are one-dimensional; decaying them towards 0 only harms. L2-SP pulls the backbone
        # towards its initial weights, not towards 0.
        decays = parameter.ndim > 1 and not (phase.anchor and not in_head)
        end = phase.ends[name] if phase.ends else 1.0
        key = (rate, decays, end, name if phase.by_gradient else None)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "lr": rate,
                "base_lr": rate,
                "end": end,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(list(groups.values()), momentum=0.9)
    return torch.optim.AdamW(list(groups.values()))


def rate_factor(recipe: Recipe, step: int, steps: int, end: float = 1.0, warmup: bool = True) -> float:
    """What a base rate is multiplied with at a step (0 first) of a schedule of ``steps``, which ends at the share
    ``end``: 1/2 (1 + cos(pi t / end)), after a linear warm-up.
    """
    rise = math.ceil(recipe.warmup * steps) if warmup else 0
    factor = (step + 1) / rise if step < rise else 1.0
    if recipe.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(step / steps / end, 1.0)))
    return factor


class Trainer:
    """One training run: ``start_epoch`` prepares, ``run_epoch`` is the part to be timed.

    The batches, the augmentation and the stochastic layers of an epoch depend on the seed and the epoch alone.
    """

    def __init__(
        self,
        model: nn.Sequential,
        plan: Sequence[Phase],
        recipe: Recipe,
        source: Source,
        samples: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model, self.plan, self.recipe, self.source = model, list(plan), recipe, source
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.epoch = -1
        self.phase: Phase | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.order: list[Tensor] = []
        self.step, self.steps = 0, 0
        # Clones: an alias would move with the weights, and the penalty would be 0 for ever.
        anchored = {name for phase in plan if phase.anchor for name in phase.scales if not name.startswith(HEAD)}
        self.anchors = {n: p.detach().clone() for n, p in model.named_parameters() if n in anchored}

    def start_epoch(self) -> Phase:
        """Moves on to the next epoch: phase, optimizer, batches, random state."""
        self.epoch += 1
        self.order = batches(self.samples, self.batch_size, self.seed, self.epoch)
        phase = self.plan[self.epoch]
        if phase is not self.phase:
            self._start_phase(phase)
        torch.manual_seed(seed_for(self.seed, "stochastic-layers", str(self.epoch)))
        return phase

    def _start_phase(self, phase: Phase) -> None:
        freeze.apply(self.model, phase)
        optimizer = make_optimizer(self.model, phase, self.recipe)
        if self.optimizer is not None and not phase.fresh:
            # What goes on training keeps its momentum; what is frozen now has left the optimizer.
            before = self.optimizer.state
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter in before:
                        optimizer.state[parameter] = before[parameter]
        if phase.fresh or self.phase is None:
            # A fresh phase has a schedule of its own; the others share the one that began before them.
            epochs = next(
                (i for i, p in enumerate(self.plan[self.epoch :]) if p is not phase and p.fresh),
                len(self.plan) - self.epoch,
            )
            self.step, self.steps = 0, epochs * len(self.order)
        self.phase, self.optimizer = phase, optimizer

    def run_epoch(self) -> tuple[float, int]:
        """One pass over the batches. Returns the mean loss over the images and their number.

        Errors: Diverged, with the step.
        """
        phase, optimizer = self.phase, self.optimizer
        assert phase is not None
        assert optimizer is not None
        freeze.set_mode(self.model, phase)
        boundary = freeze.cut(self.model)
        prefix, suffix = self.model[:boundary], self.model[boundary:]
        if phase.by_gradient:
            self._set_rates_by_gradient(prefix, suffix)
        losses, sizes = [], []
        for number, positions in enumerate(self.order):
            for group in optimizer.param_groups:
                factor = rate_factor(self.recipe, self.step, self.steps, group["end"], warmup=phase.ends is None)
                group["lr"] = group["base_lr"] * factor
            loss = self._loss(prefix, suffix, number, positions)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if phase.anchor:
                self._pull(phase.anchor)
            optimizer.step()
            self.step += 1
            losses.append(loss.detach())
            sizes.append(len(positions))
        # One transfer at the end: reading each loss would make the device wait at every step.
        values = torch.stack(losses).float().cpu()
        if not bool(torch.isfinite(values).all()):
            step = int((~torch.isfinite(values)).nonzero()[0]) + 1
            raise Diverged(f"the loss became {values[step - 1].item()} at step {step} of {len(self.order)}")
        weights = torch.tensor(sizes, dtype=values.dtype)
        return float((values * weights).sum() / weights.sum()), sum(sizes)

    def _loss(self, prefix: nn.Module, suffix: nn.Module, number: int, positions: Tensor) -> Tensor:
        images, labels = self.source.raw(positions)
        if self.recipe.augment != "none":
            images = augment(images, self.recipe.augment, seed_for(self.seed, "augment", f"{self.epoch}/{number}"))
        with torch.no_grad():  # the frozen prefix: no graph is kept for it
            activations = prefix(self.source.normalise(images))
        return functional.cross_entropy(suffix(activations), labels, label_smoothing=self.recipe.label_smoothing)

    def _pull(self, alpha: float) -> None:
        """Adds the gradient of alpha / 2 ||w - w0||^2, which is alpha (w - w0)."""
        for name, parameter in self.model.named_parameters():
            if name in self.anchors and parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - self.anchors[name], alpha=alpha)

    def _set_rates_by_gradient(self, prefix: nn.Module, suffix: nn.Module) -> None:
        """Auto-RGN (Lee 2022): each tensor's ||gradient|| / ||weight||, averaged over a few batches, over the
        largest. The head keeps its own rate. Nothing is updated here but BatchNorm statistics are put back.
        """
        assert self.optimizer is not None
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        groups = [g for g in self.optimizer.param_groups if not g["names"][0].startswith(f"{HEAD}.")]
        norms = torch.zeros(len(groups))
        for number, positions in enumerate(self.order[:GRADIENT_BATCHES]):
            self.optimizer.zero_grad(set_to_none=True)
            self._loss(prefix, suffix, number, positions).backward()
            for index, group in enumerate(groups):
                (parameter,) = group["params"]
                if parameter.grad is not None:
                    size = parameter.detach().norm().clamp_min(1e-12)
                    norms[index] += float(parameter.grad.norm() / size)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        for group, share in zip(groups, (norms / norms.max().clamp_min(1e-12)).tolist(), strict=True):
            group["base_lr"] = self.recipe.backbone_lr * share


def augment(images: Tensor, kind: str, seed: int) -> Tensor:
    """Images (n, 3, S, S), augmented one by one; depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    flips = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
    if kind == "randaugment":
        from torchvision.transforms import v2

        transform = v2.RandAugment()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            images = torch.stack([transform(image) for image in images])
    return images


AUGMENTATIONS = {
    "none": "the images as they are",
    "flip": "left and right exchanged for half of the images",
    "randaugment": "flip, then two random operations of RandAugment (Cubuk 2020)",
}
SCHEDULES = {"cosine": "falls to 0 along half a cosine", "constant": "stays as it is"}


def evaluate(model: nn.Module, source: Source, samples: int, batch_size: int) -> Evaluation:
    """Accuracy, mean loss and predictions in eval mode; leaves the model in eval mode."""
    model.eval()
    predictions, loss, correct = [], 0.0, 0
    with torch.inference_mode():
        for positions in torch.arange(samples).split(batch_size):
            images, labels = source.raw(positions)
            logits = model(source.normalise(images)).float()
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            predicted = logits.argmax(1)
            correct += int((predicted == labels).sum())
            predictions.append(predicted.cpu())
    return Evaluation(accuracy=correct / samples, loss=loss / samples, predictions=torch.cat(predictions))


def resolve(
    optimizer: str, default_optimizer: str, lr: float | None, backbone_lr: float | None, rest: Mapping[str, Any]
) -> Recipe:
    """A recipe with every default filled in."""
    chosen = default_optimizer if optimizer == "auto" else optimizer
    defaults = OPTIMIZERS[chosen]
    head = defaults["lr"] if lr is None else lr
    recipe = Recipe(
        optimizer=chosen,
        lr=head,
        backbone_lr=head * defaults["backbone_factor"] if backbone_lr is None else backbone_lr,
        weight_decay=defaults["weight_decay"],
        schedule="cosine",
        warmup=0.1,
        label_smoothing=0.0,
        augment="none",
    )
    return replace(recipe, **{key: value for key, value in rest.items() if value is not None})
