"""A record as its figures are taken from it, with what it has in common with the other records of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbench.grid.cell import Cell
from tlbench.records.definitions import meant
from tlbench.records.machine import machine_key, short_hash, told_by
from tlbench.records.record import Record, Round

NOTHING: Mapping[str, Any] = {}


class Shared:
    """Keeps what the records of a table have in common, so that it is worked out once: records that were read together
    share their cells and the parts of their environments that are alike.
    """

    def __init__(self) -> None:
        # By identity: the records hold what these are of, all of it from before the first of them is asked.
        self.cells: dict[tuple[int, int], Cell] = {}
        self.meant_otherwise: dict[tuple[Any, ...], bool] = {}
        self.keys: dict[int, str] = {}
        self.variants: dict[int, str] = {}
        self.machines: dict[tuple[Any, ...], str] = {}
        self.hardware: dict[int, str] = {}
        self.configurations: dict[tuple[Any, ...], str] = {}
        self.inferences: dict[tuple[Any, ...], str] = {}


class Source:
    """Holds a record with its run's name, and what several of its figures are made of."""

    __slots__ = ("_machine", "_single_phase", "cell", "known", "of_images", "record", "run", "training")

    def __init__(self, *, record: Record, run: str = "", known: Shared | None = None) -> None:
        """``known`` is of all records of the table; they are to be there as long as this is."""
        self.record = record
        self.run = run
        self.known = Shared() if known is None else known
        self.training = record.cell.task == "train"
        self.cell = self._cell()
        """The cell, whose names are as they are meant today."""
        self.of_images: dict[tuple[str, str], Mapping[str, Any]] | None = None
        """The figures that results on single images tell (`tlbench.analysis.image_figures`), as numbers: by the split,
        and by what they were computed from; None before any is asked for."""
        self._single_phase: bool | None = None
        self._machine = ""

    def _cell(self) -> Cell:
        record, known = self.record, self.known
        cell = record.cell
        place = id(cell), id(record.definitions)
        if place not in known.cells:
            # Cells that differ in the seed are named by the same words.
            words = cell.task, cell.freeze, cell.head, cell.lr == "auto", id(record.definitions)
            if words not in known.meant_otherwise:
                known.meant_otherwise[words] = meant(record) is not cell
            known.cells[place] = meant(record) if known.meant_otherwise[words] else cell
        return known.cells[place]

    @property
    def rounds(self) -> Sequence[Round]:
        return self.record.rounds

    @property
    def seconds(self) -> list[float]:
        """Returns the seconds of each timed round."""
        return [r.seconds for r in self.record.rounds]

    @property
    def single_phase(self) -> bool:
        """Tells whether rounds may be pooled: the phases of a schedule cost different amounts."""
        if self._single_phase is None:
            self._single_phase = len({r.phase for r in self.record.rounds}) == 1
        return self._single_phase

    @property
    def epochs(self) -> list[float]:
        """Returns the seconds of each epoch; none where they may not be pooled."""
        return self.seconds if self.training and self.single_phase else []

    @property
    def machine(self) -> str:
        if not self._machine:
            place, machines = told_by(self.record), self.known.machines
            if place not in machines:
                machines[place] = machine_key(self.record)
            self._machine = machines[place]
        return self._machine

    @property
    def hardware(self) -> str:
        """Returns a short hash of the machine without the process's settings."""
        stable = self.record.environment.get("stable", NOTHING)
        if id(stable) not in self.known.hardware:
            self.known.hardware[id(stable)] = short_hash(stable)
        return self.known.hardware[id(stable)]

    @property
    def key(self) -> str:
        """Returns the key of the cell as it was measured."""
        cell = self.record.cell
        if id(cell) not in self.known.keys:
            self.known.keys[id(cell)] = cell.key
        return self.known.keys[id(cell)]

    def mapping(self, field: str) -> Mapping[str, Any]:
        """Returns a field of the record that holds a mapping; empty where there is none."""
        return getattr(self.record, field) or NOTHING
