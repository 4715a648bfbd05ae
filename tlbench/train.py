"""Training and evaluation of a staged model. No clock and no I/O here: `tlbench.run` times the calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tlbench import freeze
from tlbench.backbones.base import StageCost, without_values
from tlbench.compute import Compute
from tlbench.errors import NotApplicable
from tlbench.policies import HEAD, SCALE, Expression, Phase
from tlbench.seeds import seed_for

WARMUP = 0.1
"""Default share of the steps over which the rate rises."""
GRADIENT_BATCHES = 5
"""Over which relative gradient norms are summed."""


class Diverged(Exception):
    """The loss became infinite or not a number."""


class Source(Protocol):
    """Images of one split, on the device."""

    @property
    def compute(self) -> Compute:
        """Device, precision, layout."""

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (n,) of the split -> images (n, 3, S, S), not normalised, and labels (n,)."""

    def normalise(self, images: Tensor) -> Tensor:
        """What the backbone takes: float, scaled and normalised."""

    def stored(self, boundary: int, epoch: int | None) -> Take | None:
        """The activations after ``boundary`` stages with their initial weights, where they are kept: a function from
        positions (n,) to activations and labels. ``epoch`` chooses among stored augmented views; None means none.
        """


Take = Callable[[Tensor], tuple[Tensor, Tensor]]


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
    bn_momentum: float | None = None
    """Of the BatchNorm layers that adapt; None leaves each layer's own."""
    fused: bool = False
    """One kernel for the optimizer's step over all parameters."""


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
    if len(parts) > 1 and len(parts[-1]) == 1 < batch_size:
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
    assert phase.scales.keys() == {name for name, p in model.named_parameters() if p.requires_grad}, "apply it first"
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if name not in phase.scales:
            continue
        in_head = _in_head(name)
        rate = (recipe.lr if in_head else recipe.backbone_lr) * phase.scales[name]
        # Only what multiplies is decayed: not biases, norm layers, class tokens, position embeddings, layer scales.
        # L2-SP pulls the backbone towards its initial weights, not towards 0.
        decays = parameter.ndim > 1 and name.endswith("weight") and not (phase.anchor and not in_head)
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
        return torch.optim.SGD(list(groups.values()), momentum=0.9, fused=recipe.fused)
    return torch.optim.AdamW(list(groups.values()), fused=recipe.fused)


def _in_head(name: str) -> bool:
    return name.startswith(f"{HEAD}.")


def rate_factor(recipe: Recipe, step: int, steps: int, end: float = 1.0) -> float:
    """What a base rate is multiplied with at a step (0 first) of a schedule of ``steps``: a linear rise over the
    warm-up's share of them, times 1/2 (1 + cos(pi t / end)), which is 0 from the share ``end`` on, or 1.
    """
    rise = math.ceil(round(recipe.warmup * steps, 6))
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
        compiled: dict[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self.model, self.plan, self.recipe, self.source = model, list(plan), recipe, source
        self.compute, self.scaler = source.compute, source.compute.scaler()
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.compiled = compiled
        """Compiled suffixes by cut; None runs them as they are."""
        self.epoch = -1
        self.phase: Phase | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.order: list[Tensor] = []
        """Positions in the split, a batch each."""
        self.losses: list[float] = []
        """Of each step of the last epoch."""
        self.step, self.steps = 0, 0
        self.pristine = len(model)
        """Stages from the input on that no phase so far has trained: what was stored of them still holds."""
        # Clones: an alias would move with the weights, and the penalty would be 0 for ever.
        anchored = {name for phase in plan if phase.anchor for name in phase.scales if not _in_head(name)}
        self.anchors = [(p, p.detach().clone()) for name, p in model.named_parameters() if name in anchored]

    def start_epoch(self) -> Phase:
        """Moves on to the next epoch: phase, optimizer, batches, random state."""
        self.epoch += 1
        self.order = batches(self.samples, self.batch_size, self.seed, self.epoch)
        phase = self.plan[self.epoch]
        if phase is not self.phase:
            self._start_phase(phase)
        boundary = len(self.prefix)
        usable = boundary <= self.pristine
        self.stored = self.source.stored(boundary, self.epoch) if usable else None
        torch.manual_seed(seed_for(self.seed, "stochastic-layers", str(self.epoch)))
        return phase

    def _start_phase(self, phase: Phase) -> None:
        freeze.apply(self.model, phase)
        self.modes = freeze.modes(self.model, phase)
        boundary = freeze.cut(self.model)
        self.prefix, self.suffix = self.model[:boundary], self.model[boundary:]
        self.forward: Callable[[Tensor], Tensor] = self.suffix
        if self.compiled is not None:
            if boundary not in self.compiled:
                self.compiled[boundary] = torch.compile(self.suffix)
            self.forward = self.compiled[boundary]
        self.pristine = min(self.pristine, boundary)
        for module, adapts in self.modes:
            if isinstance(module, _BatchNorm) and adapts and self.recipe.bn_momentum is not None:
                module.momentum = self.recipe.bn_momentum
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
        for module, training in self.modes:  # an evaluation since has put all of the model into eval mode
            module.training = training
        if phase.by_gradient:
            self._set_rates_by_gradient()
        losses = []
        for number, positions in enumerate(self.order):
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate_factor(self.recipe, self.step, self.steps, group["end"])
            activations, labels = self.batch(number, positions)
            loss = self.loss(activations, labels)
            optimizer.zero_grad(set_to_none=True)
            self._update(loss, optimizer, phase)
            self.step += 1
            losses.append(loss.detach())
        # One transfer at the end: reading each loss would make the device wait at every step.
        values = torch.stack(losses).double().cpu()
        self.losses = values.tolist()
        if not bool(torch.isfinite(values).all()):
            step = int((~torch.isfinite(values)).nonzero()[0]) + 1
            raise Diverged(f"the loss became {values[step - 1].item()} at step {step} of {len(self.order)}")
        sizes = torch.tensor([len(positions) for positions in self.order], dtype=values.dtype)
        return float((values * sizes).sum() / sizes.sum()), int(sizes.sum())

    def _update(self, loss: Tensor, optimizer: torch.optim.Optimizer, phase: Phase) -> None:
        """Backward pass and optimizer step."""
        if self.scaler is None:
            loss.backward()
            if phase.anchor:
                self._pull(phase.anchor)
            optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        if phase.anchor:
            self._pull(phase.anchor)
        self.scaler.step(optimizer)
        self.scaler.update()

    def batch(self, number: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Activations at the cut, of the frozen prefix, and labels: all that the suffix needs."""
        if self.stored is not None:
            return self.stored(positions)
        images, labels = self.source.raw(positions)
        if self.recipe.augment != "none":
            images = augment(images, self.recipe.augment, seed_for(self.seed, "augment", f"{self.epoch}/{number}"))
        with torch.no_grad(), self.compute.autocast():  # no graph is kept for the prefix
            return self.prefix(self.source.normalise(images)), labels

    def loss(self, activations: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images."""
        with self.compute.autocast():
            logits = self.forward(activations)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)

    def _pull(self, alpha: float) -> None:
        """Adds the gradient of alpha / 2 ||w - w0||^2, which is alpha (w - w0)."""
        for parameter, anchor in self.anchors:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=alpha)

    def _set_rates_by_gradient(self) -> None:
        """Auto-RGN (Lee 2022): each tensor's ||gradient|| / ||weight||, summed over a few batches, over the largest.

        The head keeps its own rate. A tensor of zeros has no relative norm and gets the largest rate. Nothing is
        updated here, and BatchNorm's statistics are put back.
        """
        assert self.optimizer is not None
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        groups = [g for g in self.optimizer.param_groups if not _in_head(g["names"][0])]
        parameters = [parameter for group in groups for parameter in group["params"]]
        sizes = _norms(parameters)
        relative = torch.zeros_like(sizes)
        for number, positions in enumerate(self.order[:GRADIENT_BATCHES]):
            relative += self._gradient_norms(number, positions, parameters) / sizes
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        has_size = sizes > 0
        largest = relative[has_size].max().clamp_min(1e-30)
        shares = torch.where(has_size, relative / largest, 1.0).tolist()
        for group, share in zip(groups, shares, strict=True):
            group["base_lr"] = self.recipe.backbone_lr * share

    def _gradient_norms(self, number: int, positions: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Of one batch: (n,). fp16 scales the loss by what does not overflow."""
        assert self.optimizer is not None
        scale = self.scaler.get_scale() if self.scaler else 1.0
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            (self.loss(*self.batch(number, positions)) * scale).backward()
            norms = _norms([p.new_zeros(()) if p.grad is None else p.grad for p in parameters]) / scale
            if scale <= 1 or bool(torch.isfinite(norms).all()):
                return norms
            scale /= 16


def _norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each: (n,)."""
    return torch.stack([tensor.detach().norm() for tensor in tensors])


def augment(images: Tensor, kind: str, seed: int) -> Tensor:
    """Images (n, 3, S, S) uint8, augmented one by one; depends on the seed alone, and leaves torch's random state
    as it was.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "flip"))
    flips = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flips.to(images.device)[:, None, None, None], images.flip(-1), images)
    if kind == "randaugment":
        from torchvision.transforms import v2

        transform = v2.RandAugment()
        # It draws from the CPU's global generator alone; torch.manual_seed would reset the GPU's as well.
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed_for(seed, "randaugment"))
            images = torch.stack([transform(image) for image in images])
        finally:
            torch.set_rng_state(state)
    return images


AUGMENTATIONS = {
    "none": "the images as they are",
    "flip": "left and right exchanged for half of the images",
    "randaugment": "flip, then two random operations of RandAugment (Cubuk 2020)",
}
SCHEDULES = {"cosine": "falls to 0 along half a cosine", "constant": "stays as it is"}


def evaluate(
    model: nn.Sequential, source: Source, samples: int, batch_size: int, pristine: int = 0, stored_batch_size: int = 1
) -> Evaluation:
    """Accuracy, mean loss and predictions in eval mode; leaves the model in eval mode.

    The first ``pristine`` stages still have their initial weights: where their activations are kept, they are taken,
    in batches of at least ``stored_batch_size``.
    """
    model.eval()
    stored = source.stored(pristine, None) if pristine else None
    tail = model[pristine:] if stored else model
    if stored:
        batch_size = max(batch_size, stored_batch_size)
    predictions, loss, correct = [], 0.0, 0
    with torch.inference_mode(), source.compute.autocast():
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
    return Evaluation(accuracy=correct / samples, loss=loss / samples, predictions=torch.cat(predictions))


def resolve(
    policy: Expression, optimizer: str, lr: float | None, backbone_lr: float | None, rest: Mapping[str, Any]
) -> Recipe:
    """A recipe with every default filled in: what is given, else the policy's default, else the optimizer's.

    Errors: NotApplicable when what is given contradicts the policy.
    """
    chosen = policy.policy.optimizer if optimizer == "auto" else optimizer
    given = {key: value for key, value in rest.items() if value is not None}
    fixed = policy.policy.schedule
    if fixed and given.get("schedule", fixed) != fixed:
        raise NotApplicable(f"{policy.text} is defined for the schedule {fixed} only, not {given['schedule']}")
    if backbone_lr is not None and SCALE in policy.explicit:
        raise NotApplicable(f"{policy.text} sets the backbone's learning rate itself: leave --backbone-lr out")
    defaults = {**OPTIMIZERS[chosen], "lr_factor": 1.0, "warmup": WARMUP, **policy.defaults}
    head = defaults["lr"] * defaults["lr_factor"] if lr is None else lr
    recipe = Recipe(
        optimizer=chosen,
        lr=head,
        backbone_lr=head * defaults["backbone_factor"] if backbone_lr is None else backbone_lr,
        weight_decay=defaults["weight_decay"],
        schedule="cosine",
        warmup=defaults["warmup"],
        label_smoothing=0.0,
        augment="none",
    )
    return replace(recipe, **given)


def step_flops(
    model: nn.Sequential,
    phase: Phase,
    size: int,
    costs: Sequence[StageCost],
    known: dict[frozenset[str], int] | None = None,
) -> int:
    """FLOPs of a training step for one image of ``size`` px in a phase, the frozen prefix's forward pass included.

    ``costs`` are those of the model's forward pass (`tlbench.backbones.base.stage_costs`). Counted on shapes alone:
    the model is not run. Leaves it in the phase. ``known`` keeps what the backbone's part takes, by the names of its
    parameters that train, for models that differ in the head alone.
    """
    freeze.apply(model, phase)
    boundary, trunk = freeze.cut(model), len(model) - 1
    trains = frozenset(name for name in phase.scales if not _in_head(name))
    known = {} if known is None else known
    if trains not in known:
        before = sum(cost.flops for cost in costs[:boundary])
        known[trains] = before + _step_flops(model[boundary:trunk], _shape_at(costs, boundary, size), False)
    return known[trains] + _step_flops(model[trunk:], _shape_at(costs, trunk, size), bool(trains))


def _shape_at(costs: Sequence[StageCost], boundary: int, size: int) -> tuple[int, ...]:
    """Of one image after so many stages."""
    return costs[boundary - 1].output if boundary else (3, size, size)


def _step_flops(part: nn.Sequential, shape: tuple[int, ...], passes_on: bool) -> int:
    """Of one image's step in consecutive stages; ``passes_on`` when those before need the input's gradient."""
    part = without_values(part)
    # Two: BatchNorm cannot train on one value a channel.
    inputs = torch.empty(2, *shape, device="meta", requires_grad=passes_on)

    def step() -> None:
        outputs = part(inputs)
        if outputs.requires_grad:  # not where BatchNorm's statistics alone adapt
            outputs.sum().backward()

    return count_flops(step) // 2


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of what a call computes, forward and backward; a multiplication and an addition are two.

    Attention is counted by its matrix products, which the fused kernels hide from the counter, and a convolution's
    backward pass by its forward one: torch 2.14 counts the weight's gradient as if there were one group.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def convolution_backward(  # type: ignore[no-untyped-def]
        gradient, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, mask, **_
    ) -> int:
        positions = math.prod((x if transposed else gradient)[2:])
        return int(2 * gradient[0] * positions * math.prod(weight) * (mask[0] + mask[1]))

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter: Any = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}
    )
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops())
