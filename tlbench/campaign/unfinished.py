"""What of runs was planned and has no result yet: whoever reads a verdict has to know that it may change."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tlbench.analysis.raced import is_damaged, read
from tlbench.campaign.steps import as_measured, left
from tlbench.errors import UserError
from tlbench.records.plan import load_start
from tlbench.records.record import Record
from tlbench.records.run_folder import find_run

MOST = 20_000
"""Measurements of a plan beyond which nobody looks which of them are left: that takes seconds."""


def unfinished(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Says in a line of each run how many of its measurements are left, and how it goes on; nothing of one that is
    done. ``names`` are the runs of the records.
    """
    of_run: dict[str, list[Record]] = {}
    for record, name in zip(records, names, strict=True):
        of_run.setdefault(name, []).append(record)
    return [line for name, own in of_run.items() if (line := _of_run(name, own))]


def _of_run(name: str, own: Sequence[Record]) -> str:
    try:
        folder = find_run(Path(name))
        plan = load_start(folder if folder.is_dir() else folder.parent).plan
    except UserError:  # a file of records alone says nothing of what was planned
        return ""
    if is_damaged(folder if folder.is_dir() else folder.parent):
        return f"{name}: its race.json cannot be read, so that cells that the race gave up are weighed with the others"
    if (race := read(folder if folder.is_dir() else folder.parent)) is not None:
        again = shlex.quote(name)
        return "" if race.ended else f"{name}: its race has not ended; tlbench find --resume {again} goes on"
    planned = as_measured(plan, own)
    if len(planned) > MOST or not (missing := left(planned, own)):
        return ""
    return (
        f"{name}: {len(missing):,} of {len(planned):,} measurements are not finished, so that all this may change; "
        f"tlbench run --resume {shlex.quote(name)} goes on"
    )
