"""Standard output that may be closed before a command is done (``… | head``): what a command found stands in its exit
status, whoever reads its words.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from tlbench.errors import UserError


class Lasting:
    """Writes to a stream, and to nothing any more once its reader is gone."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        """Writes text, as `TextIO.write` does. Errors: UserError when it cannot be written, as on a full disk."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._close(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered. Errors: as `write`."""
        try:
            self._stream.flush()
        except OSError as error:
            self._close(error)

    def __getattr__(self, name: str) -> Any:
        """Returns whatever else the stream has: its encoding, whether it is a terminal."""
        return getattr(self._stream, name)

    def _close(self, error: OSError) -> None:
        """Sends what follows, and what is still buffered, nowhere: Python would try again at its end, and exit with a
        status of its own.
        """
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError):  # a stream without a file
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if error.errno != errno.EPIPE:
            raise UserError(f"cannot write to {self._name}: {error.strerror}") from None


@contextmanager
def lasting_output() -> Iterator[None]:
    """Makes standard output and standard error `Lasting`, to the last word that is buffered.

    Errors: UserError when they cannot be written for another reason than that nobody reads.
    """
    before = sys.stdout, sys.stderr
    out, err = (
        cast(TextIO, Lasting(stream or io.StringIO(), name))
        for stream, name in zip(before, ("standard output", "standard error"), strict=True)
    )
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        err.flush()
        out.flush()
