"""More than accuracy: what is computed from the labels, predictions and logits of a split's images. Needs numpy alone.

Formulas and sources are in docs/metrics.md. Everything equals scikit-learn's and torchmetrics' functions of the same
names. Of predictions: per-class accuracy (recall), precision and F1, balanced accuracy, macro F1, the confusion matrix;
of logits: top-k accuracy, the negative log-likelihood (NLL) and the expected calibration error (ECE).

Accuracy, balanced accuracy and macro F1 can decide a verdict (`DECIDING`). For that each is written as a mean over
images (`Judged`), so that intervals and comparisons over images and seeds, which are made for means, hold for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[Any]
"""(n,) whole numbers: the class of each image."""
Matrix = NDArray[np.int64]
"""(K, K) numbers of images: rows are true classes, columns predicted ones."""

BINS = 15
"""Bins of the expected calibration error, of equal width (Guo et al. 2017)."""
TOP = 5


# --- of predictions -------------------------------------------------------------------------------------------


def confusion_matrix(labels: Classes, predictions: Classes, classes: int = 0) -> Matrix:
    """Returns how many images of each class (row) were said to be of each (column), (K, K); K is ``classes``, or more
    where a label or a prediction is beyond it.
    """
    true, said = labels.astype(np.int64), predictions.astype(np.int64)
    count = max(classes, int(true.max(initial=-1)) + 1, int(said.max(initial=-1)) + 1)
    return np.bincount(true * count + said, minlength=count * count).reshape(count, count)


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClass:
    """Holds the figures of each class, (K,); nan where a class has none."""

    images: NDArray[np.int64]
    """Images of the class."""
    right: NDArray[np.int64]
    """Of these, those that were said to be of it."""
    recall: Floats
    """The accuracy on its images; nan for a class without any."""
    precision: Floats
    """The share of the images said to be of it that are; 0 where none were."""
    f1: Floats
    """Harmonic mean of both; nan where the class has no images and none were said to be of it."""


def by_class(matrix: Matrix) -> ByClass:
    """Returns the figures of each class of a confusion matrix."""
    right, images, said = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, f1 = right / images, 2 * right / (images + said)
        precision = np.where(said > 0, right / said, 0.0)
    return ByClass(images=images, right=right, recall=recall, precision=precision, f1=f1)


def balanced_accuracy(labels: Classes, predictions: Classes) -> float:
    """Returns the mean of the classes' accuracies; a class without images has no part in it."""
    return float(np.nanmean(by_class(confusion_matrix(labels, predictions)).recall))


def macro_f1(labels: Classes, predictions: Classes) -> float:
    """Returns the mean of the classes' F1; a class that has no images and was never named has no part in it."""
    return float(np.nanmean(by_class(confusion_matrix(labels, predictions)).f1))


# --- of logits ------------------------------------------------------------------------------------------------


def log_probabilities(logits: NDArray[Any]) -> Floats:
    """Returns the logarithms of the softmax of logits (n, K), in double precision; whatever is added to all logits of
    an image changes nothing.
    """
    double = logits.astype(np.float64)
    double -= double.max(axis=1, keepdims=True)
    logs: Floats = double - np.log(np.exp(double).sum(axis=1, keepdims=True))
    return logs


def top_accuracy(labels: Classes, logits: NDArray[Any], top: int = TOP) -> float:
    """Returns the share of the images whose class is among those with the ``top`` largest logits; of equal ones the
    lower class is the larger one, as it is for a prediction.
    """
    true = labels.astype(np.int64)[:, None]
    own = np.take_along_axis(logits, true, axis=1)
    before = np.arange(logits.shape[1])[None, :] < true
    rank = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    return float((rank < top).mean())


def negative_log_likelihood(labels: Classes, logits: NDArray[Any]) -> float:
    """Returns the mean negative logarithm of the probability that the images' own classes are given: cross-entropy."""
    return float(-np.take_along_axis(log_probabilities(logits), labels.astype(np.int64)[:, None], axis=1).mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Says how often the most likely class is right, by how likely it is said to be: bins of equal width, (bins + 1,);
    the last one is of what is said to be certain in single precision.
    """

    images: NDArray[np.int64]
    confidence: Floats
    """Mean probability of the most likely class, of the images in each bin; 0 where there are none."""
    accuracy: Floats
    """The share of them that are of that class."""

    @property
    def error(self) -> float:
        """Returns the expected calibration error: the mean distance of the two, over images."""
        return float((self.images * np.abs(self.accuracy - self.confidence)).sum() / self.images.sum())


def reliability(labels: Classes, logits: NDArray[Any], bins: int = BINS) -> Reliability:
    """Sorts images into bins by the probability of their most likely class: from ``i / bins`` on, below the next."""
    logs = log_probabilities(logits)
    said = logs.argmax(axis=1)
    # In single precision, as torchmetrics has them: on which side of a bin's edge a confidence lies is decided by it.
    sure = np.exp(logs.max(axis=1)).astype(np.float32)
    edges = np.linspace(0, 1, bins + 1).astype(np.float32)
    place = np.searchsorted(edges, sure, side="right") - 1
    images = np.bincount(place, minlength=bins + 1)
    filled = np.maximum(images, 1)
    return Reliability(
        images=images,
        confidence=np.bincount(place, sure.astype(np.float64), minlength=bins + 1) / filled,
        accuracy=np.bincount(place, said == labels, minlength=bins + 1) / filled,
    )


def calibration_error(labels: Classes, logits: NDArray[Any], bins: int = BINS) -> float:
    """Returns the expected calibration error of the most likely class, norm l1."""
    return reliability(labels, logits, bins).error


# --- metrics that can decide ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Holds a metric of one split as a mean over its images: ``values`` (n,) has this mean, and what each image adds to
    the metric is how far its value lies from it, divided by n. Of accuracy these are 1 and 0 themselves; of others the
    metric is replaced by its first-order expansion in the images (its influence function), and values may lie beyond.
    """

    values: NDArray[Any]
    doubt: float = 0.0
    """Variance that the values do not show: that of classes with so few images that all of them agree, or that there is
    one only."""

    @property
    def mean(self) -> float:
        """Returns the metric."""
        return float(self.values.mean())


def judge_accuracy(labels: Classes, predictions: Classes) -> Judged:
    """Returns which images are right."""
    return Judged(values=predictions == labels)


def judge_balanced(labels: Classes, predictions: Classes) -> Judged:
    """Returns the balanced accuracy over images: of K classes, an image of one of n_c images adds
    (correct - recall_c) / (K n_c).
    """
    found = by_class(confusion_matrix(labels, predictions))
    true = labels.astype(np.int64)
    there = found.images > 0
    count, n = int(there.sum()), len(true)
    metric = float(found.recall[there].mean())
    added = ((predictions == labels) - found.recall[true]) / (count * found.images[true])
    weights = np.full(count, 1 / count)
    return Judged(values=metric + n * added, doubt=_doubt(found.images[there], found.right[there], weights))


def judge_macro_f1(labels: Classes, predictions: Classes) -> Judged:
    """Returns macro F1 over images: of K classes, an image adds (2 [both] - F1_c ([true] + [said])) / (K (T_c + S_c))
    for the class c that it is and for the one that it is said to be, with T_c images of a class and S_c said to be.
    """
    matrix = confusion_matrix(labels, predictions)
    found, said = by_class(matrix), matrix.sum(axis=0)
    there = ~np.isnan(found.f1)
    count, n = int(there.sum()), len(labels)
    metric = float(found.f1[there].mean())
    share = np.divide(1.0, found.images + said, where=there, out=np.zeros(len(there)))
    loss = np.where(there, found.f1, 0.0) * share
    true, named = labels.astype(np.int64), predictions.astype(np.int64)
    added = (2.0 * (true == named) * share[true] - loss[true] - loss[named]) / count
    some = found.images > 0
    # How much F1 moves with the recall, an image of which is one that is said to be of the class as well.
    slope = (found.images * (2 - np.where(there, found.f1, 0.0)) * share)[some] / count
    return Judged(values=metric + n * added, doubt=_doubt(found.images[some], found.right[some], slope))


FIRM = 2.0
"""Images of the mean recall that are added to each class, to tell how far the recall of few can be off."""


def _doubt(images: NDArray[np.int64], right: NDArray[np.int64], weights: Floats) -> float:
    """Returns the variance of a weighted sum of recalls that the classes' own images do not show.

    The images of a class show a variance of r (1 - r) / n for its recall r: nothing where all n agree, and so always
    for one. It is taken to be that of the recall with `FIRM` images more, which are as all classes are, times what few
    images lack. Each class counts by itself: common ones vouch for rare ones no more than by these few images.
    """
    recall = right / images
    effective = len(images) ** 2 / float((1 / images).sum())
    middle = (float(recall.mean()) * effective + FIRM) / (effective + 2 * FIRM)
    firm = images + FIRM
    moderate = (right + FIRM * middle) / firm
    sound = moderate * (1 - moderate) / images * firm / (firm - 0.5)
    return max(0.0, float((weights**2 * (sound - recall * (1 - recall) / images)).sum()))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric can decide a verdict: it is a row of the table."""

    name: str
    """As ``--metric`` has it; with ``_val`` and ``_test`` the name of its figures."""
    words: str
    judge: Callable[[Classes, Classes], Judged]
    """Labels and predictions -> the metric over images."""
    better: str
    """What a cell is that has more of it."""

    @property
    def val(self) -> str:
        """Returns the figure of the validation images, by which cells are chosen."""
        return f"{self.name}_val"

    @property
    def test(self) -> str:
        """Returns the figure of the test images, by which nothing is chosen."""
        return f"{self.name}_test"


ACCURACY = "accuracy"
DECIDING: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name=ACCURACY, words="accuracy", judge=judge_accuracy, better="more accurate"),
        Metric(
            name="balanced_accuracy",
            words="balanced accuracy",
            judge=judge_balanced,
            better="better in balanced accuracy",
        ),
        Metric(name="macro_f1", words="macro F1", judge=judge_macro_f1, better="better in macro F1"),
    )
}
"""Name -> metric that can decide a verdict."""


def metric_of(figure: str) -> tuple[Metric, str]:
    """Returns the metric and the split (``val``, ``test``) of a figure such as ``balanced_accuracy_val``."""
    name, _, split = figure.rpartition("_")
    return DECIDING[name], split
