"""What `run` and `find` end with: the summary, the report, the model that is to be kept, and how it went."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tlbench.campaign import ahead
from tlbench.campaign.plugins import again_by, of_plugins
from tlbench.console import surviving
from tlbench.errors import UserError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from tlbench.campaign.campaign import Campaign
    from tlbench.records.record import Record

CHORES = tuple(
    partial(import_module, name)
    for name in ("tlbench.report.terminal", "tlbench.report", "tlbench.report.plots", "jinja2", "pyarrow.parquet")
)
"""What `conclude` imports, piece by piece: it may be done while the process for the first cell is not ready yet."""


def conclude(console: Console, campaign: Campaign, keep: str | None, why_not: Callable[[], str] = lambda: "") -> None:
    """Reports what was measured, and keeps the model that is to be kept, unless there is a reason ``why_not``.

    Errors: Exit where not all is well.
    """
    folder = campaign.store.folder
    ahead.drop()  # nothing more is measured
    from tlbench.analysis.deciding import deciding
    from tlbench.campaign.campaign import UNSUCCESSFUL
    from tlbench.campaign.ending import is_there, shortcomings
    from tlbench.campaign.twins import ROLE

    # A run that is done already has no record that says so.
    records = deciding(campaign.current(), campaign.asked.settings.get("metric"))
    if campaign.plan.settings.twins and not any(record.role == ROLE for record in records):
        console.print("--twins: no finished cell has timed rounds of its own, so none was measured again")
    reported = _show(console, records, folder, campaign.asked.plugins)
    kept = keep is None or (is_there(campaign) and _keep(console, records, campaign, why_not))
    if why := campaign.reason_to_stop:
        console.print(f"Stopped before its end: {why}", markup=False, soft_wrap=True)
    lacking = shortcomings(campaign)
    for line in lacking:
        console.print(line, markup=False, soft_wrap=True)
    unsuccessful = any(record.status in UNSUCCESSFUL for record in records if record.role != ROLE)
    if why or lacking or unsuccessful or not reported or not kept:
        raise typer.Exit(1)


def _keep(console: Console, records: Sequence[Record], campaign: Campaign, why_not: Callable[[], str]) -> bool:
    """Keeps the model of the cell that the verdict names; that this fails costs nothing of what was measured. Returns
    whether it is there, and is the recorded one.
    """
    folder = campaign.store.folder
    again = f"{again_by('fit', folder, campaign.asked.plugins)} makes it"
    with surviving("the model is not kept", again):
        from tlbench.campaign import fitting
        from tlbench.campaign.replay import DIFFERENT

        if why := why_not():
            raise UserError(f"the model is not kept: {why}; {again}")
        print("tlbench: making the model of the cell that the verdict names", file=sys.stderr)
        fitted = fitting.keep_best(
            records, folder, fitting.Moved(places=campaign.places, data_root=campaign.plan.settings.data_root)
        )
        if isinstance(fitted, Path):
            console.print(f"Model: {fitted} (it was there)", markup=False, soft_wrap=True)
            _tell_use(console, fitted, campaign.asked.plugins)
            return True
        cell = fitted.card.cell
        what = f"{cell['backbone']}, {cell['freeze']}, {cell['head']}"
        console.print(printable(f"Model: {fitted.folder} ({what})"), markup=False, soft_wrap=True)
        for line in fitting.in_words(fitted):
            console.print(f"  {printable(line)}", markup=False, soft_wrap=True)
        _tell_use(console, fitted.folder, campaign.asked.plugins)
        return fitted.held.outcome != DIFFERENT
    return False


def _tell_use(console: Console, model: Path, plugins: Sequence[str]) -> None:
    """Names the folder of this model: a run that goes on may have another one from before."""
    console.print(f"To use it: {again_by('predict', model, plugins)} PHOTOGRAPHS", markup=False, soft_wrap=True)


def _show(console: Console, records: Sequence[Record], folder: Path, plugins: Sequence[str]) -> bool:
    """Prints the summary, and only then writes the report, which may fail for more reasons; neither costs the other.
    Returns whether there is a report.
    """
    with surviving("the summary cannot be printed", f"{again_by('summary', folder, plugins)} tries again"):
        from tlbench.report.terminal import print_summary

        print_summary(console, records, runs=str(folder))
    with surviving("no report is written", f"{again_by('report', folder, plugins)} tries again"):
        from tlbench.report import write_report

        path = write_report(records, folder)
        console.print(f"Report: {path}", markup=False, soft_wrap=True)
        return True
    return False


def print_stopped(
    console: Console, done: str, folder: Path, plugins: Sequence[str], command: str = "run", keep: str | None = None
) -> None:
    """Prints what is there, and the commands that go on from it. A run does not remember what it was to ``keep``."""
    named = of_plugins(plugins)
    kept = [f"--keep={keep}"] if keep else []
    for line in (
        f"Stopped: {done} measurements are finished and kept in {folder}",
        f"To go on: {shlex.join(['tlbench', command, '--resume', str(folder), *named, *kept])}",
        f"Report of what is there: {shlex.join(['tlbench', 'report', str(folder), *named])}",
    ):
        console.print(line, markup=False, soft_wrap=True)
