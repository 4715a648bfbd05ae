"""Simulates an engine of many nodes that answer at once, in simulated time: what is left is what the driver costs, and
how well its batches fill the nodes.

Cells take what a machine would take that the rule of thumb knows well on the whole (`tlbench.analysis.expectation`),
and of which it is wrong for each backbone, each policy and each cell. A batch fills its prefix anew, also one that is
placed again. Records are those of a template, the figures of each cell its own.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tlbench.analysis.expectation import Expectation
from tlbench.campaign.at_node import batch_of, event_of, plain_batch, plain_event
from tlbench.campaign.batches import prefix_of
from tlbench.campaign.engine import Batch, Began, Done, Event, Lost, Measured, Setup, Task
from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.place import Place
from tlbench.records.record import Record

BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "vgg11", "vgg16", "densenet121", "mobilenet_v2"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2"),
    *("efficientnet_b3", "regnet_y_400mf", "regnet_y_800mf", "convnext_tiny", "convnext_small", "swin_t", "vit_b_16"),
)
POLICIES = (
    *("linear_probe", "last_1", "last_2", "norm", "bias", "norm_bias", "full", "lp_ft", "lora(r=4)", "lora(r=8)"),
)


def grid_of(cells: int) -> Grid:
    """Returns a grid of about so many cells, that share as many prefixes as the grids of people do: a thousandth."""
    rates = tuple(0.001 * (n + 1) for n in range(10))
    seeds = 5
    each = len(POLICIES) * 5 * len(rates) * seeds
    backbones = min(max(math.ceil(cells / each), 1), len(BACKBONES))
    if cells < each:
        seeds, rates = 2, rates[:1]
        each = len(POLICIES) * 5 * seeds
        backbones = min(max(round(cells / each), 1), len(BACKBONES))
    sizes = (64, 224)[: max(cells // (each * backbones), 1)]
    return Grid(
        axes={
            "backbone": BACKBONES[:backbones],
            "weights": ("random",),  # others with each seed, and so is what they compute
            "freeze": POLICIES,
            "head": ("linear", "mlp", "dropout_linear", "cosine", "logreg"),
            "image_size": sizes,
            "lr": rates,
            "seed": tuple(range(seeds)),
            "layout": ("contiguous",),
        }
    )


# --- how long cells take --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Truth:
    """Says what cells take: what the rule says, but for what it does not know."""

    rule: Expectation
    kinds: float = 0.3
    """Standard deviation of the log of what the rule is off by for a backbone, and for a policy."""
    cells: float = 0.2
    """The same of a cell alone."""
    seed: int = 0
    _known: dict[str, float] = field(default_factory=dict)

    def fill(self, cells: Sequence[Cell]) -> float:
        """Returns the seconds of what a batch of these cells does once."""
        return self._alone(cells)[0] * self._off(cells[0].backbone)

    def own(self, cell: Cell) -> float:
        """Returns the seconds of a cell beyond that."""
        kinds = self._off(cell.backbone) * self._off(cell.freeze)
        return self._alone([cell])[1][0] * kinds * self._drawn(cell.key, self.cells)

    def _alone(self, cells: Sequence[Cell]) -> tuple[float, list[float]]:
        known = self.rule.alone(cells)
        assert known is not None
        return known

    def _off(self, name: str) -> float:
        if name not in self._known:
            self._known[name] = self._drawn(name, self.kinds)
        return self._known[name]

    def _drawn(self, name: str, deviation: float) -> float:
        return math.exp(random.Random(f"{self.seed} {name}").gauss(0, deviation))


def truth(settings: Settings, **given: Any) -> Truth:
    """Returns what cells take on a machine that is twice as fast as the rule's."""
    return Truth(rule=Expectation(settings=settings, speeds={"cpu": 2e11}), **given)


# --- the engine -----------------------------------------------------------------------------------------------


class Spread:
    """Is an engine (`tlbench.campaign.engine.Engine`) of simulated nodes."""

    def __init__(self, nodes: int, lost: float, seconds: Truth, template: Record) -> None:
        """``lost`` is the share of batches whose node is lost at some moment of it; another node takes its place."""
        self.slots, self.now = nodes, 0.0
        self.node_seconds = 0.0
        """Seconds of this process that a node would have spent: making its records."""
        self.fills, self.lost = 0, 0
        self.busy: list[float] = []
        self.spent = 0.0
        """Simulated seconds that nodes worked, on what was lost as well."""
        self._truth, self._share, self._template = seconds, lost, template
        self._idle = deque(f"node{number:04}" for number in range(nodes))
        self._queue: deque[Batch] = deque()
        self._rng = random.Random(0)
        self._order = itertools.count()
        self._coming: list[tuple[float, int, dict[str, Any] | Event, str]] = []

    def open(self, setup: Setup, stop: Stop) -> None:
        self._settings = setup.settings

    def ask(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def leave_out(self, nodes: Sequence[str]) -> None: ...

    def room(self) -> int:
        return max(len(self._idle) + 1 - len(self._queue), 0)

    def submit(self, batch: Batch) -> None:
        self._queue.append(batch)
        self._place()

    def cancel(self) -> None:
        self._queue.clear()

    def close(self) -> None: ...

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns the next event, however long it takes in simulated time: one at a time costs the driver most."""
        if not self._coming:
            return []
        self.now, _, event, node = heapq.heappop(self._coming)
        if node:
            self._idle.append(node)
            self._place()
        return [event_of(self._made(event)) if isinstance(event, dict) else event]

    def _place(self) -> None:
        while self._queue and self._idle:
            self._begin(self._queue.popleft(), self._idle.popleft())

    def _begin(self, batch: Batch, node: str) -> None:
        """Lays down what comes of a batch on a node."""
        batch = batch_of(plain_batch(batch))  # as it goes over a network
        cells = [task.step.cell for task in batch.tasks]
        durations = [self._truth.own(cell) for cell in cells]
        at = self.now + self._truth.fill(cells)
        self.fills += 1
        until = math.inf
        if self._rng.random() < self._share:
            until = self._rng.uniform(self.now, at + sum(durations))
        for task, duration in zip(batch.tasks, durations, strict=True):
            if at < until:
                self._push(at, plain_event(Began(task=task.number, node=node)))
            at += duration
            if at < until:
                self._push(at, {"task": task, "seconds": duration, "node": node})
        if until < math.inf:
            self.lost += 1
            self._push(until, Lost(batch=batch.number, reason=f"{node} was lost"), node)
        else:
            self._push(at, plain_event(Done(batch=batch.number)), node)
        self.spent += min(at, until) - self.now

    def _push(self, at: float, event: dict[str, Any] | Event, free: str = "") -> None:
        heapq.heappush(self._coming, (at, next(self._order), event, free))

    def _made(self, event: dict[str, Any]) -> Mapping[str, Any]:
        """Returns an event as a node writes it."""
        if "task" not in event:
            return event
        began = time.thread_time()
        task, seconds = event["task"], event["seconds"]
        made = record_of(task, self._template, self._settings, seconds, event["node"])
        plain = plain_event(Measured(task=task.number, record=made, seconds=seconds))
        self.node_seconds += time.thread_time() - began
        return plain


def record_of(task: Task, template: Record, settings: Settings, seconds: float, node: str) -> Record:
    """Returns the record of a cell, that took so long on a node."""
    step = task.step
    place = Place(node=node, engine="simulated", shared=True)
    rounds = tuple(replace(one, seconds=0.9 * seconds / len(template.rounds)) for one in template.rounds)
    return replace(
        template, id=step.name, cell=step.cell, settings=settings, block=step.block, role=step.role,
        rounds=rounds, wall_seconds=seconds, weights={**template.weights, "sha256": None}, data_sha256=None,
        images_sha256=None, per_image=None, images={}, **place.where,
    )  # fmt: skip


# --- the bound ------------------------------------------------------------------------------------------------


def bound(steps: Sequence[Step], seconds: Truth, nodes: int, longest: float = 0.0) -> float:
    """Returns the least seconds that so many nodes need for steps: each prefix filled once, nothing lost, no node ever
    idle; or those of the longest batch.
    """
    groups: dict[Any, list[Cell]] = {}
    for step in steps:
        groups.setdefault(prefix_of(step), []).append(step.cell)
    work = sum(seconds.fill(cells) + sum(map(seconds.own, cells)) for cells in groups.values())
    return max(work / nodes, longest)
