"""Folds of a cross-validation: each image is tested in one of them, by a model that has seen neither it nor a copy.

Which fold an image is in equals ``StratifiedGroupKFold(k, shuffle=True, random_state=seed)`` of scikit-learn 1.8 and
later (before, shuffling undid the stratification), where the images come in the order of what they are known by and
groups are numbered in the order of their names. Names and places of files, and the order in which they are listed, do
not matter. It is computed here, with the same floating-point operations, so that a record does not depend on which
scikit-learn is installed. An image that is added may move others to another fold: unlike a split by hash
(`tlbench.data.splits`), folds of equal sizes depend on all images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tlbench.data.splits import HELD_OUT, divide
from tlbench.errors import UserError
from tlbench.seeds import seed_for

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlbench.data.store import Known

FEW = 100
"""Test images: where one split leaves fewer, ``--folds auto`` takes folds. Of 100 images, an accuracy of 90 % has an
interval of 83 to 94 %; of 9 images, one of 57 to 98 %."""
FOLDS = 5
"""Folds that ``auto`` takes."""


def fold_parts(
    images: Known, parts: Mapping[str, Sequence[int]], fold: tuple[int, int], seed: int
) -> dict[str, list[int]]:
    """Returns train, val and test of one fold (its number from 1, and of how many) of all images that ``parts`` have:
    the test images are the fold, validation images are cut from the rest by seed, anew in each fold. Number 0 trains on
    all images: val and test are the same few of them, which tell nothing of new ones.

    Errors: UserError naming a class that has too few images for that.
    """
    from tlbench.data.copies import together

    number, count = fold
    positions = sorted({position for several in parts.values() for position in several})
    if number == 0:
        some = divide(
            positions,
            images.labels,
            images.classes,
            {"val": HELD_OUT},
            seed_for(seed, "fold", f"{number}of{count}"),
            together(images),
        )
        return {"train": positions, "val": some["val"], "test": some["val"]}
    of_image = folds_of_images(images, positions, count, seed)
    test = [position for position, its in zip(positions, of_image, strict=True) if its == number - 1]
    rest = [position for position, its in zip(positions, of_image, strict=True) if its != number - 1]
    if not test:
        raise UserError(
            f"fold {number} of {count} would have no image, so few are the groups; use fewer folds, or --folds off"
        )
    try:
        kept = divide(
            rest,
            images.labels,
            images.classes,
            {"val": HELD_OUT},
            # Else the same images would be held out of training in every fold.
            seed_for(seed, "fold", f"{number}of{count}"),
            together(images),
        )
    except UserError as error:
        raise UserError(
            f"fold {number} of {count}, of what it leaves to train on: {error}; or use --folds off"
        ) from None
    return {**kept, "test": test}


def folds_of_images(images: Known, positions: Sequence[int], count: int, seed: int) -> list[int]:
    """Returns the fold of each of these images, from 0. Errors: UserError where there are fewer photographs."""
    from tlbench.data.copies import together

    names = together(images)
    there = dict.fromkeys(names[position] for position in positions)
    # Where nothing says what an image is known by, its pixels name it, which are others at another size.
    numbers = {name: number for number, name in enumerate(sorted(there) if images.identities else there)}
    if len(numbers) < count:
        what, others = ("groups", "") if images.together else ("photographs", ", of which the others are copies")
        copies = f" ({len(positions)} images{others})" if len(positions) > len(numbers) else ""
        raise UserError(
            f"{count} folds need {count} {what}, but there are {len(numbers)}{copies}; use fewer folds, or --folds off"
        )
    labels = tuple(images.labels[position] for position in positions)
    return list(_assigned(labels, tuple(numbers[names[position]] for position in positions), count, seed))


@lru_cache(maxsize=8)
def _assigned(labels: tuple[int, ...], groups: tuple[int, ...], count: int, seed: int) -> tuple[int, ...]:
    import numpy as np

    return tuple(assign(np.array(labels), np.array(groups), count, seed).tolist())


def assign(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Returns the fold of each image, (n,) from 0 to ``count`` - 1.

    ``labels`` (n,) are classes, ``groups`` (n,) are whole numbers: images with the same one come into one fold. Groups
    are taken in shuffled order, those first whose images are the most unevenly spread over classes, and each goes to
    the fold where it leaves every class spread over the folds as evenly as can be; where that is equal, to the one
    with the fewest images.
    """
    import numpy as np

    _, label_of = np.unique(labels, return_inverse=True)
    names, group_of = np.unique(groups, return_inverse=True)
    table = np.zeros((names.size, int(label_of.max()) + 1))
    np.add.at(table, (group_of, label_of), 1)
    sizes = np.bincount(label_of).reshape(1, -1)
    order = np.arange(names.size)
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-np.std(table[order], axis=1), kind="stable")]

    held = np.zeros((count, table.shape[1]))
    diagonal = np.arange(count)
    fold_of_group = np.zeros(names.size, np.int64)
    for group in order:
        tried = np.repeat(held[None], count, axis=0)
        tried[diagonal, diagonal] += table[group]
        uneven = np.mean(np.std(tried / sizes, axis=1), axis=1)
        fold = _best(uneven.tolist(), held.sum(axis=1).tolist())
        held[fold] += table[group]
        fold_of_group[group] = fold
    found: NDArray[np.int64] = fold_of_group[group_of]
    return found


def _best(uneven: Sequence[float], images: Sequence[float]) -> int:
    """Returns the fold that is best, as they come: one that is more even is, and so is one that is as good as level and
    has fewer images.
    """
    best, least, fewest = 0, float("inf"), float("inf")
    for fold, (one, held) in enumerate(zip(uneven, images, strict=True)):
        level = abs(one - least) <= 1e-8 + 1e-5 * least if least < float("inf") else False
        if one < least or (level and held < fewest):
            best, least, fewest = fold, one, held
    return best
