"""Learning rates that are chosen: the same budget for every cell, by validation images alone, charged to the cell."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from digits import few_digits
from hypothesis import given
from hypothesis import strategies as st
from plain_recipe import plain_training
from records import record

from tlbench.analysis.expectation import Expectation
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.campaign import replay
from tlbench.grid.cell import Cell
from tlbench.grid.rates import BACKBONE, BOTH, FINER, TRIALS, chooses, trials
from tlbench.grid.settings import Settings
from tlbench.measure import images as images_module
from tlbench.measure import rates
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.measure.rates import Trial, best_of, recipe_of, tried_rates, with_best_rate
from tlbench.policies.parse import parse_policy
from tlbench.records.definitions import definitions, meant, said
from tlbench.records.record import Record
from tlbench.train.evaluate import Evaluation
from tlbench.train.loop import Diverged, plan_epochs
from tlbench.train.recipe import resolve

CELL = Cell(
    backbone="shufflenet_v2_x0_5", weights="random", freeze="full", image_size=32, train_size=40, epochs=2,
    batch_size=16, layout="contiguous", lr="auto", seed=3,
)  # fmt: skip
LIVE = Settings(prefix="off")


def made(cell, settings=LIVE, **rest):
    with few_digits():
        return run_cell(cell, settings, **rest)


@pytest.fixture(scope="module")
def chosen():
    """The record of `CELL`, which is trained once."""
    one = made(CELL)
    assert (one.status, one.reason) == ("ok", "")
    return one


# --- the budget -----------------------------------------------------------------------------------------------


def pretend(monkeypatch, score):
    """Has a trial score what a function of its two rates says, and train nothing. Returns the rates in order."""
    tried = []

    def trained(built, trainer):
        recipe = trainer.recipe
        tried.append((recipe.lr, recipe.backbone_lr))
        accuracy, loss = score(recipe.lr, recipe.backbone_lr)
        return Evaluation(accuracy=accuracy, loss=loss, predictions=torch.zeros(0), seconds=0.0)

    monkeypatch.setattr(rates, "_trained", trained)
    return tried


def near(lr, backbone_lr):
    """A score that is the higher, the nearer the rates are to these, the head's above all."""
    return lambda a, b: (0.5, 3 * abs(np.log(a / lr)) + abs(np.log(b / backbone_lr)))


POLICIES = {
    "linear_probe": ({}, "finer"),
    "full": ({}, "backbone"),
    "last_1": ({}, "backbone"),
    "lp_ft": ({}, "backbone"),
    "norm": ({}, "backbone"),
    "full(0.5)": ({}, "finer"),
    "scratch": ({}, "finer"),
    "layer_decay": ({}, "finer"),
    "auto_rgn": ({}, "finer"),
    "full with a rate given": ({"freeze": "full", "backbone_lr": 1e-3}, "head"),
    "sgd": ({"freeze": "full", "optimizer": "sgd"}, "backbone"),
}
"""Policy, or a name for what is given -> what is given beside it, and what the second look is at."""


@pytest.mark.parametrize("name", POLICIES)
def test_every_cell_has_the_same_number_of_trials(monkeypatch, name):
    given, second = POLICIES[name]
    cell = replace(CELL, **{"freeze": name, "epochs": 2, **given})
    default = resolve(parse_policy(cell.freeze), cell.optimizer, None, cell.backbone_lr, {})
    head, backbone = default.lr, default.backbone_lr
    tried = pretend(monkeypatch, near(head, backbone))
    with few_digits():
        built, expression = build(cell, LIVE, parse_policy(cell.freeze)), parse_policy(cell.freeze)
    plan = plan_epochs(expression.phases(built.described, cell.epochs), cell.epochs)
    base = recipe_of(built, expression)
    told = list(tried_rates(built, plan, base, expression))
    assert len(tried) == len(told) == trials(cell) == TRIALS == 7
    together = [(head * f, backbone * (1 if "backbone_lr" in given else f)) for f in BOTH]
    expected = {
        "backbone": [(head, backbone * f) for f in BACKBONE],
        "finer": [(head * f, backbone * f) for f in FINER],
        "head": [(head * f, backbone) for f in FINER],
    }[second]
    assert np.allclose(tried, together + expected, rtol=1e-12, atol=0)
    recipe = with_best_rate(base, told)
    assert (recipe.lr, recipe.backbone_lr) == (head, backbone)


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_the_backbones_rate_is_chosen_around_the_best_of_both(monkeypatch, factor):
    tried = pretend(monkeypatch, near(9e-3, 9e-4 * factor))  # three times the defaults
    one = made(CELL)
    assert tried[5:] == [(tried[3][0], tried[3][1] * f) for f in BACKBONE]
    assert (one.recipe["lr"], one.recipe["backbone_lr"]) == (tried[3][0], tried[3][1] * factor)
    assert [(t["lr"], t["backbone_lr"]) for t in one.lr_trials] == tried


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.integers(0, 4).map(float), st.integers(0, 3).map(float))),
        min_size=1, max_size=9,
    )
)  # fmt: skip
def test_the_first_of_the_best_is_taken(scores):
    tried = [
        Trial(lr=n + 1.0, backbone_lr=1.0, accuracy_val=s and s[0], loss_val=s and s[1], seconds=1.0)
        for n, s in enumerate(scores)
    ]
    ranked = sorted((n for n, s in enumerate(scores) if s is not None), key=lambda n: (-scores[n][0], scores[n][1], n))
    assert best_of(tried) is (tried[ranked[0]] if ranked else None)


def test_a_cell_of_which_every_rate_diverges_keeps_its_trials(monkeypatch):
    def diverged(built, trainer):
        raise Diverged("the loss became nan at step 1 of 3")

    monkeypatch.setattr(rates, "_trained", diverged)
    one = made(CELL)
    assert one.status == "diverged"
    assert one.reason.endswith("every learning rate of --lr auto diverged")
    assert len(one.lr_trials) == len(BOTH)  # there is no best one to look around
    with pytest.raises(Diverged):
        with_best_rate(None, [Trial(lr=1.0, backbone_lr=1.0, accuracy_val=None, loss_val=None, seconds=1.0)])


def test_an_error_keeps_the_trials_before_it(monkeypatch):
    tried = pretend(monkeypatch, lambda *_: (0.5, float(len(tried))) if len(tried) < 4 else 1 / 0)
    one = made(CELL)
    assert one.status == "failed"
    assert len(one.lr_trials) == 3


def test_what_a_choice_costs_is_known_beforehand():
    assert trials(replace(CELL, lr=0.1)) == trials(replace(CELL, lr=None)) == 0
    assert trials(replace(CELL, head="ridge", freeze="linear_probe")) == 0
    assert trials(replace(CELL, task="infer")) == 0
    assert chooses(replace(CELL, head="of_a_plugin"))
    expected = Expectation(settings=Settings())
    plain, auto = (expected._by_rule(replace(CELL, lr=lr))["timed"] for lr in (None, "auto"))
    assert auto == pytest.approx((1 + TRIALS) * plain)


# --- what is chosen -------------------------------------------------------------------------------------------


def test_trials_are_what_plain_loops_say_and_the_cell_does_the_best_once_more(chosen):
    with few_digits():
        job = build(CELL, LIVE, parse_policy("full"))
        plain = [plain_training(job, chosen.recipe, (t["lr"], t["backbone_lr"])) for t in chosen.lr_trials]
    ends = [one.scores[-1] for one in plain]
    assert [(t["accuracy_val"], t["loss_val"]) for t in chosen.lr_trials] == ends
    best = min(range(TRIALS), key=lambda n: (-ends[n][0], ends[n][1], n))
    assert [r.loss for r in chosen.rounds] == plain[best].losses
    assert [(r.accuracy_val, r.loss_val) for r in chosen.rounds] == plain[best].scores
    assert (chosen.predictions_sha256, chosen.loss_test) == (plain[best].predictions_sha256, plain[best].loss_test)


class Scripted:
    """A trainer that trains nothing; what is found after its epochs is given."""

    model, pristine = None, 0

    def __init__(self, monkeypatch, scores):
        self.plan, self.epochs = [object()] * len(scores), 0
        monkeypatch.setattr(rates, "evaluate_split", lambda *_: self.found(*scores[self.epochs - 1]))

    def start_epoch(self):
        self.epochs += 1

    def run_epoch(self):
        pass

    @staticmethod
    def found(accuracy, loss):
        return Evaluation(accuracy=accuracy, loss=loss, predictions=torch.zeros(0), seconds=0.0)


@pytest.mark.parametrize(
    ("patience", "epochs", "best"), [(None, 6, (0.4, 2.0)), (2, 4, (0.5, 1.0)), (3, 6, (0.6, 3.0)), (9, 6, (0.6, 3.0))]
)
def test_a_trial_stops_as_the_cell_does_and_is_its_best_epoch(monkeypatch, patience, epochs, best):
    scores = [(0.5, 2.0), (0.5, 1.0), (0.5, 1.0), (0.4, 0.5), (0.6, 3.0), (0.4, 2.0)]
    trainer = Scripted(monkeypatch, scores)
    found = rates._trained(SimpleNamespace(cell=Cell(patience=patience)), trainer)
    assert ((found.accuracy, found.loss), trainer.epochs) == (best, epochs)


@pytest.mark.exhaustive
def test_with_patience_a_trial_is_what_its_best_epoch_scored():
    cell = replace(CELL, epochs=3, schedule="constant", patience=1)
    one = made(cell)
    assert one.status == "ok", one.reason
    with few_digits():
        job = build(cell, LIVE, parse_policy("full"))
        for trial in one.lr_trials[::4]:
            plain = plain_training(job, one.recipe, (trial["lr"], trial["backbone_lr"]))
            assert (trial["accuracy_val"], trial["loss_val"]) == plain.scores[plain.best]
    best = max(one.lr_trials, key=lambda t: (t["accuracy_val"], -t["loss_val"]))
    kept = one.rounds[one.best_epoch - 1]
    assert (kept.accuracy_val, kept.loss_val) == (best["accuracy_val"], best["loss_val"])
    assert one.accuracy_val == best["accuracy_val"]


@pytest.mark.exhaustive
def test_test_images_choose_no_rate(monkeypatch, chosen):
    def load(*args, real=images_module.load_data, **options):
        data = real(*args, **options)
        return replace(data, test=replace(data.test, classes=np.full_like(data.test.classes, 7)))

    monkeypatch.setattr(images_module, "load_data", load)
    other = made(CELL)
    assert other.accuracy_test != chosen.accuracy_test
    without = [[{**t, "seconds": 0} for t in one.lr_trials] for one in (other, chosen)]
    assert without[0] == without[1]
    assert other.recipe == chosen.recipe
    assert other.predictions_sha256 == chosen.predictions_sha256


@pytest.mark.exhaustive
def test_a_replay_chooses_the_same(chosen):
    with few_digits():
        found = replay.replay(Record.from_dict(chosen.to_dict()))
    assert (found.outcome, found.differences) == (replay.EQUAL, ())


def test_the_same_rates_given_train_the_same(chosen):
    given = made(replace(CELL, lr=chosen.recipe["lr"], backbone_lr=chosen.recipe["backbone_lr"]))
    assert given.lr_trials == ()
    assert [r.loss for r in given.rounds] == [r.loss for r in chosen.rounds]
    assert given.predictions_sha256 == chosen.predictions_sha256


def test_the_cell_is_charged_what_its_choice_took(monkeypatch):
    pretend(monkeypatch, lambda *_: (0.5, 1.0))
    ticks = count()
    monkeypatch.setattr(rates, "now", lambda: 10.0 * next(ticks))  # a trial reads it twice

    def clock(setup, target, rounds, seconds):
        for _ in range(rounds):
            setup()
            target()
            seconds.append(1.0)

    one = made(CELL, clock=clock)
    (row,) = rows([one])
    assert row.tuning_seconds == 10.0 * TRIALS
    assert row.own_seconds == CELL.epochs
    assert row.training_seconds == CELL.epochs + 10.0 * TRIALS
    assert row.epoch_seconds == 1.0
    plain = made(replace(CELL, lr=None), clock=clock)
    (row,) = rows([plain])
    assert (row.tuning_seconds, row.training_seconds) == (None, CELL.epochs)


# --- records of the choice before -----------------------------------------------------------------------------


def test_a_record_of_the_choice_among_five_keeps_its_name():
    before = record(lr="auto")
    now = replace(before, definitions=definitions(before.cell))
    assert now.definitions == {"lr": 2}
    assert (meant(before).lr, meant(now).lr) == ("auto@1", "auto")
    assert said(before) == "--lr auto means something else since then (version 1 there, 2 here)"
    assert [row["variant"] for row in summarise(rows([before, now]))] == ["lr=auto@1", "lr=auto"]
    assert replay.replay(before).outcome == replay.IMPOSSIBLE
    assert meant(record(lr="auto", head="ridge")).lr == "auto"  # which chose nothing


def test_what_is_to_come_says_how_many_trials_and_that_epochs_are_a_bound():
    from tlbench.campaign.outlook import _each

    assert "up to 2 epochs, 7 trials of learning rates before each training" in _each([replace(CELL, patience=1)])
    assert "32 px, 2 epochs, batches" in _each([replace(CELL, lr=None)])


def test_rates_that_seeds_have_chosen_are_shown_for_none_of_them():
    chosen = [{"optimizer": "adamw", "lr": lr, "backbone_lr": 1e-4} for lr in (1e-3, 3e-3)]
    made = [record(seed=seed, recipe=recipe) for seed, recipe in enumerate(chosen)]
    (row,) = summarise(rows(made))
    assert (row["lr"], row["backbone_lr"]) == (None, 1e-4)
