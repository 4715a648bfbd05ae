"""Figures of a record that come from its results on single images: computed once, when one of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tlbench.analysis.record_source import Source

if TYPE_CHECKING:
    from tlbench.records.images import SplitResults

NOTHING: Mapping[str, Any] = {}
ROUNDING = 1e-9
"""How far the accuracy of single images may be from that of the record that they belong to."""


def of_predictions(name: str, split: str) -> Callable[[Source], Any]:
    """Returns the reader of a figure that the predictions tell; None where the record has no results on the split."""
    return _of_images(name, split, "predictions")


def of_logits(name: str, split: str) -> Callable[[Source], Any]:
    """Returns the reader of a figure that takes logits; None where the record has none."""
    return _of_images(name, split, "logits")


READERS_OF_IMAGES: set[Callable[[Source], Any]] = set()
"""All readers of such figures: a record without results on single images has none of them."""


def _of_images(name: str, split: str, what: str) -> Callable[[Source], Any]:
    def read(source: Source) -> Any:
        return _known(source, split, what).get(name)

    READERS_OF_IMAGES.add(read)
    return read


def fits(results: SplitResults, accuracy: float | None) -> bool:
    """Tells whether results on single images are those that an accuracy was taken from."""
    return accuracy is not None and abs(float(results.correct.mean()) - accuracy) <= ROUNDING


def _known(source: Source, split: str, what: str) -> Mapping[str, Any]:
    if source.record.per_image is None:
        return NOTHING
    if source.of_images is None:
        source.of_images = {}
    kept = source.of_images
    if (split, what) not in kept:
        results = results_of(source, split, logits=what == "logits")
        kept[split, what] = {} if results is None else COMPUTED[what](results)
    return kept[split, what]


def results_of(source: Source, split: str, logits: bool = False) -> SplitResults | None:
    """Returns the results of a record on a split; None where there are none that fit its accuracy, or without the
    logits that are wanted.
    """
    per_image = source.record.per_image
    results: SplitResults | None = per_image.split(split, logits) if per_image is not None else None
    if results is None or not fits(results, getattr(source.record, f"accuracy_{split}")):
        return None
    return None if logits and results.logits is None else results


def _of_predictions(results: SplitResults) -> dict[str, Any]:
    import numpy as np

    from tlbench.analysis.metrics import by_class, confusion_matrix

    found = by_class(confusion_matrix(results.labels, results.predictions, len(results.classes)))
    # Of equally bad classes the one with more images, which is bad for more of them.
    worst = int(np.lexsort((-found.images, np.where(found.images > 0, found.recall, np.inf)))[0])
    return {
        "balanced_accuracy": float(np.nanmean(found.recall)),
        "macro_f1": float(np.nanmean(found.f1)),
        "worst_class": results.classes[worst] if results.classes else str(worst),
        "worst_class_accuracy": float(found.recall[worst]),
    }


def _of_logits(results: SplitResults) -> dict[str, Any]:
    from tlbench.analysis.metrics import TOP, calibration_error, negative_log_likelihood, top_accuracy

    assert results.logits is not None
    return {
        # Of five classes or fewer the right one is always among five.
        "top5_accuracy": top_accuracy(results.labels, results.logits) if results.logits.shape[1] > TOP else None,
        "nll": negative_log_likelihood(results.labels, results.logits),
        "ece": calibration_error(results.labels, results.logits),
    }


COMPUTED: Mapping[str, Callable[[Any], dict[str, Any]]] = {"predictions": _of_predictions, "logits": _of_logits}
"""What figures are computed from -> function that computes all of them."""
