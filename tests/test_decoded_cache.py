"""Decoded images kept on the disk: the next run decodes nothing that it need not, and never takes what is damaged."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import save_image
from image_files import tiff

from tlbench.campaign.check import check
from tlbench.data import Request, decode, decoded, decoded_folder, decoding, facts_folder, lent, load_data, store
from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.images.forget()
    yield tmp_path / "cache" / "decoded"
    KEPT.images.forget()
    lent._borrowed.clear()


@pytest.fixture
def files(monkeypatch):
    """The names of the files that were decoded since they were asked for last."""
    names, real = [], decoding.read_photograph

    def read(file, *arguments, **options):
        names.append(file.name)
        return real(file, *arguments, **options)

    monkeypatch.setattr(decoding, "read_photograph", read)

    def since():
        found = sorted(names)
        names.clear()
        return found

    return since


def request(size=16, **options):
    return Request(**{"size": size, "resize": size, "interpolation": "bilinear", "seed": 0, **options})


def load(root, **options):
    """As a process that has no images yet."""
    KEPT.images.forget()
    return load_data(f"folder:{root}", request(**options))


def same(one, other):
    """Whether two data sets are the same to the last bit, splits and copies included."""
    pixels = [data.train.images.index_select(0, data.train.index).numpy() for data in (one, other)]
    return one.sha256 == other.sha256 and one.identities == other.identities and np.array_equal(*pixels)


def there(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_the_next_run_decodes_nothing(photos, files):
    first = load(photos)
    assert len(files()) == 24
    for seed in (0, 1):
        again = load(photos, seed=seed)
        assert files() == []
        assert again.images_sha256 == first.images_sha256
    assert same(load(photos), first)


@pytest.mark.parametrize(
    "other",
    [
        {"size": 20}, {"resize": 18}, {"interpolation": "bicubic"}, {"crop_mode": "squash"},
        {"crop_mode": "border", "fill": (1, 2, 3)}, {"decode": "scaled"},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_decides_pixels_is_decoded_anew(other, photos, files, cache):
    load(photos)
    files()
    load(photos, **other)
    assert len(files()) == 24
    assert len(there(cache)) == 2
    load(photos)
    load(photos, **other)
    assert files() == []


def test_what_is_known_about_images_comes_back_without_the_facts(photos, files):
    """Copies are found by looks, which are kept with the pixels."""
    shutil.copy(photos / "train/dark/0.jpg", photos / "train/dark/copy.jpg")
    first = load(photos)
    files()
    facts_folder.clear()
    again = load(photos)
    assert files() == []
    assert same(again, first)
    assert {**vars(again), "train": 0, "val": 0, "test": 0, "labels": 0, "positions": 0} == {
        **vars(first), "train": 0, "val": 0, "test": 0, "labels": 0, "positions": 0
    }  # fmt: skip


def _another(root):
    save_image(root / "train/dark/3.jpg", 90, seed=77)


def _touched(root):
    os.utime(root / "train/dark/3.jpg", ns=(1, 1))


CHANGES = {
    "another picture": (_another, ["3.jpg"]),
    "a file more": (lambda root: save_image(root / "train/dark/new.jpg", 33, seed=5), ["new.jpg"]),
    "a file less": (lambda root: (root / "train/dark/3.jpg").unlink(), []),
    "another time": (_touched, []),
    "another name": (lambda root: (root / "train/dark/3.jpg").rename(root / "train/dark/z.jpg"), []),
    "another class": (lambda root: (root / "train/dark/3.jpg").rename(root / "train/light/z.jpg"), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_has_changed_is_decoded(change, photos, files, cache, monkeypatch):
    make, decodes = CHANGES[change]
    load(photos)
    files()
    make(photos)
    changed = load(photos)
    assert files() == decodes
    assert len(there(cache)) == 1, "what was kept of the folder as it was is of no use"
    monkeypatch.setenv("TLBENCH_CACHE", str(cache.parent / "another"))
    assert same(load(photos), changed)


def test_a_folder_that_has_moved_and_one_with_the_same_photographs_decode_nothing(photos, files, tmp_path):
    first = load(photos)
    files()
    moved = photos.rename(tmp_path / "moved")
    assert load(moved).images_sha256 == first.images_sha256
    (tmp_path / "other/a").mkdir(parents=True)
    (tmp_path / "other/b").mkdir()
    for n in range(4):
        shutil.copy(moved / f"train/dark/{n}.jpg", tmp_path / f"other/a/{n + 50}.jpg")
        shutil.copy(moved / f"train/light/{n}.jpg", tmp_path / f"other/b/{n + 50}.jpg")
    load(tmp_path / "other")
    assert files() == []


# --- damage ---------------------------------------------------------------------------------------------------


def _turned(path, place):
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(bytes([byte[0] ^ 1]))


HARM = {
    "a pixel": (lambda path: _turned(path, 3 * 16 * 16 * 5 + 7), 1),
    "what is said of the images": (lambda path: _turned(path, -200), 24),
    "the mark": (lambda path: _turned(path, -2), 24),
    "the length": (lambda path: _turned(path, -55), 24),
    "cut short": (lambda path: os.truncate(path, path.stat().st_size // 2), 24),
    "empty": (lambda path: path.write_bytes(b""), 24),
    "a hole": (lambda path: path.write_bytes(bytes(path.stat().st_size)), 24),
    "gone": (lambda path: path.unlink(), 24),
    "a link": (lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))), 24),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_damaged_is_decoded_anew(harm, photos, files, cache):
    first = load(photos)
    files()
    harmed, decodes = HARM[harm]
    (name,) = there(cache)
    harmed(cache / name)
    assert same(load(photos), first)
    assert len(files()) == decodes
    assert same(load(photos), first)
    assert files() == [], "it was kept anew"


@pytest.mark.parametrize("call", ["os.posix_fallocate", "tlbench.data.decoded.write_all", "os.replace"])
def test_a_disk_that_takes_no_more_costs_the_file_alone(call, photos, files, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        first = load(photos)
    assert there(cache) == []
    files()
    assert same(load(photos), first)
    assert len(files()) == 24


def test_a_cache_that_cannot_be_written_is_no_error(photos, tmp_path, monkeypatch, files):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "a file"))
    first = load(photos)
    assert same(load(photos), first)
    assert len(files()) == 48


def test_nothing_is_kept_where_no_room_is_given(photos, cache, files):
    load(photos, disk_bytes=0)
    assert there(cache) == []
    load(photos, disk_bytes=decoded.at_most(24, 16) - 1)
    assert there(cache) == []
    load(photos, disk_bytes=decoded.at_most(24, 16))
    assert len(there(cache)) == 1


def _by_size(cache):
    return {decoded.read(path).pixels.shape[-1]: path.name for path in cache.iterdir()}


def test_those_used_longest_ago_give_way(photos, cache):
    for size in (16, 18, 20):
        load(photos, size=size)
    kept = {size: decoded_folder.folder() / name for size, name in _by_size(cache).items()}
    for size, age in ((16, 5), (18, 20), (20, 10)):
        os.utime(kept[size], (time.time() - age,) * 2)
    needed = decoded.at_most(24, 22)
    rest = sum(kept[size].stat().st_size for size in (16, 20))
    load(photos, size=22, disk_bytes=needed + rest)
    assert sorted(_by_size(cache)) == [16, 20, 22]


def test_images_of_more_than_8_bits_are_kept_at_their_scale(tmp_path, files):
    """Another image may change the scale of all: those are decoded anew, and no other."""
    root = tmp_path / "scans"
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        for n in range(5):
            path = root / "train" / label / f"{n}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tiff(generator.integers(0, 4000, (20, 20)).astype(np.uint16)))
        save_image(root / "val" / label / "x.jpg", seed=ord(label))
    first = load(root)
    assert first.pixel_range["white"] == 4095
    files()
    assert same(load(root), first)
    assert files() == []
    (root / "train/a/more.tif").write_bytes(tiff(generator.integers(0, 60_000, (20, 20)).astype(np.uint16)))
    second = load(root)
    assert second.pixel_range["white"] == 65_535
    assert len([name for name in files() if name.endswith(".jpg")]) == 0
    facts_folder.clear()
    decoded_folder.clear()
    assert same(load(root), second)
    (root / "train/a/more.tif").unlink()
    assert same(load(root), first)


def test_images_that_are_broken_are_looked_at_once(photos, files):
    (photos / "train/dark/0.jpg").write_bytes(b"no image")
    first = load(photos, bad_images="skip")
    assert len(files()) == 24
    again = load(photos, bad_images="skip")
    assert same(again, first)
    assert files() == []
    assert again.dropped == first.dropped
    assert len(first.dropped) == 1


def test_images_that_the_system_cannot_read_are_tried_again_and_no_others(photos, files, monkeypatch):
    def open_(path, *arguments):
        if str(path).endswith("train/dark/7.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(decode, "open", open_, raising=False)
        first = load(photos, bad_images="skip")
        files()
        assert same(load(photos, bad_images="skip"), first)
        assert files() == ["7.jpg"]
        assert first.dropped == ("'train/dark/7.jpg': Permission denied",)
    assert load(photos, bad_images="skip").dropped == ()
    assert files() == ["7.jpg"]


def test_what_was_decoded_beside_one_that_cannot_be_read_is_not_decoded_again(photos, files):
    """It was all for nothing: a person repaired one of 100,000, and waited for the others once more."""
    (photos / "train/dark/0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of .* cannot be read: 'train/dark/0\.jpg'"):
        load(photos)
    assert len(files()) > 1
    with pytest.raises(UserError, match="cannot be read"):
        load(photos)
    assert files() == ["0.jpg"]
    (photos / "train/dark/0.jpg").unlink()
    load(photos)
    assert files() == []


def test_a_pipe_among_the_images_keeps_nobody(photos, files):
    load(photos)
    os.mkfifo(photos / "train/dark/pipe.jpg")
    found = load(photos, bad_images="skip")
    assert any("no file" in reason for reason in (*found.dropped, *found.passed_over)) or found.passed_over


# --- the command, the check and others ------------------------------------------------------------------------


def test_the_cache_command_counts_and_clears_them(photos, command, cache):
    load(photos)
    load(photos, size=20)
    (cache / "mine.txt").write_text("")
    assert "beside them: 2 files of decoded images, for later runs" in command("cache")[1]
    assert "removed: 2 files of decoded images, for later runs" in command("cache", "--clear")[1]
    assert there(cache) == ["mine.txt"]
    assert "decoded images" not in command("cache")[1]


HOLD = """
import sys, time
from pathlib import Path
from tlbench.data.decoded import Filling
kept = Filling(Path(sys.argv[1]), 10, 16)
print("there", flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_goes(photos, command, cache):
    name = cache / f"{'0' * 16}-{'0' * 16}-{'0' * 32}.decoded"
    with subprocess.Popen([sys.executable, "-c", HOLD, name], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "there\n"
            assert "1 file of decoded images being written" in command("cache")[1]
            assert "being written" in command("cache", "--clear")[1]
        finally:
            process.send_signal(signal.SIGKILL)
    assert "1 file of decoded images left unfinished" in command("cache")[1]
    load(photos)
    assert len(there(cache)) == 1
    assert not [name for name in there(cache) if name.endswith(".part")]


def test_full_disks_of_records_have_them_removed(photos, cache, monkeypatch, tmp_path):
    load(photos)
    assert not decoded_folder.give_way(tmp_path)
    monkeypatch.setattr("tlbench.machine.disk.room", lambda folder: 0)
    assert decoded_folder.give_way(tmp_path)
    assert there(cache) == []


def test_a_check_and_its_run_decode_once_and_the_next_run_nothing(photos, files):
    axes = {"dataset": (f"folder:{photos}",), "weights": ("random",), "image_size": (16,), "backbone": ("resnet18",)}
    for batch, policy in ((8, "linear_probe"), (4, "full")):
        KEPT.images.forget()
        check(Grid(axes={**axes, "batch_size": (batch,), "freeze": (policy,)}), Settings())
    assert len(files()) == 24


def test_what_was_taken_from_the_disk_is_lent(photos, files, monkeypatch):
    first = load(photos)
    KEPT.images.forget()
    with lent.lending():
        load_data(f"folder:{photos}", request())
    lent.accept({key: tuple(map(os.dup, loan)) for key, loan in store.loans().items()})
    KEPT.images.forget()
    monkeypatch.setattr("tlbench.data.folder._decode", None)
    monkeypatch.setattr("tlbench.data.folder._kept", None)
    assert same(load_data(f"folder:{photos}", request()), first)
