"""The optimizer over what trains in a phase, and how its rates change from step to step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tlbench.policies.base import HEAD, Phase
from tlbench.train.recipe import Recipe


def make_optimizer(model: nn.Sequential, phase: Phase, recipe: Recipe, captured: bool = False) -> torch.optim.Optimizer:
    """Makes an optimizer over exactly the parameters that train in a phase, in groups that share a rate and a decay;
    where its step is ``captured`` in a CUDA graph, it counts its steps on the device.

    Parameters are told apart by identity, never by value: equal tensors are still two parameters. Each group
    keeps its ``base_lr``, the ``end`` of its schedule and its ``names``.
    """
    assert phase.scales.keys() == {name for name, p in model.named_parameters() if p.requires_grad}, "apply it first"
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if name not in phase.scales:
            continue
        of_head = in_head(name)
        rate = (recipe.lr if of_head else recipe.backbone_lr) * phase.scales[name]
        # Only what multiplies is decayed: not biases, norm layers, class tokens, position embeddings, layer scales.
        # L2-SP pulls the backbone towards its initial weights, not towards 0.
        decays = parameter.ndim > 1 and name.endswith("weight") and not (phase.anchor and not of_head)
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
    return torch.optim.AdamW(list(groups.values()), fused=recipe.fused, capturable=captured)


def in_head(name: str) -> bool:
    """Tells whether a parameter of this name belongs to the new head."""
    return name.startswith(f"{HEAD}.")


def rate_factor(recipe: Recipe, step: int, steps: int, end: float = 1.0) -> float:
    """Returns what a base rate is multiplied with at a step (0 first) of a schedule of ``steps``: a linear rise over
    the warm-up's share of them, times 1/2 (1 + cos(pi t / end)), which is 0 from the share ``end`` on, or 1.
    """
    rise = math.ceil(round(recipe.warmup * steps, 6))
    factor = (step + 1) / rise if step < rise else 1.0
    if recipe.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * min(step / steps / end, 1.0)))
    return factor
