"""What the system says that this process has used, and may use; on systems that say nothing, nothing is known."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

NO_SYSCONF_BYTES = 2**32
"""Memory that is counted on where the system does not say how much there is."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Counts what this process has gone through so far; None where the system does not tell."""

    switches_forced: int | None = None
    """Times that it was made to give up its processor."""
    switches_own: int | None = None
    """Times that it gave it up by itself."""
    disk_waits: int = 0
    """Times that it waited for a page of a file (major page faults)."""


def usage() -> Usage:
    """Returns the counts of now."""
    if resource is None:
        return Usage()
    found = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(switches_forced=found.ru_nivcsw, switches_own=found.ru_nvcsw, disk_waits=found.ru_majflt)


THREADS = Path("/proc/self/task")


def waited_seconds() -> float | None:
    """Returns how long the threads of this process have waited for a processor so far, all of them together; None where
    the kernel does not tell. A thread that has ended takes its part with it.
    """
    waited = []
    with suppress(OSError):
        for thread in THREADS.iterdir():
            with suppress(OSError, ValueError, IndexError):  # it has just ended, or the kernel counts nothing
                waited.append(int((thread / "schedstat").read_text(encoding="ascii").split()[1]))
    return sum(waited) / 1e9 if waited else None


def load() -> tuple[float | None, float | None]:
    """Returns how many processes waited or ran, on average over one minute and over five."""
    try:
        return os.getloadavg()[:2]
    except (OSError, AttributeError):
        return None, None


def memory_bytes() -> int | None:
    """Returns the bytes of main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def data_limit() -> int | None:
    """Returns the bytes of heap and private maps that this process may have; None where there is no limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if limit == resource.RLIM_INFINITY else limit


_M_ARENA_MAX = -8
"""Of glibc's ``malloc.h``."""


def one_arena() -> None:
    """Has all threads that are still to come allocate from one arena, unless a variable of the environment says how
    many there are. Each one's own maps 64 MiB ahead where freed memory is kept (`tlbench.machine.process`), which
    counts against `limit_data` though nothing is in it (MobileNetV3-Small at 96 px, everything trained within 1.5 GB:
    batches of 41 with them, of 84 to 93 without).
    """
    if any(name in os.environ for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")):
        return
    with suppress(OSError, AttributeError):  # another C library has other ways
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def limit_data(limit: int) -> None:
    """Limits heap and private maps to so many bytes. Errors: OSError where the system has no such limit."""
    if resource is None:
        raise OSError("this system has no limit for a process's memory")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
