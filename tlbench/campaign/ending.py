"""What a run lacks at its end that no failed cell shows, for the command line and for pytest: its exit status is not 0
then (docs/exit-status.md).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tlbench.campaign.campaign import Campaign
from tlbench.records.record import Record


def shortcomings(campaign: Campaign) -> list[str]:
    """Says, in a line each, that no cell was measured, and which repetitions came to nothing; empty where all is well.

    Cells that fail are told of elsewhere.
    """
    folder = str(campaign.store.folder)
    return [line for line in (_nothing(campaign.current(), folder), _repetitions(campaign.failed_twins())) if line]


def is_there(records: Sequence[Record]) -> bool:
    """Tells whether any cell was measured: of a race, whose latencies are no results, one that trains."""
    some = [record for record in records if record.status == "ok"]
    raced = any(record.status == "stopped" for record in records)
    return any(record.cell.task == "train" for record in some) if raced else bool(some)


def _nothing(records: Sequence[Record], folder: str) -> str:
    statuses = sorted({record.status for record in records})
    if not statuses or is_there(records):
        return ""
    if "stopped" in statuses:
        more = f"tlbench find --resume {shlex.quote(folder)} --budget TIME goes on, TIME being that of both together"
        return f"No cell was measured: the budget ended before the first was done; {more}"
    return f"No cell was measured: all are {' or '.join(statuses).replace('_', ' ')}"


def _repetitions(failed: Sequence[Record]) -> str:
    if not failed:
        return ""
    first = failed[0]
    cells, them = ("1 cell", "it") if len(failed) == 1 else (f"{len(failed)} cells", "the first")
    return (
        f"{cells} measured once more, to see how far times differ, came to nothing; {them} is "
        f"{first.cell.id}, {first.status}: {first.reason}"
    )
