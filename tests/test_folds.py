"""Folds: every image is tested once by a model that has not seen it, and all folds of a seed are one measurement."""

import itertools
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from bits import results
from conftest import save_image
from hypothesis import given, settings
from hypothesis import strategies as st
from records import record
from simulations import folds as simulation

from tlbench.analysis.commands import command as again
from tlbench.analysis.frame import rows
from tlbench.analysis.scores import discordance
from tlbench.analysis.sides import read_run
from tlbench.analysis.stats import Scores, accuracy_interval, against_the_best
from tlbench.analysis.summary import summarise
from tlbench.backbones.inputs import InputSpec
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.data import Request, load_data
from tlbench.data.folds import assign
from tlbench.errors import UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import SINCE, Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.measure.images import load_images
from tlbench.records.plan import load_start
from tlbench.records.resuming import SameInput
from tlbench.records.run_folder import load

SIZE = 16
SPEC = InputSpec(size=SIZE, resize=SIZE, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")


def ask(seed=0, **more):
    return Request(size=SIZE, resize=SIZE, interpolation="bilinear", seed=seed, **more)


def folded(count=5, seed=0, dataset="digits", **more):
    return [load_data(dataset, ask(seed, fold=(n, count), **more)) for n in range(1, count + 1)]


def fold(root, label, count, color, first=0):
    for n in range(count):
        save_image(root / label / f"{n}.jpg", color, (24, 20), seed=first + n)


@pytest.fixture
def shots(tmp_path):
    """Class folders alone, 15 photographs each: one split would test on about four of them."""
    root = tmp_path / "shots"
    fold(root, "dark", 15, 20)
    fold(root, "light", 15, 180, 100)
    return root


# --- which fold an image is in ----------------------------------------------------------------------------------


@st.composite
def labelled(draw):
    classes = draw(st.integers(2, 6))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=12, max_size=80))
    groups = draw(st.lists(st.integers(0, 40), min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(groups), draw(st.integers(2, 7)), draw(st.integers(0, 2**31))


@settings(deadline=None)
@given(labelled())
def test_folds_are_those_of_scikit_learn(drawn):
    pytest.importorskip("sklearn", minversion="1.8")  # before, shuffling undid the stratification
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups, count, seed = drawn
    if len(set(groups.tolist())) < count or len(set(labels.tolist())) < 2 or np.bincount(labels).max() < count:
        return
    expected = np.full(len(labels), -1)
    cutter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer members than folds
        for number, (_, test) in enumerate(cutter.split(labels, labels, groups)):
            expected[test] = number
    assert assign(labels, groups, count, seed).tolist() == expected.tolist()


def test_folds_do_not_depend_on_the_order_of_images_nor_on_their_names(shots, tmp_path):
    renamed = tmp_path / "renamed"
    for label in ("dark", "light"):
        for n, file in enumerate(sorted((shots / label).iterdir())):
            target = renamed / label / f"z{97 * n % 101}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    one, other = (folded(3, dataset=f"folder:{root}") for root in (shots, renamed))
    assert one[0].files != other[0].files
    for a, b in zip(one, other, strict=True):
        for part in ("train", "val", "test"):
            assert identities(a, part) == identities(b, part)
    assert [d.sha256 for d in one] == [d.sha256 for d in folded(3, dataset=f"folder:{shots}")]


def identities(data, part):
    return {data.identities[position] for position in data.positions[part]}


@pytest.mark.parametrize("dataset", ["digits", "photos"])
def test_every_image_is_tested_once_and_is_in_no_other_part_of_its_fold(dataset, photos):
    found = folded(5, dataset="digits") if dataset == "digits" else folded(3, dataset=f"folder:{photos}")
    tested = np.concatenate([data.positions["test"] for data in found])
    assert sorted(tested.tolist()) == list(range(len(found[0].labels)))  # given splits are put together
    for data in found:
        parts = [data.positions[part].tolist() for part in ("train", "val", "test")]
        assert sorted(itertools.chain(*parts)) == sorted(tested.tolist())
        for part in parts[:2]:
            assert set(data.labels[part].tolist()) == set(range(len(data.classes)))
    assert len({data.images_sha256 for data in found}) == 1
    assert len({data.sha256 for data in found}) == len(found)
    validated = [set(data.positions["val"].tolist()) for data in found]
    assert len(set.union(*validated)) > max(map(len, validated)), "each fold validates on others"


def test_classes_are_spread_evenly_and_copies_stay_in_one_fold(shots):
    (shots / "dark" / "copy.jpg").write_bytes((shots / "dark" / "3.jpg").read_bytes())
    found = folded(5, dataset=f"folder:{shots}")
    for data in found:
        counts = np.bincount(data.labels[data.positions["test"]])
        assert counts.min() >= 3
        assert counts.max() <= 4
        assert data.leaked == {"val": (), "test": ()}


def test_groups_stay_in_one_fold(shots):
    """Photographs 1 and 10 to 14 of a class begin with one digit."""
    found = folded(3, dataset=f"folder:{shots}?group=(\\w+/\\d)")
    for data in found:
        tested = {data.files[position][:-4] for position in data.positions["test"].tolist()}
        for label in ("dark", "light"):
            assert len({f"{label}/{n}" in tested for n in (1, 10, 11, 12, 13, 14)}) == 1
    assert sorted(p for data in found for p in data.positions["test"].tolist()) == list(range(30))


def test_a_split_seed_is_apart_from_that_of_training():
    cells = [Cell(seed=seed, split_seed=4, fold="1of2") for seed in (0, 1)]
    assert len({one.sha256 for one in (load_images(cell, Settings(), SPEC, SIZE) for cell in cells)}) == 1
    plain = load_images(Cell(seed=4, fold="1of2"), Settings(), SPEC, SIZE)
    assert load_images(cells[0], Settings(), SPEC, SIZE).sha256 == plain.sha256
    assert load_images(Cell(seed=5), Settings(), SPEC, SIZE).sha256 == (
        load_images(Cell(seed=1, split_seed=5), Settings(), SPEC, SIZE).sha256
    )


def test_a_subset_to_train_on_is_taken_from_each_fold():
    data = load_data("digits", ask(fold=(2, 5)), 40)
    assert len(data.train) == 40
    assert len(data.test) == len(folded(5)[1].test)


def test_too_few_photographs_for_folds_are_one_line(tmp_path):
    fold(tmp_path, "dark", 3, 20)
    fold(tmp_path, "light", 3, 180, 50)
    with pytest.raises(UserError, match=r"^9 folds need 9 photographs, but there are 6; .* --folds off$"):
        folded(9, dataset=f"folder:{tmp_path}")


def test_a_class_of_which_a_fold_leaves_too_little_is_named(tmp_path):
    fold(tmp_path / "train", "dark", 2, 20)
    fold(tmp_path / "train", "light", 4, 180, 50)
    fold(tmp_path / "val", "light", 4, 180, 60)
    fold(tmp_path / "val", "lighter", 4, 240, 70)
    fold(tmp_path / "train", "lighter", 4, 240, 80)
    with pytest.raises(UserError, match=r"^fold \d of 2, .*class 'dark' has 1 image, but .* --folds off$"):
        folded(2, dataset=f"folder:{tmp_path}")


# --- cells ------------------------------------------------------------------------------------------------------


def test_folds_are_written_as_a_number_or_one_by_one():
    assert parse_axis("fold", "3") == ("1of3", "2of3", "3of3")
    assert parse_axis("fold", 2) == ("1of2", "2of2")
    assert parse_axis("fold", "off,2of4") == (None, "2of4")
    assert parse_axis("fold", "auto") == ("auto",)


@pytest.mark.parametrize("text", ["1", "0of5", "6of5", "1of1", "x", "101", "2of", "-3", "1of5of5", ""])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(UserError, match="axis 'folds'"):
        parse_axis("fold", text)


def test_a_cell_without_folds_has_the_key_that_it_had():
    assert Cell().key == Cell(**SINCE).key
    assert "fold" not in Cell().said
    keys = {Cell(fold=fold, split_seed=seed).key for fold in (None, "1of5", "2of5", "1of4") for seed in (None, 0)}
    assert len(keys) == 8


def test_inference_knows_no_folds():
    grid = Grid(axes={"task": ("train", "infer"), "fold": parse_axis("fold", 5), "split_seed": (3,)})
    cells = grid.expand()
    assert [cell.task for cell in cells].count("infer") == 1
    assert [grid.id_of(cell) for cell in cells if cell.task == "train"][1].endswith("-s0-f2of5")
    assert next(cell.fold for cell in cells if cell.task == "infer") is None


# --- by themselves ----------------------------------------------------------------------------------------------


def planned(*arguments, measures=False):
    options = dict(argument.split("=", 1) for argument in arguments)
    asked = parse_asked({**options, "backbone": "resnet18", "weights": "random"})
    return begin(replace(asked, measures=measures))


def folds_planned(*arguments):
    return [step.cell.fold for step in planned(*arguments).planned]


def test_few_photographs_are_put_into_folds_with_a_word_on_the_cost(shots, command):
    assert folds_planned(f"dataset=folder:{shots}") == list(parse_axis("fold", 5))
    assert folds_planned(f"dataset=folder:{shots}", "folds=off") == [None]
    assert folds_planned(f"dataset=folder:{shots}", "folds=auto", "split-seed=3") == list(parse_axis("fold", 5))
    status, out, err = command("run", str(shots), "--backbone", "resnet18", "--weights", "random", "--dry-run")
    assert status == 0
    assert out.count("-f1of5") == 1
    assert "--folds off" in " ".join(err.split())
    assert "train 5 times as often" in " ".join(err.split())


def test_a_test_that_somebody_has_put_aside_is_never_put_into_folds_unasked(photos):
    assert folds_planned(f"dataset=folder:{photos}") == [None]
    assert folds_planned(f"dataset=folder:{photos}", "folds=3") == list(parse_axis("fold", 3))
    assert folds_planned("dataset=digits") == [None]


def test_data_sets_are_decided_one_by_one(shots, photos, tmp_path):
    campaign = planned(f"dataset=folder:{shots},folder:{photos},digits", "seeds=0,1")
    counts = {}
    for step in campaign.planned:
        counts[step.cell.dataset] = counts.get(step.cell.dataset, 0) + 1
    assert counts == {f"folder:{shots}": 10, f"folder:{photos}": 2, "digits": 2}


def test_photographs_that_cannot_be_put_into_folds_are_split_with_a_word(shots, monkeypatch):
    def refuse(*_):
        raise UserError("a class is too small")

    monkeypatch.setattr("tlbench.data.folds.fold_parts", refuse)
    campaign = planned(f"dataset=folder:{shots}", measures=True)
    assert [step.cell.fold for step in campaign.planned] == [None]
    assert any("5 folds cannot be had: a class is too small" in note for note in campaign.notes)


def test_auto_stands_alone_and_begins_runs_only(shots):
    with pytest.raises(UserError, match="auto stands alone"):
        planned(f"dataset=folder:{shots}", "folds=auto,3")


# --- measured ---------------------------------------------------------------------------------------------------

TINY = Cell(
    backbone="mobilenet_v3_small",
    weights="random",
    image_size=32,
    epochs=2,
    batch_size=16,
    lr=0.01,
    layout="contiguous",
)


@pytest.fixture(scope="module")
def measured(digits):
    """Two policies in three folds each, of one seed."""
    return [
        run_cell(replace(TINY, freeze=freeze, fold=f"{n}of3"), Settings(threads=1))
        for freeze in ("linear_probe", "last_1")
        for n in (1, 2, 3)
    ]


def test_the_frozen_layers_are_computed_once_for_all_folds(measured):
    probes = measured[:3]
    assert [r.status for r in measured] == ["ok"] * 6
    assert [r.prefix["shared"] for r in probes] == [False, True, True]
    assert len({tuple(r.prefix["fills"]) for r in probes}) == 1
    assert {r.prefix["images"] for r in probes} == {400}
    few = run_cell(replace(TINY, fold="1of3", train_size=20), Settings(threads=1))
    assert few.prefix["shared"], "also where a fold trains on a part of its images"


def test_all_folds_of_a_seed_are_one_row(measured):
    table = rows(measured)
    summary = summarise(table)
    assert [(row["freeze"], row["records"], row["seeds"]) for row in summary] == [
        ("linear_probe", 3, 1),
        ("last_1", 3, 1),
    ]
    for row, several in zip(summary, (measured[:3], measured[3:]), strict=True):
        right = sum(r.per_image.split("test").correct.sum() for r in several)
        assert row["test_images"] == 400
        assert row["accuracy_test"] == pytest.approx(right / 400)
        assert row["accuracy_test_low"] < right / 400 < row["accuracy_test_high"]
        assert row["accuracy_over"] == "images and folds"
        assert "folds=3" in row["variant"]
    assert {item.fold for item in table} == {"1of3", "2of3", "3of3"}


def test_folds_of_another_number_and_one_split_are_rows_of_their_own(measured):
    other = [replace(r, cell=replace(r.cell, fold=None)) for r in measured[:1]]
    four = [replace(r, cell=replace(r.cell, fold="1of4")) for r in measured[:1]]
    assert len(summarise(rows([*measured[:3], *other, *four]))) == 3


def test_configurations_are_compared_on_the_same_images(measured):
    summary = summarise(rows(measured))
    (found,) = discordance(summary[0]["group"], summary[1]["group"], "accuracy_test")
    assert found.counts.images == 400
    turned = list(reversed(summary[1]["group"]))
    assert discordance(summary[0]["group"], turned, "accuracy_test")[0].counts == found.counts


def test_the_command_to_run_it_again_names_all_folds(measured):
    assert "--folds 3" in again(measured[:1])
    assert "--folds" not in again([record(dataset="digits")])
    one = record(dataset="folder:x", samples={"train": 40, "val": 9, "test": 9})
    assert "--folds off" in again([one])


def test_a_run_in_folds_goes_on_and_is_the_same_each_time(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone=mobilenet_v3_small", "--weights=random", "--image-size=32", "--epochs=1", "--threads=1"]
    options += ["--task=train", "--freeze=linear_probe", "--isolate=none", "--layout=contiguous", "--twins=0"]
    status, _, err = command("run", *options, "--folds=2", "--split-seed=0", "--out=run")
    assert status == 0, err
    made = load(tmp_path / "run").records
    assert [(r.cell.fold, r.cell.split_seed) for r in made] == [("1of2", 0), ("2of2", 0)]
    assert [r.id[-8:] for r in made] == ["-s0-f1of2", "-s0-f2of2"] or all(r.id.endswith(r.cell.fold) for r in made)
    status, out, err = command("run", "--resume=run")
    assert (status, "2 of 2 measurements are there, 0 are left" in out) == (0, True), err
    assert "fold" in json.loads((tmp_path / "run" / "run.json").read_text())["grids"][0]
    assert load_start(tmp_path / "run").plan.grids[0].axes["fold"] == ("1of2", "2of2")
    run = read_run(tmp_path / "run")
    (values,) = [v["accuracy_test"] for v in run.values.values()]
    assert list(values) == [0]
    same = SameInput(made)
    same.check(run_cell(made[0].cell, Settings(threads=1)))
    assert results(run_cell(made[1].cell, Settings(threads=1))) == results(made[1])


def test_runs_that_knew_no_folds_go_on(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone=mobilenet_v3_small", "--weights=random", "--image-size=32", "--epochs=1", "--threads=1"]
    options += ["--task=train", "--freeze=linear_probe", "--isolate=none", "--layout=contiguous", "--train-size=20"]
    assert command("run", *options, "--twins=0", "--out=run")[0] == 0
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert not set(SINCE) & set(said["grids"][0])
    (line,) = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert not set(SINCE) & set(json.loads(line)["cell"])
    status, out, _ = command("run", "--resume=run")
    assert (status, "1 of 1 measurements are there" in out) == (0, True)


# --- what is said of accuracies ---------------------------------------------------------------------------------


def of_folds(right, images=60, folds=5, seeds=1, rng=None):
    rng = rng or np.random.default_rng(0)
    codes = np.arange(images)
    correct = [rng.permutation(codes < right).astype(float) for _ in range(seeds)]
    return Scores(images=(codes,) * seeds, correct=tuple(correct), folds=(codes % folds,) * seeds)


def test_one_seed_in_folds_has_an_interval_and_one_without_has_none():
    found = accuracy_interval(of_folds(54))
    assert found.low < 0.9 < found.high
    assert found.estimate == 0.9
    assert accuracy_interval(replace(of_folds(54), folds=None)).low is None
    assert accuracy_interval(replace(of_folds(54), folds=(np.ones(60, int),))).low is None, "one fold tells nothing"


def test_folds_are_no_replicates():
    """Ten folds of the same answers promise no more than two: the interval is that of 60 images."""
    widths = [(found := accuracy_interval(of_folds(54, folds=count))).high - found.low for count in (2, 5, 10)]
    assert max(widths) < 1.5 * min(widths)
    assert min(widths) > 0.14, "Wilson's interval of 54 of 60 is 0.15 wide"


def test_configurations_in_folds_of_one_seed_are_told_apart():
    ranked = against_the_best({"good": of_folds(390, 400), "bad": of_folds(240, 400)})
    assert [(one.name, one.standing) for one in ranked] == [("good", "best"), ("bad", "behind")]
    same = np.random.default_rng(1)
    tied = against_the_best({"a": of_folds(54), "b": of_folds(53, rng=same)})
    assert tied[1].standing == "tied"


@pytest.mark.parametrize("world", [
    simulation.World(images=60, features=50, apart=3.0), simulation.World(images=30, features=5, apart=2.0),
    simulation.World(images=60, features=20, apart=3.0, learner="nearest"),
    simulation.World(images=60, features=50, apart=3.0, seeds=2),
], ids=str)  # fmt: skip
def test_the_interval_covers(world):
    found = simulation.coverage(world, 120)
    assert found["coverage"] >= 0.95 - 3 * (0.05 * 0.95 / 120) ** 0.5


def test_equal_configurations_are_seldom_called_worse():
    world = simulation.World(images=60, features=20, apart=3.0)
    assert simulation.false_decisions(world, 60) <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5
