"""Simulates who is said to have validation and test images that are not alike: how often falsely, where both are drawn
from the same images, and how often rightly, where they are not.

Images, cells and seeds are those of `simulations.accuracy`. The cells of a run see the same images; one of them is
picked for its validation accuracy, as a verdict does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from simulations.accuracy import POINT, SHARES
from tlbench.analysis.splits import LEAST
from tlbench.analysis.stats import Scores, splits_differ


@dataclass(frozen=True, kw_only=True)
class World:
    """Says what is simulated."""

    val: int
    """Images to validate on."""
    test: int
    seeds: int
    cells: int
    accuracy: float = 0.90
    gap: float = 0.0
    """How much more accurate all cells are on validation images, in the population."""
    redrawn: bool = False
    """Each seed draws both splits anew from one pool; else both are fixed."""
    luck: float = 1.0
    """Spread of the seeds' accuracies, in points of a hundred."""


def draw(world: World, rng: np.random.Generator) -> list[tuple[Scores, Scores]]:
    """Draws a run: for each cell which validation and which test images every seed has right."""
    both = world.val + world.test
    pool = 3 * both if world.redrawn else both
    difficulty = rng.standard_normal(pool) * math.sqrt(SHARES["image"])
    orders = [rng.permutation(pool)[:both] if world.redrawn else np.arange(both) for _ in range(world.seeds)]
    middle = {part: special.ndtri(world.accuracy + more) for part, more in (("val", world.gap), ("test", 0.0))}
    middles = np.concatenate([np.full(world.val, middle["val"]), np.full(world.test, middle["test"])])
    density = math.exp(-(special.ndtri(world.accuracy) ** 2) / 2) / math.sqrt(2 * math.pi)
    luck = world.luck * POINT / density
    cells = []
    for _ in range(world.cells):
        taste = difficulty + rng.standard_normal(pool) * math.sqrt(SHARES["cell"])
        right = []
        for order in orders:
            answer = middles * math.sqrt(1 + luck**2) + luck * rng.standard_normal() + taste[order]
            right.append(answer + rng.standard_normal(both) * math.sqrt(SHARES["seed"]) > 0)
        parts = (slice(None, world.val), slice(world.val, None))
        val, test = (
            Scores(images=tuple(order[part] for order in orders), correct=tuple(one[part] for one in right))
            for part in parts
        )
        cells.append((val, test))
    return cells


def said(world: World, trials: int, seed: int = 0) -> float:
    """Returns the share of the runs of which it is said, of any cell, that validation and test are not alike."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        gaps = [splits_differ(val, test) for val, test in draw(world, rng)]
        found.append(any(abs(one.gap) > max(one.reach(world.cells), LEAST) for one in gaps))
    return float(np.mean(found))


def table(
    trials: int,
    sizes: Sequence[tuple[int, int]] = ((36, 153), (150, 150), (400, 2485), (2485, 2485)),
    seeds: Sequence[int] = (1, 3, 5),
    cells: Sequence[int] = (1, 8, 24),
) -> Iterator[dict[str, object]]:
    """Yields a row for each size of both splits, number of seeds and of cells: falsely said, the worst over accuracies
    and ways of splitting; and said where validation is 5 and 20 points easier.
    """
    for (val, test), s, k in itertools.product(sizes, seeds, cells):
        alike = [
            said(World(val=val, test=test, seeds=s, cells=k, accuracy=accuracy, redrawn=redrawn), trials)
            for accuracy in (0.7, 0.9, 0.98)
            for redrawn in (False, True)
        ]
        unlike = [
            said(World(val=val, test=test, seeds=s, cells=k, accuracy=0.75, gap=gap), trials) for gap in (0.05, 0.2)
        ]
        yield {
            "validation": val, "test": test, "seeds": s, "cells": k, "alike, but said": max(alike),
            "5 points apart, and said": unlike[0], "20 points apart, and said": unlike[1],
        }  # fmt: skip


def lines(trials: int) -> list[str]:
    """Returns the lines of the table."""
    written: list[str] = []
    for number, row in enumerate(table(trials)):
        if number == 0:
            written += [f"| {' | '.join(row)} |", f"|{'---:|' * len(row)}"]
        texts = [f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}" for value in row.values()]
        written.append(f"| {' | '.join(texts)} |")
    return written
