"""A cell, built: weights first, then stages that share the modules, then the new head, then what the policy adds."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.base import Backbone, InputSpec, StageCost
from tlbench.data import Data
from tlbench.data.streaming import Streamed
from tlbench.errors import LostInput, NotApplicable, UnknownName, UserError, lookup
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine.arithmetic import Arithmetic, check_precision
from tlbench.machine.device import memory_in_use, resolved
from tlbench.machine.environment import stable
from tlbench.machine.kept import MEMORY
from tlbench.machine.layout import (
    CALIBRATION_IMAGES,
    Calibration,
    Layout,
    calibration_images,
    choose_layout,
    measure_layouts,
)
from tlbench.machine.process import release_memory, undisturbed
from tlbench.measure.costs import Counted, counted, with_head
from tlbench.measure.frozen import keep_prefix
from tlbench.measure.images import load_images
from tlbench.measure.shared_weights import load_weights
from tlbench.policies import freezing
from tlbench.policies.base import HEAD, Adapter, Outline
from tlbench.policies.parse import Expression
from tlbench.seeds import seed_for
from tlbench.train.activations import key_of
from tlbench.train.compiling import CompiledSuffixes, check_choice
from tlbench.train.placed import placed
from tlbench.train.prefix import Feed, PrefixStore


@dataclass(frozen=True, kw_only=True)
class BuiltCell:
    """Holds a cell, built and ready to run."""

    cell: Cell
    settings: Settings
    arithmetic: Arithmetic
    data: Data
    model: nn.Sequential
    """The backbone's stages and the head, on the device."""
    adapter: Adapter | None
    """What the policy has put into the model; None where it changes nothing."""
    injected: Any
    """What the adapter's `merge` takes."""
    described: Outline
    sources: dict[str, Feed]
    """The images of each split, as the model is fed with them."""
    compiled: CompiledSuffixes | None
    """What torch.compile gives; None without it."""
    input: InputSpec
    """What the weights were trained for."""
    size: int
    """Pixels a side."""
    counted: Counted
    stages: tuple[StageCost, ...]
    """The cost of each stage and of the head."""

    @property
    def names(self) -> list[str]:
        """Returns the names of the stages and the head."""
        return [name for name, _ in self.model.named_children()]

    @property
    def store(self) -> PrefixStore | None:
        """Returns the kept activations of the frozen stages, where there are any."""
        return self.sources["train"].store


class Building:
    """Holds what a cell is made of, as far as it has come: an error half-way leaves what was made before it."""

    def __init__(self) -> None:
        self.baseline_memory_bytes: int | None = None
        self.backbone: Backbone | None = None
        self.image_size: int | None = None
        self.data: Data | None = None
        self.images_where = ""
        self.spares_the_device = False
        """Whether images stay in main memory, since a first try ran out of the device's."""
        self.total_parameters: int | None = None
        self.layout: Layout | None = None
        self.built: BuiltCell | None = None

    def build(self, cell: Cell, settings: Settings, policy: Expression | None = None) -> BuiltCell:
        """Builds a cell under a policy, or without one for inference.

        Errors: NotApplicable, Unavailable; LostInput for images and weights that cannot be had any more; UserError for
        names that this process does not know.
        """
        device = resolved(cell.device)
        check_precision(cell.precision, device, cell.task)
        check_choice(cell.compile, device, cell.task, cell.precision)
        self.baseline_memory_bytes = memory_in_use(device)
        with _needed():
            backbone = self.backbone = load_weights(cell)
        size = self.image_size = image_size_of(cell, backbone)
        with _needed():
            data = self.data = load_images(cell, settings, backbone.input, size)
        model = assemble(backbone, cell.head, len(data.classes), cell.seed)
        self.total_parameters = sum(p.numel() for p in model.parameters())
        layout = self.layout = _layout(cell, backbone, size, device)
        arithmetic = Arithmetic(device=device, precision=cell.precision, channels_last=layout.chosen == "channels_last")
        adapter, injected = _adapt(cell, policy, model, size)
        arithmetic.place(model)
        costs = counted(cell, model, size, adapted=adapter is not None)
        splits = {"train": data.train, "val": data.val, "test": data.test}
        images = data.train.images
        if not self.spares_the_device:
            images = placed(images, data.pixels_sha256, device)
        self.images_where = _where(images)
        self.built = BuiltCell(
            cell=cell,
            settings=settings,
            arithmetic=arithmetic,
            data=data,
            model=model,
            adapter=adapter,
            injected=injected,
            described=freezing.describe(
                model, backbone.group_of, adapter.owns if adapter else None, backbone.below_head
            ),
            sources={name: Feed(split, backbone.input, arithmetic, images) for name, split in splits.items()},
            compiled=None if cell.compile == "off" else CompiledSuffixes(cell.compile),
            input=backbone.input,
            size=size,
            counted=costs,
            stages=with_head(costs, model),
        )
        if policy is not None:
            keep_prefix(self.built, backbone)
        return self.built


def _where(images: Tensor | Streamed) -> str:
    """Says where images lie from which batches are made."""
    if isinstance(images, Streamed):
        return images.where
    return MEMORY if images.device.type == "cpu" else str(images.device)


@contextmanager
def _needed() -> Iterator[None]:
    """Turns the errors of loading images or weights, which a check has seen before, into LostInput. A name of a table
    that this process does not know stays what it is: no cell can be measured then.
    """
    try:
        yield
    except UserError as error:
        if isinstance(error, UnknownName) and error.kind != "weights":
            raise
        raise LostInput(str(error)) from None


def build(cell: Cell, settings: Settings, policy: Expression | None = None) -> BuiltCell:
    """Builds a cell; errors as `Building.build`."""
    return Building().build(cell, settings, policy)


def assemble(backbone: Backbone, head: str, classes: int, seed: int = 0) -> nn.Sequential:
    """Puts a new head behind the backbone's stages; its initialisation depends on seed, backbone and head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "head-init", backbone.name, head))
        built = lookup(HEADS, "head", head).build(backbone.features, classes)
    return nn.Sequential(OrderedDict([*backbone.stages.named_children(), (HEAD, built)]))


def _adapt(cell: Cell, policy: Expression | None, model: nn.Sequential, size: int) -> tuple[Adapter | None, Any]:
    """Puts the policy's adapter into the model, where it has one; also returns what merging it takes.

    Errors: NotApplicable, Unavailable.
    """
    if policy is None:
        return None, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(cell.seed, f"{policy.name}-init", cell.backbone))
        return policy.policy.adapter, policy.inject(model, size)


def image_size_of(cell: Cell, backbone: Backbone) -> int:
    """Returns the pixels a side. Errors: NotApplicable for a size this backbone cannot take."""
    spec = backbone.input
    size = cell.image_size or spec.size
    if spec.fixed_size and size != spec.size:
        raise NotApplicable(f"{cell.backbone} takes images of {spec.size} px only, not {size}")
    if size < spec.min_size:
        raise NotApplicable(f"{cell.backbone} needs images of at least {spec.min_size} px, not {size}")
    return size


def _layout(cell: Cell, backbone: Backbone, size: int, device: torch.device) -> Layout:
    """Chooses the memory layout that the cell asks for, or that is the faster one here.

    A batch that is too large for this measurement, which takes two models, is halved until it fits.
    """
    images = calibration_images(cell.batch_size, device)
    while True:
        try:
            return _layout_of(images, cell, backbone, size, device)
        except torch.OutOfMemoryError:
            if images == 1:
                raise
            images //= 2
            release_memory()


def _layout_of(images: int, cell: Cell, backbone: Backbone, size: int, device: torch.device) -> Layout:
    # On a CPU eight images stand for every batch and for both tasks, as they did before.
    training = device.type == "cpu" or cell.task == "train"
    more: dict[str, Any] = {} if training else {"task": cell.task}
    if device.type != "cpu" or images != CALIBRATION_IMAGES:
        more["images"] = images
    key = key_of(
        backbone=backbone.name,
        size=size,
        **more,
        precision=cell.precision,
        device=device.type,
        threads=torch.get_num_threads(),
        machine=stable(device),
    )

    def measure() -> tuple[float, float]:
        calibration = Calibration(images=images, size=size, training=training)
        with undisturbed():
            return measure_layouts(lambda: copy.deepcopy(backbone.stages), calibration, device, cell.precision)

    return choose_layout(cell.layout, f"{backbone.name} {size}px {cell.precision} {device.type} {key}", images, measure)
