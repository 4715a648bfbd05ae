"""Figures of single images over the folds of a cross-validation: of all images together, as if of one split. A mean
over folds is another thing: of a class with one image in a fold, of bins with three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from tlbench.analysis.figures import Row, column
from tlbench.analysis.folded import fold_number
from tlbench.analysis.image_figures import COMPUTED, fits
from tlbench.analysis.scores import SPLITS, Numbers
from tlbench.records.images import SplitResults


def of_folds(good: Sequence[Row], numbers: Numbers) -> dict[str, dict[int, float]]:
    """Returns by figure (``ece_test``) and seed what all folds of the seed come to together; nothing without folds. A
    figure that some fold cannot tell is left out.
    """
    if not any(column(good, "fold")):
        return {}
    found: dict[str, dict[int, float]] = {}
    for split in SPLITS.values():
        by_seed: dict[int, dict[int, SplitResults | None]] = {}
        for item in good:
            per_image = numbers.results(item)
            results = per_image.split(split) if per_image is not None else None
            told = results is not None and fits(results, item[f"accuracy_{split}"])
            by_seed.setdefault(item.seed, {}).setdefault(fold_number(item), results if told else None)
        for seed, folds in by_seed.items():
            for name, value in _together([folds[fold] for fold in sorted(folds)]).items():
                found.setdefault(f"{name}_{split}", {})[seed] = value
    return {name: of_seeds for name, of_seeds in found.items() if len(of_seeds) == len({item.seed for item in good})}


def means(of_seeds: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Returns the mean of each figure over seeds."""
    return {name: fmean(values.values()) for name, values in of_seeds.items()}


def _together(parts: Sequence[SplitResults | None]) -> dict[str, float]:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return {}
    logits = [part.logits for part in known if part.logits is not None]
    whole = SplitResults(
        images=np.concatenate([part.images for part in known]),
        labels=np.concatenate([part.labels for part in known]),
        predictions=np.concatenate([part.predictions for part in known]),
        logits=np.concatenate(logits) if len(logits) == len(known) else None,
        classes=known[0].classes,
    )
    figures: dict[str, Any] = dict(COMPUTED["predictions"](whole))
    if whole.logits is not None:
        figures |= COMPUTED["logits"](whole)
    return {name: value for name, value in figures.items() if isinstance(value, float)}
