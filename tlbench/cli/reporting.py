"""The commands that read runs: report, summary, recommend, export, efficiency."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Deciding, Plugins, Runs, load, new_console, read_records, read_rows
from tlbench.cli.output import print_path, result_is_elsewhere
from tlbench.errors import UserError, lookup, printable
from tlbench.records.machine import short_hash

if TYPE_CHECKING:
    from tlbench.records.record import Record

# --- report, export, env --------------------------------------------------------------------------------------


def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="folder for the report (default: the run's own; of several, report-of-RUN+RUN beside the first)",
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share", help="a report to give away: no folders, images, host or user (default: in shared/ of it)"
        ),
    ] = False,
    no_thumbnails: Annotated[
        bool, typer.Option("--no-thumbnails", help="no small pictures of mistaken images and suspect labels")
    ] = False,
    metric: Deciding = None,
    plugin: Plugins = None,
) -> None:
    """Writes report.html, Markdown, CSV, Parquet and figures from the records of one or several runs."""
    from tlbench.analysis.deciding import deciding
    from tlbench.records.run_folder import find_run, holds_a_run
    from tlbench.report import write_report
    from tlbench.report.disclosure import Disclosure

    result_is_elsewhere()
    load(plugin)
    read, names = read_records(runs)
    _tell_unfinished(read, names)
    records = deciding(read, metric)
    folders = [path if path.is_dir() else path.parent for path in map(find_run, runs)]
    folder = out or (folders[0] if len(runs) == 1 else _joint_folder(folders))
    if share:
        _share(records, out or folder / SHARED, names)
        return
    # A run's folder is that of its own report, which another must not replace.
    if holds_a_run(folder) and (len(runs) > 1 or not folder.exists() or not folder.samefile(folders[0])):
        raise UserError(
            f"{str(folder)!r} is the folder of a run, whose own report would be overwritten; choose another with --out"
        )
    print_path(write_report(records, folder, names, disclosure=Disclosure(thumbnails=not no_thumbnails)))


SHARED = "shared"


def _share(records: Sequence[Record], folder: Path, names: Sequence[str]) -> None:
    """Writes a report to give away. Errors: UserError for the folder of a run, whose other files tell everything."""
    from tlbench.records.run_folder import holds_a_run
    from tlbench.report.share import write_shared

    if holds_a_run(folder):
        raise UserError(
            f"{str(folder)!r} is the folder of a run, whose records name places and people; choose another with --out"
        )
    print_path(write_shared(records, folder, names))


LONGEST_NAME = 100
"""Characters of a folder's name."""


def _joint_folder(folders: Sequence[Path]) -> Path:
    """Returns the folder for a report of several runs, beside the first of them and named by all: ``report-of-a+b``;
    where they are many, by the first, their number and a hash of all.
    """
    places = [folder.resolve() for folder in folders]
    name = f"report-of-{'+'.join(place.name for place in places)}"
    if len(name) > LONGEST_NAME or len({place.parent for place in places}) > 1:
        digest = short_hash([str(place) for place in places])
        name = f"report-of-{places[0].name[:LONGEST_NAME]}-and-{len(places) - 1}-more-{digest}"
    return folders[0].parent / name if folders[0].name not in ("", "..") else places[0].parent / name


def summary(runs: Runs, metric: Deciding = None, plugin: Plugins = None) -> None:
    """The verdict and the table in the terminal."""
    from tlbench.analysis.deciding import deciding
    from tlbench.report.terminal import print_summary

    load(plugin)
    records, names = read_records(runs)
    print_summary(new_console(), deciding(records, metric), runs=names)
    _tell_unfinished(records, names)


def _tell_unfinished(records: Sequence[Record], names: Sequence[str]) -> None:
    """Says on standard error what of the runs has no result yet."""
    from tlbench.campaign.unfinished import unfinished

    for line in unfinished(records, names):
        print(f"tlbench: {printable(line)}", file=sys.stderr)


def recommend(
    runs: Runs,
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0, metavar="MS", help="p95 of single images, milliseconds")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="peak in training, such as 2GB")] = None,
    max_training: Annotated[str | None, typer.Option(metavar="TIME", help="whole training: 90s, 5min, 2h")] = None,
    min_accuracy: Annotated[str | None, typer.Option(metavar="SHARE", help="on validation data: 0.9 or 90%")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="only cells on this device")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="DATASET", help="only cells on this data set")] = None,
    metric: Deciding = None,
    train_size: Annotated[
        str | None, typer.Option(metavar="N", help="only cells with this train size, or all (default: the largest)")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """The most accurate cell under limits (or the best by --metric), the runner-up, and what excluded the others.

    Exit status 1 where no cell keeps to the limits.
    """
    from tlbench.analysis import recommend as picking
    from tlbench.analysis.summary import summarise
    from tlbench.report.terminal import print_recommendation

    limits = picking.Limits(
        max_latency_ms=max_latency_ms,
        max_memory_bytes=picking.parse_bytes(max_memory) if max_memory is not None else None,
        max_training_seconds=picking.parse_seconds(max_training) if max_training is not None else None,
        min_accuracy=picking.parse_share(min_accuracy) if min_accuracy is not None else None,
        device=device,
        dataset=dataset,
        train_size=train_size,
    )
    load(plugin)
    table = summarise(read_rows(runs, metric))
    recommendation = picking.recommend(table, limits)
    if metric is not None:  # a verdict goes by the run's own
        recommendation = replace(recommendation, unlimited=False)
    print_recommendation(new_console(), recommendation, table)
    raise typer.Exit(0 if recommendation.pick is not None else 1)


def export(
    runs: Runs,
    format: Annotated[str, typer.Option(metavar="csv|json", help="how it is written")] = "csv",
    plugin: Plugins = None,
) -> None:
    """A tidy table of the records on standard output, one row a cell.

    Cells that were measured a second time, to see how noisy the machine is, are in it once.
    """
    from tlbench.analysis.summary import without_twins

    writer = lookup(EXPORTS, "format", format)
    load(plugin)
    writer(without_twins(read_rows(runs)))


def _export_csv(table: Sequence[Mapping[str, Any]]) -> None:
    from tlbench.analysis.frame import EXPORT_COLUMNS, with_seldom, write_csv

    write_csv(table, sys.stdout, with_seldom(EXPORT_COLUMNS, table))


def _export_json(table: Sequence[Mapping[str, Any]]) -> None:
    from tlbench.analysis.frame import EXPORT_COLUMNS, plain_rows, with_seldom

    plain = list(plain_rows(table, with_seldom(EXPORT_COLUMNS, table)))
    typer.echo(json.dumps(plain, indent=1, allow_nan=False))


EXPORTS: dict[str, Callable[[Sequence[Mapping[str, Any]]], None]] = {"csv": _export_csv, "json": _export_json}


LEGEND = {
    "promised": "times as fast as full an epoch would be if its time went by FLOPs alone",
    "measured": "times as fast as full an epoch was",
    "kept": "measured as a share of promised",
    "falls short for": "what takes the rest of the time, where less than nine tenths are kept",
}
"""Column of `efficiency` -> what it says."""


def efficiency(runs: Runs, plugin: Plugins = None) -> None:
    """What freezing buys: the speed-up over `full` that FLOPs promise, the one measured, and why they differ."""
    from rich.table import Table

    from tlbench.analysis.efficiency import REASONS, freeze_efficiency
    from tlbench.analysis.summary import summarise
    from tlbench.report import wording
    from tlbench.report.terminal.printing import plain

    load(plugin)
    efficiencies = freeze_efficiency(summarise(read_rows(runs)))
    if not efficiencies:
        raise UserError(
            "no finished policy has a `full` beside it that is equal otherwise; run with --freeze full,linear_probe"
        )
    differs = wording.varying([one.row for one in efficiencies])
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    for heading in ("promised", "measured", "kept"):
        table.add_column(heading, justify="right")
    table.add_column("falls short for")
    for one in efficiencies:
        table.add_row(
            plain(wording.label(one.row, differs)),
            wording.promise(one.promised),
            wording.ratio(one.measured),
            f"{one.share:.0%}" if one.share >= 0.01 else "under 1%",
            one.reason or "",
        )
    console = new_console()
    if same := wording.conditions([one.row for one in efficiencies]):
        console.print(f"{same.removeprefix(', ').capitalize()}:", style="bold", markup=False)
    console.print(table)
    for heading, meaning in LEGEND.items():
        console.print(f"{heading}: {meaning}", markup=False)
    for reason in dict.fromkeys(one.reason for one in efficiencies if one.reason):
        console.print(f"{reason}: {REASONS[reason]}", markup=False)
