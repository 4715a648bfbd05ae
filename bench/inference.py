"""What the suite calls inference, against loops that a person would write: in turns.

    python bench/inference.py [--rounds 60] [--processes 12]

First in one process, with the same model, on batches of as many images: ``given`` takes one batch that lies ready, as
the suite; ``prepared`` takes another batch each time, which lies ready too; ``normalised`` makes each batch of uint8
images, as a loop over a data set does. Then in processes of their own, which take turns: ``plain`` is torchvision's
model in a loop and knows nothing of the suite; the others differ from it in one of the things that the suite sets.
Prints how many times as long each takes as the suite. A quiet machine takes some minutes.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torchvision import models

from tlbench.analysis import stats
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.clock import now
from tlbench.machine.process import set_allocator, set_up
from tlbench.measure.build import build
from tlbench.measure.inference import start_inference

BATCHES = 2


def loops(cell: Cell) -> dict[str, Callable[[], object]]:
    """Returns the suite's call, and what a person would write."""
    built = build(cell, Settings())
    source, model = built.sources["train"], built.model
    model.eval()
    size = cell.batch_size
    order = torch.arange(len(source)).split(size)
    order = [positions for positions in order if len(positions) == size]
    raw = [source.raw(positions)[0] for positions in order[: 2 * BATCHES]]
    ready = [source.normalise(images) for images in raw]
    turn = 0

    def given() -> None:
        with torch.no_grad():
            for _ in range(BATCHES):
                model(ready[0])

    def inferred() -> None:
        with torch.inference_mode():
            for _ in range(BATCHES):
                model(ready[0])

    def prepared() -> None:
        nonlocal turn
        with torch.inference_mode():
            for _ in range(BATCHES):
                model(ready[turn % len(ready)])
                turn += 1

    def normalised() -> None:
        nonlocal turn
        with torch.inference_mode():
            for _ in range(BATCHES):
                model(source.normalise(source.raw(order[turn % len(order)])[0]))
                turn += 1

    def kept() -> None:
        with torch.inference_mode():
            outputs = [model(ready[0]) for _ in range(BATCHES)]
        del outputs

    def counted() -> None:
        with torch.inference_mode():
            for _ in range(BATCHES):
                model(ready[0]).argmax(1).tolist()

    return {
        "suite": start_inference(built)(size, BATCHES),
        "given, inference_mode": inferred,
        "given, no_grad": given,
        "prepared, inference_mode": prepared,
        "normalised, inference_mode": normalised,
        "given, outputs kept": kept,
        "given, predictions read": counted,
    }


GIVEN_BACK = "suite, memory given back"
ALONE = ("suite", GIVEN_BACK, "plain", "plain, memory kept", "plain, deterministic", "plain, suite's layout")
"""The suite, also with ``--allocator system``; what a person would write, and with one of the things the suite sets."""


def alone(name: str, given: argparse.Namespace, cell: Cell) -> float:
    """Returns the median seconds of a batch in this process, of one of `ALONE`."""
    if name.startswith("suite"):
        with set_up(None, "fp32", True, "system" if name == GIVEN_BACK else given.allocator):
            return median_of(start_inference(build(cell, Settings()))(cell.batch_size, BATCHES), given.rounds)
    if name == "plain, memory kept":
        set_allocator("keep")
    if name == "plain, deterministic":
        torch.use_deterministic_algorithms(True)
    model = models.get_model(given.backbone, num_classes=10).eval()
    images = torch.rand(cell.batch_size, 3, given.image_size, given.image_size)
    if name == "plain, suite's layout":
        arithmetic = build(cell, Settings()).arithmetic
        arithmetic.place(model)
        images = arithmetic.arrange(images)

    def call() -> None:
        with torch.inference_mode():
            for _ in range(BATCHES):
                model(images)

    return median_of(call, given.rounds)


def median_of(call: Callable[[], object], rounds: int) -> float:
    """Returns the median seconds of a call, after two that do not count."""
    call()
    call()
    seconds = []
    for _ in range(rounds):
        begin = now()
        call()
        seconds.append(now() - begin)
    return statistics.median(seconds)


def take_turns(given: argparse.Namespace) -> None:
    """Prints how many times as long each loop takes in a process of its own as the suite in one of its own."""
    names = given.only.split(";")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(given.processes):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            done = subprocess.run(  # the same options, and which one to measure
                [sys.executable, *sys.argv, "--alone", name], capture_output=True, text=True, check=True
            )
            seconds[name].append(float(done.stdout))
    print(f"suite: {1000 * statistics.median(seconds['suite']):.2f} ms")
    for name in names[1:]:
        turns = zip(seconds[name], seconds["suite"], strict=True)
        ratio = stats.alternated_ratio([([mine], [its]) for mine, its in turns]).interval
        print(f"{name}: {ratio.estimate:.4f} ({ratio.low:.4f} to {ratio.high:.4f}) times as long as the suite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--allocator", default="keep", choices=("keep", "system"))
    parser.add_argument("--processes", type=int, default=12, help="of each loop; 0: only those in one process")
    parser.add_argument("--only", default=";".join(ALONE), help="of the loops in processes of their own, with ;")
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    cell = Cell(task="infer", backbone=given.backbone, weights="random", dataset="digits", image_size=given.image_size)
    if given.alone:
        print(alone(given.alone, given, cell))
        return
    with set_up(None, "fp32", True, given.allocator):
        calls = loops(cell)
        for call in calls.values():
            call()
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        names = list(calls)
        for number in range(given.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                begin = now()
                calls[name]()
                seconds[name].append(now() - begin)
    for name in names[1:]:
        blocks = [(seconds[name][n::5], seconds["suite"][n::5]) for n in range(5)]
        ratio = stats.alternated_ratio(blocks).interval
        print(f"{name}: {ratio.estimate:.4f} ({ratio.low:.4f} to {ratio.high:.4f}) times as long as the suite")
    take_turns(given)


if __name__ == "__main__":
    main()
