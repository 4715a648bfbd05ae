"""Records -> rows -> CSV and DataFrames: a row a record. What the columns are is in `tlbench.analysis.figures`.

`row` needs nothing heavy, so that an export answers at once.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tlbench.analysis.figures import COLUMNS, EXPORT_COLUMNS, FIGURES, ON, READERS, SELDOM, Row, each_column
from tlbench.analysis.record_source import Shared, Source
from tlbench.errors import NotApplicable, printable
from tlbench.machine.formulas import guarded, unguarded
from tlbench.records.record import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "EXPORT_COLUMNS", "SELDOM", "frame", "load", "read_csv", "row", "rows", "write_csv"]


def row(record: Record, run: str = "") -> Row:
    """Returns one record as a flat row."""
    return Row.taken_from(Source(record=record, run=run))


def rows(records: Sequence[Record], run: str | Sequence[str] = "") -> list[Row]:
    """Returns a row for each record, in order. ``run`` is the name of their run, or of each record's."""
    names = [run] * len(records) if isinstance(run, str) else run
    known = Shared()
    sources = (Source(record=record, run=name, known=known) for record, name in zip(records, names, strict=True))
    return [Row.taken_from(source) for source in sources]


def figures_of(table: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Iterator[list[Any]]:
    """Yields figures of all rows, of records or of anything else; None where a row has none of a name. Rows of records
    keep nothing of them.
    """
    every, wanted = list(table), list(names)
    known = {name: name in READERS for name in wanted} if all(type(item) is Row for item in every) else {}
    taken = each_column(every, [name for name in wanted if known.get(name)])  # type: ignore[arg-type]
    for name in wanted:
        yield next(taken) if known.get(name) else [item.get(name) for item in every]


def with_seldom(columns: Iterable[str], table: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns columns and, behind them, those of `SELDOM` that some row has a value of; and one for each test beside
    the test images (`tlbench.analysis.figures.ON`).
    """
    there = zip(SELDOM, figures_of(table, SELDOM), strict=True)
    seldom = [name for name, found in there if any(value is not None for value in found)]
    return (*columns, *seldom, *(f"{ON}{test}" for test in _tests_of(table)))


def _tests_of(table: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the names of all tests that rows have beside the test images."""
    return list(dict.fromkeys(name for tests in next(figures_of(table, ("other_tests",))) for name in tests or ()))


# --- tables ---------------------------------------------------------------------------------------------------


def write_csv(table: Iterable[Mapping[str, Any]], file: TextIO, columns: Sequence[str] = EXPORT_COLUMNS) -> None:
    """Writes rows as CSV with full precision; None is an empty field. A text that a spreadsheet would take for a
    formula has an apostrophe before it (`read_csv` takes it away again), and control characters are spelt out: also in
    the names of columns, of which a person may have chosen a part.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([printable(guarded(name)) for name in columns])
    texts: dict[str, str] = {}
    for few in _parts(list(table)):
        writer.writerows(zip(*(_as_csv(each, texts) for each in figures_of(few, columns)), strict=True))


PLAIN = frozenset((int, float, bool))
"""Types of values that CSV takes as they are."""
ROWS = 2000
"""Rows of a table of which all figures are in memory at once."""


def _parts(table: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (table[start : start + ROWS] for start in range(0, len(table), ROWS))


def _as_csv(values: list[Any], texts: dict[str, str]) -> list[Any]:
    """Returns values as CSV has them. ``texts`` are those that are known, of which there may be few."""
    if PLAIN.issuperset(map(type, values)):
        return values
    found = []
    for value in values:
        if type(value) is str:
            if value not in texts:
                texts[value] = _plain(value)
            found.append(texts[value])
        else:
            found.append(value if type(value) in PLAIN else _plain(value))
    return found


def plain_rows(table: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields figures of rows as mappings, which the rows keep nothing of."""
    for few in _parts(table):
        for told in zip(*figures_of(few, names), strict=True):
            yield dict(zip(names, told, strict=True))


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value))
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    return printable(guarded(value))


def read_csv(file: TextIO) -> list[dict[str, str]]:
    """Reads what `write_csv` wrote, all of it as text."""
    return [{unguarded(name): unguarded(value) for name, value in item.items()} for item in csv.DictReader(file)]


def frame(table: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns rows as a DataFrame: one row a record, the columns of `COLUMNS`, and those of `SELDOM` that some record
    has; unknown numbers are NaN.
    """
    import pandas as pd

    made = [dict(item) for item in table]
    columns = list(with_seldom(COLUMNS, made))
    for item in made:
        item |= {f"{ON}{test}": accuracy for test, accuracy in (item.get("other_tests") or {}).items()}
    try:
        data = pd.DataFrame(made, columns=columns)
    except UnicodeEncodeError:  # a path that is no text, which pandas' own kind of text does not hold
        data = pd.DataFrame(made, columns=columns, dtype=object)
    for name, figure in FIGURES.items():
        if figure.numeric and name in data.columns:
            data[name] = pd.to_numeric(data[name])
    for name in columns:
        if name.startswith(ON):
            data[name] = pd.to_numeric(data[name])
    return data


def rows_of(data: pd.DataFrame) -> list[Row]:
    """Returns the rows of a tidy frame, also of one that was filtered, put together with others, or written to a file
    and read again, which turns whole numbers, lists and empty texts into something else.

    Errors: NotApplicable naming the columns that it lacks.
    """
    named = [name for name in data.index.names if name in FIGURES and name not in data.columns]
    if named:
        data = data.reset_index(level=named)
    if lacking := [name for name in COLUMNS if name not in data.columns]:
        few = ", ".join(lacking[:MOST_NAMES]) + (f" and {len(lacking) - MOST_NAMES} more" * (len(lacking) > MOST_NAMES))
        raise NotApplicable(
            f"the frame lacks columns of tlbench.load's: {few}; a figure needs them all, so filter rows alone"
        )
    data = data[[name for name in FIGURES if name in data.columns]]
    plain = data.astype(object).where(data.notna(), None)
    return [Row(**{name: _restored(name, item.get(name)) for name in FIGURES}) for item in plain.to_dict("records")]


MOST_NAMES = 5
"""Most columns that an error names."""
NEVER_UNKNOWN = {one.name for one in fields(Row) if one.type == "str"}
"""Columns that hold a text in every row, be it empty; a CSV file does not tell that from none."""
MAPPINGS = {one.name for one in fields(Row) if "Mapping" in str(one.type)}
NAN = re.compile(r"\bnan\b")


def _restored(name: str, value: Any) -> Any:
    """Returns a value of a frame as a row has it."""
    kind = FIGURES[name].kind
    if kind == "list" or name in MAPPINGS:
        if isinstance(value, str):
            value = _literal(value)
        elif hasattr(value, "tolist"):  # an array, as a Parquet file gives it
            value = value.tolist()
        if kind == "list" and value is not None:
            value = [None if one is None or one != one else one for one in value]
    elif value is None:
        value = "" if name in NEVER_UNKNOWN else None
    elif kind in ("count", "bytes"):
        value = int(value) if value == int(value) else value
    elif kind == "text" and not isinstance(value, bool):
        value = str(value)  # a hash whose digits are all decimal is a number to a CSV file
    return value


def _literal(text: str) -> Any:
    """Reads a list or a mapping that was written as text, by Python or as JSON; None for what is neither."""
    for read in (json.loads, lambda text: ast.literal_eval(NAN.sub("None", text))):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return None


def load(*runs: str | Path, twins: bool = False) -> pd.DataFrame:
    """Returns the records of one or several runs as a tidy DataFrame, one row a record.

    Its columns are explained in `COLUMNS`, those that few runs have in `SELDOM`; `tlbench.plots` draws it. Cells that a
    run measured once more to see the noise (their ``role`` is ``aa``) are in it with ``twins=True`` only. Of a cell
    that was measured again when its run was resumed, only what counts is in it, and a measurement that several of the
    runs hold, one being a copy, counts once. Damaged lines of a records file and copies are left out with a
    warning; of many such lines the first few are named.
    Errors: UserError for a run that is not there or has no record, or one that is given twice.
    """
    import warnings

    from tlbench.analysis.summary import without_twins
    from tlbench.records.counting import aside, read_together

    together = read_together(runs, whole=False)
    for line in (*aside(together.damaged), *together.copies):
        warnings.warn(line, stacklevel=2)
    table = rows(together.records, together.runs)
    return frame(table if twins else without_twins(table))
