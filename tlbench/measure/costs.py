"""What a cell's stages and training steps cost, counted once for all cells whose backbone computes alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from tlbench.backbones.base import StageCost, stage_costs
from tlbench.grid.cell import Cell
from tlbench.machine.kept import KEPT


@dataclass(frozen=True)
class Counted:
    """Holds what was counted of a backbone, whatever its head."""

    stages: tuple[StageCost, ...]
    steps: dict[frozenset[str], int] = field(default_factory=dict)
    """FLOPs of training steps, as `tlbench.train.flops.step_flops` keeps them."""


def counted(cell: Cell, model: nn.Sequential, size: int, adapted: bool) -> Counted:
    """Counts what the backbone of a ``model`` costs for images of ``size`` px, ``adapted`` by its policy or not."""
    key = (cell.backbone, size, cell.freeze if adapted else None)
    if key not in KEPT.costs:
        KEPT.costs.put(key, Counted(tuple(stage_costs(model[:-1], size))))
    counts: Counted = KEPT.costs.get(key)
    return counts


def with_head(trunk: Counted, model: nn.Sequential) -> tuple[StageCost, ...]:
    """Returns name, parameters and forward FLOPs of each stage and the head, for one image."""
    return (*trunk.stages, *stage_costs(model[-1:], trunk.stages[-1].output))
