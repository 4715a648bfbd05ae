"""Profiles are measured in a process of their own, as cells are: nothing of what another process has is in them."""

import mmap
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import tlbench
from tlbench.backbones import CUSTOM, Custom
from tlbench.backbones.base import InputSpec, Parts
from tlbench.campaign import profiling
from tlbench.campaign.foretelling import largest_batches, profiles_for
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.profiles import read_profiles
from tlbench.machine.times import place

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin.py"
SMALL = Cell(
    backbone="mobilenet_v3_small", freeze="full", image_size=32, dataset="synthetic", device="cpu", weights="random",
    layout="contiguous",
)  # fmt: skip
PLANNED = [
    *("--dataset", "digits", "--task", "train", "--image-size", "32", "--train-size", "20", "--epochs", "1"),
    *("--layout", "contiguous", "--weights", "random"),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))


SPEC = InputSpec(size=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.pool, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), nn.Linear(8, 10)

    def forward(self, images):
        return self.fc(self.pool(self.stem(images)))


def parts(m):
    return Parts(body=[[("stem", m.stem)]], neck=[("pool", m.pool)], head=[("fc", m.fc)], features=8)


def plan(*words):
    """What `tlbench plan` says in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "plan", *map(str, words), *PLANNED], capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "200"}, check=False,
    )  # fmt: skip


def test_what_this_process_has_mapped_takes_nothing_of_a_cells_memory():
    """A benchmark that had run for an hour, and a notebook, were told that no batch fits into 2 GB."""
    held = mmap.mmap(-1, 4 * 10**9, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        (fit,) = largest_batches([SMALL], [2 * 10**9], Settings())
    finally:
        held.close()
    assert fit.batches[2 * 10**9] > 2


def test_a_profile_is_of_a_process_that_has_nothing_but_the_cells():
    settings = Settings(isolate="backbone")
    held = bytearray(os.urandom(2**20) * 300)  # resident, and not of a cell
    found, problems = profiles_for([SMALL], settings)
    del held
    assert not problems
    (profile,) = found.values()
    (alone,) = profiles_for([replace(SMALL, freeze="last_1")], settings)[0].values()  # adds to it
    assert profile.process_bytes == pytest.approx(alone.process_bytes, rel=0.05)
    assert set(alone.policies) == {"full", "last_1"}
    assert read_profiles(place("cpu", None)) == found | {alone.key: alone}


def test_a_backbone_of_a_plugin_is_profiled_by_a_process_that_loads_it():
    done = plan("--plugin", EXAMPLE, "--backbone", "mynet", "--freeze", "full")
    assert done.returncode == 0, done.stderr
    assert "profile of mynet" in done.stderr
    assert "took" in done.stderr
    assert "cannot be measured" not in done.stderr


def test_a_process_that_ends_meanwhile_costs_its_profile_alone(tmp_path):
    plugin = tmp_path / "mine.py"
    ends = "CUSTOM['mynet'] = replace(CUSTOM['mynet'], build=lambda: os._exit(7))"
    plugin.write_text(f"{EXAMPLE.read_text()}\nimport os\nfrom dataclasses import replace\n{ends}\n")
    done = plan("--plugin", plugin, "--backbone", "mynet,squeezenet1_1", "--freeze", "full")
    assert "mynet: its profile cannot be measured: its process ended with exit status 7" in done.stderr
    assert "profile of squeezenet1_1, 32 px" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_a_name_that_the_other_process_does_not_know_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setitem(CUSTOM, "here_only", Custom(build=Tiny, input=SPEC, parts=parts))
    given = {
        "dataset": "digits", "backbone": "here_only", "freeze": "full", "image_size": 32, "train_size": 20,
        "epochs": 1, "layout": "contiguous", "weights": "random",
    }  # fmt: skip
    with pytest.raises(UserError, match="this process knows it, those that measure do not: put it into a file"):
        tlbench.plan(**given)
    assert set(tlbench.plan(**given, isolate="none")["by"]) == {"profile"}


@pytest.mark.parametrize("error", [NotApplicable("means nothing"), MemoryError("none left"), RuntimeError("broken")])
def test_errors_come_as_they_were_raised(monkeypatch, error):
    def raises(wanted, settings):
        raise error

    monkeypatch.setattr("tlbench.measure.profile.measure_profile", raises)
    asked = {}
    monkeypatch.setattr(
        profiling, "Worker",
        lambda library: type("Worker", (), {
            "profile": lambda self, told: profiling.answer(told), "end": lambda self: asked.update(ended=True),
        })(),
    )  # fmt: skip
    wanted = _wanted()
    with pytest.raises(type(error), match=str(error)):
        profiling.profiled(wanted, Settings(isolate="backbone"))
    assert asked == {"ended": True}


def _wanted():
    from tlbench.measure.profile import Wanted

    return Wanted(cell=SMALL, key="key", place="here", policies=(("full", 1),), heads=("linear",))
