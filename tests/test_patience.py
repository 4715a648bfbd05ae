"""Early stopping: by validation images alone, after so many epochs without a better one, back to the best."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from digits import few_digits
from hypothesis import given
from hypothesis import strategies as st
from models import phases_of, tiny
from plain_recipe import plain_training
from records import record
from tiers import sweep

from tlbench.analysis.commands import command
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.api.keywords import options_of
from tlbench.campaign import replay
from tlbench.campaign.duel_side import checked, parse_side
from tlbench.campaign.fitting import fit
from tlbench.errors import UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid, load_grid
from tlbench.grid.settings import Settings
from tlbench.machine.clock import EnoughRounds, plain_clock
from tlbench.measure import images as images_module
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.policies.parse import parse_policy
from tlbench.pytest_plugin.clock import PedanticClock
from tlbench.records.plan import Plan, load_start
from tlbench.records.record import Record
from tlbench.records.run_folder import Store
from tlbench.report import verdict_words, wording
from tlbench.train.loop import plan_epochs
from tlbench.train.stopping import Patience, last_phase

CELL = Cell(
    backbone="shufflenet_v2_x0_5", weights="random", freeze="full", image_size=32, train_size=67, epochs=12,
    batch_size=16, layout="contiguous", schedule="constant", warmup=0.0, lr=0.02, backbone_lr=0.01, patience=2,
    seed=3,
)  # fmt: skip
"""At such rates validation goes up and down, so that it stops early."""
STUCK = replace(CELL, freeze="linear_probe", lr=1e-30, backbone_lr=None, epochs=9)
"""No step changes a weight, so that no epoch is better than the first."""
LIVE = Settings(prefix="off")


def made(cell, settings=LIVE, **rest):
    with few_digits():
        return run_cell(cell, settings, **rest)


@pytest.fixture(scope="module")
def stopped():
    """The record of `CELL`, which is trained once."""
    one = made(CELL)
    assert (one.status, one.reason) == ("ok", "")
    return one


# --- the rule -------------------------------------------------------------------------------------------------


def by_hand(scores, patience, first):
    """The last epoch that is trained and the best one, from all that would be scored."""
    for last in range(first, len(scores)):
        best = min(range(first, last + 1), key=lambda n: (-scores[n][0], scores[n][1], n))
        if last - best >= patience:
            return last, best
    return len(scores) - 1, best


@given(
    st.lists(st.tuples(st.integers(0, 6).map(lambda n: n / 6), st.integers(0, 4).map(float)), min_size=1, max_size=20),
    st.integers(1, 6),
    st.data(),
)
def test_the_rule_stops_where_one_would_by_hand(scores, patience, data):
    first = data.draw(st.integers(0, len(scores) - 1))
    rule, last = Patience(patience, first), None
    for epoch, (accuracy, loss) in enumerate(scores):
        better = rule.hear(accuracy, loss)
        assert better == (rule.best == epoch)
        if rule.enough:
            last = epoch
            break
    assert ((len(scores) - 1 if last is None else last), rule.best) == by_hand(scores, patience, first)


@pytest.mark.parametrize("epochs", [1, 3, 8])
@pytest.mark.parametrize("policy", ["full", "lp_ft", "gradual", "freeze_out"])
def test_the_last_phase_of_a_plan(policy, epochs):
    model = tiny()
    epochs += 4
    plan = plan_epochs(phases_of(model, policy, epochs), epochs)
    first = last_phase(plan)
    assert {id(phase) for phase in plan[first:]} == {id(plan[-1])}
    assert first == 0 or plan[first - 1] is not plan[-1]


# --- cells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sweep(["full", "linear_probe"], {"full"}))
def test_a_cell_stops_and_goes_back_as_a_plain_loop_does(policy, stopped):
    cell = replace(CELL, freeze=policy)
    one = stopped if policy == "full" else made(cell)
    with few_digits():
        job = build(cell, LIVE, parse_policy(policy))
        plain = plain_training(job, one.recipe, (0.02, 0.01))
    assert [r.loss for r in one.rounds] == plain.losses
    assert [(r.accuracy_val, r.loss_val) for r in one.rounds] == plain.scores
    assert one.best_epoch == plain.best + 1
    assert one.accuracy_val == plain.scores[plain.best][0]
    assert (one.predictions_sha256, one.loss_test) == (plain.predictions_sha256, plain.loss_test)
    if policy == "full":
        assert len(one.rounds) < CELL.epochs, "it does not stop early, so that nothing is tested"
        assert one.best_epoch == len(one.rounds) - CELL.patience


def test_what_never_gets_better_stops_after_its_patience():
    one = made(replace(STUCK, patience=3))
    assert (one.status, len(one.rounds), one.best_epoch) == ("ok", 4, 1)


def test_without_patience_nothing_is_kept_or_said(stopped):
    plain = made(replace(CELL, patience=None, epochs=2))
    assert len(plain.rounds) == 2
    assert "best_epoch" not in plain.to_dict()
    assert "patience" not in plain.to_dict()["cell"]
    # A constant schedule shows that nothing else differs.
    assert [r.loss for r in plain.rounds] == [r.loss for r in stopped.rounds[:2]]


def test_what_never_stops_is_the_plain_training_and_its_best_epoch():
    plain, patient = (made(replace(CELL, epochs=3, schedule="cosine", patience=p)) for p in (None, 3))
    assert [(r.loss, r.accuracy_val, r.loss_val) for r in patient.rounds] == [
        (r.loss, r.accuracy_val, r.loss_val) for r in plain.rounds
    ]
    scores = [(-r.accuracy_val, r.loss_val) for r in plain.rounds]
    assert patient.best_epoch == scores.index(min(scores)) + 1
    assert (patient.loss_test == plain.loss_test) == (patient.best_epoch == 3)


def test_only_the_last_phase_is_stopped_and_only_it_gives_the_model():
    cell = replace(CELL, freeze="lp_ft", lr=1e-30, backbone_lr=1e-30, epochs=4, patience=1)
    one = made(cell)
    assert one.status == "ok", one.reason
    phases = [r.phase for r in one.rounds]
    # Before it no epoch is better than the first, which would be enough twice over.
    assert phases[:3] == ["linear_probe", "linear_probe", "fine_tune"]
    assert 2 < one.best_epoch <= len(phases)


@pytest.mark.parametrize("policy", sweep(["last_1", "linear_probe"], {"linear_probe"}))
def test_the_store_of_frozen_activations_stops_after_the_same_epoch(policy):
    cell = replace(CELL, epochs=6, freeze=policy)
    live, kept = (made(cell, Settings(prefix=prefix)) for prefix in ("off", "on"))
    assert kept.prefix["boundaries"]
    assert (kept.best_epoch, len(kept.rounds)) == (live.best_epoch, len(live.rounds))
    assert [r.loss for r in kept.rounds] == pytest.approx([r.loss for r in live.rounds], rel=1e-2)


@pytest.mark.exhaustive
def test_lora_is_merged_from_its_best_epoch():
    one = made(replace(CELL, freeze="lora(r=2)", epochs=4, patience=1))
    assert one.status == "ok", one.reason
    assert one.accuracy_val == one.rounds[one.best_epoch - 1].accuracy_val


def test_test_images_neither_stop_nor_choose(monkeypatch, stopped):
    def load(*args, real=images_module.load_data, **options):
        data = real(*args, **options)
        return replace(data, test=replace(data.test, classes=np.full_like(data.test.classes, 7)))

    monkeypatch.setattr(images_module, "load_data", load)
    other = made(CELL)
    assert other.accuracy_test != stopped.accuracy_test
    assert other.best_epoch == stopped.best_epoch
    assert [(r.loss, r.loss_val) for r in other.rounds] == [(r.loss, r.loss_val) for r in stopped.rounds]


def test_a_replay_and_a_kept_model_go_through_the_same_epochs(tmp_path, stopped):
    on_disk = Store(tmp_path).append(stopped)
    read = Record.from_dict(stopped.to_dict())
    assert (read.best_epoch, read.cell) == (stopped.best_epoch, CELL)
    torch.rand(3)
    with few_digits():
        found = replay.replay(read)
        kept = fit(on_disk, tmp_path)
    assert (found.outcome, found.differences) == (replay.EQUAL, ())
    assert "best epoch" in replay.results(read)
    assert kept.held.outcome == replay.EQUAL


def test_a_replay_says_that_another_epoch_was_the_best(stopped):
    other = replace(stopped, best_epoch=stopped.best_epoch + 1)
    found = replay.held_against(stopped, other)
    assert found.outcome == replay.DIFFERENT
    assert [d.what for d in found.differences] == ["best epoch"]


def test_a_fold_stops_as_well():
    one = made(replace(CELL, fold="1of3", freeze="linear_probe", lr=1e-30, backbone_lr=None, patience=1))
    assert (one.status, len(one.rounds), one.best_epoch) == ("ok", 2, 1)


def test_epochs_that_were_run_are_all_that_is_timed():
    def clock(setup, target, rounds, seconds):
        for _ in range(rounds):
            setup()
            target()
            seconds.append(1.0)

    one = made(replace(STUCK, patience=2), clock=clock)
    (row,) = rows([one])
    assert [r.seconds for r in one.rounds] == [1.0] * 3
    assert (row.own_seconds, row.training_seconds, row.epochs_used, row.best_epoch) == (3.0, 3.0, 3, 1)


def test_an_error_keeps_the_epochs_before_it(monkeypatch):
    from tlbench.train.loop import Trainer

    def run_epoch(self, *order, real=Trainer.run_epoch):
        if self.epoch == 2 and len(self.plan) > 1:
            raise MemoryError("full")
        return real(self, *order)

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    one = made(CELL)
    assert (one.status, len(one.rounds), one.best_epoch) == ("oom", 2, None)


# --- clocks ---------------------------------------------------------------------------------------------------


def enough_after(rounds):
    calls = []

    def setup():
        calls.append(1)
        if len(calls) > rounds:
            raise EnoughRounds

    return setup


def test_clocks_keep_the_rounds_before_it_was_enough():
    seconds = []
    with pytest.raises(EnoughRounds):
        plain_clock(enough_after(2), lambda: None, 5, seconds)
    assert len(seconds) == 2


def test_pytest_benchmark_shows_a_cell_that_stopped_early(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "disabled", False)  # pytest-xdist turns it off
    seconds = []
    with pytest.raises(EnoughRounds):
        PedanticClock(benchmark)(enough_after(2), lambda: None, 5, seconds)
    assert (len(seconds), benchmark.has_error) == (2, False)


# --- where it means nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "ridge", "freeze": "linear_probe"}, "leave --patience out"),
        ({"dataset": "synthetic"}, "--patience chooses by validation accuracy, which synthetic"),
    ],
    ids=["fitted", "synthetic"],
)
def test_a_cell_without_epochs_or_accuracy_says_so(changes, words):
    one = made(replace(CELL, lr=None, backbone_lr=None, **changes))
    assert one.status == "not_applicable"
    assert words in one.reason


def test_a_duel_times_epochs_and_stops_at_none():
    assert checked(parse_side("patience=3")).cell.patience is None


@pytest.mark.parametrize("given", ["0", "-1", "x", "1.5", "", 0, True, 2.5])
def test_what_is_no_patience_is_refused_in_a_line(given):
    with pytest.raises(UserError, match=r"axis 'patience': .* is not a whole number from 1 to 1,000,000, or off"):
        parse_axis("patience", given)


# --- how it is asked for and told -----------------------------------------------------------------------------


def test_it_is_an_axis_everywhere(tmp_path):
    assert parse_axis("patience", "off,3") == (None, 3)
    path = tmp_path / "grid.toml"
    path.write_text('patience = ["off", 3]\n')
    grid = load_grid(path)
    assert [cell.patience for cell in grid.expand()] == [None, 3]
    assert [grid.id_of(cell).rpartition("s0-")[2] for cell in grid.expand()] == ["no-patience", "patience3"]
    assert options_of(None, {"patience": ["off", 3]}) == {"patience": ["off", 3]}
    assert options_of(None, {"patience": 3}) == {"patience": [3]}


def test_ids_tell_it_where_it_is_not_the_default():
    for patience, end in ((None, "-s0"), (4, "-s0-patience4")):
        grid = Grid(axes={"patience": (patience,)})
        assert grid.id_of(grid.expand()[0]).endswith(end)


def test_another_patience_is_another_cell_and_none_is_the_cell_that_was():
    assert len({Cell(patience=patience).key for patience in (None, 1, 2)}) == 3
    assert "patience" not in Cell().said


def told(**given):
    """A made-up configuration that stopped after three of ten epochs."""
    one = record(patience=2, best_epoch=1, **given)
    return replace(one, cell=replace(one.cell, epochs=10))


def test_a_verdict_says_how_many_epochs_it_took_and_what_was_chosen():
    (row,) = summarise(rows([told(), replace(told(seed=1), best_epoch=2)]))
    assert (row["epochs_used"], row["best_epoch"]) == (3.0, 1.5)
    assert row["variant"] == "patience=2"
    (scope,) = verdicts([row])
    text = "; ".join(verdict_words.evidence(scope.picks[0]))
    assert "of training, 3 of 10 epochs, number 1.5 of them kept in the mean" in text
    assert "which also chose its epoch and so flatters it" in text
    assert wording.scope_title(scope, [scope]).endswith("patience 2")


def test_without_it_there_is_no_column_of_it():
    (row,) = summarise(rows([record()]))
    assert (row["epochs_used"], row["best_epoch"]) == (None, None)
    assert verdict_words.stopped(row) == ""


def test_a_run_that_is_resumed_knows_it(tmp_path):
    grid = Grid(axes={"patience": (None, 3)})
    Store(tmp_path).describe(Plan(grids=(grid,), settings=Settings()))
    assert load_start(tmp_path).plan.grids[0].axes["patience"] == (None, 3)
    words = command([replace(told(), cell=replace(told().cell, patience=patience)) for patience in (None, 3)])
    assert "--patience off,3" in words
