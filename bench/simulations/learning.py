"""Simulates who is said to have learned nothing: how often a cell that knows nothing passes for one that learned, and
how often one that learned something is set aside.

Images and seeds are those of `simulations.accuracy`. The cell that knows nothing is the worst of its kind: as often
right as always naming the most frequent class, by another answer for each image and seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from simulations.accuracy import World, draw
from tlbench.analysis.averages import IMAGES_AND_SEEDS
from tlbench.analysis.learning import learned_nothing
from tlbench.analysis.stats import accuracy_interval

GAINS = (0.05, 0.10, 0.20)
"""How much more often right than the most frequent class a cell is that learned something."""


def set_aside(images: int, seeds: int, majority: float, accuracy: float, trials: int) -> float:
    """Returns the share of the runs in which a cell of a true accuracy is said to have learned nothing."""
    rng = np.random.default_rng(0)
    world = World(images=images, seeds=seeds, redrawn=False, luck=1.0, truth=(accuracy,))
    return float(np.mean([learned_nothing(_row(draw(world, rng)["cell 00"], majority)) for _ in range(trials)]))


def _row(scores: Any, majority: float) -> dict[str, Any]:
    """Returns what the rule reads of a configuration, as a summary of records has it."""
    right = {str(seed): float(np.mean(one)) for seed, one in enumerate(scores.correct)}
    several = len(right) > 1
    return {
        "task": "train",
        "majority_share_val": majority,
        "accuracy_val": float(np.mean(list(right.values()))),
        "accuracy_val_low": accuracy_interval(scores).low if several else None,
        "accuracy_over": IMAGES_AND_SEEDS if several else None,
        "val_images": len(scores.correct[0]),
        "values": {"accuracy_val": right},
    }


def table(
    trials: int,
    images: Sequence[int] = (20, 36, 153, 1000),
    seeds: Sequence[int] = (1, 2, 3, 5),
    majorities: Sequence[float] = (0.1, 0.5, 0.8),
) -> Iterator[dict[str, object]]:
    """Yields a row for each share of the most frequent class, each number of images and of seeds."""
    for majority, n, s in itertools.product(majorities, images, seeds):
        row: dict[str, object] = {"most frequent class": f"{100 * majority:.0f} %", "images": n, "seeds": s}
        row["knows nothing, but passes"] = 1 - set_aside(n, s, majority, majority, trials)
        for gain in GAINS:
            better = min(majority + gain, 0.98)  # nothing is more accurate than all
            row[f"{100 * gain:.0f} points better, set aside"] = set_aside(n, s, majority, better, trials)
        yield row


def lines(trials: int) -> list[str]:
    """Returns the lines of the table."""
    written: list[str] = []
    for number, row in enumerate(table(trials)):
        if number == 0:
            written += [f"| {' | '.join(row)} |", f"|{'---:|' * len(row)}"]
        texts = [f"{100 * value:.1f} %" if isinstance(value, float) else str(value) for value in row.values()]
        written.append(f"| {' | '.join(texts)} |")
    return written
