"""Groups of copies: images that are one photograph, and so must not be learned from in one split and asked in another.

Copies are exact, where the files or the decoded pixels are equal, or near, where they look alike
(`tlbench.data.looks`): re-encoded, resized, mirrored, cropped by a few pixels. What is a copy of a copy is in its
group, so that the frames of a video may become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tlbench.data.looks import Looks
from tlbench.data.store import Images, Known

KINDS = {
    "exact": "images whose file or pixels an earlier image has already",
    "near": "other images that look like an earlier one; absent where that was not looked for, or could not be told",
    "uncompared": "images too small or too plain to have looks, so that only exact copies of them are known; absent as "
    "near is",
    "groups": "photographs that are there more than once",
    "largest": "images of the one that is there most often",
    "apart": "of the groups, those with images in more than one split",
    "mixed": "of the groups, those with images of more than one class",
}
"""What is counted of copies -> what it means."""


def grouped(images: Images, identities: Sequence[bytes], looks: Looks | None = None) -> Images:
    """Returns the images with their copies put into groups.

    ``identities``: what each image is known by whatever it is decoded to (the SHA-256 of its file). Without ``looks``
    groups hold exact copies alone, for images that are no photographs. A group is named by its lowest identity, so
    that neither paths nor the order of images matter.
    """
    order = np.array(sorted(range(len(identities)), key=lambda position: identities[position]), np.int64)
    exact = _joined(len(order), [*_equal(identities), *_equal(images.digests)])
    pairs = looks.copies(_firsts(exact, order)) if looks is not None else None
    near = _joined(len(order), [*enumerate(exact.tolist()), *(pairs.tolist() if pairs is not None else ())])
    lowest = {int(near[position]): identities[position] for position in reversed(order.tolist())}
    return replace(
        images,
        identities=tuple(identities),
        groups=tuple(lowest[group] for group in near.tolist()),
        near_copies=None if pairs is None else len(set(exact.tolist())) - len(lowest),
        uncompared=None if looks is None or pairs is None else int((~looks.usable).sum()),
        alike=looks is not None and pairs is None,
    )


def _equal(keys: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yields pairs of positions with equal keys, enough of them to join all that are equal."""
    first: dict[bytes, int] = {}
    return ((position, first.setdefault(key, position)) for position, key in enumerate(keys))


def _joined(count: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Returns for each of ``count`` positions the first one that pairs join it to, directly or through others."""
    first = list(range(count))

    def of(position: int) -> int:
        while first[position] != position:
            first[position] = position = first[first[position]]
        return position

    for one, other in pairs:
        low, high = sorted((of(one), of(other)))
        first[high] = low
    return np.array([of(position) for position in range(count)], np.int64)


def _firsts(joined: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns of each group the position that comes first in ``order``, in that order."""
    _, places = np.unique(joined[order], return_index=True)
    return order[np.sort(places)]


# --- what follows for the splits ------------------------------------------------------------------------------


def count_copies(images: Known, parts: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Counts the copies in a data set of these parts, all of its images, by the names in `KINDS`."""
    names = groups_of(images)
    part_of = {position: part for part, positions in parts.items() for position in positions}
    members: dict[bytes, list[int]] = {}
    for position, name in enumerate(names):
        members.setdefault(name, []).append(position)
    several = [group for group in members.values() if len(group) > 1]
    counts = {"exact": len(names) - len(members) - (images.near_copies or 0)}
    if images.near_copies is not None:
        counts["near"] = images.near_copies
    if images.uncompared is not None:
        counts["uncompared"] = images.uncompared
    return {
        **counts,
        "groups": len(several),
        "largest": max(map(len, several), default=0),
        "apart": sum(len({part_of[position] for position in group if position in part_of}) > 1 for group in several),
        "mixed": len(mixed(images)),
    }


def mixed(images: Known) -> list[tuple[int, int]]:
    """Returns two positions of each group whose images do not all have one label."""
    first: dict[bytes, int] = {}
    found: dict[bytes, tuple[int, int]] = {}
    for position, name in enumerate(groups_of(images)):
        other = first.setdefault(name, position)
        if images.labels[other] != images.labels[position]:
            found.setdefault(name, (other, position))
    return list(found.values())


def leaks(images: Known, parts: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Returns the places in val, and in test, of images that are copies of others a model has seen by then: of training
    images, those that ``parts`` leaves a cell; of those that are tested, also of validation images, which recipes and
    cells are chosen on.
    """
    names = groups_of(images)
    seen: set[bytes] = set()
    found = {}
    for earlier, part in (("train", "val"), ("val", "test")):
        seen |= {names[position] for position in parts[earlier]}
        found[part] = tuple(place for place, position in enumerate(parts[part]) if names[position] in seen)
    return found


def groups_of(images: Known) -> Sequence[bytes]:
    """Returns each image's group; where nobody has looked for copies, what has the same pixels is one."""
    return images.groups or images.digests


def together(images: Known) -> Sequence[bytes]:
    """Returns the name of what each image stays in one split with: its group of copies, and the groups that a person
    has named. Whoever cuts splits or folds keeps these whole.
    """
    return images.together or groups_of(images)
