"""From the shell to the prompt: a plain script against `tlbench run`, each a process of its own, in turn.

    python bench/peers/shell.py --data PATH
    python bench/peers/shell.py --data PATH --jobs linear_probe:10 --runs 2

A job is a policy and a number of epochs. PATH has train/ and val/: val/ is what is tested on, once, and validation
images are cut from train/, the same for both. Prints medians of seconds and ratios with 95 % intervals over the runs:
of `tlbench run` on photographs that no run has decoded before, and of the same command once more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tlbench.analysis import stats

JOBS = "linear_probe:10,last_1:10,full:3,full:10"
HELD_OUT = 0.15
AGAIN = "tlbench again"
"""The same command on photographs that the run before has decoded."""
SCRIPT = Path(__file__).with_name("script.py")
TLBENCH = "from tlbench.cli import command; command()"
COMMON = ("--optimizer", "sgd", "--weight-decay", "0", "--schedule", "constant", "--warmup", "0", "--head", "linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a folder with train/ and val/")
    parser.add_argument("--jobs", default=JOBS, help=f"default: {JOBS}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    jobs = [job.partition(":") for job in given.jobs.split(",")]
    for policy, _, epochs in jobs:
        if policy not in ("linear_probe", "last_1", "full") or not epochs.isdigit():
            raise SystemExit(f"unknown job {policy}:{epochs}; write linear_probe:10, last_1:10 or full:3")
    with tempfile.TemporaryDirectory() as folder:
        data, weights = prepared(given.data, Path(folder))
        for policy, _, epochs in jobs:
            _compare(policy, epochs, str(given.image_size), (data, weights), Path(folder), given.runs)


def prepared(source: Path, folder: Path) -> tuple[Path, Path]:
    """Copies the images into train/, val/ and test/, and writes initial weights; returns where both lie."""
    import torch
    from torchvision import models

    data, weights = folder / "data", folder / "initial.pth"
    shutil.copytree(source / "val", data / "test")
    for file in sorted(file for file in (source / "train").glob("*/*") if file.is_file()):
        place = int(hashlib.sha256(file.read_bytes()).hexdigest()[:8], 16) / 2**32
        target = data / ("val" if place < HELD_OUT else "train") / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), weights)
    return data, weights


def _compare(policy: str, epochs: str, size: str, inputs: tuple[Path, Path], folder: Path, runs: int) -> None:
    data = str(inputs[0])
    same = common_options(inputs[1], epochs, size)
    seconds: dict[str, list[float]] = {"script": [], "tlbench": [], AGAIN: []}
    for number in range(runs):
        out = str(folder / f"{policy}-{epochs}-{number}")
        run = ["-c", TLBENCH, "run", data, *same, *own_options(policy), "--out"]
        commands = {
            "script": [str(SCRIPT), "--data", data, "--freeze", policy, *same],
            "tlbench": [*run, out],
            AGAIN: [*run, out + "-again"],
        }
        _timed("tlbench cache", ["-c", TLBENCH, "cache", "--clear"], folder)
        for peer, command in commands.items():
            taken = _timed(peer, command, folder)
            seconds[peer].append(taken)
            print(f"  {policy}, {epochs} epochs, run {number + 1}, {peer}: {taken:.1f} s", flush=True)
    medians = {peer: statistics.median(values) for peer, values in seconds.items()}
    for peer in ("tlbench", AGAIN):
        ratio = stats.paired_ratio(seconds["script"], seconds[peer]).interval
        bounds = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else ""
        print(
            f"{policy}, {epochs} epochs: {peer} is {ratio.estimate:.2f}{bounds} times as fast as the script; medians "
            f"{medians[peer]:.1f} s and {medians['script']:.1f} s",
            flush=True,
        )


def common_options(weights: Path, epochs: str, size: str) -> list[str]:
    """Returns the options that both are given beside the images and the policy."""
    return ["--weights", str(weights), "--epochs", epochs, "--image-size", size, "--lr", "3e-4", "--batch-size", "32"]


def own_options(policy: str) -> list[str]:
    """Returns the options by which `tlbench run` does what the script does under a policy."""
    return ["--backbone", "resnet18", "--freeze", policy if policy != "full" else "full(scale=1)", *COMMON]


def _timed(peer: str, command: list[str], folder: Path) -> float:
    """Returns the seconds of a process from its start to its end. Errors: SystemExit with its words where it fails."""
    # One cache for all runs: the memory layout is measured once per backbone and machine, in the first. What else is
    # kept there, decoded photographs above all, is cleared before each run but those that come again.
    environment = {**os.environ, "TLBENCH_CACHE": str(folder / "cache")}
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    taken = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}\n{done.stdout[-2000:]}")
    return taken


if __name__ == "__main__":
    main()
