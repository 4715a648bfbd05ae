"""The recipe that a cell trains by, and the search for the learning rates of ``--lr auto``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.errors import NotApplicable
from tlbench.grid.rates import AUTO, BACKBONE, BOTH, FINER, chooses
from tlbench.machine.clock import now
from tlbench.measure.build import BuiltCell
from tlbench.measure.outcome import evaluate_split, make_trainer
from tlbench.policies.base import SCALE, Phase
from tlbench.policies.parse import Expression
from tlbench.train.evaluate import Evaluation
from tlbench.train.loop import Diverged, Trainer
from tlbench.train.optimizer import in_head
from tlbench.train.recipe import Recipe, resolve
from tlbench.train.stopping import Patience, last_phase, score

AS_GIVEN = ("weight_decay", "schedule", "label_smoothing", "class_weights", "sampler", "augment", "warmup")
"""Fields of the cell that the recipe takes as they are; None is the policy's or the optimizer's default."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Holds what came of one pair of learning rates."""

    lr: float
    backbone_lr: float
    accuracy_val: float | None
    """Share of validation images classified correctly, with ``--patience`` after the best epoch; None where training
    diverged."""
    loss_val: float | None
    seconds: float


def recipe_of(built: BuiltCell, expression: Expression) -> Recipe:
    """Returns the cell's recipe with every default filled in; under ``--lr auto`` with the default learning rates.

    Errors: NotApplicable where what is given contradicts the policy, or where ``--lr auto`` or ``--patience`` has
    nothing to choose by.
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
    for option, given in (("--lr auto", cell.lr == AUTO), ("--patience", cell.patience is not None)):
        if given and not built.data.measures_accuracy:
            raise NotApplicable(f"{option} chooses by validation accuracy, which {built.data.name} does not have")
    lr = None if cell.lr in (None, AUTO) else float(cell.lr)
    return resolve(expression, cell.optimizer, lr, cell.backbone_lr, rest)


def tried_rates(built: BuiltCell, plan: Sequence[Phase], base: Recipe, expression: Expression) -> Iterator[Trial]:
    """Trains a clone by each pair of rates that ``--lr auto`` tries (`tlbench.grid.rates`), without it by none; the
    test split is never seen. ``base`` has the default rates. Each trial is given as soon as it is finished.
    """
    if not chooses(built.cell):
        return
    given = built.cell.backbone_lr is not None  # a backbone rate of the user's stays as it is
    tried = []
    for factor in BOTH:
        tried.append(_try(built, plan, scaled(base, factor, 1.0 if given else factor)))
        yield tried[-1]
    best = best_of(tried)
    if best is None:
        return
    middle = replace(base, lr=best.lr, backbone_lr=best.backbone_lr)
    if has_rate_of_its_own(built, plan, expression):
        second = [scaled(middle, 1.0, factor) for factor in BACKBONE]
    else:
        second = [scaled(middle, factor, 1.0 if given else factor) for factor in FINER]
    for recipe in second:
        yield _try(built, plan, recipe)


def scaled(recipe: Recipe, head: float, backbone: float) -> Recipe:
    """Returns a recipe with the learning rates of head and backbone multiplied."""
    return replace(recipe, lr=recipe.lr * head, backbone_lr=recipe.backbone_lr * backbone)


def has_rate_of_its_own(built: BuiltCell, plan: Sequence[Phase], expression: Expression) -> bool:
    """Tells whether the backbone's learning rate is to be chosen beside the head's: it trains, and neither the user nor
    the policy says what it is: ``full(0.5)`` does, and so does a policy that is defined for one rate, as `scratch`.
    """
    trains = any(not in_head(name) for phase in plan for name in phase.scales)
    one_rate = expression.policy.defaults.get("backbone_factor") == 1
    return trains and built.cell.backbone_lr is None and SCALE not in expression.explicit and not one_rate


def _try(built: BuiltCell, plan: Sequence[Phase], recipe: Recipe) -> Trial:
    begin = now()
    model = copy.deepcopy(built.model)
    accuracy = loss = None
    try:
        result = _trained(built, make_trainer(built, model, plan, recipe))
        accuracy, loss = result.accuracy, result.loss
    except Diverged:
        pass
    return Trial(
        lr=recipe.lr, backbone_lr=recipe.backbone_lr, accuracy_val=accuracy, loss_val=loss, seconds=now() - begin
    )


def _trained(built: BuiltCell, trainer: Trainer) -> Evaluation:
    """Trains as the cell itself will. Returns what came of the validation images: after the last epoch, or with
    ``--patience`` after the best one. Errors: Diverged.
    """
    patience = built.cell.patience
    stopping = None if patience is None else Patience(patience, last_phase(trainer.plan))
    best = None
    for _ in trainer.plan:
        trainer.start_epoch()
        trainer.run_epoch()
        if stopping is not None:
            result = evaluate_split(built, "val", trainer.pristine, trainer.model)
            assert result is not None
            best = result if stopping.hear(result.accuracy, result.loss) else best
            if stopping.enough:
                break
    found = best if stopping is not None else evaluate_split(built, "val", trainer.pristine, trainer.model)
    assert found is not None
    return found


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Returns the trial of the best validation accuracy, of equal ones that of the lowest validation loss, of these the
    first; None where all diverged.
    """
    scores = {
        place: score(one.accuracy_val, one.loss_val)
        for place, one in enumerate(trials)
        if one.accuracy_val is not None and one.loss_val is not None
    }
    return trials[max(scores, key=scores.__getitem__)] if scores else None


def with_best_rate(base: Recipe, trials: Sequence[Trial]) -> Recipe:
    """Returns the recipe with the rates of the best trial (`best_of`); without trials, it is returned as it is.

    Errors: Diverged where every trial did.
    """
    if not trials:
        return base
    best = best_of(trials)
    if best is None:
        raise Diverged("every learning rate of --lr auto diverged")
    return replace(base, lr=best.lr, backbone_lr=best.backbone_lr)
