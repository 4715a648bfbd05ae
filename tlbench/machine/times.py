"""What earlier runs have told of how long cells take on this machine: a line for each run, in the cache folder."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from tlbench.machine import sensors
from tlbench.machine.lines import add_line, read_lines

NAME = "times.jsonl"
MOST = 200
"""Most lines that are kept: the latest."""
Told = tuple[str, str, str, float]
"""What was timed, the backbone, the policy, and the log of its seconds over those that a rule expects."""


def place(device: str, threads: int | None) -> str:
    """Names what times are comparable on, without torch: the processor's model, its cores, the device, the threads."""
    model = sensors.field_of(sensors.PROCESS / "cpuinfo", "model name") or "unknown processor"
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {allowed} cores, {device}, {threads or 'all'} threads"


def read_times(where: str) -> list[Told]:
    """Returns what earlier runs told of a place, oldest first. Lines that are damaged are passed over: all of it is
    knowledge that a run can do without.
    """
    found: list[Told] = []
    for line in read_lines(NAME):
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            data = json.loads(line)
            if data["place"] != where:
                continue
            told = [(str(a), str(b), str(c), float(value)) for a, b, c, value in data["told"]]
            found += [one for one in told if math.isfinite(one[3])]
    return found


def remember_times(where: str, told: Sequence[Told]) -> None:
    """Keeps what a run has told. A cache that cannot be written is no error."""
    if told:
        line = json.dumps({"place": where, "told": [list(one) for one in told]}, allow_nan=False)
        add_line(NAME, line, MOST)


def rough_speed(threads: int | None = None) -> float | None:
    """Returns the floating-point operations a second of a matrix product on the processor, in a few hundredths of a
    second and without torch; None where it cannot be had.
    """
    import numpy as np

    size = 768
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    best = math.inf
    for _ in range(4):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    cores = os.cpu_count() or 1
    share = min(threads, cores) / cores if threads else 1.0
    return 2 * size**3 / best * share if best > 0 else None
