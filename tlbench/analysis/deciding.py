"""Which metric decides a verdict: what was asked for when the cells were measured (``--metric``), or is asked for now.

Whatever decides is taken from validation images. It has to be told by the results on single images of every record of a
configuration: one that lacks them is left out and named, never judged by something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tlbench.analysis.figures import column
from tlbench.analysis.metrics import ACCURACY, DECIDING, Metric
from tlbench.errors import UserError, lookup
from tlbench.grid.settings import Settings
from tlbench.records.record import Record


def deciding(records: Sequence[Record], metric: str | None) -> Sequence[Record]:
    """Returns records that say of themselves that a metric decides; as they are where none is asked for.

    Errors: UserError for an unknown metric.
    """
    if metric is None:
        return records
    lookup(DECIDING, "metric", metric)
    known: dict[int, Settings] = {}  # records that were read together share their settings
    return [
        replace(one, settings=known.setdefault(id(one.settings), replace(one.settings, metric=metric)))
        for one in records
    ]


def asked_by_run(items: Iterable[Any]) -> dict[str, str]:
    """Maps each run of some rows of records to the name of the metric that its last record was asked to be decided by:
    a run that goes on may be asked for another one than it began with. Rows of a frame tell none.
    """
    every = [item for item in items if item.record is not None]
    last: dict[str, Record] = {}
    for item, run in zip(every, column(every, "run"), strict=True):
        record: Record = item.record
        if record.cell.task == "train" and (run not in last or record.started >= last[run].started):
            last[run] = record
    return {run: record.settings.metric for run, record in last.items()}


def metric_for(summary: Sequence[Mapping[str, Any]]) -> Metric:
    """Returns the metric that decides between configurations.

    Errors: UserError where their runs were asked for with different ones, or with one that is unknown here.
    """
    asked: dict[str, str] = {}
    for run, name in asked_by_run(item for row in summary for item in row["group"]).items():
        asked.setdefault(name, run)
    if len(asked) > 1:
        said = ", ".join(f"{run!r} by {name}" for name, run in asked.items())
        raise UserError(f"these runs were to be decided by different metrics, {said}; choose one with --metric")
    return lookup(DECIDING, "metric", next(iter(asked), ACCURACY))


def told(row: Mapping[str, Any], metric: Metric) -> bool:
    """Tells whether a configuration can be judged by a metric: accuracies are always there, others have to be told by
    the results on single images of every record.
    """
    return metric.name == ACCURACY or row["scores"].get(metric.val) is not None
