"""Loaded weights, shared by the cells of a grid that start from the same ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tlbench.backbones import WEIGHTS, check_weights, load_backbone, parse_checkpoint
from tlbench.backbones.base import Backbone
from tlbench.grid.cell import Cell
from tlbench.machine.kept import KEPT
from tlbench.policies import freezing
from tlbench.policies.base import HEAD


def load_weights(cell: Cell) -> Backbone:
    """Loads the cell's backbone with its initial weights: a copy of what is kept, which is the backbone loaded last.

    Errors: as `tlbench.backbones.load_backbone`.
    """
    stamp = _stamp(cell.weights)
    # Pretrained weights do not depend on the seed, but the ones that `auto` falls back to do.
    for seed in (None, cell.seed):
        kept: Backbone | None = KEPT.backbones.get((cell.backbone, cell.weights, stamp, seed))
        if kept is not None:
            return replace(kept, stages=copy.deepcopy(kept.stages))
    backbone = load_backbone(cell.backbone, cell.weights, seed=cell.seed)
    KEPT.forget_weights()
    shared_by = None if backbone.weights.pretrained else cell.seed
    KEPT.backbones.put((cell.backbone, cell.weights, stamp, shared_by), backbone)
    return replace(backbone, stages=copy.deepcopy(backbone.stages))


def _stamp(weights: str) -> tuple[int, ...] | None:
    """Returns what tells a checkpoint file from the one that was there before; None for weights that are no file.

    Errors: UserError where it is gone.
    """
    if weights in WEIGHTS:
        return None
    check_weights(weights)
    told = parse_checkpoint(weights).file.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


def loaded_fingerprint(model: nn.Sequential, names: Sequence[str]) -> str:
    """Returns `freezing.fingerprint` of a model that has just been built from loaded weights.

    It is computed once for all cells that have these tensors of the same weights, so that it also shows when an
    earlier cell has changed the kept ones.
    """
    if any(name.startswith(f"{HEAD}.") for name in names):
        return freezing.fingerprint(model, names)  # the head is each cell's own
    key = tuple(names)
    if key not in KEPT.hashes:
        KEPT.hashes.put(key, freezing.fingerprint(model, names))
    return str(KEPT.hashes.get(key))
