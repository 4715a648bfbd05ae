"""A backbone as an ordered list of named stages.

A family's function lists a model's modules as `Parts`. These become an `Anatomy`, which cuts the model into a `Split`
once its weights are loaded; with its name and its weights that is a `Backbone`. `stage_costs` counts what the stages
cost.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.inputs import InputSpec as InputSpec

NECK = "neck"
Named = list[tuple[str, nn.Module]]


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """Says where the initial weights come from."""

    requested: str
    source: str
    """``random``, the name of a weights enum, of a package, or a path."""
    pretrained: bool
    sha256: str
    """SHA-256 of the stages' parameters and buffers."""
    reason: str | None = None
    """Why ``auto`` fell back to random."""
    taken: str | None = None
    """What of a checkpoint file was loaded, as ``?key=`` chooses it; None where that is all of it, or it is no file."""
    averaged: bool | None = None
    """Whether a checkpoint's weights are averages over its training (EMA); None where it is none."""
    notes: tuple[str, ...] = ()
    """What of a checkpoint was left out, converted, or would have fitted as well."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Lists the modules of a model in the order of execution, each as (original name, module).

    The modules are shared with the model, not copied.
    """

    body: list[Named]
    """The stem, then the stages."""
    neck: Named
    """What lies between the last stage and the head (pooling, flattening, a pretrained layer or norm)."""
    head: Named
    """The last linear layer and the dropout right before it; replaced by the new head."""
    features: int
    pool: Named | None = None
    """What turns the neck's output into (N, features) where the original head pools after its last layer."""
    blocks: list[list[nn.Module]] | None = None
    """The modules of each block that layer-wise decay counts, from the input up, as timm counts its own model of the
    family; what is in none of them learns at the head's rate. None: each stage of the body is a block."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Holds a model cut into stages that map images (N, 3, S, S) to features (N, features)."""

    stages: nn.Sequential
    features: int
    groups: tuple[str, ...]
    group_of: Mapping[str, str]
    """Parameter name -> group; it, `groups` and `below_head` are as in `Backbone`."""
    below_head: Mapping[str, int]
    note: str | None = None
    head: nn.Module | None = None
    """The original classifier on the stages' output, where it was looked for."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Says what is known of a built model before it is cut."""

    input: InputSpec
    head: list[nn.Module]
    """The layers that a new head replaces: a checkpoint's own may have another number of classes."""
    split: Callable[[], Split]
    """Cuts the model, whose weights are loaded by then."""
    parts: Parts | None = None
    """Its modules stage by stage, where they are listed."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Says what one stage costs for one image."""

    name: str
    parameters: int
    flops: int
    """FLOPs of the forward pass; a multiplication and an addition are two."""
    output: tuple[int, ...]
    """Shape of what it hands on, without the batch."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Holds stages that map images (N, 3, S, S) to features (N, features), with their initial weights."""

    name: str
    stages: nn.Sequential
    """Named children ``stem``, ``stage1``, …, ``neck``."""
    features: int
    input: InputSpec
    weights: WeightsInfo
    groups: tuple[str, ...]
    """Logical stages from the input up: what policies go by."""
    group_of: Mapping[str, str]
    """Parameter name (as in ``stages.named_parameters()``) -> group."""
    below_head: Mapping[str, int]
    """Parameter name -> how many blocks lie from its own up to the head, its own included: what layer-wise decay goes
    by. 0: it learns at the head's rate."""
    note: str | None = None
    """What a user should know, such as a trunk that cannot be cut."""


def join(parts: Parts) -> nn.Sequential:
    """Returns the whole original model in stages, head included: equal to it bit for bit."""
    return _sequential([*_staged(parts.body, parts.neck), ("head", parts.head)])


def stages_of(parts: Parts) -> nn.Sequential:
    """Returns the stages alone, with pooled features (N, features) as output."""
    return _sequential(_staged(parts.body, [*parts.neck, *(parts.pool or [])]))


def anatomy(parts: Parts, spec: InputSpec) -> Anatomy:
    """Returns the anatomy of a model whose modules are listed stage by stage. A parameter's group is its stage."""

    def split() -> Split:
        stages = stages_of(parts)
        group_of = {name: name.partition(".")[0] for name, _ in stages.named_parameters()}
        return Split(
            stages=stages,
            features=parts.features,
            groups=tuple(dict.fromkeys(group_of.values())),
            group_of=group_of,
            below_head=_below_head(parts, stages),
        )

    return Anatomy(input=spec, head=[module for _, module in parts.head], split=split, parts=parts)


def _below_head(parts: Parts, stages: nn.Sequential) -> dict[str, int]:
    """Returns how far below the head the block of each of the stages' parameters lies."""
    blocks = parts.blocks
    if blocks is None:
        last = len(parts.body) - 1
        blocks = [[m for _, m in [*stage, *(parts.neck if i == last else [])]] for i, stage in enumerate(parts.body)]
    held = [{id(p) for module in block for p in module.parameters()} for block in blocks]
    held = [ids for ids in held if ids]
    place = {one: len(held) - index for index, ids in enumerate(held) for one in ids}
    return {name: place.get(id(p), 0) for name, p in stages.named_parameters()}


def _staged(body: list[Named], neck: Named) -> list[tuple[str, Named]]:
    names = ["stem", *(f"stage{i}" for i in range(1, len(body)))]
    return [*zip(names, body, strict=True), *([(NECK, neck)] if neck else [])]


def _sequential(stages: Iterable[tuple[str, Named]]) -> nn.Sequential:
    built = nn.Sequential(OrderedDict((name, nn.Sequential(OrderedDict(named))) for name, named in stages))
    for stage in built:
        keep_input(stage)
    return built


def keep_input(stage: nn.Module) -> None:
    """Turns off the in-place flag of the module that sees the stage's input first: it would overwrite a cached
    activation. The values it computes are the same.
    """
    first: nn.Module | None = stage
    while first is not None:
        if hasattr(first, "inplace"):
            first.inplace = False  # type: ignore[assignment]
        first = next(iter(first.children()), None)


class Call(nn.Module):
    """Wraps a function as a module: what a model's own forward does between its modules."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.function.__name__


def stage_costs(stages: nn.Sequential, size: int | tuple[int, ...]) -> list[StageCost]:
    """Counts parameters and FLOPs of each child's forward pass for one image of ``size`` px, or one input of that
    shape, in eval mode.

    It serves stages alone and an assembled model, whose head is then the last row. It counts on shapes alone: the model
    is neither run nor changed. Attention is counted by its matrix products: the fused kernels hide them.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    costs, counted = [], set[int]()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            x = torch.zeros(1, *((3, size, size) if isinstance(size, int) else size), device="meta")
            # Without gradients: torch lets a meta parameter that is expanded to its own size ask for one even here
            # (CaiT's class token), and its counter then looks for that in vain.
            for name, stage in without_values(stages).eval().requires_grad_(False).named_children():
                counter: Any = FlopCounterMode(display=False)
                with counter:
                    x = stage(x)
                new = {id(p): p.numel() for p in stage.parameters() if id(p) not in counted}
                counted |= new.keys()  # a shared parameter counts where it comes first
                costs.append(
                    StageCost(
                        name=name,
                        parameters=sum(new.values()),
                        flops=counter.get_total_flops(),
                        output=tuple(x.shape[1:]),
                    )
                )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return costs


def without_values(model: nn.Sequential) -> nn.Sequential:
    """Returns a copy whose parameters and buffers have shapes but no values, so that it takes no memory and no time."""
    parameters = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    buffers = {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    return copy.deepcopy(model, {**parameters, **buffers})
