"""Puts into words what depends on the number of training images: at which size a pick was made, and where one policy
overtakes another.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.folded import images_of
from tlbench.analysis.label_efficiency import Crossing, train_size
from tlbench.analysis.verdict import Scope
from tlbench.report import wording

FEW = 3
"""Pairs of policies in a sentence at most."""


def chosen_at(scope: Scope) -> str:
    """Says that the cells with the most training images alone are weighed; empty where all have the same train size."""
    if not scope.smaller:
        return ""
    chosen = scope.candidates
    counts = [images_of(row, "train_images") for row in (*chosen.rows, *chosen.random, *chosen.ignorant)]
    sizes = sorted({size for row in scope.smaller if (size := train_size(row)) is not None})
    listed = wording.few([f"{size:,}" for size in sizes], most=6)
    least, most = min(low for low, _ in counts), max(high for _, high in counts)
    images = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return (
        f"Chosen among the cells with the most training images ({images}): those with fewer ({listed}) are no picks, "
        "and stand in the figure of accuracy against labelled images."
    )


def overtaking(scope: Scope) -> str:
    """Says in a sentence which policies overtake which, and at how many training images; empty where the train sizes do
    not differ.
    """
    if not scope.crossings:
        return ""
    crossed = [one for one in scope.crossings if one.found.outcome == "crosses"]
    if crossed:
        several = len({wording.model(one.first) for one in scope.crossings}) > 1
        told = [crossing(one, named=several) for one in crossed[:FEW]]
        more = len(crossed) - FEW
        return f"By test accuracy, {'; '.join(told)}{f'; {more} more such pairs are in the report' * (more > 0)}."
    least, most = min(one.least for one in scope.crossings), max(one.most for one in scope.crossings)
    why = ""
    if all(one.found.seeds < 2 for one in scope.crossings):
        why = ": one seed cannot tell, and 3 or more may"
    elif any(one.found.outcome == "cannot say" for one in scope.crossings):
        why = ", which more seeds or test images may show"
    return (
        f"Between {exact(least)} and {exact(most)} training images no policy is known to overtake another in test "
        f"accuracy{why}."
    )


def crossings(found: Sequence[Crossing], most: int = 40) -> list[str]:
    """Returns a clause for every pair of policies, those that cross first."""
    several = len({wording.model(one.first) for one in found}) > 1
    told = [crossing(one, named=several) for one in found[:most]]
    return told + ([f"{len(found) - most} more pairs are not listed"] if len(found) > most else [])


def crossing(one: Crossing, named: bool = False) -> str:
    """Writes ``full overtakes linear_probe at about 140 training images (90 to 260)``; ``named``: and the backbone."""
    first, second, found = one.first["freeze"], one.second["freeze"], one.found
    whose = f"with {wording.model(one.first)}, " if named else ""
    if found.outcome == "crosses":
        assert found.size is not None
        assert found.low is not None
        assert found.high is not None
        low, high = rounded(found.low), rounded(found.high)
        return f"{whose}{first} overtakes {second} at about {rounded(found.size)} training images ({low} to {high})"
    if found.outcome == "one leads":
        sizes = f"at all {one.sizes} sizes, {exact(one.least)} to {exact(one.most)} training images"
        return f"{whose}{first} is ahead of {second} {sizes}"
    return f"{whose}whether {first} overtakes {second} cannot be said: {_why(one)}"


def _why(one: Crossing) -> str:
    found, first, second = one.found, one.first["freeze"], one.second["freeze"]
    least, most = exact(one.least), exact(one.most)
    if found.seeds < 2:
        return "one seed tells no spread"
    if found.at_last and not found.at_first and found.level_to is not None and found.level_to < one.most:
        ahead = first if found.at_last > 0 else second
        return f"{ahead} is ahead from {rounded(found.level_to)} training images on, and below they may be level"
    if found.at_first and not found.at_last and found.level_from is not None and found.level_from > one.least:
        ahead = first if found.at_first > 0 else second
        return f"{ahead} is ahead up to {rounded(found.level_from)} training images, and above they may be level"
    if found.at_first and found.at_last:
        return f"{first} is ahead at {least} and at {most} training images, and in between they may be level"
    return f"they may be level from {least} to {most} training images"


def rounded(size: float) -> str:
    """Writes a number of images that was worked out, to two digits: 140, 1,300; below 100 whole."""
    return f"{round(size):,}" if size < 100 else f"{float(f'{size:.2g}'):,.0f}"


def exact(size: float) -> str:
    """Writes a number of images that was measured at: the mean over seeds, whole."""
    return f"{round(size):,}"
