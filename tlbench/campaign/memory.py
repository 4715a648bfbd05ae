"""What a run takes from the runs before it on the same machine, and leaves to those after it: how noisy it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbench.machine.history import Past, read_past, remember
from tlbench.records.machine import machine_key
from tlbench.records.record import Record

Place = tuple[str, str]
"""Machine and device."""


class Memory:
    """Holds what was known of each machine and device when the run began."""

    def __init__(self, run: str) -> None:
        """``run`` tells this run from others: what it has told itself, before it went on, is nothing earlier."""
        self.run = run
        self._pasts: dict[Place, list[Past]] = {}

    def of(self, record: Record) -> Mapping[str, Any]:
        """Returns what is known of the place that a record was measured at, and of how its cell varies from run to run
        (`tlbench.analysis.noise.known`).
        """
        from tlbench.analysis.frame import row
        from tlbench.analysis.noise import known

        if not record.environment:
            return {}
        machine, device = place = machine_key(record), record.cell.device
        if place not in self._pasts:
            self._pasts[place] = [past for past in read_past(machine, device) if past.run != self.run]
        return known(self._pasts[place], row(record)) if self._pasts[place] else {}

    def keep(self, records: Sequence[Record]) -> None:
        """Keeps what all current records of the run tell."""
        from tlbench.analysis.frame import rows
        from tlbench.analysis.noise import told

        for past in told(rows(records), self.run):
            remember(past)
