"""Which records come from the same machine, and what tells machines apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tlbench.machine import variables
from tlbench.records.record import Record

SHORT = 8
"""Hexadecimal digits of a short hash."""


def machine_of(record: Record) -> dict[str, Any]:
    """Returns everything that must agree before two records are averaged: hardware, libraries, torch's settings."""
    stable, settings = record.environment.get("stable", {}), settings_of(record)
    return {**stable, **{f"settings.{key}": value for key, value in settings.items()}}


def settings_of(record: Record) -> dict[str, Any]:
    """Returns how the process was set. Records of older versions have more environment variables, some of them
    secrets: of these, too, only those that a record keeps today are shown, and tell machines apart.
    """
    settings = dict(record.environment.get("settings", {}))
    if isinstance(found := settings.get("variables"), Mapping):
        settings["variables"] = variables.kept({name: value for name, value in found.items() if isinstance(value, str)})
    return settings


def machine_key(record: Record) -> str:
    """Returns a short hash of `machine_of`."""
    return short_hash(machine_of(record))


def machine_differences(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Maps keys to (machine key -> value), for the keys that differ between the records' machines."""
    # Records that were read share their environments: each of 50,000 need not be hashed.
    apart = {tuple(id(r.environment.get(part)) for part in ("stable", "settings")): r for r in list(records)}
    machines = {machine_key(record): machine_of(record) for record in apart.values()}
    names = dict.fromkeys(name for values in machines.values() for name in values)
    table = {name: {key: values.get(name) for key, values in machines.items()} for name in names}
    return {name: values for name, values in table.items() if len({_text(v) for v in values.values()}) > 1}


_ENCODER = json.JSONEncoder(sort_keys=True, default=str)


def _text(value: Any) -> str:
    return _ENCODER.encode(value)


def short_hash(value: Any) -> str:
    """Returns the first `SHORT` hexadecimal digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(_text(value).encode()).hexdigest()[:SHORT]
