"""What lies in the folder of stored activations: whole ones, what is being written, what was left behind, and what
tlbench did not make, which it never removes. Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.machine import disk, scratch
from tlbench.machine.cache import cache_folder
from tlbench.machine.kept import KEPT

MAGIC = b"tlbench activations"
"""Stored activations begin with this and the number of their format."""
ENDING = ".activations"
DISK = "disk"
"""Where activations lie that lie in such a file (`tlbench.train.stored.Stored.where`)."""
OLDER_KEPT = 30 * scratch.EXPIRES
"""Seconds for which what an older version of tlbench has stored stays: it may still be in use."""
_STORED = re.compile(r"[^.]+-\d+\.activations")
_OLDER = re.compile(r"[0-9a-f]{32}-\d+(?P<kind>\.npy|\.json|\.\d+\.part|\.facts\.\d+\.part)")
_OLDER_BEGINS = (b"\x93NUMPY", b'{"sha256"')


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Says what is known of a file without reading it."""

    path: Path
    bytes: int
    used: float
    """When it was written or read last, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Holds what lies in the folder, by what it is."""

    stored: list[Lying] = field(default_factory=list)
    """Whole activations."""
    filling: list[Lying] = field(default_factory=list)
    """What some process is writing."""
    orphans: list[Lying] = field(default_factory=list)
    """What a process was writing that is gone."""
    older: list[Lying] = field(default_factory=list)
    """What older versions have stored, which this one does not read."""
    others: list[Lying] = field(default_factory=list)
    """What tlbench did not make."""


GO = ("stored", "orphans", "older")
"""Of its fields, those whose files may be removed."""


def folder() -> Path:
    """Returns the folder that stored activations lie in; it may not exist yet."""
    return cache_folder() / "prefix"


def final(name: str) -> Path:
    """Returns the file that holds the activations of a name."""
    return folder() / f"{name}{ENDING}"


def look() -> Inventory:
    """Returns what lies in the folder now, and what was left behind beside it; of one that is not there, nothing.

    Errors: OSError where the folder cannot be read.
    """
    found = Inventory()
    paths = [path for place in _places() for path in scratch.orphans(place)]
    with suppress(FileNotFoundError, NotADirectoryError):
        paths += sorted(folder() / name for name in os.listdir(folder()))
    for path in paths:
        with suppress(FileNotFoundError):  # gone meanwhile
            status = path.lstat()
            kind: list[Lying] = getattr(found, _kind(path, status))
            kind.append(Lying(path=path, bytes=status.st_size, used=status.st_mtime))
    return found


def _places() -> list[Path]:
    """Returns the cache folder and those in it where only small files are written aside, of images and screens."""
    root = cache_folder()
    with suppress(OSError):
        of_others = {folder().name, "decoded"}  # `tlbench.data.decoded_folder` looks there
        inner = sorted(Path(one.path) for one in os.scandir(root) if one.is_dir(follow_symlinks=False))
        return [root, *(one for one in inner if one.name not in of_others)]
    return [root]


def _kind(path: Path, status: os.stat_result) -> str:
    """Names the field of `Inventory` that a file belongs to."""
    if not stat.S_ISREG(status.st_mode):
        return "others"
    if scratch.NAME.fullmatch(path.name):
        return "orphans" if scratch.is_orphan(path) else "filling"
    begin = _begin(path)
    if _STORED.fullmatch(path.name) and begin.startswith(MAGIC):
        return "stored"
    older = _OLDER.fullmatch(path.name)
    if older is None or not (begin.startswith(_OLDER_BEGINS) or not status.st_size):
        return "others"
    # It was not locked while it was written.
    fresh = older["kind"].endswith(".part") and time.time() - status.st_mtime < scratch.EXPIRES
    return "filling" if fresh else "older"


def _begin(path: Path) -> bytes:
    """Returns the first bytes of a file; none where it cannot be read."""
    with suppress(OSError), scratch.open_plain(path) as file:
        return file.read(len(MAGIC))
    return b""


def count(files: Iterable[Lying]) -> tuple[int, int]:
    """Returns how many files these are, and their bytes."""
    sizes = [one.bytes for one in files]
    return len(sizes), sum(sizes)


# --- what goes ------------------------------------------------------------------------------------------------


def _remove(one: Lying) -> bool:
    """Removes a file, and what this process keeps of it, which would hold its room. Returns whether it is gone by this:
    what somebody writes by now stays, and what may not be removed.
    """
    if scratch.NAME.fullmatch(one.path.name):
        return scratch.is_orphan(one.path, remove=True)
    try:
        one.path.unlink()
    except OSError:
        return False
    name = one.path.name.removesuffix(ENDING)
    if (kept := KEPT.activations.get(name)) is not None and kept.where == DISK:
        KEPT.activations.forget(lambda key: key == name)
    return True


def expire() -> None:
    """Removes what processes that are gone left in the cache folder, and what older versions stored there long ago."""
    with suppress(OSError):
        here = look()
        for one in here.orphans:
            _remove(one)
        for one in here.older:
            if time.time() - one.used > OLDER_KEPT:
                _remove(one)


def make_way(size: int, budget: int | None, share: float) -> tuple[int, int]:
    """Makes room for so many bytes, as far as that is possible at all: what was left behind goes, then what older
    versions stored, then what was used longest ago.

    All files together stay within ``budget`` bytes (None: a share of what is free without them), and leave the disk
    some room for others (`tlbench.machine.disk`). Returns the bytes that may be taken now, and the budget. Errors:
    OSError.
    """
    expire()
    here = look()
    may_go = [*sorted(here.older, key=_last_use), *sorted(here.stored, key=_last_use)]
    free, taken = disk.room(folder()), count([*may_go, *here.filling, *here.orphans])[1]
    budget = int(share * (free + taken)) if budget is None else budget
    gain = count(may_go)[1]
    if size <= min(budget - taken, free) + gain:
        for one in may_go:
            if size <= min(budget - taken, free):
                break
            if _remove(one):
                taken, free = taken - one.bytes, free + one.bytes
    return max(min(budget - taken, free), 0), budget


def _last_use(one: Lying) -> float:
    return one.used


def give_way(to: Path, quota: bool = False) -> bool:
    """Removes stored activations where the disk that a run's folder lies on is full, and is theirs too. Returns whether
    any went. ``quota``: a person's share of the disk is full, whatever room the disk has.
    """
    try:
        if os.stat(to).st_dev != os.stat(folder()).st_dev or (disk.room(to) and not quota):
            return False
        here = look()
    except OSError:
        return False
    return sum(_remove(one) for one in (*here.orphans, *here.older, *here.stored)) > 0


def discard(keys: set[str]) -> None:
    """Removes the stored activations whose names begin with one of these keys."""
    with suppress(OSError):
        for one in look().stored:
            if one.path.name.removesuffix(ENDING).rpartition("-")[0] in keys:
                _remove(one)


def clear() -> tuple[Inventory, Inventory]:
    """Removes all that tlbench stored or left behind, but what is being written. Returns what was there, and what still
    is. Errors: OSError where the folder cannot be read.
    """
    before = look()
    for kind in GO:
        for one in getattr(before, kind):
            _remove(one)
    return before, look()
