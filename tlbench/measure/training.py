"""A cell's training, timed: a round an epoch."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.errors import NotApplicable
from tlbench.heads import HEADS
from tlbench.machine.clock import Clock, EnoughRounds
from tlbench.machine.kept import KEPT
from tlbench.measure.breakdown import step_parts
from tlbench.measure.build import BuiltCell
from tlbench.measure.findings import Findings
from tlbench.measure.fitting import HeadFit
from tlbench.measure.frozen import fill_prefix
from tlbench.measure.other_tests import run_other_tests
from tlbench.measure.outcome import (
    accuracy_without_copies,
    evaluate_split,
    look_at_test_images,
    make_trainer,
    merged,
    per_image,
)
from tlbench.measure.phases import TrainingPlan, plan_training
from tlbench.measure.place import ALONE, Place
from tlbench.measure.rates import recipe_of, tried_rates, with_best_rate
from tlbench.measure.stopping import EarlyStopping
from tlbench.measure.timed import Timed
from tlbench.measure.warm_up import warm_up
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import Expression
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation
from tlbench.train.loop import Trainer, plan_epochs


def train(built: BuiltCell, expression: Expression, findings: Findings, clock: Clock, place: Place = ALONE) -> None:
    """Trains a built cell, from its initial weights to its figures on the test images.

    What is finished goes into ``findings``. Errors: NotApplicable, Diverged; RuntimeError when something frozen moved.
    """
    plan = findings.plan = plan_training(built, expression)
    try:
        fill_prefix(built, plan.boundaries, place)
        if HEADS[built.cell.head].fit is not None:
            fit_head(built, expression, findings, clock)
        else:
            run_epochs(built, expression, findings, clock)
    finally:
        findings.prefix = built.store.use() if built.store is not None else None
    findings.frozen_sha256_after = freezing.fingerprint(built.model, plan.frozen)
    check_unchanged(built, plan, findings.frozen_sha256_after)
    assert findings.measured is not None
    if (validated := findings.measured.last_evaluation()) is not None:
        findings.accuracy_val = validated.accuracy
    model = merged(built)
    findings.test = look_at_test_images(built, min(plan.boundaries), model)
    evaluations = {"val": validated, "test": findings.test.evaluation}
    findings.per_image = per_image(built, evaluations)
    if place.role == ALONE.role:  # not of twins, which tell the noise of times; last of all: nothing may depend on it
        run_other_tests(built, model, min(plan.boundaries), findings.other_tests)


def run_epochs(built: BuiltCell, expression: Expression, findings: Findings, clock: Clock) -> None:
    """Trains the head, and whatever else the policy trains, epoch by epoch."""
    assert findings.plan is not None
    plan = plan_epochs(findings.plan.phases, built.cell.epochs)
    trainer = start_training(built, plan, expression, findings)
    epochs = findings.measured = Epochs(built, trainer)
    epochs.run(clock)
    findings.best_epoch = epochs.best_epoch
    if trainer.compiled is not None and trainer.compiled.captures:
        findings.compile_seconds = trainer.capture_seconds
    findings.accuracy_val_clean = accuracy_without_copies(built.data, "val", epochs.last_evaluation())
    if built.settings.detail:
        findings.detail = step_parts(built, plan, trainer.recipe)


def start_training(
    built: BuiltCell, plan: Sequence[Phase], expression: Expression, findings: Findings | None = None
) -> Trainer:
    """Makes what trains the cell's model, a phase an epoch, its recipe chosen and every phase warmed up."""
    findings = Findings() if findings is None else findings
    base = recipe_of(built, expression)
    for trial in tried_rates(built, plan, base, expression):
        findings.lr_trials = (*findings.lr_trials, trial)
    recipe = findings.recipe = with_best_rate(base, findings.lr_trials)
    warm = warm_up(built, plan, recipe)
    findings.peak_memory_bytes, findings.compile_seconds = warm.peak_memory_bytes, warm.compile_seconds
    return make_trainer(built, built.model, plan, recipe)


def fit_head(built: BuiltCell, expression: Expression, findings: Findings, clock: Clock) -> None:
    """Fits a training-free head. Errors: NotApplicable with a policy that trains more than the head."""
    if expression.name != "linear_probe" or expression.bn:
        raise NotApplicable(f"the head {built.cell.head} is fitted on frozen features: use it with linear_probe")
    assert findings.plan is not None
    fit = findings.measured = HeadFit(built, findings.plan.trainable_parameters)
    findings.peak_memory_bytes = fit.warm_up()
    fit.run(clock)
    findings.accuracy_val_clean = accuracy_without_copies(built.data, "val", fit.last_evaluation())


class Epochs:
    """Trains epoch by epoch, each a timed round with an evaluation after it; with ``--patience`` until these have said
    that it is enough, and back to the best epoch.
    """

    def __init__(self, built: BuiltCell, trainer: Trainer) -> None:
        self.built, self.trainer = built, trainer
        self._timed = Timed(built)
        self._trained: list[tuple[float, int]] = []
        """Loss and images of each epoch."""
        self._evaluations: list[Evaluation | None] = []
        patience = built.cell.patience
        self._stopping = None if patience is None else EarlyStopping(trainer, patience)
        self._of_best: Evaluation | None = None
        """Of the best epoch's weights, where they were put back."""

    def run(self, clock: Clock) -> None:
        """Trains all epochs under the clock. Errors: Diverged."""
        self._timed.run(clock, self._setup, self._epoch, len(self.trainer.plan))  # the timed calls
        if len(self._evaluations) < len(self._trained):
            self._evaluate(keep_logits=True)  # of the last epoch alone
        if self._stopping is not None and self._stopping.restore():
            self._of_best = evaluate_split(self.built, "val", self.trainer.pristine, None, True)

    def _setup(self) -> None:
        if self._trained:
            self._evaluate()  # untimed
            if self._stopping is not None and self._stopping.rule.enough:
                raise EnoughRounds
        self.trainer.start_epoch()

    def _epoch(self) -> None:
        self._trained.append(self.trainer.run_epoch())

    def _evaluate(self, keep_logits: bool = False) -> None:
        evaluation = evaluate_split(self.built, "val", self.trainer.pristine, None, keep_logits)
        self._evaluations.append(evaluation)
        if self._stopping is not None and evaluation is not None:
            self._stopping.hear(evaluation)

    @property
    def best_epoch(self) -> int | None:
        """Returns the number of the epoch (1 first) whose weights are kept; None without ``--patience``: the last."""
        return None if self._stopping is None else self._stopping.best_epoch

    def rounds(self) -> tuple[Round, ...]:
        """Returns the finished epochs; the last one may lack its evaluation."""
        counts = {id(phase): freezing.count_trainable(self.built.described, phase) for phase in self.trainer.plan}
        evaluations = [*self._evaluations, *[None] * len(self.trainer.plan)]
        return tuple(
            Round(
                phase=phase.name,
                samples=samples,
                trainable_parameters=counts[id(phase)],
                loss=loss,
                accuracy_val=evaluation.accuracy if evaluation else None,
                loss_val=evaluation.loss if evaluation else None,
                evaluation_seconds=evaluation.seconds if evaluation else None,
                **seen,
            )
            for phase, (loss, samples), evaluation, seen in zip(
                self.trainer.plan, self._trained, evaluations, self._timed.rounds(), strict=False
            )
        )

    def last_evaluation(self) -> Evaluation | None:
        """Returns what came of the validation images after the last epoch, or with the weights of the best one."""
        return self._of_best or (self._evaluations[-1] if self._evaluations else None)

    def energy(self) -> float | None:
        """Returns the joules of the finished epochs; None where the machine does not tell."""
        return self._timed.energy()


def check_unchanged(built: BuiltCell, plan: TrainingPlan, after: str) -> None:
    """Raises RuntimeError when the frozen part is no longer what it was."""
    if after == plan.frozen_sha256:
        return
    # An earlier cell may have changed what this one got a copy of, and filled the store from.
    KEPT.forget_weights()
    if built.store is not None:
        built.store.discard()
    raise RuntimeError("the frozen part changed during training")
