"""Another data set, as a model is tested on it that was trained on this one: classes are matched by their names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.data import DATASETS, Dataset, Described, Request, Split, parse_dataset
from tlbench.data.scan import listed_once
from tlbench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlbench.data import Parts
    from tlbench.data.store import Images, Known

NAMED = 3
"""Most classes that an error names."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Says which images of another data set a model is tested on, and what of it is left out."""

    name: str
    """The data set, as its notes call it."""
    positions: NDArray[np.int64]
    """(n,) positions of the tested images in their store."""
    labels: NDArray[np.int64]
    """(n,) the class of each, of the training set's classes."""
    identities: tuple[bytes, ...]
    """What identifies each of them (`tlbench.data.store.Images`)."""
    classes: int
    """Classes that have such images."""
    missing: tuple[str, ...]
    """Classes of the training set without any."""
    unknown: tuple[str, ...]
    """Classes that the training set does not have."""
    left_out: int
    """Images of these."""
    seen: int
    """Images left out since the same files were trained on, or chosen by."""
    dropped: int
    """Images that could not be read."""

    @property
    def sha256(self) -> str:
        """Returns the SHA-256 of what identifies the tested images and of their classes, whatever size they have."""
        digest = hashlib.sha256(b"".join(self.identities))
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def load_elsewhere(dataset: str, request: Request, own: Described) -> tuple[Elsewhere, Split]:
    """Returns another data set as it tests a model of ``own``, and the images themselves.

    Its own test split is what is tested on, where it has one (a folder test/, or val/ in its place); where images would
    be split by seed, all of them are, since nothing is trained on them. Errors: UserError for whatever is wrong with
    it, and where no image of a class of ``own`` is left.
    """
    from tlbench.data.streaming import taken_from

    with listed_once():
        row, asked = _row(dataset, request, own)
        images, parts = row.load(asked)
        found = _matched(dataset, images, _tested(row, asked, images, parts), own)
    return found, Split(pixels=taken_from(images), positions=found.positions, classes=found.labels)


def describe_elsewhere(dataset: str, request: Request, own: Described, *, decode: bool = True) -> Elsewhere | None:
    """Returns what `load_elsewhere` does, without the images; None where something would have to be decoded and
    ``decode`` is not wanted. Errors: as there.
    """
    with listed_once():
        row, asked = _row(dataset, request, own)
        if row.describe is None:
            return load_elsewhere(dataset, request, own)[0] if decode else None
        known = row.describe(asked, decode)
        return None if known is None else _matched(dataset, known[0], _tested(row, asked, *known), own)


def _row(dataset: str, request: Request, own: Described) -> tuple[Dataset, Request]:
    from tlbench.data.decoding import scale_from

    name, path = parse_dataset(dataset)
    scale = scale_from(own.pixel_range) if own.pixel_range else None
    return DATASETS[name], replace(request, path=path, undivided=True, fold=None, relabel="", scale=scale)


def _tested(row: Dataset, asked: Request, images: Known | Images, parts: Parts) -> list[int]:
    """Returns the positions of what may be tested on."""
    return list(range(len(images.labels))) if _is_cut_by_seed(row, asked, parts) else sorted(parts["test"])


def _is_cut_by_seed(row: Dataset, asked: Request, parts: Parts) -> bool:
    """Tells whether the test split follows the seed, and so is not the data set's own."""
    other = replace(asked, seed=asked.seed + 1)
    again = row.describe(other, True) if row.describe is not None else row.load(other)
    assert again is not None, "it is None only where nothing may be decoded"
    return sorted(again[1]["test"]) != sorted(parts["test"])


def classes_elsewhere(own: Sequence[str], other: Sequence[str]) -> dict[int, int]:
    """Maps the classes of another data set to those of the training set, by their names: whole, in capitals or not as
    they are written, in whichever of Unicode's two ways.
    """
    places = {unicodedata.normalize("NFC", name): place for place, name in enumerate(own)}
    plain = (unicodedata.normalize("NFC", name) for name in other)
    return {place: places[name] for place, name in enumerate(plain) if name in places}


def check_classes(dataset: str, own: Sequence[str], other: Sequence[str]) -> None:
    """Raises UserError where another data set has none of the training set's classes, naming some of both."""
    if classes_elsewhere(own, other):
        return
    alike = {name.casefold().strip(): name for name in own}
    hint = next((f"; {name!r} is {alike[name.casefold().strip()]!r} there" for name in other
                 if name.casefold().strip() in alike), "")  # fmt: skip
    raise UserError(
        f"{dataset!r} has none of the classes that are trained, which are matched by name: it has {_some(other)}, the "
        f"training set {_some(own)}{hint}; give its classes the names of the training set's"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*map(repr, names[:NAMED]), *(["…"] if len(names) > NAMED else [])])


def _matched(dataset: str, images: Known, tested: Sequence[int], own: Described) -> Elsewhere:
    """Keeps what a model can be tested on. Errors: UserError where that is nothing."""
    import numpy as np

    check_classes(dataset, own.classes, images.classes)
    to_own = classes_elsewhere(own.classes, images.classes)
    identities = images.identities or images.digests
    seen_before = {bytes(own.identities[n]) for part in ("train", "val") for n in own.positions[part].tolist()}
    known = [position for position in tested if images.labels[position] in to_own]
    kept = [position for position in known if bytes(identities[position]) not in seen_before]
    if not kept:
        why = "all of them were trained on, or chosen by" if known else "none is of a class that is trained"
        raise UserError(f"{dataset!r} has no image to test on: {why}; give other images, or leave it away")
    labels = np.array([to_own[images.labels[position]] for position in kept], np.int64)
    there = set(labels.tolist())
    name, path = parse_dataset(dataset)
    return Elsewhere(
        name=f"{name}:{Path(path)}" if DATASETS[name].takes_path else dataset,
        positions=np.array(kept, np.int64),
        labels=labels,
        identities=tuple(bytes(identities[position]) for position in kept),
        classes=len(there),
        missing=tuple(name for place, name in enumerate(own.classes) if place not in there),
        unknown=tuple(name for place, name in enumerate(images.classes) if place not in to_own),
        left_out=len(tested) - len(known),
        seen=len(known) - len(kept),
        dropped=len(images.dropped),
    )
