"""How single values are written by people: numbers, sizes, lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a name")
    return value.strip()


def whole(least: int) -> Callable[[object], int]:
    """Reads a whole number; the reader raises ValueError saying what it expects."""
    expected = f"a whole number of at least {least}"

    def parse(value: object) -> int:
        try:
            number = value if isinstance(value, int) else int(str(value))
        except ValueError:
            raise ValueError(expected) from None
        if isinstance(value, bool) or number < least or number > 2**31:
            raise ValueError(expected)
        return number

    return parse


def _number(least: float, most: float) -> Callable[[object], float]:
    expected = f"a number from {least:g} to {most:g}"

    def parse(value: object) -> float:
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except ValueError:
            number = math.nan
        if isinstance(value, bool) or not least <= number <= most:
            raise ValueError(expected)
        return number

    return parse


def size(value: object) -> int:
    """Bytes of ``50MB``, ``2 GB``, ``1.5GiB`` or a plain number. Errors: ValueError saying what is expected."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*", str(value), re.ASCII)
    if found is None or found[2].upper() not in units:
        raise ValueError("a size such as 50MB, 2GB or 1.5GiB")
    return int(float(found[1]) * units[found[2].upper()])


def _number_or(least: float, most: float, *words: str) -> Callable[[object], float | str]:
    number = _number(least, most)

    def parse(value: object) -> float | str:
        if isinstance(value, str) and value in words:
            return value
        try:
            return number(value)
        except ValueError as expected:
            raise ValueError(f"{expected}, or {' or '.join(words)}") from None

    return parse


def split_values(text: str) -> list[str]:
    """Comma-separated values; a comma inside parentheses belongs to the value.

    >>> split_values("full, lora(r=8,alpha=16)")
    ['full', 'lora(r=8,alpha=16)']
    """
    parts, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]]]
