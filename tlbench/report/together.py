"""Writes the files of a report so that whoever looks finds the old ones or the new; and so does, whatever kills the
process, whoever looks after the next command that reads the run.

They are written aside, into a folder of their own; once all are there, that folder is given the name `WHOLE`, from
which moment on the new ones count, and they are moved into place. A process that is killed in between leaves `WHOLE`,
and the next one that reads or reports the run moves the rest (`settle`). Nothing is synced: a report can be made again
from its records, which are.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tlbench.machine import locks

WHOLE = ".report-new"
"""Name of the folder of new files that are all there, within the report's folder."""
ASIDE = ".report-"
PART = ".part"
"""Beginning and end of the name of a folder of new files that are not all there yet."""
GONE = "gone.json"
"""File beside the new ones that names those of an earlier report which the new one does not have."""
OURS = re.compile(r"report\.(html|md|csv|parquet)|records\.parquet|figures/[^/\\]+\.(png|svg)")
"""Names of a report's files: nothing else is moved or removed, whatever a folder that came from elsewhere says."""
DAY = 86_400
"""Seconds."""
Lost = tuple[str, str]
"""A file's name, and why it is not there."""


@dataclass(frozen=True)
class _Handle:
    """Holds the number of an open folder, for its lock."""

    number: int

    def fileno(self) -> int:
        return self.number


def replace_together(folder: Path, files: Mapping[str, bytes], earlier: Collection[str]) -> list[Lost]:
    """Puts files (their names within the folder -> content) in the place of those of an earlier report, which may have
    had the names ``earlier``. Those after the first that cannot be written, as for want of room, are left out and
    returned with the reason.

    Errors: OSError where the first one cannot be written; nothing is changed then.
    """
    _sweep(folder)
    lost: list[Lost] = []
    with _aside(folder) as aside:
        _say_gone(aside, {*earlier, *files})  # first, with room for all: later there may be none
        for number, (name, content) in enumerate(files.items()):
            try:
                _check_place(folder / name)
                _write(aside / name, content)
            except OSError as error:
                if not number:
                    raise
                lost.append((name, error.strerror or str(error)))
        _say_gone(aside, {*earlier, *files} - {name for name in files if (aside / name).exists()})
        with _locked(folder):
            _move(folder)  # of a process that was killed, or is just being overtaken
            os.rename(aside, folder / WHOLE)
            return lost + _moved(folder)


def settle(folder: Path) -> None:
    """Moves into place what a process that was killed has left of a whole new report."""
    with suppress(OSError):
        if (folder / WHOLE).exists():
            with _locked(folder):
                _moved(folder)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_bytes(content)
    except OSError:
        path.unlink(missing_ok=True)  # it has taken room that others may need
        raise


def _say_gone(aside: Path, names: Collection[str]) -> None:
    """Writes down what to remove, at first and again in the same place: what is left of its room is blank."""
    path, content = aside / GONE, json.dumps(sorted(names)).encode()
    if not path.exists():
        path.write_bytes(content)
        return
    with path.open("r+b") as file:
        file.write(content.ljust(path.stat().st_size))


def _check_place(path: Path) -> None:
    """Finds out before anything is changed what would be in the way. Errors: OSError."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    inside = path.parent
    if inside.exists() and not inside.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if inside.exists() and not os.access(inside, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


# --- moving ---------------------------------------------------------------------------------------------------


def _moved(folder: Path) -> list[Lost]:
    """Moves what is whole into place. Ctrl-C waits for that, which takes no time."""
    try:
        return _move(folder)
    except KeyboardInterrupt:
        _move(folder)
        raise


def _move(folder: Path) -> list[Lost]:
    whole = folder / WHOLE
    if not whole.is_dir():
        return []
    lost: list[Lost] = []
    for gone in _gone(whole):
        with suppress(OSError):
            (folder / gone).unlink()
    # The page last: who waits for it finds the rest.
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    names = [name for name in names if OURS.fullmatch(name.as_posix())]
    for name in sorted(names, key=lambda name: (len(name.parts) < 2, name.suffix == ".html")):
        try:
            (folder / name).parent.mkdir(exist_ok=True)
            _replace(whole / name, folder / name)
        except OSError as error:
            lost.append((name.as_posix(), error.strerror or str(error)))
    shutil.rmtree(whole, ignore_errors=True)
    return lost


def _gone(whole: Path) -> list[str]:
    """Returns the names to be removed."""
    with suppress(OSError, ValueError):
        names = json.loads((whole / GONE).read_bytes())
        return [name for name in names if OURS.fullmatch(str(name))]
    return []


def _replace(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = target.with_name(f".{target.name}{PART}")  # a folder of figures that is a link to another file system
        try:
            shutil.copyfile(source, near)
            os.replace(near, target)
        finally:
            near.unlink(missing_ok=True)


# --- folders aside ----------------------------------------------------------------------------------------------


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Yields a new folder within this one, locked for as long, and removes it unless it was given another name."""
    while True:
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=ASIDE, suffix=PART))
        with _locked(aside):
            if not aside.exists():  # another process took it for left behind, before it was locked
                continue
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            return


def _sweep(folder: Path) -> None:
    """Removes folders aside whose process is gone; where there are no locks that would tell, those of another day."""
    for path in folder.glob(f"{ASIDE}*{PART}"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                free = locks.try_lock(_Handle(handle))
                if free or (free is None and os.fstat(handle).st_mtime < time.time() - DAY):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, where the system has such locks."""
    handle = None
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None:
            locks.lock(_Handle(handle))
        yield
    finally:
        if handle is not None:
            os.close(handle)
