"""Simulates what is said of where two curves over the training size cross: how often the interval holds the true place,
how often a crossing is said where there is none, or one is said to lead throughout that does not.

Images, seeds, tastes and luck are those of `simulations.accuracy`, where each policy at each size is a cell of its own.
The true curves are straight between sizes over the logarithm of the size, or bend there (``bent``), as real ones do:
then the lines through the sizes that were measured cross at another place than the curves, which no interval knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simulations.accuracy import World, draw
from tlbench.analysis.stats import Crossed, crossing

SIZES = (50.0, 100.0, 200.0, 400.0)
FEWER = 1000
"""Draws behind each comparison, a quarter of a report's: its quantiles are as true, only less exact."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Says how accurate two policies are at each of `SIZES`, and where they cross; None where they do not."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    crosses_at: float | None


def straight(steep: float, at: float = 150.0, middle: float = 0.85) -> Truth:
    """Returns two curves that cross at a size; their difference grows by ``steep`` with each doubling of it."""
    doublings = np.log2(np.array(SIZES) / at)
    first, second = middle + 0.01 * doublings, middle + (0.01 + steep) * doublings
    return Truth(first=tuple(first.tolist()), second=tuple(second.tolist()), crosses_at=at)


def bent(steep: float, at: float = 150.0, middle: float = 0.85) -> Truth:
    """Returns the same, where the second one's error falls ever more slowly: a power of the size."""
    sizes = np.array(SIZES)
    power = np.log2(1 / (1 - steep / (1 - middle)))
    second = 1 - (1 - middle) * (sizes / at) ** -power
    first = np.full(len(sizes), middle)
    return Truth(first=tuple(first.tolist()), second=tuple(second.tolist()), crosses_at=at)


def apart(gap: float, accuracy: float = 0.85) -> Truth:
    """Returns two curves of which the second is better by ``gap`` everywhere; with 0 they are the same."""
    first = accuracy + 0.01 * np.log2(np.array(SIZES) / SIZES[0])
    return Truth(first=tuple(first.tolist()), second=tuple((first + gap).tolist()), crosses_at=None)


def said(truth: Truth, images: int, seeds: int, luck: float, trials: int, redrawn: bool = False) -> list[Crossed]:
    """Returns what is said in so many simulated runs."""
    rng = np.random.default_rng(0)
    world = World(images=images, seeds=seeds, redrawn=redrawn, luck=luck, truth=(*truth.first, *truth.second))
    found = []
    for _ in range(trials):
        scores = list(draw(world, rng).values())
        found.append(crossing(SIZES, scores[: len(SIZES)], scores[len(SIZES) :], draws=FEWER))
    return found


def shares(truth: Truth, found: Sequence[Crossed]) -> dict[str, float]:
    """Returns the shares of the runs in which a crossing is said; of these, in which the interval holds the true one;
    in which something false is said: a crossing of curves that have none, a place that is left out, a leader that does
    not lead; and in which the true place is left out of the sizes at which both may be level.
    """
    crosses = [one for one in found if one.outcome == "crosses"]
    at = truth.crosses_at
    holds = [at is not None and one.low <= at <= one.high for one in crosses]  # type: ignore[operator]
    better = int(np.sign(truth.first[0] - truth.second[0])) if at is None else 0
    leads = [one for one in found if one.outcome == "one leads" and one.at_first != better]
    result = {
        "said to cross": len(crosses) / len(found),
        "holds the place": float(np.mean(holds)) if holds else float("nan"),
        "false": (holds.count(False) + len(leads)) / len(found),
    }
    if at is not None:
        known = [one.level_from is not None and one.level_from <= at <= one.level_to for one in found]  # type: ignore[operator]
        result["may be level at the place"] = float(np.mean(known))
    return result


# --- the table ------------------------------------------------------------------------------------------------

TRUTHS = {
    "cross, 6 points a doubling": straight(0.06),
    "cross, 3 points a doubling": straight(0.03),
    "cross, bent, 4 points": bent(0.04),
    "the same everywhere": apart(0.0),
    "2 points apart everywhere": apart(0.02),
}


def table(
    trials: int,
    images: Sequence[int] = (153, 2485),
    seeds: Sequence[int] = (2, 3, 5),
    luck: Sequence[float] = (0.3, 1.0, 2.0),
) -> Iterator[dict[str, object]]:
    """Yields a row for each truth, each number of images and of seeds: the worst over the spreads of the seeds and over
    fixed and redrawn splits.
    """
    for (name, truth), n, s in itertools.product(TRUTHS.items(), images, seeds):
        each = [
            shares(truth, said(truth, n, s, one, trials, redrawn))
            for one, redrawn in itertools.product(luck, (False, True))
        ]
        row: dict[str, object] = {"truth": name, "images": n, "seeds": s}
        row["said to cross"] = min(one["said to cross"] for one in each)
        if truth.crosses_at is not None:
            row["may be level at the place"] = min(one["may be level at the place"] for one in each)
        row["false"] = max(one["false"] for one in each)
        yield row


HEADINGS = ("truth", "images", "seeds", "said to cross", "may be level at the place", "false")


def lines(trials: int) -> list[str]:
    """Returns the lines of the table."""
    written = [f"| {' | '.join(HEADINGS)} |", f"|{'---:|' * len(HEADINGS)}"]
    for row in table(trials):
        values = [row.get(name, "") for name in HEADINGS]
        texts = [f"{100 * value:.1f} %" if isinstance(value, float) else str(value) for value in values]
        written.append(f"| {' | '.join(texts)} |")
    return written
