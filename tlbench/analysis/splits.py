"""Whether a scope's validation and test images are alike: where the accuracies of the same models on them lie further
apart than their images allow, whatever was chosen by validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tlbench.analysis.folded import folds_in
from tlbench.analysis.stats import Scores, counted, splits_differ
from tlbench.analysis.summary import Configuration
from tlbench.heads import HEADS

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
    known = [(row, pair) for row in measured if (pair := _pair(row)) is not None]
    comparisons = sum(_tries(row) for row, _ in known)
    found = []
    for row, (val, test) in known:
        one = splits_differ(val, test)
        reach = one.reach(comparisons)
        if abs(one.gap) > max(reach, LEAST):
            found.append(Unlike(row=row, gap=one.gap, reach=reach))
    return tuple(sorted(found, key=lambda one: -abs(one.gap) / one.reach))


def _pair(row: Configuration) -> tuple[Scores, Scores] | None:
    """Returns what is right of validation and of test images, for the seeds that have both; None where not even the
    images were counted.
    """
    val, test = row["scores"]["accuracy_val"], row["scores"]["accuracy_test"]
    by_seed = row["values"]["accuracy_val"], row["values"]["accuracy_test"]
    if val is not None and test is not None and list(by_seed[0]) == list(by_seed[1]):
        return val, test
    if not row["val_images"] or not row["test_images"]:
        return None
    seeds = [seed for seed in by_seed[0] if seed in by_seed[1]]
    if not seeds:
        return None
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
