"""``timm:NAME``: timm's image classifiers through their common interface.

Features come from ``forward_features`` and ``forward_head(pre_logits=True)``, stages from timm's own grouping.
The trunk is cut into stages only where calling its children in order reproduces it exactly; otherwise it is one
stage, and the groups serve masks and learning-rate decay alone.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.base import NECK, InputSpec, keep_input
from tlbench.errors import Unavailable, UserError, unknown

PREFIX = "timm:"
_failed: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Split:
    """A timm model in parts."""

    stages: nn.Sequential
    head: nn.Module
    """The original classifier."""
    features: int
    groups: tuple[str, ...]
    group_of: dict[str, str]
    note: str | None


def check(name: str) -> None:
    """Errors: UserError with the nearest match when timm has no such model."""
    import timm

    if not timm.is_model(name.removeprefix(PREFIX)):
        raise unknown("timm model", name.removeprefix(PREFIX), timm.list_models())


def build(name: str, pretrained: bool) -> nn.Module:
    """Errors: Unavailable when the pretrained weights cannot be had; one attempt a process."""
    import timm

    name = name.removeprefix(PREFIX)
    if not pretrained:
        model: nn.Module = timm.create_model(name, pretrained=False)
        return model
    if name not in _failed:
        try:
            model = timm.create_model(name, pretrained=True)
        except Exception as error:  # whatever the hub's client raises
            _failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        else:
            return model
    config = timm.get_pretrained_cfg(name)
    hub = getattr(config, "hf_hub_id", None) or f"timm/{name}"
    raise Unavailable(
        f"pretrained weights of timm:{name} are not at hand ({_failed[name]}); put {hub} into the Hugging Face cache "
        "($HF_HOME/hub, as huggingface-cli download does), or use --weights random"
    )


def source(model: Any) -> str:
    """What a record says of pretrained weights."""
    return str(model.pretrained_cfg.get("hf_hub_id") or model.pretrained_cfg.get("url") or "timm")


def input_spec(m: Any) -> InputSpec:
    """From timm's configuration of the weights."""
    config = m.pretrained_cfg
    size = int(config["input_size"][-1])
    return InputSpec(
        size=size,
        resize=int(size / (config.get("crop_pct") or 1)),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        # timm's transformers check their input's size; where it says nothing, smaller images are tried.
        fixed_size=bool(config.get("fixed_input_size")),
        min_size=int(config["min_input_size"][-1]) if config.get("min_input_size") else 1,
    )


class Trunk(nn.Module):
    """``forward_features`` of a model, holding exactly the modules and parameters that it uses."""

    def __init__(self, model: Any, children: Iterable[str]) -> None:
        super().__init__()
        self._whole = (model,)  # in a tuple, so that it is not registered a second time
        for name in children:
            self.add_module(name, model.get_submodule(name))
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in model.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self._whole[0].forward_features(x)
        return features

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        # The model's own root must see moved parameters and buffers, too.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, parameter in self.named_parameters(recurse=False):
            self._whole[0]._parameters[name] = parameter
        for name, buffer in self.named_buffers(recurse=False):
            self._whole[0]._buffers[name] = buffer
        return self


class Neck(nn.Module):
    """``forward_head(pre_logits=True)`` of a model, holding the modules that it uses."""

    def __init__(self, model: Any, children: Iterable[str]) -> None:
        super().__init__()
        self._whole = (model,)
        for name in children:
            self.add_module(name, model.get_submodule(name))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self._whole[0].forward_head(x, pre_logits=True)
        return features


def split(model: Any, spec: InputSpec) -> Split:
    """The model as stages, neck and head; the parts are checked against the whole on a random batch.

    Errors: UserError when timm's interface does not reproduce the model.
    """
    name = type(model).__name__
    model.eval()
    images = torch.randn(2, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    head = model.get_classifier()
    if not isinstance(head, nn.Module):
        raise UserError(f"timm's {name} has several classifiers, which tlbench cannot replace by one; choose another")
    groups = _groups(model)
    with torch.no_grad():
        logits = model(images)
        model.reset_classifier(0)
        calls, features = _calls(model, images)
        pooled = model.forward_head(features, pre_logits=True)
        if pooled.ndim != 2 or not torch.equal(head(pooled), logits):
            raise UserError(f"timm's {name} has no linear classifier on pooled features; choose another model")
    in_trunk = [child for child in dict.fromkeys(calls) if _is_child(model, child)]
    in_neck = [child for child, _ in model.named_children() if child not in in_trunk]
    neck = Neck(model, in_neck)
    kept = {id(p) for p in neck.parameters()}
    ids = {id(p): NECK if id(p) in kept else groups[n] for n, p in model.named_parameters() if n in groups}

    note = None
    trunk = _in_order(model, calls, images, features, ids)
    if trunk is None:
        trunk = [("trunk", Trunk(model, in_trunk))]
        note = "the trunk cannot be cut exactly, so it is one stage; policies go by timm's groups"
    stages = nn.Sequential(OrderedDict([*trunk, (NECK, neck)]))
    group_of = {n: ids[id(p)] for n, p in stages.named_parameters()}
    used = set(group_of.values())
    order = sorted(used - {NECK}, key=lambda g: (g != "stem", int(g.removeprefix("stage") or 0) if g != "stem" else 0))
    return Split(
        stages=stages,
        head=head,
        features=int(model.head_hidden_size),
        groups=(*order, *([NECK] if NECK in used else [])),
        group_of=group_of,
        note=note,
    )


def _is_child(model: nn.Module, name: str) -> bool:
    return name in model._modules


def _groups(model: Any) -> dict[str, str]:
    """Parameter name -> ``stem``, ``stage1``, … from timm's coarse grouping."""
    from timm.models import group_parameters

    layers = group_parameters(model, model.group_matcher(coarse=True), return_values=False)
    used = [layer for layer, names in sorted(layers.items()) if names]
    return {name: "stem" if i == 0 else f"stage{i}" for i, layer in enumerate(used) for name in layers[layer]}


def _calls(model: Any, images: Tensor) -> tuple[list[str], Tensor]:
    """The model's children, and the children of its sequential children, in the order ``forward_features`` calls
    them; and the features."""
    calls: list[str] = []
    hooks = []
    for name, child in model.named_children():
        hooks.append(child.register_forward_pre_hook(lambda *_, name=name: calls.append(name)))
    try:
        features = model.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    # timm walks some sequential children itself instead of calling them.
    with_parameters = [n for n, c in model.named_children() if any(True for _ in c.parameters())]
    walked = [n for n in with_parameters if n not in calls and _touches(model, n, images)]
    return [*calls, *walked], features


def _touches(model: Any, name: str, images: Tensor) -> bool:
    """Whether ``forward_features`` runs anything inside a child that it does not call as a whole."""
    seen: list[int] = []
    hooks = [m.register_forward_pre_hook(lambda *_: seen.append(1)) for m in model.get_submodule(name).modules()]
    try:
        model.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return bool(seen)


def _in_order(
    model: nn.Module, calls: list[str], images: Tensor, features: Tensor, ids: dict[int, str]
) -> list[tuple[str, nn.Module]] | None:
    """The trunk as stages of modules called one after the other, or None where that is not the same function."""
    modules: list[tuple[str, nn.Module]] = []
    for name in calls:
        child = model.get_submodule(name)
        inside = {ids[id(p)] for p in child.parameters() if id(p) in ids}
        if len(inside) > 1 and isinstance(child, nn.Sequential):
            modules += [(f"{name}_{key}", module) for key, module in child.named_children()]
        else:
            modules.append((name, child))
    if len({name for name, _ in modules}) < len(modules):
        return None  # a module is called twice
    x = images
    with torch.no_grad(), contextlib.suppress(Exception):  # a child may need more than one input
        for _, module in modules:
            x = module(x)
    if x.shape != features.shape or not torch.equal(x, features):
        return None
    held = {id(p) for _, module in modules for p in module.parameters()}
    if any(id(p) not in held for p in model.parameters(recurse=False)):
        return None
    stages: list[tuple[str, list[tuple[str, nn.Module]]]] = []
    for name, module in modules:
        own = [ids[id(p)] for p in module.parameters() if id(p) in ids]
        group = own[0] if own else (stages[-1][0] if stages else "stem")
        if len(set(own)) > 1:
            return None
        if stages and stages[-1][0] == group:
            stages[-1][1].append((name, module))
        else:
            stages.append((group, [(name, module)]))
    if len({group for group, _ in stages}) < len(stages):
        return None  # a group comes back later: no contiguous stage
    built: list[tuple[str, nn.Module]] = [(group, nn.Sequential(OrderedDict(members))) for group, members in stages]
    for _, stage in built:
        keep_input(stage)
    return built
