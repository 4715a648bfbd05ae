"""Simulates what is said of accuracies: how often the interval covers, how often a decision is false, how often it is
made.

Every image has a difficulty that cells and seeds share; a cell has a taste of its own for images, and so has a seed's
model; a seed also has luck. An answer is right where their sum is positive, so the accuracy in the population of all
images and seeds is known exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tlbench.analysis.stats import Scores, accuracy_interval, against_the_best

SHARES = {"image": 0.55, "cell": 0.25, "seed": 0.20}
"""Parts of the variance of what decides an answer: the image itself, a cell's taste for it, a seed's."""
HELD_OUT = 0.15
"""Share of the pool that is drawn anew for each seed where splits are redrawn."""
POINT = 0.01
DRAWS = 2000
"""Draws behind each comparison, half as many as in a report: its quantiles are as true, only less exact."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Says what is simulated."""

    images: int
    seeds: int
    redrawn: bool
    luck: float
    """Spread of the seeds' accuracies, in points of a hundred."""
    truth: tuple[float, ...]
    """Accuracy of each cell in the population."""


def draw(world: World, rng: np.random.Generator) -> dict[str, Scores]:
    """Draws the results of a run: which images each seed of each cell classifies correctly."""
    pool = round(world.images / HELD_OUT) if world.redrawn else world.images
    difficulty = rng.standard_normal(pool) * math.sqrt(SHARES["image"])
    splits = [rng.permutation(pool)[: world.images] if world.redrawn else np.arange(pool) for _ in range(world.seeds)]
    cells = {}
    for number, accuracy in enumerate(world.truth):
        middle = float(special.ndtri(accuracy))
        density = math.exp(-(middle**2) / 2) / math.sqrt(2 * math.pi)
        luck = world.luck * POINT / density
        middle *= math.sqrt(1 + luck**2)  # so that the mean over seeds is the accuracy
        taste = difficulty + rng.standard_normal(pool) * math.sqrt(SHARES["cell"])
        correct = []
        for split in splits:
            answer = middle + luck * rng.standard_normal() + taste[split]
            answer += rng.standard_normal(world.images) * math.sqrt(SHARES["seed"])
            correct.append((answer > 0).astype(np.float64))
        cells[f"cell {number:02}"] = Scores(images=tuple(splits), correct=tuple(correct))
    return cells


def covered(world: World, worlds: int, seed: int = 0) -> float:
    """Returns the share of the intervals that hold the true accuracy, over all cells."""
    rng = np.random.default_rng(seed)
    hits = []
    for _ in range(worlds):
        for scores, truth in zip(draw(world, rng).values(), world.truth, strict=True):
            interval = accuracy_interval(scores)
            hits.append(not interval.excludes(truth))
    return float(np.mean(hits))


def decisions(world: World, worlds: int, seed: int = 0) -> dict[str, float]:
    """Returns the shares of the runs in which the leader is decided, rightly or not, is falsely decided (another is as
    good), a cell as good as the best is called behind, and a cell more than a point worse is called within one.
    """
    rng = np.random.default_rng(seed)
    best = max(world.truth)
    truth = {f"cell {n:02}": t for n, t in enumerate(world.truth)}
    equals = sum(t == best for t in world.truth)
    said = []
    for _ in range(worlds):
        ranked = against_the_best(draw(world, rng), draws=DRAWS)
        decided = all(one.standing == "behind" for one in ranked[1:])
        right = truth[ranked[0].name] == best and equals == 1
        behind = any(one.standing == "behind" and truth[one.name] == best for one in ranked)
        within = any(one.within(POINT) is True and best - truth[one.name] > POINT for one in ranked)
        near = [one.within(POINT) is True for one in ranked[1:] if best - truth[one.name] <= POINT]
        said.append((decided, decided and not right, behind, within, np.mean(near) if near else 0.0))
    names = ("decided", "false decided", "false behind", "false within", "within")
    return dict(zip(names, map(float, np.mean(said, axis=0)), strict=True))


# --- the table ------------------------------------------------------------------------------------------------


def table(
    worlds: int,
    images: Sequence[int] = (36, 153, 2485),
    seeds: Sequence[int] = (2, 3, 5, 10),
    cells: Sequence[int] = (2, 8, 20),
    luck: Sequence[float] = (0.3, 1.0, 2.0),
    accuracy: float = 0.90,
) -> Iterator[dict[str, object]]:
    """Yields a row for each number of images, of seeds, of cells, and each way of splitting: the worst over the spreads
    of the seeds. Equal cells for the coverage and for false decisions, a cell at the best and the others just beyond a
    point below it for "within".
    """
    for n, s, redrawn, k in itertools.product(images, seeds, (False, True), cells):
        found: dict[str, float] = {"coverage": 1.0, "false decided": 0.0, "false behind": 0.0, "false within": 0.0}
        for one in luck:
            world = World(images=n, seeds=s, redrawn=redrawn, luck=one, truth=(accuracy,) * k)
            beyond = World(
                images=n, seeds=s, redrawn=redrawn, luck=one, truth=(accuracy, *(accuracy - 1.001 * POINT,) * (k - 1))
            )
            equal = decisions(world, worlds)
            found["coverage"] = min(found["coverage"], covered(world, max(1, 2 * worlds // k)))
            for name in ("false decided", "false behind"):
                found[name] = max(found[name], equal[name])
            found["false within"] = max(found["false within"], decisions(beyond, worlds)["false within"])
        yield {"images": n, "seeds": s, "splits": "redrawn" if redrawn else "fixed", "cells": k, **found}


def power(worlds: int, gap: float = 0.05, images: int = 2485, seeds: int = 5) -> Iterator[dict[str, object]]:
    """Yields how often a leader that is better by ``gap`` is decided."""
    for redrawn, k, luck in itertools.product((False, True), (2, 8, 20), (0.3, 1.0, 2.0)):
        world = World(images=images, seeds=seeds, redrawn=redrawn, luck=luck, truth=(0.90, *(0.90 - gap,) * (k - 1)))
        yield {
            "splits": "redrawn" if redrawn else "fixed", "cells": k, "luck": luck,
            "power": decisions(world, worlds)["decided"],
        }  # fmt: skip


def lines(worlds: int) -> list[str]:
    """Returns the lines of both tables."""
    written: list[str] = []
    for rows in (table(worlds), power(worlds)):
        for number, row in enumerate(rows):
            if number == 0:
                written += ["", f"| {' | '.join(row)} |", f"|{'---:|' * len(row)}"]
            texts = [f"{100 * value:.1f} %" if name not in EXACT else str(value) for name, value in row.items()]
            written.append(f"| {' | '.join(texts)} |")
    return written[1:]


EXACT = ("images", "seeds", "splits", "cells", "luck")
