"""Records as lines of strict JSON, each with a checksum."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from tlbench.machine.credentials import cleaned
from tlbench.records import strict_json
from tlbench.records.alike import CHECKSUM, OF_BYTES, Alike, sealed, unsealed
from tlbench.records.record import SCHEMA, Record


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Holds the records of a file, and names its damaged lines."""

    records: list[Record]
    damaged: list[str]
    """One line for each line of the file that is no valid record: its number and what is wrong."""


# --- lines ----------------------------------------------------------------------------------------------------


def encode(record: Record) -> str:
    """Writes a record as one line of strict JSON, with a checksum of everything else in it.

    Errors: ValueError or TypeError when a field is not what `Record` says, or is no number.
    """
    data = record.to_dict()
    strict_json.check(Record, data)
    return seal(data)


WORDS = ("reason", "output", "validity_reason", "layout", "prefix", "nondeterministic")
"""Fields with texts that a library, a plugin or the process itself may have written."""


def without_credentials(record: Record) -> Record:
    """Returns a record in whose texts there are no credentials (`tlbench.machine.credentials`). What it measured is
    left as it is.
    """
    of_weights = {name: record.weights[name] for name in ("source", "reason") if name in record.weights}
    *words, found = cleaned([*(getattr(record, name) for name in WORDS), of_weights])
    return replace(record, **dict(zip(WORDS, words, strict=True)), weights={**record.weights, **found})


def encode_or_fail(record: Record) -> tuple[Record, str]:
    """Returns a record and its line; in the place of one that is no strict JSON what is left of it: a wrong number is
    worse than none.
    """
    try:
        return record, encode(record)
    except (ValueError, TypeError) as error:
        kept = ("id", "cell", "settings", "started", "wall_seconds", "suite_version", "block", "role", "definitions")
        left = Record(
            **{name: getattr(record, name) for name in kept},
            status="failed",
            reason=f"its record cannot be written: {error}",
        )
        return left, encode(left)


def decode(line: str) -> Record:
    """Reads the record of one line. Errors: ValueError saying what is wrong with it."""
    return Record.from_dict(_checked(line))


def _checked(line: str) -> dict[str, Any]:
    data = unseal(line)
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema {schema} is newer than this tlbench reads ({SCHEMA})")
    strict_json.check(Record, data)
    return data


def read(content: bytes, name: str) -> Loaded:
    """Reads the records in the bytes of a records file; ``name`` says where they are from."""
    return read_file(io.BytesIO(content), len(content), name)


def read_file(file: BinaryIO, size: int, name: str, whole: bool = True) -> Loaded:
    """Reads the records in the first ``size`` bytes of a file, one line after the other: the whole is never in memory.
    ``name`` says where they are from. Without ``whole``, each line is checked as ever, but its record keeps nothing
    that no figure is made of: of what changes about a machine the GPU's clocks alone.
    """
    records, damaged = [], []
    alike, left, number = Alike(whole), size, 0
    with _without_collecting():
        while left > 0 and (line := file.readline(left)):
            left, number = left - len(line), number + 1
            if not line.strip():
                continue
            try:
                records.append(alike.record(line.removesuffix(b"\n").decode("utf-8"), _checked))
            except ValueError as error:
                torn = "" if line.endswith(b"\n") else " (torn: it has no end)"
                damaged.append(f"{name}:{number}: {error}{torn}")
    return Loaded(records=records, damaged=damaged)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Keeps Python from looking again and again through all that was read so far for what nobody needs: all of it is
    needed.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def seal(data: dict[str, Any]) -> str:
    """Writes data as one line of strict JSON, with two checksums: one of the content, and last one of all the bytes
    before it, which takes much less time to look at. Errors: as `strict_json.dumps`.
    """
    data = {name: value for name, value in data.items() if name not in (CHECKSUM, OF_BYTES)}
    return sealed(strict_json.dumps({**data, CHECKSUM: _checksum(data)})) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """Returns what `seal` wrote, or a version that wrote the checksum of the content alone. Other spaces, another order
    of keys or another way of writing a number say the same: then the content's checksum tells.

    Errors: ValueError when it is no JSON object whose checksum fits.
    """
    data = strict_json.loads(text)
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    if unsealed(text.strip()) is None:
        try:
            checksum = _checksum({key: value for key, value in data.items() if key not in (CHECKSUM, OF_BYTES)})
            fits = data.get(CHECKSUM) == checksum
            # What is to the last byte as it is written here has been written so: then its bytes tell.
            fits = fits and (next(reversed(data)) != OF_BYTES or strict_json.dumps(data) != text.strip())
        except RecursionError:
            raise ValueError("not JSON: nested too deeply") from None
        if not fits:
            raise ValueError("its checksum does not fit: torn or changed")
    for name in (CHECKSUM, OF_BYTES):
        data.pop(name, None)
    return data


def _checksum(data: dict[str, Any]) -> str:
    """Hashes the content, not the bytes: other spaces or another order of keys say the same."""
    return strict_json.checksum(strict_json.in_order(data))
