"""What a policy makes of a built cell, before anything has moved: phases, what they train, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from tlbench.measure.build import BuiltCell
from tlbench.measure.frozen import cuts_of
from tlbench.measure.shared_weights import loaded_fingerprint
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import Expression
from tlbench.train.flops import step_flops


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Holds the phases of a cell's training, and what follows from them."""

    phases: tuple[Phase, ...]
    trainable_parameters: int
    """Parameters that train in any phase, those of the adapter included."""
    added_parameters: int
    """Parameters of the adapter."""
    frozen: tuple[str, ...]
    """Names of the parameters and buffers that no phase may change."""
    frozen_sha256: str
    step_flops: dict[str, int]
    """FLOPs of a training step for one image, by phase."""
    boundaries: tuple[int, ...]
    """The cut of each phase."""


def plan_training(built: BuiltCell, expression: Expression) -> TrainingPlan:
    """Plans a cell's training. Errors: NotApplicable when the policy means nothing for this model."""
    phases = expression.phases(built.described, built.cell.epochs)
    trained = set().union(*(phase.scales for phase in phases))
    frozen = freezing.untouched(built.model, phases)
    counted = built.counted.steps
    # What an adapter holds frozen is each cell's own, not the loaded weights'.
    fingerprint = freezing.fingerprint if built.adapter else loaded_fingerprint
    return TrainingPlan(
        phases=phases,
        trainable_parameters=sum(p.numel for p in built.described.params if p.name in trained),
        added_parameters=freezing.count_added(built.described),
        frozen=tuple(frozen),
        frozen_sha256=fingerprint(built.model, frozen),
        step_flops={p.name: step_flops(built.model, p, built.size, built.stages, counted) for p in phases},
        boundaries=tuple(cuts_of(built, phases)),
    )
