"""What was measured of memory layouts: kept in the cache folder for all runs, and remembered for this one.

The choice must not change within a run, whatever becomes of the cache: a row's seeds, in several processes, are to
have one layout. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tlbench.machine import locks
from tlbench.machine.cache import cache_folder
from tlbench.machine.scratch import Scratch, open_plain, write_aside

NAME = "layouts.json"
Seconds = tuple[float, float]
"""A step's in the default layout and in channels_last."""
_remembered: dict[tuple[Path, str], Seconds] = {}
"""Cache folder and key -> what this process knows, whether it is kept there or not."""


def known(key: str) -> Seconds | None:
    """Returns what was measured of a key; None where nothing was. What this run knows comes before what the cache
    says.
    """
    folder = cache_folder()
    if (folder, key) not in _remembered:
        found = _read(folder / NAME).get(key)
        if found is None:
            return None
        _remembered[folder, key] = found
    return _remembered[folder, key]


def keep(key: str, seconds: Seconds) -> Seconds:
    """Keeps what was measured of a key. Returns what holds from now on: another run may have been first.

    Where the cache cannot be written it holds for this run alone.
    """
    folder = cache_folder()
    path = folder / NAME
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with locks.alone_in(folder):
            found = _read(path)
            seconds = found.get(key, seconds)
            if key not in found and all(map(math.isfinite, seconds)):
                write_aside(path, json.dumps({**found, key: seconds}, indent=1).encode())
    _remembered[folder, key] = seconds
    return seconds


def told() -> dict[str, Seconds]:
    """Returns what this process knows, for the other processes of its run."""
    folder = cache_folder()
    return {key: seconds for (where, key), seconds in _remembered.items() if where == folder}


def hear(what: Mapping[str, Any]) -> None:
    """Takes what other processes of the run have told, or its records; it comes before what was known."""
    folder = cache_folder()
    _remembered.update({(folder, key): seconds for key, seconds in _sound(what).items()})


def why_not_kept() -> str:
    """Says why nothing can be kept in the cache folder; empty where it can be."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Scratch(folder / NAME).drop()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _read(path: Path) -> dict[str, Seconds]:
    """Returns what a file says; nothing where it cannot be read, and of what is damaged what is sound."""
    with suppress(OSError, ValueError, RecursionError), open_plain(path) as file:
        return _sound(json.loads(file.readall()))
    return {}


def _sound(data: Any) -> dict[str, Seconds]:
    found: dict[str, Seconds] = {}
    for key, value in data.items() if isinstance(data, Mapping) else ():
        with suppress(ValueError, TypeError, OverflowError):
            plain, last = map(float, value)
            if 0 < plain < math.inf and 0 < last < math.inf:
                found[str(key)] = (plain, last)
    return found
