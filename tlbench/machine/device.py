"""Devices by name, and the memory that is in use on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from tlbench.errors import UserError
from tlbench.machine import sensors, usage
from tlbench.machine.process import release_memory

DEVICES = ("cpu", "cuda", "available")


def resolve_devices(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns device names with ``available`` spelt out.

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


def resolved(name: str) -> torch.device:
    """Returns the device of a name, with its number where there are several of its kind: ``cuda`` is the current one.
    Tensors have a number, so that what is kept can be told apart by it.
    """
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


_broken: dict[str, str] = {}
"""Why CUDA takes no more work from this process, by nothing but one key: a context is broken as a whole."""


def check_context(device: torch.device) -> str:
    """Returns why CUDA takes no more work from this process; empty where it does. After an illegal access, a failed
    assertion or a lost GPU every later call fails, in whatever cell it comes.
    """
    if device.type == "cuda" and not _broken:
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            _broken["why"] = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return broken_context()


def broken_context() -> str:
    """Returns what `check_context` has found in this process so far, without asking again."""
    return _broken.get("why", "")


def peak_memory(device: torch.device, work: Callable[[], object]) -> int | None:
    """Returns the most memory in use while ``work`` ran, in bytes: allocated by torch on CUDA, resident on a CPU.

    On a CPU never ``ru_maxrss``, which a child inherits from its parent: the kernel's mark is reset first, after
    memory that was freed has gone back to the system (else what an earlier measurement took would count here).
    None where the kernel does not offer that; ``work`` runs all the same.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device))
    release_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        work()
        return None
    work()
    return kilobytes(sensors.PROCESS / "self/status", "VmHWM")


def memory_in_use(device: torch.device) -> int | None:
    """Returns the bytes in use: allocated by torch on CUDA, resident in the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return kilobytes(sensors.PROCESS / "self/status", "VmRSS")


def kilobytes(path: Path, name: str) -> int | None:
    """Returns what a line ``name: 123 kB`` says, in bytes."""
    found = re.match(r"\d+", sensors.field_of(path, name) or "")
    return int(found[0]) * 1024 if found else None


def free_bytes() -> int:
    """Returns the bytes this process could still take, as the kernel, the container and ``--memory-limit`` see it."""
    found = [usage.memory_bytes() or usage.NO_SYSCONF_BYTES]
    if meminfo := _read("/proc/meminfo"):
        found += [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    most, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if most and used and most.strip() != "max":
        found.append(max(int(most) - int(used), 0))
    limit = usage.data_limit()
    if limit is not None and (status := _read("/proc/self/status")):
        taken = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")]
        found += [max(limit - size, 0) for size in taken]
    return min(found)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
