"""From one row a configuration to what its models, one a seed, answered for each test image: the classes that
they name, and how sure they are of them.

The answers of all seeds are counted together. An image that several seeds' models were asked is one image all the same:
that is what an interval, and a list of images, go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis import metrics
from tlbench.analysis.classes import results_on
from tlbench.analysis.folded import fold_number
from tlbench.analysis.learning import candidates
from tlbench.analysis.scores import Numbers
from tlbench.analysis.summary import Configuration
from tlbench.errors import NotApplicable
from tlbench.records.images import SplitResults

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

OLDER = "the records keep neither names of classes nor logits, as those of older versions"
WITHOUT_LOGITS = "the records keep no logits (--logits off)"
WITHOUT_IMAGES = "no finished cell keeps what it answered for single test images"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Holds what the models of a configuration answered: n answers, those of one seed after those of another."""

    classes: tuple[str, ...]
    labels: Ints
    """(n,) true classes."""
    predictions: Ints
    """(n,) the classes that were answered."""
    images: Ints
    """(n,) numbers of the images: the same number is the same image."""
    seeds: Ints
    """(n,) the seed of the model that answered."""
    identities: NDArray[np.uint8]
    """(n, 16) the beginning of the SHA-256 that an image is known by."""
    files: tuple[str, ...]
    """(n) the path of each image below its data set's root; empty where that is not known."""
    logits: NDArray[np.float16] | None
    """(n, classes); None where a record keeps none."""
    trained: tuple[int, ...]
    """Training images of each class, of the seed that has the fewest; empty where that is not known."""

    @cached_property
    def models(self) -> int:
        """Returns the number of seeds."""
        return len(np.unique(self.seeds))

    @cached_property
    def asked(self) -> Ints:
        """Returns the number of answers for images of each class, (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def log_shares(self) -> Floats:
        """Returns the logarithm of the softmax of the logits, (n, classes). Errors: NotApplicable without logits."""
        if self.logits is None:
            raise NotApplicable(WITHOUT_LOGITS)
        return metrics.log_probabilities(self.logits)

    @cached_property
    def confidences(self) -> Floats:
        """Returns the share that the softmax gives to each answer, (n,). Errors: NotApplicable without logits."""
        shares: Floats = np.exp(self.log_shares[np.arange(len(self.labels)), self.predictions])
        return shares


def answers_of(row: Configuration, split: str = "test") -> Answers:
    """Returns what the models of a configuration answered on the images of a split; of a seed that was measured several
    times, once; its folds are one split. Seeds whose answers are not kept are left out.

    Errors: NotApplicable saying what the records lack.
    """
    numbers = Numbers()
    known = results_on(row["group"], split, numbers, logits=True)
    found: dict[tuple[int, int], SplitResults] = {}
    for item, results in known:
        if results.classes:
            found.setdefault((item.seed, fold_number(item)), results)
    if not found:
        raise NotApplicable(OLDER if known else WITHOUT_IMAGES)
    several = list(found.values())
    if len({results.classes for results in several}) > 1:
        raise NotApplicable("the records of one configuration name different classes")
    logits = [results.logits for results in several if results.logits is not None]
    files = [name for results in several for name in results.files]
    labels = np.concatenate([results.labels.astype(np.int64) for results in several])
    return Answers(
        classes=several[0].classes,
        labels=labels,
        predictions=np.concatenate([results.predictions.astype(np.int64) for results in several]),
        images=np.concatenate([numbers.of(results.images) for results in several]),
        seeds=np.repeat(np.array([seed for seed, _ in found], np.int64), [len(results.labels) for results in several]),
        identities=np.concatenate([results.images for results in several]),
        files=tuple(files) if len(files) == len(labels) else (),
        logits=np.concatenate(logits) if len(logits) == len(several) else None,
        trained=_fewest([results.trained for results in several]),
    )


def _fewest(counts: Sequence[NDArray[Any] | None]) -> tuple[int, ...]:
    """Returns each class's training images, of the seed that has the fewest; nothing where one does not tell."""
    known = [count for count in counts if count is not None]
    same = len(known) == len(counts) and len({count.shape for count in known}) == 1
    return tuple(np.min(known, axis=0).tolist()) if same else ()


def leaders(rows: Sequence[Configuration]) -> list[Configuration]:
    """Returns of each data set, device and machine the configuration that is best on validation images, by accuracy or
    by the metric that decides; of those that may be recommended, where there are some.
    """
    groups: dict[tuple[str, str, str], list[Configuration]] = {}
    for row in rows:
        if row["task"] == "train" and row["records_ok"] and None not in (row["accuracy_val"], row["accuracy_test"]):
            groups.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    return [max(candidates(group).rows or group, key=_by_validation) for group in groups.values()]


def _by_validation(row: Configuration) -> float:
    decides = row.get(f"{row.get('metric', metrics.ACCURACY)}_val")
    return float(row["accuracy_val"] if decides is None else decides)


# --- confidence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Says what became of the answers of one range of confidence."""

    count: int
    confidence: float
    """The mean; 0 without answers."""
    right: float
    """The share that is right; 0 without answers."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Says whether a confidence means what it says."""

    bins: tuple[Bin, ...]
    """`tlbench.analysis.metrics.BINS` of equal width, from 0 on; what is certain is in the last."""
    ece: float
    """The expected calibration error: the mean distance of confidence and accuracy in the bins, over answers."""
    nll: float
    """Negative log-likelihood of the true classes in nats, the mean over answers."""
    confidence: float
    """The mean."""
    right: float
    """The share of answers that is right."""


def reliability(answers: Answers) -> Reliability:
    """Returns how far the confidences of all answers can be believed. Errors: NotApplicable without logits."""
    if answers.logits is None:
        raise NotApplicable(WITHOUT_LOGITS)
    found = metrics.reliability(answers.labels, answers.logits)
    counts = found.images.astype(np.float64)
    sums = np.stack([counts, counts * found.confidence, counts * found.accuracy])
    whole = sums.sum(axis=1)
    sums[:, -2] += sums[:, -1]  # what is said to be certain, and has a bin of its own there
    return Reliability(
        bins=tuple(
            Bin(count=int(count), confidence=float(sure / max(count, 1)), right=float(right / max(count, 1)))
            for count, sure, right in sums[:, :-1].T
        ),
        ece=found.error,
        nll=max(0.0, metrics.negative_log_likelihood(answers.labels, answers.logits)),
        confidence=float(whole[1] / whole[0]),
        right=float(whole[2] / whole[0]),
    )
