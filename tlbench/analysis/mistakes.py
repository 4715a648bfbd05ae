"""From what the models of a configuration answered to their mistakes: which classes are taken for which, in numbers and
in an order that shows it, and the images that a model was the surest about, and wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlbench.analysis.answers import Answers, Ints

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
        if answers.files:  # a copy of it under another name is another image to each model
            there = np.flatnonzero(same)
            same[there] = [answers.files[one] == answers.files[place] for one in there.tolist()]
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
