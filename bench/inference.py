"""What the suite calls inference, against loops that a person would write: in turns, in one process.

    python bench/inference.py [--rounds 60]

Each loop runs the same model on batches of as many images. ``given`` takes one batch that lies ready, as the suite;
``prepared`` takes another batch each time, which lies ready too; ``normalised`` makes each batch of uint8 images, as a
loop over a data set does. Prints how many times as long each takes as the suite. A quiet machine takes two minutes.
"""

import argparse
from collections.abc import Callable

import torch

from tlbench.analysis import stats
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.clock import now
from tlbench.machine.process import set_up
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--allocator", default="keep", choices=("keep", "system"))
    given = parser.parse_args()
    cell = Cell(task="infer", backbone=given.backbone, weights="random", dataset="digits", image_size=given.image_size)
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


if __name__ == "__main__":
    main()
