"""Applies a policy's phase to a model: the one place that decides what trains and what holds still.

Frozen means all three: ``requires_grad=False``, absent from the optimizer, and in eval mode (BatchNorm
statistics hold still, dropout and stochastic depth are off). Only requires_grad, as in a common tutorial loop,
leaves BatchNorm drifting: one forward pass changes 60 of ResNet-18's 60 buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlbench.hashing import hash_tensors
from tlbench.policies import HEAD, Model, Param, Phase

# By type, not by name: `'bn' in name` hits 17 of ResNet-18's 20 and none of DenseNet's.
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def describe(model: nn.Sequential, group_of: Mapping[str, str] | None = None) -> Model:
    """The model as policies see it. ``group_of`` maps a parameter's name to its stage; without it (and for the
    head) a parameter belongs to the model's child that holds it.
    """
    group_of = group_of or {}
    groups = dict.fromkeys([*group_of.values(), *(name for name, _ in model.named_children())])
    params, seen = [], set[int]()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue  # shared: it trains or holds still once
            seen.add(id(parameter))
            full_name = f"{prefix}.{name}"
            params.append(
                Param(
                    name=full_name,
                    group=group_of.get(_without_adapter(full_name), full_name.partition(".")[0]),
                    kind="lora" if ".lora_" in full_name else _kind(module),
                    is_bias=name == "bias" or name.endswith("_bias"),  # not Swin's ..._bias_table
                    numel=parameter.numel(),
                )
            )
    with_params = {p.group for p in params}
    return Model(groups=tuple(g for g in groups if g in with_params and g != HEAD), params=tuple(params))


def _without_adapter(name: str) -> str:
    """The name that a parameter, or the one that a low-rank factor adapts, has in the plain model."""
    if ".lora_" in name:
        name = f"{name.partition('.lora_')[0]}.weight"
    return name.replace(".base_layer.", ".")


def _kind(module: nn.Module) -> str:
    # timm's BatchNormAct2d, LayerNorm2d, … derive from torch's; torchvision's FrozenBatchNorm2d has no parameters.
    if isinstance(module, _NORMS):
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
    """Train mode for exactly the modules that train; to be called again after every ``.train()`` or ``.eval()``.

    A module is in train mode when all parameters of its nearest ancestor (itself included) that has any do
    train: the dropout of a block that trains is on, that of a block of which only the norm layers train is off.
    BatchNorm follows ``phase.bn``.
    """

    def visit(module: nn.Module, inherited: bool) -> None:
        own = [p.requires_grad for p in module.parameters()]
        mode = all(own) if own else inherited
        module.training = mode
        if isinstance(module, _BatchNorm):
            module.training = phase.bn == "adapt" or (phase.bn == "trained" and (any(own) if own else inherited))
        for child in module.children():
            visit(child, mode)

    visit(model, False)


def cut(model: nn.Sequential) -> int:
    """Index of the first child with anything that trains, adapts or is random; all before it is frozen.

    The head always trains, so the result is at most its index. Call after `apply`.
    """
    for index, child in enumerate(model):
        if any(p.requires_grad for p in child.parameters()) or any(m.training for m in child.modules()):
            return index
    raise AssertionError("nothing trains, not even the head")


def untouched(model: nn.Sequential, phases: Iterable[Phase]) -> list[str]:
    """Names of the parameters and buffers that no phase may change. Leaves the model in the last phase."""
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
        now |= {name for name, _ in model.named_buffers() if name not in adapting}
        frozen = now if frozen is None else frozen & now
    return sorted(frozen or ())


def fingerprint(model: nn.Module, names: Iterable[str]) -> str:
    """SHA-256 of the named parameters and buffers: equal exactly when every bit is."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return hash_tensors((name, tensors[name]) for name in names)


def count_trainable(model: Model, phase: Phase) -> int:
    """Parameters that train in a phase."""
    return sum(p.numel for p in model.params if p.name in phase.scales)
