"""A table in a file, whatever wrote it: csv, tsv, jsonl, parquet, or lines of a path and labels -> rows of texts.

What each row was is kept as the number of its line, so that whoever finds something wrong in it can name it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlbench.data.inside import endings
from tlbench.errors import UserError

READ = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".lst", ".list")
"""Endings of lists: of any other name, a file is taken for lines of text."""
OF_OTHER_KINDS = (
    *(".xlsx", ".xls", ".ods", ".gz", ".zip", ".pkl", ".pickle", ".npy", ".mat", ".xml", ".feather"),
    *(".yaml", ".yml", ".toml", ".html"),
)
"""Endings of what is no table of texts."""
MARKS = ("\t", ",", ";")
"""What separates the cells of a line, in the order in which they are looked for; where none is there, spaces do."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Holds the rows of a file."""

    file: Path
    names: tuple[str, ...] | None
    """Names of the columns where the format has them (jsonl, parquet); None where the first row may hold them."""
    rows: list[tuple[int, tuple[str, ...]]]
    """(line, counted from 1; its cells without spaces around them). Empty lines are left out."""
    unit: str = "line"
    """What the numbers count."""
    spaces: bool = False
    """Spaces separate the cells."""
    hidden: tuple[str, ...] = ()
    """Columns that hold no texts or numbers (images, lists) and are not read."""

    def where(self, line: int) -> str:
        """Says which row that is."""
        return f"{self.unit} {line:,}"


def read_table(file: Path, shown: str) -> Table:
    """Reads a file by its ending; ``shown`` is what an error calls it.

    Errors: UserError for what cannot be read, naming the line, and for a file without rows.
    """
    kind = file.suffix.lower()
    if kind == ".json":
        raise UserError(f"list {shown} is one JSON document; write a JSON object a line, as .jsonl, or a .csv")
    if kind in OF_OTHER_KINDS:
        raise UserError(f"list {shown} ends in {kind}, which is not read; save it as .csv, .tsv, .jsonl or .parquet")
    if kind == ".parquet":
        table = _parquet(file, shown)
    else:
        text = _text(file, shown)
        if kind in (".jsonl", ".ndjson"):
            table = _json_lines(file, text, shown)
        else:
            mark = _mark(text, kind)
            rows = list(_lines(text, mark, shown)) if mark else list(_spaced(text))
            table = Table(file=file, names=None, rows=rows, spaces=not mark)
    if not table.rows:
        raise UserError(f"list {shown} has no rows")
    return table


def _text(file: Path, shown: str) -> str:
    """Returns what a file of text holds. Names of files may be in no encoding at all: such bytes are kept as Python
    keeps those of names. Errors: UserError.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"list {shown} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding, errors="strict" if encoding == "utf-16" else "surrogateescape")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"list {shown} is no text; a list is .csv, .tsv, .jsonl, .parquet, or lines of path and label")
    return text


# --- text -----------------------------------------------------------------------------------------------------


def _mark(text: str, kind: str) -> str:
    """Returns what separates the cells of a line, by the first one; nothing where that are spaces."""
    if kind == ".tsv":
        return "\t"
    first = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return next((mark for mark in MARKS if mark in first), "," if kind == ".csv" else "")


def _spaced(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields lines whose cells spaces separate. A path goes to the first ending of an image that spaces follow, since
    it may have spaces itself.
    """
    path = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, endings()))}))\s+(\S.*)", re.IGNORECASE)
    # By "\n" alone: a name may hold whatever else `splitlines` takes for the end of a line.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if cells := line.split():
            found = path.fullmatch(line.strip())
            yield number, (found[1], *found[2].split()) if found else tuple(cells)


def _lines(text: str, mark: str, shown: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True, strict=True)
    begin = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield begin, tuple(cell.strip() for cell in row)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"list {shown}: line {begin:,} is not to be read as a table ({error}); mend its quotation marks"
        ) from None


def _json_lines(file: Path, text: str, shown: str) -> Table:
    objects: list[tuple[int, dict[str, Any]]] = []
    columns: dict[str, None] = {}
    hidden: dict[str, None] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        twice: list[str] = []
        try:
            value = json.loads(line, object_pairs_hook=partial(_once, twice))
        except (ValueError, RecursionError):
            raise UserError(f"list {shown}: line {number:,} is no JSON") from None
        if twice:
            raise UserError(f"list {shown}: line {number:,} has {twice[0]!r} twice; leave one of them")
        if not isinstance(value, dict):
            raise UserError(f'list {shown}: line {number:,} is no JSON object; each line is one, such as {{"path": …}}')
        for name, one in value.items():
            (hidden if isinstance(one, dict | list) else columns)[name] = None
        objects.append((number, value))
    names = tuple(name for name in columns if name not in hidden)
    rows = [(number, tuple(_cell(value.get(name)) for name in names)) for number, value in objects]
    return Table(file=file, names=names, rows=rows, hidden=tuple(hidden))


def _once(twice: list[str], pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON, and notes keys that it has ``twice``: the last would count, without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice += [name for name in found if names.count(name) > 1]
    return found


def _cell(value: object) -> str:
    """Writes a value of a typed table: a whole number is written as one, whatever kind of number it is."""
    if value is None or value != value:  # NaN, which stands for nothing there
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


# --- parquet --------------------------------------------------------------------------------------------------


def _parquet(file: Path, shown: str) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"list {shown} needs pyarrow: pip install 'tlbench[parquet]', or save it as .csv") from None
    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            if twice := [name for name in schema.names if schema.names.count(name) > 1]:
                raise UserError(f"list {shown} has two columns {twice[0]!r}; rename one of them")
            plain = [field.name for field in schema if _is_plain(field.type, pa)]
            columns = _with_dates_as_texts(opened.read(columns=plain), pa).to_pydict()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"list {shown} cannot be read as parquet: {reason}") from None
    names = tuple(name for name in plain if name in columns)
    rows = list(enumerate((tuple(map(_cell, row)) for row in zip(*columns.values(), strict=True)), 1))
    hidden = tuple(field.name for field in schema if field.name not in names and not pa.types.is_null(field.type))
    return Table(file=file, names=names, rows=rows, unit="row", hidden=hidden)


def _with_dates_as_texts(table: Any, pa: Any) -> Any:
    """Writes dates and times as Arrow does: Python knows no year above 9999."""
    for place, field in enumerate(table.schema):
        if pa.types.is_temporal(field.type):
            column = table.column(place)
            if pa.types.is_timestamp(field.type) and field.type.tz:  # a zone may not be known on this machine
                column = column.cast(pa.timestamp(field.type.unit))
            table = table.set_column(place, field.name, column.cast(pa.string()))
    return table


def _is_plain(kind: Any, pa: Any) -> bool:
    """Tells whether a column holds texts, numbers or dates: what can be written as one text."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    tests = (
        *(types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating),
        *(types.is_boolean, types.is_decimal, types.is_date, types.is_time, types.is_timestamp),
    )
    return any(test(kind) for test in tests)
