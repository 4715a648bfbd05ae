"""What a run lacks at its end that no failed cell shows, for the command line and for pytest: its exit status is not 0
then (docs/exit-status.md).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tlbench.analysis import raced
from tlbench.campaign.campaign import Campaign
from tlbench.records.record import Record


def shortcomings(campaign: Campaign) -> list[str]:
    """Says, in a line each, that no cell was measured, and which repetitions came to nothing; empty where all is well.

    Cells that fail are told of elsewhere.
    """
    return [line for line in (_nothing(campaign), _repetitions(campaign.failed_twins())) if line]


def is_there(campaign: Campaign) -> bool:
    """Tells whether any cell was measured: of a race, whose latencies are no results, one that trains."""
    some = [record for record in campaign.current() if record.status == "ok"]
    race = raced.read(campaign.store.folder)
    return any(record.cell.task == "train" for record in some) if race is not None else bool(some)


def _nothing(campaign: Campaign) -> str:
    folder = str(campaign.store.folder)
    records = campaign.current()
    if not records or is_there(campaign):
        return ""
    statuses = sorted({record.status for record in records})
    race = raced.read(campaign.store.folder)
    ended = race is not None and race.ended and race.unseen and not race.out_by(raced.FAILED)
    if "stopped" in statuses or ended:
        more = f"tlbench find --resume {shlex.quote(folder)} --budget TIME goes on, TIME being that of both together"
        return f"No cell was measured: the budget ended before the first was done; {more}"
    if race is not None and (slow := race.out_by(raced.SLOW)):
        those = "the one cell" if len(race.entrants) == 1 else f"{len(slow)} of {len(race.entrants)} cells"
        return (
            f"No cell was trained: {those} would be too slow, such as {slow[0].name} ({slow[0].reason}); allow more "
            "with --max-latency-ms, or name smaller backbones"
        )
    if race is not None:
        statuses = sorted({record.status for record in records if record.cell.task == "train"})
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
