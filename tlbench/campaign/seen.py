"""What the checks have seen of a data set, in counts: the images themselves are not held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tlbench.data import Described, scaled
from tlbench.data.listing import Listed
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
    corrected: int = 0
    """Labels that are others after ``--relabel``, at the most."""
    about: frozenset[str] = frozenset()
    """The parts of which the number is a guess, since no file was opened (`tlbench.data.listing.Listed`)."""
    bytes: int | None = None
    """What all files take, where only that is known of them."""
    decoding: str = ""
    """How large photographs were decoded, in words; empty where there is nothing to say."""
    decode_seconds: float = field(default=0.0, compare=False)
    """What decoding one image took a thread; 0 where that is not known."""
    depth: str = ""
    """What black and white are in images of more than 8 bits, in words; empty without any."""
    instead_of: int = 0
    """Test images that one split would have left, where folds were taken for that; 0 where they were not."""

    @property
    def splits(self) -> tuple[int, int, int]:
        """Returns how many images there are to train, validate and test on, at the most."""
        train, val, test = (self.parts[part][1] for part in ("train", "val", "test"))
        return train, val, test


def seen(read: Sequence[Described], decode: str = "exact") -> Seen:
    """Counts what was read of one data set, once for each seed and train size, decoded as ``decode`` says."""
    first = read[0]
    counts = [Counter(one.labels[one.positions["train"]].tolist()) for one in read]
    smallest = min(range(len(first.classes)), key=lambda label: min(each[label] for each in counts))
    return Seen(
        name=first.name,
        classes=len(first.classes),
        images=len(first.labels),
        parts={part: _range([len(one.positions[part]) for one in read]) for part in ("train", "val", "test")},
        smallest=first.classes[smallest],
        fewest=_range([each[smallest] for each in counts]),
        dropped=len(first.dropped),
        corrected=max(int(one.relabelled.get("images", 0)) for one in read),
        decoding=scaled.in_words(decode, first.decoding, len(first.labels)),
        decode_seconds=first.decode_seconds,
        depth=in_words(first.pixel_range),
    )


def seen_by_name(name: str, listed: Listed, train_sizes: Sequence[int | None]) -> Seen:
    """Counts the files of a data set that was not read, of which ``name`` is what its notes begin with."""
    whole = {part: round(sum(counts)) for part, counts in listed.counts.items()}
    chosen = [whole["train"] if size is None else min(size, whole["train"]) for size in train_sizes]
    of_class = listed.counts["train"]
    smallest = min(range(len(of_class)), key=lambda label: of_class[label])
    fewest = [round(of_class[smallest] * size / max(whole["train"], 1)) for size in chosen]
    return Seen(
        name=name,
        classes=len(listed.classes),
        images=listed.images,
        parts={**{part: (count, count) for part, count in whole.items()}, "train": _range(chosen)},
        smallest=listed.classes[smallest],
        fewest=_range([max(count, 1) for count in fewest]),
        dropped=0,
        about=listed.about,
        bytes=listed.bytes,
    )


def _range(counts: Sequence[int]) -> Range:
    return min(counts), max(counts)
