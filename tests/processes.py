"""Runs of the command line in processes of their own, for the tests that kill them."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from tlbench.record import Record

COMMAND = [sys.executable, "-c", "from tlbench.cli import main; main()"]


def start(*arguments: object, cwd: Path, log: Path) -> subprocess.Popen:
    """``tlbench …``, what it writes going into a file, lines unbroken."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "1000", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def gone(pids: list[int], seconds: float = 10) -> bool:
    """Whether all of them end within some seconds; a zombie has ended."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return not left


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    """Until a condition holds of a process that goes on."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def results(record: Record) -> tuple:
    """All that a cell computes, to the last bit."""
    return (
        record.status,
        record.weights.get("sha256"),
        record.data_sha256,
        tuple((r.phase, r.loss, r.loss_val, r.accuracy_val) for r in record.rounds),
        (record.accuracy_val, record.accuracy_test, record.loss_test, record.predictions_sha256),
        (record.frozen_sha256_before, record.frozen_sha256_after),
    )
