"""The command line's application, and what its commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench import __version__
from tlbench.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from tlbench.analysis.figures import Row
    from tlbench.records.record import Record

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which backbone, freeze policy and head for my images on my hardware, and what does each cost?",
)

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN…",
        help="folders of runs, their names under results/ (latest: the last one), or records.jsonl files",
    ),
]

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file or module with backbones, policies, heads, data sets or plots of yours; may be repeated",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tlbench {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def new_console(stderr: bool = False) -> Console:
    """Returns the console that a command prints its tables with."""
    from tlbench.report.terminal.printing import new_console

    return new_console(stderr=stderr)


def read_records(runs: list[Path]) -> tuple[list[Record], list[str]]:
    """Returns what counts of the runs' records, and the run of each; standard error names damaged lines, says how many
    records are superseded, and which runs hold the same measurements, that count once.

    Errors: UserError for a run that is not there or has no record, or one that is given twice.
    """
    from tlbench.records.counting import read_together

    together = read_together(runs)
    for line in together.notes:
        print(f"tlbench: {printable(line)}", file=sys.stderr)
    return together.records, together.runs


def read_rows(runs: list[Path]) -> list[Row]:
    """Returns a row for each record of the runs. Errors: as `read_records`."""
    from tlbench.analysis.frame import rows

    return rows(*read_records(runs))
