"""Activations that exceed the memory for them, as files in the cache folder, each beside a description of it.

A file is filled under another name and renamed when it is whole; its description holds its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlbench.grid.values import written_size
from tlbench.machine import locks
from tlbench.machine.cache import cache_folder
from tlbench.train.stored import Fill

DISK_SHARE = 0.1
"""Share of the free disk that activations may take by default."""
_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}


class NoRoom(Exception):
    """The disk cannot take the activations; the message says why."""


class Damaged(Exception):
    """A file is not what its description says; the message says in which way. It has been removed."""


def folder() -> Path:
    """Returns the folder that the files lie in; it may not exist yet."""
    return cache_folder() / "prefix"


def reserve(name: str, shape: tuple[int, ...], dtype: torch.dtype, budget: int | None, memory: int) -> Tensor:
    """Makes room for activations of a shape: a tensor over a file that `publish` makes known under a name.

    All files together stay within ``budget`` bytes (None: a share of what is free); those used longest ago give way.
    ``memory`` is the bytes that the memory had for them, for the message. Errors: NoRoom.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        folder().mkdir(parents=True, exist_ok=True)
        stores = sorted(folder().glob("*.npy"), key=lambda path: path.stat().st_mtime)
        taken = sum(path.stat().st_size for path in stores)
        budget = int(DISK_SHARE * (shutil.disk_usage(folder()).free + taken)) if budget is None else budget
        while stores and taken + size > budget >= size:
            taken -= stores[0].stat().st_size
            _remove(stores.pop(0))
        if taken + size > budget:
            left = written_size(max(budget - taken, 0))
            raise NoRoom(
                f"activations of {written_size(size)} fit neither into memory ({written_size(memory)}) nor onto the "
                f"disk ({left} left of {written_size(budget)})"
            )
        array = np.lib.format.open_memmap(_part(name), "w+", dtype=_NUMPY[dtype], shape=shape)
        with _part(name).open("rb+") as file:  # a full disk must show now: later it would kill the process
            locks.reserve(file, _part(name).stat().st_size)
    except OSError as error:
        raise NoRoom(
            f"activations of {written_size(size)} do not fit into memory ({written_size(memory)}), and {folder()} "
            f"cannot take them ({error.strerror})"
        ) from None
    return torch.from_numpy(array).view(dtype)


def give_up(name: str) -> None:
    """Removes what `reserve` made, and was not filled."""
    _part(name).unlink(missing_ok=True)


def publish(name: str, dtype: torch.dtype, facts: Mapping[str, Any]) -> None:
    """Makes a filled file known under its name, with facts about it: a killed process leaves none that looks whole."""
    part, final = _part(name), _final(name)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    described = {"sha256": _hash_file(part), "dtype": str(dtype).removeprefix("torch."), **facts}
    aside = final.with_suffix(f".facts.{os.getpid()}.part")
    aside.write_text(json.dumps(described), encoding="utf-8")
    os.replace(aside, final.with_suffix(".json"))
    os.replace(part, final)


def read(name: str) -> tuple[Tensor, dict[str, Any]] | None:
    """Returns the activations of this name and the facts about them, checked bit for bit; None without a file.

    Errors: Damaged.
    """
    path = _final(name)
    if not path.exists():
        return None
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if facts["sha256"] != _hash_file(path):
            raise ValueError("its hash does not fit")
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        tensor = torch.from_numpy(array).view(getattr(torch, str(facts["dtype"])))
        kinds = {"seconds": float, "images": int, "channels_last": bool}
        fill = Fill(**facts.get("fill", {}))  # an older version wrote none
        return tensor, {**{key: kind(facts[key]) for key, kind in kinds.items()}, "fill": fill}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _remove(path)
        raise Damaged(f"the stored activations {path.name} are damaged ({error})") from None


def discard(keys: set[str]) -> None:
    """Removes the files whose names begin with one of these keys."""
    for path in folder().glob("*.npy"):
        if path.stem.rpartition("-")[0] in keys:
            _remove(path)


def clear() -> tuple[int, int]:
    """Removes all stored activations. Returns how many there were, and their bytes."""
    count = size = 0
    for path in folder().glob("*"):
        size += path.stat().st_size
        count += path.suffix == ".npy"
        path.unlink()
    return count, size


def count() -> tuple[int, int]:
    """Counts the stored activations and their bytes."""
    sizes = [path.stat().st_size for path in folder().glob("*.npy")]
    return len(sizes), sum(sizes)


def _part(name: str) -> Path:
    return folder() / f"{name}.{os.getpid()}.part"


def _final(name: str) -> Path:
    return folder() / f"{name}.npy"


def _remove(path: Path) -> None:
    for file in (path, path.with_suffix(".json")):
        with contextlib.suppress(OSError):
            file.unlink()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
