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


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """What this machine is (stable), how torch is set (settings), and what changes (volatile). Unknown is None."""
    stable = dict(_stable())
    if device is not None and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        stable |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    return {
        "stable": stable,
        "settings": {
            "threads": torch.get_num_threads(),
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
        "volatile": {"load_1min": os.getloadavg()[0]},
    }


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
