"""The recipe that a cell trains by, and the search for a learning rate of ``--lr auto``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.errors import NotApplicable
from tlbench.machine.clock import now
from tlbench.measure.build import BuiltCell
from tlbench.measure.outcome import evaluate_split, make_trainer
from tlbench.policies.base import Phase
from tlbench.policies.parse import Expression
from tlbench.train.loop import Diverged
from tlbench.train.recipe import Recipe, resolve

LR_GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the default learning rates that ``--lr auto`` tries."""


AS_GIVEN = ("weight_decay", "schedule", "label_smoothing", "class_weights", "sampler", "augment", "warmup")
"""Fields of the cell that the recipe takes as they are; None is the policy's or the optimizer's default."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Holds what came of one learning rate."""

    lr: float
    backbone_lr: float
    accuracy_val: float | None
    """Share of validation images classified correctly; None where training diverged."""
    loss_val: float | None
    seconds: float


def recipe_of(built: BuiltCell, expression: Expression) -> Recipe:
    """Returns the cell's recipe with every default filled in; under ``--lr auto`` with the default learning rates.

    Errors: NotApplicable where what is given contradicts the policy, or where ``--lr auto`` has nothing to choose by.
    """
    cell = built.cell
    rest: dict[str, Any] = {name: getattr(cell, name) for name in AS_GIVEN}
    rest["fused"] = cell.fused != "off"
    if cell.bn_momentum == "auto":
        # Kornblith 2019, A.5: what it writes as a decay of max(1 - 10 / s, 0.9) with s steps an epoch.
        steps = -(-len(built.data.train) // cell.batch_size)
        rest["bn_momentum"] = min(0.1, 10 / steps)
    elif cell.bn_momentum != "keep":
        rest["bn_momentum"] = float(cell.bn_momentum)
    if cell.lr == "auto" and not built.data.measures_accuracy:
        raise NotApplicable(f"--lr auto chooses by validation accuracy, which {built.data.name} does not have")
    lr = None if cell.lr in (None, "auto") else float(cell.lr)
    return resolve(expression, cell.optimizer, lr, cell.backbone_lr, rest)


def try_rates(built: BuiltCell, plan: Sequence[Phase], base: Recipe) -> tuple[Trial, ...]:
    """Trains a clone with each learning rate of `LR_GRID`, if ``--lr auto``; the test split is never seen."""
    if built.cell.lr != "auto":
        return ()
    return tuple(_try(built, plan, base, factor) for factor in LR_GRID)


def _try(built: BuiltCell, plan: Sequence[Phase], base: Recipe, factor: float) -> Trial:
    # A backbone rate of the user's stays as it is.
    backbone_lr = base.backbone_lr * (factor if built.cell.backbone_lr is None else 1)
    recipe = replace(base, lr=base.lr * factor, backbone_lr=backbone_lr)
    begin = now()
    model = copy.deepcopy(built.model)
    accuracy = loss = None
    try:
        trainer = make_trainer(built, model, plan, recipe)
        for _ in plan:
            trainer.start_epoch()
            trainer.run_epoch()
        result = evaluate_split(built, "val", trainer.pristine, model)
        assert result is not None
        accuracy, loss = result.accuracy, result.loss
    except Diverged:
        pass
    return Trial(
        lr=recipe.lr, backbone_lr=recipe.backbone_lr, accuracy_val=accuracy, loss_val=loss, seconds=now() - begin
    )


def with_best_rate(base: Recipe, trials: Sequence[Trial]) -> Recipe:
    """Returns the recipe with the rates of the best validation accuracy, the lower loss deciding ties; without trials,
    it is returned as it is.

    Errors: Diverged where every rate did.
    """
    if not trials:
        return base
    finished = [
        (t.accuracy_val, -t.loss_val, t) for t in trials if t.accuracy_val is not None and t.loss_val is not None
    ]
    if not finished:
        raise Diverged("every learning rate of --lr auto diverged")
    *_, best = max(finished, key=lambda trial: trial[:2])
    return replace(base, lr=best.lr, backbone_lr=best.backbone_lr)
