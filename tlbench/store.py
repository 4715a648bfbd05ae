"""A run's folder, ``results/<run>/``: ``run.json`` says what is to be measured and how, ``records.jsonl`` holds one
line for each record, on the disk before the next cell starts. Both are strict JSON with a checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import Any

import tlbench
from tlbench import strict
from tlbench.errors import UserError
from tlbench.grid import AXES, Cell, Grid
from tlbench.record import SCHEMA, Record, Settings

RECORDS = "records.jsonl"
RUN = "run.json"
RESULTS = Path("results")
"""Where runs lie that are known by a name."""

FINAL = "final"
AGAIN = "again"
RESUME = {
    "ok": (FINAL, "its figures are there"),
    "not_applicable": (FINAL, "it means nothing, today and tomorrow"),
    "diverged": (FINAL, "the same seed would diverge again"),
    "skipped": (AGAIN, "what it needs may be here now"),
    "failed": (AGAIN, "the cause may be gone, and there is no figure to lose"),
    "oom": (AGAIN, "what else took the memory may be gone"),
    "timeout": (AGAIN, "what kept it waiting may be gone"),
    "interrupted": (AGAIN, "it was stopped, it did not fail"),
}
"""Status of a record -> whether resuming runs its cell again, and why. A cell without a record is missing: it runs."""

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
"""Those that decide what a cell computes."""

Identity = tuple[str, str, int]
"""The cell's key, the role and the block: what a run measures once, or as often as `REPEATS` says."""
REPEATS = {"aa": 2}
"""Role -> how often a block has it. Of twins, both are needed: their difference is the noise floor."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run measures, fixed when it starts (``run.json``)."""

    grids: tuple[Grid, ...]
    """The grid that it started with, and those added when it was resumed."""
    settings: Settings
    versions: Mapping[str, str | None]
    started: str
    """UTC, ISO 8601."""

    def cells(self) -> dict[Cell, str]:
        """Every cell of every grid once, in order, with its readable name."""
        merged = Grid(axes={name: tuple(dict.fromkeys(v for g in self.grids for v in g.axes[name])) for name in AXES})
        return {cell: merged.id_of(cell) for grid in self.grids for cell in grid.expand()}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a records file held."""

    records: list[Record]
    damaged: list[str]
    """One line for each line of the file that is no valid record: its number and what is wrong."""


class Store:
    """Appends records to a run's folder; each line under a lock, so that several processes may share one."""

    def __init__(self, folder: str | Path) -> None:
        """Makes the folder. Errors: UserError when it cannot be written."""
        self.folder = Path(folder)
        self.path = self.folder / RECORDS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            _sync_folder(self.folder)
        except (OSError, ValueError) as error:
            raise _unwritable(self.folder, error) from None

    def append(self, record: Record) -> Record:
        """Writes one line and syncs it to the disk; what did not fit is taken back. Returns what was written: a
        failed record where this one cannot be (a figure that is no number).

        Errors: UserError when the disk is full or cannot be written; earlier records are intact.
        """
        try:
            line = encode(record)
        except (ValueError, TypeError) as error:
            record = _unusable(record, error)
            line = encode(record)
        try:
            with self._locked() as file:
                end = file.seek(0, os.SEEK_END)
                # A torn line left by a killed process is closed first.
                torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
                try:
                    _write(file, b"\n" * torn + line.encode())
                except BaseException:
                    with suppress(OSError):  # else the next line closes what is torn
                        file.truncate(end)
                    raise
                # Synced without the lock: processes that wait for the disk together wait once.
                fcntl.flock(file, fcntl.LOCK_UN)
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write to {str(self.path)!r}: {error.strerror}; the records before {record.id!r} are intact"
            ) from None
        return record

    def describe(self, grid: Grid, settings: Settings) -> Plan:
        """Fixes what a new run measures. Errors: UserError when the folder already holds a run."""
        plan = Plan(grids=(grid,), settings=settings, versions=versions(), started=_now())
        with self._writing():
            if _holds_a_run(self.folder):
                raise _occupied(self.folder)
            self._write_plan(plan)
        return plan

    def extend(self, grid: Grid) -> Plan:
        """Adds a grid's cells to those of the run; nothing changes where it has them all."""
        with self._writing():
            plan = load_plan(self.folder)
            if not set(grid.expand()) <= set(plan.cells()):
                plan = replace(plan, grids=(*plan.grids, grid))
                self._write_plan(plan)
        return plan

    def _write_plan(self, plan: Plan) -> None:
        """Aside, synced, then renamed: whoever looks sees all of it or none."""
        data = {
            "schema": SCHEMA,
            "grids": [grid.axes for grid in plan.grids],
            **{name: value for name, value in asdict(plan).items() if name != "grids"},
        }
        handle, aside = tempfile.mkstemp(dir=self.folder, prefix=f".{RUN}.")
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                _write(file, _seal(data).encode())
                os.fsync(file.fileno())
            os.chmod(aside, self.path.stat().st_mode & 0o777)
            os.replace(aside, self.folder / RUN)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        _sync_folder(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        with self.path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._locked():
                yield
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def _write(file: FileIO, content: bytes) -> None:
    """All of it; a full disk takes a part before it refuses."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unusable(record: Record, error: Exception) -> Record:
    """What is left of a record that is no strict JSON: a wrong number is worse than none."""
    kept = ("id", "cell", "settings", "started", "wall_seconds", "suite_version", "block", "role")
    return Record(
        **{name: getattr(record, name) for name in kept},
        status="failed",
        reason=f"its record cannot be written: {error}",
    )


def _unwritable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot write to results folder {str(folder)!r}: {getattr(error, 'strerror', None) or error}; "
        "choose another with --out (pytest: --tl-out)"
    )


# --- starting and resuming ------------------------------------------------------------------------------------


def new_run(out: str | Path | None = None) -> Store:
    """The store of a new run: in ``out``, or in results/ under the date and time.

    Errors: UserError when the folder already holds a run or cannot be written.
    """
    if out is not None:
        if _holds_a_run(Path(out)):
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
        raise _unwritable(RESULTS, error) from None
    raise AssertionError("unreachable")


def resume_run(run: str | Path, given: Mapping[str, Any] | None = None) -> tuple[Store, Plan]:
    """The store and the plan of a run that goes on. ``given`` are the settings that the user named this time.

    Errors: UserError when there is no such run, or naming each setting or version that differs from its start.
    """
    folder = find_run(run)
    plan = load_plan(folder)
    here = versions()
    differing = [
        *(
            f"{name} was {getattr(plan.settings, name)!r}, now it is {value!r}"
            for name, value in (given or {}).items()
            if value != getattr(plan.settings, name)
        ),
        *(
            f"{name} was {plan.versions.get(name)}, here it is {here.get(name)}"
            for name in sorted({*plan.versions, *here})
            if plan.versions.get(name) != here.get(name)
        ),
    ]
    if differing:
        raise UserError(
            f"run {str(folder)!r} cannot go on under other conditions than it began with: {'; '.join(differing)}; "
            "restore them, or start a new run"
        )
    return Store(folder), plan


def load_plan(folder: Path) -> Plan:
    """What ``run.json`` says. Errors: UserError when it is not there, damaged or of another version."""
    path = folder / RUN
    try:
        data = _unseal(path.read_bytes().decode())
        if data.get("schema") != SCHEMA:
            raise ValueError(f"of schema {data.get('schema')!r}, while this tlbench has {SCHEMA}")
        strict.check(tuple[Mapping[str, tuple[Any, ...]], ...], data["grids"], "grids")
        strict.check(Settings, data["settings"], "settings")
        strict.check(Mapping[str, str | None], data["versions"], "versions")
        strict.check(str, data["started"], "started")
        _check_names("setting", data["settings"], (f.name for f in fields(Settings)))
        for axes in data["grids"]:
            _check_names("axis", axes, AXES)
            for name, values in axes.items():
                for value in values:
                    strict.check(Cell, {name: value}, "axis")
        return Plan(
            grids=tuple(Grid(axes={name: tuple(values) for name, values in axes.items()}) for axes in data["grids"]),
            settings=Settings(**data["settings"]),
            versions=data["versions"],
            started=data["started"],
        )
    except FileNotFoundError:
        raise UserError(
            f"{str(folder)!r} holds no run that could go on (no {RUN}); start one with `tlbench run`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{str(path)!r} is damaged or of another version: {error}; start a new run") from None


def _check_names(kind: str, found: Iterable[str], expected: Iterable[str]) -> None:
    # A default must not stand in for what another version knew or did not know.
    if differing := sorted(set(found) ^ set(expected)):
        raise ValueError(f"{kind} {differing[0]!r} is in one and not in the other")


def find_run(run: str | Path, results: Path | None = None) -> Path:
    """A run's folder or records file: a path as it stands, else a name under results/, which it cannot leave.

    Errors: UserError when there is neither.
    """
    results = RESULTS if results is None else results
    try:
        if os.path.lexists(run):
            return Path(run)
        named = results / run
        if ".." not in named.parts and named.exists() and results.resolve() in named.resolve().parents:
            return named
    except (OSError, ValueError, RuntimeError):
        pass  # a name too long, a NUL in it, a link in a circle
    raise UserError(f"cannot read run {str(run)!r}: there is no such folder, nor one of this name in {str(results)!r}")


def versions() -> dict[str, str | None]:
    """Of what decides the figures; None where a package is not installed."""
    found: dict[str, str | None] = {"tlbench": tlbench.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _holds_a_run(folder: Path) -> bool:
    try:
        return (folder / RUN).exists() or (folder / RECORDS).stat().st_size > 0
    except (OSError, ValueError):
        return False  # nothing is there, or nothing can be: then making it says why


def _occupied(folder: Path) -> UserError:
    return UserError(
        f"results folder {str(folder)!r} already holds a run; choose a new folder, or go on with it by --resume; "
        "nothing was changed"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- which cells are done -------------------------------------------------------------------------------------


def identity(record: Record) -> Identity:
    """What the record measured."""
    return record.key, record.role, record.block


def current(records: Iterable[Record]) -> list[Record]:
    """What counts of a run that was resumed, in the order of writing: of each identity the latest final records
    (`RESUME`), as many as a run makes of it (`REPEATS`); the latest of all where none is final. So a repetition that
    fails or is stopped does not undo a cell that was finished.
    """
    by_identity: dict[Identity, list[tuple[int, Record]]] = {}
    for place in enumerate(records):
        by_identity.setdefault(identity(place[1]), []).append(place)
    kept: list[tuple[int, Record]] = []
    for (_, role, _), every in by_identity.items():
        final = [place for place in every if _is_final(place[1])]
        kept += final[-REPEATS.get(role, 1) :] or every[-1:]
    return [record for _, record in sorted(kept, key=lambda place: place[0])]


def todo(
    wanted: Iterable[Identity], records: Iterable[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[int]:
    """Positions in ``wanted`` that are still to be measured: those without a final record of their own, and those
    whose record ``redo`` wants anew (a noisy one).
    """
    left = Counter(identity(record) for record in current(records) if _is_final(record) and not redo(record))
    positions = []
    for position, one in enumerate(wanted):
        if left[one]:
            left[one] -= 1
        else:
            positions.append(position)
    return positions


def _is_final(record: Record) -> bool:
    return RESUME[record.status][0] == FINAL


SAME_INPUT: dict[str, tuple[Callable[[Record], str | None], tuple[str, ...]]] = {
    "images": (lambda r: r.data_sha256, ("dataset", "backbone", "image_size", "train_size", "seed")),
    "initial weights": (lambda r: r.weights.get("sha256"), ("backbone", "weights", "seed")),
}
"""What two records must share -> the hash of it, and the fields of `Cell` that decide it."""


def check_same_input(record: Record, earlier: Sequence[Record]) -> None:
    """Errors: UserError when images or weights are no longer those that this run's earlier records measured, though
    the cells name the same.
    """
    for what, (hash_of, names) in SAME_INPUT.items():
        mine = hash_of(record)
        for other in earlier:
            same = all(getattr(other.cell, name) == getattr(record.cell, name) for name in names)
            if same and mine and hash_of(other) and hash_of(other) != mine:
                raise UserError(
                    f"the {what} of {record.id!r} have changed since {other.id!r} was measured in this run; "
                    "restore them, or start a new run"
                )


# --- lines ----------------------------------------------------------------------------------------------------


def encode(record: Record) -> str:
    """One line of strict JSON, with a checksum of everything else in it.

    Errors: ValueError or TypeError when a field is not what `Record` says, or is no number.
    """
    data = record.to_dict()
    strict.check(Record, data)
    return _seal(data)


def decode(line: str) -> Record:
    """The record of one line. Errors: ValueError saying what is wrong with it."""
    data = _unseal(line)
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema {schema} is newer than this tlbench reads ({SCHEMA})")
    strict.check(Record, data)
    return Record.from_dict(data)


def load(run: str | Path) -> Loaded:
    """The records of a run's folder or records file, also under its name in results/; damaged lines are set aside
    and named.

    Errors: UserError when there is no such run or it cannot be read.
    """
    path = find_run(run)
    path = path / RECORDS if path.is_dir() else path
    try:
        if not path.is_file() and path.exists():
            raise UserError(f"cannot read run {str(run)!r}: {str(path)!r} is no file")
        with path.open("rb") as file:
            with suppress(OSError):  # no line is seen half written, where the file system has locks
                fcntl.flock(file, fcntl.LOCK_SH)
            content = file.read()
    except OSError as error:
        raise UserError(f"cannot read run {str(run)!r}: {error.strerror} ({str(path)!r})") from None
    return read(content, repr(str(path))[1:-1])


def read(content: bytes, name: str) -> Loaded:
    """The records in the bytes of a records file; ``name`` says where they are from."""
    records, damaged = [], []
    *lines, last = content.split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        if not line.strip():
            continue
        try:
            records.append(decode(line.decode("utf-8")))
        except ValueError as error:
            torn = " (torn: it has no end)" if line is last else ""
            damaged.append(f"{name}:{number}: {error}{torn}")
    return Loaded(records=records, damaged=damaged)


def load_all(runs: Iterable[str | Path]) -> Loaded:
    """The current records of several runs, in order: of a run that was resumed, what counts (`current`)."""
    loaded = [load(run) for run in runs]
    return Loaded(
        records=[record for one in loaded for record in current(one.records)],
        damaged=[line for one in loaded for line in one.damaged],
    )


def _seal(data: dict[str, Any]) -> str:
    return strict.dumps({**data, "checksum": _checksum(data)}) + "\n"


def _unseal(text: str) -> dict[str, Any]:
    """Errors: ValueError when it is no JSON object whose checksum fits."""
    data = strict.loads(text)
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    try:
        found = _checksum({key: value for key, value in data.items() if key != "checksum"})
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if data.pop("checksum", None) != found:
        raise ValueError("its checksum does not fit: torn or changed")
    return data


def _checksum(data: dict[str, Any]) -> str:
    """Of the content, not of the bytes: other spaces or another order of keys say the same."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
