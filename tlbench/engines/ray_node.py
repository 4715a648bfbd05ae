"""What of tlbench runs inside Ray, on a node: an actor that measures batches in a thread, and answers calls."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

POLL_SECONDS = 10.0
"""Time that a call waits for something to happen."""
SILENT_SECONDS = 45.0
"""Time without a call after which an actor takes its driver for dead, and ends. (Ray ends it as well, and sooner, where
it notices.)"""


def node_name() -> str:
    """Returns what records call this node: its host, and a part of its id where Ray has several on one host."""
    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"


@ray.remote
def facts_of(setup: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns a node's name, and what it says of itself."""
    from tlbench.campaign.at_node import AtNode

    name = node_name()
    return name, AtNode(setup, name).facts()


@ray.remote
class AtRay:
    """Measures batches. Calls come in threads; none of them measures, so that each is answered at once."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        from tlbench.campaign.at_node import AtNode

        self._at = AtNode(setup, node_name())
        self._batches: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._heard = time.monotonic()
        threading.Thread(target=self._measure, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def hello(self, checked: Sequence[str]) -> dict[str, Any]:
        """Returns which node this is, and what it lacks unless it was asked before."""
        self._heard = time.monotonic() + 600  # what it lacks may take long to find out
        node = ray.get_runtime_context().get_node_id()
        lacks = [] if node in checked else self._at.lacks()
        self._heard = time.monotonic()
        return {"node": self._at.node, "id": node, "lacks": lacks}

    def take(self, batch: Mapping[str, Any]) -> None:
        """Takes a batch, to be measured after those before it."""
        self._heard = time.monotonic()
        self._batches.put(batch)

    def events(self, seconds: float) -> list[dict[str, Any]]:
        """Returns what has happened; waits up to some seconds for anything to happen."""
        self._heard = time.monotonic()
        told: list[dict[str, Any]] = []
        try:
            told.append(self._events.get(timeout=seconds))
            while True:
                told.append(self._events.get_nowait())
        except queue.Empty:
            return told
        finally:
            self._heard = time.monotonic()

    def stop(self) -> None:
        """Has the cell that is being measured give up."""
        self._at.stop()

    def _measure(self) -> None:
        while True:
            batch = self._batches.get()
            try:
                for event in self._at.measure(batch):
                    self._events.put(event)
            except BaseException as error:  # else the driver would wait for ever
                self._events.put({"user_error": f"{self._at.node}: {type(error).__name__}: {error}"})

    def _watch(self) -> None:
        while time.monotonic() - self._heard < SILENT_SECONDS:
            time.sleep(1)
        os._exit(1)  # the processes of its cells end with it
