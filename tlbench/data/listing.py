"""What a folder or a list of images has by the names and sizes of its files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tlbench.data.levels import PARTS
from tlbench.data.scan import Scan
from tlbench.data.splits import HELD_OUT


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Says what a folder or a list has by the names and sizes of its files alone; none was opened."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[float, ...]]
    """train, val, test -> the images of each class; of a part that is cut by seed, how many these will be about."""
    about: frozenset[str]
    """The parts that are cut by seed: by what is in the files."""
    images: int
    bytes: int
    """What all files take."""


def listed(scanned: Scan) -> Listed:
    """Counts the images of a folder or a list, and opens none."""
    seen = Counter(zip(scanned.parts, scanned.labels, strict=True))
    there = {part: tuple(seen[part, label] for label in range(len(scanned.classes))) for part in set(scanned.parts)}
    counts, about = _divided(there)
    return Listed(
        classes=scanned.classes,
        counts=counts,
        about=about,
        images=len(scanned.files),
        bytes=sum(stamp[2] for stamp in set(scanned.stamps) if stamp is not None),
    )


def _divided(there: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[float, ...]], frozenset[str]]:
    """Returns what the parts of a folder become when it is split (`tlbench.data.folder.load`), and which of them is
    only about so large.
    """
    if "" in there:
        whole = there[""]
        shares = {"train": 1 - 2 * HELD_OUT, "val": HELD_OUT, "test": HELD_OUT}
        return {part: tuple(share * n for n in whole) for part, share in shares.items()}, frozenset(shares)
    if len(there) == len(PARTS):
        return {part: there[part] for part in PARTS}, frozenset()
    train, test = there["train"], there.get("test", there.get("val", ()))
    cut = {"train": tuple((1 - HELD_OUT) * n for n in train), "val": tuple(HELD_OUT * n for n in train)}
    return {**cut, "test": test}, frozenset(cut)
