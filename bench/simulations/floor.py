"""The noise floor: how often a further pair of identical cells stays within it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis import stats

KINDS = ("normal", "drifting", "contaminated", "one-sided")
PAIRS = (1, 2, 3, 5)
CELL_NOISE = 0.03
"""Standard deviation of a cell's log time."""
EARLIER = 20
"""Pairs of earlier runs that the prior is learnt from."""

Floats = NDArray[np.float64]


def noise(kind: str, rng: np.random.Generator, shape: tuple[int, ...], sd: float = CELL_NOISE) -> Floats:
    """Draws log times of identical cells: contaminated noise is four times as wide in a fifth of the cells, one-sided
    noise slows a fifth of them down.
    """
    drawn = rng.normal(0, sd, shape)
    if kind == "contaminated":
        drawn *= np.where(rng.random(shape) < 0.2, 4, 1)
    if kind == "one-sided":
        drawn += np.where(rng.random(shape) < 0.2, rng.exponential(4 * sd, shape), 0)
    return drawn


def pairs_of(kind: str, rng: np.random.Generator, runs: int, pairs: int, sd: float = CELL_NOISE) -> Floats:
    """Draws log ratios (runs, pairs). Drifting: those of a run lie apart in a block whose speed changes steadily."""
    drawn = noise(kind, rng, (runs, pairs), sd) - noise(kind, rng, (runs, pairs), sd)
    if kind == "drifting":
        drawn += rng.normal(0, 2 * sd, (runs, 1)) * rng.random((runs, pairs))
    return drawn


def coverage(kind: str, pairs: int, trials: int, seed: int = 0) -> tuple[float, float]:
    """Returns how often a further pair stays within the floor of ``pairs``, and the median floor.

    Each trial is a machine of its own: its prior is learnt from `EARLIER` pairs, each of a run of its own.
    """
    rng = np.random.default_rng([seed, pairs, KINDS.index(kind)])
    floors, within = [], 0
    for _ in range(trials):
        earlier = pairs_of(kind, rng, EARLIER, 1)
        prior = stats.Prior(log_sd=float(np.sqrt(np.mean(earlier**2))), freedom=EARLIER)
        *seen, further = pairs_of(kind, rng, 1, pairs + 1)[0]
        floor = stats.noise_floor(np.exp(seen), 1, prior=prior).relative
        floors.append(floor)
        within += abs(further) <= np.log1p(floor)
    return within / trials, float(np.median(floors))


def table(trials: int) -> list[str]:
    """Returns the lines of a table: kind of noise, pairs, coverage, median floor."""
    lines = ["| noise | pairs | further pair within the floor | median floor |", "|---|---|---|---|"]
    for kind in KINDS:
        for pairs in PAIRS:
            covered, median = coverage(kind, pairs, trials)
            lines.append(f"| {kind} | {pairs} | {100 * covered:.1f} % | {100 * median:.1f} % |")
    return lines
