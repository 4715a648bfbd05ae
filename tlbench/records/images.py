"""What a model said of each image of a split, kept beside the records: ``images/``, a file for each cell and one for
each split that cells share.

A file is numpy's `.npz` (arrays without pickles) and is named by the SHA-256 of its bytes, so that a damaged one is
known by its name, and what is written twice is there once. A split's file holds ``images``, (n, 16) uint8, which
identify the images by their content, and ``labels`` (n,); a cell's holds arrays by the name of the split,
``val.predictions`` (n,). Further arrays may stand beside them: ``val.logits`` (n, classes).
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.machine import locks
from tlbench.machine.scratch import write_aside

IMAGES = "images"
"""The folder beside the records."""
RESULTS = "results"
"""Name of a cell's own file among those that a record names; the others are named by their splits."""
MOST_BYTES = 2**28
"""Most that a reader keeps of the files that it has read."""
IDENTITY_BYTES = 16
"""Bytes of an image's SHA-256 that are kept: enough to tell any two images apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitResults:
    """Holds what a model said of each image of a split, in the split's order."""

    images: NDArray[np.uint8]
    """(n, 16): the same rows are the same image, in every split, seed and cell."""
    labels: NDArray[Any]
    """(n,) true classes."""
    predictions: NDArray[Any]
    """(n,) predicted classes."""

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

    def split(self, name: str) -> SplitResults | None:
        """Returns the results on a split; None where there are none, or they cannot be read (see `problem`)."""
        if self._reader is None:
            return (self.splits or {}).get(name)
        try:
            return self._reader.split(self._names, name)
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
                    self._reader.split(self._names, name)
        except ValueError as error:
            return str(error)
        return ""


class Reader:
    """Reads the files of one run's folder; what cells share is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / IMAGES
        self._read: dict[str, Mapping[str, NDArray[Any]] | ValueError] = {}
        self._bytes = 0

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def split(self, names: Mapping[str, str], name: str) -> SplitResults | None:
        """Returns the results on a split, of a record that names these files; None where it has none.

        Errors: ValueError naming a file that is missing or damaged.
        """
        if name not in names or RESULTS not in names:
            return None
        shared, own = self._arrays(names[name]), self._arrays(names[RESULTS])
        try:
            found = SplitResults(
                images=shared["images"], labels=shared["labels"], predictions=own[f"{name}.predictions"]
            )
        except KeyError as error:
            raise ValueError(f"{self.path(names[RESULTS])}: has no {error}") from None
        if not len(found.images) == len(found.labels) == len(found.predictions):
            raise ValueError(f"{self.path(names[RESULTS])}: is of another number of images than its split")
        return found

    def _arrays(self, name: str) -> Mapping[str, NDArray[Any]]:
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

    def _load(self, name: str) -> Mapping[str, NDArray[Any]]:
        path = self.path(name)
        if not name.isalnum():  # what a changed record names must not lead out of the folder
            raise ValueError(f"{str(path)!r} is no name of a file of results")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        if _name(content) != name:
            raise ValueError(f"{path}: its content does not fit its name: torn or changed")
        return unpack(content)


def _bytes_of(read: Mapping[str, NDArray[Any]] | ValueError) -> int:
    return 0 if isinstance(read, ValueError) else sum(array.nbytes for array in read.values())


def write(folder: Path, splits: Mapping[str, SplitResults]) -> dict[str, str]:
    """Writes results into a run's folder; they are on the disk when this returns the names for the record.

    Errors: OSError.
    """
    names = {}
    for split, results in splits.items():
        names[split] = _keep(folder / IMAGES, pack({"images": results.images, "labels": _small(results.labels)}))
    own = {f"{split}.predictions": _small(results.predictions) for split, results in splits.items()}
    return {**names, RESULTS: _keep(folder / IMAGES, pack(own))}


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


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Writes arrays as the bytes of an `.npz` file: the same arrays, the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, **dict(arrays))  # type: ignore[arg-type]
    return file.getvalue()


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Reads what `pack` wrote. Errors: ValueError when it is something else."""
    if (arrays := _plainly(content)) is not None:
        return arrays
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"no file of results: {error}") from None


_ENTRY = struct.Struct("<4s6xH4xLL4xHHH8xL")
"""An entry of the list at the end of a ZIP file: signature, method, CRC-32, packed size, lengths of name, extra and
comment, place of its data (APPNOTE 6.3.10, 4.3.12)."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][iu][1248])', "
    rb"'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \} *\n",
    re.DOTALL,
)
"""What stands before whole numbers in one or two dimensions (numpy's format, version 1.0)."""


def _plainly(content: bytes) -> dict[str, NDArray[Any]] | None:
    """Reads arrays of whole numbers, as nearly all are, in a tenth of the time that numpy and zipfile take; None where
    there is anything else.
    """
    try:
        end = content.rindex(b"PK\x05\x06")
        count, at = struct.unpack_from("<H4xI", content, end + 10)
        arrays = {}
        for _ in range(count):
            signature, method, crc, size, *lengths, place = _ENTRY.unpack_from(content, at)
            name = content[at + 46 : at + 46 + lengths[0]].decode()
            start = place + 30 + sum(struct.unpack_from("<HH", content, place + 26))
            packed = content[start : start + size]
            plain = zlib.decompress(packed, -15) if method == zipfile.ZIP_DEFLATED else packed
            header = _HEADER.match(plain)
            if header is None or signature != b"PK\x01\x02" or not name.endswith(".npy") or zlib.crc32(plain) != crc:
                return None
            shape = [int(side) for side in header.groups()[1:] if side is not None]
            arrays[name[:-4]] = np.frombuffer(plain, header[1].decode(), offset=header.end()).reshape(shape)
            at += 46 + sum(lengths)
    except (ValueError, struct.error, zlib.error):
        return None
    return arrays


def to_bytes(splits: Mapping[str, SplitResults]) -> bytes:
    """Writes results as bytes, to be handed to another process."""
    return pack(
        {
            f"{split}.{part}": getattr(results, part)
            for split, results in splits.items()
            for part in ("images", "labels", "predictions")
        }
    )


def from_bytes(content: bytes) -> PerImage:
    """Reads what `to_bytes` wrote. Errors: ValueError."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in unpack(content).items():
        split, _, part = name.rpartition(".")
        arrays.setdefault(split, {})[part] = array
    return PerImage({split: SplitResults(**parts) for split, parts in arrays.items()})
