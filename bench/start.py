"""Where the seconds of a run go that are not the cell's own, from the shell to the prompt.

    python bench/start.py
    python bench/start.py --data PATH --epochs 10 --runs 5 -- --backbone resnet18 --freeze last_1

Runs `tlbench run` as a person does, in a process of its own, and prints medians of seconds by phase. Without `--data`
the photographs are made up. What follows `--` goes to `tlbench run`, in place of one probe of a ResNet-18 with random
weights. Runs share a cache folder of their own, which is thrown away: the first also measures the memory layout.
"""

import argparse
import atexit
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHASES = {
    "imports": "Python, and what the command line imports before it checks anything",
    "check": "what is checked of the grid, and copies among the images, without the decoding",
    "decode": "images read and decoded by the checks",
    "prepare": "the run's folder and what is said before the first cell",
    "worker start": "processes for cells, until the first cell begins in each",
    "cells": "the cells asked for, from their beginning to their record, what they import included",
    "twins": "cells measured again for the noise floor",
    "between": "records taken in, lines printed, processes ended",
    "report": "report.html, figures and tables",
    "verdict": "the terminal's last lines",
    "exit": "from the last line to the prompt",
}
DEFAULT = ("--backbone", "resnet18", "--weights", "random", "--freeze", "linear_probe")


def main() -> None:
    own, extra = _divided(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of images; made up if left away")
    parser.add_argument("--images", type=int, default=200, help="how many are made up")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(own)
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or photographs(Path(folder) / "photographs", given.images)
        options = ["--epochs", str(given.epochs), "--image-size", str(given.image_size), *(extra or DEFAULT)]
        measured = []
        for number in range(given.runs):
            out = Path(folder) / f"run{number}"
            measured.append(one([str(data), *options, "--out", str(out)], Path(folder)))
            print(f"run {number + 1}: {sum(measured[-1].values()):.1f} s", flush=True)
    for phase, what in PHASES.items():
        print(f"{phase:12} {statistics.median(one_run[phase] for one_run in measured):7.2f} s  {what}")
    print(f"{'all':12} {statistics.median(sum(one_run.values()) for one_run in measured):7.2f} s")


def _divided(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns what comes before ``--`` and what comes after it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def photographs(folder: Path, count: int) -> Path:
    """Writes made-up photographs, half of them of each of two classes: smooth random fields, 500 x 375, as JPEG."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("left", "right")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (12, 16, 3), np.uint8)
        coarse[:, 8 * (number % 2) :][:, :8] //= 2
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(place / f"{number}.jpg", quality=90)
    return folder


def one(arguments: list[str], folder: Path) -> dict[str, float]:
    """Runs `tlbench run` once and returns its seconds by phase. Errors: SystemExit with its words where it fails."""
    marks = folder / "marks.json"
    environment = {**os.environ, "TLBENCH_CACHE": str(folder / "cache")}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--inside", str(marks), "run", *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    end = time.monotonic()
    if done.returncode:
        raise SystemExit(f"tlbench run failed:\n{done.stderr[-2000:]}\n{done.stdout[-2000:]}")
    spans = json.loads(marks.read_text())
    seconds = {phase: sum(b - a for a, b in spans.get(phase, [])) for phase in PHASES}
    (checked,), (measured,) = spans["check"], spans["measured"]
    seconds["imports"] = checked[0] - begin
    seconds["check"] -= seconds["decode"]
    seconds["prepare"] = measured[0] - checked[1]
    seconds["between"] = measured[1] - measured[0] - sum(seconds[name] for name in ("worker start", "cells", "twins"))
    seconds["exit"] = end - max(b for of_phase in spans.values() for _, b in of_phase)
    return seconds


# --- within the process that is measured ----------------------------------------------------------------------


def inside(marks: Path) -> None:
    """Runs the command line with a clock at the border of each phase. Clocks of processes of one machine agree."""
    from tlbench import cli

    spans: dict[str, list[tuple[float, float]]] = {}
    sys.argv = ["tlbench", *sys.argv[3:]]
    sys.meta_path.insert(0, Clocks(spans))
    atexit.register(lambda: marks.write_text(json.dumps(spans)))
    cli.command()


class Clocks:
    """Puts clocks round functions as soon as the modules that hold them are imported: none is imported for them."""

    def __init__(self, spans: dict[str, list[tuple[float, float]]]) -> None:
        self.spans = spans

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Finds no module itself; wraps the loading of those that are measured."""
        if name not in WRAPPED:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        load = spec.loader.exec_module

        def exec_module(module: object) -> None:
            load(module)
            for place, function, phase in WRAPPED[name]:
                owner = getattr(module, place) if place else module
                setattr(owner, function, phase(self.spans, getattr(owner, function)))

        spec.loader.exec_module = exec_module
        return spec


def span(phase: str) -> object:
    """Returns what makes a function note when it began and ended."""

    def wrap(spans: dict[str, list[tuple[float, float]]], function: object) -> object:
        def timed(*arguments: object, **words: object) -> object:
            begin = time.monotonic()
            try:
                return function(*arguments, **words)
            finally:
                spans.setdefault(phase, []).append((begin, time.monotonic()))

        return timed

    return wrap


def step(spans: dict[str, list[tuple[float, float]]], ask: object) -> object:
    """Divides what a worker is asked for into its start and the cell."""

    def timed(worker: object, request: dict[str, dict[str, object]], *arguments: object) -> object:
        begin, began = time.monotonic(), []
        read = worker._read

        def noting() -> list[dict[str, object]]:
            answers = read()
            if not began and answers:
                began.append(time.monotonic())
            return answers

        worker._read = noting
        try:
            return ask(worker, request, *arguments)
        finally:
            worker._read = read
            border = began[0] if began else time.monotonic()
            kind = "twins" if request["place"]["role"] == "aa" else "cells"
            spans.setdefault("worker start", []).append((begin, border))
            spans.setdefault(kind, []).append((border, time.monotonic()))

    return timed


WRAPPED = {
    "tlbench.campaign.check": [("", "check", span("check")), ("", "load_images", span("decode"))],
    "tlbench.campaign.campaign": [("Campaign", "run", span("measured"))],
    "tlbench.campaign.isolate": [("Worker", "__init__", span("worker start")), ("Worker", "ask", step)],
    "tlbench.report": [("", "write_report", span("report"))],
    "tlbench.report.terminal": [("", "print_summary", span("verdict"))],
}
"""Module -> (class, function, what notes the time of it)."""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]))
    else:
        main()
