"""Logits, class names and file names beside the records: kept as measured, never charged, and left out where wanted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from digits import few_digits
from hypothesis import given, settings
from hypothesis import strategies as st
from images import with_images
from models import Pictures, tiny
from records import record
from torch.nn import functional

from tlbench.analysis import metrics
from tlbench.analysis.frame import rows
from tlbench.grid.cell import Cell
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.measure.cell import run_cell
from tlbench.records import arrays, images
from tlbench.records.images import PerImage, from_bytes, to_bytes
from tlbench.records.run_folder import Store, load
from tlbench.train import evaluate as evaluation
from tlbench.train.evaluate import below_the_largest, evaluate

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
CELL = Cell(
    task="train", backbone="mobilenet_v3_small", weights="random", freeze="linear_probe", dataset="digits",
    image_size=32, epochs=2, device="cpu", train_size=40, layout="contiguous",
)  # fmt: skip


def kept(logits):
    """How logits (n, K) are kept."""
    return below_the_largest([torch.as_tensor(logits, dtype=torch.float32)]).numpy()


def with_logits(made, classes=("first", "second"), files=True):
    """The record with logits that fit its predictions."""
    splits = {}
    for name in ("val", "test"):
        one = made.per_image.split(name)
        paths = tuple(f"{name}/é{n}.jpg" for n in range(len(one.labels))) if files else ()
        splits[name] = replace(one, logits=kept(np.eye(2)[one.predictions] * 3), classes=classes, files=paths)
    return replace(made, per_image=PerImage(splits))


# --- how they are kept ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.sampled_from([0.3, 1.0, 30.0, 1e4, 1e6, 1e30]))
def test_no_logits_overflow_and_predictions_are_those_of_single_precision(seed, classes, scale):
    logits = (np.random.default_rng(seed).normal(size=(30, classes)) * scale).astype(np.float32)
    found = kept(logits)
    assert found.dtype == np.float16
    assert np.isfinite(found).all()
    assert (found.max(axis=1) == 0).all()
    assert found.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_figures_from_half_precision_are_those_of_single_precision(scale, shift):
    """Kept as they are, logits around 1000 would be off by half a unit."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 3000)
    logits = (rng.normal(size=(3000, 20)) * scale).astype(np.float32)
    found = kept(logits + np.float32(shift))
    assert metrics.negative_log_likelihood(labels, found) == pytest.approx(
        metrics.negative_log_likelihood(labels, logits), rel=1e-3
    )
    assert metrics.calibration_error(labels, found) == pytest.approx(
        metrics.calibration_error(labels, logits), abs=2e-3
    )
    assert metrics.top_accuracy(labels, found) == pytest.approx(metrics.top_accuracy(labels, logits), abs=1e-3)


def test_what_is_impossible_stays_so():
    found = kept([[0.0, -torch.inf, 5.0]])
    assert found.tolist() == [[-5.0, evaluation.LOWEST, 0.0]]
    assert np.exp(metrics.log_probabilities(found))[0, 1] == 0


# --- evaluating -----------------------------------------------------------------------------------------------


def test_an_evaluation_with_logits_is_the_same_evaluation():
    model, source = tiny(), Pictures()
    plain, rich = evaluate(model, source, 8), evaluate(model, source, 8, keep_logits=True)
    assert plain.logits is None
    assert torch.equal(plain.predictions, rich.predictions)
    assert (plain.accuracy, plain.loss) == (rich.accuracy, rich.loss)
    expected = model.eval()(source.normalise(source.images)).detach()
    assert torch.equal(rich.logits, below_the_largest([expected]))
    assert rich.logits.argmax(1).tolist() == plain.predictions.tolist()
    loss = functional.cross_entropy(rich.logits.double(), source.labels).item()
    assert loss == pytest.approx(plain.loss, rel=1e-3)


def test_keeping_them_is_not_charged(monkeypatch):
    """The clock has been read when they are brought to half precision."""
    events = []
    clock, keep = evaluation.now, evaluation.below_the_largest
    monkeypatch.setattr(evaluation, "now", lambda: (events.append("clock"), clock())[1])
    monkeypatch.setattr(evaluation, "below_the_largest", lambda kept: (events.append("keep"), keep(kept))[1])
    evaluate(tiny(), Pictures(), 8, keep_logits=True)
    assert events == ["clock", "clock", "keep"]


def test_many_logits_are_brought_to_half_precision_on_the_way_and_that_is_not_charged(monkeypatch):
    """They would fill the memory of a GPU."""
    model, source = tiny(), Pictures()
    whole = evaluate(model, source, 8, keep_logits=True)
    keep, calls, clock = evaluation.below_the_largest, [], [0.0]

    def slow(logits):
        calls.append(len(logits))
        clock[0] += 10
        return keep(logits)

    monkeypatch.setattr(evaluation, "MOST_HELD", 100)  # of 8 x 3 numbers of 4 bytes
    monkeypatch.setattr(evaluation, "below_the_largest", slow)
    monkeypatch.setattr(evaluation, "now", lambda: clock[0])
    found = evaluate(model, source, 8, keep_logits=True)
    assert calls == [2, 1]
    assert torch.equal(found.logits, whole.logits)
    assert found.seconds == 0


@pytest.fixture(scope="module")
def measured():
    """The same cell twice: with logits, and without."""
    with few_digits():
        return run_cell(CELL, Settings()), run_cell(CELL, Settings(logits=False))


def test_a_cell_keeps_those_of_its_last_epoch_and_of_the_test_images(measured):
    made, _ = measured
    for split, loss in (("val", made.rounds[-1].loss_val), ("test", made.loss_test)):
        found = made.per_image.split(split)
        assert found.logits.shape == (made.samples[split], 10)
        assert found.logits.dtype == np.float16
        assert found.logits.argmax(axis=1).tolist() == found.predictions.tolist()
        assert metrics.negative_log_likelihood(found.labels, found.logits) == pytest.approx(loss, rel=1e-3)
        assert found.classes == tuple("0123456789")
        assert found.files == ()


def test_without_them_nothing_else_is_different(measured):
    rich, plain = measured
    assert plain.status == "ok"
    assert plain.per_image.split("test").logits is None
    assert plain.predictions_sha256 == rich.predictions_sha256
    assert (plain.accuracy_val, plain.accuracy_test, plain.loss_test) == (
        rich.accuracy_val, rich.accuracy_test, rich.loss_test
    )  # fmt: skip
    assert [r.loss for r in plain.rounds] == [r.loss for r in rich.rounds]
    assert plain.key == rich.key


def test_the_frame_tells_what_they_say(measured):
    rich, plain = rows([*measured])
    assert rich.nll_test == pytest.approx(measured[0].loss_test, rel=1e-3)
    assert rich.top5_accuracy_test >= rich.accuracy_test
    assert (plain.nll_test, plain.ece_test) == (None, None)
    assert plain.balanced_accuracy_test == rich.balanced_accuracy_test


def test_a_fitted_head_keeps_them_as_well():
    with few_digits():
        made = run_cell(replace(CELL, head="nearest_mean"), Settings())
    for split in ("val", "test"):
        found = made.per_image.split(split)
        assert found.logits.argmax(axis=1).tolist() == found.predictions.tolist()


def test_file_names_follow_the_split():
    from tlbench.data import DATASETS

    row = DATASETS["digits"]

    def named(request):
        known, parts = row.load(request)
        return replace(known, files=tuple(f"{label}/{n}.png" for n, label in enumerate(known.labels))), parts

    with few_digits(), pytest.MonkeyPatch.context() as patch:
        row = DATASETS["digits"]
        patch.setitem(DATASETS, "digits", replace(row, load=named))
        made = run_cell(CELL, Settings())
    found = made.per_image.split("test")
    assert len(set(found.files)) == len(found.labels)
    assert [name.partition("/")[0] for name in found.files] == [str(label) for label in found.labels]


# --- files ----------------------------------------------------------------------------------------------------


def test_they_are_read_as_they_were_written(tmp_path):
    made = with_logits(with_images(record(), 200))
    Store(tmp_path).append(made)
    (read,) = load(tmp_path).records
    for split in ("val", "test"):
        before, after = made.per_image.split(split), read.per_image.split(split)
        assert np.array_equal(before.logits, after.logits)
        assert (after.logits.dtype, after.classes, after.files) == (np.float16, before.classes, before.files)
    assert read.per_image.split("val", logits=False).logits is None
    assert read.per_image.problem == ""


def test_no_file_has_a_pickle_and_names_of_any_kind_are_kept(tmp_path):
    odd = ("äöü/ñ 1.jpg", "日本/b.png", "half \udce9.jpg", "-", "a,b\n.jpg")
    made = with_images(record(), len(odd))
    splits = {name: replace(made.per_image.split(name), files=odd) for name in ("val", "test")}
    Store(tmp_path).append(replace(made, per_image=PerImage(splits)))
    (read,) = load(tmp_path).records
    assert read.per_image.split("val").files == odd
    for path in (tmp_path / "images").iterdir():
        with np.load(path, allow_pickle=False) as file:
            assert all(file[name].dtype != object for name in file.files)


def test_cells_share_names_and_have_logits_of_their_own(tmp_path):
    store = Store(tmp_path)
    for seed in range(3):
        store.append(with_logits(with_images(record(seed=seed, accuracies=(0, 0, 0.9 - seed / 10)), 200)))
    read = load(tmp_path).records
    assert len({one.images["val"] for one in read}) == 1
    assert len(list((tmp_path / "images").iterdir())) == 2 + 3


def test_they_are_not_unpacked_for_what_needs_none(tmp_path, monkeypatch):
    Store(tmp_path).append(with_logits(with_images(record(), 200)))
    unpacked = []
    read = arrays.unpack

    def watched(content, wanted=arrays.every):
        found = read(content, wanted)
        unpacked.extend(found)
        return found

    monkeypatch.setattr(images, "unpack", watched)
    (row,) = rows(load(tmp_path).records)
    assert row.balanced_accuracy_test is not None
    assert row.record.per_image.split("val", logits=False).correct.mean() == pytest.approx(0.9)
    assert not [name for name in unpacked if name.endswith(".logits")]
    assert row.nll_test is not None
    assert [name for name in unpacked if name.endswith(".logits")] == ["test.logits"]


@pytest.mark.parametrize("shape", [(199, 2), (200,), (0, 0)])
def test_logits_of_other_images_are_a_problem_that_is_named(tmp_path, shape):
    made = with_images(record(), 200)
    splits = {name: replace(made.per_image.split(name), logits=np.zeros(shape, np.float16)) for name in ("val", "test")}
    names = images.write(tmp_path, splits)
    reader = images.Reader(tmp_path)
    with pytest.raises(ValueError, match="its logits are of another number of images"):
        reader.split(names, "val")
    assert reader.split(names, "val", logits=False) is not None


def test_they_travel_between_processes():
    made = with_logits(with_images(record(), 200))
    there = from_bytes(to_bytes(made.per_image.splits))
    for split in ("val", "test"):
        before, after = made.per_image.split(split), there.split(split)
        assert np.array_equal(before.logits, after.logits)
        assert (after.classes, after.files) == (before.classes, before.files)
    bare = from_bytes(to_bytes(with_images(record(), 20).per_image.splits)).split("val")
    assert (bare.logits, bare.classes, bare.files) == (None, (), ())


@pytest.mark.parametrize("name", [path.name for path in sorted(PUBLISHED.iterdir()) if path.is_dir()])
def test_runs_that_were_published_without_them_are_read_and_say_what_they_can(name):
    trained = [row for row in rows(load(PUBLISHED / name).records) if row.accuracy_test is not None]
    for row in trained[:20]:
        found = row.record.per_image.split("test")
        assert (found.logits, found.files) == (None, ())
        assert row.balanced_accuracy_test == pytest.approx(
            metrics.balanced_accuracy(found.labels, found.predictions), abs=1e-12
        )
        assert (row.nll_test, row.ece_test, row.top5_accuracy_test) == (None, None, None)


def test_the_setting_decides_no_figure_and_may_change_when_a_run_goes_on():
    assert SETTINGS["logits"].guards
    assert SETTINGS["logits"].parse("off") is False
