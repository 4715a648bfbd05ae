"""Reads the lines of a records file, which repeat each other. A line is cut into pieces of a few fields, and what a
piece says in the very words of one before it (the settings, the stages, most of the environment: half of the line or
more) is parsed and checked once, and is there once; what differs from record to record (the times, the accuracies) is
parsed anew. One file, since all of it is the reading of a line.

A line is believed exactly where `tlbench.records.lines.unseal` would believe it: every piece is JSON by itself, and the
checksum at its end is that of its bytes, or in lines of older versions that of the content of all pieces. One that is
written in another way than this version writes it is read by itself.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tlbench.records import strict_json
from tlbench.records.record import SCHEMA, Record, cell_of, settings_of

ENVIRONMENT, VOLATILE = "environment", "volatile"
"""Of the environment, all but its last entry is kept: that one is another in every record."""
CUTS: Mapping[str, bool] = {
    "schema": True,
    "settings": True,
    "status": True,
    "started": False,
    "suite_version": True,
    "image_size": True,
    "data_sha256": True,
    "places": True,
    "lr_trials": False,
    "block": True,
    "layout": True,
    "prefix": True,
    "flops": True,
    "detail": False,
    "definitions": True,
    VOLATILE: False,
    "plugins": True,
    "images": False,
    "key": False,
}
"""First field of each piece of a line, in the order in which they stand there -> whether later records may say the same
in the same words."""
MOST_TEXT = 10_000_000
"""Most characters of pieces that are kept: a run of 10,000 cells has about as many."""
MOST_SHARED = 200_000
"""Most values that are kept so that later records may share them."""
MAPPINGS = (
    *("weights", "samples", "largest_class", "repeated_images", "copies", "leaked_images", "places", "recipe"),
    *("layout", "prefix", "flops", "definitions", "plugins", "machine_noise"),
)
"""Fields that are mappings of a few values, which many records have alike."""
TEXTS = ("suite_version", "suite_commit", "data_sha256", "images_sha256", "id", "cut")
"""Texts that many records have alike."""
EMPTY: Mapping[str, Any] = {}
CHECKSUM = "checksum"
"""Field with the checksum of the content: of what `strict_json.in_order` writes of all other fields."""
OF_BYTES = "line_checksum"
"""Field with the checksum of all the bytes before it. Lines of older versions have none."""

_FIRST, *_REST = ((f'"{name}":', kept) for name, kept in CUTS.items())
_MARKS = [(f",{mark}", kept) for mark, kept in _REST]
_OF_VOLATILE = f'"{VOLATILE}":'

Fields = tuple[tuple[str, ...], bool]
"""Names in a piece, and whether its last one, the environment, is open: what is missing of it is the next piece."""
Said = Callable[[Sequence[str]], Sequence[str]]


class _AnotherWay(ValueError):
    """Says that a line is not written in the way that is known here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Piece:
    """Holds what a piece of a line says."""

    fields: int
    """Number of its `Fields`, which all pieces with the same ones have."""
    said: Sequence[str]
    """What the checksum of the content is of, an entry a field; nothing where that of the bytes has told."""
    keys: int
    """Keys in it, those of inner mappings as well."""
    values: dict[str, Any]
    """Fields of the record."""


class Alike:
    """Reads one line after the other, and keeps what the next ones may say again. The records that it gives share what
    they have alike.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Piece] = {}
        self._size = 0
        self._pool: dict[Any, Any] = {}
        self._fields: dict[Fields, tuple[int, tuple[str, ...]]] = {}
        self._orders: dict[tuple[int, ...], Said | None] = {}

    def record(self, line: str, by_itself: Callable[[str], dict[str, Any]]) -> Record:
        """Returns the record of a line. ``by_itself`` parses and checks one whole line, and raises ValueError that says
        what is wrong with it, as this does.
        """
        data = self._in_pieces(line)
        return Record.from_dict(self._shared(by_itself(line)) if data is None else data)

    def _in_pieces(self, line: str) -> dict[str, Any] | None:
        """Returns the checked data of a line; None where its checksum does not fit, or where anything else is not as in
        a line that this version writes.
        """
        try:
            plain = unsealed(line)
            pieces = [self._piece(*piece, plain is not None) for piece in _cut(plain or line)]
            order = self._order(tuple(piece.fields for piece in pieces))
            data: dict[str, Any] = {}
            for piece in pieces:
                data.update(piece.values)
            checksum = data.pop(CHECKSUM)
            if plain is None and not _fits(checksum, order, pieces, line):
                return None
            if plain is not None and sum(piece.keys for piece in pieces) != plain.count('":'):
                return None  # some key stands twice, or some text looks like one
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if VOLATILE in data:
            data[ENVIRONMENT] = {**data[ENVIRONMENT], VOLATILE: data.pop(VOLATILE)}
        return data

    # --- pieces

    def _piece(self, raw: str, kept: bool, opens: bool, told: bool) -> _Piece:
        """Returns what a piece says. ``told``: the checksum of the line's bytes fits. Errors: ValueError where it is
        not JSON, or not of the types that a record has.
        """
        if not kept:
            return self._new(raw, told)
        piece = self._kept.get(raw)
        if piece is None:
            piece = self._learnt(raw, opens)
            if self._size > MOST_TEXT:
                self._kept.clear()
                self._size = 0
            self._kept[raw] = piece
            self._size += len(raw)
        return piece

    def _new(self, raw: str, told: bool) -> _Piece:
        """Returns what a piece says that is another in every record."""
        data = strict_json.loads_plainly(f"{{{raw}" if raw.startswith(_OF_VOLATILE) else f"{{{raw}}}")
        said = [] if told else [f'"{name}":{strict_json.in_order(value)}' for name, value in data.items()]
        strict_json.check(Record, data)
        number, names = self._known((tuple(data), False))
        values = dict(zip(names, data.values(), strict=True))
        keys = strict_json.keys_of_finite(data) if told else 0
        if VOLATILE in values:
            said[:1] = [f"{one}}}" for one in said[:1]]
            values[VOLATILE] = _keys_shared(values[VOLATILE], 2)
        if (cut := values.get("cut")) is not None:
            values["cut"] = sys.intern(cut)
        values.pop("key", None)  # the cell's, and no field of a record
        return _Piece(fields=number, said=said, keys=keys, values=values)

    def _learnt(self, raw: str, opens: bool) -> _Piece:
        """Returns what a piece says that later records may say again."""
        data = strict_json.loads(f"{{{raw}{'}}' if opens else '}'}")
        strict_json.check(Record, data)
        if data.get("schema", SCHEMA) > SCHEMA:
            raise _AnotherWay
        said = [f'"{name}":{strict_json.in_order(value)}' for name, value in data.items()]
        if opens:
            environment = data.get(ENVIRONMENT)
            # It is to stand last in either order.
            if not environment or next(reversed(data)) != ENVIRONMENT or max(environment) >= VOLATILE:
                raise _AnotherWay
            said[-1] = said[-1][:-1]
        number, names = self._known((tuple(data), opens))
        values = dict(zip(names, data.values(), strict=True))
        return _Piece(fields=number, said=said, keys=raw.count('":'), values=self._shared(values))

    def _known(self, fields: Fields) -> tuple[int, tuple[str, ...]]:
        """Returns the number of a piece's fields, and their names as a record's fields are called: the same texts."""
        if fields not in self._fields:
            self._fields[fields] = len(self._fields), tuple(map(sys.intern, fields[0]))
        return self._fields[fields]

    def _order(self, pieces: tuple[int, ...]) -> Said:
        """Returns what puts all that pieces say into the order of the checksum's text. Errors: ValueError where these
        are no pieces of a record.
        """
        if pieces not in self._orders:
            known = list(self._fields)
            self._orders[pieces] = _order_of([known[number] for number in pieces])
        found = self._orders[pieces]
        if found is None:
            raise _AnotherWay
        return found

    # --- what records share

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
        for name, made_of in (("cell", cell_of), ("settings", settings_of), ("stages", tuple)):
            if (value := data.get(name)) is not None:
                said = name, _digest(repr(value))  # of 50,000 cells the texts would be 50 MB
                if said not in pool:
                    pool[said] = made_of(value)
                data[name] = pool[said]
        if isinstance(environment := data.get(ENVIRONMENT), dict):
            data[ENVIRONMENT] = {name: self._of_environment(name, value) for name, value in environment.items()}
        return data

    def _of_environment(self, name: str, value: Any) -> Any:
        if name == VOLATILE:
            return _keys_shared(value, 2)
        return self._pool.setdefault((name, ENVIRONMENT, repr(value)), value)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _keys_shared(value: Any, levels: int) -> Any:
    """Returns a value in which the names of mappings are the same texts as in all others."""
    if not levels or not isinstance(value, dict):
        return value
    return {sys.intern(name): _keys_shared(one, levels - 1) for name, one in value.items()}


# --- lines ----------------------------------------------------------------------------------------------------


def sealed(text: str) -> str:
    """Returns a JSON object as text with the checksum of its bytes at the end."""
    return f'{text[:-1]},"{OF_BYTES}":"{strict_json.checksum(text[:-1])}"}}'


_MARK = f',"{OF_BYTES}":"'
_END = len(_MARK) + 16 + len('"}')


def unsealed(text: str) -> str | None:
    """Returns what `sealed` was given; None where the text does not end as it ends one, or has other bytes."""
    before, end = text[:-_END], text[-_END:]
    fits = end.startswith(_MARK) and end == f'{_MARK}{strict_json.checksum(before)}"}}'
    return f"{before}}}" if fits else None


def _fits(checksum: object, order: Said, pieces: Iterable[_Piece], line: str) -> bool:
    """Tells whether a checksum is that of the content of all pieces of a line."""
    text = f"{{{','.join(order([one for piece in pieces for one in piece.said]))}}}"
    return strict_json.checksum(text) == checksum and strict_json.says_all(text, line, 1)


def _cut(line: str) -> list[tuple[str, bool, bool]]:
    """Cuts a line into pieces: the text of each, without the commas between them, whether it may come again, and
    whether it ends inside the environment. Errors: ValueError where the line begins or ends in another way.

    Names are looked for without regard to what they stand in: a piece that is cut elsewhere than between two fields of
    the record is no JSON by itself, or has other fields.
    """
    if not line.startswith("{" + _FIRST[0]) or not line.endswith("}"):
        raise _AnotherWay
    pieces, at, (first, kept) = list[tuple[str, bool, bool]](), 1, _FIRST
    for mark, next_kept in _MARKS:
        if not kept and not next_kept and first != _OF_VOLATILE:
            continue  # both are parsed anew: one after the other takes longer
        place = line.find(mark, at)
        if place < 0:
            continue  # older records have fewer fields
        pieces.append((line[at:place], kept, mark[1:] == _OF_VOLATILE))
        at, first, kept = place + 1, mark[1:], next_kept
    pieces.append((line[at:-1], kept, False))
    return pieces


def _order_of(pieces: Sequence[Fields]) -> Said | None:
    """Returns what puts the texts of all fields, which stand in the order of the line, into the order of the checksum's
    text; None where the pieces are not those of a whole record.
    """
    names: list[tuple[str, str]] = []
    before = False
    for fields, opens in pieces:
        # What is left of the environment is a piece of its own, which stands where the environment does.
        if before != (fields == (VOLATILE,)) or (VOLATILE in fields and fields != (VOLATILE,)):
            return None
        names += [(ENVIRONMENT, name) if name == VOLATILE else (name, "") for name in fields]
        before = opens
    if before or len({*names}) < len(names) or (CHECKSUM, "") not in names:
        return None
    places = sorted((name, place) for place, name in enumerate(names) if name != (CHECKSUM, ""))
    return itemgetter(*(place for _, place in places))
