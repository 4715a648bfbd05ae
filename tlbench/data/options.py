"""What may follow a path in the name of a data set: ``folder:photos?classes=leaf&group=(shop\\d+)``.

Nothing is encoded: a value is what is written, up to the next ``&key=`` or the end. A path that exists as it is written
wins, so that a folder may have a question mark in its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tlbench.errors import UserError, unknown

_NEXT = re.compile(r"&(?=[a-z_]+=)")
_KEY = re.compile(r"[a-z_]+")
_BEGIN = re.compile(r"\?(?=[a-z_]+=)")
_OF_A_PLACE = ("root", "classes")
"""Options whose value may be a path itself."""


def split_options(path: str) -> tuple[str, dict[str, str]]:
    """Takes the options off a path: ``photos?classes=leaf`` -> ``photos`` and ``{"classes": "leaf"}``. A path that
    exists with its question mark has none. Errors: UserError for what is not written ``?key=value&key=value``, and for
    a key that is given twice.
    """
    plain, tail = apart(path)
    options: dict[str, str] = {}
    for part in _NEXT.split(tail[1:]) if tail else ():
        key, equals, value = part.partition("=")
        if not _KEY.fullmatch(key) or not equals or not value.strip():
            raise UserError(
                f"{path!r} is no path that exists, and {part!r} after the question mark is no option of one: they are "
                "written ?key=value&key=value"
            )
        if key in options:
            raise UserError(f"{path!r} gives the option {key!r} twice; leave one of them")
        options[key] = value.strip()
    return plain, options


def known_options(path: str, known: Mapping[str, str], form: str) -> tuple[str, dict[str, str]]:
    """Does what `split_options` does, for a data set that is written as ``form`` says and knows these options
    (name -> what it means). Errors: UserError as there, and for an unknown one, with the nearest.
    """
    plain, options = split_options(path)
    for key in options:
        if key not in known:
            raise unknown(f"option of {form}", key, known)
    return plain, options


def apart(path: str) -> tuple[str, str]:
    """Splits a path into what lies on this disk and the text of its options, with the question mark; empty without any.
    Where several beginnings exist the longest is the path, where none does, the shortest.
    """
    marks = [found.start() for found in re.finditer(r"\?", path)]
    if not marks or _exists(path):
        return path, ""
    cut = next((mark for mark in reversed(marks) if mark and _exists(path[:mark])), marks[0])
    return path[:cut], path[cut:]


def apart_by_text(path: str) -> tuple[str, str]:
    """Does what `apart` does for a path of any machine: by what is written alone.

    >>> apart_by_text("photos/2024?classes=leaf")
    ('photos/2024', '?classes=leaf')
    """
    found = _BEGIN.search(path)
    return (path, "") if found is None else (path[: found.start()], path[found.start() :])


def places_of(path: str) -> list[str]:
    """Returns the files and folders that a path with options names: one, or those that are joined by ``+``."""
    plain = apart(path)[0]
    if "+" not in plain or os.path.lexists(os.path.expanduser(plain)):
        return [plain]
    first, *others = plain.split("+")
    return [first, *(beside(other, first) for other in others)]


def beside(name: str, first: str) -> str:
    """Returns where a file lies that is named after another one: where its name says, or else beside that."""
    there = os.path.join(os.path.dirname(first), name)
    return there if not os.path.exists(os.path.expanduser(name)) and os.path.exists(os.path.expanduser(there)) else name


def shortened(tail: str) -> str:
    """Returns the text of options without the folders that their values lie in.

    >>> shortened("?label=1&root=/home/me/photos")
    '?label=1&root=photos'
    """
    if not tail:
        return ""
    parts = []
    for part in _NEXT.split(tail[1:]):
        key, equals, value = part.partition("=")
        short = re.split(r"[/\\]", value.rstrip("/\\"))[-1] if key in _OF_A_PLACE else value
        parts.append(f"{key}{equals}{short}")
    return "?" + "&".join(parts)


def _exists(path: str) -> bool:
    """Tells whether a path exists, or all that it joins by ``+``."""
    return all(os.path.exists(os.path.expanduser(part)) for part in (path.split("+") if "+" in path else [path])) or (
        os.path.exists(os.path.expanduser(path))
    )
