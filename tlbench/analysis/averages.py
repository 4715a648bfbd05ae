"""Averages of a configuration's records over seeds or blocks, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tlbench.analysis.figures import FIGURES
from tlbench.analysis.metrics import ACCURACY, DECIDING
from tlbench.analysis.scores import SPLITS

if TYPE_CHECKING:
    from tlbench.analysis.stats import Scores

IMAGES_AND_SEEDS, IMAGES_AND_FOLDS, SEEDS_ONLY = "images and seeds", "images and folds", "seeds only"
OVER_IMAGES = (IMAGES_AND_SEEDS, IMAGES_AND_FOLDS)
ACCURACIES = [name for name, figure in FIGURES.items() if figure.average == "seeds"]
"""Figures that are averaged over seeds."""
JUDGED = tuple(name for metric in DECIDING.values() if metric.name != ACCURACY for name in (metric.val, metric.test))
"""Those of the metrics that can decide beside accuracy."""


def intervals(
    values: Mapping[str, Mapping[Any, float]], scores: Mapping[str, Scores | None], test_images: int | None
) -> dict[str, Any]:
    """Returns the columns of averages with the ends of their intervals, of ``values`` by figure and unit; ``scores``
    are what is known of single images, by figure.
    """
    from tlbench.analysis import stats

    columns: dict[str, Any] = {}
    told = [scores[name] is not None for name in SPLITS if len(values[name]) > 1]
    in_folds = {name for name, known in scores.items() if known is not None and known.folds is not None}
    columns["accuracy_over"] = (IMAGES_AND_SEEDS if all(told) else SEEDS_ONLY) if told else None
    if in_folds and not told:
        columns["accuracy_over"] = IMAGES_AND_FOLDS
    for name, by_unit in values.items():
        numbers = list(by_unit.values())
        low = high = middle = None
        known = scores.get(name) if name in JUDGED or columns["accuracy_over"] in OVER_IMAGES else None
        if len(numbers) == 1 and name not in in_folds:
            middle = numbers[0]
        elif numbers and name in JUDGED and known is None:
            middle = fmean(numbers)  # what seeds alone leave would be no interval of it
        elif numbers:
            if known is not None:
                interval = stats.accuracy_interval(known)
            else:
                interval = (stats.mean_interval if name in ACCURACIES else stats.log_interval)(numbers)
            middle, low, high = interval.estimate, interval.low, interval.high
            if name in ACCURACIES and low is not None and high is not None:  # Student's t knows no bounds
                low, high = max(0.0, low), min(1.0, high)
        columns |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    accuracy = columns["accuracy_test"]
    wilson = stats.wilson(round(accuracy * test_images), test_images) if accuracy is not None and test_images else None
    columns["accuracy_test_wilson_low"] = wilson and wilson.low
    columns["accuracy_test_wilson_high"] = wilson and wilson.high
    return columns
