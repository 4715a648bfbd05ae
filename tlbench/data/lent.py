"""Decoded images that a run's processes share: what the checks have decoded, no cell's process decodes again.

The pixels lie in a file without a name, which goes with the last process that has it open. A process that is started is
handed the file, and looks among what it was lent before it decodes anything.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Loan = tuple[int, int]
"""Open files of the pixels and of what is known of the images: the same numbers in the process that is handed them."""

_lends = [False]
_files: dict[int, int] = {}
"""Address of pixels -> the open file that they lie in."""
_described: dict[int, IO[bytes]] = {}
"""Open file of pixels -> that of what is known of the images."""
_borrowed: dict[str, Loan] = {}
"""Key of a data set -> what this process was lent."""


@contextmanager
def lending(wanted: bool = True) -> Iterator[None]:
    """Has images that are decoded within put where other processes can be lent them, where that is ``wanted``."""
    before, _lends[0] = _lends[0], wanted
    try:
        yield
    finally:
        _lends[0] = before


# --- who lends ------------------------------------------------------------------------------------------------


def in_memory(shape: Sequence[int]) -> NDArray[np.uint8] | None:
    """Returns room that can be lent, in memory; None where nothing is to be, or where there is no such room."""
    if not _lends[0] or not hasattr(os, "memfd_create"):
        return None
    size = int(np.prod(shape))
    try:
        file = os.memfd_create("tlbench-images")
    except OSError:
        return None
    try:
        os.posix_fallocate(file, 0, size)
        pixels = np.frombuffer(mmap.mmap(file, size), np.uint8).reshape(shape)
    except (OSError, ValueError):  # a container may give less than it says; no images have no room
        os.close(file)
        return None
    _register(pixels, file)
    return pixels


def on_disk(pixels: NDArray[np.uint8], file: IO[bytes]) -> None:
    """Lets pixels that are mapped from a file be lent, where anything is to be."""
    if _lends[0]:
        _register(pixels, os.dup(file.fileno()))


def _register(pixels: NDArray[np.uint8], file: int) -> None:
    address = pixels.ctypes.data
    _files[address] = file
    # Parts of an array hold what it is a part of, not itself.
    weakref.finalize(pixels.base if isinstance(pixels.base, np.ndarray) else pixels, _close, address)


def _close(address: int) -> None:
    file = _files.pop(address)
    os.close(file)
    if (described := _described.pop(file, None)) is not None:
        described.close()


def loan(pixels: NDArray[np.uint8], known: Mapping[str, Any]) -> Loan | None:
    """Returns what another process needs to borrow pixels and what is ``known`` of them, which JSON can hold; None
    where they were not put where that is possible.
    """
    file = _files.get(pixels.ctypes.data)
    if file is None:
        return None
    if file not in _described:
        try:
            told = {"shape": pixels.shape, "known": known, "mapped": isinstance(pixels, np.memmap)}
            _described[file] = _written(json.dumps(told).encode())
        except OSError:  # a full disk; the other process decodes
            return None
    return file, _described[file].fileno()


def _written(content: bytes) -> IO[bytes]:
    """Returns a file without a name that holds so much: in memory where that is possible, so that a full disk holds
    nothing up. Errors: OSError.
    """
    file: IO[bytes]
    try:
        file = open(os.memfd_create("tlbench-known"), "wb+")  # noqa: SIM115 - open for as long as the pixels are
    except (OSError, AttributeError):
        file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        file.write(content)
        file.flush()
    except OSError:
        with suppress(OSError):  # it would write what is buffered once more
            file.close()
        raise
    return file


def name_of(key: Hashable) -> str:
    """Returns the name by which processes know a data set: the key that it is kept under, hashed."""
    return hashlib.sha256(repr(key).encode()).hexdigest()


# --- who borrows ----------------------------------------------------------------------------------------------


def accept(loans: Mapping[str, Sequence[int]]) -> None:
    """Takes what this process is lent, by name."""
    _borrowed.update({name: (pixels, known) for name, (pixels, known) in loans.items()})


def borrowed(key: Hashable) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Returns pixels and what is known of them; None where this process was not lent them, or cannot read them."""
    if (files := _borrowed.get(name_of(key))) is None:
        return None
    pixels_file, known_file = files
    try:
        described = json.loads(os.pread(known_file, os.fstat(known_file).st_size, 0))
        shape = described["shape"]
        if described["mapped"]:  # more than memory has room for: nobody reads all of it beforehand
            with open(pixels_file, "rb", closefd=False) as file:
                return np.memmap(file, np.uint8, "r", shape=tuple(shape)), described["known"]
        # Nobody may write there; of a file that is open for reading alone nobody could.
        mapped = mmap.mmap(pixels_file, int(np.prod(shape)), access=mmap.ACCESS_READ)
        pixels = np.frombuffer(mapped, np.uint8).reshape(shape)
    except (OSError, ValueError):
        return None
    pixels.reshape(-1)[:: mmap.PAGESIZE].sum()  # no timed round is to pay for the first touch
    return pixels, described["known"]
