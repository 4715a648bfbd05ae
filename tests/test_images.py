"""Results on single images: the files beside the records, and what is said from them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from images import identities, results, with_images
from records import record

from tlbench.analysis.frame import frame, rows, rows_of
from tlbench.analysis.scores import discordance
from tlbench.analysis.summary import IMAGES_AND_SEEDS, SEEDS_ONLY, summarise
from tlbench.campaign.isolate import Workers
from tlbench.campaign.stop import Stop
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.measure.place import Place
from tlbench.records import images
from tlbench.records.images import IDENTITY_BYTES, PerImage, from_bytes, to_bytes
from tlbench.records.lines import encode
from tlbench.records.run_folder import Store, load
from tlbench.report import wording


def kept(folder, *records):
    """The records as they are read from a folder that they were written to."""
    store = Store(folder)
    for one in records:
        store.append(one)
    return load(folder).records


def seeds(*accuracies, count=200, **given):
    return [with_images(record(accuracies=(0, 0, a), seed=n, **given), count) for n, a in enumerate(accuracies)]


# --- the files ------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path):
    made = with_images(record(accuracies=(0, 0, 0.9)), 200)
    (read,) = kept(tmp_path, made)
    for split in ("val", "test"):
        before, after = made.per_image.split(split), read.per_image.split(split)
        assert np.array_equal(before.images, after.images)
        assert np.array_equal(before.labels, after.labels)
        assert np.array_equal(before.predictions, after.predictions)
    assert read.per_image.problem == ""
    assert read == replace(made, images=read.images)


def test_they_are_no_part_of_the_line():
    made = with_images(record(), 200)
    assert encode(made) == encode(replace(made, per_image=None))
    assert "per_image" not in made.to_dict()


def test_cells_share_the_file_of_a_split_and_it_is_small(tmp_path):
    read = kept(tmp_path, *seeds(0.9, 0.8, count=2485), *seeds(0.7, freeze="full", count=2485))
    assert len({one.images["val"] for one in read}) == 1
    assert len({one.images["results"] for one in read}) == 3
    sizes = {path.stem: path.stat().st_size for path in (tmp_path / "images").iterdir()}
    assert all(sizes[one.images["results"]] < 2 * 2485 + 1000 for one in read)
    assert not list((tmp_path / "images").glob("*.part"))


def test_the_results_are_on_the_disk_before_the_record(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(UserError, match="No space left"):
        Store(tmp_path).append(with_images(record(), 200))
    assert load(tmp_path).records == []
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("harm", ["missing", "torn", "changed"])
def test_a_file_that_cannot_be_used_is_named_and_its_record_counts(tmp_path, harm):
    read = kept(tmp_path, *seeds(0.9, 0.8))
    path = tmp_path / "images" / f"{read[0].images['results']}.npz"
    if harm == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:50] if harm == "torn" else content[:-1] + bytes([content[-1] ^ 1]))
    (row,) = summarise(rows(load(tmp_path).records))
    assert row["records_ok"] == 2
    assert row["accuracy_val"] == pytest.approx(0.85)
    assert row["accuracy_over"] == SEEDS_ONLY
    (problem,) = wording.image_problems([row])
    assert path.name in problem


def test_results_that_do_not_fit_their_record_are_not_used():
    made = [replace(one, accuracy_val=0.5) for one in seeds(0.9, 0.8)]
    (row,) = summarise(rows(made))
    assert row["accuracy_over"] == SEEDS_ONLY
    assert "does not fit" in row["problems"][0]


def test_a_record_cannot_name_a_file_elsewhere(tmp_path):
    named = replace(record(), images={"val": "../../secret", "test": "x", "results": "../y"})
    (read,) = kept(tmp_path, named)
    assert read.per_image.split("val") is None
    assert "is no name of a file" in read.per_image.problem


def test_they_travel_between_processes():
    made = with_images(record(), 200)
    there = from_bytes(to_bytes(made.per_image.splits))
    assert np.array_equal(there.split("test").predictions, made.per_image.split("test").predictions)


def test_a_frame_of_a_run_says_the_same_as_its_records(tmp_path):
    read = kept(tmp_path, *seeds(0.9, 0.8, 0.85))
    (from_records,), (from_frame,) = summarise(rows(read)), summarise(rows_of(frame(rows(read))))
    assert from_frame["accuracy_over"] == IMAGES_AND_SEEDS
    assert from_frame["accuracy_val_low"] == from_records["accuracy_val_low"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("head", "epochs"), [("linear", 1), ("ridge", 1)])
def test_a_measured_cell_keeps_the_results_behind_its_accuracies(head, epochs):
    cell = Cell(
        task="train", backbone="resnet18", weights="random", freeze="linear_probe", head=head, dataset="digits",
        image_size=32, epochs=epochs, device="cpu", train_size=64,
    )  # fmt: skip
    made = run_cell(cell, Settings())
    for split, accuracy in (("val", made.accuracy_val), ("test", made.accuracy_test)):
        found = made.per_image.split(split)
        assert found.images.shape == (made.samples[split], IDENTITY_BYTES)
        assert found.correct.mean() == pytest.approx(accuracy)


@pytest.mark.exhaustive
def test_a_cell_in_a_process_of_its_own_hands_them_over(tmp_path):
    cell = Cell(
        task="train", backbone="resnet18", weights="random", head="nearest_mean", dataset="digits", image_size=32,
        device="cpu", train_size=32,
    )  # fmt: skip
    with Workers(Settings(isolate="cell"), Stop()) as workers:
        there = workers.run_cell(cell, Settings(isolate="cell"), place=Place())
    (read,) = kept(tmp_path, there)
    for split, accuracy in (("val", there.accuracy_val), ("test", there.accuracy_test)):
        assert read.per_image.split(split).correct.mean() == pytest.approx(accuracy)


def test_what_a_killed_process_left_is_no_harm(tmp_path):
    """Killed between the results and the record, a run has a file too many; measured again, the cell names it."""
    made = with_images(record(), 200)
    Store(tmp_path)
    names = images.write(tmp_path, made.per_image.splits)
    (tmp_path / "images" / ".0123.7.part").write_bytes(b"torn")
    assert load(tmp_path).records == []
    (read,) = kept(tmp_path, made)
    assert read.images == names
    assert read.per_image.problem == ""


def test_inference_has_none():
    cell = Cell(task="infer", backbone="resnet18", weights="random", image_size=32, batch_size=2, device="cpu")
    made = run_cell(cell, Settings(latency_rounds=1, throughput_rounds=1))
    assert made.status == "ok"
    assert made.per_image is None


# --- what is said from them -----------------------------------------------------------------------------------


def test_the_interval_is_over_images_and_seeds():
    (row,) = summarise(rows(seeds(0.9, 0.9, 0.9, count=100)))
    assert row["accuracy_over"] == IMAGES_AND_SEEDS
    assert row["accuracy_val_low"] < 0.85  # Wilson's of 100 images alone begins at 0.826
    assert row["accuracy_val_high"] > 0.94
    assert wording.interval(row, "accuracy_val").startswith("90.0 % (")
    assert "seeds only" not in wording.interval(row, "accuracy_val")


def test_older_records_say_seeds_only():
    made = [replace(one, per_image=None) for one in seeds(0.9, 0.8, 0.85)]
    (row,) = summarise(rows(made))
    assert row["accuracy_over"] == SEEDS_ONLY
    assert wording.interval(row, "accuracy_val").endswith(", seeds only)")
    assert wording.accuracies_over([row]).startswith("seeds only")


def test_one_record_without_results_makes_its_configuration_seeds_only():
    first, *others = seeds(0.9, 0.8, 0.85)
    (row,) = summarise(rows([replace(first, per_image=None), *others]))
    assert row["accuracy_over"] == SEEDS_ONLY
    assert row["problems"] == ()


# --- McNemar --------------------------------------------------------------------------------------------------


def pair(correct_a, correct_b, seed=0, start=0):
    made = []
    for freeze, correct, first in (("full", correct_a, 0), ("norm", correct_b, start)):
        splits = {"val": results(correct, start=first)}
        made += rows([replace(record(freeze=freeze, seed=seed), per_image=PerImage(splits))])
    return [made[0]], [made[1]]


def test_discordant_images_are_counted_by_seed():
    a, b = pair([True] * 9 + [False], [False] * 8 + [True, True])
    (found,) = discordance(a, b)
    assert (found.counts.only_a, found.counts.only_b, found.counts.images) == (8, 1, 10)
    assert found.p_adjusted == pytest.approx(2 * 10 / 2**9)
    text = wording.discordances([found], "this", "that")
    assert text == (
        "images that only this and only that has right: seed 0: 8 and 1 of 10, p = 0.039 (McNemar's exact test)"
    )


def test_the_order_of_images_does_not_matter_and_other_images_are_not_compared():
    a, b = pair([True, False, True, False], [True, True, True, False])
    splits = b[0].record.per_image.splits
    turned = {
        "val": replace(
            splits["val"], **{n: getattr(splits["val"], n)[::-1] for n in ("images", "labels", "predictions")}
        )
    }
    again = rows([replace(b[0].record, per_image=PerImage(turned))])
    assert discordance(a, again) == discordance(a, b)
    assert discordance(*pair([True, False], [True, True], start=5)) == []


def test_several_seeds_are_adjusted_and_never_pooled():
    both = [pair([True] * 9 + [False], [False] * 8 + [True, True], seed) for seed in (0, 1)]
    found = discordance([a for one, _ in both for a in one], [b for _, other in both for b in other])
    assert [one.seed for one in found] == [0, 1]
    assert found[0].p_adjusted == pytest.approx(2 * found[0].counts.p_value)
    assert re.search(r"each seed by itself, by Holm", wording.discordances(found, "a", "b"))


def test_identities_tell_splits_apart():
    assert not np.array_equal(identities("val", 3), identities("test", 3))
