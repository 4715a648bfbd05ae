"""A plan: what cells will cost, from profiles that are made and from made-up ones; what fits; what corrects both."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from records import record

import tlbench
from tlbench.analysis import costing, footprint
from tlbench.analysis.costing import Counts, parts_of
from tlbench.analysis.expectation import START_OVER_IMPORTS, START_SECONDS, Expectation, interval, together
from tlbench.analysis.shrinkage import Effects, Spreads
from tlbench.campaign import foretelling, mapping
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.foretelling import largest_batches
from tlbench.campaign.outlook import outlook
from tlbench.cli.table import app
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import profiles as profiles_file
from tlbench.machine.profiles import (
    Line,
    PhaseCost,
    Profile,
    Stage,
    Trained,
    head_mode,
    keep_profile,
    policy_name,
    read_profiles,
)
from tlbench.machine.times import place
from tlbench.measure.stage_times import Watched, saved_bytes
from tlbench.train.loop import plan_epochs

MB = 10**6
COUNTS = Counts(train=100, val=20, test=30)


def stage(name, each=0.01, output=1000, parameters=1000):
    line = Line(0.001, each)
    return Stage(name=name, parameters=parameters, output_bytes=output, forward=line, filling=line)


def trained(each=0.02, saved=MB):
    return Trained(forward=Line(0.002, each), backward=Line(0.004, 2 * each), saved=Line(0.0, saved))


def phase(cut, modes, name="all", share=1.0, trainable=3000):
    return PhaseCost(
        name=name, share=share, cut=cut, modes=modes, trainable=trainable, optimizer_seconds=0.003,
        workspace=Line(5 * MB, MB / 2),
    )  # fmt: skip


PROBE = phase(3, (), "linear_probe", trainable=0)
LAST = phase(2, ("stage2 x",), "last_1", trainable=1000)
ALL = phase(0, ("stem a", "stage1 a", "stage2 a"), "full")


def profile(**given):
    """The profile of a made-up backbone of three stages."""
    plain = {
        "key": costing.profile_key(Cell(image_size=64)), "place": "here", "backbone": "resnet18", "size": 64,
        "stages": (stage("stem"), stage("stage1", 0.03), stage("stage2", 0.05)), "worth": (2, 3), "chunk": 50,
        "pixels": Line(0.0, 0.0001), "step": Line(0.0005, 0.0), "gather_seconds": 1e-9, "single_seconds": 0.1,
        "forward_bytes": Line(2 * MB, MB), "build_seconds": 0.5, "weights_bytes": 12_000, "process_bytes": 300 * MB,
        "data_bytes": 200 * MB, "grown_bytes": 50 * MB,
        "heads": {"linear": Stage(name="head", parameters=500, output_bytes=40, forward=Line(0.0001), filling=Line())},
        "modes": {
            "stem a": trained(0.01), "stage1 a": trained(0.03), "stage2 a": trained(0.05), "stage2 x": trained(0.04),
            head_mode("linear", False): trained(0.0001, 100), head_mode("linear", True): trained(0.0002, 100),
        },
        "policies": {
            "linear_probe": (PROBE,), "last_1": (LAST,), "full": (ALL,),
            policy_name("lp_ft", 4, 2): (replace(PROBE, share=0.5), replace(ALL, share=0.5)),
        },
    }  # fmt: skip
    return Profile(**{**plain, **given})


def cell(freeze="full", **given):
    return Cell(**{"freeze": freeze, "image_size": 64, "epochs": 4, "batch_size": 25, "train_size": 100, **given})


# --- arithmetic -----------------------------------------------------------------------------------------------


def test_a_line_goes_through_both_points_and_never_below_nothing():
    assert Line.through({4: 10.0, 16: 22.0}) == Line(6.0, 1.0)
    assert Line.through({4: 10.0, 16: 80.0}) == Line(0.0, 5.0), "no launch costs less than nothing"
    assert Line.through({4: 10.0, 16: 9.0}) == Line(9.0, 0.0), "an image more gives nothing back"
    assert Line.through({8: 16.0}).of(4) == 8.0
    assert Line(1.0, 2.0).of(10, 3) == 23.0


def test_an_epoch_is_the_sum_of_its_stages():
    parts = parts_of(profile(), cell(), COUNTS, Settings())
    by_stage = sum(0.002 * 4 + each * 100 + 0.004 * 4 + 2 * each * 100 for each in (0.01, 0.03, 0.05, 0.0002))
    assert parts.epochs == (pytest.approx(by_stage + 0.0001 * 100 + 0.0005 * 4 + 0.003 * 4),) * 4
    assert parts.fill == 0
    forward = 0.001 * 3 + 0.0001
    evaluated = [math.ceil(n / 25) * forward + n * (0.09 + 0.0001) for n in (20, 20, 20, 20, 30)]
    assert parts.evaluation == pytest.approx(sum(evaluated))
    assert parts.timed == pytest.approx(sum(parts.epochs) + parts.evaluation)


def test_what_trains_less_costs_the_stages_from_the_cut_alone():
    whole, last, probe = (
        parts_of(profile(), cell(name), COUNTS, Settings()) for name in ("full", "last_1", "linear_probe")
    )
    assert last.epochs[0] == pytest.approx(
        sum(0.002 * 4 + each * 100 + 0.004 * 4 + 2 * each * 100 for each in (0.04, 0.0002))
        + 0.0005 * 4 + 0.003 * 4 + 1e-9 * 100 * 1000
    )  # fmt: skip
    assert probe.epochs[0] < last.epochs[0] < whole.epochs[0]
    assert probe.own < last.own < whole.own, "so does warming up"


def test_frozen_layers_run_once_over_all_images_unless_they_are_not_kept():
    made = profile()
    kept = parts_of(made, cell("linear_probe"), COUNTS, Settings())
    assert kept.fill == pytest.approx(0.0001 * 150 + 0.09 * 150 + 3 * 0.003 + 1e-9 * 150 * 1000)
    also = parts_of(made, cell("last_1"), COUNTS, Settings(), ("linear_probe", "last_1"))
    assert also.fill > parts_of(made, cell("last_1"), COUNTS, Settings()).fill, "the pass serves the probe as well"
    live = parts_of(made, cell("linear_probe"), COUNTS, Settings(prefix="off"))
    assert live.fill == 0
    assert live.epochs[0] > kept.epochs[0] + 0.09 * 100
    not_worth = parts_of(profile(worth=(3,)), cell("last_1"), COUNTS, Settings())
    assert not_worth.fill == 0


@pytest.mark.parametrize("part", ["epochs", "evaluation"])
def test_seconds_are_linear_in_images(part):
    seconds = []
    for factor in (1, 2, 3):
        counts = Counts(train=100 * factor, val=50 * factor, test=50 * factor)
        found = getattr(parts_of(profile(), cell(), counts, Settings()), part)
        seconds.append(found if part == "evaluation" else sum(found))
    assert seconds[2] - seconds[1] == pytest.approx(seconds[1] - seconds[0])


@pytest.mark.parametrize("epochs", [2, 3, 4, 7])
def test_a_policy_of_several_phases_has_the_epochs_that_training_gives_them(epochs):
    shares = [0.3, 0.2, 0.5][: min(epochs, 3)]
    phases = [phase(0, (), f"p{n}", share) for n, share in enumerate(shares)]
    assert [p.name for p in costing.plan_of(phases, epochs)] == [p.name for p in plan_epochs(phases, epochs)]


def test_phases_with_other_cuts_have_other_epochs():
    parts = parts_of(profile(), cell("lp_ft"), COUNTS, Settings())
    assert parts.epochs[0] == parts.epochs[1] < parts.epochs[2] == parts.epochs[3]
    assert parts.fill > 0, "the first phase takes what is kept"
    assert not costing.covers(profile(), cell("lp_ft", epochs=6)), "phases go by the epochs"


def test_a_search_for_rates_trains_once_for_each():
    plain, searched = (parts_of(profile(), cell(lr=lr), COUNTS, Settings()) for lr in (None, "auto"))
    assert searched.tries > 5 * sum(plain.epochs)
    assert searched.epochs == plain.epochs


def test_memory_is_linear_in_the_batch_and_adds_up_over_stages():
    made = profile()
    bytes_of = [footprint.peak_bytes(made, cell(batch_size=size)) for size in (10, 20, 30)]
    assert bytes_of[2] - bytes_of[1] == pytest.approx(bytes_of[1] - bytes_of[0])
    assert bytes_of[1] - bytes_of[0] == pytest.approx(10 * (3 * MB + 100 + MB / 2))
    kept = footprint.by_stage(made, cell(batch_size=10))
    assert list(kept) == ["stem", "stage1", "stage2", "head"]
    assert sum(kept.values()) == pytest.approx(10 * (3 * MB + 100))
    more = footprint.peak_bytes(made, cell(batch_size=10), images_bytes=7, kept_bytes=5)
    assert more == pytest.approx(bytes_of[0] + 12)
    states = footprint.peak_bytes(made, cell()) - footprint.peak_bytes(made, cell(optimizer="sgd"))
    assert states == 4 * (3000 + 500), "AdamW keeps one number more for each parameter"


def test_the_largest_batch_is_the_prediction_turned_round():
    made = profile()
    sizes = [footprint.largest_batch(made, cell(name), 10**9) for name in ("full", "last_1", "linear_probe")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1]
    by_limit = [footprint.largest_batch(made, cell(), limit * MB) for limit in (250, 500, 700, 1000, 4000)]
    assert by_limit == sorted(by_limit)
    assert by_limit[0] == 0
    limit = 10**9
    largest = footprint.largest_batch(made, cell(), limit)
    used = footprint.peak_bytes(made, cell(batch_size=largest)) - made.process_bytes + 50 * MB + 12_000
    mapped = 200 * MB + footprint.PAD_BYTES + footprint.MAPPED * used
    assert limit - 5 * MB < mapped <= limit
    assert footprint.largest_batch(made, cell(), 10**9, fixed_bytes=10**8) < largest
    assert footprint.largest_batch(made, cell(), 10**15) == 65_536


def test_what_such_cells_have_mapped_decides_on_a_processor():
    known = profile(mapped={"full, linear, adamw": Line(700 * MB, 4 * MB)})
    limit = 700 * MB + footprint.PAD_BYTES + 40 * MB
    assert footprint.largest_batch(known, cell(), limit) == 10
    assert footprint.largest_batch(known, cell(), limit, fixed_bytes=20 * MB) == 5
    assert footprint.largest_batch(known, cell(), limit - 36 * MB) == 0, "BatchNorm takes two images"
    for other in (cell("last_1"), cell(optimizer="sgd"), cell(device="cuda")):
        assert footprint.largest_batch(known, other, limit) == footprint.largest_batch(profile(), other, limit)


def test_only_what_says_more_than_the_profile_is_mapped(monkeypatch):
    monkeypatch.setattr(mapping, "free_bytes", lambda: 10**11)
    wide = profile(mapped={}, modes={**profile().modes, "stem a": trained(0.01, 100 * MB)})
    assert mapping.images_to_measure(wide, cell(), 10**11) == mapping.MOST_IMAGES[True]
    assert 8 <= mapping.images_to_measure(wide, cell(), 3 * 10**9) < mapping.MOST_IMAGES[True], "as many as will fit"
    assert mapping.images_to_measure(wide, cell(), 10**9) == 0, "too few to tell what one more takes"
    assert mapping.images_to_measure(replace(wide, size=224), cell(), 10**11) == mapping.MOST_IMAGES[False]
    assert mapping.images_to_measure(wide, cell("linear_probe"), 10**11) == 0, "frozen stages have batches of their own"
    assert mapping.images_to_measure(wide, cell("last_1"), 10**11) == 0
    assert mapping.images_to_measure(wide, cell(task="infer"), 10**11) == 0
    monkeypatch.setattr(mapping, "free_bytes", lambda: 2 * 10**9)
    assert mapping.images_to_measure(wide, cell(), 10**11) == 0, "this machine cannot"


@settings(deadline=None)
@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e7))
def test_no_image_maps_less_than_it_uses(little, much, least):
    """Two batches that take no more than what came before them told of a batch without end."""
    line = mapping._line({24: little, 96: much}, least)
    assert line.each >= least
    assert line.of(96) == pytest.approx(much, rel=1e-6, abs=1)


def test_a_card_has_room_for_more_than_the_processor_with_its_libraries():
    made = profile()
    card = footprint.largest_batch(made, cell(device="cuda"), footprint.room_on_card(8 * 10**9))
    assert 0 < footprint.room_on_card(8 * 10**9) < 8 * 10**9
    assert card > 0
    assert footprint.room_on_card(10**8) == 0


# --- what is kept ---------------------------------------------------------------------------------------------


def test_a_profile_is_kept_and_damaged_lines_are_passed_over(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    made = profile(refused={"norm": "no such layers"})
    keep_profile(made)
    keep_profile(replace(made, key="other", single_seconds=math.nan))
    keep_profile(replace(made, place="elsewhere"))
    with (tmp_path / profiles_file.NAME).open("a") as file:
        line = json.loads((tmp_path / profiles_file.NAME).read_text().splitlines()[0])
        file.write("{torn\n3\n")
        file.write(json.dumps({**line, "key": "b", "stages": 3}) + "\n")
        file.write(json.dumps({**line, "key": "c", "version": 0}) + "\n")
    assert read_profiles("here") == {made.key: made}


def test_a_later_pass_adds_to_a_profile():
    more = profile(policies={"norm": (ALL,)}, heads={}, modes={"new": trained()})
    joined = profile().extended(more)
    assert set(joined.policies) == {*profile().policies, "norm"}
    assert joined.heads == profile().heads
    assert "new" in joined.modes


# --- what corrects it -----------------------------------------------------------------------------------------


def expectation(made=None, **given):
    made = made or profile()
    counts = {("digits", 100): (100, 20, 30)}
    return Expectation(settings=Settings(isolate="backbone"), profiles={made.key: made}, splits=counts, **given)


def measured(one, factor, seen):
    """The record of a cell that takes so many times as long as planned."""
    parts = parts_of(profile(), one, COUNTS, seen.settings)
    rounds = [factor * seconds for seconds in parts.epochs]
    made = record(
        seconds=rounds, accuracies=[0.5] * len(rounds), samples={"train": 100, "val": 20, "test": 30}, **vars(one)
    )
    given = {"test_seconds": factor * parts.evaluation, "peak_memory_bytes": None}
    whole = factor * parts.timed + parts.own
    prefix = {}
    if parts.fill:
        prefix = {"boundaries": [3], "seconds": factor * parts.fill, "shared": False}
        whole += factor * parts.fill
    return replace(made, **given, prefix=prefix, wall_seconds=whole)


def test_the_prefix_is_charged_once():
    (first, second, other) = expectation().foresee(
        [(cell("linear_probe"), 0), (cell("linear_probe", seed=1), 0), (cell("full"), 0)]
    )
    assert first.fill > 0 == second.fill == other.fill
    assert first.own > second.own, "and so is the start of a process"
    assert first.by == "profile"
    assert first.epoch == pytest.approx(second.epoch)


STEPS = st.tuples(
    st.sampled_from(["linear_probe", "last_1", "full"]), st.integers(0, 2), st.sampled_from(["random", "pretrained"]),
    st.integers(0, 1),
)  # fmt: skip


@given(steps=st.lists(STEPS, min_size=1, max_size=12), isolate=st.sampled_from(["none", "backbone", "cell"]))
def test_cells_that_are_told_alike_are_told_as_each_by_itself(steps, isolate):
    """Among the others, and as the last of those before it, whose sums know nothing of what was told before."""
    seen = replace(expectation(), settings=Settings(isolate=isolate))
    cells = [(cell(freeze, seed=seed, weights=weights), block) for freeze, seed, weights, block in steps]
    found = seen.foresee(cells)
    sums = [0.0] + [seen.total(cells[: n + 1]) for n in range(len(cells))]
    assert [one.seconds for one in found] == pytest.approx([b - a for a, b in itertools.pairwise(sums)])
    assert [(one.cell, one.block) for one in found] == cells


def test_of_many_seeds_one_is_thought_of(monkeypatch):
    """A grid of 50,000 seeds, which is checked in ten seconds, said for half a minute how long it would take."""
    seen, thought = expectation(), []
    told = Expectation._foreseen
    monkeypatch.setattr(Expectation, "_foreseen", lambda *given: thought.append(1) or told(*given))
    assert len(seen.foresee((cell("full", seed=seed), 0) for seed in range(1000))) == 1000
    assert len(thought) <= 3


def test_only_backbones_that_were_timed_here_are_expected_by_what_they_took():
    """A network of a user's own was to take "about 22 minutes, by what cells took before", and took 12 seconds."""
    seen = Expectation(settings=Settings())
    assert not seen.has_met(cell())
    seen.learn(replace(record(seconds=(1.0,) * 4, accuracies=(0.5,) * 4, **vars(cell())), wall_seconds=5.0))
    assert seen.has_met(cell("linear_probe"))
    assert not seen.has_met(cell(backbone="mynet"))
    assert not seen.has_met(cell(device="cuda"))


def test_a_process_starts_as_slowly_as_it_imports_here():
    """On every machine it was 5 s, which one needs and another has done in two."""
    steps = [(cell("linear_probe"), 0), (cell("linear_probe", seed=1), 0)]
    starts = []
    for told in (None, 1.0, 2.0):
        made = profile(start_seconds=told)
        first, second = expectation(made).foresee(steps)
        starts.append(first.own - second.own)
        assert profiles_file.profile_of(json.loads(json.dumps(asdict(made)))) == made
    assert starts == pytest.approx([START_SECONDS, START_OVER_IMPORTS, 2 * START_OVER_IMPORTS])
    earlier = {name: value for name, value in asdict(profile()).items() if name != "start_seconds"}
    assert profiles_file.profile_of(earlier) == profile()
    for wrong in (-1.0, float("inf"), "soon"):
        with pytest.raises(ValueError, match=r"no number|could not convert"):
            profiles_file.profile_of({**asdict(profile()), "start_seconds": wrong})


def test_what_is_measured_corrects_the_rest_of_the_plan():
    seen = expectation()
    before = seen.foresee([(cell("full"), 0), (cell("last_1"), 0)])
    seen.learn(measured(cell("full"), 1.5, seen))
    again, other = seen.foresee([(cell("full", seed=1), 0), (cell("last_1"), 0)])
    assert again.timed == pytest.approx(1.5 * before[0].timed, rel=0.15)
    assert before[1].timed < other.timed < 1.5 * before[1].timed, "another policy, not wholly"
    assert again.spread < before[0].spread
    assert again.spread < other.spread


def test_a_finished_cell_corrects_memory():
    seen = expectation()
    (before,) = seen.foresee([(cell("full"), 0)])
    seen.learn(replace(measured(cell("full"), 1, seen), peak_memory_bytes=int(1.2 * before.memory_bytes)))
    (after,) = seen.foresee([(cell("full", seed=1), 0)])
    assert 1.1 < after.memory_bytes / before.memory_bytes < 1.25
    assert after.memory_spread < before.memory_spread


def test_intervals_of_many_cells_are_narrower_than_of_one():
    found = expectation().foresee([(cell("full", seed=seed), 0) for seed in range(30)])
    seconds, spread = together(found)
    assert seconds == pytest.approx(sum(one.seconds for one in found))
    assert spread < found[0].spread
    low, high = interval(seconds, spread)
    assert low < seconds < high


# --- drawn towards what is usual ------------------------------------------------------------------------------

SPREADS = Spreads(mean=0.5, backbone=0.3, policy=0.3, pair=0.1, noise=0.1, odd={"linear_probe": 2.0})


def test_one_cell_of_an_odd_kind_says_little_of_others():
    odd = Effects([("a", "linear_probe", 2.0)], SPREADS)
    plain = Effects([("a", "full", 2.0)], SPREADS)
    assert odd.log(("a", "last_1")) < 0.25 < 1.0 < plain.log(("a", "last_1"))
    assert odd.log(("a", "linear_probe")) == pytest.approx(2.0, abs=0.1)


def test_backbones_and_policies_are_told_apart():
    truth = {name: random.Random(name).gauss(0, 0.4) for name in "abcdefgh"}
    told = [(b, p, 0.3 + truth[b] + truth[p]) for b in "abcd" for p in "efgh" if (b, p) != ("d", "h")]
    made = Effects(told, SPREADS)
    assert made.log(("d", "h")) == pytest.approx(0.3 + truth["d"] + truth["h"], abs=0.1)
    assert made.spread(("d", "h")) < made.spread(("new", "new"))
    assert not Effects([], SPREADS)
    assert Effects([], SPREADS, lambda kind: 1.5).log(("a", "full")) == 1.5


def unknown_machine():
    """What is expected on a machine of which only a rough speed is known."""
    splits = {("digits", None): (600, 100, 100)}
    return Expectation(settings=Settings(isolate="backbone"), speeds={"cpu": 1e11}, splits=splits)


def first_run(seed, backbones=4, seeds=3):
    """Cells of a first run, in order, with the seconds that each takes: the rule is off for a machine, by backbone and
    by policy, and far off for a probe, which takes milliseconds.
    """
    rng = random.Random(seed)
    names = ["efficientnet_lite0", "efficientnet_lite1", "resnet18", "mobilenet_v3_small", "resnet34"][:backbones]
    policies = ["linear_probe", "last_1", "norm", "full"]
    speed = math.exp(rng.gauss(0, 0.5))
    off = {name: math.exp(rng.gauss(0, 0.3)) for name in [*names, *policies, "fill"]}
    off["linear_probe"] *= 8
    rule = unknown_machine()
    cells = [
        Cell(backbone=name, freeze=freeze, seed=one, image_size=160, epochs=3)
        for name in names for freeze in policies for one in range(seeds)
    ]  # fmt: skip
    made = []
    for one in cells:
        parts = rule._by_rule(one)
        timed = speed * parts["timed"] * off[one.backbone] * off[one.freeze] * math.exp(rng.gauss(0, 0.05))
        fill = speed * parts["fill"] * off[one.backbone] * off["fill"] if rule._shares(one) else 0.0
        filled = (one.freeze, one.seed) != ("linear_probe", 0)
        prefix = {"boundaries": [1], "seconds": fill, "shared": filled} if fill else {}
        found = record(
            seconds=[timed / 3] * 3, accuracies=[0.5] * 3, samples={"train": 600, "val": 100, "test": 100},
            prefix=prefix, **vars(one),
        )  # fmt: skip
        own = 1.0 + (5.0 if not filled else 0.0)
        made.append(replace(found, wall_seconds=timed + (0.0 if filled else fill) + own))
    return made


@pytest.mark.parametrize("seed", range(8))
def test_the_time_left_of_a_first_run_does_not_jump(seed):
    """It was 23 minutes, then 2.4 hours after the first cell, then 3 minutes."""
    made = first_run(seed)
    seen = unknown_machine()
    steps = [(one.cell, 0) for one in made]
    errors = []
    for done in range(len(made) - 4):
        left = sum(one.wall_seconds for one in made[done:])
        errors.append(math.log(seen.total(steps[done:]) / left))
        seen.learn(made[done])
    assert max(map(abs, errors)) < math.log(4), "never far off"
    assert fmean(map(abs, errors[len(errors) // 2 :])) < math.log(1.5)
    jumps = [abs(after - before) for before, after in itertools.pairwise(errors)]
    assert max(jumps) < math.log(2.5)


# --- a real profile -------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    return tmp_path


PLANNED = {
    "dataset": "digits", "backbone": "squeezenet1_1", "image_size": 32, "train_size": 20, "epochs": 1,
    "layout": "contiguous", "weights": "random",
}  # fmt: skip


def test_a_grid_is_planned_from_one_pass_that_is_kept(own_cache, capfd):
    given = {
        "dataset": "digits", "backbone": "mobilenet_v3_small", "freeze": ["linear_probe", "full", "lp_ft"],
        "image_size": 32, "train_size": 64, "epochs": 2, "seeds": [0, 1], "layout": "contiguous", "weights": "random",
    }  # fmt: skip
    frame = tlbench.plan(**given)
    assert list(frame["fits"]) == ["yes"] * 6
    assert list(frame["by"]) == ["profile"] * 6
    assert (frame["total_seconds_low"] < frame["total_seconds"]).all()
    assert (frame["total_seconds"] < frame["total_seconds_high"]).all()
    by_policy = frame[frame["seed"] == 0].set_index("freeze")
    assert by_policy["epoch_seconds"]["linear_probe"] < by_policy["epoch_seconds"]["full"]
    assert by_policy["peak_memory_bytes"]["full"] > by_policy["peak_memory_bytes"]["linear_probe"]
    assert frame.attrs["seconds"] == pytest.approx(frame["total_seconds"].sum())
    assert "profile of mobilenet_v3_small" in capfd.readouterr().err
    again = tlbench.plan(**given)
    assert "profile of" not in capfd.readouterr().err, "it is kept"
    assert again["epoch_seconds"].tolist() == pytest.approx(frame["epoch_seconds"].tolist())
    assert set(tlbench.plan(**given, memory_limit="500MB")["fits"]) == {"no"}


def test_a_profile_has_nothing_to_do_with_when_a_training_stops(own_cache):
    """Random images have no accuracy to stop by, and what a profile refuses it keeps."""
    early = tlbench.plan(**PLANNED, freeze="last_1", patience=3)
    assert set(early["by"]) == {"profile"}
    assert set(tlbench.plan(**PLANNED, freeze="last_1")["by"]) == {"profile"}


def test_a_campaign_takes_the_profiles_that_are_kept_of_this_machine(own_cache):
    asked = parse_asked({
        "dataset": "digits", "backbone": "resnet18", "weights": "random", "image_size": 64, "freeze": "full",
        "train_size": 100, "batch_size": 25, "epochs": 4, "seeds": "0-1", "task": "train", "device": "cpu",
    })  # fmt: skip
    before = begin(asked)
    cell = before.planned[0].cell
    assert not before.times.by_profile(cell)
    assert "profiles" not in dict(outlook(before))["time"]
    keep_profile(profile(place=place("cpu", None), key=costing.profile_key(cell)))
    campaign = begin(asked)
    assert campaign.times.by_profile(cell)
    assert "by this machine's profiles of the backbones" in dict(outlook(campaign))["time"]


def test_what_a_run_took_corrects_a_profile_that_is_made_afterwards(own_cache, monkeypatch):
    asked = parse_asked({
        "dataset": "digits", "backbone": "resnet18", "weights": "random", "image_size": 64, "freeze": "full",
        "train_size": 100, "batch_size": 25, "epochs": 4, "seeds": "0-1", "task": "train", "device": "cpu",
    })  # fmt: skip
    made = profile(place=place("cpu", None), key=costing.profile_key(begin(asked).planned[0].cell))
    monkeypatch.setattr(foretelling, "profiles_for", lambda *given, **named: ({made.key: made}, {}))
    for asked_before in (True, False):
        campaign = begin(asked)
        cell = campaign.planned[0].cell
        campaign.earlier = [record((200.0,) * 4, (0.5,) * 4, wall_seconds=900.0, **vars(cell))]
        if asked_before:
            assert campaign.times.tells(cell)
        (row,) = foretelling.foretell(campaign).rows
        assert row.foreseen.by == "profile"
        assert row.foreseen.seconds == pytest.approx(900, rel=0.3), "the profile alone has 1,511 s"


def test_what_follows_several_plus_signs_is_looked_up():
    spreads = Spreads(mean=0, backbone=0, policy=0.1, pair=0, noise=0, odd={"+auto": 0.3, "+patience": 0.8})
    assert [spreads.of_policy(name) for name in ("full", "full+auto", "full+bn=freeze+auto+patience")] == [
        0.1,
        0.3,
        0.8,
    ]


def test_a_policy_that_means_nothing_is_a_row_with_the_reason(own_cache):
    frame = tlbench.plan(**PLANNED, freeze=["norm", "linear_probe"])
    rows = frame.set_index("freeze")
    assert "norm" in rows["note"]["norm"]
    assert math.isnan(rows["total_seconds"]["norm"])
    assert rows["total_seconds"]["linear_probe"] > 0
    assert frame.attrs["seconds"] > 0


def test_stages_are_watched_in_training_steps():
    model = torch.nn.Sequential()
    for name in ("one", "two", "head"):
        model.add_module(name, torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()))
    x = torch.rand(16, 8)

    def work(mark=lambda part: None):
        loss = model(x).sum()
        mark("forward")
        loss.backward()
        mark("backward")

    times, parts = Watched(model).step(work)
    assert set(times.forward) == set(times.backward) == {"one", "two", "head"}
    assert 0 < times.seconds <= parts["forward"] + parts["backward"]
    kept = saved_bytes(model, work)
    assert kept == {"one": 2 * 16 * 8 * 4, "two": 16 * 8 * 4, "head": 16 * 8 * 4}, "an output counts once"


def test_larger_cards_take_larger_batches(own_cache):
    cells = [
        Cell(backbone="mobilenet_v3_small", freeze=name, image_size=32, dataset="synthetic", device="cuda")
        for name in ("linear_probe", "full")
    ]
    found = largest_batches(cells, [10**9, 2 * 10**9, 8 * 10**9], Settings())
    for fit in found:
        counts = list(fit.batches.values())
        assert counts == sorted(counts)
        assert counts[-1] > 0
    assert found[0].batches[10**9] > found[1].batches[10**9]


# --- the commands ---------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_when_it_ends(own_cache, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    words = "--backbone mobilenet_v3_small --freeze linear_probe --image-size 32 --train-size 20 --epochs 1"
    common = ["--dataset", "digits", *words.split(), "--layout", "contiguous", "--weights", "random", "--task", "train"]
    status, out, _ = command("plan", *common)
    assert status == 0
    assert "mobilenet_v3_small linear_probe linear" in " ".join(out.split())
    monkeypatch.setenv("COLUMNS", "60")
    assert "mobilenet_v3_small" in command("plan", *common)[1], "on a narrow terminal names are whole as well"
    assert "it ends at about" in out
    assert "it ends at about" in command("run", *common, "--dry-run", "--cost")[1]
    counted = " ".join(out.split())
    assert (
        "not counted: cells that are measured once more to see the noise (a twentieth of the time at most)" in counted
    )
    told = " ".join(command("plan", *common, "--detail", "on", "--corrupt", "blur", "--twins", "0")[1].split())
    seen = "passes that see where a step's time goes (--detail)"
    assert f"not counted: corrupted test images (--corrupt), {seen}" in told
    assert "(--twins)" not in told
    csv = command("plan", *common, "--format", "csv")[1].splitlines()
    assert csv[0].startswith("id,block,task,backbone")
    assert len(csv) == 2
    one = ["fits", "mobilenet_v3_small", "--memory", "8GB", "--freeze", "linear_probe", "--image-size", "32"]
    assert "unverified" in command(*one)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fits", "resnet18", "--memory", "much"], "'much' is not a size such as"),
        (["fits", "resnet18", "--memory", "3"], "less than a model takes"),
        (["fits", "resnet18", "--memory", ","], "name at least one size"),
        (["fits", "resnet81", "--memory", "8GB"], "resnet18"),
        (["fits", "resnet18", "--memory", "8GB", "--freeze", "fulll"], "full"),
        (["fits", "resnet18", "--memory", "8GB", "--head", "logreg"], "has no batch"),
        (["fits", "resnet18", "--memory", "8GB", "--device", "tpu"], "take cuda"),
        (["fits", "resnet18", "--memory", "8GB", "--device", "cpux"], "--device cpux: take cuda"),
        (["fits", "resnet18", "--memory", "8GB", "--device", "cuda:x"], "--device cuda:x: take cuda"),
        (["fits", "resnet18", "--memory", "8GB", "--freeze", "full,full"], "has the value 'full' twice"),
        (["fits", "resnet18", "--memory", "8GB", "--image-size", "9000"], "axis 'image-size': '9000' is not a whole"),
        (["fits", "resnet18", "--memory", "8GB", "--precision", "fp32,bf16"], "give one"),
        (["plan", "--format", "pdf"], "table, csv"),
        (["plan", "--backbone", "resnet81"], "resnet18"),
        (["run", "--cost"], "--dry-run"),
    ],
)
def test_bad_input_is_one_line(words, said, command):
    status, _, err = command(*words)
    assert (status, len(err.strip().splitlines())) == (2, 1)
    assert said in err


def test_from_python_options_are_keywords():
    with pytest.raises(UserError, match="resnet18"):
        tlbench.plan(backbone="resnet81")
    with pytest.raises(UserError, match="keyword"):
        tlbench.plan(backbonne="resnet18")


def test_commands_are_listed():
    assert {"plan", "fits"} <= {one.name for one in app.registered_commands}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_table_that_cannot_be_written_is_no_success(own_cache):
    words = "--backbone mobilenet_v3_small --freeze linear_probe --image-size 32 --train-size 20 --epochs 1"
    common = ["--dataset", "digits", *words.split(), "--layout", "contiguous", "--weights", "random"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tlbench", "plan", *common, "--format", "csv"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
