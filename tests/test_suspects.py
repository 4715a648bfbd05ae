"""Suspect labels: all images ranked by how surely models that have not seen them contradict their class."""

import base64
import csv
import errno
import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_image
from hypothesis import given, settings
from hypothesis import strategies as st
from records import record

from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.analysis.suspects import COLUMNS, contradiction, probabilities, ranking, suspects_of
from tlbench.errors import UserError
from tlbench.machine import scratch
from tlbench.records.images import PerImage, SplitResults
from tlbench.records.run_folder import Store
from tlbench.report import plots, write_report

CLASSES = ("ant", "bee", "cat")


def said(labels, logits, first=0, files=True):
    """What a model said of images that are known by their numbers."""
    count = len(labels)
    images = np.zeros((count, 16), np.uint8)
    images[:, 0] = np.arange(first, first + count)
    logits = np.asarray(logits, np.float16)
    return SplitResults(
        images=images, labels=np.array(labels), predictions=logits.argmax(axis=1), logits=logits, classes=CLASSES,
        files=tuple(f"{CLASSES[label]}/{first + n}.jpg" for n, label in enumerate(labels)) if files else (),
    )  # fmt: skip


def of_fold(fold, results, **more):
    accuracy = float(results.correct.mean())
    made = record(fold=fold, accuracies=(accuracy,), seconds=(1.0,), **more)
    return replace(
        made, per_image=PerImage({"test": results, "val": results}), samples={"train": 9, "val": 3, "test": 3}
    )


@st.composite
def answers(draw):
    count, classes = draw(st.integers(1, 12)), draw(st.integers(2, 6))
    numbers = st.floats(-30, 0, width=16)
    logits = draw(st.lists(st.lists(numbers, min_size=classes, max_size=classes), min_size=count, max_size=count))
    return np.array(logits), np.array(draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)))


@settings(deadline=None)
@given(answers())
def test_the_score_is_how_probable_any_other_class_is(drawn):
    logits, labels = drawn
    shares = probabilities(logits)
    assert np.allclose(shares, torch.from_numpy(logits.astype(np.float64)).softmax(1).numpy(), rtol=1e-12, atol=1e-15)
    score, likelier = contradiction(shares, labels)
    for n, label in enumerate(labels):
        others = {c: shares[n, c] for c in range(shares.shape[1]) if c != label}
        assert likelier[n] != label
        assert shares[n, likelier[n]] == max(others.values())
        assert score[n] == pytest.approx(sum(others.values()), abs=1e-12)
        assert 0 <= score[n] <= 1


def test_the_most_surely_contradicted_label_comes_first():
    ranked, models = ranking([said([0, 1, 2], [[0, -9, -9], [0, -8, -9], [-1, -9, 0]])])
    assert [row["file"] for row in ranked] == ["bee/1.jpg", "cat/2.jpg", "ant/0.jpg"]
    assert [(row["given"], row["likelier"]) for row in ranked[:2]] == [("bee", "ant"), ("cat", "ant")]
    assert ranked[0]["score"] > 0.5 > ranked[1]["score"] > ranked[2]["score"]
    assert [row["contradicted"] for row in ranked] == [True, False, False]
    assert models == 1


def test_what_models_of_several_seeds_say_is_averaged():
    sure, doubtful = said([1], [[0, -5, -9]]), said([1], [[-4, 0, -9]])
    (both,), models = ranking([sure, doubtful])
    (first,), _ = ranking([sure])
    assert (0.5 < both["score"] < first["score"], models) == (True, 2)


def test_copies_under_two_names_are_two_images_and_images_without_files_are_known_by_their_hash():
    one, other = said([0], [[0, -1, -9]]), said([1], [[0, -1, -9]])
    assert len(ranking([one, replace(other, images=one.images)])[0]) == 2
    (row,), _ = ranking([said([0], [[0, -1, -9]], files=False)])
    assert row["file"] == "sha256:" + "00" * 16


def folds(**more):
    return [
        of_fold("1of2", said([0, 1, 2], [[0, -9, -9], [0, -8, -9], [-9, -9, 0]]), **more),
        of_fold("2of2", said([0, 1, 2], [[0, -9, -9], [-8, 0, -9], [-9, -9, 0]], first=3), **more),
    ]


def test_every_image_is_in_the_list_once_whichever_fold_tested_it():
    found = suspects_of(summarise(rows(folds())))
    assert sorted(row["file"] for row in found.rows) == [
        "ant/0.jpg", "ant/3.jpg", "bee/1.jpg", "bee/4.jpg", "cat/2.jpg", "cat/5.jpg",
    ]  # fmt: skip
    assert (found.rows[0]["file"], found.contradicted, found.seeds) == ("bee/1.jpg", 1, 1)


def test_the_most_accurate_on_validation_images_is_asked():
    better = [replace(r, accuracy_val=0.99) for r in folds(freeze="full")]
    worse = [replace(r, accuracy_val=0.5) for r in folds(freeze="last_1")]
    found = suspects_of(summarise(rows([*worse, *better])))
    assert found.configuration["freeze"] == "full"


WITHOUT_LOGITS = [
    replace(r, per_image=PerImage({name: replace(split, logits=None) for name, split in r.per_image.splits.items()}))
    for r in folds()
]
FAULTS = {
    "no folds": ([record()], None, "--folds 5"),
    "no logits": (WITHOUT_LOGITS, None, "--logits on"),
    "no such data set": (folds(), "x", "Give --dataset one of: digits"),
    "two data sets": ([*folds(), *folds(dataset="folder:x")], None, "Give --dataset one of: digits, folder:x"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_ranked_is_one_line(fault):
    made, dataset, words = FAULTS[fault]
    with pytest.raises(UserError) as caught:
        suspects_of(summarise(rows(made)), dataset)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("run")
    for made in folds():
        store.append(made)
    return "run"


def test_the_list_is_a_csv_file_to_be_filled_in(run, command, tmp_path):
    status, out, err = command("suspects", run)
    listed = list(csv.DictReader(io.StringIO(out)))
    assert (status, tuple(listed[0])) == (0, tuple(COLUMNS))
    assert (listed[0]["file"], listed[0]["given"], listed[0]["likelier"]) == ("bee/1.jpg", "bee", "ant")
    assert {row["class"] for row in listed} == {""}
    assert "1 of 6 images look more like another class" in err
    assert command("suspects", run, "-o", "list.csv")[0] == 0
    assert (tmp_path / "list.csv").read_text() == out
    status, _, err = command("suspects", run, "-o", "no/list.csv")
    assert (status, err.count("\n")) == (2, 1)


def test_wrong_labels_of_photographs_are_found_and_corrected(tmp_path, monkeypatch, command):
    """From the run over the list to the run with the corrections."""
    monkeypatch.chdir(tmp_path)
    for n in range(12):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(tmp_path / "shots" / label / f"{n}.jpg", color, seed=n + color)
    (tmp_path / "shots" / "dark" / "3.jpg").rename(tmp_path / "shots" / "light" / "wrong.jpg")
    options = ["--backbone=mobilenet_v3_small", "--weights=random", "--image-size=32", "--twins=0"]
    options += ["--task=train", "--head=ridge", "--freeze=linear_probe", "--isolate=none", "--layout=contiguous"]
    status, _, err = command("run", "shots", *options, "--out=before")
    assert status == 0, err
    assert command("suspects", "before", "--out", "list.csv")[0] == 0
    with open("list.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert (len(listed), listed[0]["file"], listed[0]["likelier"]) == (24, "light/wrong.jpg", "dark")
    listed[0]["class"] = "dark"
    with open("list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(listed)
    status, out, err = command("run", "shots", *options, "--relabel=list.csv", "--out=after")
    assert status == 0, err
    status, out, _ = command("suspects", "after")
    (row,) = [row for row in csv.DictReader(io.StringIO(out)) if row["file"] == "light/wrong.jpg"]
    assert (row["given"], float(row["score"]) < 0.5) == ("dark", True)


# --- the report -------------------------------------------------------------------------------------------------


@pytest.fixture
def flipped(tmp_path, monkeypatch):
    """A run of two folds over photographs, of which one is in the wrong folder."""
    monkeypatch.setattr(plots, "PLOTS", {})
    monkeypatch.chdir(tmp_path)
    store = Store("run")
    for fold, first in (("1of2", 0), ("2of2", 3)):
        told = said([0, 1, 2], [[0, -9, -9], [0, -8, -9], [-9, -9, 0]], first=first)
        if fold == "2of2":
            told = said([0, 1, 2], [[0, -9, -9], [-8, 0, -9], [-9, -9, 0]], first=first)
        images = []
        for file in told.files:
            place = save_image(tmp_path / "shots" / file, 90, seed=len(file) + first)
            images.append(list(hashlib.sha256(place.read_bytes()).digest()[:16]))
        store.append(of_fold(fold, replace(told, images=np.array(images, np.uint8)), dataset="folder:shots"))
    return tmp_path / "run"


def pages(folder):
    return [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]


def test_a_report_shows_the_images_whose_labels_look_wrong(flipped, command):
    status, _, err = command("report", flipped)
    assert status == 0, err
    page, text = pages(flipped)
    part = page[page.index('<section id="suspects">') :]
    part = part[: part.index("</section>")]
    assert part.count("data:image/jpeg;base64,") == 1
    assert "1 of 6 images look more like another class" in part
    for words in ("called bee", "looks like ant", "bee/1.jpg"):
        assert words in part
    assert "bee/1.jpg: called bee, looks like ant" in text.replace("\\", "")
    assert len(base64.b64decode(part.split("base64,")[1].split('"')[0])) < 10_000


@pytest.mark.parametrize("how", ["--no-thumbnails", "--share", "gone"])
def test_its_pictures_are_left_out_where_they_are_not_wanted_or_gone(how, flipped, command):
    if how == "gone":
        save_image(flipped.parent / "shots/bee/1.jpg", 7)
    status, _, err = command("report", flipped, *([how] if how != "gone" else []))
    assert status == 0, err
    page, text = pages(flipped / "shared" if how == "--share" else flipped)
    assert "data:image/jpeg" not in page[page.index('id="suspects"') :].partition("</section>")[0]
    assert ("bee/1.jpg" in page) == ("bee/1.jpg" in text) == (how != "--share")
    assert ("1 image not shown: the file is not where it was" in page) == (how == "gone")


def test_a_report_without_folds_says_nothing_of_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "PLOTS", {})
    write_report([record()], tmp_path)
    assert "suspects" not in pages(tmp_path)[0].replace("tlbench suspects", "")
    write_report(WITHOUT_LOGITS, tmp_path)
    assert "Labels were not ranked: no cell that was measured in folds has the logits" in pages(tmp_path)[0]


# --- a second round -----------------------------------------------------------------------------------------------


@pytest.fixture
def corrected(tmp_path, monkeypatch):
    """A run that was measured with corrections, which lie beside it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fix.csv"
    path.write_text("file,class\nbee/1.jpg,ant\n")
    told = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "images": 1}
    store = Store("run")
    for made in folds(relabel=str(path)):
        store.append(replace(made, relabelled=told))
    return path


def test_earlier_corrections_stand_in_the_new_list(corrected, command):
    """It takes the place of the earlier one, which it undid."""
    status, out, err = command("suspects", "run")
    assert status == 0
    assert {row["file"]: row["class"] for row in csv.DictReader(io.StringIO(out)) if row["class"]} == {
        "bee/1.jpg": "ant"
    }
    assert "1 corrections of" in err
    corrected.write_text("file,class\nbee/1.jpg,cat\n")
    status, out, err = command("suspects", "run")
    assert not [row for row in csv.DictReader(io.StringIO(out)) if row["class"]]
    assert "are not in the list (it is another file now)" in err


def test_corrections_by_hand_are_not_written_over(run, command, tmp_path):
    (tmp_path / "list.csv").write_text("file,class\nbee/1.jpg,ant\n")
    status, _, err = command("suspects", run, "-o", "list.csv")
    assert (status, err.count("\n")) == (2, 1)
    assert "has 1 corrected classes that the new list lacks" in err
    assert (tmp_path / "list.csv").read_text() == "file,class\nbee/1.jpg,ant\n"


def test_a_list_that_cannot_be_written_whole_leaves_the_one_that_is_there(corrected, command, monkeypatch):
    before = corrected.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scratch, "write_all", full)
    status, _, err = command("suspects", "run", "-o", str(corrected))
    assert (status, err.count("\n")) == (2, 1)
    assert "No space left" in err
    assert corrected.read_bytes() == before
    assert [path.name for path in corrected.parent.iterdir() if path.suffix == ".part"] == []


def test_a_pipe_is_written_to_and_not_read(run, tmp_path):
    """It was waited for, for ever."""
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    subprocess.run(
        [sys.executable, "-m", "tlbench", "suspects", run, "-o", str(tmp_path / "pipe")], check=True, timeout=60
    )
    assert reader.communicate(timeout=60)[0].startswith("file,given,likelier")


def test_what_the_new_list_has_too_is_written_over(corrected, command):
    assert command("suspects", "run", "-o", str(corrected))[0] == 0
    assert command("suspects", "run", "-o", str(corrected))[0] == 2, "it is no longer what the run was measured with"
