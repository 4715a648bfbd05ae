"""Cells on a CUDA device that lives in the host's memory (`cuda_stand_in/`) compute what they compute on the CPU, so
every tensor was where CUDA would have needed it.
"""

import json
import subprocess
import sys

import pytest
from bits import results
from cuda_stand_in.launch import HERE, build, lacking

from tlbench.records.run_folder import load

pytestmark = pytest.mark.exhaustive
CELLS = (
    "linear_probe", "last_1", "full", "norm", "vit", "mlp", "ridge", "nearest_mean", "channels_last", "flip", "infer",
    "fp16_small", "balanced", "patience",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a process that has the stand-in, and no network."""
    if reason := lacking():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cuda_stand_in")
    proxy = "http://127.0.0.1:9"
    # Of pytest-xdist: a session in a session would think that it is a worker's, and time nothing.
    plain = {name: value for name, value in build(folder).items() if not name.startswith("PYTEST_")}
    return plain | {"TLBENCH_CACHE": str(folder), "HF_HUB_OFFLINE": "1", "https_proxy": proxy}


@pytest.fixture(scope="module")
def computed(environment, tmp_path_factory):
    """Name of a cell -> device -> all that it computed."""
    path = tmp_path_factory.mktemp("cells") / "computed.json"
    command = [sys.executable, HERE / "cells.py", *CELLS, "--json", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert path.exists(), done.stdout + done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


TIMED_EPOCHS, WARM_UPS, BATCHES = 2, 2, 4
"""Of the cells here; a warm-up takes two passes, over the first and the last batch."""


def crossings(computed, name):
    """What crossed between the devices, or was waited for, by function of tlbench.train."""
    found = {}
    for what, where, times in computed[name]["crossings"]:
        if where.startswith("train/"):
            key = what, where.partition(" ")[2]
            found[key] = found.get(key, 0) + times
    return found


@pytest.mark.parametrize(
    "name", [name for name in CELLS if name not in ("infer", "ridge", "nearest_mean", "fp16_small", "patience")]
)
def test_an_epoch_copies_once_and_waits_once(computed, name):
    """Each crossing makes the device wait for the host or the other way round, and a head's step is over in 100 us."""
    found = crossings(computed, name)
    assert found.pop(("copy to cpu", "run_epoch")) == TIMED_EPOCHS + WARM_UPS  # the losses, all at once
    assert found.pop(("copy to cpu", "evaluate")) == TIMED_EPOCHS + 1
    sent = found.pop(("copy to cuda", "send"))  # positions, before the clock starts; with a view's flips
    assert sent == (TIMED_EPOCHS + 1) * (2 if name == "flip" else 1)
    # What is left happens once a cell: it does not grow with epochs or batches.
    once = {"__init__", "class_weights", "stored", "placed", "_chunk", "below_the_largest"}
    assert {where for _, where in found} <= once, found
    # Two of them are the logits, of validation and test images; of a balanced cell its labels, to count and to draw by.
    assert sum(found.values()) <= (20 if name == "balanced" else 14), found


def test_a_context_that_broke_is_told_and_nothing_hangs_on_it(environment):
    code = """
import ctypes, torch
from digits import few_digits
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.device import broken_context
from tlbench.measure.cell import run_cell
from tlbench.train.loop import Trainer

def fail(self, *_):
    ctypes.CDLL(None).stand_in_break()
    torch.cuda.synchronize()

Trainer.run_epoch = fail
cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=20, epochs=1, device="cuda",
            layout="contiguous")
with few_digits():
    first = run_cell(cell, Settings())
    assert broken_context()
    second = run_cell(cell, Settings())
for record in (first, second):
    assert record.status == "failed", record.status
    assert "illegal" in record.reason, record.reason
assert "the GPU takes no more work from this process" in first.reason, first.reason
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cell_has_its_gpu_as_the_current_one(environment):
    code = """
import torch
from tlbench.machine.process import set_up

for name, number in (("cuda:1", 1), ("cuda:0", 0), ("cuda", 0), ("cpu", 0)):
    with set_up(None, "fp32", True, "keep", torch.device(name)):
        assert torch.cuda.current_device() == number, name
        assert torch.empty(1, device="cuda").device.index == number
    assert torch.cuda.current_device() == 0
"""
    two = environment | {"STAND_IN_GPUS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=two, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cells_own_activations_count_in_its_peak_and_those_of_others_do_not(environment):
    code = """
from dataclasses import replace
from digits import few_digits
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.machine.kept import KEPT
from tlbench.measure.place import Place

cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=1, device="cuda",
            layout="contiguous")
with few_digits():
    alone = run_cell(cell, Settings())
    named = run_cell(replace(cell, device="cuda:0"), Settings())
    other = run_cell(replace(cell, seed=1), Settings())
assert KEPT.activations.bytes("cuda:0") > 0
assert alone.images_where == "cuda:0"
kept = KEPT.activations.bytes("cuda:0")
peaks = [record.peak_memory_bytes for record in (alone, named, other)]
assert max(peaks) - min(peaks) < kept / 10, (peaks, kept)  # of other splits: they differ by a few images
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_that_do_not_fit_on_the_device_come_from_main_memory(environment):
    code = """
import torch
from dataclasses import replace
import tlbench.measure.build as build
from bits import results
from digits import few_digits
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.train import chunks

torch.set_num_threads(1)
chunks.CHUNKS["cuda"] = chunks.CHUNKS["cpu"]
build.placed = lambda images, *_: images
cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=1,
            layout="contiguous", freeze="last_1", augment="flip")
with few_digits():
    cpu, cuda = (run_cell(replace(cell, device=device), Settings()) for device in ("cpu", "cuda"))
assert cuda.images_where == "memory"
assert results(cpu) == results(cuda), (cpu.reason, cuda.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_grid_on_both_devices_in_processes_of_their_own(environment, tmp_path):
    """By `-m speedup`, as the README has it: pairs of records that computed the same, and their speed-ups."""
    command = [
        sys.executable, "-m", "pytest", "bench", "--benchmark-only", "-m", "speedup", "-q", "-p", "no:cacheprovider",
        "--tl-device=cpu,cuda", "--tl-backbone=mobilenet_v3_small", "--tl-weights=random", "--tl-head=linear",
        "--tl-freeze=linear_probe,last_1", "--tl-image-size=32", "--tl-train-size=40", "--tl-epochs=1",
        "--tl-isolate=backbone", "--tl-layout=contiguous", "--tl-task=train", "--tl-threads=1", "--tl-twins=0",
        f"--tl-out={tmp_path / 'run'}",
    ]  # fmt: skip
    root = HERE.parent.parent
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    records = load(tmp_path / "run").records
    assert sorted((r.cell.freeze, r.cell.device, r.status) for r in records) == [
        (freeze, device, "ok") for freeze in ("last_1", "linear_probe") for device in ("cpu", "cuda")
    ]
    by_cell = {(r.cell.freeze, r.cell.device): results(r) for r in records}
    for freeze in ("last_1", "linear_probe"):
        assert by_cell[freeze, "cpu"] == by_cell[freeze, "cuda"]
    assert not any("on the GPU" in r.validity_reason for r in records)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_on_the_stand_in_equals_the_cpu_to_the_last_bit(computed, name):
    assert computed[name]["cpu"][0] == "ok"
    assert computed[name]["cuda"] == computed[name]["cpu"]


def test_the_stand_in_refuses_what_cuda_refuses(environment):
    """Else equal results would say nothing about where tensors are."""
    code = """
import torch

on_cuda, on_cpu = torch.arange(3, device="cuda"), torch.arange(3)
assert on_cuda.device.type == "cuda" and (on_cuda + on_cuda).device.type == "cuda"
assert (on_cuda + on_cuda + torch.tensor(1)).tolist() == [1, 3, 5]
for mix in (lambda: on_cuda + on_cpu, lambda: on_cpu[on_cuda], lambda: on_cuda.index_select(0, on_cpu)):
    try:
        mix()
    except RuntimeError as error:
        assert "same device" in str(error), error
    else:
        raise AssertionError("taken")
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_tensor_of_a_training_step_is_left_on_the_cpu(environment):
    """Two backbones show that the check itself still works; by hand it runs on all."""
    command = [sys.executable, HERE / "fake_cuda.py", "mobilenet_v3_small", "timm:test_vit"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok") == 6
