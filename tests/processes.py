"""Runs of the command line in processes of their own, for the tests that kill them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from tlbench.campaign.answers import Answering
from tlbench.campaign.lifeline import tie_to
from tlbench.grid.cell import Cell
from tlbench.records.lines import encode

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


BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from processes import child; child()"
"""In the place of `tlbench.campaign.isolate._BOOT`: a child without torch."""


def child() -> None:
    """Speaks as `tlbench.campaign.isolate` does; what the name of a cell's backbone says is run in its place."""
    import records

    line, requests, replies, _ = map(int, sys.argv[2:])
    tie_to(line)
    lines = os.fdopen(requests)
    word = json.loads(next(lines))["word"]
    answering = Answering(replies, word)
    answering.send(ready=True)
    setup = {"word": word, **json.loads(next(lines))}
    for cells, line in enumerate(lines):

        def reply(number: int = cells + 1, **answer: object) -> None:
            answering.send(number=number, **answer)

        request = json.loads(line)
        cell = Cell(**request["cell"])
        known = {"reply": reply, "setup": setup, "request": request, "cells": cells, "changes": {}, "pipe": replies}
        if not cell.backbone.startswith("early: "):
            reply(began={"stable": {"cpu_model": "a child's"}})
        try:
            exec(cell.backbone.removeprefix("early: "), known)
        except KeyboardInterrupt:
            known["changes"] = {"status": "interrupted"}
        place = request["place"]
        done = replace(records.record(), id=place["name"], cell=cell, role=place["role"], block=place["block"])
        told = {"broken": known.get("broken", False), "unreachable": {}, "layouts": known.get("layouts", {})}
        reply(record=encode(replace(done, **known["changes"])), **told)
