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
    and has timed rounds of its own can tell anything: no training-free head, no policy that does not apply. The first
    is the longest that fits and that takes no longer than half of the cells do; the others take at least half as long
    as it: the shortest cells vary more than the run does, and a floor of theirs would hide what the others show. Those
    that no block has measured twice come before the others. It depends on the records alone, so that a run that goes on
    does not measure more.
    """
    counted = current(records)
    twins = [r for r in records if r.role == ROLE and r.status != "interrupted"]
    here = [r for r in twins if r.block == block]
    if len(here) >= (MOST if wanted is None else wanted):
        return None
    candidates = [r for r in counted if r.role == "cell" and r.block == block and r.cell in cells and _tells(r)]
    if wanted is None:
        candidates = _fitting(candidates, here, _room(counted, twins))
    if not candidates:
        return None
    times_here, times = Counter(r.key for r in here), Counter(r.key for r in twins)
    chosen = min(candidates, key=lambda r: (times_here[r.key], times[r.key], -_cost(r)))
    return Step(cell=chosen.cell, name=f"A/A {cells[chosen.cell]}", block=block, role=ROLE)


def _tells(record: Record) -> bool:
    """Tells whether a second measurement would say how far apart identical cells come out."""
    return record.status == "ok" and (record.cell.task == "infer" or HEADS[record.cell.head].fit is None)


def _room(counted: Sequence[Record], twins: Sequence[Record]) -> float:
    """Returns the seconds that twins may still take."""
    measured = sum(r.wall_seconds or 0.0 for r in counted if r.role == "cell")
    return SHARE * measured - sum(r.wall_seconds or 0.0 for r in twins)


def _fitting(candidates: Sequence[Record], here: Sequence[Record], room: float) -> list[Record]:
    """Returns those that fit and are neither too long nor too short; ``here`` are the block's twins so far."""
    costs = {r.key: _cost(r) for r in candidates}
    used = [costs[r.key] for r in here if r.key in costs]
    least = max(used) / 2 if used else 0.0
    most = max(sorted(costs.values())[(len(costs) - 1) // 2 :][:1], default=0.0)
    taken = {r.key for r in here}
    return [r for r in candidates if r.key not in taken and least <= costs[r.key] <= min(room, most)]


def _cost(record: Record) -> float:
    """Returns the seconds that measuring it again may take: what it found computed may have to be computed anew."""
    return (record.wall_seconds or 0.0) + float(record.prefix.get("seconds") or 0.0)
