"""The command `status`: what a run is doing now, asked from another terminal."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.errors import UserError, printable
from tlbench.grid.values import clock_time

if TYPE_CHECKING:
    from tlbench.campaign.journal import State

MOST = 40
"""Most running cells that are listed."""
STALE_SECONDS = 60.0
"""Age of what a driver wrote last from which it is said."""


def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="folder of a run, or its name under results/ (latest: the last one)")
    ],
) -> None:
    """Says what a run is doing: cells done, running where and since when, failed, left, and when it will end.

    Exit status 0: it is measured, or finished; 1: it has cells left and no process measures it; 2: there is no such
    run.
    """
    from tlbench.analysis.raced import read as read_race
    from tlbench.campaign.journal import read
    from tlbench.campaign.steps import as_measured, left
    from tlbench.records.holder import holder_of, untold_holder
    from tlbench.records.plan import load_start
    from tlbench.records.resuming import current
    from tlbench.records.run_folder import find_run, load

    folder = find_run(run)
    folder = folder if folder.is_dir() else folder.parent
    plan = load_start(folder).plan
    try:
        records = current(load(folder).records)
    except UserError:  # none is there yet
        records = []
    planned = as_measured(plan, records)
    rest = left(planned, records)
    by, told, note = holder_of(folder), read(folder), ""
    command = "run"
    if (race := read_race(folder)) is not None:  # it goes beyond its plan, and need not measure all of it
        rest, command = [] if race.ended else rest or planned, "find"
    if by is None and rest and (claim := untold_holder(folder)) is not None:
        by, note = _without_locks(*claim, told)
    lines = _lines(len(planned), len(rest), [r.status for r in records if r.role == "cell"], told, by)
    if race is not None:
        from tlbench.report import race_words

        lines[:1] = race_words.lines([race])
    for line in [*(lines[:-1] if note and by is None else lines), *([note] if note else [])]:
        typer.echo(printable(line))
    if by is None and rest:
        typer.echo(f"To go on: tlbench {command} --resume {printable(shlex.quote(str(folder)))}")
        raise typer.Exit(1)


def _without_locks(who: str, since: float, told: State | None) -> tuple[str | None, str]:
    """Returns who measures a run on a file system without locks, as far as what was written there tells; None where it
    does not. And a line that says so.
    """
    silent = max(time.time() - max(since, 0.0 if told is None or told.ended else told.updated), 0.0)
    wrote = f"(its file system has no locks; this goes by what the process wrote {clock_time(silent)} ago)"
    if silent < STALE_SECONDS:
        return who, wrote
    return None, (
        f"Whether a process measures it now cannot be told: its file system has no locks, and {who} last wrote "
        f"{clock_time(silent)} ago"
    )


def _lines(planned: int, rest: int, statuses: list[str], told: State | None, by: str | None) -> list[str]:
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    words = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items())
    lines = [
        f"{planned - rest:,} of {planned:,} measurements are done, {rest:,} left" + (f" ({words})" if words else "")
    ]
    if by is None:
        return [*lines, "No process measures it now" if rest else "It is finished"]
    lines.append(f"Measured by {by}")
    if told is None or told.ended:
        return lines
    now = time.time()
    lines[-1] += f", by the engine {told.engine}, up to {told.slots:,} cells at a time"
    running = told.running
    for one in running[:MOST]:
        block = f" block {one.block}" if one.block else ""
        at = f" on {one.node}" if one.node else ""
        name = one.name.removeprefix("A/A ")
        again = " (measured a second time, to see the noise)" if name != one.name else ""
        lines.append(f"  {name}{block}{again}{at}, for {clock_time(max(now - one.since, 0))}")
    if len(running) > MOST:
        lines.append(f"  and {len(running) - MOST:,} more")
    if (seconds := told.seconds_left) is not None:
        left = max(seconds - (now - told.updated), 0.0)
        clock = time.strftime("%H:%M", time.localtime(now + left))
        lines.append(f"About {clock_time(left)} left, until {clock}")
    if (age := now - told.updated) > STALE_SECONDS:
        lines.append(f"(as of {clock_time(age)} ago: a cell without a change for so long, or a driver that hangs)")
    return lines
