"""How noisy a machine was, in words: quiet, noisy or unknown, what that means for times, and what to do."""

from __future__ import annotations

from collections.abc import Callable

from tlbench.analysis.stats import USELESS, NoiseFloor, Prior
from tlbench.analysis.verdict import Scope

QUIETER = "run again while nothing else runs, or with --blocks 3"


ALONE = "--exclusive gives each cell its node to itself"


def of_scope(scope: Scope) -> str:
    """Says how noisy the machine of a scope was; where cells had neighbours on it, what would have kept these away."""
    return noise_floor(scope.floor, any(item.shares_node for row in scope.rows for item in row["group"]))


def noise_floor(floor: NoiseFloor | None, shared: bool = False) -> str:
    """Says in a word how noisy the machine was, what that means for times, what to do, and what tells it. ``shared``:
    cells of the run may have had neighbours there.
    """
    if floor is None:
        hint = ALONE if shared else "--twins 3 measures three of them again"
        return (
            "unknown: no cell was measured twice, and no earlier run on this machine tells how far apart equal cells "
            f"come out ({hint})"
        )
    told = []
    if floor.seen is not None:
        flagged = f", {'noisy itself' if floor.n == 1 else f'{floor.noisy} of them noisy'}" if floor.noisy else ""
        apart = f"{100 * floor.seen:.1f} %" if floor.seen <= USELESS else "more than 100 %"
        told.append(f"{_pairs(floor.n)} differed by {apart}{flagged}")
    if floor.prior is not None:
        told.append(PRIORS[floor.prior.source](floor.prior))
    if floor.relative > USELESS:
        means = "too noisy to say from times which cell is faster"
    else:
        means = f"a cell measured twice comes out up to {100 * floor.relative:.1f} % apart, so less says nothing"
    advice = "" if floor.mood == "quiet" else f"; {ALONE if shared else QUIETER}"
    return f"{floor.mood}: {means}{advice} ({'; '.join(told)})"


def _pairs(count: float) -> str:
    return "1 pair of equal cells" if count == 1 else f"{count:g} pairs of equal cells"


PRIORS: dict[str, Callable[[Prior], str]] = {
    "twins": lambda prior: f"{_pairs(prior.pairs)} in earlier runs on this machine",
    "rounds": lambda prior: "the spread of each cell's rounds counts as well",
    "both": lambda prior: (
        f"{_pairs(prior.pairs)} in earlier runs on this machine; the spread of each cell's rounds counts as well"
    ),
}
"""Source of what is known before a pair is measured -> its words."""
