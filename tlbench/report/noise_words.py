"""How noisy a machine was, in words."""

from __future__ import annotations

from collections.abc import Callable

from tlbench.analysis.stats import USELESS, NoiseFloor, Prior


def noise_floor(floor: NoiseFloor | None) -> str:
    """Says in a word how noisy the machine was, how far apart identical cells come out, and what tells it."""
    if floor is None:
        return "unknown: no cell was measured twice, and no earlier run on this machine tells (--twins 3 measures some)"
    told = []
    if floor.seen is not None:
        flagged = f", {'noisy itself' if floor.n == 1 else f'{floor.noisy} of them noisy'}" if floor.noisy else ""
        told.append(f"{_pairs(floor.n)} differed by {100 * floor.seen:.1f} %{flagged}")
    if floor.prior is not None:
        told.append(PRIORS[floor.prior.source](floor.prior))
    size = f"identical cells come out up to {100 * floor.relative:.1f} % apart"
    if floor.relative > USELESS:
        size = "too noisy to compare; run again when the machine is quiet, or --blocks 3"
    return f"{floor.mood}: {size} ({'; '.join(told)})"


def _pairs(count: float) -> str:
    return "1 A/A pair" if count == 1 else f"{count:g} A/A pairs"


PRIORS: dict[str, Callable[[Prior], str]] = {
    "twins": lambda prior: f"{_pairs(prior.pairs)} of earlier runs on this machine",
    "rounds": lambda prior: "beside how rounds vary",
    "both": lambda prior: f"{_pairs(prior.pairs)} of earlier runs on this machine; beside how rounds vary",
}
"""Source of what is known before a pair is measured -> its words."""
