"""Reads the lines of a records file, which repeat each other: what a line says in the very words of one before it (the
settings, the stages, most of the environment: half of it or more) is parsed and checked once, and is there once.

A line is believed exactly where `tlbench.records.lines.unseal` would believe it: the checksum is of the same content.
One that is written in another way than this version writes it is read by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tlbench.records import strict_json
from tlbench.records.record import SCHEMA, Record, cell_of, settings_of

MOST = 64
"""Most texts of one part that are kept: the latest. The lines of a run have one text of the settings, and one of the
stages for each backbone and image size.
"""
MAPPINGS = (
    *("weights", "samples", "largest_class", "repeated_images", "copies", "leaked_images", "places", "recipe"),
    *("layout", "prefix", "flops", "definitions", "plugins", "machine_noise"),
)
"""Fields that are mappings of a few values, which many records have alike."""
TEXTS = ("suite_version", "suite_commit", "data_sha256", "images_sha256", "id", "cut")
"""Texts that many records have alike."""
EMPTY: Mapping[str, Any] = {}
MOST_SHARED = 200_000
"""Most values that are kept so that later records may share them."""


# --- parts of lines -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """Says where a part stands that lines may have in common."""

    name: str
    put: str
    """What stands in its place while the rest of the line is parsed."""
    fits: Callable[[Mapping[str, Any]], bool]
    """Tells of the parsed rest whether the part was taken from where it belongs."""


def _field(name: str) -> _Kind:
    return _Kind(name=name, put=f'"{name}":null', fits=lambda data: data.get(name, "") is None)


ENVIRONMENT, VOLATILE = "environment", "volatile"
"""Of the environment, all but its last entry is a part: that one is another in every record."""
KINDS = (
    _field("settings"),
    _field("stages"),
    _Kind(
        name=ENVIRONMENT,
        put=f'"{ENVIRONMENT}":{{',
        fits=lambda data: isinstance(data.get(ENVIRONMENT), dict) and [*data[ENVIRONMENT]] == [VOLATILE],
    ),
)
"""In the order in which they stand in a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Holds what a part says in some line."""

    kind: _Kind
    raw: str
    """Its text in a line, with its name."""
    said: str
    """Its text in what the checksum is of."""
    value: Any


def _part(kind: _Kind, value: Any) -> _Part | None:
    """Returns the part that says a value; None where it says too little, or not in the form that is known."""
    if not value:
        return None
    if kind.name == ENVIRONMENT:
        *names, last = value
        if last != VOLATILE or not names or max(names) > VOLATILE:  # it is to stand last in either order
            return None
        value = {name: value[name] for name in names}
    raw, said = (f'"{kind.name}":{text}' for text in (strict_json.dumps(value), strict_json.in_order(value)))
    if kind.name == ENVIRONMENT:
        return _Part(kind=kind, raw=f"{raw[:-1]},", said=f"{said[:-1]},", value=value)
    return _Part(kind=kind, raw=raw, said=said, value=settings_of(value) if kind.name == "settings" else tuple(value))


# --- lines ----------------------------------------------------------------------------------------------------


class Alike:
    """Reads one line after the other, and keeps what the next ones may say again. The records that it gives share what
    they have alike.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[_Part]] = {kind.name: [] for kind in KINDS}
        self._pool: dict[Any, Any] = {}

    def record(self, line: str, by_itself: Callable[[str], dict[str, Any]]) -> Record:
        """Returns the record of a line. ``by_itself`` parses and checks one whole line, and raises ValueError that says
        what is wrong with it, as this does.
        """
        short, parts = self._shortened(line)
        data = _put_together(short, parts) if parts else None
        if data is None:
            parts, data = [], by_itself(line)
        self._learn(line, data, {part.kind.name for part in parts})
        return Record.from_dict(self._shared(data))

    def _shortened(self, line: str) -> tuple[str, list[_Part]]:
        """Returns a line without the parts that lines before it had as well, and these."""
        pieces, found, at = [], [], 0
        for kind in KINDS:
            start = line.find(f'"{kind.name}":', at)
            if start < 0:
                continue
            for part in self._parts[kind.name]:
                if line.startswith(part.raw, start):
                    pieces += [line[at:start], kind.put]
                    at = start + len(part.raw)
                    found.append(part)
                    break
        return "".join([*pieces, line[at:]]), found

    def _learn(self, line: str, data: dict[str, Any], known: Collection[str]) -> None:
        """Keeps the parts of a line that was read and checked, but for those that are known; from now on its data
        shares them.
        """
        for kind in KINDS:
            part = None if kind.name in known else _part(kind, data.get(kind.name))
            if part is not None and (start := line.find(f'"{kind.name}":')) >= 0 and line.startswith(part.raw, start):
                self._parts[kind.name] = [part, *self._parts[kind.name][: MOST - 1]]
                if kind.name != ENVIRONMENT:
                    data[kind.name] = part.value

    def _shared(self, data: dict[str, Any]) -> dict[str, Any]:
        """Returns data in which what earlier records have is the same object."""
        pool = self._pool
        if len(pool) > MOST_SHARED:
            pool.clear()
        for name in MAPPINGS:
            if (value := data.get(name)) is not None:
                # By its text: to Python, 1 is equal to 1.0 and to True.
                data[name] = pool.setdefault(repr(value), value) if value else EMPTY
        for name in TEXTS:
            if (text := data.get(name)) is not None:
                data[name] = sys.intern(text)
        if isinstance(environment := data.get(ENVIRONMENT), dict) and isinstance(environment.get(VOLATILE), dict):
            environment[VOLATILE] = {name: _keys_shared(value) for name, value in environment[VOLATILE].items()}
        if isinstance(cell := data.get("cell"), dict):
            said = f"cell {cell!r}"
            if said not in pool:
                pool[said] = cell_of(cell)
            data["cell"] = pool[said]
        return data


def _keys_shared(value: Any) -> Any:
    return {sys.intern(key): one for key, one in value.items()} if isinstance(value, dict) else value


def _put_together(short: str, parts: Iterable[_Part]) -> dict[str, Any] | None:
    """Returns the checked data of a line, of which ``short`` is what its parts leave; None where its checksum does not
    fit, or where anything else is not as in a line that this version writes.
    """
    try:
        data = strict_json.loads_plainly(short)
        said = strict_json.in_order(data)
        checksum = data.pop("checksum")
        if not strict_json.says_all(said, short):
            return None
        said = said.replace(f'"checksum":"{checksum}",', "", 1)
        for part in parts:
            if not part.kind.fits(data) or said.count(part.kind.put) != 1:
                return None
            said = said.replace(part.kind.put, part.said)
        if strict_json.checksum(said) != checksum or data["schema"] > SCHEMA:
            return None
        for part in parts:
            if part.kind.name != ENVIRONMENT:
                del data[part.kind.name]  # it was checked when it was learnt
        strict_json.check(Record, data)
        data.pop("key", None)  # the cell's, and no field of a record
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    for part in parts:
        name = part.kind.name
        data[name] = {**part.value, **data[name]} if name == ENVIRONMENT else part.value
    return data  # type: ignore[no-any-return]
