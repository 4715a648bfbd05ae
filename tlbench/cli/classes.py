"""The command `classes`: what a cell does with the images of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Deciding, Plugins, load, new_console, read_rows
from tlbench.errors import UserError, lookup, unknown

if TYPE_CHECKING:
    from tlbench.analysis.summary import Configuration


def classes(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or its name under results/")],
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="a cell's id, or a row's configuration (default: the best one)")
    ] = None,
    split: Annotated[str, typer.Option(metavar="test|val", help="whose images")] = "test",
    metric: Deciding = None,
    plugin: Plugins = None,
) -> None:
    """Accuracy, precision and F1 of each class, the worst first, and what it is most often taken for.

    Over all seeds of the cell's kind; intervals are 95 %, for new images and, of several seeds, a new seed.
    """
    from tlbench.analysis.classes import SPLITS, classes_of
    from tlbench.analysis.summary import summarise
    from tlbench.report.terminal.classes import print_classes

    lookup(SPLITS, "split", split)
    load(plugin)
    summary = summarise(read_rows([run], metric))
    row = _best(summary) if id is None else _named(summary, id)
    found = classes_of(row["group"], split)
    if not found:
        raise UserError(
            f"no record of {row['record'].id!r} has results on single {SPLITS[split]} images, which tell the classes; "
            "runs of this version keep them in images/ beside the records"
        )
    print_classes(new_console(), row, found, split)


def _best(summary: Sequence[Configuration]) -> Configuration:
    """Returns the configuration that the verdict picks. Errors: UserError where there is none, or several verdicts."""
    from tlbench.analysis.verdict import verdicts

    picks = [scope.picks[0] for scope in verdicts(summary)]
    rows = [pick.row for pick in picks if pick.row is not None]
    if len(rows) != 1:
        why = f"there are {len(rows)} verdicts" if rows else picks[0].reason if picks else "there is no record"
        raise UserError(f"{why}; name a cell: tlbench classes RUN ID (tlbench export RUN has the ids)")
    return rows[0]


def _named(summary: Sequence[Configuration], id: str) -> Configuration:
    by_name: dict[str, Mapping[str, Any]] = {}
    for row in summary:
        if row["task"] == "train":
            by_name |= {row["configuration"]: row, **{item.id: row for item in row["group"]}}
    if id not in by_name:
        raise unknown("cell", id, by_name)
    return by_name[id]
