"""How much memory this process could still take. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from tlbench.machine import usage


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
