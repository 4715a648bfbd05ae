"""What becomes of folds where a configuration's records are put together: all folds of a seed are one measurement, in
which every image is tested once. A fold is no seed: it repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tlbench.analysis.figures import Row, column
from tlbench.grid.folding import fold_of

IMAGES_OF = {"accuracy_val": "val_images", "accuracy_test": "test_images"}
"""Accuracy -> the number of images that it is of."""
OTHERS = {"accuracy_corrupted": "test_images", "loss_test": "test_images"}
COUNTED_BY = {**IMAGES_OF, **OTHERS}
"""What is averaged over folds by images -> the number of these."""


def fold_number(item: Row) -> int:
    """Returns the number of the fold that a row was tested on, from 1; 0 without folds."""
    return fold_of(item.fold)[0] if item.fold else 0


def folds_in(row: Mapping[str, Any]) -> int:
    """Returns how many folds a configuration has; 0 for none."""
    return next((fold_of(item.fold)[1] for item in row["group"] if item.fold), 0)


def images_of(row: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Returns the fewest and the most images of a split (``val_images``) over the records that a configuration's
    accuracy is of; seeds may have splits of their own. Of folds, all that are tested on together, and all that are
    validated on, are one split. Zeros where it is not known.
    """
    items = [item for item in row["group"] if item[name] and (item.status == "ok" or not row["records_ok"])]
    counts = [item[name] for item in items]
    if name != "train_images" and any(item.fold for item in items):
        counts = list(over_folds(items, name).values())
    return min(counts, default=0), max(counts, default=0)


def over_folds(items: Iterable[Row], name: str) -> dict[int, int]:
    """Returns for each seed the images of a split, over all of its folds."""
    counts: dict[int, dict[str | None, int]] = {}
    for item in items:
        if item[name]:
            counts.setdefault(item.seed, {})[item.fold] = item[name]
    return {seed: sum(of_folds.values()) for seed, of_folds in counts.items()}


def totals(good: Sequence[Row]) -> dict[str, int]:
    """Returns how many images the folds of a seed are tested on, and validate on; nothing without folds."""
    if not any(column(good, "fold")):
        return {}
    found = {name: over_folds(good, name) for name in IMAGES_OF.values()}
    return {name: next(iter(counts.values())) for name, counts in found.items() if counts}


def by_seed(good: Sequence[Row], name: str) -> dict[Any, float] | None:
    """Returns an accuracy of each seed, of which each image of each fold counts alike; None without folds."""
    count = COUNTED_BY.get(name, "")
    if not any(item.fold for item in good):
        return None
    found: dict[Any, list[tuple[float, int]]] = {}
    for item in good:
        if item[name] is not None:
            found.setdefault(item.seed, []).append((item[name], (item[count] if count else None) or 1))
    return {
        seed: sum(value * n for value, n in each) / sum(n for _, n in each) if count else fmean(v for v, _ in each)
        for seed, each in found.items()
    }
