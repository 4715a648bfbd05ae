"""Marks what is being downloaded and unpacked, so that half a data set is never taken for a whole one.

The mark lies in the folder of data sets from before a download until what came of it is whole, and names what was not
there before. What a person puts there has none. torchvision looks for folders, not for all that belongs into them, and
unpacks nothing where it finds one: what is half there is put aside before it is unpacked again, and removed once the
whole is there, since nothing tells what of it somebody has put there in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlbench.machine import locks
from tlbench.machine.scratch import write_aside

LOCK = ".tlbench-unpacking"
"""File whose lock is held while something is downloaded into a folder; it goes when that is over."""


def mark_of(name: str) -> str:
    """Returns what the mark of a data set is called."""
    return f"{LOCK}-{name}"


def half_there(root: Path, name: str, files: Iterable[str]) -> list[str]:
    """Returns what was made by an unpacking that has not ended, and holds or lies in one of ``files``; paths below the
    root. Where the mark cannot be read, that is all.
    """
    marked, files = _marked(root, name), list(files)
    if marked is None:
        return sorted({file.partition("/")[0] for file in files})
    return [path for path in marked if _concerns(path, files)]


def _marked(root: Path, name: str) -> list[str] | None:
    """Returns what a mark names; None where it cannot be read."""
    try:
        named = [str(path) for path in json.loads((root / mark_of(name)).read_text(encoding="utf-8"))]
        return [path for path in named if ".." not in path.split("/")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError):
        return None


def _concerns(path: str, files: Iterable[str]) -> bool:
    return any(f"{file}/".startswith(f"{path}/") or f"{path}/".startswith(f"{file}/") for file in files)


def is_legible(root: Path, name: str) -> bool:
    """Tells whether the mark of a data set, if there is one, says what is half there: else nothing is to be removed."""
    return _marked(root, name) is not None


@contextmanager
def alone_in(root: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Lets one process at a time download into a folder; ``waits`` is called once where another one is at it. Where
    the file system has no locks, none waits. Errors: OSError where the folder cannot be written.
    """
    path, told = root / LOCK, False
    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            if locks.try_lock(file) is False:
                if not told:
                    waits()
                told = True
                locks.lock(file)
            if _is(path, file.fileno()):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # whoever held it has removed it: another one may hold its successor
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        file.close()


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


@contextmanager
def marked(root: Path, name: str, files: Collection[str], archives: Collection[str]) -> Iterator[None]:
    """Puts aside what is half there of ``files``, and marks as half there what is made of them within. Archives stay:
    torchvision has their hashes. Where it fails before anything is unpacked, all is as it was. Errors: OSError.
    """
    aside, half = root / f"{mark_of(name)}-before", half_there(root, name, files)
    for path in half:
        _move(root, path, aside, archives)
    others = [path for path in _marked(root, name) or () if not _concerns(path, files)]
    made = sorted({_first_missing(root, file) for file in files if not os.path.lexists(root / file)})
    _mark(root, name, [*others, *half, *made])
    whole = False
    try:
        yield
        whole = True
    finally:
        if whole:
            _mark(root, name, others)
            shutil.rmtree(aside, ignore_errors=True)
        elif not any(True for path in (*half, *made) for _ in _unpacked(root, path, archives)):
            for path in half:
                _move(aside, path, root, ())
            _mark(root, name, [*others, *half])
            shutil.rmtree(aside, ignore_errors=True)


def _mark(root: Path, name: str, paths: list[str]) -> None:
    if paths:
        write_aside(root / mark_of(name), json.dumps(paths).encode())
    else:
        (root / mark_of(name)).unlink(missing_ok=True)
    locks.sync_folder(root)


def _first_missing(root: Path, file: str) -> str:
    """Returns a file's first folder that is not there, or the file."""
    parts = file.split("/")
    heads = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return next((head for head in heads if not os.path.lexists(root / head)), file)


def _unpacked(root: Path, path: str, archives: Collection[str]) -> Iterator[str]:
    """Yields the files at a path, or the file that it is, but for archives; paths below the root."""
    if not os.path.isdir(root / path) or os.path.islink(root / path):
        yield from [path] * (os.path.lexists(root / path) and path not in archives)
        return
    for entry in sorted(os.listdir(root / path)):
        yield from _unpacked(root, f"{path}/{entry}", archives)


def _move(root: Path, path: str, to: Path, archives: Collection[str]) -> None:
    """Moves what was unpacked at a path to the same path below another folder."""
    for file in list(_unpacked(root, path, archives)):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / file, to / file)
    for folder, _, _ in os.walk(root / path, topdown=False):
        with suppress(OSError):  # an archive is in it
            os.rmdir(folder)
