"""How a model is trained, with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tlbench.errors import NotApplicable
from tlbench.grid.choices import OPTIMIZERS
from tlbench.policies.base import SCALE
from tlbench.policies.parse import Expression

WARMUP = 0.1
"""Default share of the steps over which the rate rises."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Says how a model is trained, every value resolved."""

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
    class_weights: str = "none"
    """As the axis says; a training image's loss alone is weighed."""
    sampler: str = "shuffle"
    bn_momentum: float | None = None
    """Of the BatchNorm layers that adapt; None leaves each layer's own."""
    fused: bool = False
    """One kernel for the optimizer's step over all parameters."""


def resolve(
    policy: Expression, optimizer: str, lr: float | None, backbone_lr: float | None, rest: Mapping[str, Any]
) -> Recipe:
    """Fills in every default of a recipe: what is given, else the policy's default, else the optimizer's.

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
