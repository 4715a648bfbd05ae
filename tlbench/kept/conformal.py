"""Sets of classes that hold the right one in a wanted share of cases: split conformal prediction.

The score of an image is 1 - the probability of its right class ("least ambiguous set-valued classifiers", Sadinle, Lei
and Wasserman 2019). With n calibration images, the set of a new image holds every class whose score is at most the
ceil((n + 1) * coverage)-th smallest of theirs; it holds the right class with at least that probability, whatever the
model, as long as new images are drawn like those. It may be empty: an image that looks like no class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.errors import UserError
from tlbench.seeds import seed_for

MOST_SCORES = 10_000
"""Calibration images whose scores a card keeps at most: with so many, coverage is known to half a point."""
DEFAULT = 0.95
"""Coverage that a card says it of on the test images."""
SURE = 0.05
"""Chance below which falling short on the test images is no accident."""

Floats = NDArray[np.float64]


def softmax(logits: NDArray[Any]) -> Floats:
    """Returns probabilities (n, classes) of logits (n, classes), in doubles."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(1, keepdims=True)
    return shifted


def scores_of(probabilities: Floats, labels: NDArray[Any]) -> Floats:
    """Returns the scores (n,) of images whose classes are known, ascending; of more than `MOST_SCORES` as many, drawn
    by chance, so that they are still like new images.
    """
    scores = 1 - probabilities[np.arange(len(labels)), labels]
    if len(scores) > MOST_SCORES:
        chance = np.random.default_rng(seed_for(0, "calibration", str(len(scores))))
        scores = chance.choice(scores, MOST_SCORES, replace=False)
    return np.sort(scores)


def limit_of(scores: Sequence[float], coverage: float) -> float:
    """Returns the largest score that a class of a set may have: infinity, which takes every class, where too few images
    were there to say more. Errors: UserError for a coverage that is no share.
    """
    check_coverage(coverage)
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)  # 0.95 * 20 is 19, whatever binary fractions say
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def fewest(coverage: float) -> int:
    """Returns how many calibration images are needed for sets that are not every class."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def sets_of(probabilities: Floats, limit: float) -> NDArray[np.bool_]:
    """Returns which classes are in the set of each image, (n, classes)."""
    inside: NDArray[np.bool_] = 1 - probabilities <= limit
    return inside


def check_coverage(coverage: float) -> None:
    """Raises UserError for what is no coverage."""
    if not 0 < coverage < 1:
        raise UserError(
            f"coverage {coverage:g} is not above 0 and below 1: 0.95 holds the right class in 95 % of cases"
        )


def held_against(scores: Sequence[float], probabilities: Floats, labels: NDArray[Any]) -> dict[str, Any]:
    """Returns how often sets held the right class of images (n,) that were not calibrated on, as a card has it.

    It falls short where so few covered ones have a chance below `SURE` with the coverage that was promised, given the
    calibration images that were drawn: covered of new images is then beta-binomial (Vovk 2012).
    """
    from scipy.stats import betabinom

    inside = sets_of(probabilities, limit_of(scores, DEFAULT))
    covered = int(inside[np.arange(len(labels)), labels].sum())
    decided = inside.sum(1) == 1
    right = int((inside[decided].argmax(1) == labels[decided]).sum())
    rank = math.ceil((len(scores) + 1) * DEFAULT - 1e-9)
    short = False
    if rank <= len(scores):
        chance = betabinom.cdf(covered, len(labels), rank, len(scores) + 1 - rank)
        short = bool(chance < SURE)
    return {
        "coverage": DEFAULT,
        "covered": covered,
        "images": len(labels),
        "decided": int(decided.sum()),
        "right": right,
        "short": short,
    }
