"""The command `find`: a race of cells for a budget, from photographs to a verdict."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Plugins, new_console
from tlbench.cli.concluding import CHORES, conclude, print_stopped
from tlbench.cli.output import result_is_elsewhere
from tlbench.cli.running import Download, Keep, Photographs, argument, with_axes, with_folder
from tlbench.errors import printable
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS

if TYPE_CHECKING:
    from tlbench.campaign.asked import Asked
    from tlbench.campaign.finding import Sought
    from tlbench.campaign.racing import Racing
    from tlbench.progress import RaceProgress

REFUSED = ("task", "seeds", "blocks", "twins", "retry-noisy")
"""Axes and settings of `run` that a race chooses for itself, and says so."""


@partial(with_axes, panel="What enters, and how it is measured", hidden=REFUSED)
def find(
    *,
    photographs: Photographs = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="from the start to the last line: 20m, 2h; with --resume all times together"),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="leave out what takes longer for one image (95th percentile)")
    ] = None,
    keep: Keep = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the run's folder (default: results/<date and time>)")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="go on with a race; axes that are given let more cells enter")
    ] = None,
    plugin: Plugins = None,
    download: Download = False,
    grid: Annotated[str | None, typer.Option(hidden=True)] = None,
    rerun: Annotated[str | None, typer.Option(hidden=True)] = None,
    **given: Any,
) -> None:
    """Finds the best cell for your images within a budget of time: tlbench find PATH --budget 20m --keep best

    It begins with the best backbone that there is room for, where it knows what that takes. Then every cell is measured
    once, the cheapest first, in up to half of the budget; then those that may be the best, seed by seed. What falls
    behind on validation images, beyond chance, is not continued. The verdict is that of a run, with what the budget did
    not allow.

    Without --backbone the usual backbones enter whose pretrained weights are here, without --freeze and --head the
    usual policies and heads (docs/find.md names them).

    Exit status 0: all well; 1: a cell failed, or none was measured; 2: it cannot be as asked; 130, 143: stopped.
    """
    from tlbench.campaign.ahead import starting
    from tlbench.campaign.asked import parse_asked
    from tlbench.campaign.finding import Sought, check_options
    from tlbench.campaign.stop import despite_hangup

    result_is_elsewhere()
    named = {axis.option: given[name] for name, axis in AXES.items()}
    named |= {name: given[argument(name)] for name in SETTINGS}
    check_options({**named, "grid": grid, "rerun": rerun})
    named["dataset"] = with_folder(photographs, named["dataset"])
    others = {"out": out, "resume": resume, "plugin": plugin, "download": download, "keep": keep}
    asked = replace(parse_asked({**named, **others}), measures=True)
    with despite_hangup(), starting(CHORES):
        _find(asked, Sought(budget=budget, max_latency_ms=max_latency_ms))


def _find(asked: Asked, sought: Sought) -> None:
    """Races, reports, and keeps the model that is to be kept. Errors: Exit with the status that says how it went."""
    from tlbench.campaign.finding import begin_race
    from tlbench.progress import decoding_shown
    from tlbench.records.counting import aside

    with decoding_shown(new_console(stderr=True)):
        racing = begin_race(asked, sought)
    campaign, console = racing.campaign, new_console()
    folder = campaign.store.folder
    for line in aside(campaign.damaged):
        print(f"tlbench: {printable(line)}", file=sys.stderr)
    with race_progress(racing) as progress:
        stopped_by = campaign.run(progress.start, progress.finish)
    if stopped_by is not None:
        done = str(sum(len(seeds) for seeds in racing.race.scores.values()))
        print_stopped(console, done, folder, asked.plugins, "find")
        raise typer.Exit(128 + stopped_by)
    try:
        conclude(console, campaign, racing.keep, racing.why_not_kept)
    finally:
        racing.write()  # the report and the making of the model are of the budget, too


def race_progress(racing: Racing) -> RaceProgress:
    """Says on standard error what a race is about to do, has its images decoded, and returns what follows it there, for
    `tlbench.find` as well. The run's folder is made.
    """
    from tlbench.campaign.finding import words_of
    from tlbench.campaign.outlook_lines import preflight
    from tlbench.campaign.promise import foresee_the_best
    from tlbench.progress import RaceProgress, decoding_shown, print_outlook

    campaign, console = racing.campaign, new_console(stderr=True)
    racing.write()
    try:
        print_outlook(console, [*preflight(campaign), *words_of(racing)])
        with decoding_shown(console):
            campaign.decode_images()
        foresee_the_best(racing, lambda line: print_outlook(console, [("time", line)]))
    except BaseException:  # Ctrl-C: nobody measures any more
        campaign.release()
        raise
    first = [cell for cells in racing.cells.values() for cell in cells]
    return RaceProgress(first, racing.budget, campaign.times, console)
