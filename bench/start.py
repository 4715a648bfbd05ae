"""Where the seconds of a run go that are not the cell's own, from the shell to the prompt.

    python bench/start.py
    python bench/start.py --data PATH --epochs 10 --runs 5 -- --backbone resnet18 --freeze last_1
    python bench/start.py --data PATH --epochs 10 --shell linear_probe

Runs `tlbench run` as a person does, in a process of its own, and prints medians of seconds by phase, what the
processors have spent among them. Without `--data` the photographs are made up. What follows `--` goes to `tlbench run`,
in place of one probe of a ResNet-18 with random weights; `--shell POLICY` gives what `bench/peers/shell.py` does, the
weights of a file among it, for which PATH has train/ and val/. Runs share a cache folder of their own, which is thrown
away: the first also measures the memory layout, and decodes.
"""

import argparse
import atexit
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHASES = {
    "imports": "Python, and what the command line imports before it checks anything",
    "check": "what is checked of the grid, and copies among the images, without the decoding",
    "decode": "images read and decoded, before the first cell",
    "checkpoint": "a file of weights looked at, imports for the report meanwhile",
    "prepare": "the run's folder and what is said before the first cell",
    "worker start": "processes for cells, until the first cell begins in each",
    "cells": "the cells asked for, from their beginning to their record, what they import included",
    "twins": "cells measured again for the noise floor",
    "between": "records taken in, lines printed, processes ended",
    "conclude": "what of the end is neither report nor verdict: imports for both",
    "report": "report.html, figures and tables",
    "verdict": "the terminal's last lines",
    "exit": "from the last line to the prompt",
}
OF_CELLS = {
    "fill": "the frozen prefix, run once",
    "epochs": "training",
    "evaluation": "validation images after each epoch, test images once",
    "other": "building, first calls, hashes, what is imported only then",
}
"""Parts of `cells`, as their records tell them."""
DEFAULT = ("--backbone", "resnet18", "--weights", "random", "--freeze", "linear_probe")


def main() -> None:
    own, extra = _divided(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of images; made up if left away")
    parser.add_argument("--images", type=int, default=200, help="how many are made up")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--shell", metavar="POLICY", help="linear_probe, last_1 or full, as bench/peers/shell.py has it"
    )
    given = parser.parse_args(own)
    if given.shell is not None and (given.data is None or given.shell not in ("linear_probe", "last_1", "full")):
        raise SystemExit("--shell linear_probe, last_1 or full needs --data, a folder with train/ and val/")
    with tempfile.TemporaryDirectory() as folder:
        data, options = _what(given, extra, Path(folder))
        measured = []
        for number in range(given.runs):
            out = Path(folder) / f"run{number}"
            measured.append(one([str(data), *options, "--out", str(out)], Path(folder), out))
            seconds = sum(measured[-1][phase] for phase in PHASES)
            print(f"run {number + 1}: {seconds:.1f} s, of processors {measured[-1]['processors']:.1f} s", flush=True)
    medians = {name: statistics.median(one_run[name] for one_run in measured) for name in measured[0]}
    for phase, what in PHASES.items():
        print(f"{phase:14} {medians[phase]:7.2f} s  {what}")
        for part, of_it in OF_CELLS.items() if phase == "cells" else ():
            print(f"  {part:12} {medians[part]:7.2f} s    {of_it}")
    print(f"{'all':14} {statistics.median(sum(run[phase] for phase in PHASES) for run in measured):7.2f} s")
    print(f"{'processors':14} {medians['processors']:7.2f} s  user and system time of all processes together")


def _what(given: argparse.Namespace, extra: list[str], folder: Path) -> tuple[Path, list[str]]:
    """Returns the images and the options of `tlbench run`."""
    if given.shell is not None:
        from peers import shell

        data, weights = shell.prepared(given.data, folder)
        same = shell.common_options(weights, str(given.epochs), str(given.image_size))
        return data, [*same, *shell.own_options(given.shell), *extra]
    data = given.data or photographs(folder / "photographs", given.images)
    return data, ["--epochs", str(given.epochs), "--image-size", str(given.image_size), *(extra or DEFAULT)]


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


def one(arguments: list[str], folder: Path, out: Path) -> dict[str, float]:
    """Runs `tlbench run` once into the folder ``out`` and returns its seconds by phase, by part of the cells, and those
    of the processors. Errors: SystemExit with its words where it fails.
    """
    marks = folder / "marks.json"
    environment = {**os.environ, "TLBENCH_CACHE": str(folder / "cache")}
    before, begin = _processors(), time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--inside", str(marks), repr(begin), "run", *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    end = time.monotonic()
    if done.returncode:
        raise SystemExit(f"tlbench run failed:\n{done.stderr[-2000:]}\n{done.stdout[-2000:]}")
    told = json.loads(marks.read_text())
    seconds = {phase: told["seconds"].get(phase, 0.0) for phase in PHASES}
    seconds["exit"] = end - told["last"]
    return {**seconds, **_of_cells(out, seconds["cells"]), "processors": _processors() - before}


def _processors() -> float:
    """Returns the seconds that the processors have spent for processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_cells(out: Path, seconds: float) -> dict[str, float]:
    """Divides the seconds of the cells asked for by what their records say."""
    from tlbench.records.run_folder import load

    records = [record for record in load(out).records if record.role == "cell"]
    rounds = [one for record in records for one in record.rounds]
    # All passes of a cell together: one for each view.
    fills = {
        tuple(record.prefix["fills"]): record.prefix["seconds"] for record in records if record.prefix.get("fills")
    }
    parts = {
        "fill": sum(fills.values()),
        "epochs": sum(one.seconds for one in rounds),
        "evaluation": sum(one.evaluation_seconds or 0.0 for one in rounds)
        + sum(record.test_seconds or 0.0 for record in records),
    }
    return {**parts, "other": seconds - sum(parts.values())}


# --- within the process that is measured ----------------------------------------------------------------------


def inside(marks: Path, begin: float) -> None:
    """Runs the command line with a clock at the border of each phase. Clocks of processes of one machine agree."""
    from tlbench import cli

    ledger = Ledger(begin)
    sys.argv = ["tlbench", *sys.argv[4:]]
    sys.meta_path.insert(0, Clocks(ledger))
    atexit.register(lambda: marks.write_text(json.dumps(ledger.told())))
    cli.command()


class Ledger:
    """Charges each second to one phase: a function's own is that of what it is part of, less what is part of it."""

    def __init__(self, begin: float) -> None:
        self.phase, self._since = "imports", begin
        self.seconds: dict[str, float] = {}

    def turn(self, phase: str) -> None:
        """Begins a phase."""
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self.phase, self._since = phase, now

    def told(self) -> dict[str, object]:
        """Returns the seconds of each phase, and when the last one ended."""
        self.turn("exit")
        return {"seconds": self.seconds, "last": self._since}


class Clocks:
    """Puts clocks round functions as soon as the modules that hold them are imported: none is imported for them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

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
                setattr(owner, function, phase(self.ledger, getattr(owner, function)))

        spec.loader.exec_module = exec_module
        return spec


def span(phase: str, after: str | None = None) -> object:
    """Returns what makes a function a phase, after which there is another one (None: that from before)."""

    def wrap(ledger: Ledger, function: object) -> object:
        def timed(*arguments: object, **words: object) -> object:
            before = ledger.phase
            ledger.turn(phase)
            try:
                return function(*arguments, **words)
            finally:
                ledger.turn(after or before)

        return timed

    return wrap


def step(ledger: Ledger, ask: object) -> object:
    """Divides what a worker is asked for into its start and the cell."""

    def timed(worker: object, request: dict[str, dict[str, object]], *arguments: object) -> object:
        before, read = ledger.phase, worker._read
        kind = "twins" if request["place"]["role"] == "aa" else "cells"
        ledger.turn("worker start")

        def noting() -> list[dict[str, object]]:
            answers = read()
            if answers and ledger.phase != kind:
                ledger.turn(kind)
            return answers

        worker._read = noting
        try:
            return ask(worker, request, *arguments)
        finally:
            worker._read = read
            ledger.turn(before)

    return timed


WRAPPED = {
    "tlbench.campaign.check": [
        ("", "check", span("check", "prepare")),
        ("", "about_checkpoint", span("checkpoint")),
        ("", "describe_images", span("decode")),
        ("", "load_images", span("decode")),
    ],
    "tlbench.campaign.campaign": [("Campaign", "run", span("between", "conclude"))],
    "tlbench.campaign.isolate": [
        ("Worker", "__init__", span("worker start")),
        ("Worker", "prepare", span("worker start")),
        ("Worker", "ask", step),
    ],
    "tlbench.report": [("", "write_report", span("report"))],
    "tlbench.report.terminal": [("", "print_summary", span("verdict"))],
}
"""Module -> (class, function, what notes the time of it)."""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
