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
    if overridden := _overridden(record, settings):
        settings["variables"] = {k: v for k, v in settings["variables"].items() if k not in overridden}
    return {**stable, **{f"settings.{key}": value for key, value in settings.items()}}


def settings_of(record: Record) -> dict[str, Any]:
    """Returns how the process was set. Records of older versions have more environment variables, some of them
    secrets, or which of equal devices was used: of these, too, only those that a record keeps here today are shown, and
    tell machines apart.
    """
    settings = dict(record.environment.get("settings", {}))
    if isinstance(found := settings.get("variables"), Mapping):
        settings["variables"] = variables.of_machine(_texts(found))
    return settings


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _overridden(record: Record, settings: Mapping[str, Any]) -> set[str]:
    """Returns the variables that decided nothing, since the run's settings say what they would have decided. An engine
    may have set them, or a shell: what was computed, and how fast, follows from the settings.
    """
    if not isinstance(settings.get("variables"), Mapping):
        return set()
    done = {"threads": bool(record.settings.threads), "keep": settings.get("allocator") == "keep"}
    names = [name for what in done if done[what] for name in variables.OVERRIDDEN[what]]
    return {name for name in names if name in settings["variables"]}


def machine_key(record: Record) -> str:
    """Returns a short hash of `machine_of`."""
    return short_hash(machine_of(record))


def told_by(record: Record) -> tuple[Any, ...]:
    """Returns what is equal for two records only where their machine is, at no cost: by which objects tell it."""
    return (*(id(record.environment.get(part)) for part in ("stable", "settings")), record.settings.threads)


def machine_differences(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Maps keys to (machine key -> value), for the keys that differ between the records' machines."""
    # Records that were read share their environments: each of 50,000 need not be hashed.
    apart = {told_by(record): record for record in list(records)}
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
