"""What a model said of each image of a split, kept beside the records: ``images/``, a file for each cell and one for
each split that cells share.

A file is numpy's `.npz` (arrays without pickles) and is named by the SHA-256 of its bytes, so that a damaged one is
known by its name, and what is written twice is there once. A split's file holds ``images``, (n, 16) uint8, which
identify the images by their content, ``labels`` (n,), and where they are known ``classes`` and ``files``, names as
texts; a cell's holds arrays by the name of the split: ``val.predictions`` (n,), and unless ``--logits off`` left them
out ``val.logits`` (n, classes) float16. Logits are relative to the largest of their image (`SplitResults.logits`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.machine import locks
from tlbench.machine.scratch import write_aside
from tlbench.records.arrays import pack, unpack

IMAGES = "images"
"""The folder beside the records."""
RESULTS = "results"
"""Name of a cell's own file among those that a record names; the others are named by their splits."""
MOST_BYTES = 2**28
"""Most that a reader keeps of the files that it has read."""
IDENTITY_BYTES = 16
"""Bytes of an image's SHA-256 that are kept: enough to tell any two images apart."""
TEXTS = ("classes", "files")
"""What is kept of a split as texts, where it is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitResults:
    """Holds what a model said of each image of a split, in the split's order."""

    images: NDArray[np.uint8]
    """(n, 16): the same rows are the same image, in every split, seed and cell."""
    labels: NDArray[Any]
    """(n,) true classes."""
    predictions: NDArray[Any]
    """(n,) predicted classes: those of the largest logits in fp32."""
    logits: NDArray[np.float16] | None = None
    """(n, classes): how far each class's logit lies below the largest of its image, whose own is 0. Probabilities,
    losses and ranks are those of the logits themselves; none overflows, and what counts most, near 0, is held most
    exactly. None where they were not kept."""
    classes: tuple[str, ...] = ()
    """Names of the classes by their numbers; empty where they are unknown."""
    files: tuple[str, ...] = ()
    """Path of each image, relative to the folder of the data set; empty where there are no files, or none is known."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Tells of each image whether it was classified correctly."""
        right: NDArray[np.bool_] = self.predictions == self.labels
        return right


class PerImage:
    """Holds the results of one record on single images: as just measured, or as they lie in a folder, read when
    needed."""

    __slots__ = ("_names", "_reader", "splits")  # there may be one for each of 50,000 records

    def __init__(
        self,
        splits: Mapping[str, SplitResults] | None = None,
        reader: Reader | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.splits, self._reader = splits, reader
        self._names: Mapping[str, str] = {} if names is None else names

    @property
    def file(self) -> str | None:
        """Returns the path of the cell's file; None for results that are not on the disk."""
        return str(self._reader.path(self._names[RESULTS])) if self._reader and RESULTS in self._names else None

    @property
    def place(self) -> dict[str, Any] | None:
        """Returns where the results lie, in plain values; None for those that are not on the disk."""
        return {"folder": str(self._reader.folder.parent), "names": dict(self._names)} if self._reader else None

    def split(self, name: str, logits: bool = True) -> SplitResults | None:
        """Returns the results on a split; None where there are none, or they cannot be read (see `problem`). Without
        ``logits``, those on the disk are not unpacked.
        """
        if self._reader is None:
            return (self.splits or {}).get(name)
        try:
            return self._reader.split(self._names, name, logits)
        except ValueError:
            return None

    @property
    def problem(self) -> str:
        """Says what is wrong with the files; empty when nothing is."""
        if self._reader is None:
            return ""
        try:
            for name in self._names:
                if name != RESULTS:
                    self._reader.split(self._names, name, logits=False)
        except ValueError as error:
            return str(error)
        return ""


class Reader:
    """Reads the files of one run's folder; what cells share is read once, and of logits none is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / IMAGES
        self._read: dict[str, Mapping[str, Any] | ValueError] = {}
        self._bytes = 0

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def split(self, names: Mapping[str, str], name: str, logits: bool = True) -> SplitResults | None:
        """Returns the results on a split, of a record that names these files; None where it has none.

        Errors: ValueError naming a file that is missing or damaged.
        """
        if name not in names or RESULTS not in names:
            return None
        shared, own = self._arrays(names[name]), self._arrays(names[RESULTS])
        kept = f"{name}.logits"
        try:
            found = SplitResults(
                images=shared["images"],
                labels=shared["labels"],
                predictions=own[f"{name}.predictions"],
                logits=unpack(self._content(names[RESULTS]), kept.__eq__).get(kept) if logits else None,
                **{text: shared.get(text, ()) for text in TEXTS},
            )
        except KeyError as error:
            raise ValueError(f"{self.path(names[RESULTS])}: has no {error}") from None
        _check(found, self.path(names[RESULTS]))
        return found

    def _arrays(self, name: str) -> Mapping[str, Any]:
        if name not in self._read:
            try:
                self._read[name] = self._load(name)
            except ValueError as error:
                self._read[name] = error
            self._bytes += _bytes_of(self._read[name])
        found = self._read[name]
        while self._bytes > MOST_BYTES and len(self._read) > 1:  # the first is read again, should it be asked for
            self._bytes -= _bytes_of(self._read.pop(next(iter(self._read))))
        if isinstance(found, ValueError):
            raise found
        return found

    def _load(self, name: str) -> Mapping[str, Any]:
        arrays = unpack(self._content(name), lambda array: not array.endswith(".logits"))
        return {each: tuple(array.tolist()) if each in TEXTS else array for each, array in arrays.items()}

    def _content(self, name: str) -> bytes:
        path = self.path(name)
        if not name.isalnum():  # what a changed record names must not lead out of the folder
            raise ValueError(f"{str(path)!r} is no name of a file of results")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        if _name(content) != name:
            raise ValueError(f"{path}: its content does not fit its name: torn or changed")
        return content


def _check(found: SplitResults, path: Path) -> None:
    """Raises ValueError where the parts of results do not fit each other."""
    if not len(found.images) == len(found.labels) == len(found.predictions):
        raise ValueError(f"{path}: is of another number of images than its split")
    if found.logits is not None and (found.logits.ndim != 2 or len(found.logits) != len(found.labels)):
        raise ValueError(f"{path}: its logits are of another number of images than its split")


def _bytes_of(read: Mapping[str, Any] | ValueError) -> int:
    if isinstance(read, ValueError):
        return 0
    return sum(sum(map(len, each)) if isinstance(each, tuple) else each.nbytes for each in read.values())


def write(folder: Path, splits: Mapping[str, SplitResults]) -> dict[str, str]:
    """Writes results into a run's folder; they are on the disk when this returns the names for the record.

    Errors: OSError.
    """
    names = {}
    for split, results in splits.items():
        shared = {"images": results.images, "labels": _small(results.labels), **_texts(results)}
        names[split] = _keep(folder / IMAGES, pack(shared))
    own: dict[str, NDArray[Any]] = {}
    for split, results in splits.items():
        own[f"{split}.predictions"] = _small(results.predictions)
        if results.logits is not None:
            own[f"{split}.logits"] = results.logits
    return {**names, RESULTS: _keep(folder / IMAGES, pack(own))}


def _texts(results: SplitResults) -> dict[str, NDArray[np.str_]]:
    """Returns names as arrays of texts, of those that are known."""
    return {text: np.array(known, np.str_) for text in TEXTS if (known := getattr(results, text))}


def _keep(folder: Path, content: bytes) -> str:
    """Writes a file under the name of its content: aside, synced, then renamed, so that it is there whole or not."""
    name = _name(content)
    path = folder / f"{name}.npz"
    folder.mkdir(exist_ok=True)
    try:
        if path.read_bytes() == content:
            return name
    except OSError:
        pass
    write_aside(path, content)
    for each in (folder, folder.parent):
        locks.sync_folder(each)
    return name


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _small(classes: NDArray[Any]) -> NDArray[Any]:
    """Returns whole numbers in the smallest type that holds them all."""
    most = int(classes.max(initial=0))
    return classes.astype(next(kind for kind in (np.uint8, np.uint16, np.uint32) if most <= np.iinfo(kind).max))


def to_bytes(splits: Mapping[str, SplitResults]) -> bytes:
    """Writes results as bytes, to be handed to another process."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, results in splits.items():
        parts = {part: getattr(results, part) for part in ("images", "labels", "predictions", "logits")}
        known = {**{part: array for part, array in parts.items() if array is not None}, **_texts(results)}
        arrays |= {f"{split}.{part}": array for part, array in known.items()}
    return pack(arrays)


def from_bytes(content: bytes) -> PerImage:
    """Reads what `to_bytes` wrote. Errors: ValueError."""
    arrays: dict[str, dict[str, Any]] = {}
    for name, array in unpack(content).items():
        split, _, part = name.rpartition(".")
        arrays.setdefault(split, {})[part] = tuple(array.tolist()) if part in TEXTS else array
    return PerImage({split: SplitResults(**parts) for split, parts in arrays.items()})
