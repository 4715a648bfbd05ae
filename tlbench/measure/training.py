"""A cell's training, timed: a round an epoch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from torch import nn

from tlbench.errors import NotApplicable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine import device as machine
from tlbench.machine.clock import Clock, now
from tlbench.measure.breakdown import _detail
from tlbench.measure.build import Job, build, counted, cuts, forget_loaded, loaded_fingerprint, stages_of
from tlbench.measure.evaluation import _evaluate, _merged, _trainer
from tlbench.measure.fitting import _fit_head
from tlbench.measure.timed import Timed
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import Expression, parse_policy
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation
from tlbench.train.flops import step_flops
from tlbench.train.loop import Diverged, Trainer, plan_epochs
from tlbench.train.recipe import Recipe, resolve

LR_GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the default learning rates that ``--lr auto`` tries."""


# --- training -------------------------------------------------------------------------------------------------


def _train(
    cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any], siblings: Iterable[str], keep: str
) -> None:
    expression = parse_policy(cell.freeze)
    job = build(cell, settings, facts, expression)
    try:
        _train_job(job, clock, facts, siblings, expression)
    finally:
        if job.store is not None and keep != "all":
            job.store.forget(facts["weights"]["pretrained"], other_seeds=keep == "pretrained")


def _train_job(job: Job, clock: Clock, facts: dict[str, Any], siblings: Iterable[str], expression: Expression) -> None:
    cell = job.cell
    phases = expression.phases(job.described, cell.epochs)
    trained = set().union(*(phase.scales for phase in phases))
    facts["trainable_parameters"] = sum(p.numel for p in job.described.params if p.name in trained)
    frozen = freezing.untouched(job.model, phases)
    facts["frozen_sha256_before"] = loaded_fingerprint(job, frozen)
    costs, steps = stages_of(job), counted(job).steps
    facts["flops"] = {
        "forward": sum(cost.flops for cost in costs),
        "train_step": {phase.name: step_flops(job.model, phase, job.size, costs, steps) for phase in phases},
    }
    boundaries = cuts_of(job, phases)
    facts["cut"] = job.names()[boundaries[0]]

    try:
        store_prefix(job, boundaries, siblings)
        if HEADS[cell.head].fit is not None:
            if expression.name != "linear_probe" or expression.bn:
                raise NotApplicable(f"the head {cell.head} is fitted on frozen features: use it with linear_probe")
            _fit_head(job, clock, facts)
        else:
            _train_head(job, plan_epochs(phases, cell.epochs), clock, facts, expression)
    finally:
        if job.store is not None:
            facts["prefix"] = job.store.facts()
        facts["flops"]["prefix"] = _kept_flops(phases, boundaries, facts)

    facts["frozen_sha256_after"] = freezing.fingerprint(job.model, frozen)
    if facts["frozen_sha256_after"] != facts["frozen_sha256_before"]:
        # An earlier cell may have changed what this one got a copy of, and filled the store from.
        forget_loaded()
        if job.store is not None:
            job.store.discard()
        raise RuntimeError("the frozen part changed during training")
    if facts["rounds"][-1].accuracy_val is not None:
        facts["accuracy_val"] = facts["rounds"][-1].accuracy_val
    # The test split is looked at once, here, and nothing is chosen on it.
    if test := _evaluate(job, "test", min(boundaries), _merged(job)):
        facts["accuracy_test"], facts["loss_test"] = test.accuracy, test.loss
        facts["predictions_sha256"] = hashlib.sha256(test.predictions.numpy().tobytes()).hexdigest()


def cuts_of(job: Job, phases: Iterable[Phase]) -> list[int]:
    """The cut of each phase."""
    found = []
    for phase in phases:
        freezing.apply(job.model, phase)
        found.append(freezing.cut(job.model))
    return found


def store_prefix(job: Job, boundaries: Sequence[int], siblings: Iterable[str] = ()) -> None:
    """Computes what the phases with these cuts will take of the frozen prefix, and what the policies ``siblings``
    will, before any weight has moved.
    """
    if job.store is not None:
        own = {b for b, holds in zip(boundaries, _pristine(boundaries), strict=True) if holds}
        also = partial(cuts, job, siblings) if job.cell.augment == "none" else frozenset[int]
        job.store.prepare(own, also, job.data.train.index)


def _pristine(boundaries: Sequence[int]) -> list[bool]:
    """Whether no phase before has trained anything before a phase's cut: what was stored before training holds."""
    return [b == min(boundaries[: i + 1]) for i, b in enumerate(boundaries)]


def _kept_flops(phases: Sequence[Phase], boundaries: Sequence[int], facts: dict[str, Any]) -> dict[str, int]:
    """FLOPs of the stages whose stored output each phase took, for one image; 0 where it took none."""
    kept = facts.get("prefix", {}).get("boundaries", ())
    return {
        phase.name: sum(stage["flops"] for stage in facts["stages"][:b]) if holds and b in kept else 0
        for phase, b, holds in zip(phases, boundaries, _pristine(boundaries), strict=True)
    }


def _train_head(job: Job, plan: list[Phase], clock: Clock, facts: dict[str, Any], expression: Expression) -> None:
    """One round an epoch."""
    facts["rounds"] = []
    trainer = start_training(job, plan, facts, expression)
    finished: list[tuple[float, int]] = []  # loss and images of each epoch
    evaluations: list[Evaluation | None] = []

    def setup() -> None:
        if finished:
            evaluations.append(_evaluate(job, "val", trainer.pristine))  # untimed
        trainer.start_epoch()

    def epoch() -> None:
        finished.append(trainer.run_epoch())

    timed = Timed(job)
    try:
        timed.run(clock, setup, epoch, len(plan))  # the timed calls
        evaluations.append(_evaluate(job, "val", trainer.pristine))
    finally:
        facts["energy_joules"] = timed.energy()
        counts = {id(phase): freezing.count_trainable(job.described, phase) for phase in plan}
        evaluations += [None] * len(plan)
        facts["rounds"] = [
            Round(
                phase=phase.name,
                samples=samples,
                trainable_parameters=counts[id(phase)],
                loss=loss,
                accuracy_val=evaluation.accuracy if evaluation else None,
                loss_val=evaluation.loss if evaluation else None,
                **seen,
            )
            for phase, (loss, samples), evaluation, seen in zip(
                plan, finished, evaluations, timed.rounds(), strict=False
            )
        ]
    if job.settings.detail:
        facts["detail"] = _detail(job, plan, trainer.recipe)


def start_training(job: Job, plan: list[Phase], facts: dict[str, Any], expression: Expression) -> Trainer:
    """What trains the cell's model, a phase an epoch; every phase is warmed up."""
    recipe = _recipe(job, plan, facts, expression)
    facts["recipe"] = asdict(recipe)
    facts["peak_memory_bytes"] = _warm_up(job, plan, recipe)
    return _trainer(job, job.model, plan, recipe)


def _recipe(job: Job, plan: list[Phase], facts: dict[str, Any], expression: Expression) -> Recipe:
    """The cell's recipe. With ``--lr auto`` the learning rate with the best validation accuracy (the lower loss
    decides ties), each tried on a clone; the test split is never seen.
    """
    cell = job.cell
    rest = {name: getattr(cell, name) for name in ("weight_decay", "schedule", "label_smoothing", "augment", "warmup")}
    rest["fused"] = cell.fused != "off"
    if cell.bn_momentum == "auto":
        # Kornblith 2019, A.5: what it writes as a decay of max(1 - 10 / s, 0.9) with s steps an epoch.
        steps = -(-len(job.data.train) // cell.batch_size)
        rest["bn_momentum"] = min(0.1, 10 / steps)
    elif cell.bn_momentum != "keep":
        rest["bn_momentum"] = float(cell.bn_momentum)
    if cell.lr != "auto":
        lr = None if cell.lr is None else float(cell.lr)
        return resolve(expression, cell.optimizer, lr, cell.backbone_lr, rest)
    if not job.data.measures_accuracy:
        raise NotApplicable(f"--lr auto chooses by validation accuracy, which {job.data.name} does not have")
    base = resolve(expression, cell.optimizer, None, cell.backbone_lr, rest)
    trials: list[dict[str, Any]] = []
    for factor in LR_GRID:
        # A backbone rate of the user's stays as it is.
        backbone_lr = base.backbone_lr * (factor if cell.backbone_lr is None else 1)
        recipe = replace(base, lr=base.lr * factor, backbone_lr=backbone_lr)
        begin = now()
        model = copy.deepcopy(job.model)
        trial: dict[str, Any] = {"lr": recipe.lr, "backbone_lr": recipe.backbone_lr}
        try:
            trainer = _trainer(job, model, plan, recipe)
            for _ in plan:
                trainer.start_epoch()
                trainer.run_epoch()
            result = _evaluate(job, "val", trainer.pristine, model)
            assert result is not None
            trial |= {"accuracy_val": result.accuracy, "loss_val": result.loss}
        except Diverged:
            trial |= {"accuracy_val": None, "loss_val": None}
        trials.append({**trial, "seconds": now() - begin})
    facts["lr_trials"] = tuple(trials)
    finished = [t for t in trials if t["accuracy_val"] is not None]
    if not finished:
        raise Diverged("every learning rate of --lr auto diverged")
    best = max(finished, key=lambda t: (t["accuracy_val"], -t["loss_val"]))
    return replace(base, lr=best["lr"], backbone_lr=best["backbone_lr"])


def _warm_up(job: Job, plan: list[Phase], recipe: Recipe) -> int | None:
    """Visits every phase and batch shape: first calls are slow. Returns the peak memory of a training step, in bytes,
    less what the clone below takes, which training itself does not have.

    On a throwaway clone: a warm-up that trained the measured model would change its accuracy. What torch.compile
    has compiled holds for one model only, so there the model itself is taken and put back to the last bit.
    """
    peak, pristine = None, len(job.model)
    phases = {id(phase): phase for phase in plan}.values()
    frozen = min(cuts_of(job, phases)) if job.compiled is None else 0
    with _restored(job.model) if job.compiled is not None else _cloned(job.model, frozen) as model:
        for phase in phases:
            trainer = _trainer(job, model, [phase], recipe)
            trainer.pristine = pristine  # what earlier phases trained is live in this one
            trainer.start_epoch()
            order, pristine = trainer.order, trainer.pristine
            trainer.order = [*order[:1], *order[-1:]]
            _visit(trainer)
            trainer.order = order[:1]
            measured = machine.peak_memory(job.compute.device, partial(_visit, trainer))
            peak = max(peak or 0, measured) if measured else peak
    return None if peak is None else peak - _bytes_of(job.model[frozen:])


def _visit(trainer: Trainer) -> None:
    with suppress(Diverged):  # training itself will tell when
        trainer.run_epoch()


def _bytes_of(model: nn.Module) -> int:
    """Of parameters and buffers, a shared one counted once."""
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


@contextmanager
def _cloned(model: nn.Sequential, frozen: int) -> Iterator[nn.Sequential]:
    """A copy that shares the first ``frozen`` stages, which training does not change."""
    yield copy.deepcopy(model, {id(stage): stage for stage in model[:frozen]})


@contextmanager
def _restored(model: nn.Sequential) -> Iterator[nn.Sequential]:
    """The model itself; afterwards its parameters and buffers are as they were, without gradients."""
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield model
    finally:
        model.load_state_dict(saved)
        model.zero_grad(set_to_none=True)
