"""Benchmarks of promises: sets of classes on a run's test images, races replayed from records, what a screen costs."""

from dataclasses import replace

import numpy as np
import pytest
import races
import screen
import sets
from conftest import save_image

from tlbench.backbones import BACKBONES
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure.cell import run_cell
from tlbench.records.images import SplitResults
from tlbench.records.run_folder import Store, load

CELL = Cell(
    backbone="shufflenet_v2_x0_5", weights="random", image_size=32, train_size=60, epochs=1, batch_size=16,
    layout="contiguous", dataset="digits",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three heads, three seeds each, on digits."""
    store = Store(tmp_path_factory.mktemp("promises") / "run")
    KEPT.activations.forget()
    for head in ("ridge", "nearest_mean", "mlp"):
        for seed in range(3):
            store.append(run_cell(replace(CELL, head=head, seed=seed, split_seed=0), Settings()))
    return store.folder


def results(labels, logits):
    """Results on images of which each has another identity."""
    identities = np.arange(len(labels), dtype=np.uint64)[:, None].repeat(2, 1).view(np.uint8)
    return SplitResults(
        images=identities, labels=labels, predictions=logits.argmax(1),
        logits=(logits - logits.max(1, keepdims=True)).astype(np.float16),
    )  # fmt: skip


def believable(count, seed, classes=5, wrong=0.0):
    """Images whose class is drawn by the probabilities that the model gives; for a share of them by chance alone."""
    chance = np.random.default_rng(seed)
    logits = 2.5 * chance.normal(size=(count, classes))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) > chance.random((count, 1))).argmax(1)
    by_chance = chance.random(count) < wrong
    return results(np.where(by_chance, chance.integers(0, classes, count), labels), logits)


# --- sets of classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_halves_keep_the_promise_whatever_the_model_is_worth(wrong):
    held = sets.halves(believable(600, 0, wrong=wrong), 0.95, 300)
    assert 0.94 <= held.coverage <= 0.96
    low, high = held.spread
    assert low < 0.95 < high
    assert (held.calibrated, held.asked) == (300, 300)


def test_what_falls_short_is_said():
    val = believable(300, 1)
    assert sets.as_it_comes(val, believable(600, 2), 0.95).remark == "within chance"
    short = sets.as_it_comes(val, believable(600, 3, wrong=0.3), 0.95)
    assert short.remark == "falls short beyond chance"
    assert short.coverage < 0.9


def test_classes_that_a_model_does_not_know_are_left_undecided():
    """The model is sure of what it knows, and of nothing else."""
    labels = np.arange(400) % 8
    logits = np.where(labels[:, None] == np.arange(8), 9.0, 0.0) + np.random.default_rng(0).normal(size=(400, 8))
    unknown, known = sets.masked(results(labels, logits), results(labels, logits), 0.95, 3)
    assert unknown.coverage is None
    assert unknown.undecided > 0.95
    assert known.undecided < 0.1
    assert known.coverage > 0.9
    assert known.calibrated == 250


def test_a_run_is_asked_by_its_kept_logits(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sets.py", str(run), "--halves", "20", "--unknown", "3"])
    sets.main()
    said = capsys.readouterr().out
    for words in ("| 20 halves |", "| as it comes |", "| unknown, masked |", "| known, masked |", "undecided"):
        assert words in said
    monkeypatch.setattr("sys.argv", ["sets.py", str(run), "--halves", "20", "--unknown", "9"])
    sets.main()
    assert "9 of 10 classes leave no choice" in capsys.readouterr().out


def test_a_model_is_trained_without_some_classes(tmp_path):
    numbers = iter(range(1000))
    for part, count in (("train", 12), ("val", 14), ("test", 6)):
        for label, color in (("dark", 0), ("grey", 100), ("light", 190)):
            for n in range(count):
                save_image(tmp_path / "photos" / part / label / f"{n}.png", color, seed=next(numbers))
    cell = replace(CELL, dataset=f"folder:{tmp_path / 'photos'}", train_size=None)
    record = run_cell(cell, Settings())
    assert record.status == "ok", record.reason
    stranger, known = sets.retrained(record, 0.95, 1, 0)
    assert (stranger.asked, stranger.calibrated) == (6, 28)
    assert 0 <= stranger.undecided <= 1
    assert known.asked == 12


BAD_RUNS = {
    "no such run": (["nowhere"], "nowhere"),
    "a coverage that is none": (["RUN", "--coverage", "1.5"], "coverage 1.5"),
    "an id that is none": (["RUN", "--id", "x"], "'x'"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_sets_of_what_is_not_there_are_one_line(case, run, monkeypatch):
    options, words = BAD_RUNS[case]
    monkeypatch.setattr("sys.argv", ["sets.py", *(str(run) if one == "RUN" else one for one in options)])
    with pytest.raises(SystemExit) as told:
        sets.main()
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_run_in_folds_is_refused(tmp_path, monkeypatch):
    """What it says of one fold's model would be taken for what holds for the model of all images."""
    store = Store(tmp_path / "run")
    for fold in ("1of2", "2of2"):
        store.append(run_cell(replace(CELL, head="nearest_mean", fold=fold), Settings()))
    for one in load(store.folder).records:
        monkeypatch.setattr("sys.argv", ["sets.py", str(store.folder), "--id", one.id])
        with pytest.raises(SystemExit) as told:
            sets.main()
        assert "is of a fold (" in str(told.value)
        assert str(told.value).endswith("give a run that was measured with --folds off")
        assert "\n" not in str(told.value)


def test_without_logits_there_are_no_sets(run):
    record = load(run).records[0]
    object.__setattr__(record, "per_image", None)
    with pytest.raises(UserError, match="lacks the logits"):
        sets.results_of(record)


# --- races ----------------------------------------------------------------------------------------------------


def made(cells=12, seeds=5, images=200, fills=3):
    """Cells of known accuracies; those of a group share a pass over the images."""
    chance = np.random.default_rng(0)
    hard = chance.normal(size=images)
    found = {}
    for n in range(cells):
        own = hard + 0.5 * chance.normal(size=images)
        found[f"cell{n}"] = [
            races.One(
                own=1.0, fills={f"fill{n % fills}": 10.0}, images=np.arange(images),
                correct=(own + 0.3 * chance.normal(size=images) <= np.quantile(own, 0.9 - 0.03 * n)).astype(float),
            )
            for _ in range(seeds)
        ]  # fmt: skip
    return found


def test_a_shared_pass_is_charged_once_to_the_first_that_needs_it():
    cells, filled = made(), set()
    assert races.grid_seconds(cells) == 12 * 5 + 3 * 10
    charged = {name: races.Charged(seeds, filled) for name, seeds in cells.items()}
    assert [charged[name][0][0] for name in ("cell0", "cell3", "cell1", "cell0")] == [11.0, 1.0, 11.0, 1.0]


def test_races_find_what_the_whole_grid_finds():
    cells = made()
    race = races.raced(cells, 0.5 * races.grid_seconds(cells), 0.25, 0)
    ended = races.outcome(race, cells)
    assert ended.regret <= 0.01
    assert not ended.dropped
    said = races.lines(cells, 4, 1.0, 0.25)
    assert any("4 of 4 (wanted: 4)" in line for line in said)
    assert any("dropped: 0 of 4 (wanted: at most 0)" in line for line in said)
    assert "too small to say much" in said[-1]


def test_a_run_is_raced_by_its_records(run, monkeypatch, capsys):
    records = load(run).records
    cells = races.measured(records)
    assert len(cells) == 3
    assert {len(seeds) for seeds in cells.values()} == {3}
    whole = sum(record.wall_seconds for record in records)
    assert races.grid_seconds(cells) == pytest.approx(whole, rel=0.05)
    monkeypatch.setattr("sys.argv", ["races.py", str(run), "--races", "2"])
    races.main()
    assert "3 cells x 3 seeds" in capsys.readouterr().out


def test_cells_without_all_seeds_are_no_runners(run):
    records = load(run).records
    assert len(races.measured(records[:-1])) == 2
    with pytest.raises(UserError, match="needs two of each"):
        races.measured(records[:3])


def test_the_command_for_a_run_is_one_that_tlbench_takes(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["races.py", "--command", "digits"])
    races.main()
    words = capsys.readouterr().out.replace("'", "").split()
    assert words[:2] == ["tlbench", "run"]
    status, out, err = command(*words[1:-1], str(tmp_path / "run"), "--dry-run")
    assert status == 0, err
    assert out.count("train efficientnet_lite") == 300


# --- screens --------------------------------------------------------------------------------------------------


def test_twenty_backbones_are_screened_that_there_are():
    assert len(set(screen.BACKBONES)) == 20
    assert set(screen.BACKBONES) | set(screen.SMALL) <= set(BACKBONES)


def test_a_screen_is_held_against_bare_passes(monkeypatch, capsys):
    monkeypatch.setenv("TLBENCH_CACHE", "elsewhere")
    monkeypatch.setattr(
        "sys.argv",
        ["screen.py", "--backbone", "shufflenet_v2_x0_5", "--images", "40", "--image-size", "32", "--rounds", "2"],
    )
    screen.main()
    said = capsys.readouterr().out
    assert "shufflenet_v2_x0_5" in said
    assert "round 2: 1 screens" in said
    assert "bar 1.2" in said
