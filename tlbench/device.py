"""The machine: devices, peak memory, environment."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tlbench.errors import UserError
from tlbench.timing import now

DEVICES = ("cpu", "cuda", "available")


def resolve_devices(names: tuple[str, ...]) -> tuple[str, ...]:
    """Device names with ``available`` spelt out.

    Errors: UserError for an unknown device, or one that is not here.
    """
    found: dict[str, None] = {}
    for name in names:
        if name == "available":
            found["cpu"] = None
            if torch.cuda.is_available():
                found["cuda"] = None
            continue
        try:
            kind, index = torch.device(name).type, torch.device(name).index
        except RuntimeError:
            kind, index = "", None
        if kind not in ("cpu", "cuda") or (kind == "cpu" and index):
            from tlbench.errors import unknown

            raise unknown("device", name, DEVICES)
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"device {name!r} was asked for, but torch sees no CUDA GPU here; "
                "use cpu, or available for whatever there is"
            )
        if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
            raise UserError(f"device {name!r} does not exist; there are {torch.cuda.device_count()} CUDA GPUs")
        found["cpu" if kind == "cpu" else name] = None
    return tuple(found)


def peak_memory(device: torch.device, work: Callable[[], None]) -> int | None:
    """Most memory in use while ``work`` ran, in bytes: allocated by torch on CUDA, resident in the process on a CPU.

    On a CPU never ``ru_maxrss``, which a child inherits from its parent: the kernel's mark is reset first.
    None where the kernel does not offer that; ``work`` runs all the same.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        work()
        return None
    work()
    return _status_bytes("VmHWM")


def memory_in_use(device: torch.device) -> int | None:
    """Bytes: allocated by torch on CUDA, resident in the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def environment(
    device: torch.device | None = None, before: dict[str, Any] | None = None, allocator: str | None = None
) -> dict[str, Any]:
    """What this machine is (stable), how torch is set (settings), and what changes (volatile, and ``before`` a cell
    where that is given). Unknown is None.
    """
    return {
        "stable": stable(device),
        "settings": {
            "threads": torch.get_num_threads(),
            "allocator": allocator,
            "interop_threads": torch.get_num_interop_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "variables": {
                name: value
                for name, value in sorted(os.environ.items())
                if name.startswith(("OMP_", "MKL_", "CUDA_", "CUBLAS_"))
            },
        },
        "volatile": volatile(device),
        **({"before": before} if before is not None else {}),
    }


def volatile(device: torch.device | None = None) -> dict[str, Any]:
    """What changes from one moment to the next."""
    found: dict[str, Any] = {"load_1min": os.getloadavg()[0], "memory_available_bytes": _available()}
    if device is not None and device.type == "cuda":
        found |= _gpu_state(device)
    return found


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _gpu_state(device: torch.device) -> dict[str, Any]:
    """Temperature, clocks and power, where NVIDIA's library is installed for Python."""
    found: dict[str, Any] = {}
    for name, read in {
        "gpu_temperature_celsius": torch.cuda.temperature,
        "gpu_clock_mhz": torch.cuda.clock_rate,
        "gpu_power_milliwatts": torch.cuda.power_draw,
        "gpu_utilisation_percent": torch.cuda.utilization,
    }.items():
        try:
            found[name] = read(device)
        except Exception:  # without pynvml, or a GPU that does not tell
            found[name] = None
    return found


_CEILINGS: dict[tuple[str, str, int], float | None] = {}
_CEILING_SIZE = {"cpu": 1536, "cuda": 8192}


def ceiling(device: torch.device, precision: str) -> float | None:
    """FLOP/s of a large matrix product in a precision, measured once a process; None when it cannot be had."""
    key = (str(device), precision, torch.get_num_threads())
    if key not in _CEILINGS:
        try:
            _CEILINGS[key] = _measure_ceiling(device, precision)
        except (RuntimeError, MemoryError):
            _CEILINGS[key] = None
    return _CEILINGS[key]


def _measure_ceiling(device: torch.device, precision: str) -> float:
    size = _CEILING_SIZE[device.type]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(6):
        begin = now()
        a @ b
        seconds.append(now() - begin)
    return float(2 * size**3 / min(seconds[1:]))


def stable(device: torch.device | None = None) -> dict[str, Any]:
    """What this machine is: hardware and libraries."""
    found = dict(_stable())
    if device is not None and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    return found


@cache
def _stable() -> dict[str, Any]:
    return {
        "os": platform.platform(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "tlbench": _version("tlbench"),
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "torchvision": _version("torchvision"),
        "timm": _version("timm"),
        "numpy": _version("numpy"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "byte_order": sys.byteorder,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None
