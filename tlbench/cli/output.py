"""Standard output and error that may be closed, full or gone before a command is done (``… | head``): what a command
found stands in its exit status and in its files, whoever reads its words.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

from tlbench.console import Steady
from tlbench.errors import UserError, printable
from tlbench.machine.scratch import write_aside


class Lasting(Steady):
    """Writes to a standard stream, and to nothing any more once that cannot be written."""

    def __init__(self, stream: IO[str], name: str) -> None:
        super().__init__(stream)
        self.name = name
        self.is_result = name == OUT
        """Whether what is written is what the command is for; else losing it is said and no more."""

    def __getattr__(self, name: str) -> Any:
        """Returns whatever else the stream has."""
        if name == "buffer" and codecs.lookup(getattr(self.stream, "encoding", None) or "ascii").name == "ascii":
            raise AttributeError(name)  # click would write UTF-8 past us
        return super().__getattr__(name)

    @property
    def reason(self) -> str:
        """Says why it cannot be written; empty where it can be, and where nobody reads, which is no failure."""
        if self.error is None or getattr(self.error, "errno", None) == errno.EPIPE:
            return ""
        return f"cannot write to {self.name}: {getattr(self.error, 'strerror', None) or self.error}"

    def _lost(self, error: Exception) -> None:
        super()._lost(error)
        if self.name == OUT and not self.is_result and self.reason:
            print(f"tlbench: {self.reason}; what the command leaves in files is there all the same", file=sys.stderr)


OUT, ERR = "standard output", "standard error"


def result_is_elsewhere() -> None:
    """Says that what the command prints is no more than words about what it leaves in files: that they cannot be
    written changes nothing of how it ends.
    """
    if isinstance(sys.stdout, Lasting):
        sys.stdout.is_result = False


def print_path(path: Path) -> None:
    """Prints where a result is: to a program, which takes the path, as it is; on a terminal so that it shows all of
    itself.
    """
    print(printable(str(path)) if sys.stdout.isatty() else path)


NOT_ASIDE = (errno.EBUSY, errno.EPERM, errno.EACCES, errno.ENAMETOOLONG, errno.EXDEV)
"""What says that no file can be put in the place of this one: it is mounted by itself, lies among those of others, or
has too long a name for one beside it. It can be written itself all the same.
"""


def write_table(out: Path, content: bytes) -> None:
    """Writes a file that a person has named: a plain one that is there stays until the new one is whole, and hands on
    who may read it; through links, and to pipes and devices, it is written as it comes. Errors: OSError.
    """
    if not out.is_file() or out.is_symlink() or not os.access(out, os.W_OK):
        out.write_bytes(content)
        return
    try:
        write_aside(out, content, stat.S_IMODE(out.stat().st_mode))
    except OSError as error:
        if error.errno not in NOT_ASIDE:
            raise
        out.write_bytes(content)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Makes standard output and standard error `Lasting`, to the last word that is buffered.

    Errors: UserError at the end of a command whose result is what it prints, when that could not be written for another
    reason than that nobody reads.
    """
    _open_descriptors()
    before = sys.stdout, sys.stderr
    out, err = (Lasting(stream or io.StringIO(), name) for stream, name in zip(before, (OUT, ERR), strict=True))
    kept = _keep_bytes(before[0])
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    ended: SystemExit | None = None
    try:
        yield
    except SystemExit as done:
        ended = done
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
        if kept is not None:
            with suppress(OSError, ValueError):
                kept.reconfigure(errors="strict")
    if out.is_result and out.reason:
        raise UserError(out.reason)
    if ended is not None:
        raise ended


def _keep_bytes(stream: IO[str] | None) -> io.TextIOWrapper | None:
    """Lets a path that is no text through as the bytes that it is where a program reads it, not a person. Returns the
    stream, if it was changed.
    """
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict" or stream.closed or stream.isatty():
        return None
    stream.reconfigure(errors="surrogateescape")
    return stream


def _open_descriptors() -> None:
    """Opens those of the three standard files that are closed (``2>&-``). Else the next file that is opened, such as
    the records, has the number 2, and is written by whatever complains.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(nowhere, True)
