"""Hugging Face's data sets: saved to disk, a folder, a name on the hub; columns, splits, what is wrong with them."""

import hashlib
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlbench.campaign.moved import names_a_place
from tlbench.campaign.nodes import facts
from tlbench.data import Request, check_dataset, describe_data, hf, load_data
from tlbench.errors import UserError
from tlbench.machine.kept import KEPT

datasets = pytest.importorskip("datasets", reason="the library datasets (pip install 'tlbench[hf]') is not installed")

SIZE = 12
_random = np.random.default_rng(0)
NAMES = ("ant", "bee")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    """Nothing is decoded yet, and the library's cache is the test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def picture():
    buffer = io.BytesIO()
    Image.fromarray(_random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table(count=5, labels=None, image="image", label="label", kind=None, **more):
    """``count`` images of each of two classes."""
    values = [0, 1] * count if labels is None else labels
    columns = {image: [picture() for _ in values], label: values, **{k: v * len(values) for k, v in more.items()}}
    features = {image: datasets.Image(), label: kind or datasets.ClassLabel(names=list(NAMES))}
    features |= {k: datasets.Value("string") if isinstance(v[0], str) else datasets.ClassLabel(num_classes=3)
                 for k, v in more.items()}  # fmt: skip
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(path, **splits):
    """Saves tables to disk: one, or several by the names of splits."""
    datasets.disable_progress_bars()
    whole = splits.pop("whole", None)
    (whole or datasets.DatasetDict(splits)).save_to_disk(str(path))
    return path


def load(path, seed=0, **options):
    return load_data(f"hf:{path}", Request(size=SIZE, resize=SIZE, interpolation="bilinear", seed=seed, **options))


def message(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.isprintable(), ascii(text)
    return text


def pixels(data, part):
    split = getattr(data, part)
    return {
        split.images[i].numpy().tobytes(): data.classes[label]
        for i, label in zip(split.index.tolist(), split.labels.tolist(), strict=True)
    }


def of_table(rows, label="label", names=NAMES):
    return {np.asarray(row["image"].convert("RGB")).transpose(2, 0, 1).tobytes(): names[row[label]] for row in rows}


# --- splits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("val", ["validation", "val", "valid", "dev"])
def test_splits_are_found_by_name(val, tmp_path):
    splits = {"train": table(), val: table(3), "test": table(3)}
    data = load(saved(tmp_path / "x", **splits))
    assert data.classes == NAMES
    for part, split in (("train", "train"), ("val", val), ("test", "test")):
        assert pixels(data, part) == of_table(splits[split])
    assert hf.split_of(str(tmp_path / "x")) == "train, val and test as they are in the data set"


@pytest.mark.parametrize("other", ["validation", "test"])
def test_what_is_not_there_is_cut_from_train_and_test_stays_test(other, tmp_path):
    splits = {"train": table(9), other: table(3)}
    path = saved(tmp_path / "x", **splits)
    first, second = load(path), load(path, seed=1)
    assert pixels(first, "test") == pixels(second, "test") == of_table(splits[other])
    assert {*pixels(first, "train"), *pixels(first, "val")} == {*of_table(splits["train"])}
    assert pixels(first, "val") != pixels(second, "val")
    assert hf.split_of(str(path)).startswith("val is what" if other == "validation" else "test is what")


@pytest.mark.parametrize("single", [True, False])
def test_one_split_is_divided_by_seed(single, tmp_path):
    one = table(9)
    path = saved(tmp_path / "x", whole=one) if single else saved(tmp_path / "x", train=one)
    data = load(path)
    parts = [pixels(data, part) for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 18
    assert {**parts[0], **parts[1], **parts[2]} == of_table(one)
    assert "70/15/15" in hf.split_of(str(path))


@pytest.mark.parametrize("size", [0, 10**9], ids=["mapped", "in memory"])
def test_what_is_saved_anew_in_the_same_place_is_read_anew(size, tmp_path, monkeypatch):
    """Tables in memory have no files to tell by: the earlier images were taken for these."""
    monkeypatch.setattr(datasets.config, "IN_MEMORY_MAX_SIZE", size)
    for _ in range(2):
        splits = {"train": table(9), "test": table(3)}
        path = saved(tmp_path / "x", **splits)
        KEPT.images.forget()
        assert pixels(load(path), "test") == of_table(splits["test"])
        shutil.rmtree(path)


def test_a_test_split_without_labels_is_not_used(tmp_path):
    path = saved(tmp_path / "x", train=table(9), validation=table(3), test=table(labels=[-1, -1, -1]))
    data = load(path)
    assert len(data.test) == 6, "validation is what is tested on"
    assert hf.remarks_of(str(path)) == ("not used: split 'test', whose images have no labels",)


def test_splits_can_be_named(tmp_path):
    splits = {"small": table(9), "large": table(9), "final": table(3)}
    path = saved(tmp_path / "x", **splits)
    data = load(f"{path}(train=small,test=final)")
    assert pixels(data, "test") == of_table(splits["final"])
    assert not pixels(data, "train").keys() & of_table(splits["large"]).keys()
    assert hf.remarks_of(f"{path}(train=small,test=final)") == ("not used: splits 'large'",)


# --- columns --------------------------------------------------------------------------------------------------


def test_columns_are_found_by_type_or_name_or_named(tmp_path):
    path = saved(tmp_path / "a", whole=table(9, image="scan", label="breed"))
    assert load(path).classes == NAMES
    two = table(9, other=[0])
    path = saved(tmp_path / "b", whole=two)
    assert load(path).classes == NAMES, "one of the two is called label"
    assert "'other'" in hf.remarks_of(str(path))[0]
    path = saved(tmp_path / "c", whole=table(9, label="fine_label", coarse_label=[0]))
    text = message(load, path)
    assert "2 columns of labels, 'fine_label', 'coarse_label'" in text
    assert "label=COLUMN of image" in text
    assert load(f"{path}(label=fine_label)").classes == NAMES


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("string", ["b", "a"], ("a", "b")),
        ("int64", [10, 9], ("9", "10")),
        ("bool", [True, False], ("False", "True")),
    ],
)
def test_labels_may_be_texts_and_numbers(kind, labels, classes, tmp_path):
    path = saved(tmp_path / "x", whole=table(labels=labels * 9, kind=datasets.Value(kind)))
    assert load(path).classes == classes


def test_classes_keep_the_order_of_the_library(tmp_path):
    kind = datasets.ClassLabel(names=["zebra", "never", "ant"])
    path = saved(tmp_path / "x", whole=table(labels=[2, 0] * 9, kind=kind))
    assert load(path).classes == ("zebra", "ant"), "less those that no image has"


# --- images ---------------------------------------------------------------------------------------------------


def test_identities_are_those_of_the_encoded_bytes(tmp_path):
    one = table(9)
    data = load(saved(tmp_path / "x", whole=one))
    encoded = one.cast_column("image", datasets.Image(decode=False))
    assert {*data.identities} == {hashlib.sha256(row["image"]["bytes"]).digest() for row in encoded}


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    rows = [picture() for _ in range(18)]
    rows[3] = {"bytes": b"no image", "path": None}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    path = saved(tmp_path / "x", train=datasets.Dataset.from_dict({"image": rows, "label": [0, 1] * 9}, features))
    text = message(load, path)
    assert "1 of 18 images" in text
    assert "'train/000003': it is no image" in text
    assert len(load(path, bad_images="skip").dropped) == 1


def test_what_was_found_is_kept_until_the_data_set_changes(tmp_path):
    request = Request(size=SIZE, resize=SIZE, interpolation="bilinear", seed=0)
    name = f"hf:{saved(tmp_path / 'x', whole=table(9))}"
    assert describe_data(name, request, decode=False) is None
    found = load_data(name, request)
    KEPT.images.forget()
    assert describe_data(name, request, decode=False).sha256 == found.sha256
    saved(tmp_path / "x", whole=table(8))
    assert describe_data(name, request, decode=False) is None


def test_a_folder_that_the_library_reads(tmp_path):
    one = table(9)
    (tmp_path / "x").mkdir()
    one.to_parquet(str(tmp_path / "x" / "train.parquet"))
    assert len(load(tmp_path / "x").labels) == 18
    for split, count in (("train", 6), ("test", 3)):
        for name in NAMES:
            for n in range(count):
                file = tmp_path / "y" / split / name / f"{n}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture()["bytes"])
    data = load(tmp_path / "y")
    assert (data.classes, len(data.test)) == (NAMES, 6)
    assert {*data.identities} == {hashlib.sha256(f.read_bytes()).digest() for f in (tmp_path / "y").rglob("*.png")}
    (tmp_path / "y" / "test" / "bee" / "0.png").write_bytes(b"no image")
    assert "'test/bee/0.png': it is no image" in message(load, tmp_path / "y"), "a file is known by its path"


def test_a_folder_whose_name_looks_like_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "photos (1)", whole=table(9))
    assert load("photos (1)").classes == NAMES


# --- names on the hub -----------------------------------------------------------------------------------------


def test_what_is_not_in_the_cache_is_not_asked_for(tmp_path, command):
    status, _, err = command("run", "--dataset=hf:owner/none-such", "--dry-run")
    assert (status, len(err.splitlines())) == (2, 1)
    for word in ("'hf:owner/none-such' is not in Hugging Face's cache", "HF_HOME", "--download", "save_to_disk"):
        assert word in err


def test_without_a_network_a_download_is_one_line(command):
    status, _, err = command("run", "--dataset=hf:owner/none-such", "--download")
    assert status == 2
    assert "hf:owner/none-such could not be downloaded" in err.splitlines()[-1]
    assert "save_to_disk(FOLDER)" in err.splitlines()[-1]


def test_a_download_says_first_how_large_it_is(monkeypatch, tmp_path):
    from tlbench.data.fetching import fetch

    said, asked = [], []

    class Builder:
        info = datasets.DatasetInfo(download_size=12_000_000)

    def load_dataset(name, config=None):
        if not said:
            raise FileNotFoundError("it is not in the cache")
        asked.append((name, config))

    monkeypatch.setattr(hf, "_check_host", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config=None: Builder)
    fetch(["hf:owner/name(config=small)"], said.append)
    assert said == [f"hf:owner/name(config=small): downloads about 12 MB into {str(tmp_path / 'hf-cache')!r}"]
    assert asked == [("owner/name", "small")]


def test_a_name_is_no_place(tmp_path):
    assert not names_a_place("dataset", "hf:owner/name(label=y)")
    assert not names_a_place("dataset", "hf:beans")
    for path in (str(tmp_path), f"{tmp_path}(label=y)", "./gone", "~/gone", "a/b/c"):
        assert names_a_place("dataset", f"hf:{path}")
    asked = {"datasets": ["hf:owner/name", f"hf:{tmp_path}/gone"], "weights": [], "plugins": [], "room": 0}
    assert facts(asked)["images"] == {"hf:owner/name": "hf:owner/name", f"hf:{tmp_path}/gone": ""}


# --- what is wrong --------------------------------------------------------------------------------------------


def lengths(path):
    return saved(path, whole=table(labels=[0.5, 1.5] * 9, kind=datasets.Value("float32")))


WRONG = {
    "no name": ("", lambda path: None, ["names no data set", "hf:OWNER/NAME"]),
    "no folder": ("./gone", lambda path: None, ["'./gone' does not exist", "OWNER/NAME"]),
    "empty folder": ("{x}", lambda path: path.mkdir(), ["cannot be read", "datasets says"]),
    "a file": ("{x}", lambda path: path.write_text("a,b"), ["is a file", "list:"]),
    "argument": ("{x}(labels=y)", lambda path: saved(path, whole=table()), ["'labels'", "did you mean 'label'"]),
    "column": ("{x}(label=lable)", lambda path: saved(path, whole=table()), ["no column 'lable'", "'label'", "image"]),
    "no images": ("{x}(image=label)", lambda path: saved(path, whole=table()), ["'label' holds no images"]),
    "no label": ("{x}", lambda p: saved(p, whole=table(9, label="n", kind=datasets.Value("int64"))), ["label=COLUMN"]),
    "measures": ("{x}", lengths, ["'label' holds float32", "label=COLUMN"]),
    "some labels": (
        "{x}",
        lambda path: saved(path, whole=table(labels=[0, -1, 1] * 5)),
        ["5 of 15 rows of split 'train'", "row 1"],
    ),
    "strange splits": (
        "{x}",
        lambda path: saved(path, train=table(), extra=table()),
        ["'train', 'extra'", "'extra' is none of", "train=SPLIT"],
    ),
    "two for one": ("{x}", lambda path: saved(path, train=table(), val=table(), dev=table()), ["'val' and 'dev'"]),
    "split": ("{x}(test=tset)", lambda path: saved(path, train=table(), test=table()), ["'tset'", "mean 'test'"]),
    "one split twice": ("{x}(train=a,test=a)", lambda path: saved(path, a=table(), b=table()), ["given for two"]),
    "nothing to train on": ("{x}", lambda path: saved(path, val=table(), test=table()), ["none to train on"]),
    "configuration": ("{x}(config=a)", lambda path: saved(path, whole=table()), ["no configurations"]),
    "one class": ("{x}", lambda path: saved(path, whole=table(labels=[0] * 9)), ["only one class, 'ant'"]),
    "class that train lacks": (
        "{x}",
        lambda path: saved(path, train=table(labels=["a", "b"] * 9, kind=datasets.Value("string")),
                           test=table(labels=["a", "c"] * 3, kind=datasets.Value("string"))),
        ["class 'c' has images in test, but none in train"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_line_and_status_2(case, tmp_path, command):
    form, make, words = WRONG[case]
    make(tmp_path / "x")
    path = form.format(x=tmp_path / "x")
    said = message(check_dataset, f"hf:{path}")
    for word in words:
        assert word in said
    status, _, err = command("run", f"--dataset=hf:{path}", "--dry-run")
    assert (status, err.splitlines()) == (2, [f"tlbench: {said}"])


def test_the_library_is_asked_for_where_it_is_not(tmp_path, monkeypatch):
    path = saved(tmp_path / "x", whole=table())
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert message(check_dataset, f"hf:{path}") == "hf: needs the library datasets: pip install 'tlbench[hf]'"


@pytest.mark.exhaustive
def test_a_run_on_what_was_saved(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "x", train=table(9), test=table(3))
    status, out, err = command(
        "run", f"hf:{path}", "--backbone=resnet18", "--weights=random", "--freeze=linear_probe", "--epochs=1",
        "--image-size=32", "--batch-size=4", "--threads=1", "--isolate=none", "--out=run",
    )  # fmt: skip
    assert status == 0, out + err
    assert Path("run/records.jsonl").exists()


def test_two_columns_of_images_are_two_data_sets(tmp_path, monkeypatch):
    """The second one's cells were lent the first one's images, and both were pooled as one."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    columns = {"left": [picture() for _ in range(10)], "right": [picture() for _ in range(10)], "y": [0, 1] * 5}
    kinds = {"left": datasets.Image(), "right": datasets.Image(), "y": datasets.ClassLabel(names=list(NAMES))}
    saved(tmp_path / "x", whole=datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)))
    left, right = (load(f"{tmp_path}/x(image={name},label=y)") for name in ("left", "right"))
    assert left.images_sha256 != right.images_sha256
    assert not set(pixels(left, "train")) & set(pixels(right, "train"))
    KEPT.images.forget()
    known = [
        describe_data(
            f"hf:{tmp_path}/x(image={name},label=y)", Request(size=SIZE, resize=SIZE, interpolation="bilinear", seed=0)
        )
        for name in ("left", "right")
    ]
    assert [one.images_sha256 for one in known] == [left.images_sha256, right.images_sha256]


def test_a_column_called_label_is_not_passed_over_for_another_of_the_type(tmp_path):
    whole = (
        table(label="domain", label_=[0]).rename_column("label_", "label").cast_column("label", datasets.Value("int64"))
    )
    path = saved(tmp_path / "x", whole=whole)
    said = message(load, path)
    assert "in column 'domain', by its type, or in 'label', by its name" in said
    assert load(f"{path}(label=domain)").classes == NAMES
