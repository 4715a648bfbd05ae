"""What a run takes from the runs before it on the same machine, and leaves to those after it: how noisy it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbench.machine.history import read_past, remember
from tlbench.records.machine import machine_key, short_hash
from tlbench.records.record import Record


class Memory:
    """Holds what was known of each machine and device when the run began."""

    def __init__(self, earlier: Sequence[Record]) -> None:
        """``earlier`` are the records that a run that goes on had before: what they knew stays."""
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for record in earlier:
            if record.environment:
                self._known.setdefault(_place(record), record.machine_noise)

    def of(self, record: Record) -> Mapping[str, Any]:
        """Returns what is known of the place that a record was measured at."""
        from tlbench.analysis.noise import known

        if not record.environment:
            return {}
        machine, device = place = _place(record)
        if place not in self._known:
            self._known[place] = known(read_past(machine, device))
        return self._known[place]

    def keep(self, records: Sequence[Record]) -> None:
        """Keeps what all current records of the run tell."""
        from tlbench.analysis.frame import rows
        from tlbench.analysis.noise import told

        if not records:
            return
        run = short_hash([records[0].started, records[0].id, records[0].cell.key])
        for past in told(rows(records), run):
            remember(past)


def _place(record: Record) -> tuple[str, str]:
    return machine_key(record), record.cell.device
