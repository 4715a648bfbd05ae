"""The machine: peak memory, the environment that every record carries, the ceiling."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from records import record

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import ceiling, device, nvidia, sensors
from tlbench.machine import environment as environment_module
from tlbench.machine.kept import KEPT
from tlbench.machine.process import set_allocator, set_up
from tlbench.machine.variables import VARIABLES
from tlbench.measure import cell as cell_module
from tlbench.measure import phases
from tlbench.measure.build import Building
from tlbench.records.machine import machine_key

CPU = torch.device("cpu")
QUICK = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=20, epochs=1, layout="contiguous"
)

STABLE = {
    "os", "kernel", "container", "cpu_model", "cpu_count", "cpu_cores", "cpu_affinity", "cpu_quota", "cpu_governor",
    "cpu_max_clock_mhz", "cpu_capability", "memory_bytes", "memory_limit_bytes", "python", "tlbench", "torch",
    "torch_git", "torchvision", "timm", "numpy", "cuda", "cudnn", "byte_order",
}  # fmt: skip
STABLE_CUDA = {
    "gpu", "gpu_memory_bytes", "gpu_multiprocessors", "gpu_capability", "gpu_power_limit_watts", "gpu_max_clock_mhz",
    "gpu_max_memory_clock_mhz", "gpu_mig", "gpu_ecc", "driver",
}  # fmt: skip
SETTINGS = {
    "threads", "interop_threads", "workers", "allocator", "deterministic_algorithms", "cudnn_deterministic",
    "cudnn_benchmark", "variables",
}  # fmt: skip
ARITHMETIC = {"matmul_precision", "tf32_matmul", "tf32_cudnn", "autocast_dtype", "memory_format", "compile"}
VOLATILE = {
    "load_1min", "load_5min", "cpu_pressure", "memory_pressure", "io_pressure", "switches_forced", "switches_own",
    "switches_machine", "cpus_allowed", "cpu_clock_mhz", "cpu_temperature_celsius", "throttles",
    "memory_available_bytes",
}  # fmt: skip
VOLATILE_CUDA = {
    "gpu_clock_mhz", "gpu_memory_clock_mhz", "gpu_temperature_celsius", "gpu_power_watts", "gpu_utilisation",
    "gpu_throttle_reasons", "gpu_foreign_processes", "gpu_clocks_locked", "gpu_persistent", "gpu_uuid", "gpu_index",
}  # fmt: skip
ALWAYS_KNOWN = {
    "os", "kernel", "cpu_count", "memory_bytes", "python", "tlbench", "torch", "torchvision", "timm", "numpy",
    "byte_order", "threads", "interop_threads", "workers", "deterministic_algorithms", "cudnn_benchmark",
    "matmul_precision", "load_1min", "switches_forced",
}  # fmt: skip
MAY_BE_NOTHING = {
    "workers", "load_1min", "load_5min", "cpu_pressure", "memory_pressure", "io_pressure", "switches_forced",
    "switches_own",
}  # fmt: skip
"""Where 0 is an answer."""


@pytest.fixture(scope="module")
def made():
    """A record of a cell that ran."""
    return cell_module.run_cell(CELL, QUICK)


@pytest.mark.exhaustive
def test_every_key_is_there(made):
    environment = made.environment
    assert set(environment) == {"stable", "settings", "arithmetic", "volatile"}
    assert set(environment["stable"]) == STABLE
    assert set(environment["settings"]) == SETTINGS
    assert set(environment["arithmetic"]) == ARITHMETIC
    assert set(environment["volatile"]) == {"before", "after"}
    for moment in environment["volatile"].values():
        assert set(moment) == VOLATILE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_every_key_of_a_gpu_is_there():
    environment = environment_module.environment(torch.device("cuda"))
    assert set(environment["stable"]) == STABLE | STABLE_CUDA
    assert set(environment["volatile"]["now"]) == VOLATILE | VOLATILE_CUDA
    assert environment["stable"]["driver"]


def test_every_key_of_a_gpu_that_tells_little(monkeypatch):
    """Without NVIDIA's library for Python: named all the same, and unknown."""
    properties = type("Properties", (), {
        "name": "Example GPU", "total_memory": 80 * 10**9, "multi_processor_count": 132, "major": 9, "minor": 0,
    })  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(nvidia, "nvml", lambda: None)
    nvidia.gpu.cache_clear()
    cuda = torch.device("cuda")
    stable, volatile = environment_module.stable(cuda), environment_module.volatile(cuda)
    nvidia.gpu.cache_clear()
    assert set(stable) == STABLE | STABLE_CUDA
    assert set(volatile) == VOLATILE | VOLATILE_CUDA
    assert (stable["gpu"], stable["gpu_capability"], stable["gpu_multiprocessors"]) == ("Example GPU", "9.0", 132)
    assert [stable[key] for key in ("gpu_power_limit_watts", "gpu_max_clock_mhz")] == [None, None]
    assert {volatile[key] for key in VOLATILE_CUDA} == {None}


def plain(facts):
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from plain(value)
        else:
            yield name, value


def test_unknown_is_null_and_never_nothing(made):
    text = json.dumps(made.environment, allow_nan=False)
    assert json.loads(text) == made.environment
    for name, value in plain({k: v for k, v in made.environment.items() if k != "volatile"}):
        assert value != "", name
        assert value != 0 or isinstance(value, bool) or name in MAY_BE_NOTHING, name
    for name, value in plain({key: made.environment["volatile"]["after"][key] for key in VOLATILE - {"throttles"}}):
        assert value != "", name
        assert value != 0 or name in MAY_BE_NOTHING, name


def test_what_can_always_be_known_is(made):
    known = {**made.environment["stable"], **made.environment["settings"], **made.environment["arithmetic"],
             **made.environment["volatile"]["after"]}  # fmt: skip
    assert [name for name in ALWAYS_KNOWN if known[name] is None] == []


def test_a_machine_that_tells_nothing_has_nulls(monkeypatch, tmp_path):
    monkeypatch.setattr(sensors, "SYSTEM", tmp_path)
    monkeypatch.setattr(sensors, "PROCESS", tmp_path)
    environment_module._stable.cache_clear()
    sensors._throttle_files.cache_clear()
    stable, volatile = environment_module.stable(CPU), environment_module.volatile(CPU)
    environment_module._stable.cache_clear()
    sensors._throttle_files.cache_clear()
    for name in ("cpu_cores", "cpu_quota", "cpu_governor", "cpu_max_clock_mhz", "memory_limit_bytes"):
        assert stable[name] is None
    for name in ("cpu_pressure", "switches_machine", "cpu_clock_mhz", "throttles", "memory_available_bytes"):
        assert volatile[name] is None
    assert set(stable) == STABLE


def test_before_and_after_lie_around_the_cell(made):
    before, after = (made.environment["volatile"][moment] for moment in ("before", "after"))
    assert before["switches_own"] <= after["switches_own"]
    assert before["switches_machine"] is None or before["switches_machine"] < after["switches_machine"]


def test_the_settings_are_those_while_the_cell_ran():
    """Afterwards they are put back, and would say something else."""
    on, off = (cell_module.run_cell(CELL, replace(QUICK, deterministic=wanted)).environment for wanted in (True, False))
    assert (on["settings"]["deterministic_algorithms"], on["settings"]["cudnn_benchmark"]) == (True, False)
    assert (off["settings"]["deterministic_algorithms"], off["settings"]["cudnn_benchmark"]) == (False, True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert on["settings"]["allocator"] in ("keep", None)


@pytest.mark.exhaustive
def test_the_arithmetic_is_the_cells():
    made = cell_module.run_cell(replace(CELL, precision="bf16", layout="channels_last"), QUICK)
    assert made.environment["arithmetic"] == {
        "matmul_precision": "highest", "tf32_matmul": False, "tf32_cudnn": False, "autocast_dtype": "bfloat16",
        "memory_format": "channels_last", "compile": "off",
    }  # fmt: skip


def test_variables_that_matter_are_kept_and_others_are_not(monkeypatch):
    for name in list(os.environ):
        if name in VARIABLES:
            monkeypatch.delenv(name)
    kept = {"OMP_NUM_THREADS": "1", "MKL_DYNAMIC": "FALSE", "LD_PRELOAD": "x.so"}
    devices = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    left = {
        "HOME": "/x",
        "TOKEN": "secret",
        "TORCH_HOME": "/y",
        "TORCHINDUCTOR_CACHE_DIR": "/z",
        "KMP_INIT_AT_FORK": "F",
    }
    for name, value in {**kept, **devices, **left}.items():
        monkeypatch.setenv(name, value)
    assert environment_module.settings()["variables"] == kept
    assert environment_module.volatile()["visible_devices"] == devices, "beside the identity"


@pytest.mark.exhaustive
def test_a_second_cell_of_a_process_is_of_the_same_machine(made):
    again = cell_module.run_cell(replace(CELL, freeze="full"), QUICK)
    assert machine_key(again) == machine_key(made)
    with set_up(None, "fp32", True, "keep") as process:
        listed = environment_module.environment(CPU, used=environment_module.settings(process.allocator))
    assert machine_key(replace(made, environment=listed)) == machine_key(made)


# --- what may be averaged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["stable", "settings"])
def test_records_that_differ_in_the_machine_or_its_settings_are_apart(made, part):
    for name in made.environment[part]:
        changed = {**made.environment, part: {**made.environment[part], name: "another"}}
        assert machine_key(replace(made, environment=changed)) != machine_key(made), name


@pytest.mark.parametrize("part", ["arithmetic", "volatile"])
def test_what_the_cell_says_and_what_changes_all_the_time_keeps_no_records_apart(made, part):
    changed = {**made.environment, part: dict.fromkeys(made.environment[part], "another")}
    assert machine_key(replace(made, environment=changed)) == machine_key(made)


def test_records_of_different_machines_are_never_averaged():
    from tlbench.analysis.frame import rows
    from tlbench.analysis.summary import summarise

    one = record(seed=0)
    other = replace(record(seed=1), environment={**one.environment, "stable": {"cpu_model": "another"}})
    assert [row["records"] for row in summarise(rows([one, record(seed=1)]))] == [2]
    assert [row["records"] for row in summarise(rows([one, other]))] == [1, 1]


def test_env_prints_what_a_record_would_say(command, made):
    status, out, _ = command("env")
    assert status == 0
    found = json.loads(out)
    assert set(found["stable"]) >= STABLE
    assert set(found["settings"]) == SETTINGS
    assert set(found["arithmetic"]) == ARITHMETIC
    assert set(found["volatile"]["now"]) >= VOLATILE
    if not torch.cuda.is_available():
        assert machine_key(replace(made, environment=found)) == machine_key(made)


# --- the suite's own commit -----------------------------------------------------------------------------------


def git(folder, *arguments):
    subprocess.run(["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@x", *arguments], check=True)


def test_the_commit_of_the_suite(monkeypatch, tmp_path):
    package = tmp_path / "checkout" / "tlbench"
    package.mkdir(parents=True)
    file = package / "environment.py"
    file.write_text("x = 1\n")
    monkeypatch.setattr(environment_module, "__file__", str(file))
    monkeypatch.setattr(
        environment_module.metadata, "distribution", lambda _: type("D", (), {"read_text": lambda *_: None})()
    )

    def commit():
        environment_module.suite_commit.cache_clear()
        return environment_module.suite_commit()

    assert commit() is None
    git(package.parent, "init", "-q")
    assert commit() is None  # installed inside somebody else's repository
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "x")
    clean = commit()
    assert len(clean) == 40
    (package.parent / "notes.txt").write_text("beside the package")
    assert commit() == clean
    file.write_text("x = 2\n")
    assert commit() == clean + "+"
    environment_module.suite_commit.cache_clear()


def test_the_commit_of_an_installation_from_a_repository(monkeypatch):
    text = json.dumps({"vcs_info": {"vcs": "git", "commit_id": "ab" * 20}})
    monkeypatch.setattr(
        environment_module.metadata, "distribution", lambda _: type("D", (), {"read_text": lambda *_: text})()
    )
    environment_module.suite_commit.cache_clear()
    assert environment_module.suite_commit() == "ab" * 20
    environment_module.suite_commit.cache_clear()


# --- peak memory ----------------------------------------------------------------------------------------------

MB = 10**6
needs_marks = pytest.mark.skipif(
    device.peak_memory(CPU, lambda: None) is None, reason="the kernel has no peak that can be reset"
)


def touch(megabytes):
    """Takes so much memory, uses it and gives it back."""
    torch.ones(megabytes * MB // 4).add_(1)


@pytest.mark.exhaustive
@needs_marks
def test_what_a_step_takes_shows():
    none = device.peak_memory(CPU, lambda: touch(1))
    for megabytes in (50, 200):
        assert device.peak_memory(CPU, lambda m=megabytes: touch(m)) - none == pytest.approx(megabytes * MB, abs=15e6)


@pytest.mark.exhaustive
@needs_marks
@pytest.mark.parametrize("allocator", ["keep", "system"])
def test_what_was_freed_before_does_not_count(allocator):
    set_allocator(allocator)
    try:
        small = device.peak_memory(CPU, lambda: touch(20))
        touch(300)
        assert device.peak_memory(CPU, lambda: touch(20)) == pytest.approx(small, abs=15e6)
    finally:
        set_allocator("keep")


@pytest.mark.exhaustive
@needs_marks
def test_the_trap_of_freed_memory_is_one(monkeypatch):
    if set_allocator("keep") is None:
        pytest.skip("the allocator cannot be set here")
    small = device.peak_memory(CPU, lambda: touch(20))
    monkeypatch.setattr(device, "release_memory", lambda: None)
    touch(300)
    assert device.peak_memory(CPU, lambda: touch(20)) > small + 200 * MB


CHILD = """
import resource, sys, torch
from tlbench.machine.device import peak_memory
peak = peak_memory(torch.device("cpu"), lambda: torch.ones(1000).sum() and None)
print(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
PARENT = """
import subprocess, sys
big = b"x" * 1_500_000_000
print(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.exhaustive
@needs_marks
@pytest.mark.exhaustive
def test_memory_of_the_parent_does_not_count():
    done = subprocess.run([sys.executable, "-c", PARENT, CHILD], capture_output=True, text=True, check=True)
    peak, inherited = map(int, done.stdout.split())
    assert inherited > 1400 * MB  # the trap: ru_maxrss is the parent's
    assert 50 * MB < peak < 1200 * MB


@pytest.mark.exhaustive
@needs_marks
@pytest.mark.exhaustive
def test_a_bigger_batch_takes_more():
    cell = replace(CELL, freeze="full", train_size=128, image_size=64)
    small, big, again = (
        cell_module.run_cell(replace(cell, batch_size=b), QUICK).peak_memory_bytes for b in (8, 128, 8)
    )
    assert big > small + 50 * MB
    assert again == pytest.approx(small, abs=30e6)


@pytest.mark.exhaustive
@needs_marks
def test_the_clone_that_warms_up_does_not_count(monkeypatch):
    """With a model that takes 40 MB more, the peak rises by 40 MB, not by those of the clone as well."""
    build = Building.build

    def with_ballast(*args):
        job = build(*args)
        job.model[0].register_buffer("ballast", torch.ones(10 * MB))
        return job

    cell = replace(CELL, freeze="full", train_size=10, batch_size=10)
    plain = cell_module.run_cell(cell, QUICK).peak_memory_bytes
    monkeypatch.setattr(Building, "build", with_ballast)
    monkeypatch.setattr(phases, "step_flops", lambda *_: 1)
    heavy = cell_module.run_cell(cell, QUICK)
    assert heavy.status == "ok", heavy.reason
    assert heavy.peak_memory_bytes - plain == pytest.approx(40 * MB, abs=15e6)


# --- the ceiling ----------------------------------------------------------------------------------------------


def test_the_ceiling_is_of_the_precision_and_the_threads_and_measured_once(monkeypatch):
    measured = []
    monkeypatch.setattr(ceiling, "measure_ceiling", lambda d, p: measured.append(p) or float(len(measured)))
    KEPT.ceilings.forget()
    threads = torch.get_num_threads()
    assert [ceiling.ceiling(CPU, p) for p in ("fp32", "bf16", "fp32")] == [1.0, 2.0, 1.0]
    torch.set_num_threads(threads + 1)
    try:
        assert ceiling.ceiling(CPU, "fp32") == 3.0
    finally:
        torch.set_num_threads(threads)


def test_a_ceiling_that_cannot_be_measured_is_unknown(monkeypatch):
    def fails(*_):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(ceiling, "measure_ceiling", fails)
    KEPT.ceilings.forget()
    assert ceiling.ceiling(CPU, "fp16") is None


def test_the_ceiling_counts_two_operations_a_product(monkeypatch):
    monkeypatch.setattr(ceiling, "MATRIX_SIZE", {"cpu": 80})
    monkeypatch.setattr(ceiling, "product_seconds", lambda device, dtype, size, times: 0.5 if size == 80 else 0.001)
    assert ceiling.measure_ceiling(CPU, "fp32") == 2 * 80**3 / 0.5


def test_the_first_product_does_not_count(monkeypatch):
    moments = iter([0.0, 0.1, *(t for n in range(5) for t in (10.0 * n, 10.0 * n + 0.5))])
    monkeypatch.setattr(ceiling, "now", lambda: next(moments))
    state = torch.get_rng_state()
    assert ceiling.product_seconds(CPU, torch.float32, 10, 6) == 0.5
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("flops", [1e8, 1e9, 1e10, 1e11, 1e12])
def test_a_slow_processor_gets_smaller_matrices(flops, monkeypatch):
    """One without instructions for bfloat16 took 48 seconds for the ceiling of one cell."""
    spent = []

    def product(device, dtype, size, times):
        spent.append(times * 2 * size**3 / flops)
        return 2 * size**3 / flops

    monkeypatch.setattr(ceiling, "product_seconds", product)
    assert ceiling.measure_ceiling(CPU, "bf16") == pytest.approx(flops)
    assert sum(spent) < 8 * ceiling.LONGEST_S


def test_the_kernels_module_tells_the_driver(monkeypatch, tmp_path):
    (tmp_path / "driver/nvidia").mkdir(parents=True)
    (tmp_path / "driver/nvidia/version").write_text(
        textwrap.dedent("""\
        NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 17
        GCC version:  gcc version 12.2.0
        """)
    )
    monkeypatch.setattr(sensors, "PROCESS", tmp_path)
    assert environment_module._driver() == "535.161.08"
