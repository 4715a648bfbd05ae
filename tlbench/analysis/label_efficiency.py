"""Accuracy against labelled images: which configurations are one curve over train sizes, where two of them cross, and
which were trained on the most images, so that nothing trained on fewer is weighed against them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tlbench.analysis.grouping import identity
from tlbench.analysis.summary import Configuration
from tlbench.errors import UserError
from tlbench.grid.values import ALL, or_none, whole

if TYPE_CHECKING:
    from tlbench.analysis.stats import Crossed, Scores

_SIZE = re.compile(r"(?:^| )train-size=(\d+)")


def train_size(row: Mapping[str, Any]) -> int | None:
    """Returns how many training images a configuration asked for; None for all."""
    found = _SIZE.search(row["variant"] or "")
    return int(found[1]) if found else None


def _images_by_seed(row: Configuration) -> dict[int, int]:
    """Maps each seed to the images that were really trained on."""
    return {item.seed: item.train_images for item in row["group"] if item.train_images}


def images_of_training(row: Configuration) -> float | None:
    """Returns the training images, the mean over the records: splits of other seeds may have a few more or less."""
    counts = [item.train_images for item in row["group"] if item.train_images and item.status == "ok"]
    return fmean(counts) if counts else None


# --- the most images ------------------------------------------------------------------------------------------


def of_the_most_images(rows: Sequence[Configuration]) -> tuple[list[Any], list[Any]]:
    """Parts trained configurations into those of the largest train size and those of smaller ones. What asked for more
    images than there are has the same as what asked for all, and stands for it where that is not there; beside it, it
    is the same once more, and in neither part.
    """
    sizes = {train_size(row) for row in rows}
    if len(sizes) < 2:
        return list(rows), []
    largest = None if None in sizes else max(size for size in sizes if size is not None)
    chosen = [row for row in rows if train_size(row) == largest]
    most = {seed: images for row in chosen for seed, images in _images_by_seed(row).items()}
    there = {_setting(row) for row in chosen}
    smaller = []
    for row in rows:
        if train_size(row) == largest:
            continue
        images = _images_by_seed(row)
        if not images or any(most.get(seed) != count for seed, count in images.items()):
            smaller.append(row)
        elif _setting(row) not in there:
            chosen.append(row)
    return chosen, smaller


def without_smaller(rows: Sequence[Configuration]) -> list[Any]:
    """Returns trained configurations less those that were trained on fewer images than others of the same data set,
    device and machine.
    """
    places: dict[Hashable, list[Configuration]] = {}
    for row in rows:
        places.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    kept = {id(row) for several in places.values() for row in of_the_most_images(several)[0]}
    return [row for row in rows if id(row) in kept]


def of_size(rows: Sequence[Configuration], size: str | None) -> list[Any]:
    """Returns trained configurations of one train size, ``all`` or a number; of the largest where none is named.

    Errors: UserError naming the sizes that there are.
    """
    if size is None or not rows:
        return of_the_most_images(rows)[0]
    try:
        wanted = or_none(whole(1), ALL)(size)
    except ValueError:
        raise UserError(f"--train-size {size!r} is neither {ALL} nor a number of images, such as 100") from None
    chosen = [row for row in rows if train_size(row) == wanted]
    if not chosen:
        known = sorted({train_size(row) for row in rows}, key=lambda one: (one is None, one or 0))
        named = ", ".join(ALL if one is None else f"{one}" for one in known)
        raise UserError(f"no training cell of these runs has train size {size}; there are: {named}")
    return chosen


# --- curves ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A curve is one backbone, policy, head and setting at two or more train sizes, the smallest first."""

    rows: tuple[Any, ...]
    images: tuple[float, ...]
    """Training images at each, the mean over the records."""
    others: int = 0
    """Curves of the same backbone and policy, with other heads or settings, that this one was chosen among."""

    @property
    def last(self) -> Configuration:
        """Returns the configuration with the most images."""
        row: Configuration = self.rows[-1]
        return row


def curves(rows: Iterable[Configuration]) -> list[Curve]:
    """Returns the curves of test accuracy, of each backbone and policy one: where there are several heads or settings,
    the one that is best by validation accuracy at the largest size. Nothing is chosen by test accuracy.
    """
    rows = [row for row in rows if row["task"] == "train"]
    if len({train_size(row) for row in rows}) < 2:  # as of most reports, which may have thousands of rows
        return []
    found: dict[Hashable, list[Curve]] = {}
    for members in _by_setting(rows).values():
        curve = _curve(members)
        if curve is not None:
            found.setdefault((*_place(curve.last), curve.last["freeze"]), []).append(curve)
    return [_best(several) for several in found.values()]


def _place(row: Configuration) -> tuple[Any, ...]:
    """Returns what two curves must agree in to be held against each other."""
    return row["dataset"], row["device"], row["machine"], row["backbone"], row["weights"]


def _by_setting(rows: Iterable[Configuration]) -> dict[Hashable, list[Configuration]]:
    found: dict[Hashable, list[Configuration]] = {}
    for row in rows:
        if row["records_ok"] and row["accuracy_test"] is not None:
            found.setdefault(_setting(row), []).append(row)
    return found


def _setting(row: Configuration) -> tuple[Any, ...]:
    """Returns all that makes a configuration but its train size."""
    rest = _SIZE.sub("", row["variant"] or "").strip()
    return (*_place(row), rest, *identity(row, without=("variant",)).values())


def _curve(members: Sequence[Configuration]) -> Curve | None:
    """Makes a curve of configurations that differ in the train size alone; None where there is one size only. Of sizes
    with the same images, such as all and more than there are, the first stands for all.
    """
    by_images: dict[Hashable, tuple[float, Configuration]] = {}
    for row in sorted(members, key=lambda row: (train_size(row) is not None, -(train_size(row) or 0))):
        images = images_of_training(row)
        if images is not None and not any(_same(row, other) for _, other in by_images.values()):
            by_images[id(row)] = images, row
    points = sorted(by_images.values(), key=lambda point: point[0])
    if len({images for images, _ in points}) < 2:
        return None
    return Curve(rows=tuple(row for _, row in points), images=tuple(images for images, _ in points))


def _same(row: Configuration, other: Configuration) -> bool:
    """Tells whether two configurations were trained on the same number of images at every seed that both have."""
    ours, theirs = _images_by_seed(row), _images_by_seed(other)
    shared = ours.keys() & theirs.keys()
    return bool(shared) and all(ours[seed] == theirs[seed] for seed in shared)


def _best(several: Sequence[Curve]) -> Curve:
    best = max(several, key=lambda curve: (curve.images[-1], curve.last["accuracy_val"] or 0.0))
    return Curve(rows=best.rows, images=best.images, others=len(several) - 1)


# --- crossings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossing:
    """Says where the curves of two policies of one backbone cross."""

    first: Configuration
    """Configuration of each with the most images; the first is the one that is ahead at the largest size that
    both have."""
    second: Configuration
    least: float
    """Training images of the smallest and the largest size that both have."""
    most: float
    sizes: int
    found: Crossed
    """What `tlbench.analysis.stats.crossing` says of them in this order."""


def crossings(found: Sequence[Curve]) -> list[Crossing]:
    """Returns what can be said of every two policies of a backbone, each pair by itself; first those that cross."""
    pairs = [
        pair
        for one, other in itertools.combinations(found, 2)
        if _place(one.last) == _place(other.last) and (pair := _crossing(one, other)) is not None
    ]
    order = ("crosses", "one leads", "cannot say")
    return sorted(pairs, key=lambda pair: order.index(pair.found.outcome))


def _crossing(one: Curve, other: Curve) -> Crossing | None:
    """Holds two curves against each other at the sizes that both have; None where there is one only."""
    from tlbench.analysis import stats

    theirs = {train_size(row): (row, images) for row, images in zip(other.rows, other.images, strict=True)}
    shared = [
        (row, *theirs[train_size(row)], images)
        for row, images in zip(one.rows, one.images, strict=True)
        if train_size(row) in theirs
    ]
    if shared and shared[-1][0]["accuracy_test"] < shared[-1][1]["accuracy_test"]:
        return _crossing(other, one)
    sizes = [fmean((images, others)) for _, _, others, images in shared]
    if len(sizes) < 2 or any(after <= before for before, after in itertools.pairwise(sizes)):
        return None
    scores = _scores([row for row, *_ in shared] + [row for _, row, *_ in shared])
    return Crossing(
        first=one.last,
        second=other.last,
        least=sizes[0],
        most=sizes[-1],
        sizes=len(sizes),
        found=stats.crossing(sizes, scores[: len(sizes)], scores[len(sizes) :]),
    )


def _scores(rows: Sequence[Configuration]) -> list[Scores]:
    """Returns which test images each seed of configurations has right; where a record does not tell, their number and
    its accuracy have to do (`tlbench.analysis.stats.counted`), and where even that is unknown, one seed, which says
    nothing.
    """
    import numpy as np

    from tlbench.analysis import stats

    known = [row["scores"]["accuracy_test"] for row in rows]
    first = 1 + max((int(images.max()) for one in known if one for images in one.images), default=0)
    found = []
    for row, one in zip(rows, known, strict=True):
        if one is None:
            values, images = list(row["values"]["accuracy_test"].values()), row["test_images"]
            if images:
                one = stats.counted(values, images, first)
            else:
                one = stats.Scores(images=(np.array([first]),), correct=(np.array([fmean(values)]),))
            first += images or 1
        found.append(one)
    return found
