"""Ray as an engine: cells run on the nodes of a cluster, or on all processors and GPUs of this machine.

Each cell that may run at the same time has an actor, which holds its processors and GPU for the run, keeps the
processes of its cells, and is asked for what has happened by calls that wait (`tlbench.engines.ray_node`). Ray's
generators would do the same; that a `get` on what a dead one has yielded may hang is why they are not used (its issue
47582). Ray repeats nothing by itself: what crashes at a node is a record already, and what was lost with it is placed
anew by the driver. One file, since whoever changes what an actor holds changes where it is placed and how it is lost.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, OutOfMemoryError, RayError, TaskUnschedulableError

from tlbench.campaign.at_node import event_of, plain_batch, plain_setup
from tlbench.campaign.batches import prefix_of
from tlbench.campaign.engine import Batch, Done, Event, Impossible, Lost, Refused, Setup, Wanted
from tlbench.campaign.stop import Stop
from tlbench.engines.ray_node import POLL_SECONDS, AtRay, facts_of
from tlbench.errors import UserError, text_of
from tlbench.grid.values import written_size

ANSWER_SECONDS = 10.0
"""Time that an address has to answer."""
ASK_SECONDS = 300.0
"""Time that nodes have to tell of themselves: the first one to import torch over a slow file system takes long."""
NO_NODE_SECONDS = 120.0
"""Time without a node that a cell fits on after which none is waited for any more."""
MOST_FAILED_STARTS = 5
"""Actors in a row that end before they answer."""
LOOK_SECONDS = 5.0
"""Time between two looks at which nodes there are."""
NODE_ID = "ray.io/node-id"
"""Label that Ray gives each node."""


def make(wanted: Wanted) -> Ray:
    """Returns the engine. Errors: UserError for an option that is no number."""
    return Ray(wanted)


@dataclass(kw_only=True)
class Needs:
    """Says what an actor holds."""

    cpus: float | None
    """None: all of its node."""
    gpus: float = 0.0
    memory: int | None = None
    """Bytes."""

    def fits(self, node: Mapping[str, float]) -> int:
        """Returns how many fit on a node with these resources."""
        cpus, gpus = node.get("CPU", 0.0), node.get("GPU", 0.0)
        by_cpu = math.floor(cpus / self.cpus + 1e-9) if self.cpus else int(cpus > 0)
        by_gpu = math.floor(gpus / self.gpus + 1e-9) if self.gpus else by_cpu
        by_memory = int(node.get("memory", 0.0) // self.memory) if self.memory else by_cpu
        return min(by_cpu, by_gpu, by_memory)


@dataclass(kw_only=True)
class Spot:
    """Holds an actor, and what it is doing."""

    actor: Any
    kind: str
    """``cpu`` or ``cuda``: the device of its cells."""
    pinned: str = ""
    """Id of the node that it was made for; empty where Ray chooses."""
    node: str = ""
    """What records call its node; empty until it has answered."""
    batch: Batch | None = None
    last: object = None
    """What the cells of its last batch share."""
    answer: Any = None
    """What it was asked last, and has not answered."""


class Ray:
    """Places batches on the nodes of a Ray cluster."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        given = wanted.options.get("autoscale", "0")
        if not given.isdecimal():
            raise UserError(f"--engine-option autoscale={given}: give a whole number of cells, such as autoscale=8")
        self._grows = int(given)
        self._spots: list[Spot] = []
        self._queue: deque[Batch] = deque()
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._names: dict[str, str] = {}
        """Name of a node in records -> its id."""
        self._checked: set[str] = set()
        self._bad: set[str] = set()
        self._looked = -math.inf
        self._hopeless_since: float | None = None
        self._failed_starts = 0
        self._ours = self._cancelled = False
        self._plain: dict[str, Any] = {}
        self._needs: dict[str, Needs] = {}

    # --- opening and closing ----------------------------------------------------------------------------------

    def open(self, setup: Setup, stop: Stop) -> None:
        """Connects to the cluster, or starts Ray on this machine. Errors: UserError."""
        self._plain = plain_setup(setup)
        self._memory = setup.settings.memory_limit_bytes
        if odd := [device for device in setup.devices if device not in ("cpu", "cuda")]:
            raise UserError(f"device {odd[0]!r}: which GPU a cell gets is for Ray to choose; give --device cuda")
        self._start()
        self._look()
        if self._grows and (self._wanted.exclusive or not (self._wanted.cpus or setup.settings.threads)):
            raise UserError(
                "--engine-option autoscale: what a cell needs has to be known where there is no node yet; give --cpus "
                "or --threads, and no --exclusive"
            )
        for device in setup.devices:
            self._needs[device] = self._needs_of(device, setup)
            if not self._capacity(device) and not self._grows:
                raise self._too_much(device)

    def _start(self) -> None:
        address = self._wanted.address
        if ray.is_initialized():  # of a notebook, or of whoever has called us
            there = ray.get_runtime_context().gcs_address
            if address not in (None, "auto", there):
                raise UserError(
                    f"--engine-address {address}: this process is connected to the Ray at {there} already; leave the "
                    "address away, or call ray.shutdown() before"
                )
            return
        self._ours = True
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # A process that takes too much memory is the kernel's to end, and the cell's record to tell.
            os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        reach(self._wanted)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        before = signal.getsignal(signal.SIGTERM)
        try:
            if address is None:
                ray.init(address="local", include_dashboard=False, **quiet)
            else:
                ray.init(address=address, namespace="tlbench", **quiet)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            where = f"no Ray answers at {address!r}" if address else "Ray cannot be started here"
            raise UserError(
                f"--engine ray: {where} ({_first_line(error)}); give --engine-address HOST:PORT of `ray start --head`, "
                "or leave it away to run here"
            ) from None
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray has put its own there, which would end this process at once

    def close(self) -> None:
        """Ends the actors with whatever they do, and Ray where it was started for this run."""
        for spot in self._spots:
            self._kill(spot)
        self._spots = []
        if self._ours:
            ray.shutdown()

    def cancel(self) -> None:
        """Has cells give up."""
        self._cancelled = True
        self._queue.clear()
        for spot in self._spots:
            if spot.batch is not None:
                spot.actor.stop.remote()

    # --- nodes ------------------------------------------------------------------------------------------------

    def ask(self) -> Mapping[str, Mapping[str, Any]]:
        """Asks the nodes that a cell fits on."""
        asked = {}
        for node in self._usable():
            task = facts_of.options(num_cpus=0, max_retries=0, label_selector={NODE_ID: node})
            asked[node] = task.remote(self._plain)
        told: dict[str, Mapping[str, Any]] = {}
        until = time.monotonic() + ASK_SECONDS
        for node, answer in asked.items():
            try:
                name, facts = ray.get(answer, timeout=max(until - time.monotonic(), 0.1))
            except GetTimeoutError:
                name, facts = f"node {node[:8]}", {"error": f"it did not answer within {ASK_SECONDS:.0f} s"}
            except RayError as error:
                self._look(anew=True)
                if isinstance(error, TaskUnschedulableError | NodeDiedError) or node not in self._nodes:
                    continue  # it was lost just now
                name, facts = f"node {node[:8]}", {"error": f"it cannot run tlbench: {_last_line(error)}"}
            self._names[name] = node
            self._checked.add(node)
            told[name] = facts
        return told

    def leave_out(self, nodes: Sequence[str]) -> None:
        """Gives nodes no work from now on."""
        self._bad |= {self._names.get(name, name) for name in nodes}

    @property
    def slots(self) -> int:
        """Returns the cells that fit on the cluster as it is now, or may become."""
        return max(sum(map(self._capacity, self._needs)), self._grows, 1)

    def _look(self, anew: bool = False) -> None:
        """Looks which nodes there are, from time to time: a cluster grows and shrinks."""
        if anew or time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def _usable(self) -> list[str]:
        return [
            node
            for node, has in self._nodes.items()
            if node not in self._bad and any(needs.fits(has) for needs in self._needs.values())
        ]

    def _capacity(self, kind: str) -> int:
        return sum(self._needs[kind].fits(has) for node, has in self._nodes.items() if node not in self._bad)

    def _needs_of(self, device: str, setup: Setup) -> Needs:
        cpus = self._wanted.cpus or setup.settings.threads
        gpus = (self._wanted.gpus or 1.0) if device == "cuda" else 0.0
        if self._wanted.exclusive:
            cpus = None
        elif cpus is None and gpus:  # each GPU gets its part of the processors
            shares = [
                has["CPU"] * gpus / has["GPU"]
                for has in self._nodes.values()
                if has.get("GPU", 0) >= gpus and has.get("CPU", 0) >= 1
            ]
            cpus = max(math.floor(min(shares)), 1) if shares else 1
        return Needs(cpus=cpus, gpus=gpus, memory=self._memory)

    def _too_much(self, device: str) -> UserError:
        needs = self._needs[device]
        most = {name: max((has.get(name, 0.0) for has in self._nodes.values()), default=0.0) for name in ("CPU", "GPU")}
        wants = " and ".join(
            f"{number:g} {name}{'s' * (number != 1)}"
            for name, number in (("GPU", needs.gpus), ("processor", needs.cpus or 1.0))
            if number
        )
        if needs.memory:
            wants += f" and {written_size(needs.memory)} of memory (--memory-limit)"
        return UserError(
            f"no node has {wants} for a cell on {device}: the most are {most['GPU']:g} GPUs and {most['CPU']:g} "
            "processors; give less (--gpus, --cpus, --threads), or for a cluster that grows on demand "
            "--engine-option autoscale=CELLS"
        )

    # --- actors -----------------------------------------------------------------------------------------------

    def room(self) -> int:
        """Returns the batches that find a place now, and one more, which then waits at hand."""
        if self._cancelled:
            return 0
        busy = len(self._queue) + sum(spot.batch is not None for spot in self._spots)
        return max(self.slots + 1 - busy, 0)

    def submit(self, batch: Batch) -> None:
        """Takes a batch."""
        self._queue.append(batch)

    def _fill(self) -> None:
        """Gives what is queued to actors that have nothing to do, and makes those that are lacking."""
        self._look()
        waiting: deque[Batch] = deque()
        while self._queue:
            batch = self._queue.popleft()
            idle = [s for s in self._spots if s.kind == batch.device and s.node and s.batch is None]
            if not idle:
                waiting.append(batch)
                continue
            shared = prefix_of(batch.tasks[0].step)
            spot = next((spot for spot in idle if spot.last == shared), idle[0])  # it may have the prefix still
            spot.batch, spot.last = batch, shared
            spot.actor.take.remote(plain_batch(batch))
        self._queue = waiting
        self._make_room({batch.device for batch in waiting})
        for kind in self._needs:
            wanted = sum(batch.device == kind for batch in waiting)
            starting = sum(spot.kind == kind and not spot.node for spot in self._spots)
            mine = sum(spot.kind == kind for spot in self._spots)
            most = max(self._capacity(kind), self._grows)
            for _ in range(min(wanted - starting, most - mine)):
                if not self._make(kind):
                    break

    def _make_room(self, kinds: Collection[str]) -> None:
        """Ends actors with nothing to do where cells of another kind wait for what they hold."""
        for spot in [spot for spot in self._spots if spot.node and spot.batch is None]:
            if kinds and spot.kind not in kinds:
                self._drop(spot)

    def _make(self, kind: str) -> bool:
        """Has an actor made. Returns False where there is no node for it now."""
        needs, pinned = self._needs[kind], ""
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "max_restarts": 0}
        if self._memory is not None:
            options["memory"] = self._memory
        if needs.cpus is None:
            taken = {spot.pinned for spot in self._spots}
            free = [node for node in self._usable() if node not in taken and needs.fits(self._nodes[node])]
            if not free:
                return False
            pinned = free[0]
            options["num_cpus"] = self._nodes[pinned]["CPU"]
            options["label_selector"] = {NODE_ID: pinned}
        elif self._bad:
            options["label_selector"] = {NODE_ID: f"!in({','.join(sorted(self._bad))})"}
        # Three calls at a time: one waits for what happens, one brings a batch, one an end.
        made: Any = AtRay  # as Ray's decorator has made it
        actor = made.options(max_concurrency=3, max_task_retries=0, **options).remote(self._plain)
        self._spots.append(
            Spot(actor=actor, kind=kind, pinned=pinned, answer=actor.hello.remote(sorted(self._checked)))
        )
        return True

    def _kill(self, spot: Spot) -> None:
        with suppress(RayError):  # it may be gone already
            ray.kill(spot.actor)

    # --- what happens -----------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns what the actors tell."""
        self._fill()
        answers = {spot.answer: spot for spot in self._spots}
        if not answers:
            self._check_hope()
            time.sleep(min(seconds, 0.2))
            return []
        if any(spot.node for spot in self._spots):
            self._hopeless_since = None
        else:
            self._check_hope()
        ready, _ = ray.wait(list(answers), num_returns=1, timeout=seconds)
        if ready:  # and whatever else is there
            ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=0)
        events: list[Event] = []
        for answer in ready:
            spot = answers[answer]
            try:
                events += self._heard(spot, ray.get(answer))
            except RayError as error:
                events += self._gone(spot, error)
        return events

    def _check_hope(self) -> None:
        """Raises UserError where there has been no node for a cell for long, and none is to be expected."""
        if self._grows or not self._queue or any(map(self._capacity, self._needs)):
            self._hopeless_since = None
            return
        now = time.monotonic()
        self._hopeless_since = self._hopeless_since or now
        if now - self._hopeless_since > NO_NODE_SECONDS:
            raise UserError(
                "--engine ray: no node is left that a cell fits on, for two minutes now; what is measured is kept: "
                "bring nodes back (`ray status`) and go on by --resume, with this engine or another"
            )

    def _heard(self, spot: Spot, told: Any) -> Iterator[Event]:
        """Yields what an actor has told, and asks it what happens next."""
        if not spot.node:
            yield from self._hello(spot, told)
            return
        for plain in told:
            event = event_of(plain)
            if isinstance(event, Done | Lost):
                spot.batch = None
            yield event
        spot.answer = spot.actor.events.remote(POLL_SECONDS)

    def _hello(self, spot: Spot, told: Mapping[str, Any]) -> Iterator[Event]:
        self._names[told["node"]] = told["id"]
        if told["lacks"]:
            self._bad.add(told["id"])
            self._drop(spot)
            yield Refused(node=told["node"], lines=tuple(told["lacks"]))
            return
        spot.node = told["node"]
        self._failed_starts = 0
        self._checked.add(told["id"])
        spot.answer = spot.actor.events.remote(POLL_SECONDS)

    def _gone(self, spot: Spot, error: RayError) -> Iterator[Event]:
        """Takes in that an actor is no more, or cannot be reached: it is not to run on unseen."""
        self._drop(spot)
        self._looked = -math.inf
        if spot.batch is not None:
            memory = isinstance(error, OutOfMemoryError)
            why = "Ray ended its process, because the node was out of memory" if memory else _last_line(error)
            yield Lost(batch=spot.batch.number, reason=f"{spot.node}: {why}", status="oom" if memory else "")
        elif not spot.node:
            # Its node may be gone. Where several never answer, others would not either.
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILED_STARTS:
                yield Impossible(reason=f"--engine ray: nodes cannot run tlbench: {_last_line(error)}")

    def _drop(self, spot: Spot) -> None:
        self._kill(spot)
        self._spots.remove(spot)


def reach(wanted: Wanted) -> None:
    """Raises UserError where nobody answers at the address: Ray itself would try for a minute, and write pages."""
    address = wanted.address
    if address in (None, "auto") or ray.is_initialized():
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"--engine-address {address}: give HOST:PORT, as `ray start --head` shows it, or auto for the cluster that "
            "this machine belongs to"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--engine-address {address}: nobody answers there ({error}); is the cluster up (`ray status`)? leave the "
            "option away to run Ray on this machine"
        ) from None


def _first_line(error: BaseException) -> str:
    return (text_of(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _last_line(error: BaseException) -> str:
    """Returns what matters of an error of Ray's, which tells of its own stack first."""
    lines = [line.strip() for line in text_of(error).strip().splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
