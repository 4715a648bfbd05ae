"""Splits, subsets and the store of decoded images; the embedded data sets; exactness with torchvision's preset."""

import hashlib
import inspect
import os
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from digits import ALL
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import get_model_weights, list_models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tlbench.data import DATASETS, Request, check_dataset, decode, load_data, store
from tlbench.data.splits import divide, subset
from tlbench.data.store import RESAMPLING, allocate, fit, free_bytes, make_images, remember
from tlbench.errors import UserError
from tlbench.machine.kept import KEPT


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setitem(DATASETS, "digits", ALL)
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def load(dataset="digits", *, size=16, seed=0, train_size=None):
    return load_data(dataset, Request(size=size, resize=size, interpolation="bilinear", seed=seed), train_size)


def positions(data):
    return {part: getattr(data, part).index.tolist() for part in ("train", "val", "test")}


# --- digits and noise -----------------------------------------------------------------------------------------


def test_digits_are_1797_images_of_ten_classes_in_three_parts():
    data = load()
    parts = positions(data)
    everything = sorted(chain(*parts.values()))
    assert everything == list(range(1797))
    assert data.classes == tuple("0123456789")
    assert data.train.images.shape == (1797, 3, 16, 16)
    assert data.train.images.dtype == torch.uint8
    assert data.repeated == {"val": 0, "test": 0}
    whole = Counter(torch.cat([getattr(data, part).labels for part in parts]).tolist())
    for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        for label, count in Counter(getattr(data, part).labels.tolist()).items():
            spread = (share * (1 - share) * whole[label]) ** 0.5
            assert abs(count - share * whole[label]) <= 4 * spread


def test_digits_show_what_scikit_learn_scanned():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load(size=8)
    pixels = data.train.images.numpy()
    assert (pixels[:, 0] == pixels[:, 1]).all()
    assert (pixels[:, 0] == pixels[:, 2]).all()
    np.testing.assert_array_equal(np.round(pixels[:, 0] / 255 * 16), bunch.images)
    assert data.val.labels.tolist() == bunch.target[data.val.index].tolist()


def test_a_seed_decides_the_split_and_nothing_else():
    first, again, other = load(seed=1), load(seed=1), load(seed=2)
    assert positions(first) == positions(again)
    assert first.sha256 == again.sha256
    assert positions(first)["test"] != positions(other)["test"]
    assert first.sha256 != other.sha256
    assert first.train.pixels is other.train.pixels, "another seed decodes nothing again"


@pytest.mark.parametrize("change", [{"size": 24}, {"train_size": 100}])
def test_the_hash_knows_what_decides_the_data(change):
    assert load(**change).sha256 != load().sha256


def test_a_batch_larger_than_the_split_and_a_batch_of_some():
    data = load(train_size=10)
    images, labels = data.train.batch(torch.arange(10))
    assert images.shape == (10, 3, 16, 16)
    assert sorted(labels.tolist()) == list(range(10))
    some, _ = data.train.batch(torch.tensor([3, 3, 0]))
    assert torch.equal(some[0], some[1])
    assert torch.equal(some[2], images[0])


def test_noise_has_no_accuracy():
    data = load("synthetic")
    assert not data.measures_accuracy
    assert len(set(chain(*positions(data).values()))) == sum(len(p) for p in positions(data).values())
    assert torch.equal(data.train.images, load("synthetic", seed=5).train.images)
    assert load("digits").measures_accuracy


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("digit", ["'digit'", "did you mean 'digits'", "folder:PATH"]),
        ("digits:here", ["'digits:here'", "'folder:here'"]),
        ("synthetic:\n", ["takes no path", r"\n"]),
        ("folder:", ["folder:PATH"]),
        ("folder:none-such", ["'none-such'", "does not exist"]),
        ("folder:~no-such-user/x", ["does not exist"]),
        ("folder:" + "x" * 5000, ["cannot be read"]),
        ("folder:a\0b", ["does not exist"]),
        ("", ["unknown dataset ''"]),
    ],
)
@pytest.mark.parametrize("call", [check_dataset, load])
def test_a_dataset_that_is_not_there(dataset, words, call):
    with pytest.raises(UserError) as caught:
        call(dataset)
    assert len(str(caught.value).splitlines()) == 1
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("call", [check_dataset, load])
def test_a_folder_without_its_prefix(call, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for dataset in ("photos", str(tmp_path)):
        with pytest.raises(UserError, match=f"^dataset '{dataset}' is a folder; did you mean 'folder:{dataset}'"):
            call(dataset)


@pytest.mark.parametrize("name", DATASETS)
def test_the_table_says_what_each_is(name):
    row = DATASETS[name]
    assert row.summary
    if not row.takes_path:
        assert row.classes == len(load(name).classes)
        assert not row.read_by_check, "what comes with a package can be read"


@pytest.mark.parametrize("dataset", [name for name, row in DATASETS.items() if not row.takes_path])
def test_a_training_set_is_refused_without_the_images_as_with_them(dataset):
    n = DATASETS[dataset].classes
    check_dataset(dataset, [None, n, 10**6])
    load(dataset, train_size=n)
    for refused in (lambda: check_dataset(dataset, [None, n, n - 1]), lambda: load(dataset, train_size=n - 1)):
        with pytest.raises(UserError, match=f"train size {n - 1} is less than one image for each of the {n} classes"):
            refused()


# --- splits ---------------------------------------------------------------------------------------------------


@st.composite
def labelled(draw, least=3):
    counts = draw(st.lists(st.integers(least, 40), min_size=2, max_size=6))
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    labels = draw(st.permutations(labels))
    return labels, [f"class {label}" for label in range(len(counts))]


@given(labelled(), st.integers(0, 2**31))
def test_parts_are_disjoint_and_complete_and_hold_every_class(made, seed):
    labels, classes = made
    parts = divide(range(len(labels)), labels, classes, {"val": 0.15, "test": 0.15}, seed)
    assert sorted(chain(*parts.values())) == list(range(len(labels)))
    for part in parts.values():
        assert {labels[p] for p in part} == set(range(len(classes)))
        assert part == sorted(part)


@pytest.mark.exhaustive
@given(labelled(), st.integers(0, 99), st.data())
def test_a_smaller_training_set_is_part_of_a_larger_one_and_stratified(made, seed, data):
    labels, classes = made
    positions = sorted(data.draw(st.sets(st.sampled_from(range(len(labels))), min_size=len(labels) // 2)))
    present = Counter(labels[p] for p in positions)
    if len(present) < len(classes):
        return
    small, large = sorted(data.draw(st.tuples(*[st.integers(len(classes), len(labels))] * 2)))
    fewer = subset(positions, labels, classes, small, seed)
    more = subset(positions, labels, classes, large, seed)
    assert set(fewer) <= set(more) <= set(positions)
    assert len(fewer) == min(small, len(positions))
    got = Counter(labels[p] for p in fewer)
    assert set(got) == set(present)
    for label, count in present.items():
        assert abs(got[label] - len(fewer) * count / len(positions)) <= len(classes)


def test_the_training_set_is_made_smaller_and_nothing_else():
    whole, small = load(), load(train_size=50)
    assert len(small.train) == 50
    assert set(positions(small)["train"]) < set(positions(whole)["train"])
    assert positions(small)["val"] == positions(whole)["val"]
    assert positions(small)["test"] == positions(whole)["test"]
    assert Counter(small.train.labels.tolist()) == dict.fromkeys(range(10), 5)
    assert positions(load(train_size=10**6)) == positions(whole)


def test_too_few_for_a_split():
    with pytest.raises(UserError, match=r"class 'b' has 2 images, but train, val, test need one each.*at least 3"):
        divide(range(5), [0, 0, 0, 1, 1], ["a", "b"], {"val": 0.15, "test": 0.15}, 0)


def test_a_thousand_classes_of_three():
    labels = [label for label in range(1000) for _ in range(3)]
    classes = [str(label) for label in range(1000)]
    parts = divide(range(3000), labels, classes, {"val": 0.15, "test": 0.15}, 0)
    assert [len(part) for part in parts.values()] == [1000, 1000, 1000]


def test_a_class_whose_name_is_no_text():
    """A folder's name may hold any bytes; Python shows those that are no text as surrogates."""
    parts = divide(range(6), [0, 0, 0, 1, 1, 1], ["\udcff", "\udcfe"], {"val": 0.15, "test": 0.15}, 0)
    assert sorted(chain(*parts.values())) == list(range(6))


# --- exactness ------------------------------------------------------------------------------------------------


def as_torchvision(image, resize, size, interpolation):
    """torchvision's own preset on a PIL image, its scaling undone: (3, size, size) uint8."""
    preset = ImageClassification(
        crop_size=size,
        resize_size=resize,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=InterpolationMode(interpolation),
    )
    scaled = preset(image) * 255
    assert (scaled - scaled.round()).abs().max() < 1e-3
    return scaled.round().to(torch.uint8).numpy()


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.exhaustive
@settings(max_examples=300, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resize=st.integers(1, 70),
    size=st.integers(1, 80),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos"]),
)
def test_every_pixel_is_torchvisions(width, height, resize, size, interpolation):
    image = noise(width, height, seed=width * 100 + height)
    ours = fit(image, resize, size, RESAMPLING[interpolation])
    np.testing.assert_array_equal(ours, as_torchvision(image, resize, size, interpolation))


def _presets():
    """Every way in which torchvision's classification weights see an image: (resize, size, interpolation)."""
    found = set()
    for name in list_models(module=__import__("torchvision").models):
        for weights in get_model_weights(name):
            preset = weights.transforms()
            found.add((preset.resize_size[0], preset.crop_size[0], preset.interpolation.value))
    return sorted(found)


@pytest.mark.parametrize(("resize", "size", "interpolation"), _presets())
def test_every_pixel_is_that_of_the_weights_own_transforms(resize, size, interpolation):
    image = noise(301, 257)
    ours = fit(image, resize, size, RESAMPLING[interpolation])
    np.testing.assert_array_equal(ours, as_torchvision(image, resize, size, interpolation))


def test_a_long_thin_image_does_not_fill_the_memory():
    with pytest.raises(ValueError, match="too long and thin"):
        fit(Image.new("RGB", (1, 60_000)), 256, 224, RESAMPLING["bilinear"])
    assert fit(Image.new("RGB", (1, 3_000)), 64, 56, RESAMPLING["bilinear"]).shape == (3, 56, 56)


# --- where the pixels lie -------------------------------------------------------------------------------------


def images(count=4, size=2, value=0):
    pixels = allocate(count, size)
    pixels[:] = value
    return make_images(pixels, [0, 1] * (count // 2), ["a", "b"])


def test_what_is_kept_is_made_once_for_each_key():
    made = []

    def make():
        made.append(1)
        return images()

    assert remember("x", make) is remember("x", make)
    remember("y", make)
    assert len(made) == 2


def test_what_was_used_longest_ago_makes_room(monkeypatch):
    monkeypatch.setattr(store, "free_bytes", lambda: 4 * 1000 - KEPT.images.bytes())
    for key in "ab":
        remember(key, lambda: images(count=20))  # 240 bytes each; a quarter of 4,000 may be used
    first = remember("a", images)
    remember("c", lambda: images(count=50))
    assert list(KEPT.images) == ["a", "c"], "b was used before a"
    assert remember("a", images) is first


def test_more_than_its_share_of_memory_lies_in_a_file_with_the_same_content(monkeypatch, tmp_path):
    inside = load(size=8)
    KEPT.images.forget()
    monkeypatch.setattr(store, "free_bytes", lambda: 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outside = load(size=8)
    assert isinstance(allocate(4, 32), np.memmap)
    assert torch.equal(inside.train.images, outside.train.images[0 : len(outside.labels)])
    assert inside.sha256 == outside.sha256
    assert not os.listdir(tmp_path), "the file has no name and goes with the process"


def test_no_room_anywhere_is_one_clear_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "free_bytes", lambda: 10**9)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        UserError, match=r"10,000 images of 224 px need 1\.5 GB; .*No space left.*--image-size"
    ) as caught:
        allocate(10_000, 224)
    assert len(str(caught.value).splitlines()) == 1


def test_free_memory_is_that_of_this_machine():
    assert 10**6 < free_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_hash_of_images():
    base = images()
    assert base.sha256 == images().sha256
    assert base.sha256 != images(value=1).sha256
    changed = base.pixels.copy()
    changed[3, 2, 1, 1] = 1
    assert make_images(changed, [0, 1, 0, 1], ["a", "b"]).sha256 != base.sha256
    assert make_images(base.pixels, [0, 1, 1, 1], ["a", "b"]).sha256 != base.sha256
    assert make_images(base.pixels, [0, 1, 0, 1], ["a", "c"]).sha256 != base.sha256
    assert base.digests[0] == hashlib.sha256(bytes(12)).digest()


def test_decoding_is_on_pils_pixels_without_a_draft():
    """A JPEG's draft mode is quicker and gives other pixels."""
    from tlbench.data import folder

    assert ".draft(" not in inspect.getsource(folder) + inspect.getsource(decode) + inspect.getsource(store)
