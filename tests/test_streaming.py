"""Images that memory, or the disk too, has no room for: the same losses to the last bit, and little memory."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bits import finished
from conftest import save_image
from hypothesis import given
from hypothesis import strategies as st

from tlbench.campaign import check as check_module
from tlbench.data import Request, Split, decoded, decoded_folder, lent, load_data, rooms, store, streaming
from tlbench.data.streaming import DECODED, MAPPED, Streamed
from tlbench.errors import LostInput
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module
from tlbench.train import placed
from tlbench.train.prefix import Feed

ROOMS = {
    "memory": {},
    "mapped": {"data_ram_bytes": 1},
    "temporary": {"data_ram_bytes": 1},
    "decoded": {"data_ram_bytes": 1, "data_disk_bytes": 0},
}
"""Where images lie -> the settings that put them there."""
WHERE = {"memory": "memory", "mapped": MAPPED, "temporary": MAPPED, "decoded": DECODED}


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.forget()
    yield
    KEPT.forget()
    lent._borrowed.clear()


def room(place, monkeypatch):
    if place == "temporary":
        monkeypatch.setattr(decoded_folder, "_free", lambda: 0)
    return Settings(**ROOMS[place])


def cell_of(photos, **given):
    return Cell(
        **{
            "backbone": "resnet18", "weights": "random", "dataset": f"folder:{photos}", "image_size": 32, "epochs": 2,
            "batch_size": 6, "layout": "contiguous", "freeze": "full", **given,
        }
    )  # fmt: skip


# --- the same losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"augment": "flip", "freeze": "last_1"}], ids=["full", "last_1"])
def test_losses_are_those_of_images_in_memory_to_the_last_bit(given, photos, monkeypatch):
    found = {}
    for place in ROOMS:
        KEPT.forget()
        with monkeypatch.context() as patch:
            found[place] = cell_module.run_cell(cell_of(photos, **given), room(place, patch))
        assert found[place].status == "ok", found[place].reason
        assert found[place].images_where == WHERE[place]
    first = found["memory"]
    for place, record in found.items():
        assert [r.loss for r in record.rounds] == [r.loss for r in first.rounds], place
        assert [r.loss_val for r in record.rounds] == [r.loss_val for r in first.rounds], place
        assert record.predictions_sha256 == first.predictions_sha256
        assert record.data_sha256 == first.data_sha256


@pytest.mark.parametrize("place", ["mapped", "decoded"])
def test_what_frozen_layers_compute_is_the_same(place, photos, monkeypatch):
    cell = cell_of(photos, freeze="linear_probe")
    first = cell_module.run_cell(cell, Settings(prefix="on"))
    KEPT.forget()
    other = cell_module.run_cell(cell, replace(room(place, monkeypatch), prefix="on"))
    assert other.prefix["boundaries"] == first.prefix["boundaries"]
    assert finished(other) == finished(first)


def test_inference_takes_them_too(photos, monkeypatch):
    settings = replace(room("decoded", monkeypatch), throughput_rounds=2, throughput_batches=1, latency_rounds=3)
    assert cell_module.run_cell(cell_of(photos, task="infer"), settings).status == "ok"


@pytest.mark.parametrize("isolate", ["backbone"])
def test_a_process_of_its_own_decodes_on_the_way_and_does_not_decode_all_again(isolate, photos, command, tmp_path):
    status, out, err = command(
        "run", photos, "--backbone=resnet18", "--weights=random", "--freeze=full", "--image-size=32", "--epochs=1",
        "--batch-size=6", "--layout=contiguous", "--data-ram=1", "--data-disk=0", f"--isolate={isolate}", "--twins=0",
        f"--out={tmp_path / 'run'}",
    )  # fmt: skip
    assert status == 0, err
    assert '"images_where":"decoded on the way"' in (tmp_path / "run/records.jsonl").read_text()
    assert "images are decoded anew in each epoch" in " ".join((out + err).split())


# --- where they lie -------------------------------------------------------------------------------------------

GB = 10**9
PLACES = [
    # images of 224 px, memory, --data-ram, disk for files, --data-disk, temporary folder -> place
    (1000, 10, None, 10, None, 10, rooms.MEMORY),
    (100_000, 10, None, 100, None, 10, rooms.FILE),
    (100_000, 10, None, 1, None, 100, rooms.TEMPORARY),
    (100_000, 10, None, 1, None, 1, rooms.NOWHERE),
    (100_000, 1000, 1, 100, None, 10, rooms.FILE),
    (100_000, 10, 100, 1, None, 10, rooms.MEMORY),
    (100_000, 10, None, 100, 5, 100, rooms.NOWHERE),
    (100_000, 10, None, 100, 0, 100, rooms.NOWHERE),
    (1000, 10, 0, 100, 0, 100, rooms.NOWHERE),
]


@pytest.mark.parametrize(("count", "free", "ram", "disk", "given", "temporary", "place"), PLACES)
def test_where_images_lie(count, free, ram, disk, given, temporary, place, monkeypatch):
    monkeypatch.setattr(store, "free_bytes", lambda: 4 * free * GB)
    monkeypatch.setattr(decoded_folder, "_free", lambda: 10 * disk * GB)
    monkeypatch.setattr(store, "room_in", lambda folder: temporary * GB)
    sizes = [None if one is None else one * GB for one in (ram, given)]
    assert rooms.place_of(count, 224, *sizes) == place


def said(photos, **settings):
    lines = []
    axes = {"dataset": (f"folder:{photos}",), "backbone": ("resnet18",), "image_size": (32,)}
    check_module.check(Grid(axes=axes), Settings(**settings), lines.append)
    return [line for line in lines if "those of folder:" in line]


def test_what_it_costs_is_said_before_the_run(photos, monkeypatch):
    assert said(photos) == []
    (mapped,) = said(photos, data_ram_bytes=1)
    assert "decoded images lie in a file, not in memory; " in mapped
    assert "as fast as from memory for as long as the system keeps it there" in mapped
    KEPT.forget()
    (decoded_anew,) = said(photos, data_ram_bytes=1, data_disk_bytes=0)
    assert "images are decoded anew in each epoch" in decoded_anew
    assert "about 5 seconds for all of them; " in decoded_anew
    assert decoded_anew.endswith("--data-ram, --data-disk and --image-size change that")
    monkeypatch.setattr(decoded_folder, "_free", lambda: 0)
    KEPT.forget()
    (temporary,) = said(photos, data_ram_bytes=1)
    assert "lie in a file that goes with the run; " in temporary
    assert "TMPDIR names another folder" in temporary


def load(root, **options):
    KEPT.images.forget()
    return load_data(f"folder:{root}", Request(size=16, resize=16, interpolation="bilinear", seed=0, **options))


def test_a_mapped_file_serves_the_next_run(photos, monkeypatch):
    first = load(photos, ram_bytes=1)
    (path,) = decoded_folder.folder().iterdir()
    assert path.suffix == decoded_folder.ENDING
    monkeypatch.setattr("tlbench.data.folder._decode", None)
    for ram in (1, None):  # it is read into memory where there is some by now
        again = load(photos, ram_bytes=ram)
        assert again.sha256 == first.sha256
        positions = torch.arange(len(again.labels))
        assert torch.equal(*(data.train.images.index_select(0, positions) for data in (again, first)))
        assert isinstance(again.train.images, torch.Tensor) == (ram is None)


def test_a_damaged_mapped_file_is_decoded_anew(photos):
    first = load(photos, ram_bytes=1).train.images[0:24]
    (path,) = decoded_folder.folder().iterdir()
    with open(path, "r+b") as file:
        file.write(b"\xff\x00\xff")
    assert torch.equal(first, load(photos, ram_bytes=1).train.images[0:24])


def test_mapped_images_are_lent(photos, monkeypatch):
    with lent.lending():
        first = load(photos, ram_bytes=1)
    lent.accept({key: tuple(map(os.dup, loan)) for key, loan in store.loans().items()})
    monkeypatch.setattr("tlbench.data.folder._decode", None)
    monkeypatch.setattr("tlbench.data.folder._kept", None)
    again = load(photos, ram_bytes=1)
    assert isinstance(again.train.images, Streamed)
    assert torch.equal(first.train.images[0:24], again.train.images[0:24])


def test_images_that_cannot_be_read_are_left_out_on_the_way_as_well(photos):
    (photos / "train/dark/0.jpg").write_bytes(b"no image")
    first = load(photos, bad_images="skip", disk_bytes=0)
    for options in ({"ram_bytes": 1, "disk_bytes": 0}, {"ram_bytes": 1}):
        other = load(photos, bad_images="skip", **options)
        assert other.sha256 == first.sha256
        assert torch.equal(first.train.images, other.train.images[0:23])


def test_a_file_that_changes_in_the_middle_fails_its_cell(photos):
    data = load(photos, ram_bytes=1, disk_bytes=0)
    save_image(photos / "train/dark/3.jpg", 99, seed=44)
    with pytest.raises(LostInput, match=r"3\.jpg' is not what it was when the run began"):
        data.train.images[0:24]
    (photos / "train/dark/3.jpg").unlink()
    with pytest.raises(LostInput, match=r"3\.jpg' cannot be read any more"):
        data.train.images[0:24]


def test_a_cell_whose_images_vanish_in_the_middle_is_a_record(photos, monkeypatch):
    real = streaming.Ahead.take

    def take(self, positions):
        for path in (photos / "train/dark").iterdir():
            path.unlink()
        return real(self, positions)

    monkeypatch.setattr(streaming.Ahead, "take", take)
    record = cell_module.run_cell(cell_of(photos), room("decoded", monkeypatch))
    assert record.status == "failed"
    assert "what it needs cannot be had any more: image '" in record.reason


# --- ahead ----------------------------------------------------------------------------------------------------


def numbered(count, calls=None):
    """Images whose pixels are their positions."""

    def bring(position, row):
        if calls is not None:
            calls.append(position)
        row[...] = position

    return Streamed((count, 3, 2, 2), bring, DECODED)


@given(st.integers(0, 2**32))
def test_whatever_is_asked_for_is_given_and_planned_or_not(seed):
    generator = np.random.default_rng(seed)
    planned, asked = (
        [generator.integers(0, 20, generator.integers(1, 5)).tolist() for _ in range(generator.integers(6))]
        for _ in range(2)
    )
    ahead = numbered(20).ahead([np.array(batch) for batch in planned])
    for batch in [*planned[:2], *asked, *planned]:
        assert ahead.take(np.array(batch))[:, 0, 0, 0].tolist() == batch


def test_an_epoch_that_goes_as_planned_brings_each_image_once_and_two_batches_ahead():
    calls = []
    plan = [np.arange(start, start + 4) for start in range(0, 40, 4)]
    ahead = numbered(40, calls).ahead(plan)
    assert calls == [], "an epoch pays for its own first batch"
    ahead.take(plan[0])
    for future in [f for one in ahead._coming for f in one._futures]:
        future.result()
    assert sorted(calls) == list(range(12))
    for batch in plan[1:]:
        ahead.take(batch)
    assert sorted(calls) == list(range(40))


def test_several_threads_bring_a_batch():
    together = threading.Barrier(2, timeout=20)

    def bring(position, row):
        together.wait()

    if store.workers() > 1:
        Streamed((2, 3, 2, 2), bring, DECODED).take(np.arange(2))


def test_an_error_of_bringing_is_that_of_taking_and_the_next_batch_goes_on():
    def bring(position, row):
        if position == 3:
            raise LostInput("it is gone")
        row[...] = position

    ahead = Streamed((8, 3, 2, 2), bring, DECODED).ahead([np.arange(4), np.arange(4, 8)])
    with pytest.raises(LostInput, match="it is gone"):
        ahead.take(np.arange(4))
    assert ahead.take(np.arange(4, 8))[:, 0, 0, 0].tolist() == [4, 5, 6, 7]


def test_it_is_indexed_as_a_tensor_is():
    images = numbered(10)
    assert len(images) == 10
    assert images.nbytes == 120
    assert images.device == torch.device("cpu")
    assert images[2:5][:, 0, 0, 0].tolist() == [2, 3, 4]
    assert images[8:99][:, 0, 0, 0].tolist() == [8, 9]
    assert images.index_select(0, torch.tensor([7, 1])).shape == (2, 3, 2, 2)
    with pytest.raises(ValueError, match="dimension 1"):
        images.index_select(1, torch.tensor([0]))


def test_what_fits_onto_the_device_is_brought_there_once(monkeypatch):
    calls = []
    monkeypatch.setattr(placed, "AT_ONCE", 7)
    there = placed._brought(numbered(20, calls), torch.device("cpu"))
    assert there[:, 0, 0, 0].tolist() == list(range(20))
    assert sorted(calls) == list(range(20))
    assert placed.gather(numbered(20), torch.tensor([3, 1]), torch.device("cpu"))[:, 0, 0, 0].tolist() == [3, 1]


@pytest.fixture
def pinned(monkeypatch):
    """Which of the batches that were made in main memory were asked for in pinned memory; what crosses over to a GPU
    stays here."""
    asked, empty, to = [], torch.empty, torch.Tensor.to

    def make(*size, pin_memory=False, device=None, **options):
        if device is None:
            asked.append(pin_memory)
        return empty(*size, **options)

    def cross(tensor, *given, **options):
        devices = [one for one in given if isinstance(one, torch.device) and one.type == "cuda"]
        return tensor if devices else to(tensor, *given, **options)

    monkeypatch.setattr(torch, "empty", make)
    monkeypatch.setattr(torch.Tensor, "to", cross)
    return asked


def fed(device):
    """A feed of 20 images, for batches on a device."""
    split = Split(pixels=numbered(20), positions=np.arange(20), classes=np.zeros(20, np.int64))
    plain = SimpleNamespace(device=torch.device("cpu"))
    feed = Feed(split, SimpleNamespace(mean=(0.0,) * 3, std=(1.0,) * 3), plain)
    feed.arithmetic = SimpleNamespace(device=device)
    return feed


def _planned(device):
    feed = fed(device)
    batches = [torch.arange(4), torch.arange(4, 8)]
    feed.follow(batches)
    return torch.cat([feed.raw(batch)[0] for batch in (*batches, torch.tensor([19]))])  # the last is not planned


TAKEN = {
    "a batch of images that are brought": (lambda d: placed.gather(numbered(20), torch.arange(4), d), 1),
    "all of them, to stay on the device": (lambda d: placed._brought(numbered(20), d), 3),
    "batches of an epoch, brought ahead": (_planned, 3),
    "a batch that an epoch has not planned": (lambda d: fed(d).raw(torch.tensor([3, 1]))[0], 1),
}


@pytest.mark.parametrize("case", TAKEN)
def test_batches_for_a_gpu_are_made_in_pinned_memory_and_no_others(case, pinned, monkeypatch):
    monkeypatch.setattr(placed, "AT_ONCE", 7)
    take, batches = TAKEN[case]
    there = take(torch.device("cuda"))
    assert pinned == [True] * batches
    pinned.clear()
    assert torch.equal(take(torch.device("cpu")), there)
    assert True not in pinned
    assert len(pinned) >= batches


def test_images_in_main_memory_cross_over_to_a_gpu_from_pinned_memory(pinned):
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 3, 2, 2).contiguous()
    index = torch.tensor([7, 1])
    assert torch.equal(placed.gather(images, index, torch.device("cuda")), images[index])
    assert pinned == [True]
    assert torch.equal(placed.gather(images, index, torch.device("cpu")), images[index])
    assert pinned == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_copy_of_the_process_has_threads_of_its_own():
    numbered(4).take(np.arange(4))
    copy = os.fork()
    if not copy:
        os._exit(int(numbered(4).take(np.arange(4))[:, 0, 0, 0].tolist() != [0, 1, 2, 3]))
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0


# --- memory ---------------------------------------------------------------------------------------------------

MEASURE = """
import gc, sys, torch
import numpy as np
from pathlib import Path
from tlbench.data import Request, load_data, streaming
from tlbench.machine.kept import KEPT
streaming.EASE = 4_000_000

def resident(word="VmHWM"):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))

path = f"folder:{sys.argv[1]}"
def load(size, **options):
    return load_data(path, Request(size=size, resize=size, interpolation="bilinear", seed=0, **options))
def go_through(data):
    images = data.train.images
    for _ in range(2):
        order = torch.randperm(len(data.labels)).split(4)
        taken = images.ahead([batch.numpy() for batch in order]) if hasattr(images, "ahead") else None
        for batch in order:
            found = taken.take(batch.numpy()) if taken else images[batch]
            assert found.shape == (len(batch), *images.shape[1:])

go_through(load(8, ram_bytes=1))  # imports, threads, decoders
for words in sys.argv[2:]:
    budget = dict(zip(("ram_bytes", "disk_bytes"), (None if word == "-" else int(word) for word in words.split(","))))
    KEPT.images.forget()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    go_through(load(448, **budget))
    print(resident() - before)
"""


def resident(photos, *budgets):
    """How many bytes more a process of its own has at most in its memory when it goes twice through all images, by the
    budget that it has for them."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, photos, *budgets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell the most memory so far")
def test_four_times_the_budget_takes_no_more_than_the_budget_and_a_little(tmp_path):
    """173 MB of pixels, of which 43 MB are allowed in memory; an allocator keeps some 50 MB whatever the set."""
    root = tmp_path / "many"
    for label in ("a", "b"):
        for n in range(144):
            save_image(root / label / f"{n}.jpg", n % 200, size=(48, 48), seed=n % 7)
    needed = 288 * 3 * 448 * 448
    budget = needed // 4
    on_the_way, mapped, whole = resident(root, f"{budget},0", f"{budget},-", f"{2 * needed},0")
    assert whole > 0.95 * needed  # what libraries free meanwhile makes room for some of it
    assert mapped < budget + needed // 2
    assert on_the_way < budget + needed // 2


def test_what_is_touched_of_a_map_is_let_go_from_time_to_time(monkeypatch):
    let_go = []
    monkeypatch.setattr(streaming, "EASE", 100)
    easing = streaming.Easing(np.zeros(3, np.uint8))
    easing.touch(1000)  # no map: nothing to let go
    easing._map = SimpleNamespace(madvise=let_go.append)
    for _ in range(5):
        easing.touch(50)
    assert len(let_go) == 2


def test_a_mapped_file_that_is_being_filled_loses_nothing_by_it(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "EASE", 1)
    filling = decoded.Filling(decoded_folder.folder() / f"{'0' * 16}-{'0' * 16}-{'0' * 32}.decoded", 20, 16)
    place = rooms.Room(20, filling.pixels, filling)
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16)).astype(np.uint8)
    for position, image in enumerate(images):
        place.put(position, image)
    assert np.array_equal(filling.pixels, images)
    assert np.array_equal(place.only([3, 5, 19]), images[[3, 5, 19]])
    filling.drop()
    assert list(decoded_folder.folder().iterdir()) == []
