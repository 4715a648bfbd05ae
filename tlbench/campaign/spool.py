"""The spool of a run: where jobs that outlive their driver leave what happens with their batch, until the driver takes
it in. It lies in the run's folder, on a file system that the jobs' nodes share.

``spool/<job>/`` holds a file for each event, written aside and renamed, whose name says its place in the order. What a
driver that was killed has not taken in is taken in when its run goes on, with whatever engine (`recover`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.campaign.at_node import event_of
from tlbench.campaign.engine import Measured
from tlbench.campaign.memory import Memory
from tlbench.campaign.moved import called, cell_at
from tlbench.campaign.room import with_room
from tlbench.console import surviving
from tlbench.errors import UserError
from tlbench.machine import locks
from tlbench.machine.scratch import write_aside
from tlbench.records.counting import measurement
from tlbench.records.record import Record
from tlbench.records.resuming import SameInput, identity, identity_of
from tlbench.records.run_folder import Store

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign

SPOOL = "spool"
"""Folder of a run, there as long as jobs may write into it, or have left something in it."""
JOBS = "jobs"
"""Folder of a run with what was submitted, and the output of jobs that failed."""
DRIVER = "driver"
"""File of the spool that names the driver's session. Its time of writing says when the driver was last alive."""
SUFFIX = ".json"
"""End of the names of events."""


def write_event(folder: Path, attempt: int, number: int, event: Mapping[str, Any]) -> None:
    """Writes an event of a job's so that it is on the disk, whole, when this returns. ``attempt`` counts the starts of
    the job, and ``number`` its events since. Errors: OSError.
    """
    write_aside(folder / f"{attempt:04d}-{number:06d}{SUFFIX}", json.dumps(event).encode())
    locks.sync_folder(folder)


def events(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yields the events of a job in their order, with their files; none where there is no such folder."""
    try:
        # A network file system may show a folder as it was; that its mode is set makes it look again.
        folder.chmod(folder.stat().st_mode & 0o7777)
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith("."))
    except OSError:
        return
    for name in names:
        path = folder / name
        try:
            event = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # it was removed just now, or the disk has damaged it: then it is measured again
        yield path, event


def remove(run: Path, name: str) -> None:
    """Removes a folder of a run's, as far as that can be done."""
    shutil.rmtree(run / name, ignore_errors=True)


# --- what was left behind -------------------------------------------------------------------------------------


def recover(campaign: Campaign, store: Store) -> tuple[list[Record], list[str]]:
    """Writes down what jobs have measured of a campaign's steps, and its driver has not taken in, and removes the
    spool: jobs that are still there end by that. Returns the records, and lines for a person to read.

    Errors: UserError when they cannot be written; what was not taken stays.
    """
    found: list[Record] = []
    notes: list[str] = []
    if not (store.folder / SPOOL).is_dir():
        return found, notes
    memory, same_input = Memory(store.run), SameInput(campaign.earlier)
    lacking = {identity_of(cell_at(s.cell, campaign.places), s.role, s.block): s for s in campaign.left}
    written = set(map(measurement, campaign.earlier))
    for path, left in left_in(store.folder):
        step = lacking.get(identity(left))
        record = left if step is None else replace(called(left, step.cell), plugins=campaign.plan.plugins)
        # What the driver has written down may lie here still: it was killed before it could remove it.
        if step is not None and measurement(record) not in written:
            try:
                same_input.check(record)
            except UserError as error:
                notes.append(f"what a job has measured when the run's driver had ended is not taken in: {error}")
                continue
            with surviving("what is known of the machine's noise is not in the record"):
                record = replace(record, machine_noise=memory.of(record))
            found.append(with_room(store, partial(store.append, record)))
            del lacking[identity(left)]
        path.unlink(missing_ok=True)
    remove(store.folder, SPOOL)
    if found:
        notes.append(
            f"{len(found)} {'cell' if len(found) == 1 else 'cells'} that jobs have measured, when the run's "
            "driver had ended, are taken in"
        )
    return found, notes


def left_in(run: Path) -> Iterator[tuple[Path, Record]]:
    """Yields the records that jobs have left in a run's spool, with their files."""
    spool = run / SPOOL
    for folder in sorted(spool.iterdir()) if spool.is_dir() else ():
        for path, plain in events(folder):
            event = None
            with suppress(ValueError, TypeError, KeyError):  # the disk has damaged it: it is measured again
                event = event_of(plain) if "measured" in plain else None
            if isinstance(event, Measured) and event.record.status != "interrupted":
                yield path, event.record
