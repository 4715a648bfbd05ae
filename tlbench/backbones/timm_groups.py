"""Which layers of timm's models belong together, as timm's own groupings have it."""

from __future__ import annotations

import math
from typing import Any

_GROUPING = {
    "stem": r"^(?!(?:stages|transformers)\.)",
    "blocks": r"^(?:stages|transformers)\.(\d+)",
}
"""The grouping of the few models of timm that come without one."""


def _matcher(model: Any) -> Any:
    if not hasattr(model, "group_matcher"):
        return _GROUPING
    try:
        return model.group_matcher(coarse=True)
    except AssertionError:  # it has the finer grouping alone
        return model.group_matcher(coarse=False)


def groups_of(model: Any) -> dict[str, str]:
    """Maps parameter names to ``stem``, ``stage1``, … from timm's coarse grouping, in order.

    What timm leaves unmatched (it then trains at the head's rate) counts with the parameter registered before it.
    """
    from timm.models._manipulate import group_with_matcher

    matcher = _matcher(model)
    names = [name for name, _ in model.named_parameters()]
    unmatched = "-"
    layers = group_with_matcher(iter([(name, None) for name in [*names, unmatched]]), matcher, reverse=True)
    layer = min(layers.values())
    placed = {}
    for name in names:
        layer = placed[name] = layer if layers[name] == layers[unmatched] else layers[name]
    titles = {layer: f"stage{i}" if i else "stem" for i, layer in enumerate(sorted(set(placed.values())))}
    return {name: titles[placed[name]] for name in sorted(names, key=lambda name: placed[name])}


def below_head_of(model: Any) -> dict[int, int]:
    """Maps each parameter, by its id, to how many blocks below the head timm's layer-wise decay has it."""
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    held = [p for p in model.parameters() if not p.requires_grad]
    for parameter in held:  # timm counts what trains
        parameter.requires_grad_(True)
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    for parameter in held:
        parameter.requires_grad_(False)
    return {id(p): round(-math.log2(group["lr_scale"])) for group in groups for p in group["params"]}
