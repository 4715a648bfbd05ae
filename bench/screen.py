"""What a screen costs beside the bare forward passes that it cannot do without.

    python bench/screen.py
    python bench/screen.py --small

Of each of 20 backbones, on 1,000 made-up photographs, two things are done in turn, and the other way round in every
second round: what `tlbench screen` does (weights, features, scores), and a loop of torch through the same network, with
batches of 32, no clock and no scores. Both find the photographs decoded and the network's faster memory layout known,
and compute with the same threads and allocator, so that what is left is what a screen adds. Building a network is
charged to both. Measuring the layout happens once per backbone and machine, for all that comes after; its seconds are
told apart. Prints seconds and their ratio for each, and for all together, and the ratio of the processors' seconds,
which other programs disturb less; the bar is 1.2.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tlbench.analysis import stats
from tlbench.backbones import load_backbone
from tlbench.campaign import screening
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.machine.process import Process, set_up
from tlbench.measure.build import build

BAR = 1.2
BACKBONES = (
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_b0", "mobilenet_v2"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mnasnet0_5"),
    *("mnasnet1_0", "squeezenet1_0", "squeezenet1_1", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet34"),
    *("resnet50", "googlenet", "densenet121"),
)
SMALL = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1")
BATCH = 32
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three backbones, 100 photographs, 96 px")
    parser.add_argument("--images", type=int, help="photographs (default 1000)")
    parser.add_argument("--image-size", type=int, help="pixels a side (default: each one's own)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is done (default 2)")
    parser.add_argument("--backbone", help="comma-separated names instead of the 20")
    given = parser.parse_args()
    names = given.backbone.split(",") if given.backbone else list(SMALL if given.small else BACKBONES)
    size = given.image_size or (96 if given.small else None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLBENCH_CACHE"] = str(Path(folder) / "cache")
        data = photographs(Path(folder) / "photographs", given.images or (100 if given.small else 1000))
        cell = Cell(dataset=f"folder:{data}", weights="random", image_size=size, epochs=1)
        cells = screening.cells(names, cell)
        found = [compared(one, given.rounds) for one in cells]
    print("\n".join(summary(found)))


def photographs(folder: Path, count: int) -> Path:
    """Writes made-up photographs, so many in train/ and a few in val/ and test/: smooth random fields, as JPEG."""
    chance = np.random.default_rng(0)
    for part, images in (("train", count), ("val", 2 * CLASSES), ("test", 2 * CLASSES)):
        for number in range(images):
            place = folder / part / f"class{number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(chance.integers(0, 256, (12, 16, 3), np.uint8))
            coarse.resize((320, 240), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=90)
    return folder


def compared(cell: Cell, rounds: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of a backbone's screens and of its bare passes, round by round."""
    given, layout_seconds = prepared(cell)
    screens, bares, busy = [], [], {screened: 0.0, bare: 0.0}
    for number in range(rounds):
        order = (screened, bare) if number % 2 else (bare, screened)
        for what in order:
            began = time.process_time()
            (screens if what is screened else bares).append(what(cell, given))
            busy[what] += time.process_time() - began
    ratio = sum(screens) / sum(bares)
    print(
        f"{cell.backbone:24} screen {sum(screens) / rounds:7.2f} s, bare {sum(bares) / rounds:7.2f} s: {ratio:.2f}, "
        f"by processors' seconds {busy[screened] / busy[bare]:.2f} (layout, once: {layout_seconds:.2f} s)",
        flush=True,
    )
    return screens, bares


@dataclass(frozen=True, kw_only=True)
class Given:
    """Holds what a bare pass begins with."""

    images: torch.Tensor
    """(n, 3, S, S) uint8, the training images, decoded."""
    channels_last: bool


def prepared(cell: Cell) -> tuple[Given, float]:
    """Decodes the training images, so that neither side does, and has the memory layout measured; returns about the
    seconds that the latter takes too.
    """
    plain = replace(cell, layout="contiguous")
    with alike(cell):
        split = build(plain, Settings(prefix="off")).data.train
        images = split.images.index_select(0, split.index)
        seconds = []
        for one in (plain, cell):
            began = time.perf_counter()
            built = build(one, Settings(prefix="off"))
            seconds.append(time.perf_counter() - began)
    given = Given(images=images, channels_last=built.arithmetic.channels_last)
    return given, max(0.0, seconds[1] - seconds[0])


def alike(cell: Cell) -> AbstractContextManager[Process]:
    """Returns a context with the threads and the allocator of a screen."""
    plain = Settings()
    return set_up(plain.threads, cell.precision, plain.deterministic, plain.allocator)


def screened(cell: Cell, _: Given) -> float:
    """Does what the command does with one backbone. Errors: SystemExit where that fails."""
    KEPT.forget_weights()
    began = time.perf_counter()
    ((row, _images),) = screening.screen([cell], Settings())
    if row.problem:
        sys.exit(f"{cell.backbone}: {row.problem}")
    return time.perf_counter() - began


def bare(cell: Cell, given: Given) -> float:
    """Builds the same network and runs the images through it."""
    with alike(cell):
        began = time.perf_counter()
        layout = torch.channels_last if given.channels_last else torch.contiguous_format
        network = load_backbone(cell.backbone, "random", seed=cell.seed).stages.eval().to(memory_format=layout)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
        with torch.inference_mode():
            found = [
                network(batch.to(torch.float32, memory_format=layout).div_(255).sub_(mean).div_(std))
                for batch in given.images.split(BATCH)
            ]
        torch.cat(found)
        return time.perf_counter() - began


def summary(found: list[tuple[list[float], list[float]]]) -> list[str]:
    """Returns the lines of all backbones together: sums of each round, and ratios with their interval."""
    rounds = range(len(found[0][0]))
    screens = [sum(screens[number] for screens, _ in found) for number in rounds]
    bares = [sum(bares[number] for _, bares in found) for number in rounds]
    lines = [
        f"round {number + 1}: {len(found)} screens {screens[number]:.1f} s, bare {bares[number]:.1f} s: "
        f"{screens[number] / bares[number]:.2f}"
        for number in rounds
    ]
    each = stats.geometric_mean([sum(screens) / sum(bares) for screens, bares in found])
    bounds = f" ({each.low:.2f} to {each.high:.2f})" if each.low is not None else ""
    lines.append(f"all: {sum(screens) / sum(bares):.2f} (bar {BAR}); a backbone {each.estimate:.2f}{bounds}")
    return lines


if __name__ == "__main__":
    main()
