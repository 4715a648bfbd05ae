"""Files that are written aside and renamed when they are whole, so that whoever looks sees all of a file or none.

Each is made anew under a name that no other process has, on this host or another: two containers may share a folder,
and have the same process numbers. It is locked for as long as it is written, so that what a killed process left behind
can be told from what somebody writes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path

from tlbench.machine import locks

NAME = re.compile(r"\.(?P<final>.+)\.(?P<host>[0-9a-f]{8})-[0-9a-f]{16}\.part")
"""Names of such files; nothing else is called so."""
EXPIRES = 86_400
"""Seconds since its last writing after which a file is taken for left behind where no lock can tell: the file system
has none, or another host wrote it, whose locks may not be seen here."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
TRIES = 20


class Scratch:
    """Holds a file that is written aside, from its making to `publish` or `drop`."""

    def __init__(self, final: Path) -> None:
        """Makes it beside ``final``, whose name it is to have in the end. Errors: OSError."""
        self.final = final
        for _ in range(TRIES):
            self.path = final.with_name(f".{final.name}.{host()}-{secrets.token_hex(8)}.part")
            # "x" makes a file or fails: it opens none that is there, and follows no link.
            self.file: FileIO = open(self.path, "x+b", buffering=0)  # noqa: SIM115 - until `publish` or `drop`
            if self._is_held():
                return
            self.drop()
        raise OSError(errno.EAGAIN, "other processes remove it as it is made", str(final))

    def _is_held(self) -> bool:
        """Tells whether the file is ours: who looked for files that were left behind may have been quicker."""
        if locks.try_lock(self.file) is False:
            return False
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def publish(self, sync: bool = True) -> None:
        """Gives the file its name, once its content is on the disk; it stays open. Without ``sync`` the system writes
        it when it likes: for what is found out when it is torn, and can be made anew. Errors: OSError.
        """
        if sync:
            os.fsync(self.file.fileno())
        os.replace(self.path, self.final)

    def drop(self) -> None:
        """Removes what was not published, and closes the file. A second time nothing happens."""
        if not self.file.closed:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            self.file.close()


def write_aside(final: Path, content: bytes, mode: int | None = None) -> None:
    """Writes a file aside and renames it: the old one is there, or the new one, and nothing else is left. ``mode`` says
    who may read it, from the beginning (default: as for any new file).

    Errors: OSError.
    """
    scratch = Scratch(final)
    try:
        if mode is not None:
            with suppress(OSError):  # of a file system without permissions
                os.chmod(scratch.path, mode)
        write_all(scratch.file, content)
        scratch.publish()
    finally:
        scratch.drop()


def write_all(file: FileIO, content: bytes | memoryview) -> None:
    """Writes all of the content: a full disk takes a part of it before it refuses. Errors: OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


# --- what was left behind -------------------------------------------------------------------------------------


def orphans(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder that processes which are gone were writing; none where it cannot be read."""
    for path in named(folder):
        if is_orphan(path):
            yield path


def named(folder: Path) -> list[Path]:
    """Returns the files in a folder that are called as those that are written aside; none where it cannot be read."""
    with suppress(OSError):
        return sorted(Path(folder, name) for name in os.listdir(folder) if NAME.fullmatch(name))
    return []


def is_orphan(path: Path, remove: bool = False) -> bool:
    """Tells whether a file was left behind by a process that is gone; ``remove``: and removes it, as nobody else can do
    at the same time. False also where another did, and where it cannot be removed.
    """
    found, old = NAME.fullmatch(path.name), False
    try:
        status = path.lstat()
        if found is None or not stat.S_ISREG(status.st_mode):
            return False
        old = time.time() - status.st_mtime > EXPIRES
        with open_plain(path, writable=True) as file:  # some network file systems lock only what can be written
            taken = locks.try_lock(file)
            # Of this kernel's processes, in whatever container, the lock tells; of another's it may or may not.
            if taken is False or not (old or (taken and found["host"] == host())):
                return False
            if remove:
                path.unlink()
            return True
    except PermissionError:
        return old and not remove
    except OSError:
        return False


def remove_orphans(folder: Path) -> int:
    """Removes what processes that are gone left in a folder. Returns how many files that were."""
    return sum(is_orphan(path, remove=True) for path in named(folder))


@cache
def host() -> str:
    """Returns 8 hexadecimal digits for the kernel that this process runs under, the same in all of its containers."""
    try:
        told = BOOT.read_text(encoding="ascii")
    except (OSError, ValueError):
        told = platform.node()
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def open_plain(path: Path, writable: bool = False) -> FileIO:
    """Opens a file, and nothing that a link leads to or that has no end.

    Errors: OSError, also for what is no file.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb+" if writable else "rb", buffering=0, opener=opener)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return file
