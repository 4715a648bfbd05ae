"""The current folder of this process. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def same_folder() -> Iterator[None]:
    """Puts the current folder back at its end, should code from outside have changed it: the paths of runs, images and
    plugins are relative to it.
    """
    before = _current()
    try:
        yield
    finally:
        if before is not None and _current() != before:
            with suppress(OSError):
                os.chdir(before)


def _current() -> str | None:
    """Returns the current folder; None where it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None
