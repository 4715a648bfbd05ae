"""Downloads data sets that are known by a name, when that is asked for and at no other time."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from tlbench.data import DATASETS, named, parse_dataset
from tlbench.data.data_root import root_of_data
from tlbench.errors import UserError, text_of
from tlbench.machine.disk import room_in

Say = Callable[[str], None]
TIMEOUT_SECONDS = 20.0
"""How long a host may be silent."""
UNPACKED = 2
"""Archives and what comes out of them lie side by side: so many times the download have to be free."""


_say: list[Say | None] = [None]


@contextmanager
def downloading(say: Say | None) -> Iterator[None]:
    """Has `fetch_where_asked` download what is missing, and tell ``say`` of it; None: nothing is downloaded."""
    before, _say[0] = _say[0], say
    try:
        yield
    finally:
        _say[0] = before


def fetch_where_asked(datasets: Sequence[str]) -> None:
    """Downloads data sets within `downloading`, and nowhere else. Errors: as `fetch`."""
    if (say := _say[0]) is not None:
        fetch(datasets, say)


def fetch(datasets: Sequence[str], say: Say) -> None:
    """Downloads those of the data sets that are not on this disk; ``say`` is told before what it is and how large.

    Errors: UserError where none of them can be downloaded, or one cannot.
    """
    rows = [(DATASETS[parse_dataset(dataset)[0]], parse_dataset(dataset)[1]) for dataset in datasets]
    if not any(row.fetch for row, _ in rows):
        raise UserError(
            f"--download: nothing of {', '.join(datasets)} is downloaded; torchvision:NAME and hf:OWNER/NAME are"
        )
    for row, path in rows:
        if row.fetch is not None:
            row.fetch(path, say)


def fetch_torchvision(path: str, say: Say) -> None:
    """Downloads a data set of torchvision. Errors: UserError."""
    from tlbench.data.torchvision_sets import make

    chosen, root = named.parse(path), root_of_data()
    if not (missing := named.lacking(chosen, root)):
        return
    if chosen.row.megabytes is None:
        raise UserError(f"{chosen.text}: {missing[0]!r} is not in {str(root)!r}; {named.ways(chosen, root)}")
    archives = chosen.row.archives(chosen.arguments)
    if archives and all((root / archive).exists() for archive in archives):
        say(f"{chosen.text}: unpacks {', '.join(archives)} in {str(root)!r}")
    else:
        megabytes = chosen.row.megabytes(chosen.arguments)
        say(f"{chosen.text}: downloads {named.in_words(megabytes)} from {chosen.row.page} into {str(root)!r}")
        _make(root)
        check_disk(chosen.text, root, megabytes * 1e6)
    try:
        with loudly_bounded():
            for several in chosen.pieces.values():
                for keywords in several:
                    make(chosen, root, keywords, download=True)
    except Exception as error:  # of a host, of torchvision, of what was downloaded
        why = " ".join(text_of(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{chosen.text} could not be downloaded into {str(root)!r}: {why}; {named.ways(chosen, root)}"
        ) from None


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{str(root)!r} cannot be made: {error.strerror}; --data-root names another folder") from None


def check_disk(name: str, folder: Path, size: float) -> None:
    """Raises UserError where a folder's disk has no room for a download of so many bytes and what comes out of it."""
    room = room_in(str(folder))
    if room is not None and room < UNPACKED * size:
        raise UserError(
            f"{name}: {UNPACKED * size / 1e9:.1f} GB are needed for the download and what comes out of it, and "
            f"{room / 1e9:.1f} GB are free in {str(folder)!r}; --data-root names another folder"
        )


@contextmanager
def loudly_bounded() -> Iterator[None]:
    """Has what is printed within go to standard error, and no host be waited for without an end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)
