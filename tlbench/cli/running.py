"""The command `run`: axes and settings become its options, a campaign measures, and each cell gets a line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Plugins, new_console
from tlbench.cli.concluding import CHORES, conclude, print_stopped
from tlbench.cli.output import result_is_elsewhere
from tlbench.data import names_a_path
from tlbench.data.named import canonical
from tlbench.errors import UserError, printable
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.grid.values import join_values

if TYPE_CHECKING:
    from tlbench.campaign.asked import Asked
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.engine import Engine
    from tlbench.campaign.steps import Step
    from tlbench.progress import RunProgress, SpreadProgress


def with_axes(
    command: Callable[..., None], panel: str | None = None, hidden: Collection[str] = ()
) -> Callable[..., None]:
    """Gives a command one option for each axis of the grid and each setting, from the tables that know them. Those that
    are ``hidden`` are in no help: the command says why it does not take them.

    ``panel`` is their heading in the command's help.
    """
    signature = inspect.signature(command, eval_str=True)
    declared = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options: dict[str, tuple[Any, str, str, str]] = {
        name: (str | None, axis.option, "VALUE[,…]", axis.help) for name, axis in AXES.items()
    }
    options |= {
        argument(name): (list[str] | None if setting.repeats else str | None, name, setting.metavar, setting.help)
        for name, setting in SETTINGS.items()
    }
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                kind,
                typer.Option(
                    f"--{option}", metavar=metavar, help=help_text, rich_help_panel=panel, hidden=option in hidden
                ),
            ],
        )
        for name, (kind, option, metavar, help_text) in options.items()
    ]
    command.__signature__ = signature.replace(parameters=[*added, *declared])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*added, *declared]}
    return command


PLACING: dict[str, tuple[Any, str, str | None, str]] = {
    "engine": (str | None, "engine", "NAME", "where cells run: local (here), ray, submitit, a plugin's"),
    "engine_address": (str | None, "engine-address", "HOST:PORT", "Ray's, or auto; without it Ray runs here"),
    "engine_option": (
        list[str] | None, "engine-option", "NAME=VALUE", "such as slurm_partition=gpu; may be repeated"
    ),
    "cpus": (str | None, "cpus", "N", "processors of a cell (default: --threads)"),
    "gpus": (str | None, "gpus", "N", "GPUs of a cell on cuda (default 1)"),
    "exclusive": (bool, "exclusive", None, "one cell a node at a time: times hold"),
    "skip_bad_nodes": (bool, "skip-bad-nodes", None, "go on without nodes that lack something"),
}  # fmt: skip
"""Argument of a command that places cells -> its type, its option, what stands for a value, and what it is."""


def with_engine(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say where cells run."""
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if kind is bool else None,
            annotation=Annotated[
                kind,
                typer.Option(f"--{option}", metavar=metavar, help=text, rich_help_panel="More than one machine"),
            ],
        )
        for name, (kind, option, metavar, text) in PLACING.items()
    ]
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    command.__annotations__ = {**command.__annotations__, **{p.name: p.annotation for p in added}}
    return command


def argument(option: str) -> str:
    return f"setting_{option.replace('-', '_')}"


Photographs = Annotated[
    str | None, typer.Argument(metavar="PATH", help="folder of images, as --dataset folder:PATH, or any data set")
]
GridFile = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file with the axes; options override it")]
Download = Annotated[
    bool, typer.Option("--download", help="download data sets of torchvision:NAME and hf:NAME that are not here")
]
Keep = Annotated[
    str | None, typer.Option(metavar="best", help="keep the model of the cell that the verdict names in RUN/model")
]


@with_engine
@with_axes
def run(
    *,
    photographs: Photographs = None,
    grid: GridFile = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the run's folder (default: results/<date and time>)")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="go on with a run; axes that are given add cells to it")
    ] = None,
    rerun: Annotated[
        str | None,
        typer.Option(metavar="WHAT[,…]", help="with --resume, measure again what is noisy, drifting, diverged, …"),
    ] = None,
    plugin: Plugins = None,
    download: Download = False,
    keep: Keep = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the cells, run nothing")] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="with --dry-run, what each cell will cost: tlbench plan")
    ] = False,
    **given: Any,
) -> None:
    r"""Trains and times every combination of the axes; one record a cell, then a report.

    Each axis takes comma-separated values: --backbone resnet18,vgg16 --freeze linear_probe,full

    Without --task, --backbone, --freeze, --head and --grid it measures the first grid, as pytest bench/ does: three
    EfficientNet-Lite and resnet18 with pretrained weights, four policies, two heads.

    A comma that is part of a name is written with a backslash, in quotes: --dataset 'folder:d\,1'

    Ctrl-C keeps what is finished; --resume goes on with what is missing, was interrupted or has failed.

    Exit status 0: all well; 1: a cell failed, or none was measured; 2: it cannot be as asked; 130, 143: stopped.
    """
    from tlbench.campaign.ahead import starting
    from tlbench.campaign.asked import parse_asked, parse_engine
    from tlbench.campaign.stop import despite_hangup

    if keep and dry_run:
        raise UserError("--keep: a dry run trains no model that could be kept; leave one of the two away")
    if cost and not dry_run:
        raise UserError("--cost says what cells will cost instead of measuring them: give --dry-run, too")
    if not dry_run:
        result_is_elsewhere()
    named = {axis.option: given[name] for name, axis in AXES.items()}
    named |= {name: given[argument(name)] for name in SETTINGS}
    named["dataset"] = with_folder(photographs, named["dataset"])
    others = {"grid": grid, "out": out, "resume": resume, "rerun": rerun, "plugin": plugin, "download": download}
    others |= {"keep": keep}
    asked = parse_asked({**named, **others}).or_first_grid()
    asked = replace(asked, engine=parse_engine({name: given[name] for name in PLACING}))
    default = {"isolate": "backbone"} if resume is None else {}
    asked = replace(asked, settings={**default, **asked.settings}, measures=not dry_run)
    with despite_hangup(), starting(CHORES):
        _run(asked, dry_run, cost)


def _run(asked: Asked, dry_run: bool, cost: bool) -> None:
    """Measures what is asked for, or lists it, with what each cell will ``cost``. Errors: as `_measure`."""
    from tlbench.campaign.campaign import begin
    from tlbench.campaign.outlook import outlook
    from tlbench.engines import check_engine, check_reachable, make_engine
    from tlbench.progress import decoding_shown, print_outlook
    from tlbench.records.counting import aside

    if not asked.elsewhere:  # before a process for the first cell is started
        check_engine(asked.engine, Settings())
    with decoding_shown(new_console(stderr=True)):
        campaign = begin(asked)
    check_engine(asked.engine, campaign.plan.settings, {step.cell.device for step in campaign.planned})
    engine = make_engine(asked.engine) if asked.elsewhere else None  # what is not installed is said first of all
    if not dry_run:
        check_reachable(asked.engine)
        _ = campaign.store  # what cannot be written, or is measured by another process, is said first of all
    for line in aside(campaign.damaged):
        print(f"tlbench: {printable(line)}", file=sys.stderr)
    if dry_run:
        print_outlook(new_console(stderr=True), outlook(campaign))
        if cost:
            from tlbench.cli.planning import foretell_and_print

            if foretell_and_print(campaign).seconds is None:
                raise typer.Exit(1)
            return
        _list_cells(campaign.left, campaign.plan.settings.blocks)
    else:
        _measure(campaign, engine)


def with_folder(folder: str | None, dataset: str | None) -> str | None:
    """Writes a folder of images as a data set; without one it is what was named as such. Errors: UserError where both
    were given.
    """
    if folder is None:
        return dataset
    if dataset is not None:
        raise UserError(f"the images are named twice, as {folder!r} and as --dataset {dataset}; give one of them")
    return join_values([folder if names_a_path(canonical(folder)) else f"folder:{folder}"])


def _measure(campaign: Campaign, engine: Engine | None = None) -> None:
    """Measures what is left, and reports. Errors: Exit with the status that says how it went."""
    console = new_console()
    folder, planned, left = campaign.store.folder, campaign.planned, campaign.left
    if campaign.begun:
        console.print(f"{len(planned) - len(left)} of {len(planned)} measurements are there, {len(left)} are left")
    with progress_of(campaign, engine) as progress:
        stopped_by = campaign.run(progress.start, progress.finish, engine)
    if stopped_by is not None:
        done = len(planned) - len(campaign.undone)
        print_stopped(console, f"{done} of {len(planned)}", folder, campaign.asked.plugins, keep=campaign.asked.keep)
        raise typer.Exit(128 + stopped_by)
    conclude(console, campaign, campaign.asked.keep)


def progress_of(campaign: Campaign, engine: Engine | None = None) -> RunProgress | SpreadProgress:
    """Says on standard error what a campaign is about to measure, has its images decoded, and returns what follows it
    there, for `tlbench.run` as well. The run's folder is made.

    ``with progress_of(campaign) as progress: campaign.run(progress.start, progress.finish)``
    """
    from tlbench.campaign.outlook_lines import preflight
    from tlbench.progress import RunProgress, SpreadProgress, decoding_shown, print_outlook

    console = new_console(stderr=True)
    print_outlook(console, preflight(campaign))
    if engine is not None:  # its nodes decode their own
        return SpreadProgress(campaign.left, campaign.times, console, engine)
    try:
        with decoding_shown(console):
            campaign.decode_images()
    except BaseException:  # Ctrl-C: nobody measures any more
        campaign.release()
        raise
    return RunProgress(campaign.left, campaign.times, console)


def _list_cells(steps: Sequence[Step], blocks: int) -> None:
    for step in steps:
        if step.role == "cell":
            typer.echo(f"{step.cell.task} {step.name}" + (f" block {step.block}" if blocks > 1 else ""))
