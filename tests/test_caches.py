"""What is cached: nothing half-written is handed out, nothing is left behind, and nothing else is lost for it."""

import errno
import gc
import hashlib
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from records import record

from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.isolate import Workers
from tlbench.campaign.memory import remember_layouts
from tlbench.campaign.room import with_room
from tlbench.campaign.stop import Stop
from tlbench.data import store as images_store
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import disk, layout, layouts, lines, locks, scratch
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.cache import cache_folder
from tlbench.machine.kept import KEPT
from tlbench.machine.layout import choose_layout
from tlbench.machine.scratch import Scratch, is_orphan
from tlbench.measure.place import Place
from tlbench.records import arrays, images
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load
from tlbench.train import code, files, inventory
from tlbench.train.activations import Prefix
from tlbench.train.chunks import chunk_of
from tlbench.train.code import code_of
from tlbench.train.stored import Budget, Fill

KEY = "0123456789abcdef" * 2
NAME = f"{KEY}-4"
SHAPE = (6, 3)
FACTS = {"seconds": 1.5, "images": 6, "channels_last": False, "fill": asdict(Fill(name="a fill"))}
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache folder, and nothing in memory."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(layouts, "_remembered", {})
    KEPT.activations.forget()
    yield tmp_path / "cache"
    KEPT.activations.forget()


def full(*_, **__):
    raise FULL


def values(seed=0, dtype=torch.float32, shape=SHAPE):
    return (100 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def reserve(name=NAME, like=None, budget=None):
    like = values() if like is None else like
    return files.reserve(name, tuple(like.shape), like.dtype, budget, memory=0)


def store(name=NAME, rows=None, budget=None, part=4):
    """Puts activations into a file, four images at a time."""
    rows = values() if rows is None else rows
    filling = reserve(name, rows, budget)
    for start in range(0, len(rows), part):
        filling.put(start, rows[start : start + part])
    return filling.publish({**FACTS, "images": len(rows)})


def there(cache):
    """The names of all files in the folder of activations."""
    return sorted(path.name for path in (cache / "prefix").iterdir())


# --- what is stored is what was computed ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("shape", [(6, 3), (1, 5), (5, 2, 3, 4)], ids=str)
def test_activations_come_back_to_the_last_bit(dtype, shape, cache):
    rows = values(dtype=dtype, shape=shape)
    own = store(rows=rows)
    found, facts = files.read(NAME, len(rows))
    for one in (own, found):
        assert one.dtype == dtype
        assert torch.equal(one, rows)
        assert torch.equal(one.index_select(0, torch.tensor([0])), rows[:1])
    assert facts == {"seconds": 1.5, "images": len(rows), "channels_last": False, "fill": Fill(name="a fill")}
    assert there(cache) == [f"{NAME}.activations"]


@pytest.mark.parametrize("ends", ["first", "second", "first second", "second first", ""])
def test_two_that_fill_one_name_at_a_time_do_not_meet(ends, cache):
    """As two containers may, whose processes have one number, as these two have: today's 67.3 % instead of 97.0 %."""
    rows = {"first": values(1), "second": values(2)}
    first = reserve()
    first.put(0, rows["first"][:4])
    second = reserve()
    second.put(0, rows["second"][:2])
    first.put(4, rows["first"][4:])
    second.put(2, rows["second"][2:])
    for one in ends.split():
        {"first": first, "second": second}[one].publish(FACTS)
        assert torch.equal(files.read(NAME, 6)[0], rows[one])
    for one in (first, second):
        one.drop()
    assert there(cache) == ([f"{NAME}.activations"] if ends else [])


def test_parts_are_taken_in_order_and_whole_files_published_alone(cache):
    filling = reserve()
    filling.put(0, values()[:4])
    for start, rows in ((0, values()[:4]), (5, values()[5:]), (4, values(dtype=torch.float16)[4:])):
        with pytest.raises(ValueError, match="not what follows 4 images"):
            filling.put(start, rows)
    with pytest.raises(ValueError, match="4 of 6 images"):
        filling.publish(FACTS)
    filling.drop()
    assert there(cache) == []


def described(content, **changes):
    """The same values under another description, with a hash that fits; a change to None takes something out."""
    begin = len(content) - files._TAIL - int.from_bytes(content[-files._TAIL :][:8], "little")
    told = {**json.loads(content[begin : -files._TAIL]), **changes}
    return content[:begin] + files._tail({key: value for key, value in told.items() if value is not None})


def sealed(content, text):
    """With any text for a description."""
    tail = len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + files._END
    return content[: files.START] + text + tail


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def exchanged(content):
    """The first two images, which are of one part, in the place of each other."""
    one, size = files.START, 12
    return content[:one] + content[one + size : one + 2 * size] + content[one : one + size] + content[one + 2 * size :]


DAMAGES = {
    "a bit": (lambda c: flipped(c, files.START + 50), "images from 4 to 5 are not what was computed"),
    "exchanged": (exchanged, "images from 0 to 3 are not what was computed"),
    "half": (lambda c: c[: len(c) // 2], "torn"),
    "no end": (lambda c: c[:-5], "it has no end"),
    "more": (lambda c: c + b"x", "it has no end"),
    "empty": (lambda c: b"", "it is torn"),
    "zeros": (lambda c: bytes(len(c)), "begins as no such file does"),
    "another version": (lambda c: c.replace(b"activations 2\n", b"activations 3\n"), "of another version"),
    "another file": (lambda c: b"\x93NUMPY" + c, "begins as no such file does"),
    "its first page": (lambda c: c.replace(b'"dtype": "float32"', b'"dtype": "float64"', 1), "does not describe"),
    "its description": (lambda c: c.replace(b'"seconds": 1.5', b'"seconds": 0.5'), "its description has changed"),
    "a part less": (lambda c: described(c, parts=[[4, "x"]]), "does not tell of all its images"),
    "a part of no size": (lambda c: described(c, parts=[[6]]), "not complete"),
    "another shape": (lambda c: described(c, shape=[6, 4]), "does not describe"),
    "no shape": (lambda c: described(c, shape=[]), "does not describe"),
    "no type": (lambda c: described(c, dtype="load"), "does not describe"),
    "no seconds": (lambda c: described(c, seconds=None), "not complete"),
    "another fill": (lambda c: described(c, fill={"no such thing": 1}), "not complete"),
    "nested": (lambda c: sealed(c, b"[" * 100_000), "describes nothing"),
    "a list": (lambda c: sealed(c, b"[]"), "describes nothing"),
    "no JSON": (lambda c: sealed(c, b"pickle"), "Expecting value"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_does_not_fit_its_description_is_never_used(case, cache):
    damage, words = DAMAGES[case]
    store()
    path = inventory.final(NAME)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(files.Damaged, match=words) as caught:
        files.read(NAME, 6)
    assert str(caught.value).isprintable()
    assert files.read(NAME, 6) is None, "it is gone"
    assert torch.equal(store(), values())


def test_a_file_under_another_name_or_of_other_images_is_none_of_these(cache):
    store()
    inventory.final(NAME).rename(inventory.final(f"{KEY}-5"))
    with pytest.raises(files.Damaged, match="does not describe these activations"):
        files.read(f"{KEY}-5", 6)
    store()
    with pytest.raises(files.Damaged, match="of 6 images, not of 7"):
        files.read(NAME, 7)


# --- links, and what else lies in the way ---------------------------------------------------------------------

IN_THE_WAY = {
    "a link to a file": lambda path, victim: path.symlink_to(victim),
    "a link to nothing": lambda path, victim: path.symlink_to(victim.parent / "nothing"),
    "a link to itself": lambda path, victim: path.symlink_to(path),
    "a pipe": lambda path, victim: os.mkfifo(path),
    "a folder": lambda path, victim: path.mkdir(),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_what_lies_in_the_place_of_a_file_is_neither_read_nor_followed(case, cache, tmp_path):
    store(f"{KEY}-9")
    victim = tmp_path / "victim"
    inventory.final(f"{KEY}-9").rename(victim)
    before = victim.read_bytes()
    IN_THE_WAY[case](inventory.final(NAME), victim)
    with pytest.raises(files.Damaged, match="cannot be read"):
        files.read(NAME, 6)
    if case == "a folder":
        with pytest.raises(files.NoRoom, match="Is a directory"):
            store()
    else:
        assert torch.equal(store(), values())
        assert not inventory.final(NAME).is_symlink()
    assert victim.read_bytes() == before
    assert not (tmp_path / "nothing").exists()
    assert there(cache) == [f"{NAME}.activations"]


def test_a_link_where_a_process_of_this_number_once_wrote_is_not_followed(cache, tmp_path):
    (cache / "prefix").mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    for name in (f"{NAME}.{os.getpid()}.part", f"{NAME}.facts.{os.getpid()}.part"):
        (cache / "prefix" / name).symlink_to(tmp_path / "victim")
    store()
    assert (tmp_path / "victim").read_text() == "precious"
    content = arrays.pack({"images": values().numpy()})
    names = {path.stem for path in _written(tmp_path / "one", content)}
    (tmp_path / "two" / "images").mkdir(parents=True)
    for name in names:
        (tmp_path / "two" / "images" / f".{name}.{os.getpid()}.part").symlink_to(tmp_path / "victim")
    _written(tmp_path / "two", content)
    assert (tmp_path / "victim").read_text() == "precious"


def _written(folder, content):
    """Results on single images, which are files written aside as well."""
    folder.mkdir(exist_ok=True)
    images._keep(folder / "images", content)
    return [path for path in (folder / "images").iterdir() if path.suffix == ".npz"]


# --- disks that are full --------------------------------------------------------------------------------------


THREE_PARTS = 3 * chunk_of(2, torch.device("cpu"))


def prefix_of(count=THREE_PARTS):
    """A frozen part of three stages over so many images, with no memory for what it computes."""
    torch.manual_seed(0)
    return Prefix(
        stages=torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(12, 5), torch.nn.Linear(5, 2)),
        images=torch.randint(256, (count, 3, 2, 2), dtype=torch.uint8),
        prepare=lambda x, _: x.float(),
        arithmetic=Arithmetic(device=torch.device("cpu")),
        key=KEY,
        budget=Budget(ram_bytes=0),
    )


class FullAt:
    """Takes so many writes, then has no room."""

    def __init__(self, takes):
        self.takes, self.write_all = takes, scratch.write_all

    def __call__(self, file, content):
        if not self.takes:
            file.write(memoryview(content)[: len(content) // 2])
            raise FULL
        self.takes -= 1
        self.write_all(file, content)


REFUSALS = {
    "reserving": ("os.posix_fallocate", full),
    "the first page": ("tlbench.train.files.write_all", FullAt(0)),
    "the first images": ("tlbench.train.files.write_all", FullAt(1)),
    "the last images": ("tlbench.train.files.write_all", FullAt(3)),
    "the description": ("tlbench.train.files.write_all", FullAt(4)),
    "syncing": ("os.fsync", full),
    "renaming": ("os.replace", full),
    "mapping": ("numpy.memmap", full),
    "making the folder": ("pathlib.Path.mkdir", full),
    "making the file": ("tlbench.train.files.Scratch", full),
    "looking": ("tlbench.machine.disk.room", full),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_disk_that_takes_no_more_costs_the_store_and_nothing_else(case, cache, monkeypatch):
    one = prefix_of()
    with monkeypatch.context() as patch:
        patch.setattr(*REFUSALS[case])
        assert one.at(2) is None
    assert len(one.notes) in (1, 2), "that it lies on the disk, and then that it does not"
    assert "No space left on device" in one.notes[-1]
    assert "computed in every epoch" in one.notes[-1]
    assert case == "mapping" or not cache.exists() or there(cache) == []
    assert one.at(2) is not None, "there is room again"


def test_an_error_in_the_middle_leaves_nothing(cache):
    for error in (KeyboardInterrupt, MemoryError, ValueError):
        one = prefix_of()
        taken = []

        def prepare(x, start, error=error, taken=taken):
            taken.append(start)
            if len(taken) == 3:
                raise error
            return x.float()

        one.prepare = prepare
        with pytest.raises(error):
            one.at(2, also=(1, 3))
        assert there(cache) == []


def test_one_store_of_a_pass_that_does_not_fit_does_not_cost_the_others(cache):
    one = prefix_of()
    room = files._at_most((len(one.images), 5), torch.float32) + 100
    one.budget = Budget(ram_bytes=0, disk_bytes=room)
    assert one.at(2, also=(3,)) is not None
    assert one.has(2)
    assert not one.has(3)
    assert any("fit neither into memory" in note for note in one.notes)
    assert len(there(cache)) == 1


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "room"),
    [
        (10**13, 10**12, 10**12 - 256 * 10**6),
        (10**9, 10**8, 5 * 10**7),
        (10**9, 10**7, 0),
        (4 * 10**6, 10**6, 8 * 10**5),
    ],
)
def test_the_last_of_a_disk_is_for_records(total, free, room, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(total, total - free, free))
    assert disk.room("/anywhere") == room
    with pytest.raises(files.NoRoom, match=r"fit neither into memory .* nor onto the disk"):
        files.reserve(NAME, (room + 1,), torch.uint8, 10**15, memory=0)
    monkeypatch.setattr(images_store, "free_bytes", lambda: 0)
    monkeypatch.setattr("os.posix_fallocate", lambda *_: pytest.fail("it must not come to that"))
    monkeypatch.setattr("tlbench.machine.disk.lies_in_memory", lambda _: False)
    with pytest.raises(UserError, match="a tenth is left to others"):
        images_store.allocate(int(images_store.DISK_SHARE * free) // 3 + 1, 1)


def test_images_for_which_no_temporary_folder_is_found_are_one_clear_line(monkeypatch):
    """As on a full disk: Python takes none there."""

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(images_store, "free_bytes", lambda: 0)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(UserError, match="memory has no room for the decoded images, and No usable temporary directory"):
        images_store.allocate(10_000, 224)


def test_a_library_that_reserves_no_room_writes_it(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("os.posix_fallocate", unknown)
    with (tmp_path / "file").open("wb+") as file:
        locks.reserve(file, 2**20 + 5)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 2**20
    assert torch.equal(store(), values())


BIG = (64, 1024)


def test_those_used_longest_ago_give_way(cache):
    names = [f"{KEY}-{number}" for number in (1, 2, 3)]
    for age, name in enumerate(names):
        store(name, values(age, shape=BIG))
        os.utime(inventory.final(name), (1000 + age, 1000 + age))
    assert files.read(names[0], 64) is not None, "this makes it the one used last"
    budget = 4 * files._size(BIG, torch.float32)
    store(f"{KEY}-4", values(4, shape=BIG), budget)
    assert [files.read(name, 64) is not None for name in names] == [True, False, True]


def test_what_gives_way_is_kept_no_longer(cache):
    """A file that this process has mapped would hold its room without a name."""
    one = prefix_of()
    assert one.at(2) is not None
    KEPT.activations.put("in memory", files.read(f"{KEY}-2", len(one.images))[0])
    one.budget = Budget(ram_bytes=0, disk_bytes=files._at_most((len(one.images), 12), torch.float32) + 100)
    assert one.at(1) is not None
    assert list(KEPT.activations) == ["in memory", f"{KEY}-1"]
    assert there(cache) == [f"{KEY}-1.activations"]


def test_what_is_mapped_takes_no_memory_and_cannot_be_changed(cache):
    def data():
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))

    rows = values(shape=(16, 2**18))
    own = store(rows=rows)
    before = data()
    found, _ = files.read(NAME, 16)
    assert data() - before < rows.nbytes / 2, "--memory-limit would count it"
    assert torch.equal(found, own)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if NAME in line]
    assert [line.split()[1] for line in maps] == ["r--s", "r--s"]


def test_nothing_gives_way_to_what_does_not_fit_anyway(cache):
    store(rows=values(shape=BIG))
    with pytest.raises(files.NoRoom, match="left of"):
        reserve(f"{KEY}-5", values(shape=BIG), budget=files._size(BIG, torch.float32))
    assert there(cache) == [f"{NAME}.activations"]


def test_what_others_write_counts(cache):
    first = reserve(like=values(shape=BIG))
    with pytest.raises(files.NoRoom, match="left of"):
        reserve(f"{KEY}-5", values(shape=BIG), budget=int(1.5 * files._size(BIG, torch.float32)))
    first.drop()
    reserve(f"{KEY}-5", values(shape=BIG), budget=int(1.5 * files._size(BIG, torch.float32))).drop()


# --- what was left behind -------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from tlbench.machine.scratch import Scratch
one = Scratch(Path(sys.argv[1]))
one.file.write(bytes(5000))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def writer(cache):
    """A process that is writing activations."""
    inventory.folder().mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, inventory.final(NAME)], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def counts():
    here = inventory.look()
    return {kind: len(getattr(here, kind)) for kind in ("stored", *("filling", "orphans", "older", "others"))}


@pytest.mark.parametrize("way", ["a run", "room for another", "--clear"])
def test_what_a_killed_process_left_is_told_from_what_one_writes(way, cache, writer, command):
    store(f"{KEY}-1")
    assert counts() == {"stored": 1, "filling": 1, "orphans": 0, "older": 0, "others": 0}
    assert "beside them: 1 file being written, 0.0 MB" in command("cache")[1]
    inventory.expire()
    status, out, _ = command("cache", "--clear")
    assert (status, counts()["filling"]) == (0, 1), "nobody takes it from the process that writes it"
    assert "removed 1 stored activations" in out
    writer.kill()
    writer.wait()
    assert counts() == {"stored": 0, "filling": 0, "orphans": 1, "older": 0, "others": 0}
    assert "beside them: 1 file left unfinished by processes that are gone" in command("cache")[1]
    assert counts()["orphans"] == 1, "who looks removes nothing"
    if way == "a run":
        assert prefix_of().at(1) is not None
    elif way == "room for another":
        store(f"{KEY}-2")
    else:
        assert "removed: 1 file left unfinished" in command("cache", "--clear")[1]
    assert counts()["orphans"] == 0
    assert not [name for name in there(cache) if name.endswith(".part")]


@pytest.mark.parametrize(
    ("host", "has_locks", "age", "orphan"),
    [
        ("this", True, 0, True),
        ("this", False, 0, False),
        ("this", False, 2 * scratch.EXPIRES, True),
        ("another", True, 0, False),
        ("another", True, 2 * scratch.EXPIRES, True),
        ("another", False, 2 * scratch.EXPIRES, True),
    ],
)
def test_where_no_lock_can_tell_age_does(host, has_locks, age, orphan, cache, monkeypatch):
    inventory.folder().mkdir(parents=True)
    with monkeypatch.context() as patch:
        if host == "another":
            patch.setattr(scratch, "host", lambda: "0123abcd")
        one = Scratch(inventory.final(NAME))
    one.file.close()  # as its process ends
    if not has_locks:
        monkeypatch.setattr(locks, "fcntl", None)
    os.utime(one.path, (time.time() - age,) * 2)
    assert is_orphan(one.path) is orphan
    inventory.expire()
    assert one.path.exists() is not orphan


def test_a_file_that_is_taken_for_left_behind_as_it_is_made_is_made_again(cache, monkeypatch):
    """Between its making and its lock another process may look, or may remove it."""
    inventory.folder().mkdir(parents=True)
    asked, try_lock = [], locks.try_lock

    def meddled(file):
        asked.append(file)
        if len(asked) == 1:
            return False  # somebody looks
        if len(asked) == 2:
            os.unlink(file.name)  # somebody has removed it
        return try_lock(file)

    monkeypatch.setattr(locks, "try_lock", meddled)
    one = Scratch(inventory.final(NAME))
    assert len(asked) == 3
    assert one.path.exists()
    one.drop()
    assert there(cache) == []
    monkeypatch.setattr(locks, "try_lock", lambda file: False)
    with pytest.raises(OSError, match="remove it as it is made"):
        Scratch(inventory.final(NAME))
    assert there(cache) == []


def test_names_are_of_no_process(cache, monkeypatch):
    """Two containers have the same process numbers and, with one host, the same kernel."""
    monkeypatch.setattr(os, "getpid", lambda: pytest.fail("a number of a process is no name"))
    inventory.folder().mkdir(parents=True)
    made = [Scratch(inventory.final(NAME)) for _ in range(50)]
    assert len({one.path for one in made}) == 50
    assert all(scratch.NAME.fullmatch(one.path.name) for one in made)
    for one in made:
        one.drop()


FOREIGN = ["notes.txt", "features.npy", f"{KEY}-4.activations", f"{KEY}-4.npy", f"{KEY}-4.json", ".hidden.part",
           f"{KEY}-4.99.part", f"{KEY}.activations", "lib/python.py", f"{KEY}-5.activations/inner",
           f".{KEY}-4.activations.0123abcd-0123.part"]  # fmt: skip
"""Files of others in a folder called `prefix`: `$TLBENCH_CACHE` may be a home, where such a folder is of programs."""


def test_clear_removes_only_what_tlbench_made(cache, command, tmp_path):
    store(f"{KEY}-1")
    one = reserve(f"{KEY}-2")
    one._scratch.file.close()  # left behind
    folder = inventory.folder()
    older = (("1.npy", b"\x93NUMPY"), ("1.json", b'{"sha256": "0"}'), ("2.7.part", b"\x93NUMPY"), ("3.7.part", b""))
    for name, first in older:
        (folder / f"{KEY}-{name}").write_bytes(first)  # as older versions stored them
        os.utime(folder / f"{KEY}-{name}", (1000, 1000))
    own = set(there(cache))
    (tmp_path / "victim").write_bytes(b"tlbench activations 2\n")
    (folder / f"{KEY}-8.activations").symlink_to(tmp_path / "victim")
    for name in FOREIGN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"of others: {name}")
    others = set(there(cache)) - own
    assert counts() == {"stored": 1, "filling": 0, "orphans": 1, "older": 4, "others": len(others)}
    status, out, err = command("cache", "--clear")
    assert (status, err) == (0, "")
    assert "removed 1 stored activations" in out
    assert "removed: 4 files of older versions" in out
    assert f"beside them: {len(others)} files not made by tlbench" in out
    assert set(there(cache)) == others
    assert all((folder / name).read_text() == f"of others: {name}" for name in FOREIGN)
    assert (tmp_path / "victim").exists()


def test_clearing_leaves_what_its_help_says(cache, command):
    stay = ["layouts.json", "times.jsonl", "noise.jsonl", "profiles.jsonl", "screens/a.json", "data/MNIST/raw"]
    for name in stay:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("x")
    assert command("cache", "--clear")[0] == 0
    assert all((cache / name).read_text() == "x" for name in stay)
    told = re.sub(r"[\s│]+", " ", command("cache", "--help")[1])
    assert "data sets, screens and what was measured of the machine stay" in told


def test_what_an_older_version_may_be_using_stays_for_a_while(cache):
    inventory.folder().mkdir(parents=True)
    for name, age in (("1.npy", 1), ("2.npy", 40), ("3.9.part", 0), ("4.9.part", 2)):
        (inventory.folder() / f"{KEY}-{name}").write_bytes(b"\x93NUMPY")
        os.utime(inventory.folder() / f"{KEY}-{name}", (time.time() - age * 86_400,) * 2)
    assert counts() == {"stored": 0, "filling": 1, "orphans": 0, "older": 3, "others": 0}
    inventory.expire()
    assert there(cache) == [f"{KEY}-{name}" for name in ("1.npy", "3.9.part", "4.9.part")]


def test_a_cache_folder_that_is_none_holds_nothing(cache, command, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "nothing", "/dev/null"):
        monkeypatch.setenv("TLBENCH_CACHE", str(place))
        for words in ("cache",), ("cache", "--clear"):
            status, out, err = command(*words)
            assert (status, err) == (0, "")
            assert " 0 stored activations" in out
    assert (tmp_path / "file").read_text() == ""


def test_what_cannot_be_removed_or_read_is_one_line(cache, command, monkeypatch):
    store()
    monkeypatch.setattr("pathlib.Path.unlink", full)
    status, out, err = command("cache", "--clear")
    assert status == 2
    assert "removed 0 stored activations" in out
    assert len(err.splitlines()) == 1
    assert f"cannot remove 1 of these files, such as '{inventory.final(NAME)}'" in err
    monkeypatch.setattr("os.listdir", full)
    status, out, err = command("cache")
    assert (status, out) == (2, "")
    assert "cannot read the cache folder" in err


# --- records come first ---------------------------------------------------------------------------------------


def test_what_is_stored_gives_way_to_a_record_on_a_full_disk(cache, tmp_path, monkeypatch):
    store()
    run = Store(tmp_path / "run")
    tries = []

    def write():
        tries.append(1)
        if len(tries) == 1:
            try:
                raise OSError(why, "no space")
            except OSError:
                raise UserError("no space") from None
        return "written"

    why = errno.ENOSPC
    assert with_room(run, lambda: "at once") == "at once"
    with pytest.raises(UserError, match="no space"):
        with_room(run, write)
    assert counts()["stored"] == 1, "the disk is not full"
    tries.clear()
    monkeypatch.setattr(disk, "room", lambda _: 0)
    why = errno.EACCES
    with pytest.raises(UserError, match="no space"):
        with_room(run, write)
    assert counts()["stored"] == 1, "more room would not help"
    tries.clear()
    why = errno.ENOSPC
    assert with_room(run, write) == "written"
    assert counts()["stored"] == 0
    tries.clear()
    with pytest.raises(UserError, match="no space"):
        with_room(run, write)


def test_it_gives_way_where_a_persons_share_of_the_disk_is_full(cache, tmp_path):
    """A quota shows in no free bytes: all of the disk seems to be there."""
    store()
    run, tries = Store(tmp_path / "run"), []

    def write():
        tries.append(1)
        if len(tries) == 1:
            try:
                raise OSError(errno.EDQUOT, "quota exceeded")
            except OSError:
                raise UserError("quota exceeded") from None
        return "written"

    assert with_room(run, write) == "written"
    assert counts()["stored"] == 0


@pytest.mark.parametrize("place", ["images", "screens", "whatever"])
def test_what_a_killed_process_left_in_any_folder_of_the_cache_is_counted_and_goes(place, cache, command):
    root = inventory.folder().parent
    (root / place).mkdir(parents=True)
    left = root / place / f".x.facts.{scratch.host()}-{'0' * 16}.part"
    left.write_bytes(bytes(1000))
    (root / place / "mine.txt").write_text("")
    assert "beside them: 1 file left unfinished by processes that are gone" in command("cache")[1]
    command("cache", "--clear")
    assert [path.name for path in (root / place).iterdir()] == ["mine.txt"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path / "small")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only a privileged user can mount a file system")
    yield tmp_path / "small"
    KEPT.activations.forget()
    gc.collect()  # what is mapped holds the file system
    subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_a_run_that_shares_a_full_disk_with_the_cache_gets_its_record(small_disk, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(small_disk / "cache"))
    run = Store(small_disk / "run")
    run.describe(Plan(grids=(Grid(),), settings=Settings()))
    rows = values(shape=(64, 1024))
    for number in range(9):
        try:
            store(f"{KEY}-{number}", rows, budget=10**9, part=32)
        except files.NoRoom:
            break
    assert counts()["stored"] > 4, "each file takes 0.27 MB"
    assert counts()["filling"] == counts()["orphans"] == 0
    assert os.statvfs(small_disk).f_bavail * 4096 >= 90_000, "a twentieth of the disk is left"
    run.append(record())
    (small_disk / "rest").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    for number in range(9):
        try:
            run.append(record(seed=number, reason="x " * 2500))
        except UserError as error:
            assert "No space left" in str(error)
            break
    else:
        pytest.fail("it was never full")
    before = len(load(small_disk / "run").records)
    with_room(run, lambda: run.append(record(seed=99, reason="x " * 2500)))
    loaded = load(small_disk / "run")
    assert (len(loaded.records), loaded.damaged) == (before + 1, [])
    assert counts()["stored"] == 0


# --- layouts --------------------------------------------------------------------------------------------------


class Measured:
    """Counts how often it is asked, and never says the same twice."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return float(self.asked), 2.0


def unwritable(cache):
    cache.write_text("")


def read_only(cache):
    cache.mkdir()
    (cache / layouts.NAME).mkdir()


@pytest.mark.parametrize("harm", [None, unwritable, read_only])
def test_a_layout_is_measured_once_whatever_becomes_of_the_cache(harm, cache, monkeypatch):
    if harm:
        harm(cache)
    measure = Measured()
    first = choose_layout("auto", "a step", 8, measure)
    assert (first.chosen, first.contiguous_seconds, first.key) == ("contiguous", 1.0, "a step")
    if not harm:
        assert json.loads((cache / layouts.NAME).read_text()) == {"a step": [1.0, 2.0]}
        (cache / layouts.NAME).unlink()
    assert [choose_layout("auto", "a step", 8, measure) for _ in range(3)] == [first] * 3
    assert measure.asked == 1
    assert layouts.told() == {"a step": (1.0, 2.0)}
    monkeypatch.setattr(layouts, "_remembered", {})  # another run
    choose_layout("auto", "a step", 8, measure)
    assert measure.asked == 2
    assert not harm or not list(cache.parent.glob("**/*.part"))


@pytest.mark.parametrize(
    ("plain", "last", "rounds"),
    [
        ([9, 0.1, 0.1, 0.1, 0.1], [9, 0.05, 0.06, 0.05, 0.05], 3),
        ([9, 0.1, 0.1, 0.1, 0.1], [9, 0.15, 0.16, 0.15, 0.15], 3),
        ([9, 0.1, 0.1, 0.1, 0.1], [9, 0.09, 0.09, 0.09, 0.09], 5),
        ([9, 0.1, 0.1, 0.1, 0.1], [9, 0.10, 0.10, 0.10, 0.10], 5),
        ([9, 0.1, 0.5, 0.1, 0.1], [9, 0.40, 0.15, 0.15, 0.15], 5),
        ([9, 0.5, 0.1, 0.1, 0.1], [9, 0.09, 0.09, 0.15, 0.15], 5),
        ([9, 0.6, 0.6, 0.6, 0.6], [9, 0.55, 0.55, 0.55, 0.55], 3),
        ([9, 0.3, 0.3, 0.3, 0.3], [9, 0.27, 0.27, 0.27, 0.27], 5),
        ([9, 0.4, 0.4, 0.4, 0.4], [9, 0.37, 0.37, 0.37, 0.37], 4),
    ],
)
def test_a_layout_is_measured_no_longer_once_that_is_clear_or_has_taken_long(plain, last, rounds, monkeypatch):
    told = {False: iter(plain), True: iter(last)}
    taken = []

    def step(model, arithmetic, images, training):
        taken.append(arithmetic.channels_last)
        return next(told[arithmetic.channels_last])

    monkeypatch.setattr(layout, "_step", step)
    asked = layout.Calibration(images=2, size=8, training=True)
    found = layout.measure_layouts(lambda: torch.nn.Conv2d(3, 2, 1), asked, torch.device("cpu"), "fp32")
    assert taken == [False, True] * rounds
    whole = [statistics.median(times[1:]) for times in (plain, last)]
    assert (found[1] <= layout.GAIN * found[0]) == (whole[1] <= layout.GAIN * whole[0]), "the choice is that of all"


def test_a_full_disk_leaves_no_part_of_the_layouts(cache, monkeypatch):
    choose_layout("auto", "before", 8, Measured())
    monkeypatch.setattr(scratch, "write_all", full)
    choose_layout("auto", "a step", 8, Measured())
    assert [path.name for path in cache.iterdir()] == [layouts.NAME]
    assert json.loads((cache / layouts.NAME).read_text()) == {"before": [1.0, 2.0]}
    assert choose_layout("auto", "a step", 8, full).contiguous_seconds == 1.0


def test_who_measured_first_is_right(cache):
    """Two runs that begin at one time measure the same, and are to take one layout from then on."""
    cache.mkdir()

    def measure():
        (cache / layouts.NAME).write_text(json.dumps({"a step": [2.0, 1.0], "another": [1.0, 1.0]}))
        return 1.0, 2.0

    assert choose_layout("auto", "a step", 8, measure).chosen == "channels_last"
    choose_layout("auto", "a third", 8, Measured())
    assert json.loads((cache / layouts.NAME).read_text()).keys() == {"a step", "another", "a third"}


BROKEN = {
    "nothing": "",
    "nested": "[" * 100_000,
    "a list": "[1]",
    "no text": b"\xff\xfe",
    "digits": '{"a step": [' + "9" * 5000 + ", 1]}",
    "no numbers": '{"a step": ["x", 1]}',
    "no seconds": '{"a step": [0, NaN]}',
    "three": '{"a step": [1, 2, 3]}',
    "one of two": '{"good": [3, 1], "a step": null}',
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_list_of_layouts_costs_what_is_damaged(case, cache):
    cache.mkdir()
    content = BROKEN[case]
    (cache / layouts.NAME).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert choose_layout("auto", "a step", 8, Measured()).contiguous_seconds == 1.0
    known = json.loads((cache / layouts.NAME).read_text())
    assert known.pop("a step") == [1.0, 2.0]
    assert known == ({"good": [3.0, 1.0]} if case == "one of two" else {})


def test_a_run_that_goes_on_takes_the_layouts_that_it_has(cache):
    """What was measured when it began, whatever the cache says now."""
    cache.mkdir()
    (cache / layouts.NAME).write_text('{"a step": [1, 2]}')
    earlier = {"chosen": "channels_last", "requested": "auto", "contiguous_seconds": 2.0, "channels_last_seconds": 1.0}
    remember_layouts(
        [
            record(),
            replace(record(), layout={"chosen": "contiguous", "requested": "contiguous", "key": None}),
            replace(record(), layout={**earlier, "key": "a step", "images": 8}),
            replace(record(), layout={**earlier, "key": "a step", "contiguous_seconds": 0.1}),
            replace(record(), layout=earlier),
        ]
    )
    assert choose_layout("auto", "a step", 8, full).chosen == "channels_last"
    assert layouts.told() == {"a step": (2.0, 1.0)}


@pytest.mark.exhaustive
def test_the_seeds_of_a_row_have_one_layout_where_the_cache_cannot_be_written(cache):
    """In processes of their own, of which none can leave the next one anything there."""
    cache.write_text("")
    settings = Settings(isolate="cell", threads=1)
    tiny = {"image_size": 32, "train_size": 20, "epochs": 1, "batch_size": 8}
    cells = [Cell(backbone="mobilenet_v3_small", weights="random", seed=seed, **tiny) for seed in (0, 1)]
    with Workers(settings, Stop()) as workers:
        first, second = (workers.run_cell(cell, settings, place=Place()) for cell in cells)
    assert first.layout["requested"] == "auto"
    assert first.layout["contiguous_seconds"] > 0
    assert first.layout == second.layout


GRID = Grid(axes={"dataset": ("synthetic",), "backbone": ("resnet18",), "weights": ("random",), "device": ("cpu",)})


def test_a_run_says_that_nothing_can_be_kept(cache):
    def said(**changes):
        return [note for note in begin(Asked(grid=GRID, **changes)).notes if "cache folder" in note]

    assert said() == []
    assert list(cache.iterdir()) == []
    cache.rmdir()
    cache.write_text("")
    (note,) = said()
    assert repr(str(cache)) in note
    assert "holds for this run alone; set TLBENCH_CACHE" in note
    assert said(measures=False) == []


# --- where the cache is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TLBENCH_CACHE": "/somewhere"}, "/somewhere"),
        ({"TLBENCH_CACHE": "~/mine"}, "/home/me/mine"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/tlbench"),
        ({"XDG_CACHE_HOME": "~/caches"}, "/home/me/caches/tlbench"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/tlbench"),
        ({"XDG_CACHE_HOME": "caches"}, "/home/me/.cache/tlbench"),
        ({"TLBENCH_CACHE": ""}, "/home/me/.cache/tlbench"),
        ({}, "/home/me/.cache/tlbench"),
    ],
)
def test_the_cache_folder(variables, folder, monkeypatch):
    for name in ("TLBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path(folder)


def test_a_user_without_a_home_has_no_cache_and_no_folder_called_so(monkeypatch, tmp_path):
    for name in ("TLBENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the system knows no home of this user
    monkeypatch.chdir(tmp_path)
    assert choose_layout("auto", "a step", 8, Measured()) == choose_layout("auto", "a step", 8, full)
    lines.add_line("noise.jsonl", "x", 9)
    with pytest.raises(files.NoRoom, match="Not a directory"):
        store()
    assert files.read(NAME, 6) is None
    assert counts()["stored"] == 0
    assert list(tmp_path.iterdir()) == []


# --- lines of what runs learnt --------------------------------------------------------------------------------


def test_a_torn_line_does_not_tear_the_next(cache):
    lines.add_line("a", "one", 9)
    with (cache / "a").open("a") as file:
        file.write("torn")
    lines.add_line("a", "two", 9)
    assert lines.read_lines("a") == ["one", "torn", "two"]


@pytest.mark.parametrize("long", [False, True])
def test_a_full_disk_costs_the_new_line_alone(long, cache, monkeypatch):
    for number in range(4 if long else 3):
        lines.add_line("a", str(number), 2)
    before = lines.read_lines("a")
    for module in (lines, scratch):
        monkeypatch.setattr(module, "write_all", FullAt(0))
    lines.add_line("a", "a line that does not fit", 2)
    assert lines.read_lines("a") == before
    assert [path.name for path in cache.iterdir()] == ["a"]


def test_lines_are_cut_to_the_last_ones(cache):
    for number in range(20):
        lines.add_line("a", str(number), 3)
        found = lines.read_lines("a")
        assert found[-1] == str(number)
        assert len(found) <= 6
    assert [path.name for path in cache.iterdir()] == ["a"]


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_lines_follow_no_link(case, cache, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 100)
    cache.mkdir()
    IN_THE_WAY[case](cache / "a", victim)
    lines.add_line("a", "one", 2)
    assert lines.read_lines("a") == []
    assert victim.read_text() == "precious\n" * 100
    assert not (tmp_path / "nothing").exists()


def test_a_lock_that_somebody_keeps_is_waited_for_in_vain_only_so_long(cache, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    cache.mkdir()
    handle = os.open(cache, os.O_RDONLY)
    try:
        assert locks.try_lock(handle)
        with locks.alone_in(cache) as alone:
            assert not alone
        lines.add_line("a", "one", 2)
        choose_layout("auto", "a step", 8, Measured())
    finally:
        os.close(handle)
    assert lines.read_lines("a") == ["one"]
    assert layouts.NAME in os.listdir(cache)
    with locks.alone_in(cache) as alone:
        assert alone


def test_a_file_that_a_stopped_process_has_locked_holds_nobody_up(cache, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    lines.add_line("a", "one", 9)
    with (cache / "a").open("rb+") as file:
        assert locks.try_lock(file)
        lines.add_line("a", "two", 9)
    assert lines.read_lines("a") == ["one", "two"]


# --- what decides activations ---------------------------------------------------------------------------------


def test_other_code_has_other_activations(tmp_path, monkeypatch):
    """What an earlier state of a plugin has stored of the same weights is not what this one computes."""
    monkeypatch.syspath_prepend(tmp_path)

    def stages(text="return x", activation=torch.nn.ReLU):
        (tmp_path / "of_my_own.py").write_text(
            f"from torch import nn\nclass Mine(nn.Module):\n    def forward(self, x):\n        {text}\n"
        )
        monkeypatch.delitem(sys.modules, "of_my_own", raising=False)
        importlib.invalidate_caches()
        mine = importlib.import_module("of_my_own").Mine()
        mine.register_forward_hook(lambda *_: None)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), activation(), mine)

    same = code_of(stages())
    assert code_of(stages()) == same
    assert code_of(stages("return -x")) != same
    assert code_of(stages(activation=torch.nn.GELU)) != same
    assert code_of(stages()[:2]) != code_of(stages(activation=torch.nn.GELU)[:2])
    assert code_of(stages()) == same
    monkeypatch.setattr(code, "_own_code", lambda: "another state of tlbench")
    assert code_of(stages()) != same


@pytest.mark.parametrize("change", ["return x + 1", "return self.extra(x)", "return x in {'a', 'b'}"])
def test_code_that_has_no_file_is_known_by_what_was_loaded(change):
    """A notebook's class, or one whose file was edited since it was imported."""

    def made(body, more="return x"):
        names = {"__name__": "__main__", "nn": torch.nn}
        exec(f"class M(nn.Module):\n def forward(self, x):\n  {body}\n def extra(self, x):\n  {more}", names)
        return torch.nn.Sequential(names["M"]())

    same = code_of(made("return x"))
    assert code_of(made("return x")) == same
    assert code_of(made(change)) != same
    assert code_of(made("return x", "return -x")) != same
