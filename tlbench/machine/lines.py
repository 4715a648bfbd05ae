"""Files of lines in the cache folder to which runs add what they learnt, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from tlbench.machine import locks
from tlbench.machine.cache import cache_folder


def read_lines(name: str) -> list[str]:
    """Returns the lines of a file of the cache folder; none where it cannot be read."""
    with suppress(OSError, ValueError):
        return (cache_folder() / name).read_text(encoding="utf-8").splitlines()
    return []


def add_line(name: str, line: str, most: int, trimmed: Callable[[], Sequence[str]] | None = None) -> None:
    """Adds a line; a file of twice ``most`` lines is cut to the last of them, or to the last of what ``trimmed``
    returns. A cache that cannot be written is no error: all of this is knowledge that a run can do without.
    """
    with suppress(OSError):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            locks.lock(file)
            file.seek(0)
            if file.read().count("\n") >= 2 * most:
                kept = (trimmed() if trimmed else read_lines(name))[-most:]
                file.truncate(0)
                file.writelines(f"{one}\n" for one in kept)
            file.write(f"{line}\n")
