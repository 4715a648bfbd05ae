"""Where two curves of accuracy over the number of training images cross, with the interval that images and seeds leave.

A curve is known at a few sizes only and drawn as straight lines between them, over the logarithm of the size. What is
asked is where the lines through the true accuracies, of all images and seeds, cross. A size belongs to the interval
exactly where the difference of the two lines at that size cannot be told from 0: wherever the true crossing is, it is
left out with the probability of that one comparison, 5 in 100 (Fieller 1954).
The variances are those of `tlbench.analysis.stats.accuracy`: test images are paired, and the seeds' own spread, which 2
or 3 seeds hardly tell, is averaged over. Seeds of two curves count as unrelated, though they share training images:
what is claimed from that is claimed with more caution than need be.

How often it is true is simulated in ``bench/simulations/crossing.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlbench.analysis.stats.accuracy import PSEUDO, Scores, parts_of, spreads_of
from tlbench.analysis.stats.best import DRAWS, beyond, draw
from tlbench.analysis.stats.student import CONFIDENCE, Floats

PLACES = 200
"""Sizes between the smallest and the largest at which the two are compared."""
Outcome = Literal["crosses", "one leads", "cannot say"]


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """Says where the first of two curves and the second cross."""

    outcome: Outcome
    """``crosses``: each is ahead of the other beyond chance at one end; ``one leads``: the same one is ahead beyond
    chance at every size; ``cannot say``: neither, or a curve with one seed."""
    at_first: int
    """Which is ahead beyond chance at the smallest size: 1 the first curve, -1 the second, 0 neither."""
    at_last: int
    """The same at the largest size."""
    seeds: int
    """The fewest seeds of any point: with one nothing can be said."""
    size: float | None = None
    """Training images at which the lines through what was measured cross; None unless they do so beyond chance."""
    low: float | None = None
    high: float | None = None
    accuracy: float | None = None
    """Accuracy of both there."""
    level_from: float | None = None
    """The smallest size at which they may be level, and the largest; None where there is none, or nothing is known."""
    level_to: float | None = None


def crossing(
    sizes: Sequence[float],
    first: Sequence[Scores],
    second: Sequence[Scores],
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
) -> Crossed:
    """Returns where two curves cross, of which each has results at the same two or more sizes, the smallest first.

    Errors: ValueError for sizes that do not grow, or fewer than two.
    """
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    if len(logs) < 2 or len(first) != len(logs) or len(second) != len(logs) or not np.all(np.diff(logs) > 0):
        raise ValueError("need two or more sizes that grow, and results of both curves at each")
    seeds = min(len(one.images) for one in (*first, *second))
    if seeds < 2:
        return Crossed(outcome="cannot say", at_first=0, at_last=0, seeds=seeds)
    count = len(logs)
    parts = parts_of([*first, *second])
    spreads, weights = spreads_of(parts)
    images = parts.images + np.diag(PSEUDO / parts.effective**2)
    drawn = draw(images, spreads / np.sqrt(parts.seeds)[:, None], weights, draws)
    gaps, chance = parts.means[:count] - parts.means[count:], drawn[:, :count] - drawn[:, count:]
    crossed = _zeros(logs, gaps)
    places = np.unique(np.concatenate([np.linspace(logs[0], logs[-1], PLACES), logs, crossed]))
    between = _lines(logs, places)
    apart, reach = gaps @ between, beyond(np.abs(chance @ between), confidence)
    level = np.flatnonzero(np.abs(apart) <= reach)
    ends = [0 if np.abs(apart[n]) <= reach[n] else int(np.sign(apart[n])) for n in (0, -1)]
    if not level.size:
        return Crossed(outcome="one leads", at_first=ends[0], at_last=ends[1], seeds=seeds)
    # A step further on either side: the places lie apart.
    low, high = (float(np.exp(places[n])) for n in (max(level[0] - 1, 0), min(level[-1] + 1, places.size - 1)))
    found = Crossed(outcome="cannot say", at_first=ends[0], at_last=ends[1], seeds=seeds, level_from=low, level_to=high)
    if ends[0] * ends[1] >= 0:
        return found
    middle = float(crossed[crossed.size // 2])  # of a difference that changes its sign several times
    return Crossed(
        outcome="crosses", at_first=ends[0], at_last=ends[1], seeds=seeds, size=float(np.exp(middle)),
        low=low, high=high, accuracy=float(np.interp(middle, logs, parts.means[:count])), level_from=low, level_to=high,
    )  # fmt: skip


def _zeros(logs: Floats, gaps: Floats) -> Floats:
    """Returns where lines through differences (m,) change their sign, from left to right; of several that are 0 in
    between, the middle.
    """
    found, known = [], np.flatnonzero(gaps)
    for before, after in itertools.pairwise(known.tolist()):
        if gaps[before] * gaps[after] > 0:
            continue
        if after == before + 1:
            share = gaps[before] / (gaps[before] - gaps[after])
            found.append(logs[before] + (logs[after] - logs[before]) * share)
        else:
            found.append(logs[before + 1 : after].mean())
    return np.array(found)


def _lines(logs: Floats, places: Floats) -> Floats:
    """Returns what each of m points counts on the straight lines between them, at places (P,): (m, P)."""
    return np.array([np.interp(places, logs, row) for row in np.eye(len(logs))])
