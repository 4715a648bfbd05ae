"""Cells on a CUDA device that lives in the host's memory (`cuda_stand_in/`) compute what they compute on the CPU, so
every tensor was where CUDA would have needed it.
"""

import json
import subprocess
import sys

import pytest
from cuda_stand_in.launch import HERE, build, lacking

pytestmark = pytest.mark.exhaustive
CELLS = ("linear_probe", "full", "vit")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Of a process that has the stand-in, and no network."""
    if reason := lacking():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cuda_stand_in")
    proxy = "http://127.0.0.1:9"
    return build(folder) | {"TLBENCH_CACHE": str(folder), "HF_HUB_OFFLINE": "1", "https_proxy": proxy}


@pytest.fixture(scope="module")
def computed(environment, tmp_path_factory):
    """Name of a cell -> device -> all that it computed."""
    path = tmp_path_factory.mktemp("cells") / "computed.json"
    command = [sys.executable, HERE / "cells.py", *CELLS, "--json", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert path.exists(), done.stdout + done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


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
