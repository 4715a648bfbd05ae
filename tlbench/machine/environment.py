"""The environment of a record: what this machine is, how this process is set, and what changes all the time."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tlbench.machine import nvidia, sensors, usage, variables
from tlbench.machine.device import kilobytes
from tlbench.machine.process import fp32_precision

# --- the environment ------------------------------------------------------------------------------------------


def environment(
    device: torch.device | None = None,
    *,
    used: dict[str, Any] | None = None,
    follows: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what this machine is (``stable``), how this process is set (``settings``; records that differ in either
    are never averaged), what follows from the cell (``arithmetic``) and what changes (``volatile``: before and after a
    cell, or now). Unknown is None.

    ``used``: of `settings`, taken while the cell ran; ``follows``: of `arithmetic`; ``before``: of `volatile`.
    """
    now_ = volatile(device)
    return {
        "stable": stable(device),
        "settings": settings() if used is None else used,
        "arithmetic": arithmetic() if follows is None else follows,
        "volatile": {"now": now_} if before is None else {"before": before, "after": now_},
    }


def settings(allocator: str | None = None) -> dict[str, Any]:
    """Returns how this process is set. ``allocator``: what `tlbench.machine.process.set_allocator` has put in force."""
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "workers": 0,  # batches are made in this process
        "allocator": allocator,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "variables": variables.of_machine(os.environ),
    }


_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def arithmetic(
    precision: str | None = None, memory_format: str | None = None, compiled: str | None = None
) -> dict[str, Any]:
    """Returns how a cell computes. This follows from the cell, so cells that differ in it still ran on one machine."""
    fp32 = fp32_precision()
    return {
        "matmul_precision": "high" if fp32["cuda matmul"] == "tf32" else "highest",
        "tf32_matmul": fp32["cuda matmul"] == "tf32",
        "tf32_cudnn": fp32["cudnn conv"] == "tf32",
        "autocast_dtype": None if precision is None else _DTYPES.get(precision, "off"),
        "memory_format": memory_format,
        "compile": None if compiled is None else {"on": "default"}.get(compiled, compiled),
    }


def volatile(device: torch.device | None = None) -> dict[str, Any]:
    """Returns what changes all the time. Counts run on: a cell's own are the later less the earlier ones."""
    used, load = usage.usage(), usage.load()
    switches = sensors.field_of(sensors.PROCESS / "stat", "ctxt")
    found: dict[str, Any] = {
        "load_1min": load[0],
        "load_5min": load[1],
        "cpu_pressure": sensors.pressure("cpu"),
        "memory_pressure": sensors.pressure("memory"),
        "io_pressure": sensors.pressure("io"),
        "switches_forced": used.switches_forced,
        "switches_own": used.switches_own,
        "switches_machine": None if switches is None else int(switches),
        "cpus_allowed": sensors.ranges(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cpu_clock_mhz": sensors.clock_mhz(),
        "cpu_temperature_celsius": sensors.temperature_celsius(),
        "throttles": sensors.throttles() or None,
        "memory_available_bytes": kilobytes(sensors.PROCESS / "meminfo", "MemAvailable"),
    }
    # Beside the identity: another card of the same kind is the same machine.
    if chosen := variables.of_devices(os.environ):
        found["visible_devices"] = chosen
    if device is not None and device.type == "cuda":
        card = nvidia.gpu(device.index)
        found |= {
            "gpu_clock_mhz": card.clock_mhz(),
            "gpu_memory_clock_mhz": card.memory_clock_mhz(),
            "gpu_temperature_celsius": card.temperature_celsius(),
            "gpu_power_watts": card.power_watts(),
            "gpu_utilisation": card.utilisation(),
            "gpu_throttle_reasons": None if (reasons := card.reasons()) is None else list(reasons),
            "gpu_foreign_processes": card.foreign(),
            "gpu_clocks_locked": card.locked(),
            "gpu_persistent": card.persistent(),
            "gpu_uuid": card.uuid or None,
            "gpu_index": card.index(),
        }
    return found


def stable(device: torch.device | None = None) -> dict[str, Any]:
    """Returns what this machine is: hardware, limits and libraries."""
    found = dict(_stable())
    if device is not None and device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card = nvidia.gpu(device.index)
        found |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "gpu_multiprocessors": properties.multi_processor_count,
            "gpu_capability": f"{properties.major}.{properties.minor}",
            "gpu_mig": card.mig(),
            "gpu_ecc": card.ecc(),
            "gpu_power_limit_watts": card.power_limit_watts(),
            "gpu_max_clock_mhz": card.max_clock_mhz(),
            "gpu_max_memory_clock_mhz": card.max_memory_clock_mhz(),
            "driver": card.driver() or _driver(),
        }
        if (profile := card.mig_profile() or nvidia.profile_in(properties.name)) is not None:
            found["gpu_mig_profile"] = profile
    return found


@cache
def _stable() -> dict[str, Any]:
    return {
        "os": _os(),
        "kernel": platform.release() or None,
        "container": sensors.container(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_cores": sensors.physical_cores(),
        "cpu_affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cpu_quota": sensors.cpu_quota(),
        "cpu_governor": sensors.governor(),
        "cpu_max_clock_mhz": sensors.max_clock_mhz(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": usage.memory_bytes(),
        "memory_limit_bytes": sensors.memory_limit_bytes(),
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


def _os() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:  # no Linux
        return platform.platform() or None


def _cpu_model() -> str | None:
    return sensors.field_of(sensors.PROCESS / "cpuinfo", "model name") or platform.processor() or None


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver, as its kernel module says it."""
    found = re.search(
        r"Kernel Module\D*?(\d+\.[\d.]+)", sensors.read_text(sensors.PROCESS / "driver/nvidia/version") or ""
    )
    return found[1] if found else None


@cache
def suite_commit() -> str | None:
    """Returns the commit that this package is of, followed by ``+`` where its files were changed since; None where it
    was installed without its history.
    """
    try:
        installed = json.loads(metadata.distribution("tlbench").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        installed = {}
    if commit := installed.get("vcs_info", {}).get("commit_id"):
        return str(commit)
    package = Path(__file__).parent
    # A folder of installed packages may lie inside somebody else's repository: these files must be in it.
    if _git(package, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return None if commit is None else commit + ("+" if changes else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            # Looking must not take a lock that somebody's commit needs.
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
