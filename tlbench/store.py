"""A run's folder: ``results/<run>/records.jsonl``, one line a record, synced as each cell ends."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tlbench.errors import UserError
from tlbench.record import Record

RECORDS = "records.jsonl"


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
        except OSError as error:
            raise UserError(
                f"cannot write to results folder {str(self.folder)!r}: {error.strerror}; "
                "choose another with --out (pytest: --tl-out)"
            ) from None

    def append(self, record: Record) -> None:
        """Writes one line and syncs it to the disk. A torn line left by a killed process is closed first."""
        line = encode(record).encode()
        try:
            with self.path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        line = b"\n" + line
                file.seek(end)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write to {str(self.path)!r}: {error.strerror}; earlier records are intact"
            ) from None


def new_run(out: str | Path | None = None) -> Store:
    """The store of a new run: in ``out``, or in results/ under the date and time.

    Errors: UserError when the folder already holds a run or cannot be written.
    """
    if out is not None:
        if (Path(out) / RECORDS).exists():
            raise UserError(
                f"results folder {str(out)!r} already holds a run; choose a new folder, nothing was changed"
            )
        return Store(out)
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    for name in itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2))):
        if not (folder := Path("results") / name).exists():
            return Store(folder)
    raise AssertionError("unreachable")


def encode(record: Record) -> str:
    """One line of strict JSON (no NaN), with a checksum of everything else in it."""
    data = record.to_dict()
    return _dump({**data, "checksum": _checksum(data)}) + "\n"


def decode(line: str) -> Record:
    """The record of one line. Errors: ValueError saying what is wrong with it."""
    try:
        data = json.loads(line, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("not a record: no JSON object")
    checksum = data.pop("checksum", None)
    if checksum != _checksum(data):
        raise ValueError("its checksum does not fit: torn or changed")
    return Record.from_dict(data)


def load(run: str | Path) -> Loaded:
    """The records of a run's folder or records file; damaged lines are set aside and named.

    Errors: UserError when there is no such run or it cannot be read.
    """
    path = Path(run)
    path = path / RECORDS if path.is_dir() else path
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read run {str(run)!r}: {error.strerror} ({path})") from None
    records, damaged = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(decode(line.decode("utf-8")))
        except ValueError as error:
            damaged.append(f"{path}:{number}: {error}")
    return Loaded(records=records, damaged=damaged)


def load_all(runs: Iterable[str | Path]) -> Loaded:
    """The records of several runs, in order."""
    loaded = [load(run) for run in runs]
    return Loaded(
        records=[record for one in loaded for record in one.records],
        damaged=[line for one in loaded for line in one.damaged],
    )


def _dump(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _checksum(data: dict[str, Any]) -> str:
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _refuse(constant: str) -> float:
    raise ValueError(f"not strict JSON: {constant}")
