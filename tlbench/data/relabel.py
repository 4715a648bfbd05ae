"""Corrected labels: a CSV file with the columns ``file`` and ``class``. The images are never touched.

A row whose class is empty corrects nothing, so that the list that `tlbench suspects` writes can be filled in and given
back as it is. Other columns are not read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlbench.errors import UserError, nearest, printable
from tlbench.machine.formulas import unguarded

if TYPE_CHECKING:
    from tlbench.data.store import Known

    AnyKnown = TypeVar("AnyKnown", bound=Known)

FILE, CLASS = "file", "class"
"""The columns that are read."""


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Holds what a file corrects."""

    path: str
    classes: Mapping[str, str]
    """File, as the data set names it (relative to its folder, with /) -> its class."""
    lines: Mapping[str, int]
    """File -> the line that says so, from 1."""
    sha256: str
    """Of the file's bytes."""


class WrongRow(UserError):
    """Says what is wrong with a row of corrections, beside which others may be right."""


def read_corrections(path: str) -> Corrections:
    """Reads a file of corrections. Errors: UserError, one line, where it cannot be read, lacks a column, says two
    things of one file, or corrects nothing.
    """
    shown = f"--relabel {path!r}"
    try:
        content = Path(os.path.expanduser(path)).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{shown} is no text in UTF-8; save the table as CSV, UTF-8") from None
    classes: dict[str, str] = {}
    lines: dict[str, int] = {}
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_mark(text), strict=True)
    try:
        columns = next(rows, [])
        for column in (FILE, CLASS):
            if columns.count(column) != 1:
                there = ", ".join(map(repr, columns)) or "nothing"
                what = f"two columns {column!r}" if column in columns else f"no column {column!r}"
                raise UserError(f"{shown} has {what} in its first line, but {there}; it needs file and class")
        for row in rows:
            if not any(map(str.strip, row)):
                continue
            if len(row) > len(columns):
                raise WrongRow(
                    f"{shown}, line {rows.line_num}: {len(row)} columns where there are {len(columns)}; put a text "
                    "with a comma in quotation marks"
                )
            # Spreadsheets leave away what is empty at the end of a row.
            whole = [*row, *[""] * (len(columns) - len(row))]
            file, name = (_cell(whole[columns.index(column)]) for column in (FILE, CLASS))
            if not name:
                continue
            if not file:
                raise WrongRow(f"{shown}, line {rows.line_num}: a class, but no file")
            if classes.setdefault(file, name) != name:
                raise WrongRow(
                    f"{shown}, line {rows.line_num}: {file!r} is {name!r} there, but {classes[file]!r} in line "
                    f"{lines[file]}; leave one of the two"
                )
            lines.setdefault(file, rows.line_num)
    except csv.Error as error:
        raise WrongRow(f"{shown}, line {rows.line_num}: no CSV: {error}") from None
    if not classes:
        raise UserError(f"{shown} corrects nothing: the column {CLASS!r} is empty; write the right class beside a file")
    return Corrections(path=path, classes=classes, lines=lines, sha256=hashlib.sha256(content).hexdigest())


def of_files(found: Corrections, files: Iterable[str]) -> dict[str, str]:
    """Returns the files, as a data set names them, that corrections give a class, with that class."""
    known = {_plain(file): name for file, name in found.classes.items()}
    named = ((file, known.get(_plain(file)) or known.get(_plain(printable(file)))) for file in files)
    return {file: name for file, name in named if name}


def _mark(text: str) -> str:
    """Returns what stands between columns: the comma, or what spreadsheets of many countries write in its place."""
    first = text.partition("\n")[0].strip()
    try:
        return next(
            (mark for mark in ",;\t" if {FILE, CLASS} <= set(next(csv.reader([first], delimiter=mark), ()))), ","
        )
    except csv.Error:  # which reading the whole will say
        return ","


def _cell(text: str | None) -> str:
    """Returns a field as it was meant: less what stands before what a spreadsheet would take for a formula."""
    return unguarded((text or "").strip())


def relabel(images: AnyKnown, path: str, trained: Iterable[int]) -> tuple[AnyKnown, dict[str, Any]]:
    """Returns images with corrected labels, and what is recorded of that: the file's hash, and how many labels are
    others now. ``trained`` are the positions that are trained on, which need every class still.

    Errors: UserError as `read_corrections`, and for a file or a class that the data set does not have.
    """
    from tlbench.data.copies import mixed

    found = read_corrections(path)
    if not images.files:
        raise UserError(f"--relabel {path!r} names files, but this data set does not tell which file an image is from")
    positions: dict[str, int] = {}
    for position, file in enumerate(images.files):
        positions.setdefault(_plain(file), position)
    for position, file in enumerate(images.files):  # as a list of suspects shows a name that is no text
        positions.setdefault(_plain(printable(file)), position)
    # A list of suspects shows names that are no text otherwise, and a table has no spaces at the ends of its cells.
    numbers = {_plain(printable(name)).strip(): number for number, name in enumerate(images.classes)}
    numbers |= {_plain(name): number for number, name in enumerate(images.classes)}
    labels = list(images.labels)
    for file, name in found.classes.items():
        where = f"--relabel {path!r}, line {found.lines[file]}"
        if (place := positions.get(_plain(file))) is None:
            raise UserError(f"{where}: the data set has no image {file!r}{_hint(file, images.files)}")
        if (label := numbers.get(_plain(name))) is None:
            raise UserError(f"{where}: the data set has no class {name!r}{_hint(name, images.classes)}")
        labels[place] = label
    left = {labels[position] for position in trained}
    if gone := [name for number, name in enumerate(images.classes) if number not in left]:
        raise UserError(
            f"--relabel {path!r} leaves no image of class {gone[0]!r} to train on; correct fewer, or add some"
        )
    changed = sum(one != other for one, other in zip(labels, images.labels, strict=True))
    corrected = replace(images, labels=tuple(labels))
    pairs = tuple(f"{images.files[one]!r} and {images.files[other]!r}" for one, other in mixed(corrected))
    return replace(corrected, mixed=pairs), {"sha256": found.sha256, "images": changed}


def _plain(text: str) -> str:
    """Writes a file or class in one way: Unicode's composed form, / between folders."""
    return unicodedata.normalize("NFC", text.replace("\\", "/"))


def _hint(name: str, names: Sequence[str]) -> str:
    guess = nearest(name, names[:MOST_COMPARED])
    return f"; did you mean {guess!r}?" if guess else f"; one is {names[0]!r}" if names else ""


MOST_COMPARED = 5000
"""Names that a wrong one is compared with: each takes a while."""
