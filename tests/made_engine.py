"""An engine that measures nothing: its answers are a test's, or drawn at random; and campaigns for it to drive."""

import random
from collections import deque
from dataclasses import replace
from typing import Any

from records import record

from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign
from tlbench.campaign.engine import Batch, Began, Done, Lost, Measured, Refused, Wanted
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records.plan import Plan

GRID = {"freeze": ("linear_probe", "full"), "seed": (0, 1, 2), "layout": ("contiguous",)}


def campaign(folder, axes=GRID, wanted=None, **settings) -> Campaign:
    """A new run in a folder, nothing of which is checked."""
    wanted = wanted or Wanted(engine="made")
    settings = Settings(**{"isolate": "backbone", "threads": 1, **settings})
    return Campaign(asked=Asked(out=folder, engine=wanted), plan=Plan(grids=(Grid(axes=axes),), settings=settings))


def measured(task, node="node", number=0, **changes) -> Measured:
    """A task's record; what is to be its own is in its figures."""
    step = task.step
    layout = {"chosen": "contiguous", "key": f"key of {step.cell.backbone}"} if step.cell.layout == "auto" else {}
    made = record(freeze=step.cell.freeze, layout=layout, wall_seconds=1.0 + number)
    where = {"block": step.block, "role": step.role, "node": node, "engine": "made"}
    made = replace(made, id=step.name, cell=step.cell, **where)
    return Measured(task=task.number, record=replace(made, **changes), seconds=1.0)


class Made:
    """Nodes that take a batch each; what happens next is for `turn` to say, of one of them at a time."""

    def __init__(self, nodes: int = 3) -> None:
        self.slots = nodes
        self.nodes: dict[str, Batch | None] = {f"node{n}": None for n in range(nodes)}
        self.queue: deque[Batch] = deque()
        self.given: list[Batch] = []
        """All batches, in order."""
        self.delivered: list[Measured] = []
        """Records that were told before their nodes were given up."""
        self.left_out: list[str] = []
        self.cancelled = self.closed = False
        self._plans: dict[str, deque[Any]] = {}
        self._given_up: set[str] = set()

    def open(self, setup, stop):
        self.setup = setup

    def ask(self):
        return {}

    def leave_out(self, nodes):
        self.left_out += nodes

    def room(self):
        idle = sum(batch is None for node, batch in self.nodes.items() if node not in self.left_out)
        return max(idle - len(self.queue), 0)

    def submit(self, batch):
        self.given.append(batch)
        self.queue.append(batch)

    def cancel(self):
        self.cancelled = True
        self.queue.clear()

    def close(self):
        self.closed = True

    def wait(self, seconds):
        for node, has in self.nodes.items():
            if has is None and self.queue and node not in self.left_out:
                self.nodes[node] = batch = self.queue.popleft()
                self._plans[node] = deque(self.plan(node, batch))
                self._given_up.discard(node)
        busy = [node for node in self.nodes if self._plans.get(node)]
        return [self._next(node) for node in self.turn(busy) if self._plans[node]]

    def _next(self, node):
        event = self._plans[node].popleft()
        if isinstance(event, Lost):
            self._given_up.add(node)
        if isinstance(event, Measured) and node not in self._given_up:
            self.delivered.append(event)
        if not self._plans[node]:
            self.nodes[node] = None
        return event

    # --- what a test says otherwise

    def plan(self, node, batch):
        """What comes of a batch on a node, in order."""
        for task in batch.tasks:
            yield Began(task=task.number, node=node)
            yield measured(task, node, len(self.given))
        yield Done(batch=batch.number)

    def turn(self, busy):
        """Nodes of which something is told now, in order."""
        return busy[:1]


class Drawn(Made):
    """Nodes of which anything happens at any moment."""

    def __init__(self, rng: random.Random, nodes: int, lost: float, refusing: int = 0) -> None:
        super().__init__(nodes)
        self.rng, self.lost = rng, lost
        self.refusing = {f"node{n}" for n in range(refusing)}
        self.early: dict[int, int] = {}
        """Task -> times that a node was lost before it had begun it."""

    def turn(self, busy):
        return self.rng.sample(busy, self.rng.randint(0, len(busy)))

    def plan(self, node, batch):
        if node in self.refusing:
            return [Refused(node=node, lines=("it has no torch",), batch=batch.number)]
        events = list(super().plan(node, batch))
        if self.rng.random() >= self.lost:
            return events
        kept = events[: self.rng.randrange(len(events))]
        lost = [Lost(batch=batch.number, reason="gone", status=self.rng.choice(["", "", "oom"]))]
        # A node that was given up may still tell of what it did.
        return [*kept, *lost, *(events[len(kept) :] if self.rng.random() < 0.5 else [])]
