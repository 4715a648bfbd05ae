"""What an engine is: it places batches of cells on nodes, and hands their records back as they are measured.

It writes nothing into the run's folder: the process that asked for the run, its driver, is the only one that does
(`tlbench.campaign.driver`). So a lost node costs at most the cell that it was measuring, and a lost driver is what
resuming is for. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop
from tlbench.grid.settings import Settings
from tlbench.records.record import Record

LOCAL = "local"
"""The engine that is no other machine: processes of this one, one cell at a time."""


# --- what is asked of it --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Says where a person wants a run's cells measured."""

    engine: str = LOCAL
    address: str | None = None
    """Where the engine runs already, in its own words; None: it is started, and ends with the run."""
    options: Mapping[str, str] = field(default_factory=dict)
    cpus: float | None = None
    """Processors of a cell; None: as many as its threads, and where these are torch's to choose, a whole node."""
    gpus: float | None = None
    """GPUs of a cell on CUDA; None: one. Cells on the CPU get none."""
    exclusive: bool = False
    """One cell a node at a time, so that times hold; else cells may have neighbours, and their times are shared."""
    skip_bad_nodes: bool = False
    """Goes on without nodes that lack something; else one of them ends the run before anything is measured."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task is one measurement of a batch."""

    number: int
    """What events call it by; no two tasks of a run have the same."""
    step: Step
    """The cell names its images and weights by where they lie now."""
    keep: str = "all"
    """What of the frozen prefix stays for later cells (`tlbench.measure.place.KEEP`)."""
    most_seconds: float | None = None
    """Seconds that a budget leaves for it (`tlbench.measure.place.Place.most_seconds`)."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch is what one node measures without another's help: cells that share a frozen prefix."""

    number: int
    tasks: tuple[Task, ...]
    layouts: Mapping[str, Any] = field(default_factory=dict)
    """Memory layouts that the run has measured so far: a row's seeds are to have one, wherever they are measured."""

    @property
    def device(self) -> str:
        """Returns the device of all its cells."""
        return self.tasks[0].step.cell.device


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Says what all batches of a run have in common."""

    settings: Settings
    siblings: tuple[str, ...] = ()
    """The freeze policies of the run's grids."""
    plugins: tuple[str, ...] = ()
    folder: Path = Path()
    """The run's folder, on the driver's machine."""
    trained: str = ""
    """Folder where trained cells of this machine leave their weights (`tlbench.measure.place.Place.trained`)."""
    run: str = ""
    """What tells this run from all others."""
    wanted: Wanted = field(default_factory=Wanted)
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What every node is asked before it measures, and what the driver's own machine says
    (`tlbench.campaign.nodes`)."""
    devices: tuple[str, ...] = ("cpu",)
    """Devices of the run's cells."""


# --- what it answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Began:
    """A task is being measured from now on."""

    task: int
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A task has its record."""

    task: int
    record: Record
    seconds: float
    """What it took at its node, repetitions of a noisy one included."""
    layouts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A batch has no task left: each was measured."""

    batch: int


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A batch ended before its tasks were measured. Those that have a record keep it; the others are placed anew."""

    batch: int
    reason: str
    status: str = ""
    """Status of a record that says it of the task that was being measured (``oom``): it is not measured again. Empty
    where the node was lost with whatever it did."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A node cannot measure the run; what it was given is placed anew, on others."""

    node: str
    lines: tuple[str, ...]
    batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Impossible:
    """A cell cannot be as the grid asks, nor could others: the run ends. It is an event, and not raised, so that what
    was delivered with it is taken in.
    """

    reason: str
    """What the user reads, in one line."""


Event = Began | Measured | Done | Lost | Refused | Impossible


class Engine(Protocol):
    """Places batches. The driver calls it from one thread, `open` first and `close` last."""

    slots: int
    """Cells that are measured at the same time, as far as that is known now."""

    def open(self, setup: Setup, stop: Stop) -> None:
        """Gets ready. ``stop`` says whether someone wants the run to end, for an engine whose `wait` takes long.

        Errors: UserError in one line: not installed, no answer from an address, an option that it does not know.
        """

    def ask(self) -> Mapping[str, Mapping[str, Any]]:
        """Asks every node that is there what `tlbench.campaign.nodes.facts` says there; returns it by the node's name.
        Empty where nodes cannot be asked apart from work: they refuse it themselves then (`Refused`).
        """

    def leave_out(self, nodes: Sequence[str]) -> None:
        """Gives nodes no work from now on."""

    def room(self) -> int:
        """Returns the batches that may be submitted now, so that no node waits for one."""

    def submit(self, batch: Batch) -> None:
        """Takes a batch, to be measured as soon as there is a node for it."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Returns what has happened since; waits up to some seconds for anything to happen. What it has returned is
        written down when it or `room` is called again; where something keeps the driver from that, neither is.

        Errors: UserError where nothing more can come of what was submitted.
        """

    def cancel(self) -> None:
        """Ends what is being measured as soon as it can be, and begins nothing more. `wait` still tells what was
        measured before.
        """

    def close(self) -> None:
        """Ends everything that it has started. What is being measured is lost."""
