"""Where facts about images lie that are kept for later checks (`tlbench.data.facts`). Nothing here imports numpy."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from tlbench.machine.cache import cache_folder

ENDING = ".facts"
_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(ENDING)}")


def folder() -> Path:
    """Returns the folder that the files lie in; it may not exist yet."""
    return cache_folder() / "images"


def files() -> list[Path]:
    """Returns the files there that tlbench made, those used last at the end."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        for path in folder().iterdir():
            with suppress(OSError):  # gone meanwhile
                if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                    found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def clear() -> tuple[int, int]:
    """Removes them. Returns how many there were, and their bytes."""
    there = files()
    sizes = []
    for path in there:
        with suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            sizes.append(size)
    return len(sizes), sum(sizes)


def count() -> tuple[int, int]:
    """Returns how many there are, and their bytes."""
    sizes = []
    for path in files():
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)
