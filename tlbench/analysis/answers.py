"""From one row a configuration to what its models, one a seed, answered for each test image: which classes they take
for which, whether a confidence means what it says, and which of their mistakes were the surest.

The answers of all seeds are counted together. An image that several seeds' models were asked is one image all the same:
that is what an interval, and a list of images, go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis import stats
from tlbench.analysis.learning import candidates
from tlbench.analysis.scores import Numbers
from tlbench.analysis.summary import Configuration
from tlbench.errors import NotApplicable
from tlbench.records.images import SplitResults

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BINS = 15
"""Bins of equal width that confidences are put into."""
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
    logits: NDArray[np.float64] | None
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
    def right(self) -> Ints:
        """Returns how many of them are right, (classes,)."""
        return np.bincount(self.labels[self.labels == self.predictions], minlength=len(self.classes))

    @cached_property
    def log_shares(self) -> Floats:
        """Returns the logarithm of the softmax of the logits, (n, classes). Errors: NotApplicable without logits."""
        if self.logits is None:
            raise NotApplicable(WITHOUT_LOGITS)
        above = self.logits - self.logits.max(axis=1, keepdims=True)
        shares: Floats = above - np.log(np.exp(above).sum(axis=1, keepdims=True))
        return shares

    @cached_property
    def confidences(self) -> Floats:
        """Returns the share that the softmax gives to each answer, (n,). Errors: NotApplicable without logits."""
        shares: Floats = np.exp(self.log_shares[np.arange(len(self.labels)), self.predictions])
        return shares


def answers_of(row: Configuration, split: str = "test") -> Answers:
    """Returns what the models of a configuration answered on the images of a split; of a seed that was measured several
    times, once. Seeds whose answers are not kept are left out.

    Errors: NotApplicable saying what the records lack.
    """
    numbers = Numbers()
    found: dict[int, SplitResults] = {}
    unnamed = False
    for item in row["group"]:
        per_image = numbers.results(item) if item.status == "ok" and item.seed not in found else None
        results = per_image.split(split) if per_image is not None else None
        if results is not None and not results.classes:
            unnamed = True
        elif results is not None:
            found[item.seed] = results
    if not found:
        raise NotApplicable(OLDER if unnamed else WITHOUT_IMAGES)
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
        seeds=np.repeat(np.array(list(found), np.int64), [len(results.labels) for results in several]),
        identities=np.concatenate([results.images for results in several]),
        files=tuple(files) if len(files) == len(labels) else (),
        logits=np.concatenate(logits).astype(np.float64) if len(logits) == len(several) else None,
        trained=(),
    )


def leaders(rows: Sequence[Configuration]) -> list[Configuration]:
    """Returns of each data set, device and machine the configuration with the best validation accuracy, of those that
    may be recommended where there are some.
    """
    groups: dict[tuple[str, str, str], list[Configuration]] = {}
    for row in rows:
        if row["task"] == "train" and row["records_ok"] and None not in (row["accuracy_val"], row["accuracy_test"]):
            groups.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    return [max(candidates(group).rows or group, key=lambda r: r["accuracy_val"]) for group in groups.values()]


# --- what is taken for what -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mistaken:
    """Says how often images of one class were taken for another."""

    true: int
    predicted: int
    count: int
    """Answers."""
    asked: int
    """All answers for images of the true class."""

    @property
    def share(self) -> float:
        """Returns the share of the class's answers."""
        return self.count / self.asked


def mistaken(answers: Answers) -> list[Mistaken]:
    """Returns each two classes of which one was taken for the other, the most answers first."""
    wrong = answers.labels != answers.predictions
    codes = answers.labels[wrong] * len(answers.classes) + answers.predictions[wrong]
    pairs = []
    for code, count in zip(*(part.tolist() for part in np.unique(codes, return_counts=True)), strict=True):
        true, predicted = divmod(code, len(answers.classes))
        pairs.append(Mistaken(true=true, predicted=predicted, count=count, asked=int(answers.asked[true])))
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))


def most_mistaken(pairs: Sequence[Mistaken], most: int) -> list[int]:
    """Returns at most so many classes, those of the worst pairs."""
    chosen: dict[int, None] = {}
    for pair in pairs:
        more = dict.fromkeys(one for one in (pair.true, pair.predicted) if one not in chosen)
        if len(chosen) + len(more) <= most:
            chosen |= more
    return list(chosen)


def side_by_side(classes: Sequence[int], pairs: Sequence[Mistaken]) -> list[int]:
    """Returns classes in an order in which those that are taken for each other stand side by side: the pairs, from the
    one with the largest shares on, join the chains that they are in, turned so that the two come to lie as near as they
    can. Chains with more mistakes come first.
    """
    likeness: dict[tuple[int, int], float] = {}
    among = set(classes)
    for pair in pairs:
        if pair.true in among and pair.predicted in among:
            both = min(pair.true, pair.predicted), max(pair.true, pair.predicted)
            likeness[both] = likeness.get(both, 0.0) + pair.share
    chains = {one: [one] for one in classes}
    for one, other in sorted(likeness, key=lambda both: (-likeness[both], both)):
        first, second = chains[one], chains[other]
        if first is second:
            continue
        if 2 * first.index(one) < len(first) - 1:
            first.reverse()
        if 2 * second.index(other) > len(second) - 1:
            second.reverse()
        first += second
        chains |= dict.fromkeys(second, first)
    weight = dict.fromkeys(classes, 0.0)
    for both, share in likeness.items():
        for one in both:
            weight[one] += share
    distinct = {id(chain): chain for chain in chains.values()}.values()
    ordered = sorted(distinct, key=lambda chain: -sum(weight[one] for one in chain))
    return [one for chain in ordered for one in chain]


def counts_among(classes: Sequence[int], answers: Answers) -> Ints:
    """Returns how often images of each of these classes (rows) were taken for each of them (columns), and in a last
    column for any other.
    """
    place = np.full(len(answers.classes), len(classes), np.int64)
    place[list(classes)] = np.arange(len(classes))
    rows, columns = place[answers.labels], place[answers.predictions]
    wide = len(classes) + 1
    inside = rows < len(classes)
    counts: Ints = np.bincount(rows[inside] * wide + columns[inside], minlength=len(classes) * wide)
    return counts.reshape(len(classes), wide)


# --- class by class -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClassAnswers:
    """Says how the images of one class were judged."""

    name: str
    trained: int | None
    """Training images; None where that is not known."""
    fewest: int
    """Test images of the seed that has the fewest."""
    most: int
    """Those of the one that has the most."""
    accuracy: stats.Interval | None
    """None without test images."""
    taken_for: Mistaken | None
    """What its images are most often taken for; None where all are right."""


def by_class(answers: Answers, pairs: Sequence[Mistaken] | None = None) -> list[ClassAnswers]:
    """Returns what there is to say of each class, the least accurate first; those without test images come last."""
    worst: dict[int, Mistaken] = {}
    for pair in mistaken(answers) if pairs is None else pairs:
        worst.setdefault(pair.true, pair)
    order = np.argsort(answers.labels, kind="stable")
    ends = np.cumsum(answers.asked)
    found = []
    for number, name in enumerate(answers.classes):
        own = order[ends[number] - answers.asked[number] : ends[number]]
        counts = [int((answers.seeds[own] == seed).sum()) for seed in np.unique(answers.seeds)]
        found.append(
            ClassAnswers(
                name=name,
                trained=answers.trained[number] if answers.trained else None,
                fewest=min(counts),
                most=max(counts),
                accuracy=_accuracy(answers, own) if len(own) else None,
                taken_for=worst.get(number),
            )
        )
    return sorted(found, key=lambda one: (one.accuracy is None, one.accuracy and one.accuracy.estimate, -one.most))


def _accuracy(answers: Answers, own: Ints) -> stats.Interval:
    """Returns the share of these answers that is right, with its interval over images and seeds; of one seed, over
    images alone (Wilson).
    """
    right = (answers.labels[own] == answers.predictions[own]).astype(np.float64)
    seeds = answers.seeds[own]
    parts = [seeds == seed for seed in np.unique(seeds)]
    if len(parts) < 2:
        return stats.wilson(int(right.sum()), len(right))
    images = answers.images[own]
    scores = stats.Scores(images=tuple(images[p] for p in parts), correct=tuple(right[p] for p in parts))
    return stats.accuracy_interval(scores)


# --- confidence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Says what became of the answers of one range of confidence, above ``low`` and up to ``high``."""

    low: float
    high: float
    count: int
    confidence: float
    """The mean; 0 without answers."""
    right: float
    """The share that is right; 0 without answers."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Says whether a confidence means what it says."""

    bins: tuple[Bin, ...]
    ece: float
    """Expected calibration error (Naeini 2015; Guo 2017): the mean distance of confidence and accuracy in the bins,
    weighted by the answers in them."""
    nll: float
    """Negative log-likelihood of the true classes in nats, the mean over answers."""
    confidence: float
    """The mean."""
    right: float
    """The share of answers that is right."""


def reliability(answers: Answers) -> Reliability:
    """Returns it over `BINS` bins. Errors: NotApplicable without logits."""
    sure = answers.confidences
    right = (answers.labels == answers.predictions).astype(np.float64)
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, BINS) for weights in (sure, right)]
    confidence, share = (each / np.maximum(counts, 1) for each in sums)
    true = answers.log_shares[np.arange(len(right)), answers.labels]
    return Reliability(
        bins=tuple(
            Bin(low=n / BINS, high=(n + 1) / BINS, count=int(c), confidence=float(s), right=float(r))
            for n, (c, s, r) in enumerate(zip(counts, confidence, share, strict=True))
        ),
        ece=float(np.abs(sums[0] - sums[1]).sum() / len(right)),
        nll=float(-true.mean()),
        confidence=float(sure.mean()),
        right=float(right.mean()),
    )


# --- single images --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SureMistake:
    """Names an image that a model was sure of, and wrong."""

    true: int
    predicted: int
    confidence: float
    """Of the surest of the models that were wrong, as ``predicted`` is its answer."""
    file: str
    """Its path below the data set's root; empty where that is not known."""
    identity: bytes
    """The first 16 bytes of the SHA-256 that it is known by."""
    wrong: int
    """Models that were wrong."""
    models: int
    """Models that were asked."""


def surest_mistakes(answers: Answers, most: int) -> list[SureMistake]:
    """Returns at most so many images, those that a model was wrong about with the most confidence first; an image is
    named once, whatever the number of its models. Errors: NotApplicable without logits.
    """
    sure = answers.confidences
    wrong = np.flatnonzero(answers.labels != answers.predictions)
    order = wrong[np.lexsort((wrong, -sure[wrong]))]
    found: dict[int, SureMistake] = {}
    for place in order.tolist():
        image = int(answers.images[place])
        if image in found:
            continue
        if len(found) == most:
            break
        same = answers.images == image
        found[image] = SureMistake(
            true=int(answers.labels[place]),
            predicted=int(answers.predictions[place]),
            confidence=float(sure[place]),
            file=answers.files[place] if answers.files else "",
            identity=answers.identities[place].tobytes(),
            wrong=int((same & (answers.labels != answers.predictions)).sum()),
            models=int(same.sum()),
        )
    return list(found.values())
