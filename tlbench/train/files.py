"""Activations that exceed the memory for them, as files in the cache folder; each says itself what it holds.

A file begins with a page that says whose activations follow, of which shape and type. At its end stand the hash of
each part, taken of the values as they were computed, and how computing them went. It is filled under a name that no
other process has (`tlbench.machine.scratch`), and what does not fit its description is never used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlbench.grid.values import written_size
from tlbench.machine import locks
from tlbench.machine.scratch import Scratch, open_plain, write_all
from tlbench.train.inventory import MAGIC, final, folder, make_way
from tlbench.train.stored import Fill

DISK_SHARE = 0.1
"""Share of the free disk that activations may take by default."""
START = 4096
"""Bytes before the activations: a page, so that they can be mapped into memory."""
_FORMAT = MAGIC + b" 2\n"
_END = b"tlbench end\n"
_TAIL = 8 + 32 + len(_END)
"""Last bytes of a file: the length of the description before them, its SHA-256, and a mark."""
_PART = 96
"""Bytes that a part takes in the description, at most."""
_REST = 4096
"""Bytes of the description beside its parts, at most."""
_LEAST_PART = 16
"""Images in a part, at least, as far as the room that is reserved for the description goes."""


class NoRoom(Exception):
    """The disk cannot take the activations; the message says why."""


class Damaged(Exception):
    """A file is not what its description says, or cannot be read; the message says in which way."""


# --- writing --------------------------------------------------------------------------------------------------


class Filling:
    """Holds room in a file for activations that are being computed, from its making to `publish` or `drop`."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Makes room for activations (M, …) of a name. Errors: OSError, with nothing left behind."""
        self.name, self.shape, self.dtype = name, shape, dtype
        self._parts: list[tuple[int, str]] = []
        self._rows = 0
        self._scratch = Scratch(final(name))
        try:
            # A full disk must show now, not when most of it has been computed.
            locks.reserve(self._scratch.file, _at_most(shape, dtype))
            self._scratch.file.seek(0)
            write_all(self._scratch.file, _head(name, shape, dtype))
        except BaseException:
            self.drop()
            raise

    def put(self, start: int, rows: Tensor) -> None:
        """Takes the activations (n, …) of the images from ``start`` on, which follow those that it has.

        Errors: NoRoom where the disk takes no more after all; ValueError for what is not the next part.
        """
        if start != self._rows or tuple(rows.shape[1:]) != self.shape[1:] or rows.dtype != self.dtype:
            raise ValueError(f"{tuple(rows.shape)} {rows.dtype} from {start} on: not what follows {self._rows} images")
        content = rows.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        try:
            write_all(self._scratch.file, content)
        except OSError as error:
            raise _unkept(self.shape, self.dtype, error) from None
        self._parts.append((len(rows), hashlib.sha256(content).hexdigest()))
        self._rows += len(rows)

    def publish(self, facts: Mapping[str, Any]) -> Tensor:
        """Makes the filled file known under its name, with facts about it. Returns the activations, as they lie there.

        Errors: NoRoom where the disk takes no more after all; nothing is left behind then.
        """
        if self._rows != self.shape[0]:
            raise ValueError(f"{self._rows} of {self.shape[0]} images are there")
        description = {**_described(self.name, self.shape, self.dtype), "parts": self._parts, **facts}
        file = self._scratch.file
        try:
            write_all(file, _tail(description))
            file.truncate()
            self._scratch.publish()
            return _mapped(file, self.shape, self.dtype)
        except OSError as error:
            raise _unkept(self.shape, self.dtype, error) from None
        finally:
            self.drop()

    def drop(self) -> None:
        """Removes what was not published. A second time nothing happens."""
        self._scratch.drop()


def reserve(name: str, shape: tuple[int, ...], dtype: torch.dtype, budget: int | None, memory: int) -> Filling:
    """Makes room for activations of a shape, which `Filling.publish` makes known under a name.

    All files together stay within ``budget`` bytes (None: a share of what is free); those used longest ago give way.
    ``memory`` is the bytes that the memory had for them, for the message. Errors: NoRoom, with nothing left behind.
    """
    size = _size(shape, dtype)
    try:
        folder().mkdir(parents=True, exist_ok=True)
        left, budget = make_way(_at_most(shape, dtype), budget, DISK_SHARE)
        if _at_most(shape, dtype) > left:
            raise NoRoom(
                f"activations of {written_size(size)} fit neither into memory ({written_size(memory)}) nor onto the "
                f"disk ({written_size(left)} left of {written_size(budget)})"
            )
        return Filling(name, shape, dtype)
    except OSError as error:
        raise NoRoom(
            f"activations of {written_size(size)} do not fit into memory ({written_size(memory)}), and {folder()} "
            f"cannot take them ({error.strerror})"
        ) from None


def _unkept(shape: tuple[int, ...], dtype: torch.dtype, error: OSError) -> NoRoom:
    size = written_size(_size(shape, dtype))
    return NoRoom(f"activations of {size} could not be kept in {folder()} ({error.strerror})")


# --- reading --------------------------------------------------------------------------------------------------


def read(name: str, images: int | None) -> tuple[Tensor, dict[str, Any]] | None:
    """Returns the activations of this name and the facts about them, checked bit for bit; None without a file.
    ``images`` is how many images there are to be; None: as many as it says, with ``batches`` among the facts.

    Errors: Damaged. A file that is not what it should be has been removed.
    """
    path = final(name)
    try:
        file = open_plain(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Damaged(f"the stored activations {path.name} cannot be read ({error.strerror})") from None
    with file:
        try:
            shape, dtype, facts = _checked(file, name, images)
            tensor = _mapped(file, shape, dtype)
        except OSError as error:
            raise Damaged(f"the stored activations {path.name} cannot be read ({error.strerror})") from None
        except ValueError as error:
            with suppress(OSError):  # another process may have put a sound one there
                if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                    path.unlink()
            raise Damaged(f"the stored activations {path.name} are damaged ({error})") from None
    with suppress(OSError):
        os.utime(path)  # those used longest ago give way
    return tensor, facts


def _checked(file: FileIO, name: str, images: int | None) -> tuple[tuple[int, ...], torch.dtype, dict[str, Any]]:
    """Returns shape, type and facts of an open file that is what it says, to the last bit.

    Errors: ValueError saying what is wrong; OSError.
    """
    begin = _read(file, START)
    if not begin.startswith(_FORMAT):
        raise ValueError("it is of another version" if begin.startswith(MAGIC) else "it begins as no such file does")
    told = _description(file)
    try:
        shape, dtype = tuple(map(int, told["shape"])), getattr(torch, told["dtype"])
        parts = [(int(rows), str(digest)) for rows, digest in told["parts"]]
        kinds = {"seconds": float, "images": int, "channels_last": bool}
        facts: dict[str, Any] = {key: kind(told[key]) for key, kind in kinds.items()}
        facts["fill"] = Fill(**told["fill"])
        if images is None:
            images, facts["batches"] = facts["images"], [(int(start), int(rows)) for start, rows in told["batches"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its description is not complete: {type(error).__name__} {error}") from None
    if not (isinstance(dtype, torch.dtype) and shape and begin == _head(name, shape, dtype)):
        raise ValueError("it does not describe these activations")
    if not shape[0] == images == facts["images"]:
        raise ValueError(f"it holds those of {shape[0]} images, not of {images}")
    if sum(rows for rows, _ in parts) != images:
        raise ValueError("it does not tell of all its images")
    if file.tell() != START + _size(shape, dtype):  # its description begins here
        raise ValueError("it is longer or shorter than it says")
    file.seek(START)
    first = 0
    for rows, digest in parts:
        if hashlib.sha256(_read(file, _size((rows, *shape[1:]), dtype))).hexdigest() != digest:
            raise ValueError(f"those of the images from {first} to {first + rows - 1} are not what was computed")
        first += rows
    return shape, dtype, facts


def _description(file: FileIO) -> dict[str, Any]:
    """Returns what stands at the end of a file, which is then at the beginning of that. Errors: ValueError; OSError."""
    end = file.seek(0, os.SEEK_END)
    if end < START + _TAIL:
        raise ValueError("it is torn")
    file.seek(end - _TAIL)
    tail = _read(file, _TAIL)
    begin = end - _TAIL - int.from_bytes(tail[:8], "little")
    if not tail.endswith(_END) or begin < START:
        raise ValueError("it has no end")
    file.seek(begin)
    text = _read(file, end - _TAIL - begin)
    if hashlib.sha256(text).digest() != tail[8:40]:
        raise ValueError("its description has changed")
    file.seek(begin)
    try:
        told = json.loads(text)
    except RecursionError:
        told = None
    if not isinstance(told, dict):
        raise ValueError("it describes nothing")
    return told


def _read(file: FileIO, size: int) -> bytearray:
    """Returns so many bytes. Errors: ValueError where there are fewer; OSError."""
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise ValueError("it is torn")
        rest = rest[count:]
    return content


# --- the format -----------------------------------------------------------------------------------------------


def _size(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _at_most(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Returns the bytes of a file, with as much as its description may take."""
    return START + _size(shape, dtype) + _REST + _PART * (shape[0] // _LEAST_PART + 1)


def _described(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}


def _head(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> bytes:
    head = _FORMAT + json.dumps(_described(name, shape, dtype)).encode() + b"\n"
    if len(head) > START:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return head.ljust(START, b"\0")


def _tail(description: Mapping[str, Any]) -> bytes:
    text = json.dumps(description).encode()
    return text + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + _END


def _mapped(file: FileIO, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Returns the activations of a file as they lie there: they take no memory, and nothing can change them.

    Errors: OSError.
    """
    values = np.memmap(file, np.uint8, "r", offset=START, shape=(_size(shape, dtype),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be written, which is as it should be
        flat = torch.from_numpy(values)
    return flat.view(dtype).reshape(shape)
