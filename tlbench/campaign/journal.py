"""What a run is doing now, in a file of its folder, for whoever asks from another terminal (`tlbench status`)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.campaign.driver import Running
from tlbench.console import surviving
from tlbench.machine.scratch import write_aside
from tlbench.records import strict_json

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.driver import Driver

FILE = "status.json"
LEAST_SECONDS = 1.0
"""Time between two writings: a driver of a thousand nodes has other things to do."""
SHARE = 0.02
"""Most of the driver's time that writing may take."""
MOST = 2000
"""Most steps that are left of which each one's time is looked up; of more, the pace so far tells."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Says what a driver does."""

    engine: str
    slots: int
    """Cells that may be measured at the same time."""
    began: float
    """Seconds since 1970, as `updated`."""
    updated: float
    planned: int
    done: int
    left: int
    statuses: Mapping[str, int]
    """Of the cells of this time."""
    running: tuple[Running, ...]
    seconds_left: float | None
    ended: str
    """How it ended; empty while it goes on."""


class Journal:
    """Writes down what a driver does, each time that it is called, but not too often."""

    def __init__(self, campaign: Campaign, engine: str) -> None:
        self._campaign, self._engine = campaign, engine
        self._began = time.time()
        self._next = 0.0
        self._failed = False

    def __call__(self, driver: Driver, ended: str = "") -> None:
        """Writes what is running where. ``ended`` says how the run ended, when it has."""
        now = time.monotonic()
        if self._failed or (now < self._next and not ended):
            return
        self._failed = True
        with surviving("tlbench status cannot tell what the run is doing"):
            write_aside(self._campaign.store.folder / FILE, json.dumps(asdict(self._state(driver, ended))).encode())
            self._failed = False
        took = time.monotonic() - now
        self._next = now + max(LEAST_SECONDS, took / SHARE)

    def _state(self, driver: Driver, ended: str) -> State:
        campaign, counts = self._campaign, self._campaign.counts
        left = max(len(campaign.left) - sum(counts.values()), 0)  # a race goes beyond its plan
        done = len(campaign.planned) - len(campaign.left) + sum(counts.values())
        return State(
            engine=self._engine,
            slots=driver.engine.slots,
            began=self._began,
            updated=time.time(),
            planned=done + left,
            done=done,
            left=left,
            statuses=dict(counts),
            running=tuple(driver.running.values()),
            seconds_left=None if ended else self._seconds_left(driver, left),
            ended=ended,
        )

    def _seconds_left(self, driver: Driver, left: int) -> float | None:
        """Returns the seconds until the run's end, about; None where nothing tells."""
        campaign, slots = self._campaign, max(driver.engine.slots, 1)
        if campaign.seconds_left is not None:
            return max(campaign.seconds_left(), 0.0)
        if left <= MOST:
            steps = campaign.to_come
            known = campaign.times.total((step.cell, step.block) for step in steps)
            running = sum(time.time() - one.since for one in driver.running.values())
            return None if known is None else max(known - running, 0.0) / slots
        done = sum(campaign.counts.values())
        return (time.time() - self._began) / done * left if done else None


def read(folder: Path) -> State | None:
    """Returns what a run's driver wrote last; None where it wrote nothing, or nothing that can be read."""
    try:
        told = strict_json.loads((folder / FILE).read_text(encoding="utf-8"))
        strict_json.check(State, told)
        running = tuple(Running(**one) for one in told["running"])
        return State(**{**{one.name: told[one.name] for one in fields(State)}, "running": running})
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or torn
        return None
