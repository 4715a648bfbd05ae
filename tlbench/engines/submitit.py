"""Slurm as an engine, by submitit: each batch is a job, whose records come back through the run's spool
(`tlbench.campaign.spool`), on the file system that a cluster shares anyway.

Submitit's own results are of no use here: they come when a job has ended. What a job says is in the spool; what
submitit knows of it, its state, counts where it ended without a word.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError

from tlbench.campaign import spool
from tlbench.campaign.at_node import plain_batch, plain_setup
from tlbench.campaign.engine import Batch, Event, Lost, Setup, Wanted
from tlbench.campaign.stop import Stop
from tlbench.engines.submitit_jobs import Placed, Read
from tlbench.engines.submitit_node import BatchJob
from tlbench.engines.submitit_options import Options, check_there, executor_of, parse, quietly, slots_of
from tlbench.errors import UserError, text_of
from tlbench.machine.scratch import write_aside

BEAT_SECONDS = 5.0
"""Time between two signs of life of the driver."""
SILENT_SECONDS = 300.0
"""Time without one after which jobs end: nobody would see what they do."""
LOOK_SECONDS = 60.0
"""Time between two questions to Slurm about all jobs."""
PATIENCE_SECONDS = 10.0
"""Time that a network file system has to show the last words of a job that has ended."""
STUCK_SECONDS = 600.0
"""Time without a sign of life after which a job is given up whose state nobody knows, or that was preempted and not
requeued: Slurm says no more of it."""
RETRY_SECONDS, REFUSED_SECONDS = 30.0, 900.0
"""Time between two attempts to submit, and after which they are given up: a controller restarts, a limit is reached."""
MOST_BARREN = 3
"""Jobs in a row that may end without a word, before the run does: the next one would not say more."""
CLOSE_SECONDS = 5.0
"""Time that processes on this machine have to end."""


def make(wanted: Wanted) -> Submitit:
    """Returns the engine. Errors: UserError for an option that is not known, a value that cannot be, or no Slurm."""
    engine = Submitit(wanted)
    check_there(engine.options)
    return engine


class Submitit:
    """Places batches as jobs of a cluster."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.options: Options = parse(wanted)
        self._session = secrets.token_hex(6)
        self._run: Path | None = None
        self._executors: dict[str, Any] = {}
        self._placed: dict[int, Placed] = {}
        self._waiting: deque[Batch] = deque()
        self._read = Read()
        self._bad: set[str] = set()
        self._refused_since: float | None = None
        self._next_try = self._next_beat = self._next_look = self._next_force = 0.0
        self._barren = 0
        self._failed = self._cancelled = False
        self.slots = 1

    # --- opening and closing ----------------------------------------------------------------------------------

    def open(self, setup: Setup, stop: Stop) -> None:
        """Gets ready to submit. Errors: UserError where submitit does not take what is asked for."""
        logging.getLogger("submitit").setLevel(logging.ERROR)  # else its warnings go through what shows the progress
        self._plain, self._stop = plain_setup(setup), stop
        run = setup.folder.absolute()
        if "%" in str(run):
            raise UserError(
                f"{str(setup.folder)!r}: Slurm reads a % in a folder's name in its own way; give another --out"
            )
        for device in setup.devices:
            self._executors[device] = executor_of(self.options, run / spool.JOBS, device, setup, self._wanted)
        self.slots = slots_of(self.options, setup, self._wanted)
        self._run = run
        try:
            self._spool.mkdir(exist_ok=True)
            write_aside(self._spool / spool.DRIVER, self._session.encode())
        except OSError as error:
            raise UserError(f"cannot write to {str(self._spool)!r}: {error.strerror}") from None

    @property
    def _spool(self) -> Path:
        assert self._run is not None
        return self._run / spool.SPOOL

    def cancel(self) -> None:
        """Has cells give up: jobs see that nobody waits for them any more."""
        self._cancelled = True
        self._waiting.clear()
        if self._run is None:
            return
        with suppress(OSError):  # else they end by what follows, or when they have not seen the driver for long
            write_aside(self._spool / spool.DRIVER, b"")
        if not self.options.here:  # here they would have no time to give up
            self._cancel_jobs()

    def _cancel_jobs(self) -> None:
        for placed in self._placed.values():
            placed.cancel()

    def close(self) -> None:
        """Ends the jobs, and removes what nobody needs any more: not what jobs have left and the driver has not taken,
        nor what those have written that failed.
        """
        if self._run is None:
            return
        if self._placed and not self._cancelled:
            self.cancel()
        self._cancel_jobs()
        until = time.monotonic() + CLOSE_SECONDS
        while (
            self.options.here and time.monotonic() < until and not all(p.is_done(False) for p in self._placed.values())
        ):
            time.sleep(0.1)
        if not self._read.files and not any(True for _ in spool.left_in(self._run)):
            spool.remove(self._run, spool.SPOOL)
        if not self._failed:
            spool.remove(self._run, spool.JOBS)
        self._run = None

    # --- nodes ------------------------------------------------------------------------------------------------

    def ask(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns nothing: each job looks at its node before it measures."""
        return {}

    def leave_out(self, nodes: Sequence[str]) -> None:
        """Has jobs submitted that are not for these nodes."""
        self._bad |= set(nodes)
        for executor in self._executors.values():
            self.options.exclude(executor, self._bad)

    # --- submitting -------------------------------------------------------------------------------------------

    def room(self) -> int:
        """Returns how many jobs may still be queued or running."""
        self._written()
        if self._cancelled or self._waiting:
            return 0
        return max(self.slots - len(self._placed), 0)

    def submit(self, batch: Batch) -> None:
        """Submits a batch, or keeps it until the cluster takes more. Errors: UserError where it takes none at all."""
        self._waiting.append(batch)
        self._submit()

    def _submit(self) -> None:
        while self._waiting and time.monotonic() >= self._next_try:
            batch = self._waiting[0]
            folder = self._spool / f"{self._session}-{batch.number}"
            silent = math.inf if self.options.cluster == "debug" else SILENT_SECONDS
            try:
                folder.mkdir(exist_ok=True)
                job = BatchJob(self._plain, plain_batch(batch), str(folder), self._session, silent)
                with quietly():
                    submitted = self._executors[batch.device].submit(job)
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                self._not_submitted(error)
                return
            self._refused_since = None
            self._waiting.popleft()
            self._placed[batch.number] = Placed(batch=batch, job=submitted, folder=folder, here=self.options.here)

    def _not_submitted(self, error: Exception) -> None:
        """Tries again later where the cluster has taken jobs. Errors: UserError where it has not, or not for long."""
        now = time.monotonic()
        first = not self._placed and self._refused_since is None and not self._next_try
        self._refused_since = self._refused_since or now
        self._next_try = now + RETRY_SECONDS
        if first or (not self._placed and now - self._refused_since > REFUSED_SECONDS):
            lines = [line.strip() for line in text_of(error).splitlines() if line.strip()]
            why = (lines or [type(error).__name__])[0][:300]
            raise UserError(
                f"--engine submitit: a job cannot be submitted: {why}; change what is asked for by --engine-option "
                "(slurm_partition=…, slurm_account=…, timeout_min=…)"
            )

    # --- what happens -----------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns what jobs say, and which ended without a word. Errors: UserError where nothing more can come."""
        self._written()
        until = time.monotonic() + seconds
        while True:
            self._beat()
            self._submit()
            events = self._look() if time.monotonic() >= self._next_look else []
            rest = until - time.monotonic()
            if events or rest <= 0:
                return events
            time.sleep(min(0.1, rest))

    def _beat(self) -> None:
        if not self._cancelled and time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_SECONDS
            with suppress(OSError):  # jobs wait for much longer than this
                os.utime(self._spool / spool.DRIVER)

    def _look(self) -> list[Event]:
        """Reads the spool, once the jobs that have ended are known: so their last words are not passed over."""
        begin = time.monotonic()
        force = begin >= self._next_force
        if force:
            self._next_force = begin + LOOK_SECONDS
        for placed in self._placed.values():
            if placed.ended is None and placed.is_done(force):
                placed.ended = begin
            force = False  # it was asked about all of them
        read = Read()
        events: list[Event] = []
        for placed in list(self._placed.values()):
            events += placed.events(read)
            lost = None if placed.over else self._lost(placed)
            if lost is not None:
                events.append(lost)
            if placed.over:
                read.over.append((placed, lost is not None))
        for placed, failed in read.over:
            del self._placed[placed.batch.number]
            self._failed |= failed
        self._read = read
        # Of many jobs on a slow file system, looking must not be all that is done.
        self._next_look = time.monotonic() + max(0.1 if self.options.here else 1.0, 5 * (time.monotonic() - begin))
        return events

    def _lost(self, placed: Placed) -> Lost | None:
        """Returns that a job is lost where it has ended without a last word. Errors: UserError where several have."""
        patience = 0.0 if self.options.here else PATIENCE_SECONDS
        if placed.ended is None and placed.is_stuck(STUCK_SECONDS):
            placed.cancel()
        elif placed.ended is None or time.monotonic() - placed.ended < patience:
            return None
        placed.over = True
        status, reason = placed.how_it_ended()
        expected = placed.spoke or placed.cancelled or self._stop.signal is not None  # Ctrl-C reaches jobs here as well
        self._barren = 0 if expected else self._barren + 1
        if self._barren >= MOST_BARREN:
            self._failed = True
            raise UserError(
                f"--engine submitit: {self._barren} jobs ended before they measured anything, the last: {reason}; "
                f"their output is in {str(placed.job.paths.folder)!r}"
            )
        return Lost(batch=placed.batch.number, reason=reason, status=status)

    def _written(self) -> None:
        read, self._read = self._read, Read()
        read.written()
