"""What a node does for an engine: it measures batches in processes of their own, as one machine does, and answers in
plain values, which any engine can carry.

The node's own process imports no torch for it and holds no cell: whatever crashes, hangs or takes all memory is a
record. Nothing of the run's folder is written here.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tlbench.campaign.check import decode_images
from tlbench.campaign.engine import Batch, Began, Done, Event, Impossible, Lost, Measured, Setup, Task
from tlbench.campaign.measuring import RunCell, measured, measuring
from tlbench.campaign.nodes import differences, facts
from tlbench.campaign.plugins import load_plugins
from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.machine.credentials import cleaned
from tlbench.machine.variables import clean_environment, set_by_engines
from tlbench.measure.place import Place
from tlbench.records.images import from_bytes, to_bytes
from tlbench.records.lines import decode, encode, without_credentials

_DECODING = threading.Lock()
"""What is decoded is for all nodes in a process: the first of several threads does it."""
Plain = Mapping[str, Any]
"""Texts, numbers, lists and dicts, as JSON has them."""


# --- plain values ---------------------------------------------------------------------------------------------


def plain_setup(setup: Setup) -> dict[str, Any]:
    """Writes what a node needs of a setup. Plugins that are files go with it, for nodes that share no file system.

    Errors: UserError where such a file cannot be read.
    """
    return {
        "settings": asdict(setup.settings),
        "siblings": list(setup.siblings),
        "plugins": [_plain_plugin(name) for name in setup.plugins],
        "engine": setup.wanted.engine,
        "shared": not setup.wanted.exclusive,
        "folder": os.getcwd(),
        "environ": set_by_engines(os.environ),
        "asked": setup.asked,
    }


def _plain_plugin(name: str) -> dict[str, Any]:
    if not name.endswith(".py"):
        return {"name": name}
    try:
        return {"name": name, "source": Path(name).read_text(encoding="utf-8", errors="surrogateescape")}
    except OSError as error:
        raise UserError(f"plugin {name!r} cannot be read: {error.strerror}") from None


def plain_batch(batch: Batch) -> dict[str, Any]:
    """Writes a batch."""
    tasks = [{"number": t.number, "keep": t.keep, "step": asdict(t.step)} for t in batch.tasks]
    return {"number": batch.number, "tasks": tasks, "layouts": dict(batch.layouts)}


def batch_of(plain: Plain) -> Batch:
    """Reads what `plain_batch` wrote."""
    tasks = tuple(
        Task(number=t["number"], keep=t["keep"], step=Step(**{**t["step"], "cell": Cell(**t["step"]["cell"])}))
        for t in plain["tasks"]
    )
    return Batch(number=plain["number"], tasks=tasks, layouts=plain["layouts"])


def plain_event(event: Event) -> dict[str, Any]:
    """Writes what happened at a node."""
    if isinstance(event, Began):
        return {"began": event.task, "node": event.node}
    if isinstance(event, Measured):
        known = event.record.per_image
        images = {} if known is None else {"images": b64encode(to_bytes(known.splits)).decode("ascii")}
        # What only this node knows to be a secret, its driver would not hide.
        record = without_credentials(replace(event.record, per_image=None))
        told = {"seconds": event.seconds, "layouts": dict(event.layouts)}
        return {"measured": event.task, "record": encode(record), **told, **images}
    if isinstance(event, Done):
        return {"done": event.batch}
    if isinstance(event, Lost):
        return {"lost": event.batch, "reason": event.reason}
    raise TypeError(f"a node has no {type(event).__name__}")


def event_of(plain: Plain) -> Event:
    """Reads what `plain_event` wrote."""
    if "user_error" in plain:
        return Impossible(reason=plain["user_error"])
    if "began" in plain:
        return Began(task=plain["began"], node=plain["node"])
    if "done" in plain:
        return Done(batch=plain["done"])
    if "lost" in plain:
        return Lost(batch=plain["lost"], reason=plain["reason"])
    record = decode(plain["record"])
    if "images" in plain:
        record = replace(record, per_image=from_bytes(b64decode(plain["images"])))
    return Measured(task=plain["measured"], record=record, seconds=plain["seconds"], layouts=plain["layouts"])


# --- the node -------------------------------------------------------------------------------------------------


class AtNode:
    """Measures what an engine brings to a node, in a process of the engine's there; it may be used from any thread, and
    `stop` from another one.
    """

    def __init__(self, setup: Plain, node: str) -> None:
        """``node`` is what records call this node. Nothing is started yet."""
        self.node = node
        self._setup = setup
        self._settings = Settings(**setup["settings"])
        self._stop = Stop()
        self._open, self._files = ExitStack(), ExitStack()
        self._lent: dict[tuple[str, str], set[tuple[str, int | None]]] = {}
        """Backbone and device of a process -> the images that it was lent when it started."""
        self._plugins: list[str] = []
        self._run_cell: RunCell | None = None
        if os.path.isdir(setup["folder"]):  # relative paths mean what they mean to the driver
            os.chdir(setup["folder"])

    def facts(self) -> dict[str, Any]:
        """Returns what this node says of itself (`tlbench.campaign.nodes.facts`)."""
        self._load_plugins()  # a data set or a backbone may be of one of them
        return facts(self._setup["asked"]["ask"])

    def lacks(self) -> list[str]:
        """Says what this node has other than the driver, so that its figures would be others; nothing where all is as
        it should be.
        """
        asked = self._setup["asked"]
        return differences(asked["here"], self.facts(), asked["ask"]) if asked else []

    def measure(self, plain: Plain) -> Iterator[dict[str, Any]]:
        """Yields what happens with a batch, event by event, each as soon as it has happened."""
        try:
            batch = batch_of(plain)
            layouts.hear(batch.layouts)
            run_cell = self._ready(batch)
            at = Place(node=self.node, engine=self._setup["engine"], shared=self._setup["shared"])
            for event in measured(batch.tasks, self._settings, run_cell, self._setup["siblings"], at):
                if isinstance(event, Measured):
                    event = replace(event, layouts=layouts.told())
                yield plain_event(event)
                if isinstance(event, Measured) and self._stop.signal is not None:
                    return
            yield plain_event(Done(batch=batch.number))
        except UserError as error:
            yield {"user_error": cleaned(str(error))}
        except Exception as error:  # a full disk of this node, say: another one may measure it
            why = cleaned(f"{self.node}: {type(error).__name__}: {error}")
            yield plain_event(Lost(batch=plain["number"], reason=why))

    def stop(self) -> None:
        """Has the cell that is being measured give up; nothing more begins."""
        self._stop.signal = signal.SIGINT

    def close(self) -> None:
        """Ends the processes of the cells."""
        self._end()
        self._files.close()

    def _end(self) -> None:
        self._open.close()
        self._lent.clear()
        self._run_cell = None

    def _load_plugins(self) -> None:
        if not self._plugins and self._setup["plugins"]:
            self._plugins = self._files.enter_context(_files(self._setup["plugins"]))
            load_plugins(self._plugins)

    def _ready(self, batch: Batch) -> RunCell:
        """Returns what runs the batch's cells, in processes that are lent the decoded images."""
        first = batch.tasks[0].step.cell
        process = (first.backbone, first.device)
        images = {(task.step.cell.dataset, task.step.cell.image_size) for task in batch.tasks}
        if not images <= self._lent.get(process, images):
            self._end()  # the process that is there was lent others when it started
        self._lent.setdefault(process, set()).update(images)
        self._load_plugins()
        with _DECODING:
            decode_images([task.step.cell for task in batch.tasks], self._settings)
        if self._run_cell is None:
            environ = clean_environment(os.environ, self._setup["environ"])
            made = measuring(self._settings, self._stop, self._plugins, environ)
            self._run_cell = self._open.enter_context(made)
        return self._run_cell


@contextmanager
def _files(plugins: Sequence[Plain]) -> Iterator[list[str]]:
    """Yields the names of plugins on this node: a file that is not here, or is another, lies in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="tlbench-plugins-") as folder:
        names = []
        for number, plugin in enumerate(plugins):
            path, source = Path(plugin["name"]), plugin.get("source")
            if source is not None and not _holds(path, source):
                path = Path(folder, str(number), path.name)
                path.parent.mkdir()
                path.write_text(source, encoding="utf-8", errors="surrogateescape")
            names.append(str(path) if source is not None else plugin["name"])
        yield names


def _holds(path: Path, source: str) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape") == source
    except OSError:
        return False
