"""FLOPs of a training step, counted on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tlbench.backbones.base import StageCost, without_values
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.train.optimizer import in_head


def step_flops(
    model: nn.Sequential,
    phase: Phase,
    size: int,
    costs: Sequence[StageCost],
    known: dict[frozenset[str], int] | None = None,
) -> int:
    """Returns the FLOPs of a training step for one image of ``size`` px in a phase, the frozen prefix's forward pass
    included.

    ``costs`` are those of the model's forward pass (`tlbench.backbones.base.stage_costs`). Counted on shapes alone:
    the model is not run. Leaves it in the phase. ``known`` keeps what the backbone's part takes, by the names of its
    parameters that train, for models that differ in the head alone.
    """
    freezing.apply(model, phase)
    boundary, trunk = freezing.cut(model), len(model) - 1
    trains = frozenset(name for name in phase.scales if not in_head(name))
    known = {} if known is None else known
    if trains not in known:
        before = sum(cost.flops for cost in costs[:boundary])
        known[trains] = before + _step_flops(model[boundary:trunk], _shape_at(costs, boundary, size), False)
    return known[trains] + _step_flops(model[trunk:], _shape_at(costs, trunk, size), bool(trains))


def _shape_at(costs: Sequence[StageCost], boundary: int, size: int) -> tuple[int, ...]:
    """Returns the shape of one image after so many stages."""
    return costs[boundary - 1].output if boundary else (3, size, size)


def _step_flops(part: nn.Sequential, shape: tuple[int, ...], passes_on: bool) -> int:
    """Returns the FLOPs of one image's step in consecutive stages; ``passes_on`` when those before need the input's
    gradient.
    """
    part = without_values(part)
    # Two: BatchNorm cannot train on one value a channel.
    inputs = torch.empty(2, *shape, device="meta", requires_grad=passes_on)

    def step() -> None:
        outputs = part(inputs)
        if outputs.requires_grad:  # not where BatchNorm's statistics alone adapt
            outputs.sum().backward()

    return count_flops(step) // 2


def count_flops(call: Callable[[], object]) -> int:
    """Counts the FLOPs of what a call computes, forward and backward; a multiplication and an addition are two.

    Attention is counted by its matrix products, which the fused kernels hide from the counter, and a convolution's
    backward pass by its forward one: torch 2.14 counts the weight's gradient as if there were one group.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def convolution_backward(gradient: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
        # ATen's other arguments: bias sizes, stride, padding, dilation, transposed, output padding, groups, mask.
        transposed, mask = rest[4], rest[7]
        positions = math.prod((x if transposed else gradient)[2:])
        return int(2 * gradient[0] * positions * math.prod(weight) * (mask[0] + mask[1]))

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter: Any = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}
    )
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.get_total_flops())
