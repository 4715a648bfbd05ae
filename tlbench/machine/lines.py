"""Files of lines in the cache folder to which runs add what they learnt, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tlbench.machine import locks
from tlbench.machine.cache import cache_folder
from tlbench.machine.scratch import open_plain, write_all, write_aside


def read_lines(name: str) -> list[str]:
    """Returns the lines of a file of the cache folder; none where it cannot be read."""
    with suppress(OSError), open_plain(cache_folder() / name) as file:
        return file.readall().decode("utf-8", "replace").splitlines()
    return []


def add_line(name: str, line: str, most: int, trimmed: Callable[[], Sequence[str]] | None = None) -> None:
    """Adds a line; a file of twice ``most`` lines is cut to the last of them, or to the last of what ``trimmed``
    returns. A cache that cannot be written is no error: all of this is knowledge that a run can do without.
    """
    with suppress(OSError):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.alone_in(path.parent):
            if len(read_lines(name)) >= 2 * most:
                kept = [*(trimmed() if trimmed else read_lines(name)), line][-most:]
                write_aside(path, "".join(f"{one}\n" for one in kept).encode())
            else:
                _append(path, line)


def _append(path: Path, line: str) -> None:
    """Adds a line; a torn one that a killed process has left is closed first, and what does not fit is taken back.

    Errors: OSError, also for what is no file.
    """
    with suppress(FileExistsError):
        open(path, "xb").close()
    with open_plain(path, writable=True) as file:
        locks.lock_in_time(file)  # for older versions, which know no other lock
        end = file.seek(0, os.SEEK_END)
        torn = end > 0 and file.seek(end - 1) >= 0 and file.read(1) != b"\n"
        try:
            write_all(file, b"\n" * torn + f"{line}\n".encode())
        except BaseException:
            with suppress(OSError):
                file.truncate(end)
            raise
