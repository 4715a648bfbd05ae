"""Training a staged model. No clock and no I/O here: `tlbench.measure.training` times the calls.

One file, since an epoch, what prepares it and what a step is made of are one order of things.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.seeds import seed_for
from tlbench.train.augment import augment, flips_of
from tlbench.train.balance import class_weights, draw_balanced
from tlbench.train.captured import CapturedSteps, check_capture
from tlbench.train.compiling import CompiledSuffixes
from tlbench.train.optimizer import in_head, make_optimizer, rate_factor
from tlbench.train.recipe import Recipe
from tlbench.train.source import Source, send

GRADIENT_BATCHES = 5
"""Over which relative gradient norms are summed."""


class Diverged(Exception):
    """The loss became infinite or not a number."""


def batches(samples: int, batch_size: int, seed: int, epoch: int, balanced: Tensor | None = None) -> list[Tensor]:
    """Returns a shuffled epoch as batches of positions; it is the same for every cell of one seed and batch size.
    ``balanced`` are the labels (samples,) where the images are drawn by class instead (`draw_balanced`).

    The last batch may be smaller. A single image left over joins the batch before it, because BatchNorm cannot
    train on one value a channel.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "batches", str(epoch)))
    order = torch.randperm(samples, generator=generator) if balanced is None else draw_balanced(balanced, generator)
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1 < batch_size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Says how the images of an epoch become batches."""

    size: int
    seed: int
    """The seed of the cell; the stochastic layers and the augmentation draw from it as well."""


def plan_epochs(phases: Sequence[Phase], epochs: int) -> list[Phase]:
    """Returns the phase of each epoch: every phase gets its share, rounded, but at least one epoch.

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


def no_mark(part: str) -> None:
    """Listens to the parts of a step and does nothing."""


class Trainer:
    """A trainer is one training run: ``start_epoch`` prepares, ``run_epoch`` is the part to be timed.

    The batches, the augmentation and the stochastic layers of an epoch depend on the seed and the epoch alone.
    """

    def __init__(
        self,
        model: nn.Sequential,
        plan: Sequence[Phase],
        recipe: Recipe,
        source: Source,
        batching: Batching,
        compiled: CompiledSuffixes | None = None,
    ) -> None:
        self.model, self.plan, self.recipe, self.source = model, list(plan), recipe, source
        self.arithmetic, self.scaler = source.arithmetic, source.arithmetic.scaler()
        self.batching = batching
        self.compiled = compiled
        """None runs the suffix as it is."""
        self.captured: CapturedSteps | None = None
        """The steps of the present phase as CUDA graphs, where ``compiled`` asks for them."""
        self.capture_seconds = 0.0
        """What capturing took so far."""
        self.epoch = -1
        self.phase: Phase | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.order: list[Tensor] = []
        """Positions in the split, a batch each."""
        self.flips: list[Tensor] = []
        """Which images of each batch are flipped, where they are augmented."""
        self.losses: list[float] = []
        """Of each step of the last epoch."""
        weighed, drawn = recipe.class_weights == "balanced", recipe.sampler == "balanced"
        self._class_weights = class_weights(source.labels) if weighed else None
        self._balanced = source.labels.cpu() if drawn else None
        self.done, self.steps = 0, 0
        """Steps of the present learning-rate schedule: so far, and in all."""
        self.pristine = len(model)
        """Stages from the input on that no phase so far has trained: what was stored of them still holds."""
        # Clones: an alias would move with the weights, and the penalty would be 0 for ever.
        anchored = {name for phase in plan if phase.anchor for name in phase.scales if not in_head(name)}
        self.anchors = [(p, p.detach().clone()) for name, p in model.named_parameters() if name in anchored]

    def start_epoch(self) -> Phase:
        """Moves on to the next epoch: phase, optimizer, batches, random state."""
        self.epoch += 1
        order = batches(len(self.source), self.batching.size, self.batching.seed, self.epoch, self._balanced)
        self.order = order  # a new phase's schedule counts its batches
        phase = self.plan[self.epoch]
        if phase is not self.phase:
            self._start_phase(phase)
        boundary = len(self.prefix)
        usable = boundary <= self.pristine
        self.stored = self.source.stored(boundary, self.epoch) if usable else None
        self.order = send(order, (self.stored or self.source).place)
        self.flips = []
        if self.stored is None:
            self.source.follow(self.order)
        if self.stored is None and self.recipe.augment != "none":
            flips = [flips_of(len(batch), self._augmentation(number)) for number, batch in enumerate(order)]
            self.flips = send(flips, self.arithmetic.device)
        stochastic = seed_for(self.batching.seed, "stochastic-layers", str(self.epoch))
        if self.compiled is not None and self.compiled.captures:
            self._capture(phase, stochastic)
        torch.manual_seed(stochastic)
        return phase

    def _capture(self, phase: Phase, seed: int) -> None:
        """Has the epoch's steps as CUDA graphs, which hold until the phase ends."""
        check_capture(phase, self.recipe, self.stored)
        assert self.optimizer is not None
        groups = self.optimizer.param_groups
        assert self.stored is not None
        self.set_modes()
        if self.captured is None or not self.captured.reads(self.stored):
            changed = [*self.suffix.parameters(), *self.suffix.buffers()]
            self.captured = CapturedSteps(self.train_on, self.stored, self.optimizer, changed)
        rates = [
            [group["base_lr"] * rate_factor(self.recipe, self.done + n, self.steps, group["end"]) for group in groups]
            for n in range(len(self.order))
        ]
        self.capture_seconds += self.captured.start(self.order, rates, seed)

    def _start_phase(self, phase: Phase) -> None:
        freezing.apply(self.model, phase)
        self.modes = freezing.modes(self.model, phase)
        self._cut()
        for module, adapts in self.modes:
            if isinstance(module, _BatchNorm) and adapts and self.recipe.bn_momentum is not None:
                module.momentum = self.recipe.bn_momentum
        captures = self.compiled is not None and self.compiled.captures
        optimizer = make_optimizer(self.model, phase, self.recipe, captures)
        self.captured = None
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
            self.done, self.steps = 0, epochs * len(self.order)
        self.phase, self.optimizer = phase, optimizer

    def _cut(self) -> None:
        """Divides the model at the cut of the phase that was applied."""
        boundary = freezing.cut(self.model)
        self.prefix, self.suffix = self.model[:boundary], self.model[boundary:]
        self.forward: Callable[[Tensor], Tensor] = self.suffix
        if self.compiled is not None:
            self.forward = self.compiled.of(boundary, self.suffix)
        self.pristine = min(self.pristine, boundary)

    def run_epoch(self, order: Sequence[Tensor] | None = None) -> tuple[float, int]:
        """Trains on every batch of the epoch, or on those of ``order``, once.

        Returns the mean loss over the images and their number. Errors: Diverged, with the step.
        """
        order = self.order if order is None else order
        self.set_modes()
        assert self.phase is not None
        if self.phase.by_gradient:
            self._set_rates_by_gradient(order)
        train = self.step if self.captured is None else self._replay
        losses = [train(number, positions) for number, positions in enumerate(order)]
        # One transfer at the end: reading each loss would make the device wait at every step.
        values = torch.stack(losses).double().cpu()
        self.losses = values.tolist()
        if not bool(torch.isfinite(values).all()):
            step = int((~torch.isfinite(values)).nonzero()[0]) + 1
            raise Diverged(f"the loss became {values[step - 1].item()} at step {step} of {len(order)}")
        sizes = torch.tensor([len(positions) for positions in order], dtype=values.dtype)
        return float((values * sizes).sum() / sizes.sum()), int(sizes.sum())

    def set_modes(self) -> None:
        """Puts each module into train or eval mode as the phase has it: an evaluation leaves all in eval mode."""
        for module, training in self.modes:
            module.training = training

    def step(self, number: int, positions: Tensor, mark: Callable[[str], None] = no_mark) -> Tensor:
        """Trains on one batch, the ``number``-th of the epoch. Returns its loss, a scalar on the device.

        ``mark`` hears the name of each part when it is done: data, forward, backward, optimizer.
        """
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_factor(self.recipe, self.done, self.steps, group["end"])
        activations, labels = self.batch(number, positions)
        mark("data")
        loss = self.train_on(activations, labels, mark)
        self.done += 1
        return loss

    def _replay(self, number: int, positions: Tensor) -> Tensor:
        """Does as `step` does, by a CUDA graph."""
        assert self.captured is not None
        loss = self.captured.step(number, positions)
        self.done += 1
        return loss

    def train_on(self, activations: Tensor, labels: Tensor, mark: Callable[[str], None] = no_mark) -> Tensor:
        """Computes the loss and its gradients and updates what trains, at the rates that the optimizer has."""
        phase, optimizer = self.phase, self.optimizer
        assert phase is not None
        assert optimizer is not None
        loss = self.loss(activations, labels)
        mark("forward")
        optimizer.zero_grad(set_to_none=True)
        (self.scaler.scale(loss) if self.scaler else loss).backward()
        mark("backward")
        if self.scaler:
            self.scaler.unscale_(optimizer)
        if phase.anchor:
            self._pull(phase.anchor)
        if self.scaler:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()
        mark("optimizer")
        return loss.detach()

    def batch(self, number: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the activations at the cut, of the frozen prefix, and the labels: all that the suffix needs."""
        if self.stored is not None:
            return self.stored(positions)
        images, labels = self.source.raw(positions)
        if self.recipe.augment != "none":
            images = augment(
                images, self.recipe.augment, self._augmentation(number), self._flips_of(number, len(images))
            )
        with torch.no_grad(), self.arithmetic.autocast():  # no graph is kept for the prefix
            return self.prefix(self.source.normalise(images)), labels

    def _flips_of(self, number: int, count: int) -> Tensor | None:
        """Returns the flips of a batch, which lie ready; None for a batch that is not of this epoch."""
        whole = number < len(self.flips) and len(self.flips[number]) >= count
        return self.flips[number][:count] if whole else None

    def _augmentation(self, number: int) -> int:
        """Returns the seed of the augmentation of an epoch's batch."""
        return seed_for(self.batching.seed, "augment", f"{self.epoch}/{number}")

    def loss(self, activations: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean loss over the images: with class weights their weighted mean, as torch has it."""
        with self.arithmetic.autocast():
            logits = self.forward(activations)
        smoothing, weights = self.recipe.label_smoothing, self._weights_of(logits.shape[1])
        return functional.cross_entropy(logits.float(), labels, weights, label_smoothing=smoothing)

    def _weights_of(self, classes: int) -> Tensor | None:
        """Returns the weight of each class (classes,), on the device; None where all count the same."""
        weights = self._class_weights
        if weights is not None and len(weights) < classes:  # the last ones have no training image
            weights = self._class_weights = functional.pad(weights, (0, classes - len(weights)))
        return weights

    def _pull(self, alpha: float) -> None:
        """Adds the gradient of alpha / 2 ||w - w0||^2, which is alpha (w - w0)."""
        for parameter, anchor in self.anchors:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=alpha)

    def _set_rates_by_gradient(self, order: Sequence[Tensor]) -> None:
        """Sets rates by Auto-RGN (Lee 2022): each tensor's ||gradient|| / ||weight||, summed over a few batches, over
        the largest; the optimizer begins anew.

        A tensor of zeros has no relative norm and gets the full rate. Nothing is updated here, and BatchNorm's
        statistics are put back.
        """
        assert self.optimizer is not None
        self.optimizer.state.clear()
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        sizes = _norms(parameters)
        relative = torch.zeros_like(sizes)
        for number, positions in enumerate(order[:GRADIENT_BATCHES]):
            relative += self._gradient_norms(number, positions, parameters) / sizes
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        has_size = sizes > 0
        largest = relative[has_size].max().clamp_min(1e-30)
        shares = torch.where(has_size, relative / largest, 1.0).tolist()
        for group, share in zip(groups, shares, strict=True):
            group["base_lr"] = (self.recipe.lr if in_head(group["names"][0]) else self.recipe.backbone_lr) * share

    def _gradient_norms(self, number: int, positions: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Returns the norms (n,) of one batch's gradients. fp16 scales the loss by what does not overflow."""
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
    """Returns the Euclidean norm of each: (n,)."""
    return torch.stack([tensor.detach().norm() for tensor in tensors])
