"""Downloads data sets that are known by a name, when that is asked for and at no other time."""

from __future__ import annotations

import socket
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path

from tlbench.data import DATASETS, named, parse_dataset, unpacking
from tlbench.data.data_root import root_of_data
from tlbench.data.named import Chosen
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
    """Downloads a data set of torchvision, one process at a time. Errors: UserError."""
    chosen, root = named.parse(path), root_of_data()
    if not (missing := named.lacking(chosen, root)):
        return
    if chosen.row.megabytes is None:
        raise UserError(f"{chosen.text}: {missing[0]!r} is not in {str(root)!r}; {named.ways(chosen, root)}")
    waits = partial(say, f"{chosen.text}: waits for another process that downloads into {str(root)!r}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with unpacking.alone_in(root, waits):
            if named.lacking(chosen, root):
                _download(chosen, root, say)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{str(root)!r} cannot be written to: {why}; {named.ELSEWHERE}") from None


def _download(chosen: Chosen, root: Path, say: Say) -> None:
    """Has torchvision download and unpack a data set, which is marked until it is whole.

    Errors: UserError; OSError where the folder cannot be written.
    """
    from tlbench.data.torchvision_sets import make

    assert chosen.row.megabytes is not None, "it is downloaded"
    if not unpacking.is_legible(root, chosen.name):
        raise UserError(
            f"{chosen.text} in {str(root)!r} is not whole, and what is not cannot be told: the file "
            f"{unpacking.mark_of(chosen.name)!r} there cannot be read; remove it with what is there of the data set"
        )
    archives = chosen.row.archives(chosen.arguments)
    files, beside = named.unpacked_with(chosen)
    half = bool(unpacking.half_there(root, chosen.name, files))
    again = " again, since an earlier time did not end" * half
    megabytes = chosen.row.megabytes(chosen.arguments)
    size = named.in_words(megabytes)
    there = [archive for archive in archives if (root / archive).exists()]
    if archives and len(there) == len(archives) and (chosen.row.hashed or all(_ends(root / one) for one in there)):
        # Whether one is whole that was downloaded half way, torchvision finds out by its hash.
        perhaps = f"; {size} come from {chosen.row.page} where these are not whole" * (half and chosen.row.hashed)
        say(f"{chosen.text}: unpacks {', '.join(archives)} in {str(root)!r}{again}{perhaps}")
    else:
        say(f"{chosen.text}: downloads {size} from {chosen.row.page} into {str(root)!r}{again}")
        check_disk(chosen.text, root, megabytes * 1e6)
    with unpacking.marked(root, chosen.name, files, beside):
        try:
            with loudly_bounded():
                _as_torchvision_does_not(chosen, root)
                for several in chosen.pieces.values():
                    for keywords in several:
                        make(chosen, root, keywords, download=True)
        except Exception as error:  # of a host, of torchvision, of what was downloaded
            why = " ".join(text_of(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{chosen.text} could not be downloaded into {str(root)!r}: {why}; {named.ways(chosen, root)}"
            ) from None


def _as_torchvision_does_not(chosen: Chosen, root: Path) -> None:
    """Deals with archives that are there and that torchvision would do nothing about: it takes Omniglot's for the
    unpacked set, and half of one without a hash for the whole.
    """
    for archive in (root / name for name in chosen.row.archives(chosen.arguments)):
        if not archive.exists():
            continue
        if chosen.name == "Omniglot" and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(archive.parent)
        if not chosen.row.hashed and not _ends(archive):
            archive.unlink()


def _ends(archive: Path) -> bool:
    """Tells whether an archive (tar) can be read to its end, which half of one cannot."""
    try:
        with tarfile.open(archive) as packed:
            return sum(1 for _ in packed) > 0
    except OSError as error:
        if error.errno is not None:  # of the system: that says nothing of the archive
            raise
        return False
    except (tarfile.TarError, EOFError, zlib.error):
        return False


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
