"""A record as its figures are taken from it, with what it has in common with the other records of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tlbench.grid.cell import Cell
from tlbench.records.definitions import meant
from tlbench.records.machine import machine_key, short_hash, told_by
from tlbench.records.record import Record, Round

_NOTHING: Mapping[str, Any] = {}


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


@dataclass(frozen=True, kw_only=True)
class Source:
    """Holds a record with its run's name, and what several of its figures are made of."""

    record: Record
    run: str = ""
    known: Shared = field(default_factory=Shared, repr=False, compare=False)
    """Of all records of the table; they are to be there as long as this is."""

    @cached_property
    def cell(self) -> Cell:
        """Returns the cell, whose names are as they are meant today."""
        record, known = self.record, self.known
        place = id(record.cell), id(record.definitions)
        if place not in known.cells:
            # Cells that differ in the seed are named by the same words.
            cell = record.cell
            words = cell.task, cell.freeze, cell.head, cell.lr == "auto", id(record.definitions)
            if words not in known.meant_otherwise:
                known.meant_otherwise[words] = meant(record) is not record.cell
            known.cells[place] = meant(record) if known.meant_otherwise[words] else record.cell
        return known.cells[place]

    @property
    def training(self) -> bool:
        return self.record.cell.task == "train"

    @property
    def rounds(self) -> Sequence[Round]:
        return self.record.rounds

    @property
    def seconds(self) -> list[float]:
        """Returns the seconds of each timed round."""
        return [r.seconds for r in self.rounds]

    @cached_property
    def single_phase(self) -> bool:
        """Tells whether rounds may be pooled: the phases of a schedule cost different amounts."""
        return len({r.phase for r in self.rounds}) == 1

    @property
    def epochs(self) -> list[float]:
        """Returns the seconds of each epoch; none where they may not be pooled."""
        return self.seconds if self.training and self.single_phase else []

    @cached_property
    def machine(self) -> str:
        place = told_by(self.record)
        if place not in self.known.machines:
            self.known.machines[place] = machine_key(self.record)
        return self.known.machines[place]

    @property
    def hardware(self) -> str:
        """Returns a short hash of the machine without the process's settings."""
        stable = self.record.environment.get("stable", _NOTHING)
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

    @cached_property
    def of_images(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Keeps the figures that results on single images tell (`tlbench.analysis.image_figures`), as numbers: by the
        split, and by what they were computed from.
        """
        return {}

    def mapping(self, field: str) -> Mapping[str, Any]:
        """Returns a field of the record that holds a mapping; empty where there is none."""
        return getattr(self.record, field) or {}
