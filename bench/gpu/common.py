"""The steps of gpu_check.sh share the device, clocks, and a line of JSON for every finding in $OUT/probe.jsonl."""

import json
import os
import statistics
import time
import traceback
import warnings
from pathlib import Path

BEGIN = time.monotonic()
TINY = os.environ.get("TINY") == "1"
DEVICE = os.environ.get("DEVICE", "cuda")
CUDA = DEVICE == "cuda"
OUT = Path(os.environ.get("OUT", "gpu_check_out"))
BUDGET = float(os.environ.get("STEP_SECONDS", "600"))
"""Seconds that this step has; what does not fit into them is left out, with a word."""

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it when it starts CUDA
warnings.filterwarnings("ignore", message=".*defaults to a non-deterministic algorithm.*")

import torch  # noqa: E402

IMPORT_SECONDS = time.monotonic() - BEGIN


def left():
    """Returns the seconds until this step's limit."""
    return BUDGET - (time.monotonic() - BEGIN)


def say(step, what, **facts):
    """Writes down and prints a finding."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "probe.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "what": what, **facts}, default=str) + "\n")
    words = ", ".join(f"{name}={_short(value)}" for name, value in facts.items())
    print(f"[{time.monotonic() - BEGIN:6.1f}s] {what}: {words}", flush=True)


def _short(value):
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list) and value and isinstance(value[0], float):
        return "[" + " ".join(f"{v:.5g}" for v in value[:8]) + "]"
    return value


def sync():
    """Waits for the device."""
    if CUDA:
        torch.cuda.synchronize()


def seconds(call):
    """Returns the seconds of a call, the work on the device included."""
    sync()
    begin = time.perf_counter()
    call()
    sync()
    return time.perf_counter() - begin


def guarded(step, what, call):
    """Returns what the call returns. An error is a finding, too, and ends nothing but itself; then, and where no time
    is left, None. Only Ctrl-C, which the step's limit sends, ends the step.
    """
    if left() < 3:
        say(step, what, left_out="no time")
        return None
    try:
        return call()
    except BaseException as error:
        text = (str(error).strip().splitlines() or [""])[0][:300]
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)][-4:]
        say(step, what, error=f"{type(error).__name__}: {text}", where=where)
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def warmed_up(step, calls):
    """Returns those of the calls that ran twice without an error."""
    return {
        name: call
        for name, call in calls.items()
        if guarded(step, f"warm-up, {name}", lambda call=call: (seconds(call), seconds(call))) is not None
    }


def alternated(calls, rounds):
    """Maps names to the seconds of each round, taken in turns, the order reversed every second time."""
    taken = {name: [] for name in calls}
    for turn in range(rounds):
        if left() < 3:
            break
        for name in list(calls)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds(calls[name]))
    return taken


def median(values):
    """Returns the median; None for no values."""
    return statistics.median(values) if values else None
