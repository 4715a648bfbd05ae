"""Whether two splits are alike: how far a model's accuracies on them lie apart, against what their images leave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tlbench.analysis.stats.accuracy import PSEUDO, Scores
from tlbench.analysis.stats.functions import special
from tlbench.analysis.stats.student import CONFIDENCE, upper_tail

STRICTER = 0.8
"""Share of the allowed errors that gaps are judged at: counts of few images come in steps, which a normal passes over.
"""


@dataclass(frozen=True, kw_only=True)
class SplitGap:
    """Says how far the accuracy on one split lies above that on another, a mean over seeds, and its standard error
    where both are drawn alike.
    """

    gap: float
    error: float

    def reach(self, comparisons: int = 1, confidence: float = CONFIDENCE) -> float:
        """Returns how far chance alone carries the gaps of so many comparisons, all of them at once (Bonferroni): it
        holds whichever of them is looked at, also the one that came out best on one of the splits.
        """
        tail = STRICTER * (1 - upper_tail(confidence)) / comparisons
        return -float(special.ndtri(tail)) * self.error


def splits_differ(one: Scores, other: Scores) -> SplitGap:
    """Returns how far the accuracy on the images of ``one`` lies above that on those of ``other``, seed by seed: both
    have the same seeds in the same order.

    A seed's luck is the same on both sides, since the same model answers, and cancels: what is left is which images
    each split has. Images are clusters (Liang and Zeger 1986), known by their numbers, so that seeds that answer the
    same images do not count as more of them, and an image that one seed validates on and another tests on counts on
    both sides. The variance of an image is that of the accuracy on all images of both, as "no difference" says (a score
    test): a split on which little is wrong by chance does not promise certainty. The clusters say which share of it is
    left by the mean over seeds.
    """
    pooled = [float(np.concatenate(pair).mean()) for pair in zip(one.correct, other.correct, strict=True)]
    codes, shares, alone = [], [], 0.0
    for sign, split in ((1.0, one), (-1.0, other)):
        for images, correct, middle in zip(split.images, split.correct, pooled, strict=True):
            codes.append(images)
            shares.append(sign * (correct - middle) / correct.size)
            alone += float(shares[-1] @ shares[-1]) / len(pooled)
    places = np.unique(np.concatenate(codes), return_inverse=True)[1]
    together = np.bincount(places, np.concatenate(shares)) / len(pooled)
    left = float(together @ together) / alone if alone else 1.0
    share = float(np.mean(pooled))
    sizes = [float(np.mean([c.size for c in split.correct])) for split in (one, other)]
    variance = left * share * (1 - share) * sum(1 / size for size in sizes)
    variance += sum(PSEUDO / size**2 for size in sizes) / 2
    return SplitGap(gap=float(one.accuracies.mean() - other.accuracies.mean()), error=math.sqrt(variance))
