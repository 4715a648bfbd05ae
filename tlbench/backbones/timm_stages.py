"""timm's image classifiers as stages, through their common interface.

Features come from ``forward_features`` and ``forward_head(pre_logits=True)``, stages from timm's own grouping.
The trunk is cut into stages only where calling its children in order reproduces it exactly; otherwise it is one
stage, and the groups serve masks and learning-rate decay alone.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.base import NECK, InputSpec, Named, Split, keep_input
from tlbench.backbones.timm_groups import below_head_of, groups_of
from tlbench.errors import NotApplicable

TRUNK = "trunk"


class Part(nn.Module):
    """Makes a module of a function of a whole model. It holds what the function uses: some of the model's children and,
    with ``root``, the parameters and buffers that hang on the model itself.
    """

    def __init__(self, model: Any, children: Iterable[str], function: Callable[[Any, Tensor], Tensor], root: bool):
        super().__init__()
        self._whole = (model,)  # in a tuple, so that it is not registered a second time
        self.function = function
        for name in children:
            self.add_module(name, model.get_submodule(name))
        if root:
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, buffer in model.named_buffers(recurse=False):
                self.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self._whole[0], x)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        # What moves to another device here must move at the model's own root, too.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, parameter in self.named_parameters(recurse=False):
            self._whole[0]._parameters[name] = parameter
        for name, buffer in self.named_buffers(recurse=False):
            self._whole[0]._buffers[name] = buffer
        return self


def _features(m: Any, x: Tensor) -> Tensor:
    features: Tensor = m.forward_features(x)
    return features


def _pooled(m: Any, x: Tensor) -> Tensor:
    pooled: Tensor = m.forward_head(x, pre_logits=True)
    return pooled


def _pooled_features(m: Any, x: Tensor) -> Tensor:
    return _pooled(m, m.forward_features(x))


def _vit_embedding(m: Any, x: Tensor) -> Tensor:
    tokens: Tensor = m._pos_embed(m.patch_embed(x))
    return tokens


class Average(nn.Module):
    """Averages the logits of several classifiers (distillation heads)."""

    def __init__(self, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        logits = [head(x) for head in self.heads]
        return torch.stack(logits).sum(0) / len(logits)


def classifiers(model: Any) -> list[nn.Module]:
    """Returns the layers that a new head replaces. Errors: NotApplicable for a model without timm's interface."""
    if not all(hasattr(model, part) for part in ("get_classifier", "forward_features", "forward_head")):
        raise NotApplicable(f"timm's {type(model).__name__} is no image classifier; choose another model")
    layers = model.get_classifier()
    return list(layers) if isinstance(layers, tuple | list | nn.ModuleList) else [getattr(layers, "fc", layers)]


def _on_features(model: nn.Module, layers: list[nn.Module]) -> list[nn.Module]:
    """Returns what the original classifier on features (N, features) may be."""
    if len(layers) > 1:
        return [Average(layers)]
    (layer,) = layers
    if isinstance(layer, nn.Conv2d):  # some models classify before they flatten
        return [nn.Sequential(nn.Unflatten(1, (layer.in_channels, 1, 1)), layer, nn.Flatten(1))]
    # Some have a norm layer in the classifier, and name the linear layer alone.
    sequences = [m for m in model.modules() if isinstance(m, nn.Sequential) and len(m)]
    return [layer, *(m for m in sequences if m[-1] is layer)]


def split(model: Any, spec: InputSpec) -> Split:
    """Returns the model as stages, neck and head; the parts are checked against the whole on a random batch.

    Errors: NotApplicable when the model is not features, pooling and a classifier on the pooled features.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, spec.size, spec.size, generator=generator)
    classifier = classifiers(model)
    candidates = _on_features(model, classifier)
    layers, below_head = groups_of(model), below_head_of(model)
    with torch.no_grad():
        with _random(classifier, generator):
            logits = model(images)
            model.reset_classifier(0)
            calls, features = _calls(model, images)
            pooled = model.forward_head(features, pre_logits=True)
            head = next((c for c in candidates if _reproduces(c, pooled, logits)), None)
        if head is None:
            raise NotApplicable(
                f"timm's {type(model).__name__} has no linear classifier on pooled features; choose another model"
            )
        stages, groups = _stages(model, calls, images, features, layers)
    group_of = {name: groups[id(p)] for name, p in stages.named_parameters()}
    whole = hasattr(stages, TRUNK)
    return Split(
        stages=stages,
        head=head,
        features=int(pooled.shape[1]),
        groups=tuple(g for g in [*dict.fromkeys(layers.values()), NECK] if g in group_of.values()),
        group_of=group_of,
        below_head={name: below_head[id(p)] for name, p in stages.named_parameters()},
        note="the trunk cannot be cut exactly, so it is one stage; policies go by timm's groups" if whole else None,
    )


def _stages(
    model: Any, calls: list[str], images: Tensor, features: Any, layers: dict[str, str]
) -> tuple[nn.Sequential, dict[int, str]]:
    """Returns the model's stages and neck, and the group of each parameter by its id."""
    children = [name for name, _ in model.named_children()]
    if not isinstance(features, Tensor):  # maps of several scales: nothing to cache between trunk and neck
        groups = {id(p): layers[name] for name, p in model.named_parameters()}
        return nn.Sequential(OrderedDict([(TRUNK, Part(model, children, _pooled_features, root=True))])), groups
    in_trunk = dict.fromkeys(call.partition(".")[0] for call in calls)
    neck = Part(model, [name for name in children if name not in in_trunk], _pooled, root=False)
    in_neck = {id(p) for p in neck.parameters()}
    groups = {id(p): NECK if id(p) in in_neck else layers[name] for name, p in model.named_parameters()}
    trunk = _cut(model, neck, calls, images, features, groups)
    if trunk is None:
        trunk = [(TRUNK, Part(model, in_trunk, _features, root=True))]
    return nn.Sequential(OrderedDict([*trunk, (NECK, neck)])), groups


@contextlib.contextmanager
def _random(layers: list[nn.Module], generator: torch.Generator) -> Iterator[None]:
    """Gives layers random parameters for a while: a head that starts at zero would be equal to anything."""
    parameters = [p for layer in layers for p in layer.parameters()]
    before = [p.clone() for p in parameters]
    for parameter in parameters:
        parameter.normal_(generator=generator)
    try:
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)


def _reproduces(head: nn.Module, pooled: Any, logits: Any) -> bool:
    if not isinstance(pooled, Tensor) or pooled.ndim != 2 or not isinstance(logits, Tensor):
        return False
    try:
        return torch.equal(head(pooled), logits)
    except RuntimeError:  # the head takes another shape
        return False


def _calls(model: Any, images: Tensor) -> tuple[list[str], Any]:
    """Returns the model's children in the order in which ``forward_features`` calls them, and the features.

    Where it walks a child's own children instead of calling the child, they stand there: ``blocks.0``.
    """
    calls: list[str] = []
    inside: list[str] = []

    def enter(name: str) -> None:
        if not inside:
            calls.append(name)
        inside.append(name)

    hooks = []
    for name, module in model.named_modules():
        if name and name.count(".") < 2:
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
            hooks.append(module.register_forward_hook(lambda *_: inside.pop() and None, always_call=True))
    try:
        features = model.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, features


def _cut(
    model: Any, neck: nn.Module, calls: list[str], images: Tensor, features: Tensor, groups: dict[int, str]
) -> list[tuple[str, nn.Module]] | None:
    """Returns the trunk as stages of modules called one after the other, or None where that is not the same function,
    where a stage would change its input, or where a group is not contiguous.
    """
    stages: list[tuple[str, Named]] = []
    for name, module in _modules(model, calls, groups):
        spanned = {groups[id(p)] for p in module.parameters()}
        if len(spanned) > 1:
            return None
        group = spanned.pop() if spanned else stages[-1][0] if stages else "stem"
        if not stages or stages[-1][0] != group:
            stages.append((group, []))
        stages[-1][1].append((name, module))
    names = [name for _, members in stages for name, _ in members]
    if len(set(names)) < len(names) or len(dict(stages)) < len(stages):
        return None  # a module is called twice, or a group comes back
    built = nn.Sequential(OrderedDict((group, nn.Sequential(OrderedDict(members))) for group, members in stages))
    held = {id(t) for part in (built, neck) for t in [*part.parameters(), *part.buffers()]}
    if any(id(t) not in held for t in [*model.parameters(), *model.buffers()]):
        return None  # something is used between the modules
    for stage in built:
        keep_input(stage)
    x: Any = images
    try:
        for stage in built:
            before = x.clone()
            x, given = stage(x), x
            if not torch.equal(given, before):
                return None
    except Exception:  # a child may need more than one input, or give more than one output
        return None
    same = isinstance(x, Tensor) and torch.equal(x, features)
    return list(built.named_children()) if same else None


def _modules(model: Any, calls: list[str], groups: dict[int, str]) -> Named:
    """Lists what is called, in order: a sequence that spans several groups as its members, and a vision transformer's
    class token and position embedding, which are no modules, together with its patch embedding.
    """
    from timm.models.vision_transformer import VisionTransformer

    modules: Named = []
    embedding = ["patch_embed", "pos_drop"]
    if isinstance(model, VisionTransformer) and calls[: len(embedding)] == embedding:
        modules.append(("embedding", Part(model, embedding, _vit_embedding, root=True)))
        calls = calls[len(embedding) :]
    for name in calls:
        module = model.get_submodule(name)
        spanned = {groups[id(p)] for p in module.parameters()}
        if len(spanned) > 1 and isinstance(module, nn.Sequential):
            modules += [(f"{name}.{key}", child) for key, child in module.named_children()]
        else:
            modules.append((name, module))
    return [(name.replace(".", "_"), module) for name, module in modules]
