"""How noisy a run was: which cells are measured again to see it, what the pairs tell, and what earlier runs told."""

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import failure, record
from simulations import floor
from tiers import sweep

from tlbench.analysis import noise, stats
from tlbench.analysis.frame import rows
from tlbench.campaign import twins
from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign, begin
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import history
from tlbench.machine.history import Past, read_past, remember
from tlbench.measure import cell as cell_module
from tlbench.records.plan import Plan
from tlbench.records.resuming import current
from tlbench.records.run_folder import load
from tlbench.report.noise_words import noise_floor as noise_floor_words

GRID = Grid(axes={"freeze": ("linear_probe", "last_1", "full"), "seed": tuple(range(10))})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def measured(monkeypatch):
    """Cells take as long as ``seconds`` says by their policy; the second measurement of one is ``factor`` as long."""
    done = []

    def run_cell(cell, settings, *, place, **_):
        done.append((place.role, cell, place.block))
        wall = run_cell.seconds[cell.freeze]
        run_cell.drift *= 1.0001  # no two measurements are equal to the last bit
        long = wall / 10 * run_cell.drift * (run_cell.factor if place.role == "aa" else 1)
        made = replace(
            record(seconds=(long,) * 3), id=place.name, cell=cell, settings=settings, block=place.block,
            role=place.role, wall_seconds=wall, started=f"2026-01-01T00:00:{len(done):02}",
        )  # fmt: skip
        return run_cell.becomes(made)

    run_cell.seconds = {"linear_probe": 2.0, "last_1": 5.0, "full": 9.0}
    run_cell.factor, run_cell.drift = 1.02, 1.0
    run_cell.becomes = lambda made: made
    run_cell.done = done
    monkeypatch.setattr(cell_module, "run_cell", run_cell)
    return run_cell


def campaign(folder, grid=GRID, **settings):
    return Campaign(asked=Asked(out=folder), plan=Plan(grids=(grid,), settings=Settings(**settings)))


# --- which cells are measured again ---------------------------------------------------------------------------


def test_twins_take_a_twentieth_of_the_time_and_no_more(measured, tmp_path):
    run = campaign(tmp_path / "run", blocks=3)
    assert run.run() is None
    cells = sum(r.wall_seconds for r in run.current() if r.role == "cell")
    again = [r for r in run.current() if r.role == "aa"]
    assert 0.025 * cells <= sum(r.wall_seconds for r in again) <= 0.05 * cells
    assert Counter(r.block for r in again) == {0: 2, 1: 2, 2: 2} or len(again) >= 3
    assert len({r.key for r in again}) == len(again), "another cell each time"
    by_block = [block for role, _, block in measured.done if role == "aa"]
    assert by_block == sorted(by_block)


def test_a_run_of_one_cell_measures_it_once(measured, tmp_path):
    run = campaign(tmp_path / "run", Grid(axes={"freeze": ("full",)}))
    run.run()
    assert [r.role for r in run.current()] == ["cell"]


@pytest.mark.parametrize(("wanted", "count"), [(0, 0), (1, 1), (4, 4)])
def test_as_many_as_asked(wanted, count, measured, tmp_path):
    run = campaign(tmp_path / "run", Grid(axes={"freeze": ("full", "last_1")}), twins=wanted, blocks=2)
    run.run()
    roles = Counter((r.role, r.block) for r in run.current())
    assert [roles["aa", block] for block in (0, 1)] == [count, count]


def test_a_run_that_goes_on_measures_no_more_of_them(measured, tmp_path):
    run = campaign(tmp_path / "run", blocks=2)
    run.run()
    before = load(tmp_path / "run").records
    again = begin(Asked(resume=str(tmp_path / "run")))
    again.run()
    assert load(tmp_path / "run").records == before


def test_twins_that_are_missing_are_measured_when_a_run_goes_on(measured, tmp_path):
    run = campaign(tmp_path / "run")
    run.run()
    path = tmp_path / "run" / "records.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["role"] == "cell"]
    whole = path.read_text()
    path.write_text("".join(kept))
    begin(Asked(resume=str(tmp_path / "run"))).run()
    assert [r.id for r in load(tmp_path / "run").records if r.role == "aa"] == [
        json.loads(line)["id"] for line in whole.splitlines() if json.loads(line)["role"] == "aa"
    ]


@pytest.mark.parametrize(
    "tells_nothing",
    [
        {"head": "ridge"},
        {"status": "not_applicable", "rounds": ()},
        {"status": "failed", "rounds": ()},
        {"status": "skipped", "rounds": ()},
    ],
    ids=str,
)
def test_only_what_applies_and_has_rounds_of_its_own_is_measured_again(tells_nothing):
    cells = {Cell(seed=seed): str(seed) for seed in range(30)}
    head = tells_nothing.pop("head", "linear")
    mute = {replace(cell, head=head): name for cell, name in cells.items()}
    made = [replace(record(), cell=cell, wall_seconds=1.0, **tells_nothing) for cell in mute]
    assert twins.next_twin(mute, made, 0, None) is None
    assert twins.next_twin(mute, made, 0, 5) is None
    good = [replace(record(), cell=cell, wall_seconds=1.0) for cell in cells]
    assert twins.next_twin(cells, good, 0, None) is not None


def test_a_failed_twin_is_not_tried_for_ever(measured, tmp_path):
    measured.becomes = lambda made: replace(made, status="failed" if made.role == "aa" else "ok")
    run = campaign(tmp_path / "run", twins=2)
    run.run()
    assert Counter(r.role for r in run.records)["aa"] == 2


def test_twins_do_not_count_as_measurements_that_were_planned(measured, tmp_path):
    run = campaign(tmp_path / "run", twins=2)
    run.run()
    assert len(run.planned) == 30
    assert run.undone == []


# --- the floor ------------------------------------------------------------------------------------------------


def pair(first, second, **given):
    return [record(seconds=(first,) * 3, **given), record(seconds=(second,) * 3, role="aa", **given)]


def floor_of(records):
    return noise.noise_floors(rows(records)).get(("cpu", rows(records)[0].machine))


def test_a_cell_and_its_twin_tell_the_floor():
    found = floor_of([*pair(1.0, 1.02), *pair(2.0, 2.0, seed=1)])
    assert (found.n, found.noisy, found.prior) == (2, 0, None)
    assert found.seen == pytest.approx(math.sqrt(1.02) - 1)


def test_what_cells_share_is_no_part_of_their_noise():
    """Two cells that take one frozen prefix of 3 s, and whose own rounds differ 4.5 times."""
    prefix = {"seconds": 3.0, "training_seconds": 3.0, "fills": ["x"]}
    made = [replace(r, prefix=prefix) for r in pair(0.1, 0.45)]
    assert floor_of(made).seen == pytest.approx(3.5)


def test_noisy_twins_count_and_are_named():
    made = [*pair(1.0, 1.02), *(replace(r, validity="noisy") for r in pair(1.0, 1.5, seed=1))]
    found = floor_of(made)
    assert (found.n, found.noisy) == (2, 1)
    assert "2 pairs of equal cells" in noise_floor_words(found)
    assert "1 of them noisy" in noise_floor_words(found)


def test_twins_of_training_free_heads_tell_nothing():
    """Runs of earlier versions have such pairs."""
    assert floor_of([replace(r, cell=replace(r.cell, head="ridge")) for r in pair(1.0, 4.5)]) is None


def test_a_run_of_an_earlier_version_has_pairs_of_three():
    """Its blocks begin and end with a twin, and the cell itself stands between them."""
    made = [record(seconds=(s,) * 3, role=role) for s, role in ((1.0, "aa"), (1.03, "cell"), (1.01, "aa"))]
    assert floor_of(made).n == 2


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6))
def test_contrasts_have_the_spread_of_ratios(values):
    """Their squares sum to twice the squares about the mean, whatever the order."""
    logs = np.log(values)
    found = np.log(stats.contrasts(values)) if len(values) > 1 else np.zeros(0)
    assert len(found) == len(values) - 1
    assert np.sum(found**2) == pytest.approx(2 * np.sum((logs - logs.mean()) ** 2), abs=1e-12)


def test_rounds_moderate_one_pair_where_no_earlier_run_tells():
    wild = record(seconds=(1.0, 1.02, 0.99), seed=2)
    made = [*pair(1.0, 1.02), wild]
    found = floor_of(made)
    assert found.prior.source == "rounds"
    alone = stats.noise_floor([1.02], 1)
    assert found.relative < alone.relative / 2
    assert "the spread of each cell's rounds counts as well" in noise_floor_words(found)


def test_a_first_earlier_pair_does_not_take_away_what_rounds_tell():
    """A second run on a machine had a floor of 98 %, the first one of 52 %, although its pair differed by less."""
    wild = record(seconds=(1.0, 1.02, 0.99), seed=2)
    first = floor_of([*pair(1.0, 1.02), wild])
    known = {"pairs": 1, "pair_log_sd": 0.005}
    second = floor_of([replace(r, machine_noise=known) for r in [*pair(1.0, 1.02), wild]])
    assert second.relative < first.relative
    assert "1 pair of equal cells in earlier runs on this machine; the spread of" in noise_floor_words(second)


@given(pairs=st.integers(1, 30), ours=st.floats(0.001, 0.5), theirs=st.floats(0.001, 0.5))
def test_rounds_count_for_what_earlier_pairs_leave(pairs, ours, theirs):
    twins = stats.Prior(log_sd=ours, freedom=pairs, pairs=pairs)
    rounds = stats.Prior(log_sd=theirs, freedom=4, source="rounds")
    found = stats.filled_up(twins, rounds)
    assert found.freedom == max(pairs, min(pairs + 4, 8))
    assert min(ours, theirs) * (1 - 1e-9) <= found.log_sd <= max(ours, theirs) * (1 + 1e-9)
    assert (found == twins) == (pairs >= 8)
    assert stats.filled_up(None, rounds) == rounds
    assert stats.filled_up(twins, None) == twins
    assert stats.filled_up(None, None) is None


def test_earlier_runs_alone_tell_a_floor():
    known = {"pairs": 20, "pair_log_sd": 0.03}
    found = floor_of([replace(record(), machine_noise=known)])
    assert (found.n, found.seen) == (0, None)
    assert 0.06 < found.relative < 0.08
    assert noise_floor_words(found).startswith("quiet: ")
    assert "20 pairs of equal cells in earlier runs" in noise_floor_words(found)


def test_without_anything_it_is_unknown():
    assert floor_of([record()]) is None
    assert noise_floor_words(None).startswith("unknown: ")
    assert "--twins 3" in noise_floor_words(None)


@pytest.mark.parametrize(
    ("ratios", "noisy", "word"),
    [
        ([1.01, 0.99, 1.02], 0, "quiet: "),
        ([1.01, 0.99, 1.02], 2, "noisy: "),
        ([1.1, 0.9, 1.02], 0, "noisy: "),
        ([69.0], 1, "1 pair of equal cells differed by more than 100 %, noisy itself"),  # it said 6803.6 %
        (
            [2.0],
            0,
            "noisy: too noisy to say from times which cell is faster; run again while nothing else runs",
        ),
    ],
)
def test_the_first_screen_has_a_word_for_it(ratios, noisy, word):
    assert word in noise_floor_words(stats.noise_floor(ratios, 1, noisy=noisy))


def test_a_floor_needs_something():
    with pytest.raises(ValueError):
        stats.noise_floor([], 1)


# --- what is handed on ----------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_saw_and_the_next_one_takes_it(measured, tmp_path):
    first = campaign(tmp_path / "first", twins=2)
    first.run()
    assert all(r.machine_noise == {} for r in first.records)
    second = campaign(tmp_path / "second", twins=1)
    second.run()
    (known,) = {json.dumps(r.machine_noise, sort_keys=True) for r in load(tmp_path / "second").records}
    assert json.loads(known) == {"pairs": 2, "pair_log_sd": pytest.approx(math.log(1.02), rel=0.1)}
    third = campaign(tmp_path / "third", twins=0)
    third.run()
    assert third.records[0].machine_noise["pairs"] == 3
    assert (third.records[0].machine_noise["runs"], third.records[0].machine_noise["run_freedom"]) == (2, 1)


def test_a_run_that_goes_on_is_one_run(measured, tmp_path):
    run = campaign(tmp_path / "run", twins=2)
    run.run()
    remember(Past(run="another", machine=rows(run.records)[0].machine, device="cpu", pairs=[0.5] * 9))
    again = begin(Asked(resume=str(tmp_path / "run"), axes={"seed": (0, 99)}))
    again.run()
    noise_of = {r.cell.seed: r.machine_noise for r in load(tmp_path / "run").records}
    assert noise_of[0] == {}
    assert noise_of[99] == {"pairs": 9, "pair_log_sd": 0.5}, "its own are nothing earlier"
    machine = rows(again.records)[0].machine
    assert len(read_past(machine, "cpu")) == 2, "it told once more, in place of what it told before"


def test_what_is_known_is_kept_apart_by_machine_and_device():
    remember(Past(run="a", machine="m", device="cpu", pairs=[0.1]))
    remember(Past(run="b", machine="m", device="cuda", pairs=[0.2]))
    remember(Past(run="c", machine="other", device="cpu", pairs=[0.3]))
    assert [past.run for past in read_past("m", "cpu")] == ["a"]


def test_a_history_that_is_damaged_or_cannot_be_written_is_no_matter(cache):
    remember(Past(run="a", machine="m", device="cpu", pairs=[0.1]))
    with (cache / history.NAME).open("a") as file:
        file.write(
            '{"run": 1}\nnot json\n[]\n{"run": "x", "machine": "m", "device": "cpu", "pairs": [NaN], "cells": {}}\n'
        )
    remember(Past(run="b", machine="m", device="cpu", pairs=[0.1]))
    assert [past.run for past in read_past("m", "cpu")] == ["a", "b"]
    (cache / history.NAME).unlink()
    (cache / history.NAME).mkdir()
    remember(Past(run="a", machine="m", device="cpu"))
    assert read_past("m", "cpu") == []


def test_a_history_does_not_grow_for_ever(monkeypatch, cache):
    monkeypatch.setattr(history, "MOST", 5)
    for number in range(40):
        remember(Past(run=str(number), machine="m", device="cpu", pairs=[0.1]))
        assert (cache / history.NAME).read_text().count("\n") <= 10
    assert [past.run for past in read_past("m", "cpu")][-5:] == ["35", "36", "37", "38", "39"]


def test_runs_that_share_no_cell_tell_nothing_of_each_other():
    pasts = [
        Past(run="1", machine="m", device="cpu", cells={"a": 0.0, "b": 1.0}),
        Past(run="2", machine="m", device="cpu", cells={"a": 0.2, "b": 1.2}),
        Past(run="3", machine="m", device="cpu", cells={"c": 0.0}),
        Past(run="4", machine="m", device="cpu", cells={"c": 0.2, "d": 9.0}),
    ]
    found = noise._between_runs(pasts, lambda *_: True)
    assert (found["runs"], found["run_freedom"]) == (4, 2)
    assert found["run_log_sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert noise._between_runs(pasts[1:3], lambda *_: True) == {}


def test_the_same_times_told_twice_are_one_measurement():
    """A spread of nothing would make every difference a change."""
    pasts = [Past(run=run, machine="m", device="cpu", cells={"a": 0.25, "b": 1.5}) for run in "12"]
    assert noise._between_runs(pasts, lambda *_: True) == {}


def test_cells_of_another_length_tell_nothing(measured, tmp_path):
    """Long cells vary less from run to run than short ones."""
    for number in range(3):
        campaign(tmp_path / str(number), Grid(axes={"freeze": ("full",)}), twins=0).run()
    short = campaign(tmp_path / "short", Grid(axes={"freeze": ("linear_probe",)}), twins=0)
    measured.seconds["linear_probe"] = 0.5
    short.run()
    assert "run_log_sd" not in short.records[0].machine_noise
    same = campaign(tmp_path / "same", Grid(axes={"freeze": ("full",)}), twins=0)
    same.run()
    assert same.records[0].machine_noise["like"] == "this cell"
    like = campaign(tmp_path / "like", Grid(axes={"freeze": ("last_1",)}), twins=0)
    measured.seconds["last_1"] = 9.5
    like.run()
    assert like.records[0].machine_noise["like"] == "cells about as long"


def test_other_code_is_another_cell(measured, tmp_path):
    """What changed between two versions is no noise."""
    for number, commit in enumerate(("a", "b")):
        measured.becomes = lambda made, commit=commit: replace(made, suite_commit=commit)
        campaign(tmp_path / str(number), twins=0).run()
    third = campaign(tmp_path / "third", twins=0)
    third.run()
    assert third.records[0].machine_noise == {}


def test_records_that_failed_early_have_no_machine():
    assert noise.noise_floors(rows([failure("failed", "x")])) == {}
    assert current([]) == []


# --- a simulation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", sweep([1, 2, 3, 5], {1}))
@pytest.mark.parametrize("kind", ["normal", "drifting", "contaminated"])
def test_a_moderated_floor_covers_a_further_pair(kind, pairs):
    """With the noise of 20 earlier pairs known; bench/trust.py shows it at length."""
    covered, median = floor.coverage(kind, pairs, trials=2500)
    assert covered >= 0.915  # 0.93 less three standard errors
    assert kind != "normal" or covered <= 0.982
    assert kind != "normal" or median <= 0.11


def test_measurements_of_a_cell_are_found_whatever_hashes_say(monkeypatch):
    made = [one for n in range(4) for one in pair(1.0 + n / 10, 1.1 + n / 7, seed=n)]
    expected = floor_of(made)
    monkeypatch.setattr(noise, "_hash", lambda row: 0)
    assert floor_of(made) == expected


def test_runs_of_other_cells_average_nothing_together():
    """Of four runs of a policy each the floor was half of what it is."""
    policies = ("linear_probe", "last_1", "norm", "full")
    made, runs = [], []
    for policy in policies:
        made += [record(freeze=policy), replace(record(seconds=(1.05, 1.1, 1.2), freeze=policy), role="aa")]
        runs += [policy, policy]
    table = rows(made, runs)
    (apart,) = noise.noise_floors(table).values()
    (one,) = noise.noise_floors(rows(made, ["a"] * len(made))).values()
    assert apart.relative == pytest.approx(one.relative)
