"""Stratified splits by seed: every class is divided by itself, so that each split has each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tlbench.errors import UserError
from tlbench.seeds import seed_for

HELD_OUT = 0.15
"""Share of the images that a split without train/ and val/ keeps for validation, and again for the test."""


def divide(
    positions: Sequence[int], labels: Sequence[int], classes: Sequence[str], parts: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Divides positions into ``parts`` (name -> share) and ``train`` (the rest), at least one image of each class
    in every part. Each result is sorted.

    Errors: UserError naming a class that has too few images.
    """
    result: dict[str, list[int]] = {"train": [], **{name: [] for name in parts}}
    for name, group in _by_class(positions, labels, classes):
        if len(group) < len(result):
            raise UserError(
                f"class {name!r} has {len(group)} image{'s' * (len(group) != 1)}, "
                f"but {', '.join(result)} need one each; add images so that it has at least {len(result)}"
            )
        order = np.random.default_rng(seed_for(seed, "split", name)).permutation(group).tolist()
        for part, share in parts.items():
            # What is left must still give one to each part that follows, and to train.
            count = min(max(1, round(share * len(group))), max(1, (len(group) - 1) // len(parts)))
            result[part] += order[:count]
            order = order[count:]
        result["train"] += order
    return {part: sorted(members) for part, members in result.items()}


def subset(positions: Sequence[int], labels: Sequence[int], classes: Sequence[str], count: int, seed: int) -> list[int]:
    """Returns at most ``count`` positions, sorted; every class in its proportion and at least once. A smaller subset is
    part of a larger one.

    Errors: UserError when there are more classes than ``count``.
    """
    check_count(count, len(classes))
    ranked: list[tuple[float, int]] = []
    for name, group in _by_class(positions, labels, classes):
        order = np.random.default_rng(seed_for(seed, "train-size", name)).permutation(group).tolist()
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
