"""What the checks have seen of a data set, in counts: the images themselves are not held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tlbench.data import Data
from tlbench.data.pixel_range import in_words

Range = tuple[int, int]
"""The least and the most of a count, over seeds and train sizes."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Says what a data set has."""

    name: str
    """What its notes begin with."""
    classes: int
    images: int
    """All images that could be read, used or not."""
    parts: dict[str, Range]
    """train, val, test -> how many images."""
    smallest: str
    """Name of the class with the fewest images to train on."""
    fewest: Range
    """How many these are."""
    dropped: int
    """Images that could not be read."""
    depth: str
    """What black and white are in images of more than 8 bits, in words; empty without any."""

    @property
    def splits(self) -> tuple[int, int, int]:
        """Returns how many images there are to train, validate and test on, at the most."""
        train, val, test = (self.parts[part][1] for part in ("train", "val", "test"))
        return train, val, test


def seen(read: Sequence[Data]) -> Seen:
    """Counts what was read of one data set, once for each seed and train size."""
    first = read[0]
    counts = [Counter(one.train.classes.tolist()) for one in read]
    smallest = min(range(len(first.classes)), key=lambda label: min(each[label] for each in counts))
    return Seen(
        name=first.name,
        classes=len(first.classes),
        images=len(first.train.pixels),
        parts={part: _range([len(getattr(one, part)) for one in read]) for part in ("train", "val", "test")},
        smallest=first.classes[smallest],
        fewest=_range([each[smallest] for each in counts]),
        dropped=len(first.dropped),
        depth=in_words(first.pixel_range),
    )


def _range(counts: Sequence[int]) -> Range:
    return min(counts), max(counts)
