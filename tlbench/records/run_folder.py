"""A run's folder, ``results/<run>/``: ``run.json`` says what is measured and how; ``records.jsonl`` holds a line for
each record, on the disk before the next cell starts. Both are strict JSON with a checksum. One file, since what is
torn, taken back or found there is a matter of how it was written.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.machine import locks
from tlbench.records import images
from tlbench.records.holder import Holder
from tlbench.records.lines import Loaded, encode_or_fail, read_file, seal, without_credentials
from tlbench.records.plan import RUN, Plan, Start, load_start, said, versions
from tlbench.records.record import SCHEMA, Record

RECORDS = "records.jsonl"
NOT_SYNCED = "the file system of {folder} syncs no folders: if the machine crashes, what was just written may be gone"
RESULTS = Path("results")
"""The folder of the runs that are known by a name."""


class Store:
    """Appends records to a run's folder; each line under a lock, so that several processes may share one."""

    def __init__(self, folder: str | Path) -> None:
        """Makes the folder. Errors: UserError when it cannot be written."""
        self.folder = Path(folder)
        self.path = self.folder / RECORDS
        self._holder: Holder | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            self._note = "" if locks.sync_folder(self.folder) else NOT_SYNCED.format(folder=repr(str(self.folder)))
        except (OSError, ValueError) as error:
            raise unwritable(self.folder, error) from None

    @property
    def run(self) -> str:
        """Returns what tells this run from all others. Errors: UserError where ``run.json`` does not say."""
        return load_start(self.folder).id

    def hold(self) -> str:
        """Makes this process the one that measures the run, until `release`. Returns what a person should know of it,
        empty where there is nothing.

        Errors: UserError that says who measures it, or that the folder cannot be written.
        """
        if self._holder is None:
            try:
                self._holder = Holder(self.folder)
            except OSError as error:
                raise unwritable(self.folder, error) from None
        return "; ".join(filter(None, (self._holder.note, self._note)))

    def release(self) -> None:
        """Lets other processes measure the run."""
        if self._holder is not None:
            self._holder.release()
            self._holder = None

    def append(self, record: Record) -> Record:
        """Writes one line and syncs it to the disk; what did not fit is taken back. Returns what was written: a
        failed record where this one cannot be (a figure that is no number). What is known of single images is on the
        disk before the record that names it.

        Errors: UserError when the disk is full or cannot be written; earlier records are intact.
        """
        record, line = encode_or_fail(without_credentials(self._with_images(record)))
        try:
            with self._locked() as file:
                end = file.seek(0, os.SEEK_END)
                # A torn line left by a killed process is closed first.
                torn = end > 0 and file.seek(end - 1) >= 0 and file.read(1) != b"\n"
                try:
                    _write(file, b"\n" * torn + line.encode())
                except BaseException:
                    with suppress(OSError):  # else the next line closes what is torn
                        file.truncate(end)
                    raise
                # Synced without the lock: processes that wait for the disk together wait once.
                locks.unlock(file)
                try:
                    os.fsync(file.fileno())
                except OSError:  # room is found out now on some file systems; what is said to be lost must not be there
                    _take_back(file, end)
                    raise
        except OSError as error:
            raise UserError(
                f"cannot write to {str(self.path)!r}: {error.strerror}; the records before {record.id!r} are intact"
            ) from None
        return record

    def _with_images(self, record: Record) -> Record:
        """Writes a record's results on single images. Returns it with their names."""
        if record.per_image is None or not record.per_image.splits:
            return record
        try:
            names = images.write(self.folder, record.per_image.splits)
        except OSError as error:
            raise UserError(
                f"cannot write to {str(self.folder / images.IMAGES)!r}: {error.strerror}; the records before "
                f"{record.id!r} are intact"
            ) from None
        # A reader of its own: what was written is kept in memory no longer.
        return replace(record, images=names, per_image=images.PerImage(reader=images.Reader(self.folder), names=names))

    def describe(self, plan: Plan) -> None:
        """Fixes what a new run measures. Errors: UserError when the folder already holds a run."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        start = Start(plan=plan, versions=versions(), started=now, id=uuid.uuid4().hex)
        with self._writing():
            if holds_a_run(self.folder):
                raise _occupied(self.folder)
            self._write_start(start)

    def extend(self, grid: Grid, plugins: Mapping[str, str] | None = None) -> Plan:
        """Adds a grid's cells, and names the plugins that the run goes on with; what it has already changes nothing."""
        with self._writing():
            start = load_start(self.folder)
            plan = start.plan.extended(grid)
            if plugins is not None and plugins != plan.plugins:
                plan = replace(plan, plugins=plugins)
            if plan is not start.plan:
                self._write_start(replace(start, plan=plan))
        return plan

    def _write_start(self, start: Start) -> None:
        """Writes ``run.json`` aside, syncs it, then renames it: whoever looks sees all of it or none."""
        data = {
            "schema": SCHEMA,
            "grids": [said(grid) for grid in start.plan.grids],
            "settings": asdict(start.plan.settings),
            "plugins": dict(start.plan.plugins),
            "versions": dict(start.versions),
            "started": start.started,
            "id": start.id,
        }
        handle, aside = tempfile.mkstemp(dir=self.folder, prefix=f".{RUN}.")
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                _write(file, seal(data).encode())
                os.fsync(file.fileno())
            os.chmod(aside, self.path.stat().st_mode & 0o777)
            os.replace(aside, self.folder / RUN)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        locks.sync_folder(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        with self.path.open("r+b", buffering=0) as file:
            locks.lock(file)
            yield file

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._locked():
                yield
        except OSError as error:
            raise unwritable(self.folder, error) from None


def _take_back(file: FileIO, end: int) -> None:
    """Takes a line back that begins at ``end``, where nobody has written behind it."""
    with suppress(OSError):
        locks.lock(file)
        file.seek(end)
        if file.readall().strip(b"\n").count(b"\n") == 0:
            file.truncate(end)


def _write(file: FileIO, content: bytes) -> None:
    """Writes all of the content; a full disk takes a part before it refuses."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def unwritable(folder: Path, error: Exception) -> UserError:
    """Returns what to say of a run's folder that cannot be written."""
    return UserError(
        f"cannot write to results folder {str(folder)!r}: {getattr(error, 'strerror', None) or error}; "
        "choose another with --out (pytest: --tl-out)"
    )


# --- starting and resuming ------------------------------------------------------------------------------------


def new_run(out: str | Path | None = None) -> Store:
    """Returns the store of a new run: in ``out``, or in results/ under the date and time.

    Errors: UserError when the folder already holds a run or cannot be written.
    """
    if out is not None:
        if holds_a_run(Path(out)):
            raise _occupied(Path(out))
        return Store(out)
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    try:
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2))):
            try:
                (RESULTS / name).mkdir()  # made, not looked for: two runs may start in one second
            except FileExistsError:
                continue
            return Store(RESULTS / name)
    except OSError as error:
        raise unwritable(RESULTS, error) from None
    raise AssertionError("unreachable")


def resume_run(run: str | Path, given: Mapping[str, Any] | None = None) -> tuple[Store, Plan]:
    """Returns the store and the plan of a run that goes on. ``given`` are the settings that the user named this time.

    Errors: UserError when there is no such run, or naming each setting or version that differs from its start.
    """
    folder = find_run(run)
    start = load_start(folder)
    plan, before, here = start.plan, start.versions, versions()
    differing = [
        *(
            f"{name} was {getattr(plan.settings, name)!r}, now it is {value!r}"
            for name, value in (given or {}).items()
            if value != getattr(plan.settings, name)
        ),
        *(
            f"{name} was {before.get(name)}, here it is {here.get(name)}"
            for name in sorted(name for name in {*before, *here} if before.get(name) != here.get(name))
        ),
    ]
    if differing:
        raise UserError(
            f"run {str(folder)!r} cannot go on under other conditions than it began with: {'; '.join(differing)}; "
            "restore them, or start a new run"
        )
    return Store(folder), plan


def find_run(run: str | Path, results: Path | None = None) -> Path:
    """Returns a run's folder or records file: a path as it stands, a name under results/, which it cannot leave, or
    the run there that was written last (``latest``).

    Errors: UserError when there is neither.
    """
    results = RESULTS if results is None else results
    try:
        if os.path.lexists(run) or os.path.lexists(run := os.path.expanduser(run)):
            return Path(run)
        if str(run) == "latest" and not (results / run).exists():
            return max(results.glob(f"*/{RECORDS}"), key=os.path.getmtime).parent
        named, inside = results / run, results.resolve()
        if ".." not in named.parts and named.exists() and inside in named.resolve().parents:
            return named
    except (OSError, ValueError, RuntimeError):
        pass  # a name too long, a NUL in it, a link in a circle
    raise UserError(f"cannot read run {str(run)!r}: there is no such folder, nor one of this name in {str(results)!r}")


def holds_a_run(folder: Path) -> bool:
    """Tells whether a folder is that of a run."""
    try:
        return (folder / RUN).exists() or (folder / RECORDS).stat().st_size > 0
    except (OSError, ValueError):
        return False  # nothing is there, or nothing can be: then making it says why


def _occupied(folder: Path) -> UserError:
    return UserError(
        f"results folder {str(folder)!r} already holds a run; choose a new folder, or go on with it by --resume; "
        "nothing was changed"
    )


def load(run: str | Path, whole: bool = True) -> Loaded:
    """Reads the records of a run's folder or records file, also under its name in results/; damaged lines are set aside
    and named. ``whole``: as `tlbench.records.lines.read_file`.

    Errors: UserError when there is no such run or it cannot be read.
    """
    path = find_run(run)
    path = path / RECORDS if path.is_dir() else path
    try:
        if not path.is_file() and path.exists():
            raise UserError(f"cannot read run {str(run)!r}: {str(path)!r} is no file")
        with path.open("rb") as file:
            locks.lock(file, shared=True)  # no line is seen half written, where the file system has locks
            size = os.fstat(file.fileno()).st_size
            locks.unlock(file)  # lines are only added: nobody who measures need wait until all of them are read
            loaded = read_file(file, size, repr(str(path))[1:-1], whole)
    except OSError as error:
        raise UserError(f"cannot read run {str(run)!r}: {error.strerror} ({str(path)!r})") from None
    reader = images.Reader(path.parent)
    for record in loaded.records:
        if record.images:  # it was made a moment ago and is nobody else's yet, so that no copy is needed
            object.__setattr__(record, "per_image", images.PerImage(reader=reader, names=record.images))
    return loaded
