"""Reads the lines of a records file, which repeat each other. A line is cut into pieces of a few fields, and what a
piece says in the very words of one before it (the settings, the stages, most of the environment: half of the line or
more) is parsed and checked once, and is there once; so is a cell of which another seed was there. What differs from
record to record (the times, the accuracies) is parsed anew. One file, since all of it is the reading of a line.

A line is believed exactly where `tlbench.records.lines.unseal` would believe it: every piece is JSON by itself, and the
checksum at its end is that of its bytes, or in lines of older versions that of the content of all pieces. One that is
written in another way than this version writes it is read by itself.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

from tlbench.grid.cell import at_seed
from tlbench.records import strict_json
from tlbench.records.record import SCHEMA, Record, cell_of, rounds_of, settings_of

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
MOST_DIGITS = 16
"""Of a seed that is looked for as digits."""
CLOCKS = "gpu_clocks_locked"
"""What figures take from the facts that change (`tlbench.analysis.derived.gpu_clocks_locked`)."""
_CLOCKS: Mapping[bool, Mapping[str, Any]] = {locked: {"after": {CLOCKS: locked}} for locked in (True, False)}
CHECKSUM = "checksum"
"""Field with the checksum of the content: of what `strict_json.in_order` writes of all other fields."""
OF_BYTES = "line_checksum"
"""Field with the checksum of all the bytes before it. Lines of older versions have none."""

_STARTS = [f'"{name}":' for name in CUTS]
_KEPT = [*CUTS.values()]
_OF_VOLATILE = f'"{VOLATILE}":'
_ENDS = [
    [
        (f",{mark}", place)
        for place, mark in enumerate(_STARTS)
        # Two that are parsed anew are one piece.
        if place > first and (_KEPT[first] or _KEPT[place] or _STARTS[first] == _OF_VOLATILE)
    ]
    for first in range(len(_STARTS))
]
"""Of each piece, by its place in `CUTS`, what may stand behind it, and the place of that."""
_BETWEEN = secrets.randbits(61) << 1 | 1 << 62 | 1
"""Stands between the pieces of a line that are parsed together: no line can hold it but by knowing this process, and
being odd it is equal to no float."""

Fields = tuple[tuple[str, ...], bool]
"""Names in a piece, and whether its last one, the environment, is open: what is missing of it is the next piece."""
Said = Callable[[Sequence[str]], Sequence[str]]


def _spaced(text: str) -> bool:
    """Tells whether a quote may have a space behind it, as in a key that stands apart from its colon."""
    return any(f'"{space}' in text for space in " \t\n\r")


class _AnotherWay(ValueError):
    """Says that a line is not written in the way that is known here."""


class _Piece(NamedTuple):
    """Holds what a piece of a line says."""

    fields: int
    """Number of its `Fields`, which all pieces with the same ones have."""
    said: Sequence[str]
    """What the checksum of the content is of, an entry a field; nothing where that of the bytes has told."""
    values: dict[str, Any]
    """Fields of the record."""


@dataclass(kw_only=True, slots=True)
class _Seeds:
    """Holds what the first piece of a line says with one seed and another."""

    known: dict[str, _Piece]
    """Seed as it is written -> what the piece says."""
    name: str = ""
    """The record's id up to the seed."""
    alike: bool | None = None
    """Whether the seed is a number of the cell and the end of the id, and nothing else, so that what is said with a
    third one follows; None while one is known."""


class Alike:
    """Reads one line after the other, and keeps what the next ones may say again. The records that it gives share what
    they have alike.
    """

    def __init__(self, whole: bool = True) -> None:
        """Without ``whole``, records keep nothing of what changes about the machine but the GPU's clocks."""
        self._whole = whole
        self._kept: dict[str, _Piece] = {}
        self._last: list[tuple[str, int, _Piece] | None] = [None] * len(_STARTS)
        self._seeds: dict[tuple[str, str, str], _Seeds] = {}
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
            pieces = self._pieces(plain or line, plain is not None)
            order = self._order(tuple([piece.fields for piece in pieces]))
            data: dict[str, Any] = {}
            for piece in pieces:
                data.update(piece.values)
            checksum = data.pop(CHECKSUM)
            if plain is None and not _fits(checksum, order, pieces, line):
                return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if VOLATILE in data:
            data[ENVIRONMENT] = self._environment(data[ENVIRONMENT], data.pop(VOLATILE))
        return data

    # --- pieces

    def _pieces(self, line: str, told: bool) -> list[_Piece]:
        """Cuts a line into pieces, and returns what each says. ``told``: the checksum of the line's bytes fits. Errors:
        ValueError where the line begins or ends in another way, or a piece is not JSON by itself, or not of the types
        that a record has.

        Names are looked for without regard to what they stand in: a piece that is cut elsewhere than between two fields
        of the record is no JSON by itself, or has other fields.
        """
        if not line.startswith(_STARTS[0], 1) or not (line.startswith("{") and line.endswith("}")):
            raise _AnotherWay
        pieces: list[Any] = []
        anew: list[tuple[int, str]] = []
        at, first = 1, 0
        while first < len(_STARTS):
            last = self._last[first]
            if told and last is not None and line.startswith(last[0], at):  # most say what was said before
                text, following, piece = last
                at += len(text) - len(_STARTS[following])
                pieces.append(piece)
                first = following
                continue
            end, following = _end_of(line, at, first)
            raw = line[at:end]
            if not _KEPT[first]:
                anew.append((len(pieces), raw))
                pieces.append(None)
            elif first == 0 and told:
                pieces.append(self._at_a_seed(raw))
            else:
                opens = following < len(_STARTS) and _STARTS[following] == _OF_VOLATILE
                pieces.append(self._same(raw, opens, told))
                if following < len(_STARTS):
                    self._last[first] = f"{raw},{_STARTS[following]}", following, pieces[-1]
            at, first = end + 1, following
        for (place, _), piece in zip(anew, self._anew([raw for _, raw in anew], told), strict=True):
            pieces[place] = piece
        return pieces

    def _same(self, raw: str, opens: bool, told: bool) -> _Piece:
        """Returns what a piece says that later records may say again."""
        piece = self._kept.get(raw)
        if piece is None or not (told or piece.said):
            piece = self._learnt(raw, opens, told)
            self._make_room(len(raw))
            self._kept[raw] = piece
        return piece

    def _make_room(self, size: int) -> None:
        if self._size > MOST_TEXT:
            self._kept.clear()
            self._seeds.clear()
            self._size = 0
        self._size += size

    def _at_a_seed(self, raw: str) -> _Piece:
        """Returns what the first piece of a line says, of which other seeds may have been there."""
        parted = _without_seed(raw)
        if parted is None:
            return self._same(raw, False, True)
        rest, seed = parted
        seeds = self._seeds.get(rest)
        if seeds is None:
            self._make_room(len(raw))
            seeds = self._seeds[rest] = _Seeds(known={})
        piece = seeds.known.get(seed)
        if piece is None:
            piece = self._at_another_seed(raw, seed, seeds)
            self._make_room(MOST_DIGITS)
            seeds.known[seed] = piece
        return piece

    def _at_another_seed(self, raw: str, seed: str, seeds: _Seeds) -> _Piece:
        first = next(iter(seeds.known.values()), None)
        if seeds.alike:
            assert first is not None
            cell = at_seed(first.values["cell"], int(seed))
            values = {**first.values, "id": sys.intern(seeds.name + seed), "cell": cell}
            return _Piece(first.fields, first.said, values)
        piece = self._learnt(raw, False, True)
        if first is None:
            seeds.name = str(piece.values["id"]).removesuffix(seed)
        elif seeds.alike is None:
            was, cell = next(iter(seeds.known)), replace(first.values["cell"], seed=int(seed))
            seeds.alike = first.values["cell"].seed == int(was) and piece == first._replace(
                values={**first.values, "id": seeds.name + seed, "cell": cell}
            )
        return piece

    def _anew(self, raws: Sequence[str], told: bool) -> list[_Piece]:
        """Returns what pieces say that are other ones in every record."""
        texts = [f"{{{raw}" if raw.startswith(_OF_VOLATILE) else f"{{{raw}}}" for raw in raws]
        text = f"[{f',{_BETWEEN},'.join(texts)}]"
        parsed = strict_json.loads_plainly(text)
        if parsed[1::2] != [_BETWEEN] * (len(raws) - 1) or len(parsed) != 2 * len(raws) - 1:
            raise _AnotherWay  # some piece is no object by itself
        together: dict[str, Any] = {}
        for data in parsed[::2]:
            together.update(data)
        rounds, keys = rounds_of(together.get("rounds")) if told else (None, 0)
        if rounds is not None:
            together["rounds"] = ()
        strict_json.check(Record, together)
        if told and (_spaced(text) or keys + strict_json.keys_of_finite(together) != text.count('":')):
            raise _AnotherWay  # some key stands twice, or some text looks like one
        pieces = []
        for data in parsed[::2]:
            number, names = self._known((tuple(data), False))
            values = dict(zip(names, data.values(), strict=True))
            said = [] if told else [f'"{name}":{strict_json.in_order(value)}' for name, value in data.items()]
            if VOLATILE in values:
                said[:1] = [f"{one}}}" for one in said[:1]]
            if (cut := values.get("cut")) is not None:
                values["cut"] = sys.intern(cut)
            if rounds is not None and "rounds" in values:
                values["rounds"] = rounds
            values.pop("key", None)  # the cell's, and no field of a record
            pieces.append(_Piece(number, said, values))
        return pieces

    def _learnt(self, raw: str, opens: bool, told: bool) -> _Piece:
        """Returns what a piece says that later records may say again."""
        data = strict_json.loads(f"{{{raw}{'}}' if opens else '}'}")
        strict_json.check(Record, data)
        if data.get("schema", SCHEMA) > SCHEMA:
            raise _AnotherWay
        said = [] if told else [f'"{name}":{strict_json.in_order(value)}' for name, value in data.items()]
        if opens:
            environment = data.get(ENVIRONMENT)
            # It is to stand last in either order.
            if not environment or next(reversed(data)) != ENVIRONMENT or max(environment) >= VOLATILE:
                raise _AnotherWay
            said[-1:] = [one[:-1] for one in said[-1:]]
        number, names = self._known((tuple(data), opens))
        values = dict(zip(names, data.values(), strict=True))
        return _Piece(number, said, self._shared(values))

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
            return self._volatile(value)
        return self._pool.setdefault((name, ENVIRONMENT, repr(value)), value)

    def _environment(self, lasting: dict[str, Any], volatile: Any) -> dict[str, Any]:
        """Returns the environment of a record of its lasting facts, which are those of other records as well, and of
        those that change.
        """
        found = self._volatile(volatile)
        if self._whole:
            return {**lasting, VOLATILE: found}
        place = id(lasting), id(found)  # the pool keeps both
        if place not in self._pool:
            self._pool[place] = {**lasting, VOLATILE: found}, lasting, found
        environment: dict[str, Any] = self._pool[place][0]
        return environment

    def _volatile(self, value: Any) -> Any:
        """Returns facts that change, before and after a measurement, under the same names as all others."""
        if self._whole:
            return self._named_alike(value, 2)
        after = value.get("after") if isinstance(value, dict) else None
        locked = after.get(CLOCKS) if isinstance(after, dict) else None
        return _CLOCKS[locked] if isinstance(locked, bool) else EMPTY

    def _named_alike(self, value: Any, levels: int) -> Any:
        """Returns a value in which the names of mappings are the same texts as in all others."""
        if not levels or not isinstance(value, dict):
            return value
        place = "names", tuple(value), levels
        names = self._pool.get(place)
        if names is None:
            names = self._pool[place] = tuple(map(sys.intern, value))
        values = value.values() if levels == 1 else [self._named_alike(one, levels - 1) for one in value.values()]
        return dict(zip(names, values, strict=True))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


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


def _end_of(line: str, at: int, first: int) -> tuple[int, int]:
    """Returns where the piece ends that begins at a place of a line, and which piece of `CUTS` comes next."""
    for mark, following in _ENDS[first]:
        if (place := line.find(mark, at)) >= 0:
            return place, following
        # Older records have fewer fields.
    return len(line) - 1, len(_STARTS)


_CELL, _SEED = '","cell":{', ',"seed":'


def _without_seed(raw: str) -> tuple[tuple[str, str, str], str] | None:
    """Parts the first piece of a line into what is before, between and behind the seed, which stands at the end of the
    record's id and in the cell, and the seed; None where it does not.
    """
    cell = raw.find(_CELL)
    start = raw.find(_SEED, cell) + len(_SEED)
    end = raw.find(",", start)
    seed = raw[start:end]
    number = seed.isascii() and seed.isdigit() and len(seed) < MOST_DIGITS and (seed == "0" or seed[0] != "0")
    if cell < 0 or start < cell or end < 0 or not number or not raw.endswith(f"-s{seed}", 0, cell):
        return None
    return (raw[: cell - len(seed)], raw[cell:start], raw[end:]), seed


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
