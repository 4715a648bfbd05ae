"""A person's own folder of images: layouts, splits without leaks, and whatever an image file may be."""

import io
import itertools
import os
import pickle
import random
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import pil_reads
from PIL import Image

from tlbench.data import Request, check_dataset, decode, decoding, load_data, store
from tlbench.data.decode import UPRIGHT, read_image
from tlbench.data.scan import scan
from tlbench.errors import UserError
from tlbench.machine.kept import KEPT

SIZE = 8


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def load(root, *, seed=0, size=SIZE, train_size=None, **options):
    request = Request(size=size, resize=size, interpolation="bilinear", seed=seed, **options)
    return load_data(f"folder:{root}", request, train_size)


_colours = itertools.count(1)


def picture(color=None, size=(SIZE, SIZE)):
    """An image of one colour, another one at each call."""
    number = next(_colours) if color is None else color
    return Image.new("RGB", size, (number % 256, number // 256 % 256, number // 65536 % 256))


def folder_of(root, counts):
    """Files from ``{"train/a": 3, …}``; every image has pixels of its own."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            picture().save(root / name / f"{n}.png")
    return root


def splits(root, train=6, val=3, test=None, classes=("a", "b")):
    counts = {"train": train, "val": val, "test": test}
    return folder_of(root, {f"{p}/{c}": n for p, n in counts.items() if n is not None for c in classes})


def message(call, *arguments, **options):
    """The text of the UserError, which must be one line that a terminal shows as it is."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.isprintable(), ascii(text)
    return text


def parts_of(data):
    return {part: getattr(data, part) for part in ("train", "val", "test")}


def pixels_of(split):
    return {split.images[i].numpy().tobytes() for i in split.index.tolist()}


# --- layouts --------------------------------------------------------------------------------------------------

# Layout -> images of a class, and the fewest and the most of each part: what is cut is binomial.
LAYOUTS = {
    "train and val": ({"train": 20, "val": 7}, {"train": (20, 38), "val": (2, 20), "test": (14, 14)}),
    "train, val and test": ({"train": 9, "val": 4, "test": 5}, {"train": (18, 18), "val": (8, 8), "test": (10, 10)}),
    "train and test": ({"train": 20, "test": 5}, {"train": (20, 38), "val": (2, 20), "test": (10, 10)}),
    "class folders": ({"": 20}, {"train": (12, 36), "val": (2, 20), "test": (2, 20)}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_in_one_part_and_no_file_in_two(layout, tmp_path):
    counts, expected = LAYOUTS[layout]
    root = folder_of(tmp_path / "x", {Path(part, name): n for part, n in counts.items() for name in ("a", "b")})
    scanned = scan(str(root))
    data = load(root)
    assert data.classes == ("a", "b")
    for part, split in parts_of(data).items():
        assert expected[part][0] <= len(split) <= expected[part][1]
    every = [i for split in parts_of(data).values() for i in split.index.tolist()]
    assert sorted(every) == list(range(len(scanned.files)))
    for one, other in itertools.combinations(parts_of(data).values(), 2):
        assert not pixels_of(one) & pixels_of(other)
    assert data.repeated == {"val": 0, "test": 0}
    for part, split in parts_of(data).items():
        for index, label in zip(split.index.tolist(), split.labels.tolist(), strict=True):
            file = scanned.files[index]
            assert file.parent.name == data.classes[label]
            assert np.array_equal(split.images[index].numpy().transpose(1, 2, 0), np.asarray(Image.open(file)))
            if "train" in counts:
                from_train = ["train"] if {"val", "test"} <= set(counts) else ["train", "val"]
                assert (file.parts[-3] == "train") == (part in from_train)
        assert sorted(set(split.labels.tolist())) == [0, 1]


@pytest.mark.parametrize("layout", ["train and val", "train and test", "train, val and test"])
def test_the_test_split_is_the_given_one_whatever_the_seed(layout, tmp_path):
    counts, _ = LAYOUTS[layout]
    root = folder_of(tmp_path, {Path(part, name): n for part, n in counts.items() for name in ("a", "b")})
    source = "test" if "test" in counts else "val"
    given = {np.asarray(Image.open(f)).transpose(2, 0, 1).tobytes() for f in root.glob(f"{source}/*/*.png")}
    first, second = load(root, seed=0), load(root, seed=1)
    assert pixels_of(first.test) == pixels_of(second.test) == given
    cut = "val" not in counts or "test" not in counts
    assert (pixels_of(first.val) != pixels_of(second.val)) == cut, "validation is cut from train/ by seed"
    assert not pixels_of(first.train) & given


def test_class_folders_alone_are_split_by_seed(tmp_path):
    root = folder_of(tmp_path, {"a": 20, "b": 40})
    first, again, other = load(root), load(root), load(root, seed=1)
    assert pixels_of(first.test) == pixels_of(again.test) != pixels_of(other.test)


def test_a_folder_called_like_an_image_is_a_folder(tmp_path):
    root = folder_of(tmp_path, {"a": 4, "b": 4, Path("a", "album.png"): 3, Path("b", "more.jpg", "2024"): 2})
    scanned = scan(str(root))
    assert len(scanned.files) == 13
    assert all(file.is_file() for file in scanned.files)


def test_another_seed_decodes_nothing_again(tmp_path, monkeypatch):
    root = folder_of(tmp_path, {"a": 4, "b": 4})
    first = load(root)
    monkeypatch.setattr(decoding, "read_photograph", None)
    assert load(root, seed=1).train.pixels is first.train.pixels


CHANGES = {
    "other pixels in a file": lambda root: picture().save(root / "train/a/0.png"),
    "other pixels, same size and time": lambda root: _same_size_and_time(root / "train/a/even.ppm"),
    "another file": lambda root: picture().save(root / "train/a/new.png"),
    "a file less": lambda root: (root / "train/a/0.png").unlink(),
    "another name": lambda root: (root / "train/a/0.png").rename(root / "train/a/z.png"),
    "two files exchanged": lambda root: _exchange(root / "train/a/0.png", root / "train/b/0.png"),
}


def _same_size_and_time(file):
    was = file.stat()
    picture(1).save(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)


def _exchange(one, other):
    one.rename(one.with_suffix(".old"))
    other.rename(one)
    one.with_suffix(".old").rename(other)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_decoded_anew(change, tmp_path):
    root = splits(tmp_path / "x")
    picture(0).save(root / "train/a/even.ppm")
    before = load(root)
    CHANGES[change](root)
    after = load(root)
    assert after.sha256 != before.sha256
    KEPT.images.forget()
    assert load(root).sha256 == after.sha256


@pytest.mark.parametrize("option", [{"size": 9}, {"resize": 12}, {"interpolation": "bicubic"}])
def test_what_decides_the_pixels_decides_the_hash(option, tmp_path):
    root = folder_of(tmp_path, {"a": 3, "b": 3})
    for name in ("a/0.png", "b/1.png"):
        noise = np.random.default_rng(0).integers(0, 256, (21, 33, 3), np.uint8)
        Image.fromarray(noise).save(root / name)
    common = Request(size=8, resize=10, interpolation="bilinear", seed=0)
    assert load_data(f"folder:{root}", common).sha256 != load_data(f"folder:{root}", replace(common, **option)).sha256


def test_the_same_relative_path_from_elsewhere_is_another_folder(tmp_path, monkeypatch):
    for here in ("one", "two"):
        splits(tmp_path / here / "x")
    monkeypatch.chdir(tmp_path / "one")
    first = load("x")
    monkeypatch.chdir(tmp_path / "two")
    assert load("x").sha256 != first.sha256


@pytest.mark.exhaustive
def test_a_thousand_classes(tmp_path):
    folder_of(tmp_path, {f"c{name}": 3 for name in range(1000)})
    data = load(tmp_path)
    assert len(data.classes) == 1000
    assert [len(split) for split in parts_of(data).values()] == [1000, 1000, 1000]
    assert message(load, tmp_path, train_size=999).startswith("train size 999 is less than one image for each")
    check_dataset(f"folder:{tmp_path}", [1000, None])
    assert message(check_dataset, f"folder:{tmp_path}", [1000, 999]) == message(load, tmp_path, train_size=999)


def test_one_image_a_class(tmp_path):
    data = load(splits(tmp_path / "all", train=1, val=1, test=1))
    assert [len(split) for split in parts_of(data).values()] == [2, 2, 2]
    assert data.train.batch(torch.arange(2))[0].shape == (2, 3, SIZE, SIZE)
    text = message(load, splits(tmp_path / "two", train=1, val=1))
    assert "class 'a' has 1 image, but train, val need one each" in text
    text = message(load, folder_of(tmp_path / "flat", {"a": 2, "b": 9}))
    assert "class 'a' has 2 images, but train, val, test need one each" in text


NAMES = [
    "with space",
    "new\nline",
    "<script>alert(1)<script>",
    "[red]markup[bold]",
    "ünïcödé 猫 🐈",
    "‮right to left",
    "-n",
    "%s {0} $HOME `id`",
    "quote'\"",
    "\x1b[31mred",
    "tab\t",
    os.fsdecode(b"bytes \xff\xfe"),
    "a" * 200,
    "CON",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_a_name(name, tmp_path):
    root = tmp_path / name
    for part, n in itertools.product(("train", "val"), range(4)):
        for cls in (name, "other", "third"):
            (root / part / cls).mkdir(parents=True, exist_ok=True)
            picture().save(root / part / cls / f"{name}{n}.png")
    data = load(root)
    assert name in data.classes
    assert len(data.train) + len(data.val) == 12
    assert len(data.test) == 12
    bad = root / "train" / name / f"{name}0.png"
    bad.write_text("no image")
    text = message(load, root)
    assert repr(str(bad.relative_to(root))) in text
    skipped = load(root, bad_images="skip")
    assert len(skipped.dropped) == 1
    assert skipped.dropped[0].isprintable()
    shutil.rmtree(root / "train" / name)
    assert message(check_dataset, f"folder:{root}").count(repr(name)) >= 1


def test_classes_that_differ_by_case_are_two(tmp_path):
    """Handwritten letters: a and A."""
    root = splits(tmp_path, classes=("A", "a"))
    if len(list((root / "train").iterdir())) < 2:
        pytest.skip("this file system holds them for one")
    assert load(root).classes == ("A", "a")


def test_hidden_files_and_folders_are_no_images(tmp_path):
    root = splits(tmp_path / "x")
    before = load(root).sha256
    picture().save(root / "train/a/.hidden.png")
    (root / "train/a/._0.png").write_bytes(b"what a Mac leaves")
    folder_of(root, {"train/.cache": 2, "train/a/.thumbnails": 1, ".git": 1})
    assert load(root).sha256 == before


def test_other_files_are_passed_over_and_named(tmp_path):
    root = splits(tmp_path)
    before = load(root)
    (root / "train/a/notes.txt").write_text("")
    picture().save(root / "val/b/x.gif")
    (root / "README.md").write_text("")
    after = load(root)
    assert before.passed_over == ()
    assert after.passed_over == ("train/a/notes.txt", "val/b/x.gif")
    assert (after.sha256, len(after.dropped)) == (before.sha256, 0)


@pytest.mark.parametrize("ending", [".JPG", ".Png", ".JPEG", ".bmp", ".PPM", ".tif", ".TIFF", ".webp"])
def test_endings_in_any_case(ending, tmp_path):
    root = splits(tmp_path, test=3)
    picture().save(root / "train/a" / f"more{ending}")
    assert len(load(root).train) == len(load(splits(tmp_path / "plain", test=3)).train) + 1


def test_a_link_inside_the_folder_is_followed_once(tmp_path):
    root = splits(tmp_path, test=3)
    folder_of(root, {"pool": 1})
    (root / "train/a/link.png").symlink_to(root / "pool/0.png")
    assert len(load(root).train) == 13


def test_copies_of_training_images_are_counted(tmp_path):
    root = splits(tmp_path, train=6, val=3, test=3)
    shutil.copy(root / "train/a/0.png", root / "test/a/copy.png")
    shutil.copy(root / "train/b/0.png", root / "test/a/wrong class.png")
    shutil.copy(root / "train/b/0.png", root / "val/b/copy.png")
    shutil.copy(root / "val/b/0.png", root / "test/b/copy of val.png")
    assert load(root).repeated == {"val": 1, "test": 2}


# --- folders that are not as they must be ---------------------------------------------------------------------


def _loop(root):
    (root / "loop").symlink_to(root / "loop")


def _dangling(root):
    (root / "train/gone").symlink_to(root / "nowhere")


def _hard_link(root):
    os.link(root / "train/a/0.png", root / "val/a/again.png")


def _soft_link(root):
    (root / "val/a/again.png").symlink_to(root / "train/a/0.png")


def _file_as_class(root):
    shutil.rmtree(root / "train/a")
    (root / "train/a").write_text("")


def _rename(old, new):
    return lambda root: (root / old).rename(root / new)


def _remove(*names):
    return lambda root: [shutil.rmtree(root / name) for name in names]


FOLDERS = {
    "no train": (_remove("train"), ["only one class folder, 'val'", "did you mean"]),
    "nothing": (_remove("train", "val"), ["has no class folders", "PATH/CLASS/*.jpg"]),
    "empty train": (_remove("train/a", "train/b"), ["train'", "has no class folders"]),
    "one class": (_remove("train/a", "val/a"), ["only one class folder, 'b'", "at least two"]),
    "class missing in val": (_remove("val/b"), None),
    "class of another name": (_rename("val/b", "val/c"), ["'c' is in val/, but not in train/", "the same name"]),
    "class of another case": (_rename("val/b", "val/B"), ["'B' is in val/", "which has 'b' for 'B'"]),
    "one class more": (lambda root: folder_of(root, {"val/c": 1}), ["'c' is in val/, but not in train/"]),
    "class without images": (lambda root: [f.unlink() for f in root.glob("val/b/*")], None),
    "no images at all": (lambda root: [f.unlink() for f in root.glob("val/*/*")], ["'val/a'", "holds no images"]),
    "class without known endings": (_rename("val/b/0.png", "val/b/0.xyz"), None),
    "Test of one class": (lambda root: folder_of(root, {"Test/a": 1}), None),
    "a file for a class": (_file_as_class, ["only one class folder, 'b'"]),
    "a link in a circle": (_loop, ["'loop' is a link that leads nowhere"]),
    "a class that is a broken link": (_dangling, ["'gone' is a link that leads nowhere"]),
    "a hard link in two splits": (_hard_link, ["'train/a/0.png' and 'val/a/again.png' are one file"]),
    "a soft link in two splits": (_soft_link, ["'train/a/0.png' and 'val/a/again.png' are one file"]),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_not_as_it_must_be(case, tmp_path):
    change, words = FOLDERS[case]
    root = splits(tmp_path / "x")
    change(root)
    if words is None:
        check_dataset(f"folder:{root}")
        return
    text = message(check_dataset, f"folder:{root}")
    for word in words:
        assert word in text


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(b"")
    assert "is no folder" in message(check_dataset, f"folder:{file}")
    assert "does not exist" in message(check_dataset, f"folder:{file}/y")


@pytest.fixture
def powerless():
    """Runs as a user without privileges, in a folder that such a user can enter; root reads everything."""
    root, before = Path(tempfile.mkdtemp()), os.geteuid()
    root.chmod(0o777)
    if not before:
        os.seteuid(65534)
    try:
        yield root
    finally:
        os.seteuid(before)
        for path in [root, *root.rglob("*")]:
            if path.is_dir():
                path.chmod(0o777)
        shutil.rmtree(root)


def test_what_may_not_be_read(powerless):
    root = splits(powerless / "x")
    (root / "train/a/0.png").chmod(0)
    assert "'train/a/0.png': Permission denied" in message(load, root)
    assert len(load(root, bad_images="skip").dropped) == 1
    (root / "val/b").chmod(0)
    assert "'val/b'" in (text := message(check_dataset, f"folder:{root}"))
    assert "Permission denied" in text
    root.chmod(0)
    assert "cannot be read: Permission denied" in message(check_dataset, f"folder:{root / 'train'}")
    assert "cannot be read: Permission denied" in message(check_dataset, f"folder:{root}")


# --- images that cannot be read -------------------------------------------------------------------------------


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size=(40, 30), mode="RGB"):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def truncated(kind, share=0.6):
    content = encoded(noise(), kind)
    return content[: int(len(content) * share)]


def flipped(kind, position):
    content = bytearray(encoded(noise(), kind))
    content[position] ^= 0xFF
    return bytes(content)


def link(target):
    return lambda file: file.symlink_to(target)


def listening(file):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(file.parent)  # a socket's path must be short
        try:
            one.bind(file.name)
        finally:
            os.chdir(here)


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def pickled(file):
    file.write_bytes(pickle.dumps(Harmful(file.parents[3] / "unpickled")))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(unpickled) (w) file closefile\nshowpage\n"

BAD = {
    "empty": (b"", "it is empty"),
    "text": (b"not an image\n", "it is no image"),
    "HTML": (b"<html><body>404 Not Found</body></html>", "it is no image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is no image"),
    "zeros": (bytes(5000), "it is no image"),
    "zip": (b"PK\x03\x04" + bytes(100), "it is no image"),
    "HEIC": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200), "it is no image"),
    "EPS, which would start Ghostscript": (EPS, "it is no image"),
    "ICO, which is not read": (encoded(noise((16, 16)), "ICO"), "it is no image"),
    "pickle": (pickled, "it is no image"),
    "truncated JPEG": (truncated("JPEG"), "truncated"),
    "JPEG without its end": (truncated("JPEG", 0.3), None),
    "JPEG's first bytes": (b"\xff\xd8\xff\xe0", None),
    "truncated PNG": (truncated("PNG"), "truncated"),
    "truncated WebP": (truncated("WEBP"), None),
    "truncated GIF": (truncated("GIF"), None),
    "truncated TIFF": (truncated("TIFF"), None),
    "truncated BMP": (truncated("BMP"), "truncated"),
    "truncated PPM": (truncated("PPM"), "truncated"),
    "PNG with a wrong checksum": (flipped("PNG", 30), None),
    "PNG without pixels": (encoded(noise(), "PNG")[:33], None),
    "decompression bomb": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "pixels"),
    "half a bomb": (encoded(Image.new("1", (17_000, 16_000)), "PNG"), "17000 x 16000 pixels are too many"),
    "long and thin": (encoded(Image.new("1", (1, 2_000_000)), "PNG"), "too long and thin"),
    "floating point": (encoded(Image.new("F", (20, 20), 3.5), "TIFF"), "only 0 to 1 have a known meaning"),
    "32-bit": (encoded(Image.new("I", (20, 20), 10**6), "TIFF"), "only -32,768 to 65,535 are read"),
    "folder": (lambda file: file.mkdir(), "it is no file"),
    "pipe": (os.mkfifo, "it is no file"),
    "socket": (listening, "it is no file"),
    "broken link": (link("nowhere.png"), "it is a link that leads nowhere"),
    "link in a circle": (link("x.png"), "it is a link that leads nowhere"),
    "link to a device": (link("/dev/zero"), "it is no file"),
    "link to a system file": (link("/etc/passwd"), "it is no image"),
}


def put(root, case, name="x.png"):
    content, _ = BAD[case]
    file = root / "train/a" / name
    file.write_bytes(content) if isinstance(content, bytes) else content(file)
    return file


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", BAD)
def test_an_image_that_cannot_be_read(case, tmp_path):
    root = splits(tmp_path / "images")
    whole = load(root)
    put(root, case)
    text = message(load, root)
    assert "1 of 19 images" in text
    assert "'train/a/x.png': " in text
    assert text.endswith("; repair or remove them, or use --bad-images skip")
    assert (BAD[case][1] or "") in text
    assert str(tmp_path) not in text.replace(str(root), "")
    data = load(root, bad_images="skip")
    assert len(data.dropped) == 1
    assert data.dropped[0].startswith("'train/a/x.png': ")
    assert len(data.dropped[0]) > len("'train/a/x.png': ")
    assert torch.equal(data.train.images, whole.train.images), "the others are all there"
    assert data.sha256 == whole.sha256
    assert not (tmp_path / "unpickled").exists()
    assert not Path("unpickled").exists()


def test_five_are_named_and_all_counted(tmp_path):
    root = splits(tmp_path, train=20)
    for n in range(7):
        (root / "train/b" / f"{n}.png").write_text("no image")
    text = message(load, root)
    assert "7 of 46 images" in text
    assert text.count("it is no image") == 5
    assert "'train/b/4.png'" in text
    assert "'train/b/5.png'" not in text
    data = load(root, bad_images="skip")
    assert len(data.dropped) == 7
    assert len(data.train) + len(data.val) == 33
    for split in parts_of(data).values():
        assert (split.images[split.index].flatten(2).double().std(2) == 0).all(), "no row of a bad image is left"


def test_a_class_of_which_nothing_is_left(tmp_path):
    root = splits(tmp_path)
    for file in root.glob("val/b/*"):
        file.write_text("no image")
    text = message(load, root, bad_images="skip")
    assert "class folder 'val/b'" in text
    assert "no readable image left" in text
    assert "'val/b/0.png': it is no image" in text
    assert "val/a" not in text


def test_too_few_are_left_for_a_split(tmp_path):
    root = folder_of(tmp_path, {"a": 3, "b": 3})
    (root / "a/0.png").write_text("no image")
    assert "class 'a' has 2 images" in message(load, root, bad_images="skip")


def test_a_repaired_image_is_seen(tmp_path):
    root = splits(tmp_path)
    file = put(root, "broken link")
    assert len(load(root, bad_images="skip").dropped) == 1
    picture().save(file.parent / "nowhere.png")
    linked = load(root)
    assert linked.dropped == ()
    file.unlink()
    assert load(root).sha256 == linked.sha256, "the two were one image"


def test_out_of_memory_is_no_bad_image(tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", exhausted)
    assert "not enough memory" in message(load, splits(tmp_path), bad_images="skip")


def test_an_error_of_ours_is_not_taken_for_a_bad_image(tmp_path, monkeypatch):
    def broken(*_):
        raise TypeError("a mistake")

    monkeypatch.setattr(decoding, "fit", broken)
    with pytest.raises(TypeError, match="a mistake"):
        load(splits(tmp_path), bad_images="skip")


def test_decoding_needs_the_memory_of_the_images_once(tmp_path):
    """Also when some are left out."""
    root = splits(tmp_path, train=24, val=8)
    (root / "train/a/0.png").write_text("no image")
    import tracemalloc

    load(root, size=8, bad_images="skip")  # imports
    tracemalloc.start()
    data = load(root, size=256, bad_images="skip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.train.images.shape[0] == 63
    assert 1.0 < peak / data.train.images.nbytes < 1.5


# --- images that can be read ----------------------------------------------------------------------------------


def read(content, tmp_path, name="x.png"):
    file = tmp_path / name
    file.write_bytes(content)
    image = read_image(file)
    assert image.mode == "RGB"
    return image


def of_mode(mode, kind, **options):
    return lambda: encoded(noise(mode=mode), kind, **options)


def palette(transparency):
    image = noise().quantize(16)
    return encoded(image, "PNG", transparency=transparency)


def animation(kind, **options):
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "green", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


GOOD = {
    "grey JPEG": of_mode("L", "JPEG"),
    "CMYK JPEG": of_mode("CMYK", "JPEG"),
    "progressive JPEG": of_mode("RGB", "JPEG", progressive=True),
    "grey PNG": of_mode("L", "PNG"),
    "black and white": of_mode("1", "PNG"),
    "alpha": of_mode("RGBA", "PNG"),
    "grey with alpha": of_mode("LA", "PNG"),
    "palette": of_mode("P", "PNG"),
    "palette with a transparent colour": lambda: palette(3),
    "palette with transparency": lambda: palette(bytes(range(0, 160, 10))),
    "animated GIF": lambda: animation("GIF"),
    "animated PNG": lambda: animation("PNG"),
    "animated WebP": lambda: animation("WEBP", lossless=True),
    "pages of a TIFF": lambda: animation("TIFF"),
    "several pictures in a JPEG": lambda: animation("MPO"),
    "CMYK TIFF": of_mode("CMYK", "TIFF"),
    "Lab": lambda: encoded(Image.new("LAB", (20, 10), (100, 20, 30)), "TIFF"),
    **({"YCbCr TIFF": of_mode("YCbCr", "TIFF")} if pil_reads(of_mode("YCbCr", "TIFF")) else {}),
    "compressed TIFF": of_mode("RGB", "TIFF", compression="tiff_lzw"),
    "WebP": of_mode("RGB", "WEBP"),
    "WebP with alpha": of_mode("RGBA", "WEBP"),
    "BMP": of_mode("RGB", "BMP"),
    "PGM": of_mode("L", "PPM"),
    "a pixel": lambda: encoded(Image.new("RGB", (1, 1)), "PNG"),
}


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("case", GOOD)
def test_an_image_is_what_pil_shows_as_rgb(case, tmp_path):
    content = GOOD[case]()
    image = read(content, tmp_path)
    with Image.open(io.BytesIO(content)) as expected:
        assert np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind, tmp_path):
    options = {"lossless": True} if kind == "WEBP" else {}
    pixel = read(animation(kind, **options), tmp_path).getpixel((5, 5))
    assert pixel[0] > 250
    assert max(pixel[1:]) < 5


def sixteen(kind):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    if kind == "PPM":
        return b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes(), ramp
    return encoded(Image.fromarray(ramp), kind), ramp


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut_off(kind, tmp_path):
    content, ramp = sixteen(kind)
    image = np.asarray(read(content, tmp_path))
    for channel in range(3):
        assert np.array_equal(image[..., channel], ramp >> 8)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_of_a_photo_is_obeyed(orientation, mode, tmp_path):
    """The Exif standard says where the stored picture's first row and column belong."""
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }.get(orientation, upright)
    image = Image.fromarray(np.ascontiguousarray(stored))
    if mode == "I;16":
        image = Image.fromarray(np.ascontiguousarray(stored).astype(np.uint16) << 8)
    elif mode == "RGB":
        image = image.convert("RGB")
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    found = np.asarray(read(encoded(image, "PNG", exif=exif), tmp_path))[..., 0]
    # 5 to 8: what is stored as a row is a column of the upright picture.
    assert np.array_equal(found, upright)


def test_every_orientation_is_pils(tmp_path):
    from PIL import ImageOps

    for orientation in UPRIGHT:
        exif = Image.Exif()
        exif[decode.ORIENTATION] = orientation
        content = encoded(noise((7, 5)), "PNG", exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        assert np.array_equal(np.asarray(read(content, tmp_path)), np.asarray(expected))


def test_the_content_decides_not_the_name(tmp_path):
    assert read(encoded(noise(), "PNG"), tmp_path, "x.jpg").size == (40, 30)
    assert read(encoded(noise(), "JPEG"), tmp_path, "x.tiff").size == (40, 30)


SEEDS = {
    "JPEG": lambda: encoded(noise(), "JPEG", exif=_exif(), comment=b"x"),
    "PNG": lambda: encoded(noise(), "PNG", exif=_exif()),
    "palette": lambda: palette(3),
    "GIF": lambda: animation("GIF"),
    "WEBP": lambda: encoded(noise(), "WEBP", exif=_exif()),
    "TIFF": lambda: encoded(noise(), "TIFF", compression="tiff_lzw"),
    "BMP": lambda: encoded(noise(), "BMP"),
    "PPM": lambda: encoded(noise(), "PPM"),
}


def _exif():
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    return exif


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEEDS)
def test_a_file_changed_at_random_is_an_image_or_refused(kind, tmp_path):
    generator = random.Random(kind)
    whole = SEEDS[kind]()
    for _ in range(250):
        content = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 8))):
            position = generator.randrange(min(len(content), generator.choice((64, 512, 10**6))) or 1)
            how = generator.randrange(4)
            if how == 0:
                content[position : position + 1] = [generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))]
            elif how == 1:
                del content[position : position + generator.choice((1, 2, 40))]
            elif how == 2:
                content[position:position] = generator.randbytes(generator.choice((1, 4, 30)))
            else:
                del content[max(position, 12) :]
        try:
            image = read(bytes(content), tmp_path)
            store.fit(image, 8, 8, Image.Resampling.BILINEAR)
        except ValueError as error:
            assert str(error).isprintable()
            assert str(error)
