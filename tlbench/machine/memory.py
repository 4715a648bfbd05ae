"""How much memory this process could still take. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from tlbench.machine import sensors, usage

UNLIMITED_BYTES = 2**60
"""Version 1 of control groups writes "no limit" as the largest multiple of a page."""
FILES_NOT_NEEDED = {
    "memory.max": ("inactive_file", "active_file"),
    "memory.limit_in_bytes": ("total_inactive_file", "total_active_file"),
}
"""File of a group's limit -> lines of its ``memory.stat`` with what it has read of files, and gives back when memory is
wanted, though it counts as in use: after a data set was unpacked nearly all of a container is that."""
IN_USE = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}


def free_bytes() -> int:
    """Returns the bytes this process could still take, as the kernel, the control groups around it (a container, a
    job's) and ``--memory-limit`` see it.
    """
    found = [usage.memory_bytes() or usage.NO_SYSCONF_BYTES]
    if meminfo := sensors.read_text(sensors.PROCESS / "meminfo"):
        found += [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    found += _left_in_groups()
    limit = usage.data_limit()
    if limit is not None and (status := sensors.read_text(sensors.PROCESS / "self/status")):
        taken = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:")]
        found += [max(limit - size, 0) for size in taken]
    return min(found)


def _left_in_groups() -> list[int]:
    """Returns what each control group around this process that has a limit could still take, of either version."""
    found = []
    for folder in sensors.control_groups("memory") or ():
        for name, lines in FILES_NOT_NEEDED.items():
            most, used = (sensors.read_number(folder / file) for file in (name, IN_USE[name]))
            if most is not None and used is not None and most < UNLIMITED_BYTES:
                found.append(max(most - used + _given_back(folder, lines), 0))
    return found


def _given_back(folder: Path, names: tuple[str, ...]) -> int:
    """Returns the bytes of files that a group gives back when memory is wanted."""
    return sum(int(value) for name in names if (value := sensors.field_of(folder / "memory.stat", name)) is not None)
