"""Where decoded images lie that are kept for later runs (`tlbench.data.decoded`): whole files, what is being written,
what was left behind, and what tlbench did not make, which it never removes. Nothing here imports numpy.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.machine import disk, scratch
from tlbench.machine.cache import cache_folder

ENDING = ".decoded"
MARK = b"tlbench decoded 1\n"
"""Such a file ends with this."""
DISK_SHARE = 0.1
"""Share of the free disk that decoded images may take by default."""
NAME = re.compile(rf"(?P<recipe>[0-9a-f]{{16}})-(?P<root>[0-9a-f]{{16}})-[0-9a-f]{{32}}{re.escape(ENDING)}")


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Says what is known of a file without reading it."""

    path: Path
    bytes: int
    used: float
    """When it was written or taken last, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Holds what lies in the folder, by what it is."""

    stored: list[Lying] = field(default_factory=list)
    """Whole files."""
    filling: list[Lying] = field(default_factory=list)
    """What some process is writing."""
    orphans: list[Lying] = field(default_factory=list)
    """What a process was writing that is gone."""


def folder() -> Path:
    """Returns the folder that decoded images lie in; it may not exist yet."""
    return cache_folder() / "decoded"


def look() -> Inventory:
    """Returns what tlbench has put into the folder; nothing where it cannot be read."""
    found = Inventory()
    paths: list[Path] = []
    with suppress(OSError):
        paths = sorted(folder() / name for name in os.listdir(folder()))
    for path in paths:
        with suppress(OSError):  # gone meanwhile
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            one = Lying(path=path, bytes=status.st_size, used=status.st_mtime)
            if scratch.NAME.fullmatch(path.name):
                (found.orphans if scratch.is_orphan(path) else found.filling).append(one)
            elif NAME.fullmatch(path.name):
                found.stored.append(one)
    return found


def count(files: Iterable[Lying]) -> tuple[int, int]:
    """Returns how many files these are, and their bytes."""
    sizes = [one.bytes for one in files]
    return len(sizes), sum(sizes)


def remove(one: Lying) -> bool:
    """Removes a file. Returns whether it is gone by this; what somebody writes by now stays. Who has it open goes on
    reading it.
    """
    if scratch.NAME.fullmatch(one.path.name):
        return scratch.is_orphan(one.path, remove=True)
    try:
        one.path.unlink()
    except OSError:
        return False
    return True


def room(budget: int | None) -> int:
    """Returns the bytes that one more file may take, if all that may go gave way; ``budget`` as for `make_way`."""
    here = look()
    may_go, filling = count([*here.stored, *here.orphans])[1], count(here.filling)[1]
    free = _free()
    budget = int(DISK_SHARE * (free + may_go + filling)) if budget is None else budget
    return max(min(budget - filling, free + may_go), 0)


def make_way(size: int, budget: int | None) -> bool:
    """Makes room for so many bytes, if that is possible at all: what was left behind goes, then what was used longest
    ago. Returns whether there is such room now.

    All files together stay within ``budget`` bytes (None: a share of what is free without them), and leave the disk
    some room for others (`tlbench.machine.disk`).
    """
    here = look()
    for orphan in here.orphans:
        remove(orphan)
    if size > room(budget):
        return False
    here = look()
    free, taken = _free(), count([*here.stored, *here.filling])[1]
    budget = int(DISK_SHARE * (free + taken)) if budget is None else budget
    for one in sorted(here.stored, key=lambda lying: lying.used):
        if size <= min(budget - taken, free):
            break
        if remove(one):
            taken, free = taken - one.bytes, free + one.bytes
    return size <= min(budget - taken, free)


def _free() -> int:
    """Returns the bytes that may be taken of the disk that the folder lies on, or will."""
    place = folder()
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    try:
        return disk.room(place)
    except OSError:
        return 0


def give_way(to: Path, quota: bool = False) -> bool:
    """Removes decoded images where the disk that a run's folder lies on is full, and is theirs too. Returns whether any
    went. ``quota``: a person's share of the disk is full, whatever room the disk has.
    """
    try:
        if os.stat(to).st_dev != os.stat(folder()).st_dev or (disk.room(to) and not quota):
            return False
    except OSError:
        return False
    here = look()
    return sum(remove(one) for one in (*here.orphans, *here.stored)) > 0


def clear() -> tuple[Inventory, Inventory]:
    """Removes all that tlbench stored or left there, but what is being written. Returns what was there, and what still
    is.
    """
    before = look()
    for one in (*before.stored, *before.orphans):
        remove(one)
    return before, look()
