"""Which finished cells are measured once more, only to see how far apart identical cells come out: the A/A pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tlbench.campaign.steps import Step
from tlbench.grid.cell import Cell
from tlbench.heads import HEADS
from tlbench.records.record import Record
from tlbench.records.resuming import current

SHARE = 0.05
"""Share of the measured time that twins may take unless their number is asked for."""
MOST = 3
"""Most twins of a block then: each may need a process of its own."""
ROLE = "aa"


def next_twin(cells: Mapping[Cell, str], records: Sequence[Record], block: int, wanted: int | None) -> Step | None:
    """Returns the next cell of a finished block to measure again; None where there is none, or no time for it.

    ``cells`` are those of the plan with their names, ``records`` all of the run so far. ``wanted`` twins are measured
    in each block; None: as many as fit into `SHARE` of the measured time, `MOST` at most. Only a cell that is finished
    and has timed rounds of its own can tell anything: no training-free head, no policy that does not apply. Of those
    that fit, the longest comes first, since short ones vary more than the run does; and those that no block has
    measured twice come before the others. It depends on the records alone, so that a run that goes on does not
    measure more.
    """
    counted = current(records)
    twins = [r for r in records if r.role == ROLE and r.status != "interrupted"]
    here = [r for r in twins if r.block == block]
    if len(here) >= (MOST if wanted is None else wanted):
        return None
    candidates = [r for r in counted if r.role == "cell" and r.block == block and r.cell in cells and _tells(r)]
    if wanted is None:
        used = {r.key for r in here}
        room = SHARE * sum(r.wall_seconds or 0.0 for r in counted if r.role == "cell") - sum(
            r.wall_seconds or 0.0 for r in twins
        )
        candidates = _fitting([r for r in candidates if r.key not in used], room, MOST - len(here))
    if not candidates:
        return None
    times_here, times = Counter(r.key for r in here), Counter(r.key for r in twins)
    chosen = min(candidates, key=lambda r: (times_here[r.key], times[r.key], -_cost(r)))
    return Step(cell=chosen.cell, name=f"A/A {cells[chosen.cell]}", block=block, role=ROLE)


def _tells(record: Record) -> bool:
    """Tells whether a second measurement would say how far apart identical cells come out."""
    return record.status == "ok" and (record.cell.task == "infer" or HEADS[record.cell.head].fit is None)


def _fitting(candidates: Sequence[Record], room: float, more: int) -> list[Record]:
    """Returns those that leave room for ``more`` of their like; else the shortest, if it fits at all."""
    several = [r for r in candidates if _cost(r) <= room / more]
    shortest = sorted(candidates, key=_cost)[:1]
    return several or [r for r in shortest if _cost(r) <= room]


def _cost(record: Record) -> float:
    """Returns the seconds that measuring it again may take: what it found computed may have to be computed anew."""
    return (record.wall_seconds or 0.0) + float(record.prefix.get("seconds") or 0.0)
