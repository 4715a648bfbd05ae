"""One run, one writer: the process that measures a run holds a lock in its folder, and says who it is."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from tlbench.errors import UserError
from tlbench.machine import locks

LOCK = "measuring.lock"
"""Name of the file in a run's folder, which is there while the run is measured. One that a killed process has left
behind holds nobody up: the lock went with the process."""
A_LOOK = 0.2
"""Seconds that a look at the lock takes at the most (`holder_of`)."""
NO_LOCKS = "the file system of {folder} has no locks: start no second process on this run, it would not be noticed"


class Holder:
    """Holds a run's folder, from its making to `release`, or to the end of the process."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock. Errors: UserError that says who holds it; OSError when the folder cannot be written."""
        self._path = folder / LOCK
        self._file, locked = self._locked()
        self.note = "" if locked else NO_LOCKS.format(folder=repr(str(folder)))
        """What a person should know; empty where there is nothing."""
        told = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            self._file.truncate(0)
            self._file.write(json.dumps(told).encode())
        except BaseException:  # a full disk: whoever makes room and tries again must not meet this lock
            self.release()
            raise

    def _locked(self) -> tuple[FileIO, bool]:
        while True:
            file = open(self._path, "ab+", buffering=0, opener=_own)  # noqa: SIM115 - held until `release`
            try:
                # Whoever only looks whether somebody measures holds it for a moment, too.
                taken = locks.lock_in_time(file, A_LOOK)
                if taken is False:
                    raise _refusal(self._path)
                # Whoever held it may have removed this very file between our opening and our locking it.
                if taken is None or os.path.samestat(os.fstat(file.fileno()), os.stat(self._path)):
                    return file, taken is True
            except FileNotFoundError:
                pass
            except BaseException:
                file.close()
                raise
            file.close()

    def release(self) -> None:
        """Lets others measure the run. A second time nothing happens."""
        if self._file.closed:
            return
        with suppress(OSError):  # while it is locked: another's file of this name must not be removed
            self._path.unlink(missing_ok=True)
        self._file.close()


def _own(path: str, flags: int) -> int:
    """Opens a file, and nothing that a link leads to: it is emptied."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def check_free(folder: Path) -> None:
    """Raises UserError that says who measures the run of a folder, if someone does. Nothing is written."""
    if holder_of(folder) is not None:
        raise _refusal(folder / LOCK)


def holder_of(folder: Path) -> str | None:
    """Returns who measures the run of a folder, in words; None where nobody does. Nothing is written."""
    for how in ("rb+", "rb"):  # network file systems lock what may be written; a run may be open to readers alone
        with suppress(OSError), open(folder / LOCK, how, buffering=0) as file:
            return _who(folder / LOCK) if locks.try_lock(file) is False else None
    return None


def untold_holder(folder: Path) -> tuple[str, float] | None:
    """Returns who has said that it measures the run of a folder, in words, and when, in seconds since 1970, where no
    lock tells whether it still does; None where nobody has, or a lock tells. Nothing is written.
    """
    with suppress(OSError), open(folder / LOCK, "rb", buffering=0) as file:
        if locks.try_lock(file) is None:
            return _who(folder / LOCK), os.fstat(file.fileno()).st_mtime
    return None


def _who(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(path.read_bytes())
        return f"process {int(told['pid'])} on host {str(told['host'])[:100]!r}, since {str(told['since'])[:40]}"
    return "another process"


def _refusal(path: Path) -> UserError:
    return UserError(
        f"run {str(path.parent)!r} is being measured by {_who(path)}; wait for its end, or stop it and go on by "
        "--resume (pytest: --tl-resume); reports can be made meanwhile"
    )
