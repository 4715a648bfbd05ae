"""How people lay out their images: what is read of a folder, and what is said of the rest, or the line that refuses it.

The names of splits are those that timm, fastai, Ultralytics, Keras and Hugging Face look for.
"""

import io
import itertools
import os
import pwd
import unicodedata
from collections import Counter

import numpy as np
import pytest
from image_files import turned
from PIL import Image, features

from tlbench.backbones import outlook as weights_outlook
from tlbench.campaign import isolate
from tlbench.campaign.outlook import short_name
from tlbench.data import Request, check_dataset, check_dataset_commas, heif, load_data
from tlbench.data.decode import read_image
from tlbench.data.inside import OF_SYSTEMS, endings
from tlbench.data.scan import scan, split_of, unread_endings
from tlbench.errors import UserError
from tlbench.grid.values import join_values
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def picture(size=(8, 8)):
    """The bytes of an image of one colour, another one at each call."""
    number, buffer = next(_numbers), io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256 % 256, number // 65536 % 256)).save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(root, tree):
    """Makes what a tree says: of a folder the number of its images, or ``folder`` for none; of a file what it is."""
    root.mkdir(parents=True, exist_ok=True)
    for name, what in tree.items():
        path = root / name
        if isinstance(what, int) or what == "folder":
            path.mkdir(parents=True, exist_ok=True)
            for number in range(what if isinstance(what, int) else 0):
                (path / f"{number}.png").write_bytes(picture())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture() if what == "image" else b"a text")
    return root


def load(root, **options):
    return load_data(f"folder:{root}", Request(size=8, resize=8, interpolation="bilinear", seed=0, **options))


def refusal(call, *arguments):
    """The text of the UserError, which must be one line that a terminal shows as it is."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable(), ascii(str(caught.value))
    return str(caught.value)


def two(split, count=4):
    return {f"{split}/a": count, f"{split}/b": count}


def link(place, target):
    """Makes a link in the folder to what lies at ``target`` as seen from the link."""

    def change(root):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(target)

    return change


def hard_link(place, other):
    return lambda root: os.link(root / other, root / place)


def elsewhere(tree, *links):
    """Lays out a folder beside that of the data set, and links into it."""

    def change(root):
        lay_out(root.parent / "elsewhere", tree)
        for place, target in links:
            link(place, root.parent / "elsewhere" / target)(root)

    return change


def behind_a_link(root):
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
AB = {"a": 4, "b": 4}
BOTH = {"train": AB, "val": AB}
LEFT_BY_SYSTEMS = {
    ".DS_Store": "text",
    "train/.DS_Store": "text",
    "train/a/.DS_Store": "text",
    "train/a/._0.png": "text",
    "train/a/Thumbs.db": "text",
    "train/a/desktop.ini": "text",
    "train/.ipynb_checkpoints/0-checkpoint.png": "image",
    "train/a/.ipynb_checkpoints/0-checkpoint.png": "image",
    "__MACOSX/train/a/._0.png": "text",
    "__MACOSX/0.png": "image",
    "val/@eaDir/0.png": "image",
    "val/a/@eaDir/0.png": "image",
    ".git/objects": 1,
    "lost+found": "folder",
}

READ = {
    # name: what is there, images of each class and split (without a name where they are to be divided), what is said
    # of the rest, a line each, and what is done to the folder
    "train and val": (two("train") | two("val"), BOTH),
    "train and test": (two("train") | two("test"), {"train": AB, "test": AB}),
    "one class in val": (
        two("train") | {"val/a": 4} | two("test"),
        {"train": AB, "val": {"a": 4}, "test": AB},
        ["val/ has no images of 1 of the 2 classes: 'b'"],
    ),
    "images of one class in val": (
        two("train") | {"val/a": 4, "val/b": "folder"} | two("test"),
        {"train": AB, "val": {"a": 4}, "test": AB},
        ["val/ has no images of 1 of the 2 classes: 'b'"],
    ),
    "one class in test": (
        two("train") | two("val") | {"test/b": 4},
        {"train": AB, "val": AB, "test": {"b": 4}},
        ["test/ has no images of 1 of the 2 classes: 'a'"],
    ),
    "a text behind a broken link": (two("train") | two("val"), BOTH, [], link("train/a/notes.txt", "none")),
    "Tiny ImageNet, Kaggle: the test images in one folder": (
        two("train") | two("val") | {"test/images": 3},
        BOTH,
        ["not used: test/, whose only folder, 'images', is no class of train/"],
    ),
    "train, val and test": (two("train") | two("val") | two("test"), {**BOTH, "test": AB}),
    "class folders": (AB, {"": AB}),
    "timm, Keras: validation": (two("train") | two("validation"), BOTH),
    "fastai: valid": (two("train") | two("valid"), BOTH),
    "fastai: valid and test": (two("train") | two("valid") | two("test"), {**BOTH, "test": AB}),
    "Hugging Face: dev": (two("train") | two("dev") | two("test"), {**BOTH, "test": AB}),
    "Training and Testing": (two("Training") | two("Testing"), {"train": AB, "test": AB}),
    "capitals": (two("TRAIN") | two("VAL") | two("TEST"), {**BOTH, "test": AB}),
    "capital letters": (two("Train") | two("Valid") | two("Test"), {**BOTH, "test": AB}),
    "timm, Hugging Face: eval": (two("train") | two("eval"), {"train": AB, "test": AB}),
    "eval beside test": (two("train") | two("eval") | two("test"), {**BOTH, "test": AB}),
    "evaluation beside val": (two("train") | two("val") | two("evaluation"), {**BOTH, "test": AB}),
    "a class train": ({"bus": 4, "car": 4, "train": 4}, {"": {"bus": 4, "car": 4, "train": 4}}),
    "a class train, one other": ({"plane": 4, "train": 4}, {"": {"plane": 4, "train": 4}}),
    "classes test, val": ({"plane": 4, "test": 4, "val": 4}, {"": {"plane": 4, "test": 4, "val": 4}}),
    "a class Train, folders in another": (
        {"bus/new": 4, "Train": 4},
        {"": {"Train": 4, "bus": 4}},
        ["folders in a class folder are of its class: 'bus/new'"],
    ),
    "a class train in splits": (
        {"train/bus": 4, "train/train": 4, "val/bus": 4, "val/train": 4},
        {"train": {"bus": 4, "train": 4}, "val": {"bus": 4, "train": 4}},
    ),
    "train alone": (two("train"), {"": AB}),
    "train and a test without labels": (
        two("train") | {"test": 5},
        {"": AB},
        ["not used: test/, which has no class folders, but 5 images"],
    ),
    "train, val and a test without labels": (
        two("train") | two("valid") | {"Test": 1},
        BOTH,
        ["not used: Test/, which has no class folders, but 1 image"],
    ),
    "train, a val without labels and test": (
        two("train") | {"val": 3} | two("test"),
        {"train": AB, "test": AB},
        ["not used: val/, which has no class folders, but 3 images"],
    ),
    "an empty test": (
        two("train") | two("val") | {"test": "folder"},
        BOTH,
        ["not used: test/, which has no class folders"],
    ),
    "other folders": (
        two("train") | two("val") | {"annotations/0.xml": "text", "extra": 2},
        BOTH,
        ["not looked into, beside the splits: 'annotations', 'extra'"],
    ),
    "folders of texts beside train": (
        two("train") | {"annotations/0.xml": "text"},
        {"": AB},
        ["not looked into, beside the splits: 'annotations'"],
    ),
    "lists and texts": (
        two("train") | two("val") | {"labels.csv": "text", "train/labels.csv": "text", "README.md": "text"},
        BOTH,
    ),
    "images outside of classes": (
        two("train") | two("val") | {"cover.png": "image", "train/0.png": "image", "train/1.png": "image"},
        BOTH,
        ["not used: 1 image right in the folder itself", "not used: 2 images right in train/, outside of"],
    ),
    "images beside class folders": (AB | {"cover.png": "image"}, {"": AB}, ["1 image right in the folder itself"]),
    "what systems leave": (two("train") | two("val") | LEFT_BY_SYSTEMS, BOTH),
    "endings in capitals": (
        two("train") | two("val") | {f"train/a/x.{e}": "image" for e in ("JPG", "Jpeg", "TIFF", "WebP", "PPM")},
        {"train": {"a": 9, "b": 4}, "val": AB},
    ),
    "endings that are not read": (
        two("train") | two("val") | {"train/a/x.gif": "image", "train/b/y.Jp2": "text", "val/a/z.txt": "text"},
        BOTH,
        ["not used: 2 files whose endings are not read, such as 'train/a/x.gif': 1 .gif, 1 .jp2; read are .jpg"],
    ),
    "names of other scripts": (
        {f"{split}/{name}": 4 for split in ("train", "val") for name in ("ü 猫", "🐈", "кот")},
        {split: {"ü 猫": 4, "кот": 4, "🐈": 4} for split in ("train", "val")},
    ),
    "composed and decomposed": (
        {f"train/{COMPOSED}": 4, "train/x": 4, f"val/{DECOMPOSED}": 4, "val/x": 4},
        {split: {COMPOSED: 4, "x": 4} for split in ("train", "val")},
    ),
    "numbers": ({"1": 4, "10": 4, "2": 4}, {"": {"1": 4, "10": 4, "2": 4}}),
    "classes with the ending of an image": ({"a.jpg": 4, "b.jpg": 4}, {"": {"a.jpg": 4, "b.jpg": 4}}),
    "folders in class folders": (
        {
            "train/fruit/apple/green": 2, "train/fruit/apple/red": 2, "train/fruit/kiwi": 1,
            "train/milk/oat/long/life": 4, "val/fruit/kiwi": 3, "val/milk": 3,
        },
        {"train": {"fruit": 5, "milk": 4}, "val": {"fruit": 3, "milk": 3}},
        [
            "folders in a class folder are of its class: 'train/fruit/apple/green', 'train/fruit/apple/red', "
            "'train/fruit/kiwi', …"
        ],
    ),
    "images and folders in a class folder": (
        two("train") | two("val") | {"train/a/more": 2},
        {"train": {"a": 6, "b": 4}, "val": AB},
        ["'train/a/more'"],
    ),
    "classes without images of their own": (
        {"cat/first": 2, "cat/second": 2, "dog/first": 2, "dog/second": 2},
        {"": {"cat": 4, "dog": 4}},
        ["'cat/first', 'cat/second', 'dog/first', …; all classes have the same ones: are these the classes?"],
    ),
    "a class that val lacks": (
        two("train") | {"train/c": 4} | two("valid"),
        {"train": {**AB, "c": 4}, "val": AB},
        ["valid/ has no images of 1 of the 3 classes: 'c'"],
    ),
    "a class that is empty in test": (
        two("train") | {"train/c": 4} | two("val") | {"val/c": 4} | two("test") | {"test/c": "folder"},
        {"train": {**AB, "c": 4}, "val": {**AB, "c": 4}, "test": AB},
        ["test/ has no images of 1 of the 3 classes: 'c'"],
    ),
    # --- links
    "a link in a class": (
        two("train") | two("val"),
        BOTH,
        ["counted once, though there under more names (links) in one class: 1"],
        link("train/a/z.png", "0.png"),
    ),
    "a link before its image": (two("train") | two("val"), BOTH, ["counted once"], link("train/a/-.png", "0.png")),
    "a hard link in a class": (
        two("train") | two("val"),
        BOTH,
        ["counted once"],
        hard_link("train/a/z.png", "train/a/0.png"),
    ),
    "a link in a class among class folders": (AB, {"": AB}, ["counted once"], link("a/z.png", "0.png")),
    "a link in two classes of a split": (
        two("train") | two("val"),
        {"train": {"a": 4, "b": 5}, "val": AB},
        [],
        link("train/b/z.png", "../a/0.png"),
    ),
    "links to a pool": (
        two("train") | two("val") | {"pool": 1},
        {"train": {"a": 5, "b": 4}, "val": AB},
        ["beside the splits: 'pool'"],
        link("train/a/z.png", "../../pool/0.png"),
    ),
    "a class that is a link": (
        two("train") | two("val") | {"pool/c": 4, "val/c": 4},
        {"train": {**AB, "c": 4}, "val": {**AB, "c": 4}},
        ["beside the splits: 'pool'"],
        link("train/c", "../pool/c"),
    ),
    "a folder twice in a class": (
        two("train") | two("val") | {"train/a/more": 2},
        {"train": {"a": 6, "b": 4}, "val": AB},
        ["'train/a/again'", "counted once, though there under more names (links) in one class: 1"],
        link("train/a/again", "more"),
    ),
    "an image outside": (
        two("train") | two("val"),
        {"train": {"a": 5, "b": 4}, "val": AB},
        ["outside of the folder, behind links: 1 image, such as 'train/a/z.png'"],
        elsewhere({"x.png": "image"}, ("train/a/z.png", "x.png")),
    ),
    "an image outside, by two links": (
        two("train") | two("val"),
        {"train": {"a": 5, "b": 4}, "val": AB},
        ["not looked into, beside the splits: 'way'", "behind links: 1 image"],
        elsewhere({"x.png": "image"}, ("way", "."), ("train/a/z.png", "../images/way/x.png")),
    ),
    "classes outside": (
        two("val"),
        BOTH,
        ["outside of the folder, behind links: 8 images, such as 'train/a/0.png'"],
        elsewhere({"a": 4, "b": 4}, ("train/a", "a"), ("train/b", "b")),
    ),
    "a split outside": (
        two("train"),
        BOTH,
        ["outside of the folder, behind links: 8 images, such as 'val/a/0.png'"],
        elsewhere({"a": 4, "b": 4}, ("val", ".")),
    ),
    "the folder itself a link": (two("train") | two("val"), BOTH, [], behind_a_link),
}  # fmt: skip


def made(row, root):
    tree, expected, *more = row
    said, change = [*more, *([], None)[len(more) :]]
    lay_out(root, tree)
    return (change(root) if change else None) or root, expected, said


@pytest.mark.parametrize("layout", READ)
def test_what_is_read_of_a_folder(layout, tmp_path):
    root, expected, said = made(READ[layout], tmp_path / "images")
    scanned = scan(str(root))
    classes = scanned.classes
    counts = Counter(zip(scanned.parts, (classes[label] for label in scanned.labels), strict=True))
    assert counts == {(part, name): count for part, names in expected.items() for name, count in names.items()}
    assert set(classes) == {name for names in expected.values() for name in names}
    assert list(classes) == sorted(classes)
    assert len(scanned.remarks) == len(said), scanned.remarks
    for line, words in zip(scanned.remarks, said, strict=True):
        assert words in line
        assert line.isprintable()


@pytest.mark.parametrize("layout", READ)
def test_all_that_is_read_is_decoded_and_split(layout, tmp_path):
    root, expected, _ = made(READ[layout], tmp_path / "images")
    data = load(root)
    parts = {part: len(getattr(data, part)) for part in ("train", "val", "test")}
    assert sum(parts.values()) == sum(count for names in expected.values() for count in names.values())
    given = {part: sum(names.values()) for part, names in expected.items() if part}
    if len(given) == 3:
        assert parts == given
    elif given:
        assert parts["test"] == given.get("test", given.get("val"))
    assert min(parts.values()) > 0
    assert not data.dropped
    assert data.leaked["test"] == ()


@pytest.mark.parametrize(
    "layout",
    [
        "train and val", "Training and Testing", "a class train in splits", "lists and texts", "endings in capitals",
        "folders in class folders", "images and folders in a class folder", "a class that val lacks", "links to a pool",
        "a class that is a link", "an image outside", "an image outside, by two links", "classes outside",
        "images outside of classes", "names of other scripts",
    ],
)  # fmt: skip
def test_the_training_images_are_those_of_torchvisions_image_folder(layout, tmp_path):
    from torchvision.datasets import ImageFolder

    root, _, _ = made(READ[layout], tmp_path / "images")
    scanned = scan(str(root))
    theirs = ImageFolder(root / scanned.folders["train", scanned.classes[0]].partition("/")[0])
    ours = [
        (str(file), label)
        for file, label, part in zip(scanned.files, scanned.labels, scanned.parts, strict=True)
        if part == "train"
    ]
    assert theirs.classes == list(scanned.classes)
    assert sorted(theirs.samples) == sorted(ours)


REFUSED = {
    "nothing": ({}, ["has no class folders; expected PATH/train/CLASS"]),
    "texts alone": ({"README.md": "text"}, ["has no class folders; expected"]),
    "images alone": ({"": 5}, ["has no class folders (but 5 images: each class is a folder)"]),
    "an archive in the folder": ({"photos.zip": "text"}, ["class folders (but an archive, 'photos.zip': unpack it)"]),
    "an archive": ({"p.tar.gz": "text"}, ["is an archive; unpack it"], lambda root: root / "p.tar.gz"),
    "a table": ({"labels.csv": "text"}, ["is no folder"], lambda root: root / "labels.csv"),
    "nowhere": ({}, ["does not exist; expected"], lambda root: root / "none"),
    "beside it": ({}, ["does not exist; did you mean '", "/images'? expected"], lambda root: root.with_name("image")),
    "one class": ({"a": 4}, ["only one class folder, 'a'; a classifier needs at least two"]),
    "one class in splits": ({"train/a": 4, "val/a": 4}, ["/train' has only one class folder, 'a'"]),
    "one class in val, and no other's": (two("train") | {"val/c": 4}, ["'c' is in val/, but not in train/"]),
    "a folder around it": (
        {f"photos/{name}": count for name, count in (two("train") | two("val")).items()},
        ["only one class folder, 'photos'", "; did you mean '", "/images/photos'?"],
    ),
    "val alone": (two("val"), ["only one class folder, 'val'", "/images/val'?"]),
    "no train": (two("val") | two("test"), ["has 'test' and 'val', which are names of splits, but no train/"]),
    "val and valid": (two("train") | two("val") | two("valid"), ["has 'val' and 'valid', two folders for one split"]),
    "train and Training": (two("train") | two("Training") | two("val"), ["has 'Training' and 'train', two folders"]),
    "eval beside val and test": (
        two("train") | two("val") | two("test") | two("eval"),
        ["has 'test' and 'eval', two folders for one split"],
    ),
    "train without classes": ({"train": 5, "labels.csv": "text"}, ["'train' holds 5 images, but no class folders"]),
    "train and test without classes": ({"train": 5, "test": 5}, ["'train' holds 5 images, but no class folders"]),
    "train and test without classes beside another": (
        {"train": 5, "test": 5, "samples": 2, "labels.csv": "text"},
        ["'train' holds 5 images, but no class folders"],
    ),
    "an empty train": ({"train": "folder"} | two("val"), ["/train' has no class folders"]),
    "a class that train lacks": (
        two("train") | two("val") | {"val/c": 4},
        ["class folder 'c' is in val/, but not in train/; no model can learn it"],
    ),
    "a class of another case": (
        two("train") | {"valid/a": 4, "valid/B": 4},
        ["'B' is in valid/, but not in train/ (which has 'b' for 'B')"],
    ),
    "one name in two ways": (
        {f"train/{COMPOSED}": 4, f"train/{DECOMPOSED}": 4} | two("val"),
        [r"two class folders of one name", r"'cafe\u0301' and 'caf\xe9'"],
    ),
    "an empty class": (two("train") | two("val") | {"train/c": "folder"}, ["folder 'train/c'", "holds no images"]),
    "an empty class among class folders": (AB | {"c": "folder"}, ["class folder 'c' of", "or remove it"]),
    "a class of other endings": (
        AB | {"c/x.gif": "text"},
        ["class folder 'c' of", "holds no images (but other files, such as 'c/x.gif')", ".jpg, .jpeg"],
    ),
    "a val without images": (two("train") | {"val/a": "folder", "val/b": "folder"}, ["'val/a'", "holds no images"]),
    "splits in the classes": (
        {f"{name}/{split}": 4 for name in ("cat", "dog") for split in ("train", "test")},
        ["'cat' and the others hold splits of their own"],
    ),
    "names like those of splits": (
        two("training_set") | two("test_set"),
        ["'training_set' and 'test_set' look like splits; call them train/ and test/"],
    ),
    "trainval": (two("trainval") | two("test"), ["'trainval' and 'test' look like splits; call them train/ and"]),
    "splits in train": (
        two("train/train") | two("train/test"),
        ["are names of splits; did you mean '", "/images/train'?"],
    ),
    "a folder in each split": (
        {f"seg_{split}/seg_{split}/{name}": 4 for split in ("train", "test", "pred") for name in "ab"},
        ["'seg_train' and 'seg_test' look like splits"],
    ),
    "a split or a class": (
        {"bus": 4, "train/steam": 4, "train/diesel": 4},
        ["'train' holds folders, as a split does, and stands beside 'bus'", "move one of the two away"],
    ),
    "a split or a class, deeper": (
        {f"{name}/{kind}": 4 for name in ("bus", "car", "train") for kind in ("new", "old")},
        ["'train' holds folders, as a split does, and stands beside 'bus'"],
    ),
    # --- links
    "a link in two splits": (
        two("train") | two("val"),
        ["'train/a/0.png' and 'val/a/z.png' are one file under two names (a link) in two splits"],
        link("val/a/z.png", "../../train/a/0.png"),
    ),
    "a hard link in two splits": (
        two("train") | two("val"),
        ["'train/a/0.png' and 'val/b/z.png' are one file"],
        hard_link("val/b/z.png", "train/a/0.png"),
    ),
    "a class linked into two splits": (
        two("train") | {"val/a": 4},
        ["'train/b/0.png' and 'val/b/0.png' are one file"],
        link("val/b", "../train/b"),
    ),
    "test is val": (two("train") | two("val"), ["'val/a/0.png' and 'test/a/0.png' are one"], link("test", "val")),
    "a circle of links": (
        two("train") | two("val"),
        ["folder 'train/a/loop' of", "leads back to a folder above it; remove it"],
        link("train/a/loop", "../.."),
    ),
    "a circle of one link": (
        two("train") | two("val"),
        ["'train/a/more/loop'", "leads back"],
        link("train/a/more/loop", "."),
    ),
    "a class that is the folder": (AB, ["'c' of", "leads back"], link("c", ".")),
    "a class behind a broken link": (AB, ["'c' is a link that leads nowhere; repair or remove it"], link("c", "none")),
    "a split behind a broken link": (two("train"), ["'val' is a link that leads nowhere"], link("val", "../none")),
    "a folder behind a broken link": (AB, ["'a'", "'more' is a link that leads nowhere"], link("a/more", "none")),
    "a folder with a dot behind one": (AB, ["'a'", "'Dr.Pepper' is a link that"], link("a/Dr.Pepper", "none")),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_a_folder_is_refused_in_one_line(layout, tmp_path):
    tree, words, *change = REFUSED[layout]
    root = lay_out(tmp_path / "images", tree)
    root = (change[0](root) if change else None) or root
    text = refusal(check_dataset, f"folder:{root}")
    for word in words:
        assert word in text
    assert refusal(load, root) == text


def test_there_are_as_many_as_were_asked_for():
    assert len(READ) >= 40
    assert len(REFUSED) >= 30


@pytest.mark.parametrize(
    "layout", ["nothing", "a circle of links", "a link in two splits", "a class that is the folder"]
)
def test_the_command_refuses_a_folder_before_anything_trains(layout, tmp_path, command, monkeypatch):
    def train(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr(cell_module, "run_cell", train)
    monkeypatch.setattr(isolate, "Worker", train)
    monkeypatch.chdir(tmp_path)
    tree, words, *change = REFUSED[layout]
    root = lay_out(tmp_path / "images", tree)
    root = (change[0](root) if change else None) or root
    status, out, err = command("run", str(root), "--backbone=resnet18", "--weights=random", "--image-size=32")
    assert (status, out) == (2, "")
    assert err.splitlines() == [f"tlbench: {refusal(check_dataset, f'folder:{root}')}"]
    for word in words:
        assert word in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (two("Training") | two("valid"), "valid/ is what is tested on (there is no test/); validation images are cut"),
        (two("Training") | two("valid"), "cut from Training/, by seed"),
        (two("train") | two("valid") | {"test": 1}, "valid/ is what is tested on (test/ has no classes)"),
        (two("TRAIN") | two("dev") | two("Test"), "TRAIN/, dev/ and Test/ as they are in the folder"),
        (two("train") | {"test": 1}, "train/, which has no split with class folders beside it: about 70/15/15"),
        ({"train": 1, "bus": 1}, "class folders alone: about 70/15/15"),
    ],
)
def test_how_a_folder_is_split_is_said_with_its_own_names(tree, words, tmp_path):
    assert words in split_of(str(lay_out(tmp_path, tree)))


def test_what_is_not_used_is_said_before_a_run(command, tmp_path):
    lay_out(tmp_path / "images", two("train") | {"train/c": 4, "train/c/more": 1} | two("Valid") | {"test": 5})
    status, _, err = command(
        "run", tmp_path / "images", "--dry-run", "--backbone=resnet18", "--image-size=32", "--threads=1"
    )
    assert status == 0
    lines = [line.split(maxsplit=1) for line in err.splitlines()]
    begin = lines.index(["splits", "Valid/ is what is tested on (test/ has no classes); validation images are cut from "
                                   "train/, by seed"])  # fmt: skip
    assert lines[begin + 1] == ["folder", "not used: test/, which has no class folders, but 5 images"]
    said = [" ".join(words) for words in lines[begin + 2 : begin + 4]]
    assert said == [
        "Valid/ has no images of 1 of the 3 classes: 'c'",
        "folders in a class folder are of its class: 'train/c/more'; folder:PATH?classes=leaf takes the innermost "
        "folders as classes",
    ]


# --- the innermost folders ------------------------------------------------------------------------------------


def fruit(split):
    return {f"{split}/{name}": 4 for name in ("fruit/apple/green", "fruit/apple/red", "fruit/kiwi", "milk/oat")}


LEAVES = ("green", "kiwi", "oat", "red")
LEAF = {
    # name: what is there, the classes, images that are trained on, what is said, and what is done to the folder
    "splits": (fruit("train") | fruit("val"), LEAVES, 16, []),
    "train alone": (fruit("train"), LEAVES, 16, []),
    "without splits": ({name.removeprefix("train/"): count for name, count in fruit("train").items()}, LEAVES, 16, []),
    "class folders that are innermost": (two("train") | two("val"), ("a", "b"), 8, []),
    "names that collide": (
        {
            "train/fruit/lemon": 4,
            "train/juice/lemon": 5,
            "train/juice/plum": 4,
            "val/fruit/lemon": 4,
            "val/juice/plum": 4,
        },
        ("fruit/lemon", "juice/lemon", "plum"),
        13,
        ["val/ has no images of 1 of the 3 classes: 'juice/lemon'"],
    ),
    "a name inside another": ({"train/a/a": 4, "train/b": 4, "val/a/a": 4, "val/b": 4}, ("a", "b"), 8, []),
    "val lacks some": (
        fruit("train") | {"val/fruit/kiwi": 4, "val/milk/oat": 4},
        LEAVES,
        16,
        ["val/ has no images of 2 of the 4 classes: 'green', 'red'"],
    ),
    "a class at another place": (
        {"train/veg/kale": 4, "train/veg/leek": 4, "val/veg/green/kale": 4, "val/veg/leek": 4},
        ("kale", "leek"),
        8,
        ["another place than in train/, taken for the same class by their name: 1, such as 'val/veg/green/kale' for"],
    ),
    "one folder holds all": ({"train/all/a": 4, "train/all/b": 4, "val/all/a": 4, "val/all/b": 4}, ("a", "b"), 8, []),
    "composed and decomposed": (
        {f"train/{COMPOSED}/x": 4, "train/b/y": 4, f"val/{DECOMPOSED}/x": 4, "val/b/y": 4},
        ("x", "y"),
        8,
        [],
    ),
    "a link to a pool": (
        fruit("train") | fruit("val") | {"pool/kiwi": 4},
        (*LEAVES[:2], "mango", *LEAVES[2:]),
        20,
        ["beside the splits: 'pool'", "val/ has no images of 1 of the 5 classes: 'mango'"],
        link("train/fruit/mango", "../../pool/kiwi"),
    ),
    "what systems leave": (
        fruit("train")
        | fruit("val")
        | {"train/fruit/apple/@eaDir/0.png": "image", "train/fruit/.cache/0.png": "image"},
        LEAVES,
        16,
        [],
    ),
}


@pytest.mark.parametrize("layout", LEAF)
def test_the_innermost_folders_are_classes(layout, tmp_path):
    tree, classes, trained, said, *change = LEAF[layout]
    root = lay_out(tmp_path / "images", tree)
    if change:
        change[0](root)
    scanned = scan(f"{root}?classes=leaf")
    assert scanned.classes == classes
    assert sum(part in ("", "train") for part in scanned.parts) == trained
    for label, name in zip(scanned.labels, scanned.names, strict=True):
        inner = unicodedata.normalize("NFC", os.path.dirname(name))
        assert inner == classes[label] or inner.endswith(f"/{classes[label]}")
    assert len(scanned.remarks) == len(said), scanned.remarks
    for line, words in zip(scanned.remarks, said, strict=True):
        assert words in line
    assert load(f"{root}?classes=leaf").classes == classes


NOT_LEAF = {
    "images beside folders": (
        fruit("train") | {"train/fruit/apple/0.png": "image"} | fruit("val"),
        ["'train/fruit/apple' of", "holds images, such as '0.png', beside folders, such as 'green'"],
    ),
    "an empty folder": (
        fruit("train") | {"train/fruit/plum": "folder"},
        ["class folder 'train/fruit/plum' of", "no images"],
    ),
    "a class that train lacks": (
        fruit("train") | {"val/fruit/plum": 4, "val/fruit/kiwi": 4},
        ["class folder 'fruit/plum' is in val/, but not in train/; no model"],
    ),
    "a class at another place": (
        {"train/fruit/lemon": 4, "train/juice/lemon": 4, "val/lemon": 4, "val/juice/lemon": 4},
        ["'lemon' is in val/, but not in train/ (which has 'fruit/lemon' for 'lemon')"],
    ),
    "one": ({"train/a/b": 4, "val/a/b": 4}, ["/train' has only one innermost folder, 'a/b'"]),
    "a circle": (
        fruit("train"),
        ["'train/fruit/loop' of", "leads back to a folder above it"],
        link("train/fruit/loop", ".."),
    ),
    "a broken link": (fruit("train"), ["'gone' is a link that leads nowhere"], link("train/fruit/gone", "none")),
    "a broken link with a dot": (
        fruit("train"),
        ["'No.7' is a link that leads nowhere"],
        link("train/fruit/No.7", "none"),
    ),
    "a folder twice": (
        fruit("train"),
        ["'train/fruit/more' of", "is 'train/fruit/kiwi' under another name (a link)"],
        link("train/fruit/more", "kiwi"),
    ),
    "one name in two ways": (
        {f"train/{COMPOSED}/x": 4, f"train/{DECOMPOSED}/x": 4} | two("val"),
        [r"'cafe\u0301/x' and 'caf\xe9/x'"],
    ),
}


@pytest.mark.parametrize("layout", NOT_LEAF)
def test_innermost_folders_are_refused_in_one_line(layout, tmp_path):
    tree, words, *change = NOT_LEAF[layout]
    root = lay_out(tmp_path / "images", tree)
    if change:
        change[0](root)
    text = refusal(check_dataset, f"folder:{root}?classes=leaf")
    for word in words:
        assert word in text


def test_innermost_folders_are_the_same_images_as_their_classes(tmp_path):
    root = lay_out(tmp_path, fruit("train") | fruit("test"))
    leaf, top = load(f"{root}?classes=leaf"), load(root)
    assert sorted(leaf.identities) == sorted(top.identities)
    assert {top.files[p] for p in top.test.index.tolist()} == {leaf.files[p] for p in leaf.test.index.tolist()}


def test_folders_that_fork_by_links_are_refused_soon(tmp_path):
    """Thirty folders with two links each to the next: a thousand million ways through them."""
    lay_out(tmp_path, AB | {"a/pool29": 3})
    (tmp_path / "a/0.png").rename(tmp_path / "b/z.png")
    for number in range(29):
        folder = tmp_path / "a" / f"pool{number}"
        folder.mkdir()
        for name in ("left", "right"):
            (folder / name).symlink_to(f"../pool{number + 1}")
    for file in (tmp_path / "a").glob("*.png"):
        file.unlink()
    assert "under another name (a link)" in refusal(check_dataset, f"folder:{tmp_path}?classes=leaf")


# --- endings --------------------------------------------------------------------------------------------------


def test_pictures_that_are_not_read_are_counted_by_ending(tmp_path):
    names = ["x.gif", "y.GIF", "z.gif", "a.dng", "notes.txt", "b.tga"]
    lay_out(tmp_path, AB | {f"a/{name}": "text" for name in names})
    scanned = scan(str(tmp_path))
    assert len(scanned.passed_over) == 6
    assert unread_endings(scanned.passed_over) == {".gif": 3, ".dng": 1, ".tga": 1}
    assert scanned.remarks[0].startswith(
        "not used: 5 files whose endings are not read, such as 'a/a.dng': 3 .gif, 1 .dng, 1"
    )


@pytest.fixture
def without_pillow_heif(monkeypatch):
    monkeypatch.setattr(heif, "installed", lambda: "")
    endings.cache_clear()
    heif.formats.cache_clear()
    yield
    endings.cache_clear()
    heif.formats.cache_clear()


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200)


def test_without_pillow_heif_a_heic_is_counted_and_the_extra_named(tmp_path, without_pillow_heif):
    lay_out(tmp_path, AB | {"a/IMG_1.HEIC": "text", "b/IMG_2.heic": "text"})
    remark = scan(str(tmp_path)).remarks[0]
    assert "not used: 2 files whose endings are not read, such as 'a/IMG_1.HEIC': 2 .heic" in remark
    assert "(pip install 'tlbench[heic]' reads it)" in remark
    (tmp_path / "a/0.png").write_bytes(HEIC)
    assert "'a/0.png': it is no image, or of a format that is not read (a HEIC: pip install" in refusal(load, tmp_path)


def test_a_heic_is_read_with_pillow_heif(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    lay_out(tmp_path, AB)
    image = Image.effect_noise((40, 24), 60).convert("RGB")
    pillow_heif.from_pillow(image).save(tmp_path / "a/x.HEIC", quality=-1)
    pillow_heif.from_pillow(image).save(tmp_path / "a/y.png", quality=-1)
    assert len(load(tmp_path).labels) == 10, "by its content, whatever its name"
    found = read_image(tmp_path / "a/x.HEIC")
    assert (found.mode, found.size) == ("RGB", (40, 24))
    difference = np.abs(np.asarray(found, int) - np.asarray(image, int))
    assert difference.mean() < 2
    (tmp_path / "a/y.png").unlink()
    (tmp_path / "b/z.heic").write_bytes(HEIC)
    assert "'b/z.heic': it is no image" in refusal(load, tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_upright(orientation, tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turned(upright, orientation)))
    stored.save(tmp_path / "x.heic", exif=exif.tobytes(), quality=-1)
    found = np.asarray(read_image(tmp_path / "x.heic"), int)
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 8


@pytest.fixture
def without_avif(monkeypatch):
    real = features.check
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif" and real(feature))
    endings.cache_clear()
    yield
    endings.cache_clear()


def test_an_avif_is_counted_where_pillow_has_no_decoder(tmp_path, without_avif):
    lay_out(tmp_path, AB | {"a/x.avif": "text", "b/y.AVIF": "text", "b/z.avif": "text"})
    scanned = scan(str(tmp_path))
    assert len(scanned.files) == 8
    assert unread_endings(scanned.passed_over) == {".avif": 3}
    remark = scanned.remarks[0]
    assert remark.startswith("not used: 3 files whose endings are not read, such as 'a/x.avif': 3 .avif")
    assert "pip install" not in remark, "no package of ours reads it"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_is_read_where_pillow_has_its_decoder(tmp_path):
    lay_out(tmp_path, AB)
    Image.effect_noise((40, 24), 60).convert("RGB").save(tmp_path / "a/x.avif")
    scanned = scan(str(tmp_path))
    assert len(scanned.files) == 9
    assert not scanned.remarks
    assert len(load(tmp_path).labels) == 9


# --- what is unusual in size ----------------------------------------------------------------------------------


def test_folders_deeper_than_functions_may_call_each_other(tmp_path):
    lay_out(tmp_path, AB)
    here = os.getcwd()
    os.chdir(tmp_path / "a")
    try:
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        with open("x.png", "wb") as file:
            file.write(picture())
        scanned = scan(str(tmp_path))
        os.remove("x.png")
        for _ in range(1100):  # shutil.rmtree could not
            os.chdir("..")
            os.rmdir("d")
    finally:
        os.chdir(here)
    assert len(scanned.files) == 9
    assert len(scanned.remarks) == 1


def test_links_that_fork_are_looked_into_once(tmp_path):
    """Thirty folders with two links each to the next: a thousand million ways through them."""
    lay_out(tmp_path, AB | {"a/pool29": 3})
    for number in range(29):
        folder = tmp_path / "a" / f"pool{number}"
        folder.mkdir()
        for name in ("left", "right"):
            (folder / name).symlink_to(f"../pool{number + 1}")
    scanned = scan(str(tmp_path))
    assert Counter(scanned.labels) == {0: 7, 1: 4}


@pytest.mark.exhaustive
def test_a_photograph_of_108_megapixels(tmp_path):
    assert Image.MAX_IMAGE_PIXELS < 108_000_000
    lay_out(tmp_path, AB)
    Image.new("L", (12_000, 9_000), 90).save(tmp_path / "a/x.jpg")
    data = load(tmp_path)
    assert len(data.train) + len(data.val) + len(data.test) == 9


def test_a_class_of_val_whose_images_cannot_be_read_is_no_class_that_it_lacks(tmp_path):
    lay_out(tmp_path, two("train") | {"train/c": 4} | two("val") | {"val/c/0.png": "text"})
    assert "class folder 'val/c'" in refusal(lambda: load(tmp_path, bad_images="skip"))


def test_system_folders_are_known_in_any_case(tmp_path):
    lay_out(tmp_path, AB | {name.upper(): 2 for name in OF_SYSTEMS})
    assert scan(str(tmp_path)).classes == ("a", "b")


# --- paths ----------------------------------------------------------------------------------------------------


SIGNS = (
    "a,b", "a, b", "~none", "~", "./~root", "a~", "back\\slash", "paren (1)", "open (", "-n", "a=b?key=c", "x:y", "...",
)  # fmt: skip


@pytest.fixture
def signs(tmp_path, monkeypatch):
    """Folders of all these names, in the folder where we are; ~ is the home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in SIGNS:
        lay_out(tmp_path / (name if name != "~" else "home"), AB)
    return ["--dry-run", "--backbone=resnet18", "--weights=random", "--image-size=32", "--threads=1", "--folds=off"]


def test_paths_of_any_signs_are_data_sets(signs, command):
    status, out, err = command("run", *signs, "--dataset", join_values(f"folder:{name}" for name in SIGNS))
    assert status == 0, err
    assert len(out.splitlines()) == len(SIGNS)
    assert err.count("8 images in 2 classes") == len(SIGNS)


@pytest.mark.parametrize("name", ["a,b", "~none", "-n"])
def test_a_path_of_any_signs_is_run(name, signs, command):
    status, out, err = command("run", *signs, "--", name)
    assert status == 0, err
    assert len(out.splitlines()) == 1
    assert "8 images in 2 classes" in err


@pytest.mark.parametrize(("name", "parts"), [("a,b", ["a", "b"]), ("a, b, c", ["a", "b", "c"]), ("x,y", ["x", "y"])])
def test_a_comma_that_was_not_written_as_one(name, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / name, AB)
    written = name.replace(",", "\\,")
    given = ["digits", f"folder:{parts[0]}", *parts[1:]]
    assert refusal(check_dataset_commas, given).endswith(f"whose comma is written as \\,: 'folder:{written}'")
    lay_out(tmp_path / parts[0], AB)
    check_dataset_commas(given)  # whatever is wrong with the next one, it is another


def test_without_a_home(command, tmp_path, monkeypatch):
    """A container's user that no file knows, and no $HOME."""

    def unknown(_):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    assert os.path.expanduser("~/x") == "~/x"
    assert short_name("folder:~/photos") == "photos"
    assert weights_outlook._shown(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "images", AB)
    status, _, err = command("run", "images", "--dry-run", "--backbone=resnet18", "--image-size=32", "--threads=1")
    assert status == 0, err
    assert "8 images in 2 classes" in err
    assert not (tmp_path / "~").exists()


def test_a_folder_has_the_same_classes_wherever_it_was_packed(tmp_path):
    one = lay_out(tmp_path / "one", {COMPOSED: 4, "x": 4})
    other = tmp_path / "other"
    one_files = sorted(path.relative_to(one) for path in one.rglob("*.png"))
    for file in one_files:
        place = other / unicodedata.normalize("NFD", str(file))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((one / file).read_bytes())
    assert load(one).sha256 == load(other).sha256
