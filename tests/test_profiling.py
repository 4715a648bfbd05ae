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
from tlbench.campaign import ahead, isolate, mapping, profiling
from tlbench.campaign.foretelling import largest_batches, profiles_for
from tlbench.campaign.stop import Stop
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
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


def test_what_a_cell_maps_is_measured_once_and_kept(monkeypatch):
    """A network of small stages was planned a fifth too many images: what it maps is more than what it uses."""
    cell, asked = replace(SMALL, image_size=64), []
    real = profiling.mapped_bytes
    monkeypatch.setattr(profiling, "mapped_bytes", lambda *given: asked.append(given[0].batch_size) or real(*given))
    said = []
    (first,) = largest_batches([cell], [2 * 10**9], Settings(threads=1), said.append)
    assert asked == [mapping.MOST_IMAGES[True] // mapping.PARTS, mapping.MOST_IMAGES[True]]
    assert any("to see what a process maps" in line for line in said)
    (profile,) = read_profiles(place("cpu", 1)).values()
    (mapped,) = profile.mapped.values()
    assert mapped.each > 10**5
    assert mapped.fixed > profile.data_bytes
    assert largest_batches([cell], [2 * 10**9], Settings(threads=1)) == [first]
    assert len(asked) == 2


def test_a_cell_that_cannot_be_mapped_leaves_its_profile_to_tell(monkeypatch):
    cell, said = replace(SMALL, image_size=64), []

    def refused(*given):
        raise RuntimeError("could not create a primitive\nat line 1")

    monkeypatch.setattr(profiling, "mapped_bytes", refused)
    (fit,) = largest_batches([cell], [2 * 10**9], Settings(threads=1), said.append)
    assert fit.batches[2 * 10**9] > 2
    assert said[-1].endswith("so its profile alone tells: could not create a primitive")


def test_a_cell_that_fails_while_it_is_mapped_gives_its_reason():
    with pytest.raises(RuntimeError, match="a batch of one image"):
        profiling.mapped_bytes(replace(SMALL, batch_size=1, train_size=20, epochs=1), Settings(threads=1))


def test_a_profile_is_of_a_process_that_has_nothing_but_the_cells(monkeypatch, tmp_path):
    settings = Settings(isolate="backbone")
    ((profile,), problems) = _profiles(SMALL, settings)
    held = bytearray(os.urandom(2**20) * 300)  # resident, and not of a cell
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "another"))
    ((beside,), _) = _profiles(SMALL, settings)
    del held
    assert not problems
    assert beside.process_bytes == pytest.approx(profile.process_bytes, abs=150 * 2**20)
    assert beside.data_bytes == pytest.approx(profile.data_bytes, abs=150 * 2**20)


def test_a_later_pass_adds_to_what_is_kept():
    settings = Settings(isolate="backbone")
    _profiles(SMALL, settings)
    ((more,), _) = _profiles(replace(SMALL, freeze="last_1"), settings)
    assert set(more.policies) == {"full", "last_1"}
    assert read_profiles(place("cpu", None)) == {more.key: more}


def _profiles(cell, settings):
    found, problems = profiles_for([cell], settings)
    return tuple(found.values()), problems


# --- what the process answers ------------------------------------------------------------------------------------


class Told:
    """A worker that was asked for a profile, and what its process says."""

    def __init__(self, code):
        self.worker = isolate.Worker.__new__(isolate.Worker)
        self.code = code

    def __enter__(self):
        boot = f"import json, sys; sys.path[:] = json.loads(sys.argv[1])\n{self.code}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(isolate, "_BOOT", boot)
            self.worker.__init__()
        return self.worker

    def __exit__(self, *_):
        self.worker.end()


ANSWERS = """
from tlbench.campaign.answers import Answering
lines = open(int(sys.argv[3]))
replies = int(sys.argv[4])
answering = Answering(replies, json.loads(next(lines))["word"])
answering.send(ready=True)
next(lines)
"""


DAMAGED = """
import os, time
os.write(replies, ("\\n" + answering._word + " 2 " + 64 * "0" + " []\\n").encode())
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "seconds", "status", "reason"),
    [
        (ANSWERS + DAMAGED, 60, "failed", "did not arrive whole"),
        ("sys.exit(3)", 60, "failed", "its process ended with exit status 3"),
        ("import time; time.sleep(60)", 1, "timeout", "did not start within"),
    ],
)
def test_what_is_no_answer_is_a_lost_process(monkeypatch, code, seconds, status, reason):
    monkeypatch.setattr(isolate, "START_SECONDS", seconds)
    with Told(code) as worker, pytest.raises(isolate.Lost, match=reason) as lost:
        worker.profile({})
    assert lost.value.status == status


def test_one_that_has_started_may_take_its_time(monkeypatch):
    monkeypatch.setattr(isolate, "START_SECONDS", 5)
    with Told(f"{ANSWERS}import time; time.sleep(8); answering.send(profiled=dict(done=1))") as worker:
        assert worker.profile({}) == {"done": 1}


def test_that_no_process_can_be_started_is_said(monkeypatch):
    def fails(**words):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(profiling, "Worker", fails)
    with pytest.raises(UserError, match="cannot start a process to profile mobilenet_v3_small: Resource"):
        profiling.profiled(_wanted(), Settings(isolate="backbone"))


def test_a_head_that_the_other_process_does_not_know(monkeypatch):
    monkeypatch.setitem(HEADS, "mine", HEADS["linear"])
    given = {
        "dataset": "digits", "backbone": "mobilenet_v3_small", "freeze": "full", "image_size": 32, "train_size": 20,
        "epochs": 1, "layout": "contiguous", "weights": "random", "head": "mine",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"unknown head 'mine'.*this process knows it"):
        tlbench.plan(**given)


# --- memory that is limited -----------------------------------------------------------------------------------------

THREADS = """
import os, re, sys, threading
from tlbench.machine.usage import one_arena
if sys.argv[1] == "one":
    one_arena()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.mallopt(-2, 64 * 2**20)  # M_TOP_PAD
mapped = lambda: int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
done, ready = threading.Event(), threading.Barrier(5)
def work():
    libc.malloc(1000)
    ready.wait()
    done.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
before = mapped()
for thread in threads: thread.start()
ready.wait()
print(mapped() - before - 4 * threading.stack_size() / 2**20)
done.set()
"""


def test_threads_of_a_limited_process_map_little(tmp_path):
    """Four arenas of 64 MiB count against a limit though nothing is in them."""
    clean = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}

    def mebibytes(how, **more):
        done = subprocess.run(
            [sys.executable, "-c", THREADS, how], capture_output=True, text=True, env={**clean, **more}, check=True
        )
        return float(done.stdout)

    several, one = mebibytes("several"), mebibytes("one")
    assert several - one > 100
    assert mebibytes("one", MALLOC_ARENA_MAX="8") > one + 100, "who sets the variable means it"


@pytest.mark.parametrize(("limit", "limited"), [(None, False), (10**9, True)])
def test_a_process_is_told_that_it_will_be_limited(monkeypatch, limit, limited):
    told = []
    monkeypatch.setattr(isolate.Worker, "_send", lambda self, message: told.append(message))
    settings = Settings(isolate="cell", memory_limit_bytes=limit)
    with ahead.starting():
        isolate.start_ahead(settings, "resnet18")
    with isolate.Workers(settings, Stop()) as workers:
        workers._worker(SMALL)
    assert [message["limited"] for message in told if "word" in message] == [limited] * 2


# --- names of plugins ---------------------------------------------------------------------------------------------


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
        lambda library, limited: type("Worker", (), {
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
