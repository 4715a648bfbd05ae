"""Says what the report's table holds: a column for each figure that has a heading, a row a configuration."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.analysis.learning import learned_nothing
from tlbench.analysis.summary import SUMMARY_FIGURES, Configuration
from tlbench.report import wording
from tlbench.report.ends import SHARES, ends


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the report's table says what stands in it, and how."""

    name: str
    """Key of `tlbench.analysis.summary.SUMMARY`: what it shows and is sorted by."""
    heading: str
    draw: Callable[[Any], str]
    number: bool
    interval: Callable[[Any], str] | None
    """Writes an end of its 95 % interval; None where it has no interval."""
    hidden: bool
    """Not shown until the reader asks for it."""
    filter: bool
    """The reader can pick a value of it."""
    better: str
    """``lower`` or ``higher``: what a first click sorts to the top; empty for what is neither."""
    named: bool = False
    """Part of the configuration's name, which stands in its first column where the screen is narrow."""
    task: str = ""
    """The only task whose rows it shows; empty for both."""

    def value(self, row: Configuration) -> Any:
        """Returns the figure of a row; None where it is of another task."""
        return row[self.name] if self.task in ("", row["task"]) else None


IN_USE = ("latency_p50_ms", "latency_p95_ms")
"""Figures shown as ``inference_NAME`` alone, so that a training cell has them as well."""
ORDER = (
    "backbone", "task", "weights", "freeze", "head", "dataset", "device", "precision", "batch_size", "image_size",
    "epochs", "variant", "accuracy_val", "accuracy_val_clean", "accuracy_test", "accuracy_test_clean", "majority_share",
    "epoch_seconds", "training_seconds", "images_per_second",
    *(f"inference_{name}" for name in IN_USE), "trainable_parameters", "flops_train_step", "cut", "total_parameters",
    "peak_memory_bytes", "status", "seeds", "units", "epoch_iqr_seconds", "ceiling_share", "prefix_seconds",
    "prefix_bytes", "energy_joules", "optimizer", "lr", "machine", "run",
)  # fmt: skip
"""Columns from left to right; a figure with a heading that is not named here comes after them."""


NAMED = ("task", "weights", "freeze", "head")
OF_ONE_TASK = {
    "images_per_second": {"train": "training, images/s", "infer": "inference, images/s"},
}
"""Figure that means another thing for each task -> task -> the heading of a column of its own."""


def _columns() -> Iterator[Column]:
    others = [name for name, figure in SUMMARY_FIGURES.items() if figure.heading and name not in ORDER]
    for name in (*ORDER, *(name for name in others if name not in IN_USE and not name.startswith("inference_"))):
        figure = SUMMARY_FIGURES[name]
        picked = figure.axis or name in ("variant", "status")
        number = figure.numeric and not figure.axis
        draw = wording.IN_TABLE[figure.kind] if number else wording.text
        for task, heading in OF_ONE_TASK.get(name, {"": figure.heading}).items():
            yield Column(
                name=name,
                heading=heading,
                draw=draw,
                number=number,
                interval=(wording.share_end if figure.points else draw) if f"{name}_low" in SUMMARY_FIGURES else None,
                hidden=figure.hidden,
                filter=picked,
                better=figure.better or ("lower" if figure.kind in ("seconds", "milliseconds") else ""),
                named=name in NAMED,
                task=task,
            )


TABLE = tuple(_columns())


def columns_for(summary: Sequence[Configuration]) -> list[Column]:
    """Returns the columns that say something: that hold anything; of the settings, those that differ between rows.

    Those of the metric that decides are shown from the start.
    """
    deciding = {f"{row['metric']}_{split}" for row in summary for split in ("val", "test")}
    said = [column for column in TABLE if _says_something(column, summary)]
    return [replace(column, hidden=False) if column.name in deciding else column for column in said]


def _says_something(column: Column, summary: Sequence[Configuration]) -> bool:
    values = {column.value(row) for row in summary} - {None, ""}
    return len(values) > 1 if column.name in wording.SOMETIMES else bool(values)


def table_cell(column: Column, row: Configuration) -> dict[str, Any]:
    """Returns a cell's text, its raw value as the CSV has it, and the interval's ends both ways."""
    value = column.value(row)
    cell = {"text": column.draw(value), "raw": raw(value) if column.number else None, "interval": "", "ends": None}
    if value is not None and column.interval and (low := row[f"{column.name}_low"]) is not None:
        high = row[f"{column.name}_high"]
        whole = SHARES if SUMMARY_FIGURES[column.name].points else None
        cell["interval"] = ends(value, low, high, column.interval, whole=whole, between="–")
        cell["ends"] = f"{raw(low)} {raw(high)}"
    if column.name == "status":
        nothing = learned_nothing(row)
        flags = [row["status"], *([row["validity"]] if row["validity"] not in (None, "ok") else [])]
        cell["text"] = ", ".join([*flags, *["learned nothing"] * nothing])
        why = "its validation accuracy cannot be told from knowing nothing of the images" if nothing else ""
        cell["interval"] = "; ".join(filter(None, [row["reason"], row["validity_reason"], why]))
    return cell


def raw(value: Any) -> str:
    """Writes a number as the CSV has it."""
    if value is None:
        return ""
    if type(value) in (int, float):  # as csv does it; a table of 5,000 rows has half a million of them
        return repr(value)
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([value, ""])
    return text.getvalue()[:-1]
