"""Writes data sets by names that are as short as they can be and still differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath

from tlbench.data.options import apart_by_text, shortened


def data_sets(names: Collection[str]) -> dict[str, str]:
    """Maps data sets to short names: of a folder the last part of its path, with more of it where two are the
    same without."""
    parts = {name: _parts(name) for name in names}
    short = {name: own[-1] for name, own in parts.items()}
    for length in range(2, max(map(len, parts.values()), default=0) + 1):
        taken = list(short.values())
        clashing = [name for name, text in short.items() if taken.count(text) > 1]
        short |= {name: "/".join(parts[name][-length:]) for name in clashing if length <= len(parts[name])}
    taken = list(short.values())
    return {name: text if taken.count(text) == 1 else name for name, text in short.items()}


def apart(values: Sequence[str], name: Callable[[str], str], kind: str = "") -> dict[str, str]:
    """Maps those of several places whose ``name`` is that of another to more of their paths. ``kind`` is put before
    paths that are no data sets.
    """
    counts = Counter(map(name, values))
    alike = {value: f"{kind}{value}" for value in values if counts[name(value)] > 1}
    told = data_sets(list(alike.values()))
    return {value: told[folder] for value, folder in alike.items()}


def _parts(name: str) -> list[str]:
    """Returns the parts of the path of a folder; of another data set its name."""
    kind, colon, path = name.partition(":")
    if not colon or kind not in ("folder", "list"):
        return [name]
    plain, options = apart_by_text(path)
    parts = [part for part in PurePath(plain.replace("\\", "/")).parts if part.strip("/")] or [name]
    return [*parts[:-1], f"{parts[-1]}{shortened(options)}"]
