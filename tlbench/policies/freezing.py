"""Applies a policy's phase to a model: the one place that decides what trains and what holds still.

Frozen means all three: ``requires_grad=False``, absent from the optimizer, and in eval mode (BatchNorm
statistics hold still, dropout and stochastic depth are off). Only requires_grad, as in a common tutorial loop,
leaves BatchNorm drifting: one forward pass changes 60 of ResNet-18's 60 buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from tlbench.hashing import hash_tensors
from tlbench.policies.base import HEAD, Outline, Param, Phase

# By type, not by name: `'bn' in name` hits 17 of ResNet-18's 20 and none of DenseNet's.
_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_TIMM_NORMS = ("RmsNorm", "SimpleNorm")  # its own, which do not derive from torch's


T = TypeVar("T")


def describe(
    model: nn.Sequential,
    group_of: Mapping[str, str] | None = None,
    owns: Callable[[str], bool] | None = None,
    below_head: Mapping[str, int] | None = None,
) -> Outline:
    """Returns the model as policies see it. ``group_of`` maps a parameter's name to its stage; without it (and for the
    head) a parameter belongs to the model's child that holds it. ``owns`` tells by its name whether a parameter is the
    adapter's. ``below_head`` maps a parameter's name to the blocks from its own up to the head; without it stages
    are counted.
    """
    group_of, below_head = group_of or {}, below_head or {}
    groups_inside, blocks_inside = _modules_of(group_of), _modules_of(below_head)
    groups = dict.fromkeys([*group_of.values(), *(name for name, _ in model.named_children())])
    by_tensor: dict[int, Param] = {}
    aliases = []
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full_name = f"{prefix}.{name}"
            param = Param(
                name=full_name,
                group=_nearest(full_name, group_of, groups_inside) or full_name.partition(".")[0],
                kind="adapter" if owns is not None and owns(full_name) else _kind(module),
                is_bias=name == "bias" or name.endswith("_bias"),  # not Swin's ..._bias_table
                numel=parameter.numel(),
                is_batch_norm=isinstance(module, _BatchNorm),
                blocks_below_head=_nearest(full_name, below_head, blocks_inside),
            )
            # A shared tensor is one parameter, counted by identity; its other places are kept aside.
            first = by_tensor.setdefault(id(parameter), param)
            if replace(param, name=first.name) != first:
                aliases.append(replace(param, name=first.name))
    with_params = {p.group for p in by_tensor.values()}
    return Outline(
        groups=tuple(g for g in groups if g in with_params and g != HEAD),
        params=tuple(by_tensor.values()),
        aliases=tuple(aliases),
    )


def _modules_of(known: Mapping[str, T]) -> dict[str, T]:
    """Maps each module's name to what is known of the first parameter inside it."""
    inside: dict[str, T] = {}
    for name, value in known.items():
        while name := name.rpartition(".")[0]:
            inside.setdefault(name, value)
    return inside


def _nearest(name: str, known: Mapping[str, T], inside: Mapping[str, T]) -> T | None:
    """Returns what is known of a parameter. One that the plain model does not have under this name (a low-rank factor,
    the weight of a layer that an adapter has wrapped) belongs where its nearest module does; None where there is none.
    """
    if name in known:
        return known[name]
    module = name
    while module := module.rpartition(".")[0]:
        if module in inside:
            return inside[module]
    return None


def _kind(module: nn.Module) -> str:
    # timm's BatchNormAct2d, LayerNorm2d, … derive from torch's; torchvision's FrozenBatchNorm2d has no parameters.
    if isinstance(module, _NORMS) or any(kind.__name__.startswith(_TIMM_NORMS) for kind in type(module).__mro__):
        return "norm"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    return "linear" if isinstance(module, nn.Linear) else "other"


def apply(model: nn.Sequential, phase: Phase) -> None:
    """Sets requires_grad, drops the gradients of what is frozen, and sets each module's mode."""
    for name, parameter in model.named_parameters():
        trains = name in phase.scales
        parameter.requires_grad_(trains)
        if not trains:
            parameter.grad = None  # a stale gradient would still move it through an optimizer that holds it
    set_mode(model, phase)


def set_mode(model: nn.Sequential, phase: Phase) -> None:
    """Sets train mode for exactly the modules that train; to be called again after every ``.train()`` or
    ``.eval()``.
    """
    for module, training in modes(model, phase):
        module.training = training


def modes(model: nn.Sequential, phase: Phase) -> list[tuple[nn.Module, bool]]:
    """Returns each module, and whether it is in train mode in a phase that was applied.

    A module is when all parameters of its nearest ancestor (itself included) that has any do train: the dropout
    of a block that trains is on, that of a block of which only the norm layers train is off. BatchNorm follows
    ``phase.bn``.
    """
    pairs: list[tuple[nn.Module, bool]] = []
    trains: dict[int, set[bool]] = {}  # of the parameters of a module and all inside it, by the module's identity

    def look(module: nn.Module) -> set[bool]:
        direct = {p.requires_grad for p in module.parameters(recurse=False)}
        trains[id(module)] = direct.union(*map(look, module.children()))
        return trains[id(module)]

    def visit(module: nn.Module, inherited: bool) -> None:
        inside = trains[id(module)]
        training = False not in inside if inside else inherited
        if isinstance(module, _BatchNorm):
            adapts = phase.bn == "adapt" or (phase.bn == "trained" and (True in inside if inside else inherited))
            pairs.append((module, adapts))
        else:
            pairs.append((module, training))
        for child in module.children():
            visit(child, training)

    look(model)
    visit(model, False)
    return pairs


def cut(model: nn.Sequential) -> int:
    """Returns the index of the first child with anything that trains, adapts or is random; all before it is frozen.

    The head always trains, so the result is at most its index. Call after `apply`.
    """
    for index, child in enumerate(model):
        if any(p.requires_grad for p in child.parameters()) or any(map(_varies, child.modules())):
            return index
    raise AssertionError("nothing trains, not even the head")


def _varies(module: nn.Module) -> bool:
    """Tells whether a module's output may differ from one call to the next, or with the rest of the batch."""
    # Without running statistics BatchNorm takes the batch's, in eval mode as well.
    return module.training or (isinstance(module, _BatchNorm) and module.running_mean is None)


def untouched(model: nn.Sequential, phases: Iterable[Phase]) -> list[str]:
    """Names the parameters and buffers that no phase may change. Leaves the model in the last phase."""
    frozen: set[str] | None = None
    for phase in phases:
        apply(model, phase)
        adapting = {
            f"{prefix}.{name}"
            for prefix, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.training
            for name, _ in module.named_buffers(recurse=False)
        }
        now = {name for name, p in model.named_parameters() if not p.requires_grad}
        # A head that is fitted may hold some, and no head is ever frozen.
        buffers = [name for name, _ in model.named_buffers() if not name.startswith(f"{HEAD}.")]
        now |= {name for name in buffers if name not in adapting}
        frozen = now if frozen is None else frozen & now
    return sorted(frozen or ())


def fingerprint(model: nn.Module, names: Iterable[str]) -> str:
    """Returns the SHA-256 of the named parameters and buffers: equal exactly when every bit is."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return hash_tensors((name, tensors[name]) for name in names)


def count_added(model: Outline) -> int:
    """Counts the parameters that an adapter has put into the model."""
    return sum(p.numel for p in model.params if p.kind == "adapter")


def count_trainable(model: Outline, phase: Phase) -> int:
    """Counts the parameters that train in a phase."""
    return sum(p.numel for p in model.params if p.name in phase.scales)
