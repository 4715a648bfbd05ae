"""Two cells in turns: what is parsed, what is measured in which order, and how often the verdict is right."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from records import record
from tiers import sweep

from tlbench.campaign import duel
from tlbench.campaign.duel import Block, judge, measure_block
from tlbench.campaign.duel_side import Side, checked, names, parse_side
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import build
from tlbench.records.run_folder import Store
from tlbench.train.loop import Trainer


@pytest.fixture(autouse=True)
def process():
    """A block leaves the process as its last round had it; a duel puts it back."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict, warn_only=True)


TINY = "backbone=mobilenet_v3_small,weights=random,image-size=32,train-size=20,layout=contiguous"


# --- what is written ------------------------------------------------------------------------------------------


def test_a_cell_as_axes():
    side = parse_side("backbone=resnet18, freeze=lora(r=8,alpha=16) ,batch_size=8,seed=3")
    assert side.cell == Cell(backbone="resnet18", freeze="lora(r=8,alpha=16)", batch_size=8, seed=3)
    assert side.settings == Settings()


def test_a_side_has_settings_of_its_own():
    side = parse_side("threads=1,deterministic=off,prefix=off")
    assert side.cell == Cell()
    assert side.settings == Settings(threads=1, deterministic=False, prefix="off")


def test_an_inference_cell_has_no_policy():
    assert parse_side("task=infer,freeze=full").cell == parse_side("task=infer").cell


def test_a_cell_of_a_run_by_id_or_key():
    made = replace(record(freeze="full"), settings=Settings(threads=1))
    for text in (made.id, made.key):
        assert parse_side(text, [made]) == Side(cell=made.cell, settings=made.settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frezze=full", ["frezze", "did you mean 'freeze'"]),
        ("freeze=full,freeze=norm", ["twice"]),
        ("seed=1,seeds=2", ["twice"]),
        ("seeds=[1]", ["whole number"]),
        ("batch-size=none", ["'none'", "whole number"]),
        ("threads=many", ["'many'"]),
        ("blocks=3", ["blocks"]),
        ("resnet18", ["is no cell", "--run", "backbone=resnet18"]),
        ("", ["is no cell"]),
        ("resnet18-linear_prob-linear-digits-cpu-s0", ["did you mean 'resnet18-linear_probe-linear-digits-cpu-s0'"]),
    ],
)
def test_what_is_no_cell(text, words):
    with pytest.raises(UserError) as error:
        parse_side(text, [record()] if "-s0" in text else [])
    assert [word for word in words if word not in str(error.value)] == []


def test_unknown_names_are_told_before_anything_is_built():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        checked(parse_side("backbone=resnet81"))
    with pytest.raises(NotApplicable, match="fitted in one go"):
        checked(parse_side("head=nearest_mean"))


def test_a_checked_side_has_its_threads_and_a_rate():
    side = checked(parse_side("lr=auto"))
    assert side.settings.threads == torch.get_num_threads()
    assert side.cell.lr is None


def test_sides_are_told_apart_by_what_differs():
    a, b = (parse_side(text) for text in ("freeze=full,deterministic=on", "freeze=norm,deterministic=off"))
    assert names(a, b) == ("freeze=full deterministic=on", "freeze=norm deterministic=off")
    assert names(a, a) == (a.cell.id, f"{a.cell.id} (the same)")


# --- what is measured -----------------------------------------------------------------------------------------


class Recorder:
    """A clock that gives seconds by whose turn it is, and remembers the turns."""

    def __init__(self, monkeypatch, seconds=(1.0, 1.0, 2.0)):
        self.built, self.turns = [], []
        start = duel.start

        def remembered(side, rounds):
            place = len(self.built)
            made = start(side, rounds)
            self.built.append(made)
            return replace(made, setup=lambda: (self.turns.append(place), made.setup()))

        monkeypatch.setattr(duel, "start", remembered)
        self.seconds = seconds

    def __call__(self, setup, target, rounds, seconds):
        assert rounds == 1
        setup()
        target()
        seconds.append(self.seconds[self.turns[-1]])


@pytest.mark.parametrize("number", sweep([0, 1], {}))
def test_every_order_is_taken_as_often(monkeypatch, number):
    clock = Recorder(monkeypatch)
    side = checked(parse_side(TINY))
    block = measure_block(side, replace(side), 12, number, clock)
    orders = Counter(tuple(clock.turns[i : i + 3]) for i in range(0, 36, 3))
    assert set(orders.values()) == {2}
    assert len(orders) == 6
    assert [len(block.a), len(block.twin), len(block.b)] == [12, 12, 12]
    assert len(block.noisy) == len(block.throttled) == 36


@pytest.mark.exhaustive
def test_seconds_belong_to_their_side_and_are_of_one_image(monkeypatch):
    for number in range(6):  # the order of building changes; whose rounds are whose does not
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duel.inference, "start_inference", lambda job: lambda images, times: lambda: None)
            clock = Recorder(patch)
            a, b = (checked(parse_side(f"task=infer,{TINY},batch-size={n}")) for n in (1, 2))
            place = {p: i for i, p in enumerate(duel.ORDERS[number])}
            clock.seconds = [0.0] * 3
            for p, s in ((0, 2.0), (1, 4.0), (2, 12.0)):
                clock.seconds[place[p]] = s
            block = measure_block(a, b, 2, number, clock)
        batches = a.settings.throughput_batches
        assert (block.a, block.twin, block.b) == ((2 / batches,) * 2, (4 / batches,) * 2, (12 / 2 / batches,) * 2)


@pytest.mark.exhaustive
def test_both_are_built_anew_in_every_block(monkeypatch):
    built = []
    monkeypatch.setattr(duel, "build", lambda *args, real=build.build: built.append(args[0]) or real(*args))
    a, b = (checked(parse_side(f"{TINY},freeze={freeze}")) for freeze in ("linear_probe", "full"))
    found = duel.duel(a, b, rounds=2, blocks=2)
    assert Counter(cell.freeze for cell in built) == {"linear_probe": 4, "full": 2}
    assert len(found.blocks) == 2


def test_a_schedule_has_no_epoch_to_compare():
    side = checked(parse_side(f"{TINY},freeze=lp_ft"))
    with pytest.raises(NotApplicable, match="linear_probe, fine_tune"):
        measure_block(side, side, 1)


@pytest.mark.exhaustive
def test_each_side_has_its_own_settings_in_its_rounds_and_none_are_left_behind(monkeypatch):
    seen = []
    threads = torch.get_num_threads()

    def look():
        seen.append((
            torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
        ))  # fmt: skip

    monkeypatch.setattr(duel.inference, "start_inference", lambda job: lambda images, times: look)
    a, b = (
        checked(parse_side(f"task=infer,{TINY},threads={n},deterministic={on}")) for n, on in ((1, "on"), (2, "off"))
    )
    duel.duel(a, b, rounds=6, blocks=1)
    expected = {(1, True, "highest"), (2, False, "highest")}
    assert set(seen) == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.exhaustive
def test_the_command(command, tmp_path):
    status, out, err = command("duel", f"{TINY},freeze=full", TINY, "--rounds", 2, "--blocks", 2)
    assert status == 0
    assert "A  freeze=full" in out
    assert "B takes 0." in out
    assert "A against A, measured in the same way" in out
    assert "block 2 of 2" in err


@pytest.mark.exhaustive
def test_the_command_in_json_on_cells_of_a_run(command, tmp_path):
    made = record(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=20)
    Store(tmp_path).append(made)
    status, out, _ = command("duel", made.id, made.key, "--run", tmp_path, "--rounds", 2, "--blocks", 1, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["a"]["cell"]["train_size"] == 20
    assert [len(found["blocks"][0][side]) for side in ("a", "twin", "b")] == [2, 2, 2]
    assert found["verdict"]["outcome"] == "cannot say"  # of one block
    assert found["environment"]["settings"]["threads"] == found["a"]["settings"]["threads"]
    assert found["environment"]["arithmetic"]["tf32_cudnn"] is False, "as it ran, not as torch begins"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("b", "word"),
    [("freeze=lp_ft", "policy of one phase"), ("head=nearest_mean", "fitted in one go"), ("x=1", "unknown axis")],
)
def test_the_command_refuses_in_one_line(command, b, word):
    status, out, err = command("duel", TINY, f"{TINY},{b}", "--rounds", 1, "--blocks", 1)
    assert (status, out) == (2, "")
    assert word in err.splitlines()[-1]


def test_a_cell_that_fails_is_told(command, monkeypatch):
    def fails(self, *_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Trainer, "run_epoch", fails)
    status, out, err = command("duel", TINY, TINY)
    assert (status, out) == (1, "")
    assert "the duel stopped: RuntimeError: no such kernel" in err


# --- how often the verdict is right ---------------------------------------------------------------------------


def simulated(rng: np.random.Generator, slower: float = 1.0, rounds: int = 36, blocks: int = 5) -> list[Block]:
    """A machine that is worse than most: a mood that both sides of a round share and that drifts, noise of each
    round, outliers, and an offset of each model that is built, which stays for its block.
    """
    made = []
    for _ in range(blocks):
        mood = np.cumsum(rng.normal(0, 0.02, rounds))
        sides = []
        for factor in (1.0, 1.0, slower):
            noise = rng.normal(0, 0.03, rounds) + (rng.random(rounds) < 0.05) * rng.exponential(0.5, rounds)
            sides.append(tuple(factor * np.exp(mood + noise + rng.normal(0, 0.01))))
        made.append(Block(a=sides[0], twin=sides[1], b=sides[2]))
    return made


def outcomes(pairs: int, seed: int, **given) -> Counter:
    rng = np.random.default_rng(seed)
    return Counter(judge(simulated(rng, **given))[2].outcome for _ in range(pairs))


@pytest.mark.parametrize("seed", sweep(range(5), {0}))
def test_of_forty_identical_pairs_at_most_two_are_called_changed(seed):
    assert outcomes(40, seed)["changed"] <= 2


@pytest.mark.parametrize("seed", sweep(range(5), {0}))
def test_of_twenty_slowdowns_by_a_tenth_nineteen_are_called_changed(seed):
    assert outcomes(20, seed, slower=1.1)["changed"] >= 19


def test_the_trap_of_measuring_one_after_the_other():
    """The same machine without turns: moods no longer cancel, and many identical pairs seem to differ by their rounds'
    spread. What turns buy would not be there if this passed.
    """
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(40):
        mood = np.cumsum(rng.normal(0, 0.02, 72))
        rounds = np.exp(mood + rng.normal(0, 0.03, 72))
        a, b = rounds[:36], rounds[36:]
        difference = abs(np.log(a).mean() - np.log(b).mean())
        wrong += difference > 1.96 * np.sqrt((np.log(a).var(ddof=1) + np.log(b).var(ddof=1)) / 36)
    assert wrong > 10


def test_the_ratio_is_of_the_rounds_and_the_floor_of_the_twins():
    counter = count()
    blocks = [
        Block(a=(1.0, 2.0, 3.0), twin=(1.0 + 0.01 * n, 2.0 + 0.02 * n, 9.0), b=(2.0, 4.0, 90.0))
        for n in (next(counter), next(counter), next(counter))
    ]
    ratio, floor, verdict = judge(blocks)
    assert ratio.interval.estimate == pytest.approx(2.0)
    assert floor.n == floor.blocks == 3
    assert floor.seen == pytest.approx(np.exp(np.log([1.0, 1.01, 1.02]).mean()) - 1)
    assert verdict.outcome == "changed"
