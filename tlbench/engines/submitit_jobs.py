"""A job of submitit's, from the driver's side: what it has said in the spool, and what is known of it beyond that."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlbench.campaign import spool
from tlbench.campaign.at_node import event_of
from tlbench.campaign.engine import Batch, Done, Event, Impossible, Lost, Refused
from tlbench.engines.submitit_options import quietly
from tlbench.machine.credentials import without_credentials

UNTOLD = ("UNKNOWN", "PREEMPTED")
"""States by which nobody knows whether a job will go on: without Slurm's accounting it has none, and what was preempted
may stay so."""
LAST_BYTES = 4096
"""End of a job's output in which its last line is looked for."""


@dataclass(kw_only=True)
class Placed:
    """Holds a job that was submitted."""

    batch: Batch
    job: Any
    folder: Path
    """Its own in the spool."""
    here: bool
    """Whether it is a process of this machine."""
    spoke: bool = False
    over: bool = False
    """Whether nothing more comes of it: its last word is there, or it was given up."""
    ended: float | None = None
    """When it was first seen to have ended."""
    cancelled: bool = False

    @property
    def name(self) -> str:
        """Returns what a person calls it, with its node where it has begun."""
        try:
            told = json.loads(max(self.folder.glob("start-*")).read_bytes())
        except (ValueError, OSError):
            return f"job {self.job.job_id}"
        return f"job {self.job.job_id} on {told['node']}"

    @property
    def state(self) -> str:
        """Returns submitit's word for its state."""
        with nullcontext() if self.here else quietly():
            return str(self.job.state).upper()

    def is_done(self, force: bool) -> bool:
        """Tells whether it has ended. ``force``: Slurm is asked, about all jobs at once."""
        with nullcontext() if self.here else quietly():
            return bool(self.job.done(force_check=force))

    def is_stuck(self, seconds: float) -> bool:
        """Tells whether it has given no sign of life for some seconds, and nobody knows of it either."""
        if self.here:
            return False
        try:
            driver = (self.folder.parent / spool.DRIVER).stat().st_mtime
            silent = driver - (self.folder / "beat").stat().st_mtime
        except OSError:
            return False  # it has not begun
        return silent > seconds and self.state in UNTOLD

    def cancel(self) -> None:
        """Has it ended. A second time nothing happens."""
        if not self.cancelled and not self.over:
            self.cancelled = True
            with quietly():
                self.job.cancel(check=False)

    def how_it_ended(self) -> tuple[str, str]:
        """Returns the status of what it was measuring, empty where another job may measure that, and says why."""
        state = self.state
        words = f"{self.name} ended: {state.lower().replace('_', ' ')}{self._last_words()}"
        return "oom" if state.startswith("OUT_OF_ME") else "", words  # sacct cuts long words off

    def _last_words(self) -> str:
        try:
            with open(self.job.paths.stderr, "rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0))
                lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return f"; it last wrote: {without_credentials(lines[-1])[:300]}" if lines else ""

    def events(self, read: Read) -> Iterator[Event]:
        """Yields what it has said that the driver has not taken in, and notes what that was read from."""
        for path, plain in spool.events(self.folder):
            event = self._event(plain)
            self.spoke = True
            self.over |= isinstance(event, Done | Lost | Refused | Impossible)
            read.files.append(path)
            yield event

    def _event(self, plain: Mapping[str, Any]) -> Event:
        if "refused" in plain:
            return Refused(node=plain["refused"], lines=tuple(plain["lines"]), batch=self.batch.number)
        if "stopped" in plain:
            why = f"{self.name}: {plain['stopped']}"
            return Lost(batch=self.batch.number, reason=why, status=plain.get("status", ""))
        return event_of(plain)

    def remove(self, keep_output: bool) -> None:
        """Removes its files. A job that runs on unseen, after it was given up, ends by that."""
        spool.remove(self.folder.parent, self.folder.name)
        if not keep_output:
            for path in self.job.paths.folder.glob(f"{self.job.job_id}_*"):
                path.unlink(missing_ok=True)


@dataclass(kw_only=True)
class Read:
    """Notes what was given to the driver, until that has written it down."""

    files: list[Path] = field(default_factory=list)
    over: list[tuple[Placed, bool]] = field(default_factory=list)
    """Jobs of which nothing more comes, and whether they failed."""

    def written(self) -> None:
        """Takes in that it is written down: the spool need not hold it."""
        for path in self.files:
            path.unlink(missing_ok=True)
        for placed, failed in self.over:
            placed.remove(keep_output=failed)
