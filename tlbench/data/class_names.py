"""Names of classes that a list has by numbers: ``?classes=FILE``, a table of numbers and names, or a name a line."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from tlbench.data.levels import some_of
from tlbench.data.tables import Table, read_table
from tlbench.errors import UserError

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
Rows = list[tuple[str, ...]]


def is_whole(text: str) -> bool:
    """Tells whether a text is a whole number."""
    return _WHOLE.fullmatch(text) is not None


def class_order(labels: Sequence[str], where: Sequence[str], shown: str) -> tuple[str, ...]:
    """Returns the classes in the order of their index: by number where all are whole numbers, by name otherwise.
    ``where`` says where each label stands. Errors: UserError for one number that is written in two ways.
    """
    first: dict[str, str] = {}
    for label, place in zip(labels, where, strict=True):
        first.setdefault(label, place)
    if not all(map(is_whole, first)):
        return tuple(sorted(first))
    known: dict[int, str] = {}
    for label in first:
        other = known.setdefault(int(label), label)
        if other != label:
            raise UserError(
                f"list {shown}: labels {other!r} ({first[other]}) and {label!r} ({first[label]}) are one number "
                "written in two ways; write one of them"
            )
    return tuple(sorted(first, key=int))


CALLED = ("class", "label", "categor", "names")
"""What the name of a file has in it that may name classes."""
ENDINGS = (".csv", ".tsv", ".txt", ".names")
MOST_BYTES = 2**20
"""A larger file names no classes."""


def names_beside(folder: Path, classes: Sequence[str], lists: Collection[Path]) -> str:
    """Returns the name of a file in the folder of a list that has a name for each class, where these are called by
    numbers alone; empty where there is none. ``lists`` are the lists themselves.
    """
    if not all(map(is_whole, classes)):
        return ""
    own = {os.path.abspath(one) for one in lists}
    with suppress(OSError):
        for file in sorted(folder.iterdir()):
            plain = file.name.lower()
            written = re.fullmatch(r"[\w. -]+", file.name)  # as an option of a path has it
            if not written or not plain.endswith(ENDINGS) or not any(word in plain for word in CALLED):
                continue
            if os.path.abspath(file) not in own and _names_all(file, classes):
                return file.name
    return ""


def _names_all(file: Path, classes: Sequence[str]) -> bool:
    """Tells whether a file has a name for each class."""
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return False
        name_classes(file, repr(file.name), classes)
    except (UserError, OSError, ValueError):
        return False
    return True


def name_classes(file: Path, shown: str, labels: Sequence[str]) -> tuple[dict[str, str], int]:
    """Returns the name of each label, and how many names the file has for labels that are not there.

    The labels' column is the one that holds all of them, and no others where several do; of the columns with another
    name for each label, the nearest is taken. A single column has the names in the order of the labels' numbers, from
    0 or from 1.

    Errors: UserError where that cannot be told.
    """
    table = read_table(file, shown)
    rows = _rows(table)
    wanted = set(labels)
    if all(len(row) == 1 for row in rows):
        parted = [tuple(row[0].split(maxsplit=1)) for row in rows]  # n01440764 tench, Tinca tinca
        if not all(len(row) == 2 for row in parted) or not wanted <= {row[0] for row in parted}:
            return _in_order([row[0] for row in rows], shown, labels)
        rows = parted
    numbers = all(map(is_whole, wanted))
    wanted = {_key(label, numbers) for label in wanted}
    tries = [rows] if table.names is not None else [rows, rows[1:]]
    for exact in (True, False):
        for some in tries:
            columns = range(len(some[0]) if some else 0)
            places = [place for place in columns if _holds(some, place, wanted, numbers, exact)]
            if len(places) > 1:
                raise UserError(
                    f"classes {shown}: columns {places[0]} and {places[1]}, counted from 0, both hold all labels; "
                    "write a file of two columns, the label and its name"
                )
            if places:
                return _named(some, places[0], shown, labels, numbers)
    there = {_key(cell, numbers and is_whole(cell)) for row in rows for cell in row}
    missing = sorted(wanted - there)
    what = f": it lacks {some_of(missing)}" if missing else ""
    raise UserError(f"classes {shown} has no column with all {len(wanted):,} labels{what}; give each label a row")


def _rows(table: Table) -> Rows:
    """Returns the cells; of lines that were split at the spaces or commas of a name, this as one."""
    rows = [cells for _, cells in table.rows]
    if len({len(row) for row in rows}) > 1 or table.spaces:
        joint = " " if table.spaces else ", "
        numbered = all(len(row) > 1 and is_whole(row[0]) for row in rows)
        rows = [(row[0], joint.join(row[1:])) if numbered else (joint.join(row),) for row in rows]
    return rows


def _key(text: str, numbers: bool) -> str:
    return str(int(text)) if numbers else text


def _holds(rows: Rows, place: int, wanted: set[str], numbers: bool, exact: bool) -> bool:
    found = {_key(row[place], numbers and is_whole(row[place])) for row in rows}
    return found == wanted if exact else found >= wanted


def _named(rows: Rows, place: int, shown: str, labels: Sequence[str], numbers: bool) -> tuple[dict[str, str], int]:
    keys = [_key(row[place], numbers and is_whole(row[place])) for row in rows]
    others = sorted((one for one in range(len(rows[0])) if one != place), key=lambda one: (abs(one - place), one))
    for other in others:
        pairs = {(key, row[other]) for key, row in zip(keys, rows, strict=True)}
        names = dict(pairs)
        one_each = len(names) == len(pairs) == len(set(names.values()))
        if one_each and all(names.values()) and not all(map(is_whole, names.values())):
            return {label: names[_key(label, numbers)] for label in labels}, len(names) - len(set(labels))
    raise UserError(f"classes {shown} has no column that names each label differently; give each a name of its own")


HEADINGS = (
    *("class", "classes", "classname", "class_name", "class name", "class_names", "label", "labels", "label_name"),
    *("name", "names"),
)
"""What a table of one column calls it, in small letters."""
PERHAPS = ("category", "categories", "species", "breed", "target", "target_name", "title", "text", "")
"""Words that are headings or classes."""


def _in_order(names: Sequence[str], shown: str, labels: Sequence[str]) -> tuple[dict[str, str], int]:
    if not all(map(is_whole, labels)):
        raise UserError(f"classes {shown} has one column, but labels are no numbers; write label and name in each line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"classes {shown} has {twice!r} twice; give each label a name of its own")
    numbers = sorted(set(map(int, labels)))
    needed, first = numbers[-1] + (numbers[0] == 0), names[0].strip().casefold() if names else ""
    if needed < len(names):  # else it is needed as a name
        if first in HEADINGS or (first == "0" and not any(map(is_whole, names[1:]))):
            names = names[1:]
        elif first in PERHAPS:
            raise UserError(
                f"classes {shown} begins with {names[0]!r}, which may be a heading or a class, since there are more "
                f"names than labels up to {numbers[-1]:,}; remove the line, or write label and name a line"
            )
    begin = 0 if numbers[0] == 0 else 1 if numbers[-1] == len(names) else None
    if begin is None or numbers[0] < 0 or numbers[-1] - begin >= len(names):
        raise UserError(
            f"classes {shown} has {len(names):,} names, but labels from {numbers[0]:,} to {numbers[-1]:,}, so that it "
            "cannot be told which is whose; write the label and its name a line"
        )
    return {label: names[int(label) - begin] for label in labels}, len(names) - len(numbers)
