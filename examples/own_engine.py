"""An engine of your own, to be copied from: several cells at a time on this machine, each in a process that a thread of
`concurrent.futures` keeps.

    tlbench run PATH --plugin examples/own_engine.py --engine futures --engine-option workers=2 --threads 1
"""

import queue
from concurrent.futures import ThreadPoolExecutor

from tlbench.campaign.at_node import AtNode, event_of, plain_batch, plain_setup
from tlbench.campaign.engine import Done, Lost
from tlbench.engines import ENGINES, Row


class Futures:
    def __init__(self, wanted):
        self.slots, self._out = int(wanted.options.get("workers", 2)), 0
        self._pool, self._nodes = ThreadPoolExecutor(self.slots), []
        self._idle, self._events = queue.SimpleQueue(), queue.SimpleQueue()

    def open(self, setup, stop):  # what AtNode is given and gives are plain values: a network could carry them
        self._nodes = [AtNode(plain_setup(setup), f"worker {n + 1}") for n in range(self.slots)]
        for node in self._nodes:
            self._idle.put(node)

    def ask(self):
        return {}  # every node is this machine, which was checked

    def leave_out(self, nodes): ...

    def room(self):
        return self.slots - self._out

    def submit(self, batch):
        self._out += 1
        self._pool.submit(self._measure, plain_batch(batch))

    def _measure(self, batch):
        node = self._idle.get()
        try:
            for event in node.measure(batch):  # a cell's record as soon as it is there
                self._events.put(event_of(event))
        except Exception as error:  # the driver has the rest measured elsewhere
            self._events.put(Lost(batch=batch["number"], reason=f"{node.node}: {error!r}"))
        finally:
            self._idle.put(node)

    def wait(self, seconds):
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return []
        self._out -= isinstance(event, Done | Lost)
        return [event]

    def cancel(self):
        for node in self._nodes:
            node.stop()

    def close(self):
        self.cancel()
        self._pool.shutdown(cancel_futures=True)
        for node in self._nodes:
            node.close()


ENGINES["futures"] = Row(
    summary="several cells at a time on this machine", make=Futures, options={"workers": "cells at a time"}
)
