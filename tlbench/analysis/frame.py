"""Records -> rows -> CSV and DataFrames: a row a record. What the columns are is in `tlbench.analysis.figures`.

`row` needs nothing heavy, so that an export answers at once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tlbench.analysis.derived import Source
from tlbench.analysis.figures import COLUMNS, EXPORT_COLUMNS, FIGURES, READERS, Row
from tlbench.errors import printable
from tlbench.records.record import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "EXPORT_COLUMNS", "frame", "load", "read_csv", "row", "rows", "write_csv"]


def row(record: Record, run: str = "") -> Row:
    """Returns one record as a flat row."""
    source = Source(record=record, run=run)
    return Row(**{name: read(source) for name, read in READERS.items()}, record=record)


def rows(records: Sequence[Record], run: str | Sequence[str] = "") -> list[Row]:
    """Returns a row for each record, in order. ``run`` is the name of their run, or of each record's."""
    names = [run] * len(records) if isinstance(run, str) else run
    return [row(record, name) for record, name in zip(records, names, strict=True)]


# --- tables ---------------------------------------------------------------------------------------------------


def write_csv(table: Iterable[Mapping[str, Any]], file: TextIO, columns: Sequence[str] = EXPORT_COLUMNS) -> None:
    """Writes rows as CSV with full precision; None is an empty field. A text that a spreadsheet would take for a
    formula has an apostrophe before it (`read_csv` takes it away again), and control characters are spelt out.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for item in table:
        writer.writerow([_plain(item.get(name)) for name in columns])


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value))
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.lstrip(" \xa0").startswith(FORMULAS) else value)


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, also in its full width; and the apostrophe itself, so that
the first one of a text is always ours."""


def read_csv(file: TextIO) -> list[dict[str, str]]:
    """Reads what `write_csv` wrote, all of it as text."""
    return [{name: value.removeprefix("'") for name, value in item.items()} for item in csv.DictReader(file)]


def frame(table: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Returns rows as a DataFrame: one row a record, the columns of `COLUMNS`; unknown numbers are NaN."""
    import pandas as pd

    data = pd.DataFrame([dict(item) for item in table], columns=list(COLUMNS))
    for name, figure in FIGURES.items():
        if figure.numeric:
            data[name] = pd.to_numeric(data[name])
    return data


def rows_of(data: pd.DataFrame) -> list[Row]:
    """Returns the rows of a tidy frame."""
    plain = data.astype(object).where(data.notna(), None)
    return [Row(**{name: item[name] for name in FIGURES}) for item in plain.to_dict("records")]


def load(*runs: str | Path) -> pd.DataFrame:
    """Returns the records of one or several runs as a tidy DataFrame, one row a record.

    Its columns are explained in `COLUMNS`; `tlbench.plots` draws it. Of a cell that was measured again when its run was
    resumed, only what counts is in it, and a measurement that several of the runs hold, one being a copy, counts once.
    Damaged lines of a records file and copies are left out with a warning. Errors: UserError for a run that is not
    there or has no record, or one that is given twice.
    """
    import warnings

    from tlbench.records.counting import read_together

    together = read_together(runs)
    for line in (*(f"set aside {line}" for line in together.damaged), *together.copies):
        warnings.warn(line, stacklevel=2)
    return frame(rows(together.records, together.runs))
