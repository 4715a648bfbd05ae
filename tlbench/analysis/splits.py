"""Whether a scope's validation and test images are alike: where the accuracies of the same models on them lie further
apart than their images allow, whatever was chosen by validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlbench.analysis.folded import folds_in
from tlbench.analysis.stats import Scores, counted, splits_differ
from tlbench.analysis.summary import Configuration
from tlbench.heads import HEADS

ROUNDING = 1e-9
LEAST = 0.01
"""A gap of less than a point is not spoken of, however many images there are."""
CHOICES = 100
"""Fits among which a head that chooses by validation images is taken to have chosen: the values of C of the official
linear probe, of all heads the most."""


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """Names a configuration whose accuracy on validation images is not the one on test images."""

    row: Configuration
    gap: float
    """Validation less test accuracy."""
    reach: float
    """How far chance carries it at the most, for all configurations of the scope at once."""


def unlike_splits(rows: Sequence[Configuration]) -> tuple[Unlike, ...]:
    """Returns the configurations whose two accuracies disagree, those that are the furthest beyond chance first.

    ``rows`` are all that were trained: what is said then holds also of one that was picked for its validation accuracy.
    """
    measured = [row for row in rows if row["accuracy_val"] is not None and row["accuracy_test"] is not None]
    measured = [row for row in measured if not folds_in(row)]  # both are then cut from the same images
    known = [row for row in measured if _told(row) or _seeds(row)]
    comparisons = sum(map(_tries, known))
    found = []
    for row in known:
        if not _told(row) and _surely_near(row):
            continue
        one = splits_differ(*_pair(row))
        reach = one.reach(comparisons)
        if abs(one.gap) > max(reach, LEAST):
            found.append(Unlike(row=row, gap=one.gap, reach=reach))
    return tuple(sorted(found, key=lambda one: -abs(one.gap) / one.reach))


def _told(row: Configuration) -> bool:
    """Tells whether it is known of each image of both splits whether it is right, in the same seeds."""
    val, test = row["scores"]["accuracy_val"], row["scores"]["accuracy_test"]
    by_seed = row["values"]["accuracy_val"], row["values"]["accuracy_test"]
    return val is not None and test is not None and list(by_seed[0]) == list(by_seed[1])


def _seeds(row: Configuration) -> list[Any]:
    """Returns the seeds that have both accuracies; none where not even the images were counted."""
    counted = row["val_images"] and row["test_images"]
    return [seed for seed in row["values"]["accuracy_val"] if counted and seed in row["values"]["accuracy_test"]]


def _surely_near(row: Configuration) -> bool:
    """Tells whether the accuracies of a configuration lie so near to each other that no chance need be looked at."""
    val, test, seeds = row["values"]["accuracy_val"], row["values"]["accuracy_test"], _seeds(row)
    gap: float = sum(val[seed] - test[seed] for seed in seeds) / len(seeds)
    return abs(gap) < LEAST - ROUNDING


def _pair(row: Configuration) -> tuple[Scores, Scores]:
    """Returns what is right of validation and of test images, for the seeds that have both."""
    if _told(row):
        return row["scores"]["accuracy_val"], row["scores"]["accuracy_test"]
    by_seed, seeds = (row["values"]["accuracy_val"], row["values"]["accuracy_test"]), _seeds(row)
    # Only how many are right is known: as if each seed had the same ones right.
    return (
        counted([by_seed[0][seed] for seed in seeds], row["val_images"], 0),
        counted([by_seed[1][seed] for seed in seeds], row["test_images"], row["val_images"]),
    )


def _tries(row: Configuration) -> int:
    """Counts the models among which validation images chose this one."""
    head = HEADS.get(str(row["head"]).partition("@")[0])
    chosen = CHOICES if head is not None and head.chooses else 1
    return chosen * max(1, row["lr_trials"] or 1) * max(1, math.ceil(row["epochs_used"] or 1))
