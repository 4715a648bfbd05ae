"""How single values are written by people: numbers, sizes, lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable


def text(value: object) -> str:
    """Reads a name. Errors: ValueError saying what is expected."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a name")
    return value.strip()


MOST = 2**31
"""The largest whole number that is taken where nothing else is said."""


def whole(least: int, most: int = MOST) -> Callable[[object], int]:
    """Reads a whole number; the reader raises ValueError saying what it expects."""
    expected = f"a whole number of at least {least}" if most == MOST else f"a whole number from {least} to {most:,}"

    def parse(value: object) -> int:
        try:
            number = value if isinstance(value, int) else int(str(value))
        except ValueError:
            raise ValueError(expected) from None
        if isinstance(value, bool) or not least <= number <= most:
            raise ValueError(expected)
        return number

    return parse


MOST_OF_A_RANGE = 1_000_000


def spread(value: object) -> list[object]:
    """Returns the whole numbers of a range such as ``0-4``, its ends among them; what is no range as it is.

    >>> spread("3-5")
    [3, 4, 5]
    """
    found = re.fullmatch(r"(\d{1,9})-(\d{1,9})", value.strip()) if isinstance(value, str) else None
    if found is None or not 0 <= int(found[2]) - int(found[1]) < MOST_OF_A_RANGE:
        return [value]
    return [*range(int(found[1]), int(found[2]) + 1)]


POINT = " (decimals are written with a point, 0.001: a comma begins the next value)"


def number(least: float, most: float, above: bool = False) -> Callable[[object], float]:
    """Reads a number within bounds, ``above``: of which the lower one is none; the reader raises ValueError saying what
    it expects. ``0,001`` came here as 0 and 001, so that neither is taken in silence.
    """
    expected = f"a number above {least:g}, up to {most:g}" if above else f"a number from {least:g} to {most:g}"

    def parse(value: object) -> float:
        try:
            parsed = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            parsed = math.nan
        part = isinstance(value, str) and re.fullmatch(r"\s*0\d+\s*", value) is not None
        if isinstance(value, bool) or part or not least <= parsed <= most or (above and parsed == least):
            raise ValueError(expected + POINT * (part or parsed == least))
        return parsed

    return parse


def number_or(plain: Callable[[object], float], *words: str) -> Callable[[object], float | str]:
    """Reads what ``plain`` reads, or one of the words; the reader raises ValueError saying what it expects."""

    def parse(value: object) -> float | str:
        if isinstance(value, str) and value in words:
            return value
        try:
            return plain(value)
        except ValueError as expected:
            raise ValueError(f"{expected}, or {' or '.join(words)}") from None

    return parse


ALL = "all"


OFF = "off"


def or_none(plain: Callable[[object], int], word: str) -> Callable[[object], int | None]:
    """Reads what ``plain`` reads, or the word, which is None; the reader raises ValueError saying what it expects."""

    def parse(value: object) -> int | None:
        if isinstance(value, str) and value.strip().lower() == word:
            return None
        try:
            return plain(value)
        except ValueError as expected:
            raise ValueError(f"{expected}, or {word}") from None

    return parse


def quoted(value: object, longest: int = 60) -> str:
    """Writes a value as it was given, for a message: of a long one its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
MOST_BYTES = 2**63


def size(value: object) -> int:
    """Reads a size in bytes: ``50MB``, ``2 GB``, ``1.5GiB``, ``1e9``. Errors: ValueError saying what is expected."""
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z]*)\s*", str(value), re.IGNORECASE | re.ASCII)
    factor = SIZES.get(match[2].upper()) if match else None
    if match is None or factor is None or not (count := float(match[1]) * factor) < MOST_BYTES:
        raise ValueError("a size such as 50MB, 2GB or 1.5GiB")
    return int(count)


def three_digits(value: float) -> str:
    """Writes three significant digits, without an exponent: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 12)}f}"


def about(seconds: float) -> str:
    """Writes an expected time no more exactly than anybody can know it: ``10 seconds``, ``4 minutes``, ``3 hours``."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5)):.0f} seconds"
    if seconds < 90:
        return "a minute"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 10 else f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def taken(seconds: float) -> str:
    """Writes a time that something took: ``12.3 s``, ``4 min 5 s``, ``2 h 11 min``."""
    if seconds < 120:
        return f"{three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def clock_time(seconds: float) -> str:
    """Writes a time as a clock shows it: ``0:09``, ``2:31``, ``1:02:31``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def written_size(count: float) -> str:
    """Writes bytes as `size` reads them: ``512 B``, ``1.50 GB``, of powers of ten."""
    for unit in ("TB", "GB", "MB", "kB"):
        if abs(count) >= 0.9995 * SIZES[unit.upper()]:
            return f"{three_digits(count / SIZES[unit.upper()])} {unit}"
    return f"{count:g} B"


def split_values(text: str) -> list[str]:
    r"""Splits comma-separated values; a comma inside parentheses, or after a backslash, belongs to the value. A
    parenthesis after a backslash is one of a name. There two backslashes stand for one, elsewhere each for itself, and
    in a regular expression that says what groups are.

    >>> split_values(r"full, lora(r=8,alpha=16), folder:d\,1")
    ['full', 'lora(r=8,alpha=16)', 'folder:d,1']
    """
    parts, depth = [""], 0
    for slashes, mark, plain in _PIECE.findall(text):
        escaped = len(slashes) % 2 == 1
        pattern = _PATTERN.search(parts[-1]) if mark in "()" and mark else None
        parts[-1] += plain + (slashes if pattern else "\\" * (len(slashes) // 2))
        if not escaped and not (pattern and "[" in _CLASS.sub("", pattern[1])):  # in [(] it is a plain character
            depth += (mark == "(") - (mark == ")")
        if mark == "," and not escaped and depth <= 0:
            parts.append("")
            depth = 0  # what a value before has left open or closed is not this one's
        else:
            parts[-1] += mark
    return [part.strip() for part in parts]


_PIECE = re.compile(r"(\\*)([,()])|(\\+|[^,()\\]+)")
"""Backslashes and a mark that they may take the meaning from; or what has none."""
_PATTERN = re.compile(r"[?&]group=((?:(?!&[a-z_]+=).)*)\Z", re.DOTALL)
"""A text that ends in a regular expression."""
_CLASS = re.compile(r"\\.|\[\^?+\]?+(?:\\.|[^\]\\])*+\]", re.DOTALL)
"""What a regular expression takes for one character: escaped, or one of several."""
_PARTS = re.compile(r"(.*?[?&]group=)(.*?)((?:&[a-z_]+=.*)?)", re.DOTALL)
"""What stands before a regular expression, it, and what stands behind it."""


def join_values(values: Iterable[object]) -> str:
    r"""Writes values as `split_values` reads them.

    >>> join_values(["lora(r=8,alpha=16)", "folder:d,1"])
    'lora(r=8,alpha=16),folder:d\\,1'
    """
    *first, last = map(str, values)
    ends = [_escaped(text, re.sub(r"(\\+)$", r"\1\1", text)) for text in first]
    return ",".join([*ends, _escaped(last, last)])


def _escaped(text: str, ended: str) -> str:
    """Returns a text as it is where a comma after it ends it, and nothing else does."""
    if split_values(f"{text},") == [text.strip(), ""]:
        return text
    found = _PARTS.fullmatch(ended)
    head, pattern, tail = found.groups() if found is not None else (ended, "", "")
    head, tail = (re.sub(r"(\\*)([,()])", r"\1\1\\\2", part) for part in (head, tail))
    return head + re.sub(r"(\\*),", r"\1\1\\,", pattern) + tail
