"""The first minute of a run, and each one after it: what will be measured, a line a cell, the time that is left."""

import io
import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from records import RANDOM, failure, record
from rich.console import Console

from tlbench.analysis.expectation import Expectation, timed_seconds
from tlbench.backbones import outlook as weights_outlook
from tlbench.backbones.network import UNREACHABLE
from tlbench.backbones.outlook import in_words, prospect
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.memory import expectation, keep_times
from tlbench.campaign.outlook import _splits as splits_in_words
from tlbench.campaign.outlook import outlook
from tlbench.campaign.seen import Seen
from tlbench.campaign.steps import Step
from tlbench.data.scan import split_of
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.grid.values import about, clock_time
from tlbench.machine import history
from tlbench.machine import times as times_file
from tlbench.progress import RunProgress, print_outlook
from tlbench.progress.race import RaceProgress
from tlbench.progress.words import Names, finished, repeated
from tlbench.records.run_folder import load


def took(seconds=(1.0,), **given):
    """A record of epochs of these seconds."""
    return record(seconds=seconds, accuracies=[0.8] * len(seconds), **given)


# --- how long cells take --------------------------------------------------------------------------------------

NOT_TIMED = 0.5


def whole(made):
    """The record with the seconds that its cell would have taken on a clock."""
    fill = 0.0 if made.prefix.get("shared") else float(made.prefix.get("seconds") or 0.0)
    return replace(made, wall_seconds=timed_seconds(made) + fill + NOT_TIMED)


REAL = {
    "efficientnet_lite0": {"linear_probe": 0.08, "last_1": 2.6, "norm": 12.3, "full": 23.9, "infer": 5.5, "fill": 2.6},
    "resnet18": {"linear_probe": 0.07, "last_1": 13.4, "norm": 17.9, "full": 30.2, "infer": 6.9, "fill": 4.7},
    "mobilenet_v3_small": {"linear_probe": 0.09, "last_1": 4.2, "norm": 6.8, "full": 10.9, "infer": 2.8, "fill": 0.8},
}
"""Seconds of the cells of the quick grid, as a machine of two cores measured them."""
SAMPLES = {"train": 600, "val": 272, "test": 278}


def ran():
    """A run of several backbones, policies and heads, whose inference comes last."""
    made = []
    for backbone, seconds in REAL.items():
        for policy in ("linear_probe", "last_1", "norm", "full"):
            for head in ("linear", "mlp"):
                prefix = {
                    "boundaries": [1],
                    "seconds": seconds["fill"],
                    "shared": (policy, head) != ("linear_probe", "linear"),
                }
                given = {"backbone": backbone, "freeze": policy, "head": head, "image_size": 64, "train_size": 600}
                kept = prefix if policy in ("linear_probe", "last_1") else {}
                made.append(took([seconds[policy] / 3] * 3, prefix=kept, samples=SAMPLES, **given))
    for backbone, seconds in REAL.items():
        for head in ("linear", "mlp"):
            given = {"task": "infer", "backbone": backbone, "head": head, "image_size": 64, "train_size": 600}
            made.append(
                record(seconds=[0.1] * 10, latency=[(seconds["infer"] - 1) / 300] * 300, samples=SAMPLES, **given)
            )
    return [whole(one) for one in made]


def steps_of(records):
    return [Step(cell=r.cell, name=r.id, block=r.block, role=r.role) for r in records]


def times(**given):
    return Expectation(settings=Settings(isolate="backbone"), **given)


def test_the_time_left_comes_nearer_the_truth_than_the_mean_of_what_is_finished():
    """That is far off where the cells that are left are other ones: cheap ones, or of another backbone."""
    made, seen = ran(), times(speeds={"cpu": 1e11})
    steps = [(r.cell, r.block) for r in made]
    misses, misses_of_mean = [], []
    for position, one in enumerate(made[:-1], 1):
        seen.learn(one)
        if position >= len(made) / 4:
            truth = sum(r.wall_seconds for r in made[position:])
            mean = sum(r.wall_seconds for r in made[:position]) / position * (len(made) - position)
            misses.append(abs(math.log(seen.total(steps[position:]) / truth)))
            misses_of_mean.append(abs(math.log(mean / truth)))
    assert max(misses) < math.log(2) < max(misses_of_mean)
    assert fmean(misses) < fmean(misses_of_mean) / 1.5


@pytest.mark.parametrize("long", [30, 300])
def test_inference_after_long_training_is_not_expected_to_take_as_long(long):
    trained = [whole(took(seconds=(long, long), freeze="full", seed=seed)) for seed in (0, 1, 2)]
    told = [whole(took(task="infer", seconds=[0.1] * 10, latency=[0.01] * 300))]
    seen = times()
    for one in [*trained, *told]:
        seen.learn(one)
    other = replace(told[0].cell, head="mlp")
    assert seen.seconds(other) == pytest.approx(told[0].wall_seconds, rel=0.3)


def test_one_slow_cell_of_another_kind_does_not_overrule_what_earlier_runs_told():
    """It is most of what the first cell of a run tells: a probe's libraries and first calls, not a whole training."""
    made, before = ran(), times()
    for one in made:
        before.learn(one)
    known = times(earlier=before.learned)
    steps = [(r.cell, r.block) for r in made[1:]]
    expected = known.total(steps)
    slow = replace(made[0], rounds=tuple(replace(r, seconds=8 * r.seconds) for r in made[0].rounds))
    known.learn(replace(slow, wall_seconds=8 * slow.wall_seconds))
    assert expected / 3 < known.total(steps) < 3 * expected


@pytest.mark.parametrize(
    ("axis", "value", "factor"), [("epochs", 6, 2.0), ("image_size", 448, 4.0), ("seed", 9, 1.0), ("head", "mlp", 1.0)]
)
def test_a_cell_that_differs_in_one_axis_takes_as_many_times_as_long(axis, value, factor):
    seen, cell = times(), Cell(freeze="full", epochs=3, image_size=224)
    seen.learn(whole(took(seconds=(20, 20, 20), **vars(cell))))
    seen.learn(whole(took(seconds=(20, 20, 20), **{**vars(cell), "seed": 1})))
    assert seen.seconds(replace(cell, **{axis: value})) == pytest.approx(60 * factor, rel=0.1)


def test_frozen_layers_are_computed_once_and_charged_to_the_first_who_takes_them():
    seen = times()
    prefix = {"boundaries": [5], "seconds": 40.0, "shared": False}
    first = whole(took(seconds=(0.1,), prefix=prefix, image_size=224))
    seen.learn(first)
    seen.learn(whole(took(seconds=(0.1,), prefix={**prefix, "shared": True}, image_size=224, seed=1)))
    assert seen.seconds(replace(first.cell, seed=2)) < 2, "it takes what is there"
    other = [replace(first.cell, backbone="resnet34", seed=seed) for seed in (0, 1, 2)]
    seconds = [seen.total([(cell, 0) for cell in other[:count]]) for count in (1, 2, 3)]
    assert seconds[0] > 40, "twice the operations, to be computed anew"
    assert seconds[2] - seconds[1] < 2


@pytest.mark.parametrize("kind", ["nothing", "a rule", "another device"])
def test_without_any_cell_there_is_a_rule_of_thumb_or_no_answer(kind):
    made = times(speeds={"cpu": 1e11} if kind == "a rule" else {})
    if kind == "another device":
        made.learn(whole(took()))
    cell = Cell(device="cuda" if kind == "another device" else "cpu")
    assert (made.seconds(cell) is not None) == (kind == "a rule")


def test_what_cells_took_is_known_to_the_next_run(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    settings, made = Settings(isolate="backbone"), ran()
    first = expectation(settings, ["cpu"], {}, [])
    assert not first.knows("cpu")
    for one in made:
        first.learn(one)
    keep_times(first)
    (tmp_path / times_file.NAME).open("a").write('{"torn\n{"place": 3}\n')
    again = expectation(settings, ["cpu"], {}, [])
    assert again.knows("cpu")
    assert again.total((r.cell, 0) for r in made) == pytest.approx(sum(r.wall_seconds for r in made), rel=0.3)
    assert not expectation(replace(settings, threads=7), ["cpu"], {}, []).knows("cpu"), "other threads, other times"


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "file"))
    made = expectation(Settings(), ["cpu"], {}, [])
    made.learn(whole(took()))
    keep_times(made)


@pytest.mark.parametrize(
    ("seconds", "words", "clock"),
    [
        (2, "5 seconds", "0:02"),
        (33, "35 seconds", "0:33"),
        (70, "a minute", "1:10"),
        (151, "3 minutes", "2:31"),
        (3751, "63 minutes", "1:02:31"),
        (9000, "2.5 hours", "2:30:00"),
        (400_000, "5 days", "111:06:40"),
    ],
)
def test_times_in_words(seconds, words, clock):
    assert (about(seconds), clock_time(seconds)) == (words, clock)


# --- the time that is left, and a line for each cell ----------------------------------------------------------


@pytest.fixture
def follow():
    """``follow(steps, times=…) -> (progress, clock, text)``, on a clock of its own."""

    def make(steps, known=None, terminal=False):
        clock, file = SimpleNamespace(now=1000.0), io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=80, highlight=False, color_system=None)
        progress = RunProgress(steps, known or times(speeds={"cpu": 1e11}), console, lambda: clock.now)
        return progress, clock, file.getvalue

    return make


def test_the_time_left_moves_within_a_cell(follow):
    made = [whole(took(seconds=(50, 50), freeze="full", seed=seed)) for seed in range(4)]
    known = times()
    progress, clock, _ = follow(steps_of(made), known)
    known.learn(made[0])
    progress.start(steps_of(made)[1])
    left = []
    for _ in range(5):
        left.append(progress.left())
        clock.now += 10
    assert [round(a - b, 6) for a, b in itertools.pairwise(left)] == [10.0] * 4
    clock.now += 1000  # longer than anybody would have thought
    assert progress.left() > 50
    assert "resnet18 full linear seed 1, 17:30" in progress.words()


def test_that_a_cell_begins_adds_nothing_to_the_time_left(follow):
    """A process starts, and the frozen layers are computed, once: with the first of the cells that need them."""
    steps = steps_of([took(seed=seed, prefix={"boundaries": [1], "seconds": 9.0}) for seed in range(4)])
    progress, _, _ = follow(steps)
    before = progress.left()
    progress.start(steps[0])
    assert progress.left() == pytest.approx(before)


def test_a_rule_that_is_too_short_for_this_cell_is_too_short_for_the_others(follow):
    steps = steps_of([record(freeze="full", seed=seed, image_size=64) for seed in range(11)])
    progress, clock, _ = follow(steps)
    progress.start(steps[0])
    expected = progress.left()
    clock.now += 20 * expected
    assert progress.left() > 100 * expected / 11
    assert "roughly" in progress.words()


def test_steps_that_are_left_are_not_all_gone_through_for_each_that_is_done(follow, monkeypatch):
    made = [whole(took(seed=seed)) for seed in range(300)]
    progress, clock, _ = follow(steps_of(made))
    looks = Counter()
    original = Expectation._expected

    def looking(self, *given):
        looks["made"] += 1
        clock.now += 0.001
        return original(self, *given)

    monkeypatch.setattr(Expectation, "_expected", looking)
    with progress:
        for step, one in zip(steps_of(made), made, strict=True):
            progress.start(step)
            clock.now += 0.01
            progress._times.learn(one)
            progress.finish(one)
    assert looks["made"] < 10 * len(made)
    assert progress.left() == pytest.approx(0, abs=1)


def test_where_nothing_tells_it_says_so(follow):
    steps = steps_of([record(seed=seed) for seed in range(2)])
    progress, _, _ = follow(steps, times())
    progress.start(steps[0])
    assert "cannot say yet" in progress.words()


def test_in_a_log_each_cell_is_one_line(follow):
    made = [
        whole(took(seconds=(1.0, 2.0), seed=seed, prefix={"boundaries": [5], "seconds": 50.0, "shared": seed > 0}))
        for seed in range(3)
    ]
    known = times()
    progress, clock, text = follow(steps_of(made), known)
    with progress:
        for step, one in zip(steps_of(made), made, strict=True):
            progress.start(step)
            clock.now += one.wall_seconds
            known.learn(one)
            progress.finish(one)
    lines = text().splitlines()
    assert len(lines) == 4, "and what a share is, once"
    assert lines[0] == (
        "1/3 resnet18 linear_probe linear seed 0: 80.0 % on test, 3.50 s + its share of 50.0 s, 0:08 left"
    )
    assert "once" in lines[1]
    assert lines[3] == "3/3 resnet18 linear_probe linear seed 2: 80.0 % on test, 3.50 s + its share of 50.0 s"


def test_on_a_terminal_lines_fit_and_the_bar_ticks(follow):
    made = [whole(took(seconds=(1.0, 2.0), validity="noisy", validity_reason="3 of 3 rounds: x " * 9))]
    progress, _, text = follow(steps_of(made), terminal=True)
    with progress:
        progress.start(steps_of(made)[0])
        assert not progress._bar.disable
        assert progress._bar.live.auto_refresh
        assert progress._bar.live.refresh_per_second >= 1
        progress.finish(made[0])
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text())
    assert max(len(line) for line in re.split("[\r\n]", plain)) <= 80


def test_a_race_tells_once_why_times_were_disturbed():
    """A hundred lines had the same words on noise, and a race goes by accuracies."""
    file = io.StringIO()
    console = Console(file=file, width=80, highlight=False, color_system=None)
    why = "2 of 3 rounds: 40% of it, something waited for a processor"
    made = [replace(took(seed=seed), validity="noisy" if seed != 1 else "ok", validity_reason=why) for seed in range(4)]
    cells = [made[0].cell]
    progress = RaceProgress(cells, SimpleNamespace(left=125.0), Expectation(settings=Settings()), console)
    for one in made:
        progress.finish(one)
    lines = file.getvalue().splitlines()
    assert len(lines) == 4
    assert "its times were disturbed (2 of 3 epochs: other programs wanted the processor 40% of the time); " in lines[0]
    assert "disturbed" not in lines[1]
    assert all("; its times were disturbed; " in line for line in lines[2:])
    assert all(line.endswith("; 2:05 of the budget left to measure in") for line in lines)


def test_a_notebook_without_its_widgets_gets_lines_and_no_warning(monkeypatch, recwarn):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert RunProgress(steps_of([record()]), times(), console)._bar.disable
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert not RunProgress(steps_of([record()]), times(), console)._bar.disable


def test_a_twin_is_explained_and_counts_as_none_of_the_cells(follow):
    made = whole(took(seconds=(1.0, 2.0)))
    known = times()
    progress, _, text = follow(steps_of([made]), known)
    progress.start(steps_of([made])[0])
    known.learn(made)
    progress.finish(made)
    slower = tuple(replace(one, seconds=1.1 * one.seconds) for one in made.rounds)
    twin = replace(made, role="aa", rounds=slower, wall_seconds=30.0)
    progress.start(Step(cell=made.cell, name="A/A x", role="aa"))
    assert 0 < progress.left() <= made.wall_seconds + 1
    progress.finish(twin)
    last = text().splitlines()[-1]
    assert last.startswith("again resnet18 linear_probe linear: its epochs took 3.30 s, 3.00 s the first time: ")
    assert "A/A" not in text()


# --- cells in words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (record(wall_seconds=3.2), "90.0 % on test, 3.20 s"),
        (record(wall_seconds=3.2, prefix={"seconds": 50, "shared": True}), "3.20 s + its share of 50.0 s"),
        (record(wall_seconds=53.2, prefix={"seconds": 50, "shared": False}), "3.20 s + its share of 50.0 s"),
        (record(prefix={"notes": ["no room"]}), "; no room"),
        (record(validity="drifting", validity_reason="x: later"), "its times changed while it ran (x: later)"),
        (
            record(validity="noisy", validity_reason="2 of 3 rounds: 40% of it, something waited for a processor"),
            "its times were disturbed (2 of 3 epochs: other programs wanted the processor 40% of the time)",
        ),
        (record(accuracies=(None,) * 3, accuracy_test=None), "10.0 s"),
        (
            record(task="infer", seconds=(0.1, 0.1), latency=(0.01, 0.02, 0.03)),
            "640 images/s, 20.0 ms for one, 10.0 s",
        ),
        (failure("not_applicable", "norm: no norms"), "means nothing here: norm: no norms"),
        (failure("failed", "RuntimeError: x"), "FAILED: RuntimeError: x"),
        (failure("skipped", "no weights"), "skipped: no weights"),
    ],
)  # fmt: skip
def test_what_came_of_a_cell(one, words):
    assert words in finished(one)
    assert "\n" not in finished(one)


def test_a_twin_that_failed_says_why():
    assert repeated(replace(failure("oom", "too much"), role="aa"), 3.0) == "oom: too much"


@pytest.mark.parametrize(
    ("axes", "name"),
    [
        ({}, "resnet18 last_1 linear"),
        ({"seed": (0, 1)}, "resnet18 last_1 linear seed 0"),
        ({"image_size": (64, 96)}, "resnet18 last_1 linear 64px"),
        ({"dataset": ("folder:a/cats", "digits")}, "resnet18 last_1 linear cats"),
        ({"task": ("train", "infer"), "epochs": (3,)}, "resnet18 last_1 linear"),
    ],
)
def test_names_say_what_tells_cells_apart(axes, name):
    cells = Grid(axes={"freeze": ("last_1",), **axes}).expand()
    assert Names(cells).of(cells[0]) == name


def test_names_tell_tasks_blocks_and_random_weights():
    cells = Grid(axes={"task": ("train", "infer")}).expand()
    assert Names(cells).of(cells[1]) == "resnet18 linear inference"
    assert Names(cells, [0, 1]).of(cells[0], 1, random=True) == "resnet18 (random weights) linear_probe linear block 2"


@pytest.mark.parametrize(
    ("axes", "task", "end"),
    [
        ({}, "train", "-s0"),
        ({"epochs": (3,)}, "train", "-s0-e3"),
        ({"epochs": (3,), "image_size": (96,), "train_size": (600,)}, "train", "-s0-e3-96px-n600"),
        ({"epochs": (3,), "image_size": (96,), "train_size": (600,)}, "infer", "-s0-96px"),
        ({"lr": (0.1,)}, "train", "-s0"),
    ],
)
def test_ids_show_pixels_epochs_and_images_where_they_are_not_the_defaults(axes, task, end):
    grid = Grid(axes={"task": (task,), **axes})
    assert grid.id_of(grid.expand()[0]).endswith(end)


# --- before anything is measured ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def reachable():
    """What other tests could not reach is asked anew."""
    UNREACHABLE.clear()
    yield
    UNREACHABLE.clear()


def test_what_will_be_measured_is_said_before_it_begins(command, photos, monkeypatch):
    status, out, err = command(
        "run", photos, "--dry-run", "--backbone=resnet18", "--freeze=linear_probe,last_1", "--seeds=0-2",
        "--epochs=2", "--image-size=32", "--threads=1",
    )  # fmt: skip
    assert status == 0
    assert len(out.splitlines()) == 6
    said = dict(re.findall(r"^(\w+) +(.*)$", err, re.MULTILINE))
    assert len(err.splitlines()) <= 10
    assert "24 images in 2 classes" in said["images"]
    assert re.search(r"8 to test on; the smallest class, \w+, has about \d+ to train on$", said["images"])
    assert "val/ is what is tested on" in said["splits"]
    assert "copies" in said
    assert said["cells"] == "6 of training (resnet18 × linear_probe, last_1 × linear × 3 seeds)"
    assert said["each"] == "32 px, 2 epochs, batches of 32, on cpu"
    assert said["weights"].startswith("resnet18: RANDOM weights, since")
    assert "put resnet18-" in said["weights"]
    assert said["results"] == "results/<date and time>"
    assert "roughly" in said["time"] or "about" in said["time"]


def test_a_run_says_it_before_its_first_cell(command, tmp_path, monkeypatch):
    """And with the reason of random weights, which no cell has met yet."""

    def run_cell(cell, settings, clock=None, *, place):
        return replace(record(initial=RANDOM), id=place.name, cell=cell, settings=settings)

    monkeypatch.setattr("tlbench.measure.cell.run_cell", run_cell)
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    _, _, err = command("run", "--head=linear", "--isolate=none", "--twins=0", "--threads=1", "--out", tmp_path / "run")
    lines = err.splitlines()
    assert [line.split()[0] for line in lines] == [
        "images", "splits", "cells", "weights", "note", "time", "1/1",
    ]  # fmt: skip
    assert "RANDOM weights, since its pretrained ones are not on this disk" in err
    assert lines[5].endswith("run")
    assert len(load(tmp_path / "run").records) == 1
    _, _, again = command("run", "--resume", tmp_path / "run")
    assert not again.strip(), "nothing is left to say anything of"


def test_steps_that_are_left_out_are_not_told_of(tmp_path):
    campaign = begin(parse_asked({"backbone": "resnet18,vgg11", "weights": "random", "blocks": "2"}))
    said = dict(outlook(campaign))
    assert (
        said["cells"] == "2 of training (resnet18, vgg11 × linear_probe × linear × seed 0), in 2 blocks: 4 measurements"
    )
    chosen = [step for step in campaign.left if step.cell.backbone == "vgg11"]
    said = dict(outlook(campaign, chosen, Path("there")))
    assert said["weights"] == "vgg11: RANDOM weights, as asked for"
    assert said["results"] == "there"
    assert outlook(campaign, []) == []


@pytest.mark.parametrize(
    ("weights", "kind"), [("auto", "random"), ("pretrained", "missing"), ("random", "random"), ("a.pth", "checkpoint")]
)
def test_weights_that_cannot_be_had(weights, kind):
    found = prospect("resnet18", weights)
    assert found.kind == kind
    assert ("cannot be downloaded" in found.words) == (weights in ("auto", "pretrained"))


def test_weights_on_this_disk_and_those_to_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights_outlook, "why_unreachable", lambda url: None)
    assert prospect("resnet18", "auto").kind == "download"
    cached = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert prospect("resnet18", "auto").kind == "pretrained"
    assert in_words(["efficientnet_lite0", "resnet18", "resnet34"], "auto") == [
        "resnet34: pretrained on ImageNet, to be downloaded once",
        "efficientnet_lite0: pretrained on ImageNet, from an installed package",
        "resnet18: pretrained on ImageNet, from torch's cache",
    ]


def test_a_host_is_asked_once(monkeypatch):
    asked = []

    def refuse(url):
        asked.append(url)
        raise TimeoutError("no connection to it")

    monkeypatch.setattr("tlbench.backbones.network.check_reachable", refuse)
    assert {prospect(name, "auto").kind for name in ("resnet18", "resnet34", "vgg11")} == {"random"}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train", "val"), "val/ is what is tested on (there is no test/)"),
        (("train", "test"), "test/ is what is tested on (there is no val/)"),
        (("train", "val", "test"), "as they are"),
        ((), "70/15/15"),
    ],
)
def test_how_a_folder_is_split(folders, words, tmp_path):
    for part in folders or ("",):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
    assert words in split_of(str(tmp_path))


@pytest.mark.parametrize("terminal", [True, False])
def test_first_lines_are_wrapped_on_a_terminal_alone(terminal):
    file = io.StringIO()
    lines = [("weights", "one " * 40), ("weights", "two"), ("time", "[b]short[/b]")]
    print_outlook(Console(file=file, force_terminal=terminal, width=60, color_system=None), lines)
    shown = file.getvalue().splitlines()
    assert max(map(len, shown)) <= (60 if terminal else 200)
    assert (len(shown) == 3) != terminal
    assert sum(line.startswith("weights") for line in shown) == 1
    assert shown[-1] == "time     [b]short[/b]"


@pytest.mark.parametrize("line", ["[" * 100_000, "{}", "[]", "null", '{"place": 1', "\x00"])
def test_a_damaged_line_of_what_runs_have_told_is_passed_over(line, monkeypatch, tmp_path):
    """One too deep to be read ended every run after it."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    times_file.remember_times("here", [("a", "b", "c", 1.5)])
    for name in (times_file.NAME, history.NAME):
        with (tmp_path / name).open("a") as file:
            file.write(line + "\n")
    assert times_file.read_times("here") == [("a", "b", "c", 1.5)]
    assert history._read() == {}


@pytest.mark.parametrize(
    ("split", "own"),
    [
        ("class folders alone: about 70/15/15 within each class, by seed", False),
        ("train/, val/ and test/ as they are in the folder", True),
    ],
)
def test_folds_put_splits_together_only_where_there_are_some(split, own):
    """It was said of any run that was asked for folds, as one that goes on is."""
    seen = Seen(name="x", classes=2, images=60, parts={}, smallest="a", fewest=(1, 1), dropped=0)
    assert ("its own splits put together" in splits_in_words(split, seen, [Cell(fold="1of5")])) == own
