"""Clocks and witnesses: what a round took, and whether it can be believed. One test here waits for real time."""

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import noise as timing
from tlbench.machine import sensors
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.clock import now, plain_clock
from tlbench.machine.noise import Noise, Reading, Watch, energy, noisy, validity
from tlbench.measure import cell as cell_module
from tlbench.measure import timed
from tlbench.pytest_plugin.clock import PedanticClock

QUIET = Noise(pressure=0.001, switches=0)


class Device:
    """A device on which work is queued: it is done once somebody waits for it. Its clock knows what is done."""

    def __init__(self, monkeypatch):
        self.queued, self.done, self.waits = 0.0, 0.0, 0
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: self.wait())
        monkeypatch.setattr(time, "perf_counter", lambda: self.done)

    def launch(self, seconds):
        self.queued += seconds

    def wait(self):
        self.waits += 1
        self.done += self.queued
        self.queued = 0.0


def clock_without_waiting(setup, target, rounds, seconds):
    for _ in range(rounds):
        setup()
        start = time.perf_counter()
        target()
        seconds.append(time.perf_counter() - start)


def times(clock, device):
    """Seconds of three rounds that take 2, 3 and 4, after a setup that leaves 10 in the queue."""
    seconds, work = [], iter([2.0, 3.0, 4.0])
    clock(lambda: device.launch(10.0), lambda: device.launch(next(work)), 3, seconds)
    return seconds


def test_the_clock_waits_for_what_is_queued(monkeypatch):
    device = Device(monkeypatch)
    assert times(plain_clock, device) == [2.0, 3.0, 4.0]
    assert device.waits == 6  # before and after each of three rounds
    assert times(clock_without_waiting, device) != [2.0, 3.0, 4.0]  # that is the trap


def test_pytest_benchmarks_timer_is_the_same_clock(monkeypatch):
    device = Device(monkeypatch)

    class Benchmark:
        stats = None

        def pedantic(self, target, setup, rounds, iterations, warmup_rounds):
            assert (iterations, warmup_rounds) == (1, 0)
            data = []
            for _ in range(rounds):
                setup()
                start = now()
                target()
                data.append(now() - start)
            self.stats = type("Stats", (), {"stats": type("Data", (), {"data": data})})

    assert times(PedanticClock(Benchmark()), device) == [2.0, 3.0, 4.0]


def test_nothing_is_waited_for_where_cuda_never_started(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("starts CUDA"))
    assert now() <= now()


def test_an_error_leaves_the_rounds_before_it():
    seconds, calls = [], []

    def target():
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        plain_clock(lambda: None, target, 5, seconds)
    assert len(seconds) == 2


# --- the witness ----------------------------------------------------------------------------------------------


class Machine:
    """A machine in which time passes as told."""

    def __init__(self):
        self.reading = Reading(
            seconds=0.0, stalled_seconds=0.0, switches=0, throttles={"heat": 0}, energy_joules=100.0, foreign=0
        )

    def read(self):
        return self.reading

    def spend(self, seconds=1.0, stalled=0.0, switches=0, heat=0, **rest):
        r = self.reading
        self.reading = replace(
            r,
            seconds=r.seconds + seconds,
            stalled_seconds=None if r.stalled_seconds is None else r.stalled_seconds + stalled,
            switches=r.switches + switches,
            throttles={"heat": r.throttles["heat"] + heat},
            energy_joules=r.energy_joules + 5 * seconds,
            **rest,
        )


def watched(machine: Machine, rounds: list[Callable[[], None]]) -> list[Noise]:
    """What a watch saw of rounds; the setup before each is as noisy as can be."""
    watch = Watch(lambda: machine.spend(stalled=1.0, switches=1000, heat=1), machine.read)
    for target in rounds:
        watch.setup()
        target()
    watch.close()
    return watch.rounds


def test_ten_rounds_beside_a_busy_loop_are_flagged_and_ten_quiet_ones_are_not():
    machine = Machine()
    quiet = [lambda: machine.spend(stalled=0.01) for _ in range(10)]
    busy = [lambda: machine.spend(stalled=0.5) for _ in range(10)]
    flags = [bool(noisy(noise, 1.0, limit=0.02)) for noise in watched(machine, quiet + busy)]
    assert flags == [False] * 10 + [True] * 10


def test_a_watch_sees_its_rounds_and_not_what_lies_between():
    machine = Machine()
    seen = watched(machine, [lambda: machine.spend(seconds=2.0, stalled=0.5, switches=3), machine.spend])
    assert seen[0] == Noise(pressure=0.25, switches=3, energy_joules=10.0, foreign=0)
    assert seen[1] == Noise(pressure=0.0, switches=0, energy_joules=5.0, foreign=0)


def test_what_held_the_processors_or_the_gpu_back_during_a_round():
    machine = Machine()
    heat, slow = watched(
        machine, [lambda: machine.spend(heat=2), lambda: machine.spend(held_back=("slow",), clock_mhz=900)]
    )
    assert heat.throttled == ("heat",)
    assert (slow.throttled, slow.clock_mhz) == (("slow",), 900)


@pytest.mark.parametrize(("disk_waits", "idle"), [(0, 0.75), (1, None)])
def test_a_thread_that_stands_still_is_seen_unless_it_reads_from_the_disk(disk_waits, idle):
    machine = Machine()
    machine.reading = replace(machine.reading, thread_seconds=1.0)
    (seen,) = watched(machine, [lambda: machine.spend(seconds=2.0, thread_seconds=1.5, disk_waits=disk_waits)])
    assert seen.idle == idle


def test_closing_twice_adds_no_round():
    machine = Machine()
    watch = Watch(lambda: None, machine.read)
    watch.close()
    watch.setup()
    watch.close()
    watch.close()
    assert len(watch.rounds) == 1


def test_what_the_machine_does_not_tell_is_unknown():
    machine = Machine()
    machine.reading = Reading(seconds=0.0, stalled_seconds=None, switches=0)
    watch = Watch(lambda: None, machine.read)
    watch.setup()
    watch.close()
    assert watch.rounds == [Noise(pressure=None, switches=0)]
    assert watch.rounds[0].energy_joules is None
    assert watch.rounds[0].foreign is None


@pytest.mark.parametrize(
    ("noise", "seconds", "word"),
    [
        (QUIET, 1.0, ""),
        (replace(QUIET, pressure=0.02), 1.0, ""),
        (replace(QUIET, pressure=0.021), 1.0, "waited for a processor"),
        (replace(QUIET, switches=10_000), 1.0, ""),  # pressure is known, and knows better
        (Noise(pressure=None, switches=50), 1.0, ""),
        (Noise(pressure=None, switches=51), 1.0, "lost its processor"),
        (Noise(pressure=None, switches=51), 2.0, ""),
        (replace(QUIET, foreign=0), 1.0, ""),
        (replace(QUIET, foreign=1), 1.0, "1 other process on the GPU"),
        (replace(QUIET, foreign=2), 1.0, "2 other processes on the GPU"),
        (replace(QUIET, idle=0.2), 1.0, ""),
        (replace(QUIET, idle=0.21), 1.0, "the process did not run for 21% of it"),
        (Noise(pressure=None, switches=0, idle=0.5), 1.0, "stopped, or waited"),
    ],
)
def test_noisy(noise, seconds, word):
    found = noisy(noise, seconds, limit=0.02)
    assert (word in found) if word else found == ""


@pytest.mark.exhaustive
def test_a_process_that_is_stopped_inside_a_round_says_so(tmp_path):
    """A stopped process waits for no processor: the kernel's pressure knows nothing of it."""
    code = """
import os, time
from tlbench.machine.noise import Watch, noisy
watch = Watch(lambda: None)
for number in range(2):
    watch.setup()
    print("begun", flush=True)
    end = time.thread_time() + 0.5
    while time.thread_time() < end:
        pass
watch.close()
print([noisy(seen, 0.5, limit=1.0) for seen in watch.rounds])
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "begun\n"
        first, _ = ast.literal_eval(process.stdout.readline())
    assert "the process did not run for" in first


@pytest.mark.parametrize(
    ("seconds", "word"),
    [
        ([1.0, 1.0, 1.4], "ok"),
        ([1.0, 1.0, 1.6], "noisy"),
        ([1.0, 1.6], "ok"),  # nobody knows which of them is as usual
        ([6.0, 6.1, 11.7, 6.0, 18.0, 5.9], "noisy"),
        ([1.0] * 20 + [1.9], "ok"),  # the sum is as good as without it
    ],
)
def test_rounds_are_held_against_each_other(seconds, word):
    found, why = validity(["full"] * len(seconds), seconds, [""] * len(seconds))
    assert (found, "times as long as the median" in why) == (word, word == "noisy")


@pytest.mark.parametrize("word", ["noisy", "throttled"])
def test_the_frozen_prefix_is_a_measurement_too(word):
    fill = {"noisy": "", "throttled": "", word: "the reason"}
    assert validity(["full"], [1.0], [""], [""], fill) == (word, "the frozen prefix: the reason")


def test_the_pressure_of_this_machine_is_read_where_it_has_one(monkeypatch, tmp_path):
    path = tmp_path / "cpu"
    path.write_text("some avg10=1.00 avg60=0.50 avg300=0.10 total=1500000\nfull avg10=0.00 total=7\n")
    monkeypatch.setattr(timing, "_PRESSURE", str(path))
    assert timing.read_machine().stalled_seconds == 1.5
    path.write_text("nonsense")
    assert timing.read_machine().stalled_seconds is None
    monkeypatch.setattr(timing, "_PRESSURE", str(tmp_path / "missing"))
    assert timing.read_machine().stalled_seconds is None


# --- the verdict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "throttled", "verdict"),
    [
        ([""] * 6, [""] * 6, "ok"),
        (["x", "x", "", "", "", ""], [""] * 6, "ok"),  # a third
        (["x", "x", "x", "", "", ""], [""] * 6, "noisy"),
        (["x"] * 6, ["hot"] * 6, "throttled"),  # which explains more
        ([""] * 6, ["hot", "hot", "hot", "", "", ""], "throttled"),
        ([""] * 6, ["hot", "hot", "", "", "", ""], "ok"),
        ([], [], "ok"),
    ],
)
def test_validity(reasons, throttled, verdict):
    word, why = validity(["a"] * len(reasons), [1.0] * len(reasons), reasons, throttled)
    assert word == verdict
    assert bool(why) == (verdict != "ok")


def test_drift_within_a_phase():
    growing = [1.0 + 0.05 * n for n in range(12)]
    assert validity(["a"] * 12, growing, [""] * 12)[0] == "drifting"
    assert validity(["a"] * 12, growing[::-1], [""] * 12)[0] == "drifting"
    assert validity(["a"] * 12, [1.0, 1.3] * 6, [""] * 12)[0] == "ok"  # it varies, but goes nowhere
    assert validity(["a"] * 6 + ["b"] * 6, [1.0] * 6 + [2.0] * 6, [""] * 12)[0] == "ok"  # phases differ in cost
    assert validity(["a"] * 8, [1.0 + 0.1 * n for n in range(8)], [""] * 8)[0] == "ok"  # too few to say


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.sampled_from([2.0**n for n in range(-20, 20)]))
def test_the_verdict_does_not_depend_on_the_unit(seconds, unit):
    # Powers of two: others would round, and what lies exactly on the border would fall to either side.
    phases, quiet = ["a"] * len(seconds), [""] * len(seconds)
    scaled = [s * unit for s in seconds]
    assert validity(phases, seconds, quiet)[0] == validity(phases, scaled, quiet)[0]


# --- energy ---------------------------------------------------------------------------------------------------


def test_energy_is_the_sum_of_the_rounds_or_unknown():
    rounds = [replace(QUIET, energy_joules=j) for j in (5.0, 7.0)]
    assert energy(rounds, [1.0, 1.2], resolution_seconds=0.1) == 12.0
    assert energy(rounds, [1.0, 0.9], resolution_seconds=0.1) is None  # nine steps of the counter
    assert energy([rounds[0], QUIET], [1.0, 1.0], resolution_seconds=0.1) is None
    assert energy([], [], resolution_seconds=0.1) is None


# --- in a record ----------------------------------------------------------------------------------------------


def test_what_a_watch_sees_comes_into_the_record(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(sensors, "reader", lambda *_: machine.read)

    def clock(setup, target, rounds, seconds):
        for number in range(rounds):
            setup()
            target()
            machine.spend(stalled=0.5 * number, heat=number, clock_mhz=1500)
            seconds.append(1.0)

    cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=20, epochs=3,
                layout="contiguous")  # fmt: skip
    record = cell_module.run_cell(cell, Settings(), clock)
    assert [r.pressure for r in record.rounds] == [0.0, 0.5, 1.0]
    assert [bool(r.noisy) for r in record.rounds] == [False, True, True]
    assert [r.throttled for r in record.rounds] == ["", "heat", "heat"]
    assert [r.clock_mhz for r in record.rounds] == [1500] * 3
    assert record.validity == "throttled"
    assert "2 of 3" in record.validity_reason
    assert record.energy_joules == 15.0


def test_the_witness_is_of_the_cells_device(monkeypatch):
    asked = []
    monkeypatch.setattr(sensors, "reader", lambda *device: asked.append(device))
    built = type("Built", (), {"arithmetic": Arithmetic(device=torch.device("cuda:1")), "settings": Settings()})
    timed.Timed(built)
    assert asked == [("cuda", 1)]
