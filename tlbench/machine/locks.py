"""Locks on files and syncing to the disk, where the system and the file system have them; elsewhere nothing happens.

They are advice: whoever reads needs none. A lock goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class OpenFile(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int: ...


def lock(file: OpenFile, shared: bool = False) -> bool:
    """Waits for the lock of an open file. Returns whether there is such a thing here: some network file systems, and
    Windows, have none.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def try_lock(file: OpenFile | int) -> bool | None:
    """Takes the lock of an open file if nobody holds it. Returns whether it did; None where there is no such thing."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file if isinstance(file, int) else file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def unlock(file: OpenFile) -> None:
    """Gives the lock back, where there is one."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)


PATIENCE = 5.0
"""Seconds to wait for a lock that others hold for a moment; one of them may be stopped in that moment."""


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder while a file of it is read and then replaced. Yields whether it does: where there is
    no such thing, or another process keeps it for long, what follows goes on without.
    """
    handle = None
    try:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
        yield handle is not None and lock_in_time(handle) is True
    finally:
        if handle is not None:
            os.close(handle)


def lock_in_time(handle: OpenFile | int, seconds: float | None = None) -> bool | None:
    """Waits for a lock that others hold for a moment, and no longer. Returns as `try_lock`."""
    until = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while (taken := try_lock(handle)) is False and time.monotonic() < until:
        time.sleep(0.01)
    return taken


NOT_HERE = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR)
}
"""What systems and file systems say that sync no folders, or reserve no room; anything else is a disk that fails."""


def sync_folder(folder: Path) -> bool:
    """Syncs a folder to the disk: a new name is there only when its folder is. Returns whether this is possible here;
    some network file systems, and Windows, write names down in their own time.

    Errors: OSError when the disk fails.
    """
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def reserve(file: OpenFile, size: int) -> None:
    """Reserves room for a file of so many bytes, so that a full disk shows now and not at some later write.

    What the file holds may be written over. Errors: OSError where there is no such room.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
    # macOS, Windows, some C libraries: a file of holes would be of this size without having the room.
    piece = bytes(2**20)
    written = os.lseek(file.fileno(), 0, os.SEEK_SET)
    while written < size:
        written += os.write(file.fileno(), piece[: size - written])
