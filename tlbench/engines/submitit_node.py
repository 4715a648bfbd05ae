"""What of tlbench runs inside a job: it measures a batch in a thread, and leaves in the run's spool what happens.

The job's main thread looks whether its driver is alive, and takes Slurm's signals. A job may begin several times: when
it was preempted or its time was over, and, without a word to it, when Slurm has lost its node. What it has measured it
knows from its folder in the spool, so that each time it goes on with what is left.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from tlbench.campaign.at_node import AtNode
from tlbench.campaign.isolate import GRACE_SECONDS
from tlbench.campaign.spool import DRIVER, write_event
from tlbench.records.lines import decode

WATCH_SECONDS = 1.0
"""Time between two looks at whether the driver is alive."""
MOST_STARTS = 4
"""Starts in a row in which a job may measure nothing: a cell that takes longer than the job's time would keep it for
ever."""


def node_name() -> str:
    """Returns what records call this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


class BatchJob:
    """A batch to be measured, as submitit carries it to a node. Only what has `checkpoint` is requeued by it."""

    def __init__(
        self, setup: Mapping[str, Any], batch: Mapping[str, Any], folder: str, session: str, silent_seconds: float
    ) -> None:
        """``folder`` is the job's in the spool; ``silent_seconds``: time after which its driver is taken for dead."""
        self._told = (setup, batch, folder, session, silent_seconds)
        self._work: _Work | None = None

    def __call__(self) -> str:
        """Measures what is left of the batch. Returns why it ended before, empty where it is done."""
        self._work = _Work(*self._told)
        return self._work.run()

    def checkpoint(self) -> DelayedSubmission:
        """Has the running cell give up. Returns what is to be run when there is a node again."""
        if self._work is not None:
            self._work.give_up()
        return DelayedSubmission(BatchJob(*self._told))


class _Work:
    """Is a job while it runs."""

    def __init__(
        self, setup: Mapping[str, Any], batch: Mapping[str, Any], folder: str, session: str, silent_seconds: float
    ) -> None:
        self._batch, self._folder, self._session, self._silent = batch, Path(folder), session, silent_seconds
        self._checked = self._folder.parent / f"checked-{session}-{re.sub('[^A-Za-z0-9.-]', '_', node_name())}"
        self._beat = self._folder / "beat"
        self._seen = time.monotonic()
        self._attempt = self._number = 0
        self._left: list[Mapping[str, Any]] = []
        self._stopping = False
        self._error: BaseException | None = None
        self._at = AtNode(setup, node_name())
        self._thread = threading.Thread(target=self._measure, name="measuring", daemon=True)

    def run(self) -> str:
        """Measures, and watches the driver meanwhile. Returns why it ended early; empty where it did not."""
        if why := self._why_to_end():
            return why  # it waited in the queue for longer than its driver lived
        if why := self._begin():
            return why
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(WATCH_SECONDS)
            if self._thread.is_alive() and (why := self._why_to_end()):
                self.give_up()
                self._say_quietly({"stopped": why})
                return why
        if self._error is not None:
            raise self._error
        self._at.close()
        return ""

    def give_up(self) -> None:
        """Has the running cell give up, and waits for that. Nothing more is measured."""
        self._stopping = True
        self._at.stop()
        if self._thread.is_alive():
            self._thread.join(GRACE_SECONDS + 5)
        if not self._thread.is_alive():
            self._at.close()  # else its processes end with this one

    # --- measuring --------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        try:
            if not self._checked.exists():
                if lacks := self._at.lacks():
                    self._say({"refused": self._at.node, "lines": lacks})
                    return
                self._checked.touch()
            if not self._left:
                self._say({"done": self._batch["number"]})
                return
            for event in self._at.measure({**self._batch, "tasks": self._left}):
                if self._stopping and "measured" in event and decode(event["record"]).status == "interrupted":
                    return
                self._say(event)
        except BaseException as error:  # the main thread raises it, for submitit to write down
            self._error = error

    def _say(self, event: Mapping[str, Any]) -> None:
        self._number += 1
        write_event(self._folder, self._attempt, self._number, event)
        if "measured" in event:
            (self._folder / f"done-{event['measured']}").touch()

    def _say_quietly(self, event: Mapping[str, Any]) -> None:
        with suppress(OSError):  # the spool is gone, and with it whoever would read this
            self._say(event)

    def _begin(self) -> str:
        """Counts this start, and notes what is left. Says why nothing more is measured where there were enough starts
        of the same cell: then that has failed.
        """
        done = {path.name for path in self._folder.glob("done-*")}
        self._left = [task for task in self._batch["tasks"] if f"done-{task['number']}" not in done]
        counts = [json.loads(path.read_bytes())["done"] for path in sorted(self._folder.glob("start-*"))]
        self._attempt = len(counts) + 1
        if self._left and len(counts) >= MOST_STARTS and all(count == len(done) for count in counts[-MOST_STARTS:]):
            why = (
                f"it has begun {len(counts)} times, and measured nothing in the last {MOST_STARTS}: give it more time "
                "by --engine-option timeout_min=MINUTES"
            )
            # Also where none of these starts came as far as the cell: the driver counts against what has begun.
            self._say({"began": self._left[0]["number"], "node": self._at.node})
            self._say({"stopped": why, "status": "failed"})
            return why
        told = {"done": len(done), "node": self._at.node, "pid": os.getpid()}
        (self._folder / f"start-{self._attempt:04d}").write_text(json.dumps(told), encoding="utf-8")
        return ""

    # --- the driver -------------------------------------------------------------------------------------------

    def _why_to_end(self) -> str:
        """Says why nobody waits for this job any more; empty where somebody does. Times are the file server's: the
        clocks of two hosts may differ.
        """
        try:
            with open(self._beat, "ab"):
                os.utime(self._beat)
            now = self._beat.stat().st_mtime
            with open(self._folder.parent / DRIVER, encoding="utf-8") as file:  # opening it asks the server
                session, alive = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return "the run has ended"
        except OSError as error:
            silent = time.monotonic() - self._seen
            return f"the run's folder cannot be read: {error.strerror}" if silent > self._silent else ""
        self._seen = time.monotonic()
        if session != self._session:
            return "the run was stopped, or goes on elsewhere"
        return f"its driver was not seen for {now - alive:.0f} s" if now - alive > self._silent else ""
