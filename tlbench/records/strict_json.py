"""Strict JSON, and data of exactly the annotated types: whatever is off is refused, nothing is converted.

Nothing here runs anything that the text names, as unpickling would.

Neither msgspec 0.22 nor pydantic 2.14 does all of it: both take a key that stands twice, round a whole number above
2**53 to a float and refuse a lone surrogate; pydantic also takes NaN inside a `Mapping[str, Any]`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    type(None): (type(None),),
}
"""Annotation -> what may stand for it. A whole number is also a number."""
EXACT = 2**53
"""Up to here every whole number is a float."""


def loads(text: str) -> Any:
    """Returns what one JSON text says.

    Errors: ValueError for no JSON, NaN or infinity (also ``1e999``), a key that stands twice, too deep nesting.
    """
    return _decoded(_STRICT, text)


def loads_plainly(text: str) -> Any:
    """Returns what `loads` does in less time, but takes ``1e999`` for infinity, and of a key that stands twice the
    last: whoever calls it has to refuse these, as `in_order` does, and `says_all`.

    Errors: ValueError, as `loads`.
    """
    return _decoded(_PLAINLY, text)


def says_all(said: str, text: str, less: int = 0) -> bool:
    """Tells whether ``said``, which `in_order` wrote of what `loads_plainly` gave, has every key of the text but
    ``less`` of them: as many quotes before a colon. False also where the text writes either in another way.
    """
    return said.count('":') + less == text.count('":') and not ("\\u00" in text and _DISGUISED.search(text))


def keys_of_finite(data: Any) -> int:
    """Returns how many keys data has, those of what is in it as well: as many as quotes before a colon in its text, but
    for a key that stood twice there and texts that look like keys.

    Errors: ValueError where a number in it is infinite.
    """
    count = 0
    if type(data) is dict:
        count, data = len(data), data.values()
    for value in data:
        kind = type(value)
        if kind is float:
            if value - value:  # NaN, which is true
                raise ValueError("not strict JSON: a number is out of range")
        elif kind is dict or kind is list:
            count += keys_of_finite(value)
    return count


def _decoded(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None


def dumps(data: Any) -> str:
    """Writes data as one line of ASCII: a name that is no text (a lone surrogate) survives, and no byte of it can be
    another character's.

    Errors: ValueError for NaN or infinity, TypeError for what is no JSON.
    """
    return _ASCII.encode(data)


def in_order(data: Any) -> str:
    """Writes data with the keys of every object sorted and characters as they are, so that what says the same is the
    same text.

    Errors: as `dumps`.
    """
    plain = _SCALARS.get(type(data))
    if plain is not None:
        return plain(data)
    return "".join(_ENCODE(data, 0)) if data else _EMPTY.get(type(data)) or _SORTED.encode(data)


def checksum(text: str) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of what `in_order` wrote: other spaces or another order of keys say
    the same.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _decimal(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"no JSON: {number}")
    return float.__repr__(number)


# What the encoder writes, without making an encoder for each.
_SCALARS: dict[type, Callable[[Any], str]] = {
    float: _decimal,
    int: int.__repr__,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}


def _refuse(constant: str) -> float:
    raise ValueError(f"not strict JSON: {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"not strict JSON: {text[:20]} is out of range")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("not strict JSON: a key stands twice")
    return data


# Made once: to make them anew for every line took a tenth of the time.
_STRICT = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
_PLAINLY = json.JSONDecoder(parse_constant=_refuse)
_DISGUISED = re.compile(r"\\u00(?:22|3[aA])")
_ASCII = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_EMPTY: dict[type, str] = {dict: "{}", list: "[]", tuple: "[]"}


def _encoding() -> Callable[[Any, int], Iterable[str]]:
    """Returns what `_SORTED` would make anew for each text, where Python has it in C."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda data, _: [_SORTED.encode(data)]
    quoted = json.encoder.encode_basestring
    made: Callable[[Any, int], Iterable[str]] = make(
        None, _SORTED.default, quoted, None, _SORTED.key_separator, _SORTED.item_separator, True, False, False
    )
    return made


_ENCODE = _encoding()


Rule = Callable[[Any], None]


class _Wrong(Exception):
    """Carries the way to the value, from the inside out."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(f"is {type(value).__name__} {str(value)[:40]!r}, not {expected}")
        self.path: list[str] = []


def check(kind: Any, value: object, name: str = "it") -> None:
    """Checks that plain data (as from JSON) has the types that an annotation asks for, such as a dataclass.

    Of a dataclass, keys that it does not know and keys that are missing are left to the caller.
    Errors: ValueError naming what is of the wrong type.
    """
    try:
        _rule(kind)(value)
    except _Wrong as wrong:
        path = "".join([name, *reversed(wrong.path)])
        raise ValueError(f"{path[:100]!r} {wrong}") from None


@cache
def _rule(kind: Any) -> Rule:
    """Returns what raises `_Wrong` for a value that is not of this kind; made once for each."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _anything
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return _fields({name: _rule(hint) for name, hint in hints.items()}, {n: exact(h) for n, h in hints.items()})
    if origin in (Union, types.UnionType):
        return _union([_rule(argument) for argument in arguments])
    if origin is tuple:
        return _items(_rule(arguments[0]), exact(arguments[0]))
    if origin is Mapping:
        return _values(_rule(arguments[1]), exact(arguments[1]))
    return _plain(PLAIN[kind])


Types = frozenset[type]


@cache
def exact(kind: Any) -> Types:
    """Returns the types whose values are of an annotated kind for certain, so that no rule has to look at them: nearly
    all of them. Empty for what is neither a plain kind nor a union of such.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return frozenset[type]().union(*map(exact, get_args(kind)))
    return frozenset(PLAIN[kind][:1]) if kind in PLAIN else frozenset()


def _anything(value: Any) -> None:
    pass


def _fields(rules: dict[str, Rule], exact: dict[str, Types]) -> Rule:
    def rule(value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong(value, "an object")
        for key, item in value.items():
            if key in rules and type(item) not in exact[key]:
                _inner(rules[key], item, ".", key)

    return rule


def _values(inner: Rule, exact: Types) -> Rule:
    def rule(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise _Wrong(value, "an object")
        if inner is _anything or exact.issuperset(map(type, value.values())):
            return
        for key, item in value.items():
            _inner(inner, item, ".", key)

    return rule


def _items(inner: Rule, exact: Types) -> Rule:
    def rule(value: Any) -> None:
        if not isinstance(value, list | tuple):
            raise _Wrong(value, "a list")
        if inner is _anything or exact.issuperset(map(type, value)):
            return
        for position, item in enumerate(value):
            _inner(inner, item, "#", position)

    return rule


def _inner(rule: Rule, item: object, mark: str, key: object) -> None:
    try:
        rule(item)
    except _Wrong as wrong:
        wrong.path.append(f"{mark}{key}")
        raise


def _union(rules: list[Rule]) -> Rule:
    def rule(value: Any) -> None:
        problem = None
        for one in rules:
            try:
                return one(value)
            except _Wrong as wrong:
                problem = problem or wrong
        assert problem is not None
        raise problem

    return rule


def _plain(kinds: tuple[type, ...]) -> Rule:
    expected = kinds[0].__name__

    def rule(value: Any) -> None:
        # True is a whole number to Python, and to nobody else.
        if not isinstance(value, kinds) or (value.__class__ is bool and bool not in kinds):
            raise _Wrong(value, expected)
        if expected == "float" and isinstance(value, int) and abs(value) > EXACT:
            raise _Wrong(value, "float: it has more digits than one holds")

    return rule
