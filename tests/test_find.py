"""`tlbench find` spends a budget on the cells that may be the best, and says what it did not allow."""

import csv
import io
import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import save_image
from images import with_images
from made_races import World
from made_races import seconds as usual
from processes import children, gone, start, wait_for
from records import record

import tlbench
from tlbench.analysis import raced
from tlbench.analysis.frame import rows
from tlbench.analysis.raced import contender
from tlbench.analysis.recommend import Limits, recommend
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.campaign import finding
from tlbench.campaign.budget import LATE_SECONDS, parse_budget
from tlbench.campaign.ending import is_there, shortcomings
from tlbench.campaign.entrants import BUNDLED, axes_of, top1
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.records.run_folder import Store, load
from tlbench.report.headline import sentences
from tlbench.report.race_words import lines
from tlbench.report.race_words import rung as rung_in_a_column


def test_timms_backbones_are_favoured_as_torchvisions_of_the_same_names():
    """They came last, whatever they are: a race had no look at them."""
    assert top1("timm:convnext_base.fb_in22k_ft_in1k") == top1("convnext_base") > 80
    assert top1("convnext_base@IMAGENET1K_V1") == top1("convnext_base")
    assert top1("timm:of_nobody") == top1("mynet") == 0


# --- races that nothing is measured in --------------------------------------------------------------------------


def test_what_may_be_the_best_gets_the_seeds_and_the_budget_holds(tmp_path):
    world = World(tmp_path / "run", budget=900).run()
    assert world.racing.is_over
    assert world.now <= world.racing.budget.for_measuring
    found = world.entrants
    assert len(found) == 8
    assert found["efficientnet_lite1 last_1 linear"].finalist
    assert found["efficientnet_lite0 linear_probe linear"].out == "excluded"
    assert found["efficientnet_lite0 linear_probe linear"].rung < found["efficientnet_lite1 last_1 linear"].rung
    assert world.state.ended
    first = [cell for cell, _, _ in world.asked[:8]]
    assert [cell.seed for cell in first] == [0] * 8, "each is looked at once, before any a second time"
    assert len({(cell.key) for cell, _, _ in world.asked}) == len(world.asked)


def test_the_verdict_is_between_those_that_went_to_the_end(tmp_path):
    world = World(tmp_path / "run", budget=900).run()
    (scope,) = verdicts(summarise(rows(load(world.store.folder).records)))
    assert {row["backbone"] for row in scope.candidates.rows} == {"efficientnet_lite1"}
    assert {row["freeze"] for row in scope.candidates.rows} == {"last_1"}
    assert scope.picks[0].standing == "tied"  # the two heads are alike here
    assert len(scope.stopped) == 6
    by_name = {row["race"] for row in scope.stopped}
    assert all(text.startswith("stopped at rung ") and text.endswith(": excluded by validation") for text in by_name)
    assert {row["race"] for row in scope.candidates.rows} == {f"rung {world.state.rungs} of {world.state.rungs}"}
    found = recommend(summarise(rows(load(world.store.folder).records)), Limits())
    assert found.pick["backbone"] == "efficientnet_lite1"
    assert [one.reasons[0].kind for one in found.excluded] == ["raced"] * 6
    said = " ".join(lines(scope.races))
    assert "of a budget of 15 min 0 s" in said
    assert "excluded by validation: " in said


def test_no_mean_is_over_seeds_of_another_rung(tmp_path):
    world = World(tmp_path / "run", budget=900).run()
    for row in summarise(rows(load(world.store.folder).records)):
        assert row["race"].partition(" of ")[0].endswith(f"rung {row['seeds']}")


def test_the_best_backbone_is_looked_at_before_all_cheaper_cells(tmp_path):
    """A quarter of an hour went into smaller ones, and left nothing for that which was best."""

    def slow(cell):
        return {"linear_probe": 10.0, "last_1": 20.0}[cell.freeze] * {"0": 1.0, "1": 1.5, "2": 4.0}[cell.backbone[-1]]

    axes = {"backbone": tuple(f"efficientnet_lite{n}" for n in range(3))}
    world = World(tmp_path / "run", budget=300, axes=axes, seconds=slow, accuracy=lambda cell: 0.7).run()
    looks = [(cell.backbone, cell.freeze) for cell, _, _ in world.asked]
    assert looks[0] == ("efficientnet_lite0", "linear_probe")
    assert ("efficientnet_lite2", "last_1") in looks[:4]


@pytest.mark.parametrize(("budget", "when"), [(900, 2), (150, None)])
def test_more_of_the_best_backbone_is_trained_before_all_smaller_ones_are_looked_at(budget, when, tmp_path):
    """The rest of a quarter of an hour went into what was 4 points behind."""

    def slow(cell):
        return {"linear_probe": 10.0, "last_1": 20.0, "last_2": 40.0}[cell.freeze] * (1 + int(cell.backbone[-1]))

    axes = {
        "backbone": tuple(f"efficientnet_lite{n}" for n in range(3)), "freeze": ("linear_probe", "last_1", "last_2"),
    }  # fmt: skip
    larger = {"axes": axes, "seconds": slow, "accuracy": lambda cell: 0.7 + int(cell.backbone[-1]) / 50}
    world = World(tmp_path / "run", budget=budget, **larger)
    world.racing.begin_with("efficientnet_lite2 last_1 linear")
    world.run()
    looks = [(cell.backbone[-1], cell.freeze, cell.head) for cell, _, _ in world.asked]
    assert looks[0] == ("2", "last_1", "linear")
    deeper = [n for n, look in enumerate(looks, start=1) if look[:2] == ("2", "last_2")]
    if when is None:
        assert looks[1][1] == "linear_probe"
    else:
        assert deeper[0] == when
        assert looks[when - 1][2] == "linear", "as it was with last_1"
        assert looks[when][1:2] == ("linear_probe",), "once is enough"


def test_what_the_budget_does_not_allow_is_said(tmp_path, command):
    world = World(tmp_path / "run", budget=60).run()
    unseen = world.state.unseen
    assert unseen
    assert all(one.rung == 0 for one in unseen)
    status, out, _ = command("summary", world.store.folder)
    assert status == 0
    assert f"The budget did not allow a look at {len(unseen)} cell" in out.replace("\n", " ")
    assert "nobody says that they are worse" in out.replace("\n", " ")


def test_what_was_measured_after_a_race_may_be_picked(tmp_path, command):
    """`tlbench run --resume` measures what a race had no time for; it was called stopped, whatever came of it."""
    world = World(tmp_path / "run", budget=60).run()
    name = "efficientnet_lite1 last_1 linear"
    assert name in {one.name for one in world.state.unseen}
    (cell,) = world.racing.cells[name]
    given = {field: getattr(cell, field) for field in vars(cell)}
    made = with_images(record(seconds=(4.0,) * 3, accuracies=(0.98,) * 3, **given), 400)
    world.store.append(replace(made, cell=cell))
    records = load(world.store.folder).records
    (scope,) = verdicts(summarise(rows(records)))
    assert (scope.picks[0].row["backbone"], scope.picks[0].row["freeze"]) == ("efficientnet_lite1", "last_1")
    (race,) = scope.races
    assert len(race.unseen) == len(world.state.unseen) - 1
    assert race.spent_seconds == world.state.spent_seconds
    out = " ".join(command("summary", world.store.folder)[1].split())
    assert f"The budget did not allow a look at {len(race.unseen)} cell" in out
    rung = f"rung 0 of {world.state.rungs} and 1 seed after it"
    assert {row["race"] for row in scope.rows if row["accuracy_val"] == 0.98} == {rung}
    assert rung_in_a_column({"race": rung}) == f"0/{world.state.rungs} +1"


@pytest.mark.parametrize(("budget", "first"), [(60, True), (900, False)])
def test_two_ways_to_go_on_are_put_in_order(budget, first, tmp_path, command):
    """A race with cells that nobody looked at ended with two commands, and no word on which comes first."""
    world = World(tmp_path / "run", budget=budget, accuracy=lambda cell: 0.7).run()
    assert bool(world.state.unseen) == first
    _, out, _ = command("summary", world.store.folder)
    said = " ".join(out.split())
    words = f"may decide what is not; tlbench report {world.store.folder} latest then takes them together:"
    assert words.replace(" ", "") in said.replace(" ", ""), "a long path is broken"
    assert ("First let the race go on, as above. This may decide" in said) == first


def test_what_came_out_higher_and_was_not_continued_is_named(tmp_path, command):
    """`Use last_1` was all that was said, beside a row of last_2 that was better in every column."""

    def slow(cell):
        return 50.0 if cell.freeze == "last_1" else 4.0

    axes = {"backbone": ("efficientnet_lite0",), "head": ("linear",)}
    world = World(tmp_path / "run", budget=100, axes=axes, seconds=slow)
    world.accuracy = lambda cell: 0.83 if cell.freeze == "linear_probe" else 0.85
    world.run()
    found = world.entrants
    assert found["efficientnet_lite0 last_1 linear"].rung == 1
    assert not found["efficientnet_lite0 last_1 linear"].finalist
    (scope,) = verdicts(summarise(rows(load(world.store.folder).records)))
    said = " ".join(sentences(scope))
    assert scope.picks[0].row["freeze"] == "linear_probe"
    assert (
        "came out higher here (85.0 % against 83.0 % of the validation images) on 1 seed, which may be luck: " in said
    )


@pytest.mark.parametrize(
    ("other", "begin", "more"),
    [
        (0.83, "Only one cell was measured to the end of the race: ", "had no room for as many seeds of "),
        (0.85, "Only one cell was measured to the end of the race: ", "came out higher here"),
        (
            0.20,
            "Use efficientnet_lite0 with linear_probe (it trains the head alone) and a linear head, the only one ",
            "",
        ),
    ],
)
def test_one_that_is_left_of_several_is_not_called_the_only_one_trained(other, begin, more, tmp_path):
    """`Only one cell was trained, so that there is nothing to choose` stood above a table of two."""

    def slow(cell):
        return 50.0 if cell.freeze == "last_1" else 4.0

    axes = {"backbone": ("efficientnet_lite0",), "head": ("linear",), "freeze": ("linear_probe", "last_1")}
    world = World(tmp_path / "run", budget=100, axes=axes, seconds=slow)
    world.accuracy = lambda cell: 0.83 if cell.freeze == "linear_probe" else other
    world.run()
    (scope,) = verdicts(summarise(rows(load(world.store.folder).records)))
    first, *rest = sentences(scope)
    assert first.startswith(begin)
    assert more in " ".join(rest)
    assert bool(more) == ("last_1" in " ".join(rest))
    state = raced.read(world.store.folder)
    raced.write(world.store.folder, replace(state, ended=False))
    (scope,) = verdicts(summarise(rows(load(world.store.folder).records)))
    assert sentences(scope)[0].startswith("The race has not ended; efficientnet_lite0 with linear_probe")


def test_a_report_puts_many_cells_together(tmp_path):
    """Sixteen names and times were one paragraph that nobody reads."""
    policies = ("last_1", "last_2", "lora(r=4, alpha=8)")
    names = [
        f"{backbone} {policy} {head}"
        for backbone in ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
        for policy in policies
        for head in ("linear 160px", "mlp 160px")
    ]
    cells = [
        raced.Entrant(name=name, key=name, expected_seconds=20.0 * (n + 1), rung=int(n < 3), finalist=n < 3)
        for n, name in enumerate(names)
    ]
    race = raced.Raced(budget_seconds=60, spent_seconds=50, entrants=tuple(reversed(cells[3:])), ended=True)
    unseen = [line for line in lines([replace(race, entrants=tuple(cells))], every=True) if "a look at" in line]
    assert unseen == [
        "The budget did not allow a look at 15 cells: efficientnet_lite0 last_2 mlp 160px (about a minute); "
        "efficientnet_lite0 × lora(r=4, alpha=8) × linear 160px, mlp 160px (about 2 minutes each); "
        "efficientnet_lite1, efficientnet_lite2 × last_1, last_2, lora(r=4, alpha=8) × linear 160px, mlp 160px (about "
        "2 to 6 minutes each); nobody says that they are worse. tlbench find --resume RUN --budget 2m goes on with "
        "a larger budget."
    ]
    (short,) = [line for line in lines([race]) if "a look at" in line]
    assert "efficientnet_lite0 last_2 mlp 160px (about a minute), " in short
    assert " and 12 more; nobody" in short
    fallen = replace(race, entrants=tuple(replace(one, out="excluded", rung=1) for one in cells[6:]))
    assert lines([fallen], every=True)[1] == (
        "Stopped at rung 1 of 1, excluded by validation: efficientnet_lite1, efficientnet_lite2 × last_1, last_2, "
        "lora(r=4, alpha=8) × linear 160px, mlp 160px."
    )


def test_a_measurement_that_takes_far_too_long_is_ended_and_takes_nothing_from_the_others(tmp_path):
    def endless(cell):
        return 10_000.0 if cell.seed == 1 else usual(cell)

    world = World(tmp_path / "run", budget=300, seconds=endless).run()
    assert world.now <= 300 + LATE_SECONDS
    records = load(world.store.folder).records
    assert [one.status for one in records].count("stopped") == 1
    assert records[-1].status == "stopped"
    table = summarise(rows(records))
    assert {row["status"] for row in table} == {"ok"}
    assert {row["seeds"] for row in table} == {1}
    assert verdicts(table)[0].picks[0].row["backbone"] == "efficientnet_lite1"


def test_one_that_is_ended_at_its_first_seed_is_a_row_with_the_reason(tmp_path):
    world = World(tmp_path / "run", budget=400, seconds=lambda cell: 10.0 if cell.freeze != "last_1" else 1e5).run()
    stopped = [row for row in summarise(rows(load(world.store.folder).records)) if row["status"] == "stopped"]
    assert len(stopped) == 1
    assert stopped[0]["reason"] == "the budget ended"


def test_the_first_measurement_is_tried_where_it_may_fit(tmp_path):
    """What earlier runs told may be of a machine that was busy then."""
    tried, refused = (World(tmp_path / name, budget=100) for name in ("tried", "refused"))
    for world, seconds in ((tried, 150.0), (refused, 300.0)):
        world.racing._expecting.of_another_seed = lambda name, cells, expected=seconds: expected
        world.run(1)
    assert len(tried.asked) == 1
    assert not refused.asked
    with pytest.raises(UserError, match=r"spent before anything is measured: .*; give --budget 11m or more"):
        refused.racing.check_affordable()


def test_a_race_that_is_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 4)
    whole = World(tmp_path / "whole", budget=5000).run()
    expected = {cell.key for cell, _, _ in whole.asked}
    assert max(one.rung for one in whole.state.entrants) == 4
    for stops in (1, 7, 13):
        folder = tmp_path / f"stopped after {stops}"
        first = World(folder, budget=5000).run(stops)
        assert not first.state.ended
        again = World(folder, 5000, earlier=load(folder).records, before=first.state.spent_seconds).run()
        asked = [cell.key for cell, _, _ in [*first.asked, *again.asked]]
        assert len(asked) == len(set(asked))
        assert set(asked) == expected
        assert {n: (e.rung, e.out) for n, e in again.entrants.items()} == {
            n: (e.rung, e.out) for n, e in whole.entrants.items()
        }
        assert again.state.spent_seconds == pytest.approx(whole.state.spent_seconds)


def test_a_larger_budget_goes_on(tmp_path):
    first = World(tmp_path / "run", budget=60).run()
    assert first.state.unseen
    spent = first.state.spent_seconds
    again = World(tmp_path / "run", 900, earlier=load(first.store.folder).records, before=spent).run()
    assert not again.state.unseen
    assert again.now < 900 - spent
    assert again.state.spent_seconds == pytest.approx(again.now + spent)


def test_all_folds_of_a_seed_are_one_measurement(tmp_path):
    folds = ("1of3", "2of3", "3of3")
    world = World(tmp_path / "run", budget=2000, axes={"fold": folds, "backbone": ("efficientnet_lite0",)}).run()
    taken = [(contender(cell), cell.seed, cell.fold) for cell, _, _ in world.asked]
    for place in range(0, len(taken), 3):
        assert len({one[:2] for one in taken[place : place + 3]}) == 1
        assert {one[2] for one in taken[place : place + 3]} == set(folds)
    assert len(world.entrants) == 4
    images, _ = world.racing.race.scores["efficientnet_lite0 last_1 linear"][0]
    assert len(images) == 3 * 400


def test_a_seed_that_lacks_folds_is_in_no_mean(tmp_path):
    def endless(cell):
        return 1e5 if (cell.seed, cell.fold) == (1, "2of3") else usual(cell)

    folds = ("1of3", "2of3", "3of3")
    axes = {"fold": folds, "backbone": ("efficientnet_lite0",), "freeze": ("linear_probe",)}
    world = World(tmp_path / "run", budget=400, axes=axes, seconds=endless).run()
    records = load(world.store.folder).records
    assert (records[-1].status, records[-2].cell.seed, records[-2].status) == ("stopped", 1, "ok")
    table = summarise(rows(records))
    assert {(row["status"], row["seeds"], row["records"]) for row in table} == {("ok", 1, 3)}


def test_folds_of_a_first_seed_that_the_budget_ended_are_no_candidate(tmp_path):
    def endless(cell):
        return 1e5 if cell.fold == "3of3" else usual(cell)

    folds = ("1of3", "2of3", "3of3")
    axes = {"fold": folds, "backbone": ("efficientnet_lite0",), "freeze": ("linear_probe",), "head": ("linear",)}
    world = World(tmp_path / "run", budget=400, axes=axes, seconds=endless).run()
    records = load(world.store.folder).records
    assert [one.status for one in records] == ["ok", "ok", "stopped"]
    table = summarise(rows(records))
    assert {row["status"] for row in table} == {"stopped"}
    assert verdicts(table)[0].picks[0].row is None


def test_a_latency_that_the_user_has_interrupted_is_nothing_against_a_cell(tmp_path):
    world = World(
        tmp_path / "run", budget=400, axes={"task": ("train", "infer")}, seconds=lambda cell: 5.0, max_latency_ms=20.0
    )
    before = world.measured

    def measured(task):
        made, took = before(task)
        return (replace(made, status="interrupted") if made.cell.task == "infer" else made), took

    world.measured = measured
    world.run(most=1)
    assert {one.out for one in world.state.entrants} == {""}


def test_what_is_too_slow_is_out_with_its_latency(tmp_path):
    def slow(cell):
        return {"efficientnet_lite0": 5.0, "efficientnet_lite1": 40.0}[cell.backbone] if cell.task == "infer" else 5.0

    world = World(
        tmp_path / "run", budget=400, axes={"task": ("train", "infer")}, seconds=slow, max_latency_ms=20.0
    ).run()
    out = {name: one for name, one in world.entrants.items() if one.out == "slow"}
    assert {name.split()[0] for name in out} == {"efficientnet_lite1"}
    assert len(out) == 4
    assert {one.reason for one in out.values()} == {"p95 of 40.0 ms, the limit is 20.0 ms"}
    assert not [cell for cell, _, _ in world.asked if cell.task == "train" and cell.backbone == "efficientnet_lite1"]
    assert "Not raced, its latency is above --max-latency-ms: " in " ".join(lines([world.state]))


def test_a_race_in_which_all_is_too_slow_has_measured_nothing(tmp_path):
    """It ended with status 0 and no word, since latencies had been measured."""
    world = World(
        tmp_path / "run", budget=400, axes={"task": ("train", "infer")}, seconds=lambda cell: 40.0, max_latency_ms=20.0
    ).run()
    assert {one.out for one in world.state.entrants} == {"slow"}
    ended = SimpleNamespace(store=world.store, current=world.campaign.current, failed_twins=list)
    assert not is_there(ended)
    (line,) = shortcomings(ended)
    assert line == (
        "No cell was trained: 8 of 8 cells would be too slow, such as efficientnet_lite0 linear_probe linear (p95 of "
        "40.0 ms, the limit is 20.0 ms); allow more with --max-latency-ms, or name smaller backbones"
    )


def test_what_is_kept_back_is_for_the_model_that_the_verdict_names(tmp_path):
    """Time was kept back for the best by a hair, and a cheaper one that cannot be told from it is what is kept."""

    def accuracy(cell):
        return 0.9 + 0.0025 * (cell.freeze == "last_1")

    axes = {"backbone": ("efficientnet_lite0",), "head": ("linear",)}
    world = World(tmp_path / "run", budget=300, axes=axes, accuracy=accuracy, keep="best").run()
    assert world.racing.race.pick() == "efficientnet_lite0 last_1 linear"
    assert world.racing._named_by_the_verdict() == "efficientnet_lite0 linear_probe linear"
    assert set(world.racing.race.near()) == {world.racing.race.pick(), world.racing._named_by_the_verdict()}


def test_a_failed_cell_is_out_and_the_others_go_on(tmp_path):
    world = World(tmp_path / "run", budget=500)
    before = world.measured

    def measured(task):
        if task.step.cell.head == "mlp":
            return replace(before(task)[0], status="failed", reason="no such kernel", per_image=None), 1.0
        return before(task)

    world.measured = measured
    world.run()
    assert {one.out for one in world.state.entrants if one.name.endswith("mlp")} == {"failed"}
    assert {one.reason for one in world.state.entrants if one.out == "failed"} == {"failed: no such kernel"}
    assert any(one.finalist for one in world.state.entrants if one.name.endswith("linear"))


def test_the_time_of_the_fit_is_kept_back(tmp_path):
    plain, kept = (World(tmp_path / name, budget=200, keep=keep).run() for name, keep in (("a", None), ("b", "best")))
    assert kept.racing.budget.kept_back > 0
    assert kept.now <= 200 - kept.racing.budget.kept_back
    assert kept.now < plain.now
    assert kept.racing.why_not_kept() == ""
    kept.now = 209.0  # a twentieth later than it may be
    assert "for which the budget has no room" in kept.racing.why_not_kept()


def test_a_model_that_is_kept_already_takes_no_time(tmp_path, monkeypatch):
    """A race that was resumed with nothing left ended with status 1, though its model lay there."""
    world = World(tmp_path / "run", budget=200, keep="best").run()
    world.now = 209.0
    assert world.racing.why_not_kept()
    monkeypatch.setattr("tlbench.campaign.fitting.is_kept", lambda record, run: run == world.store.folder)
    assert world.racing.why_not_kept() == ""
    assert dict(finding.words_of(world.racing))["budget"].endswith(finding.NOTHING_LEFT)
    world.now = 100.0
    assert ": it ends by " in dict(finding.words_of(world.racing))["budget"]


# --- what enters ------------------------------------------------------------------------------------------------


def test_what_enters_by_itself_is_at_hand():
    axes = axes_of({}, with_latency=False)
    assert axes["backbone"] == BUNDLED  # nothing is in the caches of a test
    assert axes["task"] == ("train",)
    assert axes["weights"] == ("pretrained",)
    assert axes_of({"freeze": ("full",)}, with_latency=True)["task"] == ("train", "infer")
    assert axes_of({"freeze": ("full",)}, with_latency=True)["freeze"] == ("full",)


def test_cached_weights_enter_as_well(tmp_path, monkeypatch):
    from tlbench.backbones.known import BACKBONES

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / BACKBONES["resnet18"].file).write_bytes(b"")
    assert axes_of({}, with_latency=False)["backbone"] == (*BUNDLED, "resnet18")


# --- bad input --------------------------------------------------------------------------------------------------

TINY = {
    "--dataset": "digits", "--weights": "pretrained", "--backbone": "efficientnet_lite0", "--image-size": "32",
    "--train-size": "200", "--epochs": "6", "--batch-size": "32", "--layout": "contiguous",
    "--freeze": "linear_probe,last_1", "--head": "linear", "--isolate": "none",
}  # fmt: skip


def options(**changes):
    given = {**TINY, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    return [part for name, value in given.items() if value is not None for part in (name, value)]


BAD = {
    "no budget": ({}, "a race needs a budget: say how long it may take, such as --budget 20m"),
    "no time": ({"budget": "2x"}, "--budget '2x' is not a time such as 90s, 20m or 2h"),
    "nothing": ({"budget": "0"}, "--budget '0' is not a time such as 90s, 20m or 2h"),
    "negative": ({"budget": "-5m"}, "--budget '-5m' is not a time such as 90s, 20m or 2h"),
    "too little": ({"budget": "1s"}, "is spent before anything is measured"),
    "no latency": ({"budget": "5m", "max_latency_ms": "0"}, "--max-latency-ms 0 is not a time above 0"),
    "two data sets": ({"budget": "5m", "dataset": "digits,synthetic"}, "--dataset: a race is between cells of one"),
    "two sizes": ({"budget": "5m", "train_size": "50,60"}, "--train-size: a race is between cells of one train size"),
    "two splits": ({"budget": "5m", "split_seed": "0,1"}, "--split-seed: a race is between cells of one split seed"),
    "two folds": ({"budget": "5m", "folds": "5,10"}, "--folds: a race is between cells that are measured in as many"),
    "two checkpoints": ({"budget": "5m", "weights": "a.pth,b.pth"}, "--weights: of checkpoints a race takes one"),
    "more than a year": ({"budget": "9000h"}, "--budget '9000h' is not a time such as 90s, 20m or 2h: that is more"),
    "an endless latency": ({"budget": "5m", "max_latency_ms": "inf"}, "--max-latency-ms inf is not a time above 0"),
    "seeds": ({"budget": "5m", "seeds": "0-2"}, "--seeds: a race chooses its seeds; leave it away, or measure a grid"),
    "twins": ({"budget": "5m", "twins": "1"}, "--twins: a race measures no cell twice; leave it away"),
    "a grid": ({"budget": "5m", "grid": "g.toml"}, "--grid: name what enters by --backbone, --freeze, --head; leave"),
    "again": ({"budget": "5m", "rerun": "noisy"}, "--rerun: a race chooses what to measure; leave it away"),
    "nothing to keep": ({"budget": "5m", "keep": "worst"}, "unknown choice for --keep 'worst'"),
    "a name": ({"budget": "5m", "backbone": "resnt18"}, "did you mean 'resnet18'?"),
    "no run": ({"resume": "none", **dict.fromkeys(("dataset", "weights"))}, "cannot read run 'none'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(kind, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding, "seconds_since_start", lambda: 100.0 if kind == "too little" else 0.0)
    given, expected = BAD[kind]
    status, out, err = command("find", *options(**given))
    assert status == 2
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_no_race_does_not_go_on_as_one(command, tmp_path):
    Store(tmp_path / "run").append(record())
    status, _, err = command("find", "--resume", tmp_path / "run")
    assert status == 2
    assert "is the run of no race: tlbench run --resume" in err


def test_what_a_race_chooses_itself_is_refused_in_python():
    for name in ("task", "seeds", "blocks", "twins", "grid", "rerun"):
        with pytest.raises(UserError, match=f"`{name}`"):
            tlbench.find(dataset="digits", budget="5m", **{name: "1"})
    with pytest.raises(UserError, match="`max_latency_ms` '20' is not a time above 0, in milliseconds"):
        tlbench.find(dataset="digits", budget="5m", max_latency_ms="20")


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("20m", 1200), ("2h", 7200), ("1.5 min", 90), (45, 45)])
def test_budgets(text, expected):
    assert parse_budget(text) == expected


# --- races that are run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def race(tmp_path_factory):
    """A finished race, from Python, with its model."""
    folder = tmp_path_factory.mktemp("race") / "run"
    given = {name[2:].replace("-", "_"): value for name, value in TINY.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlbench.analysis.race.MOST_SEEDS", 2)
        return tlbench.find(budget=600, keep="best", out=folder, **given)


def test_a_race_is_a_run_like_any_other(race, command, tmp_path):
    state = raced.read(race.folder)
    assert state.ended
    assert state.spent_seconds < 600
    assert len(race.records) == sum(one.rung for one in state.entrants) == 4
    assert {one.status for one in race.records} == {"ok"}
    assert "of a budget of 10 min 0 s" in str(race.verdict).replace("\n", " ")
    path = race.report(tmp_path / "report")
    page = path.read_text()
    assert "of a budget of 10 min 0 s" in page
    assert ">race<" in page.lower()
    assert "rung " in (tmp_path / "report" / "report.csv").read_text()
    status, out, err = command("summary", race.folder)
    assert (status, err) == (0, "")
    assert "rung" in out
    assert command("status", race.folder)[0] == 0
    labels = [line.split()[0] for line in (race.folder / "preflight.txt").read_text().splitlines()]
    assert "cells" in labels
    assert "time" not in labels, "what all cells would take, which a race does not"


def test_the_model_that_is_kept_is_that_of_the_pick(race, command):
    assert race.model == race.folder / "model"
    (scope,) = verdicts(summarise(rows(race.records)))
    card = json.loads((race.model / "card.json").read_text())
    picks = [item.record.key for item in (scope.cheapest_tie or scope.picks[0]).row["group"]]
    assert card["key"] in picks
    assert len(tlbench.load_model(race.model).classes) == 10


def test_a_race_that_is_done_goes_on_with_nothing(race, command, monkeypatch):
    monkeypatch.setattr(finding, "seconds_since_start", lambda: 0.0)
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 2)
    before = (race.folder / "records.jsonl").read_bytes()
    status, out, _ = command("find", "--resume", race.folder, "--budget", "20m")
    assert status == 0, out
    assert raced.read(race.folder).budget_seconds == 1200
    assert (race.folder / "records.jsonl").read_bytes() == before
    assert f"Model: {race.folder / 'model'} (it was there)" in out
    assert f"To use it: tlbench predict {race.folder / 'model'} PHOTOGRAPHS" in out


def test_a_run_keeps_its_best_as_well_and_that_it_cannot_costs_nothing_else(command, tmp_path, monkeypatch):
    from tlbench.campaign import fitting

    def fails(*_):
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", fails)
        given = options(freeze="linear_probe")
        status, out, err = command("run", *given, "--keep", "best", "--out", tmp_path / "run")
    assert status == 1
    assert "the model is not kept: RuntimeError: no room" in err
    assert "Report: " in out
    assert (tmp_path / "run" / "report.html").exists()
    status, out, _ = command("run", "--resume", tmp_path / "run", "--keep", "best")
    assert status == 0, out
    assert re.search(rf"Model: {re.escape(str(tmp_path / 'run' / 'model'))} \(\w+, \w+, \w+\)", out), "of which cell"
    assert f"To use it: tlbench predict {tmp_path / 'run' / 'model'} PHOTOGRAPHS" in out
    status, _, err = command("predict", tmp_path / "run", "x.jpg")
    assert status == 2
    assert f"did you mean '{tmp_path / 'run' / 'model'}'?" in err
    assert tlbench.Run(tmp_path / "run").model == (tmp_path / "run" / "model").absolute()


@pytest.fixture
def few(tmp_path):
    """A folder of 24 photographs of two classes, too few to test on, so that they are put into folds."""
    for label, color in (("dark", 20), ("light", 120)):
        for n in range(12):
            save_image(tmp_path / "photos" / label / f"{n}.jpg", color, seed=100 * color + n)
    return tmp_path / "photos"


def test_few_photographs_are_raced_in_folds(few, command, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "seconds_since_start", lambda: 0.0)
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 1)
    given = options(dataset=None, train_size=None, freeze="linear_probe", head="linear,mlp", budget="5m")
    status, out, err = command("find", few, *given, "--out", tmp_path / "run")
    assert status == 0, out + err
    assert "each in 5 folds" in err
    records = load(tmp_path / "run").records
    assert {one.cell.fold for one in records} == {f"{n}of5" for n in range(1, 6)}
    assert raced.read(tmp_path / "run").rungs >= 1
    assert "The race took" in out


def test_the_model_of_a_race_in_folds_predicts(few, command, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "seconds_since_start", lambda: 0.0)
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 1)
    for n in range(12, 24):  # so few as `few` has say of no cell that it has learned anything
        save_image(few / "dark" / f"{n}.jpg", 20, seed=2000 + n)
        save_image(few / "light" / f"{n}.jpg", 120, seed=12000 + n)
    given = options(dataset=None, train_size=None, freeze="linear_probe", head="ridge", folds="3", budget="5m")
    status, out, err = command("find", few, *given, "--keep", "best", "--out", tmp_path / "run")
    assert status == 0, out + err
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert card["measured"]["samples"] == {"train": 48}
    assert card["measured"]["out_of_fold"]["folds"] == 3
    names = [str(few / "dark" / "0.jpg"), str(few / "light" / "0.jpg"), str(few / "light" / "1.jpg")]
    status, out, err = command("predict", tmp_path / "run" / "model", *names)
    assert status == 0, err
    found = list(csv.DictReader(io.StringIO(out)))
    assert [one["file"] for one in found] == names
    assert [one["class"] for one in found] == ["dark", "light", "light"]
    assert all(0.5 <= float(one["probability"]) <= 1 for one in found)


def test_a_race_that_is_killed_goes_on(few, command, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "seconds_since_start", lambda: 0.0)
    given = options(dataset=None, train_size=None, folds="off", budget="10m", out=str(tmp_path / "run"))
    process = start("find", few, *given, cwd=tmp_path, log=tmp_path / "log")
    wait_for(lambda: _count(tmp_path / "run") >= 3, process)
    own = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(own)
    there = load(tmp_path / "run").records
    monkeypatch.setattr("tlbench.analysis.race.MOST_SEEDS", 4)
    spent = raced.read(tmp_path / "run").spent_seconds
    assert spent > 0
    status, out, _ = command("find", "--resume", tmp_path / "run")
    assert status == 0, out
    records = load(tmp_path / "run").records
    assert records[: len(there)] == there
    keys = [one.cell.key for one in records]
    assert len(keys) == len(set(keys))
    state = raced.read(tmp_path / "run")
    assert state.ended
    assert state.spent_seconds > spent
    assert all(one.rung >= 4 or one.out for one in state.entrants)


def _count(folder: Path) -> int:
    try:
        return len((folder / "records.jsonl").read_bytes().splitlines())
    except OSError:
        return 0


def test_a_cell_without_its_seed_and_place_is_the_same_one():
    one = Cell(dataset="folder:a", seed=3, fold="1of5", weights="pretrained")
    assert contender(one) == contender(Cell(dataset="folder:b", weights="pretrained"))
    assert contender(one) != contender(replace(one, epochs=7))
