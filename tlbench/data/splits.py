"""Splits by seed that adding, removing or renaming an image leaves as they are.

Where an image goes is decided by the hash of the seed and of what it is known by, and by nothing else. So the images
that a part gets of a class of n are binomial: of 80 images, a share of 0.15 is 12 ± 3.2, one standard deviation. That
is the price of stability, not of this scheme: where no image may ever move because of another, each one's part is a
function of itself alone, and shares cannot be exact. Only a class that would have no image in some part departs from
it, and gives that part the one whose hash lies nearest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from tlbench.errors import UserError

HELD_OUT = 0.15
"""Share of the images that a split without train/ and val/ keeps for validation, and again for the test."""
OWN = b"own:"
"""What the names of groups begin with that a person has named (`tlbench.data.groups`); others are copies alone."""


def divide(
    positions: Sequence[int],
    labels: Sequence[int],
    classes: Sequence[str],
    parts: Mapping[str, float],
    seed: int,
    groups: Sequence[bytes] | None = None,
) -> dict[str, list[int]]:
    """Divides positions into ``parts`` (name -> share) and ``train`` (the rest), at least one image of each class
    in every part. Each result is sorted.

    ``groups`` names the group of each image of the store (copies, or a patient, a shop, a video,
    `tlbench.data.copies.together`): what has one name stays together. An image alone is named by what it is known by,
    whatever its path and position; without ``groups`` positions are the names.

    Promised: each image goes to a part with the probability of its share, and stays there whatever images are added to
    its class or removed, unless the class is so small that a part would have none of it: then one image a part may
    move. A copy that is added may name its group anew and so move that group.

    Errors: UserError naming a class that has too few images, or too few that are no copies of each other.
    """
    names = {position: groups[position] if groups else str(position).encode() for position in positions}
    places = {name: _hash(seed, "split", name) for name in dict.fromkeys(names.values())}
    ranges, start = {}, 0.0
    for part, share in parts.items():
        ranges[part] = (start, start + share)
        start += share
    ranges["train"] = (start, 1.0)
    chosen = {name: _part_at(place, ranges) for name, place in places.items()}

    members = [{names[position] for position in group} for _, group in _by_class(positions, labels, classes)]
    for label, (name, group) in enumerate(_by_class(positions, labels, classes)):
        _check_enough(name, len(group), members[label], ["train", *parts])
        for part in ranges:
            if all(chosen[one] != part for one in members[label]):
                low, high = ranges[part]
                free = [one for one in members[label] if _can_leave(one, chosen, members)]
                if not free:
                    raise UserError(
                        f"class {name!r} cannot be divided into {', '.join(['train', *parts])}: its images are "
                        f"in groups with images of other classes, which stay together; {_remedy(members[label])}"
                    )
                nearest = min(free, key=lambda one: (max(low - places[one], places[one] - high), one))
                chosen[nearest] = part
    result: dict[str, list[int]] = {"train": [], **{part: [] for part in parts}}
    for position in sorted(positions):
        result[chosen[names[position]]].append(position)
    return result


def _hash(seed: int, purpose: str, name: bytes) -> float:
    """Returns a number in [0, 1), evenly spread over names."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0".encode() + name).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # six bytes are exact in a double


def _part_at(place: float, ranges: Mapping[str, tuple[float, float]]) -> str:
    return next(part for part, (low, high) in ranges.items() if low <= place < high or part == "train")


def _can_leave(name: bytes, chosen: Mapping[bytes, str], members: Sequence[set[bytes]]) -> bool:
    """Tells whether each class of a group keeps another one in the part that it is in."""
    part = chosen[name]
    return all(any(other != name and chosen[other] == part for other in group) for group in members if name in group)


def _check_enough(name: str, images: int, groups: set[bytes], parts: Sequence[str]) -> None:
    needed = f"{', '.join(parts)} need one each"
    if images < len(parts):
        raise UserError(
            f"class {name!r} has {images} image{'s' * (images != 1)}, "
            f"but {needed}; add images so that it has at least {len(parts)}"
        )
    if (count := len(groups)) < len(parts):
        what = "are copies of one photograph" if count == 1 else f"are copies of {count} photographs"
        if _own(groups):
            what = f"are of {count} group{'s' * (count != 1)}"
        raise UserError(
            f"class {name!r} cannot be divided: its {images} images {what}, which stay together, but {needed}; "
            f"add {'images of other groups' if _own(groups) else 'other images'}"
        )


def _own(groups: set[bytes]) -> bool:
    return any(name.startswith(OWN) for name in groups)


def _remedy(groups: set[bytes]) -> str:
    return "add images of other groups, or make val/ and test/ yourself" if _own(groups) else "correct their labels"


def subset(
    positions: Sequence[int],
    labels: Sequence[int],
    classes: Sequence[str],
    count: int,
    seed: int,
    identities: Sequence[bytes] = (),
) -> list[int]:
    """Returns at most ``count`` positions, sorted; every class in its proportion and at least once. A smaller subset is
    part of a larger one. ``identities`` name each image of the store; without them positions do.

    Errors: UserError when there are more classes than ``count``.
    """
    check_count(count, len(classes))
    ranked: list[tuple[float, int]] = []
    for _, group in _by_class(positions, labels, classes):
        names = {position: identities[position] if identities else str(position).encode() for position in group}
        order = sorted(group, key=lambda position: (_hash(seed, "train-size", names[position]), position))
        # The first of each class comes before all others, the rest evenly.
        ranked += [((rank + 0.5) / len(group) if rank else -1.0, p) for rank, p in enumerate(order)]
    return sorted(p for _, p in sorted(ranked)[:count])


def check_count(count: int, classes: int) -> None:
    """Raises UserError when a training set of ``count`` images cannot have each of so many classes."""
    if count < classes:
        raise UserError(f"train size {count} is less than one image for each of the {classes} classes")


def _by_class(
    positions: Sequence[int], labels: Sequence[int], classes: Sequence[str]
) -> Iterator[tuple[str, list[int]]]:
    members: list[list[int]] = [[] for _ in classes]
    for position in positions:
        members[labels[position]].append(position)
    return zip(classes, members, strict=True)
