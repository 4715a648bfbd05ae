"""The driver of a run: it has an engine measure what is left, takes in each record as it comes, and places anew what
was lost. It is one thread, and the only one that writes into the run's folder.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tlbench.campaign.engine import Batch, Began, Done, Engine, Event, Impossible, Lost, Measured, Refused, Task
from tlbench.campaign.isolate import GRACE_SECONDS, record_of_lost
from tlbench.campaign.moved import called
from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop, as_it_ended
from tlbench.console import surviving
from tlbench.errors import UserError
from tlbench.machine import layouts
from tlbench.measure.place import Place
from tlbench.records.record import Record

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign

POLL_SECONDS = 1.0
"""Longest time until signals are looked at again."""
MOST_LOSSES = 3
"""Nodes that may be lost while they measure a cell; what has taken so many down is a failed cell."""
MOST_IN_VAIN = 10
"""Nodes that may be lost, one after the other, before they say that they have begun a cell; else it would never end."""
NO_RECORD = "its batch is done, and it has no record"


class Source(Protocol):
    """Gives the batches of a run, one after the other."""

    def next(self) -> Batch | None:
        """Returns the next batch; None where none may begin now."""

    def step_of(self, task: Task) -> Step:
        """Returns the step of a task as the run knows it: the task's own names what has moved by its new place."""

    def again(self, tasks: Sequence[Task]) -> None:
        """Takes back what was lost, to be given out again."""

    def ended(self, batch: Batch) -> None:
        """Takes in that nothing more comes of a batch."""

    def taken(self, task: Task, record: Record) -> None:
        """Takes in that a task has its record."""


@dataclass(kw_only=True)
class Running:
    """Says what is being measured where, for whoever asks (`tlbench status`)."""

    name: str
    block: int
    node: str
    since: float
    """Seconds since 1970."""


@dataclass(kw_only=True)
class Placed:
    """Holds a batch that an engine has, and what of it has no record yet."""

    batch: Batch
    left: dict[int, Task]
    running: int | None = None

    @classmethod
    def of(cls, batch: Batch) -> Placed:
        """Returns a batch of which nothing is measured."""
        return cls(batch=batch, left={task.number: task for task in batch.tasks})


@dataclass(kw_only=True)
class Driver:
    """Drives an engine through a campaign."""

    campaign: Campaign
    engine: Engine
    source: Source
    stop: Stop
    on_start: Callable[[Step], None] = lambda step: None
    on_record: Callable[[Record], None] = lambda record: None
    on_change: Callable[[Driver], None] = lambda driver: None
    """Is told each time that something has happened."""
    placed: dict[int, Placed] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    _of_task: dict[int, int] = field(default_factory=dict)
    _losses: dict[tuple[int, bool], int] = field(default_factory=dict)
    """Task, and whether it had begun -> the nodes that were lost with it."""
    _unwritten: bool = False
    """Whether a record could not be taken in."""

    def run(self) -> int | None:
        """Measures until nothing is left, a signal ends it, or there is a reason to stop. Returns the signal.

        Errors: UserError when a record cannot be taken in, or a cell cannot be as the grid asks. What is there stays.
        """
        while True:
            if self._submit() and not self.placed:
                return None
            try:
                events = self.engine.wait(POLL_SECONDS)
            except KeyboardInterrupt:  # it came when nothing of the cell was there yet, or all of it
                return self.stop.signal or signal.SIGINT
            try:
                ended_by = self._take_in(events)
            except UserError:
                if not self._unwritten:
                    with suppress(UserError):  # the first one is what is told
                        self._wind_up()
                raise
            self.on_change(self)
            ended_by = self.stop.signal if ended_by is None else ended_by
            if ended_by is not None or self.campaign.reason_to_stop:
                self._wind_up()
                return ended_by

    def _submit(self) -> bool:
        """Gives the engine what it has room for. Returns whether that was all that may begin now."""
        room = self.engine.room()
        while room > 0:
            if (batch := self.source.next()) is None:
                return True
            self.placed[batch.number] = Placed.of(batch)
            self._of_task.update(dict.fromkeys((task.number for task in batch.tasks), batch.number))
            self.engine.submit(batch)
            room -= 1
        return False

    def _wind_up(self) -> None:
        """Ends what is being measured; what has its record until then keeps it. Errors: as `run`."""
        self.engine.cancel()
        until = time.monotonic() + GRACE_SECONDS + 5
        while True:
            running = any(one.running is not None for one in self.placed.values())
            try:
                # Once in any case: records may be on their way of which nobody has said yet that they began.
                events = self.engine.wait(POLL_SECONDS if running else 0.0)
            except KeyboardInterrupt:
                return
            self._take_in([event for event in events if isinstance(event, Began | Measured | Done | Lost)], True)
            self.on_change(self)
            if not any(one.running is not None for one in self.placed.values()) or time.monotonic() > until:
                self.engine.room()  # nothing more begins, but this says that what it returned is written down
                return

    # --- what happens -----------------------------------------------------------------------------------------

    def _take_in(self, events: Sequence[Event], winding_up: bool = False) -> int | None:
        """Takes in all that was delivered, also what came behind an event that ends the run. Returns the signal that
        this is; None where it goes on. Errors: the first UserError of these events.
        """
        ended_by: int | None = None
        errors: list[UserError] = []
        for event in events:
            try:
                number = self._happened(event, winding_up)
                ended_by = number if ended_by is None else ended_by
            except UserError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return ended_by

    def _happened(self, event: Event, winding_up: bool) -> int | None:
        """Takes an event in. Returns the signal that the run ends by; None where it goes on. Errors: UserError."""
        if isinstance(event, Began):
            self._began(event)
        elif isinstance(event, Measured):
            return self._measured(event)
        elif isinstance(event, Done):
            self._lost(Lost(batch=event.batch, reason=NO_RECORD), winding_up)
        elif isinstance(event, Lost):
            self._lost(event, winding_up)
        elif isinstance(event, Impossible):
            raise UserError(event.reason)
        else:
            self._refused(event)
        return None

    def _began(self, event: Began) -> None:
        if (placed := self._placed_of(event.task)) is None:
            return
        step = self._step(placed.left[event.task])
        placed.running = event.task
        self.running[event.task] = Running(name=step.name, block=step.block, node=event.node, since=time.time())
        with surviving("what is measured cannot be shown"):
            self.on_start(step)

    def _measured(self, event: Measured) -> int | None:
        if (placed := self._placed_of(event.task)) is None:
            return None  # of a node that was given up: another one measures it
        task = placed.left[event.task]
        known = layouts.told()  # what came first holds: other cells have it by now
        layouts.hear({key: seconds for key, seconds in event.layouts.items() if key not in known})
        record = called(event.record, self._step(task).cell)
        if record.status == "interrupted" and self.stop.signal is not None:  # a node does not know which signal it was
            record = as_it_ended(record, self.stop.signal)
        with surviving("the time that is left is not corrected"):
            self.campaign.times.learn(record, event.seconds / record.attempts)
        self._take(placed, task, record)
        if record.status == "interrupted" or self.stop.signal is not None:
            return self.stop.signal or signal.SIGINT
        return None

    def _take(self, placed: Placed, task: Task, record: Record) -> None:
        """Has a record written, and counts its task as measured. Errors: UserError."""
        try:
            record = self.campaign.take(record)
        except UserError:
            self._unwritten = True  # the engine must not take it for delivered, and is asked for no more
            raise
        self._forget(placed, task.number)
        self.source.taken(task, record)
        with surviving("what came of a cell cannot be shown"):
            self.on_record(record)

    def _lost(self, event: Lost, winding_up: bool) -> None:
        placed = self.placed.get(event.batch)
        if placed is None:
            return
        if placed.left and not winding_up:
            self._count_loss(placed, event)
        self._over(event.batch)

    def _count_loss(self, placed: Placed, event: Lost) -> None:
        """Counts a node that was lost against the cell that it was measuring, or was to begin; what takes node after
        node down gets a record, and is not tried for ever.
        """
        began = placed.running is not None
        number = next(iter(placed.left)) if placed.running is None else placed.running
        losses = self._losses[number, began] = self._losses.get((number, began), 0) + 1
        status, reason = event.status if began else "", event.reason
        if not status and losses >= (MOST_LOSSES if began else MOST_IN_VAIN):
            status, when = "failed", "while they measured it" if began else "before they had begun it"
            reason = f"{losses} nodes were lost {when}; the last: {reason}"
        if status:
            task = placed.left[number]
            self._take(placed, task, self._record_of_lost(task, status, reason))

    def _record_of_lost(self, task: Task, status: str, reason: str) -> Record:
        at, step = self.running.get(task.number), self._step(task)
        asked = self.campaign.asked.engine
        where: dict[str, Any] = {"node": at.node if at else "", "engine": asked.engine, "shared": not asked.exclusive}
        place = Place(name=step.name, block=step.block, role=step.role, **where)
        since = at.since if at else time.time()
        return record_of_lost(step.cell, self.campaign.plan.settings, place, status, reason, since)

    def _refused(self, event: Refused) -> None:
        """Goes on without a node. Errors: UserError where that is not wanted."""
        lines = "; ".join(event.lines)
        if not self.campaign.asked.engine.skip_bad_nodes:
            raise UserError(f"{event.node}: {lines}; mend it, or go on without it by --skip-bad-nodes")
        self.engine.leave_out([event.node])
        self.campaign.say(f"{event.node} is left out: {lines}")
        if event.batch is not None:
            self._over(event.batch)

    # --- what is where ----------------------------------------------------------------------------------------

    def _placed_of(self, task: int) -> Placed | None:
        placed = self.placed.get(self._of_task.get(task, -1))
        return placed if placed is not None and task in placed.left else None

    def _step(self, task: Task) -> Step:
        return self.source.step_of(task)

    def _forget(self, placed: Placed, number: int) -> None:
        del placed.left[number]
        placed.running = None
        self.running.pop(number, None)
        self._of_task.pop(number, None)
        for began in (True, False):
            self._losses.pop((number, began), None)

    def _over(self, number: int) -> None:
        """Takes in that an engine has no more to do with a batch; what of it has no record is placed anew."""
        placed = self.placed.pop(number, None)
        if placed is None:
            return
        for task in placed.left:
            self.running.pop(task, None)
            self._of_task.pop(task, None)
        self.source.ended(placed.batch)
        if placed.left:
            self.source.again(list(placed.left.values()))
