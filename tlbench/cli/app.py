"""The command line's application, and what its commands share."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from tlbench import __version__
from tlbench.errors import UserError, nearest, no_exit, printable, unknown
from tlbench.machine.interrupts import STATUS, tell

if TYPE_CHECKING:
    from rich.console import Console

    from tlbench.analysis.figures import Row
    from tlbench.records.record import Record


_Misuse: type[Exception] = typer.BadParameter.__mro__[1]
"""What is raised for a command line that cannot be read, by whichever click this version of typer brings."""


class _Plain:
    """Shows in a command's help what a person types: no type where an option takes no value, and an argument as its
    metavar says it. What cannot be read of a command line is one line, as all other wrong input is.
    """

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **more: Any) -> Any:
        """Reads the command line. Errors: UserError for what cannot be read of it."""
        given = bool(args)
        try:
            return super().make_context(info_name, args, *others, **more)  # type: ignore[misc]
        except _Misuse as error:
            if not given and isinstance(self, PlainGroup):
                raise  # the program alone: it shows its help
            raise UserError(self._in_one_line(error)) from None

    def _in_one_line(self, error: Any) -> str:
        """Says what is wrong with a command line, and what to look at."""
        group = isinstance(self, PlainGroup)
        called = "tlbench" if group else f"tlbench {self.name}"  # type: ignore[attr-defined]
        if not hasattr(error, "possibilities"):
            words = " ".join(error.format_message().split()).rstrip(".")
            return f"{words[:1].lower()}{words[1:]}; {called} --help shows how"
        shown = [param for param in self.get_params(error.ctx) if not getattr(param, "hidden", False)]
        options = [name for param in shown for name in param.opts if name.startswith("-")]
        guess = nearest(error.option_name, options)
        hint = f"did you mean {guess}? " if guess else ""
        return f"{called} has no option {error.option_name}; {hint}{called} --help lists them"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, its paragraphs as wide as the terminal: the lines of a docstring end elsewhere."""
        command: Any = self
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        super().format_help(ctx, formatter)  # type: ignore[misc]

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options and arguments of the command."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""  # else it is shown as <bool>
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: None  # else <list[Path]> stands beside RUN…
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words of the usage line behind the command's name."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        words = [param.metavar or param.name.upper() for param in arguments]
        return ["[OPTIONS]", *(w if p.required else f"[{w}]" for p, w in zip(arguments, words, strict=True))]


class PlainCommand(_Plain, typer.core.TyperCommand):
    """A command whose help is as `_Plain` has it, and which nothing ends but itself: its status is an Exit of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. Errors: UserError in the place of a SystemExit, which somebody else has raised."""
        try:
            with no_exit():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            tell()
            raise typer.Exit(STATUS) from None


class PlainGroup(_Plain, typer.core.TyperGroup):
    """The command of the commands, whose help is as `_Plain` has it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words of the usage line behind the program's name."""
        return ["[OPTIONS]", "COMMAND …"]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that is named first. Errors: UserError, with the nearest one, where it is none."""
        if not ctx.resilient_parsing and args and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.commands, shown=len(self.commands))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which backbone, freeze policy and head for my images on my hardware, and what does each cost?",
    epilog="Exit status: 0 done; 1 something failed, or a gate did; 2 bad input, or it cannot be said; 130 and 143 "
    "stopped by Ctrl-C and by SIGTERM. All of them: docs/exit-status.md",
)

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN…",
        help="folders of runs, their names under results/ (latest: the last one), or records.jsonl files",
    ),
]

MovedLabels = Annotated[
    str | None, typer.Option("--relabel", metavar="FILE", help="where the same corrected labels lie now")
]
MovedRoot = Annotated[
    str | None, typer.Option("--data-root", metavar="DIR", help="where data sets of torchvision:NAME lie now")
]

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file or module with backbones, policies, heads, data sets or plots of yours; may be repeated",
    ),
]


Deciding = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="what decides, on validation images: accuracy, balanced_accuracy, macro_f1 (default: as the run was told)",
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


def load(plugins: list[str] | None) -> None:
    """Loads the plugins that are given with ``--plugin``. Errors: UserError."""
    if plugins:
        from tlbench.campaign.plugins import load_plugins

        load_plugins(plugins)


def load_with_those_of(run: Path | None, records: Sequence[Record], given: list[str] | None) -> None:
    """Loads the plugins that are given, and those that the records of a run were made with; standard error says what
    is another than it was. Errors: UserError.
    """
    from tlbench.campaign.plugins import load_plugins, plugins_of, with_those_of

    names, notes = with_those_of(str(run), plugins_of(records), given or [])
    for line in notes:
        print(f"tlbench: {line}", file=sys.stderr)
    load_plugins(names)


def new_console(stderr: bool = False) -> Console:
    """Returns the console that a command prints its tables with."""
    from tlbench.console import new_console

    return new_console(stderr=stderr)


def read_records(runs: list[Path]) -> tuple[list[Record], list[str]]:
    """Returns what counts of the runs' records, and the run of each; standard error names damaged lines, says how many
    records are superseded, and which runs hold the same measurements, that count once.

    Errors: UserError for a run that is not there or has no record, or one that is given twice.
    """
    from tlbench.machine.imports import needed_to_the_end
    from tlbench.records.counting import read_together
    from tlbench.records.run_folder import find_run

    # What is called latest today is another run tomorrow, or while this one is read.
    latest = {find_run(run): str(run) for run in runs if str(run) == "latest"}
    runs = [next(iter(latest)) if str(run) == "latest" else run for run in runs]
    with needed_to_the_end():
        together = read_together(runs, whole=False)
    _settle(runs)
    for line in together.notes:
        print(f"tlbench: {printable(line)}", file=sys.stderr)
    names = {str(path): path.name for path in latest}
    return together.records, [names.get(run, run) for run in together.runs]


def _settle(runs: Sequence[Path]) -> None:
    """Brings into place the new report of a run that a process left behind when it was killed."""
    from tlbench.records.run_folder import find_run

    for path in map(find_run, runs):
        folder = path if path.is_dir() else path.parent
        if os.path.exists(folder / ".report-new"):  # `tlbench.report.together.WHOLE`, whose imports take longer
            from tlbench.report.together import settle

            settle(folder)


def read_rows(runs: list[Path], metric: str | None = None) -> list[Row]:
    """Returns a row for each record of the runs, whose verdict a metric is to decide where one is given.

    Errors: as `read_records`; UserError for an unknown metric.
    """
    from tlbench.analysis.deciding import deciding
    from tlbench.analysis.frame import rows

    records, names = read_records(runs)
    return rows(deciding(records, metric), names)
