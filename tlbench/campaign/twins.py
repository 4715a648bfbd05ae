"""Which finished cells are measured once more, only to see how far apart identical cells come out: the A/A pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tlbench.campaign.isolate import ALIVE
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
START_SECONDS = 5.0
"""What a process for a cell takes to start and to load what it needs."""


def next_twin(
    cells: Mapping[Cell, str], records: Sequence[Record], block: int, wanted: int | None, isolate: str = "none"
) -> Step | None:
    """Returns the next cell of a finished block to measure again; None where there is none, or no time for it.

    ``cells`` are those of the plan with their names, ``records`` all of the run so far. ``wanted`` twins are measured
    in each block; None: as many as fit into `SHARE` of the measured time, `MOST` at most, the start of a process
    counted where ``isolate`` asks for a new one: of a run of one cell none does. Only a cell that is finished
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
        candidates = _fitting(candidates, here, _room(counted, twins), _starts(records, isolate))
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


def _starts(records: Sequence[Record], isolate: str) -> Callable[[Record], float]:
    """Returns what tells the seconds that measuring a record's cell again needs for a process: none where one that has
    measured the like is still there.
    """
    if isolate == "none":
        return lambda record: 0.0
    if isolate == "cell":
        return lambda record: START_SECONDS
    last = list(dict.fromkeys((r.cell.backbone, r.cell.device) for r in reversed(records)))[:ALIVE]
    return lambda record: 0.0 if (record.cell.backbone, record.cell.device) in last else START_SECONDS


def _fitting(
    candidates: Sequence[Record], here: Sequence[Record], room: float, start: Callable[[Record], float]
) -> list[Record]:
    """Returns those that fit and are neither too long nor too short; ``here`` are the block's twins so far, ``start``
    tells what a process for one takes.
    """
    costs = {r.key: _cost(r) for r in candidates}
    used = [costs[r.key] for r in here if r.key in costs]
    least = max(used) / 2 if used else 0.0
    most = max(sorted(costs.values())[(len(costs) - 1) // 2 :][:1], default=0.0)
    taken = {r.key for r in here}
    return [
        r
        for r in candidates
        if r.key not in taken and least <= costs[r.key] <= most and costs[r.key] + start(r) <= room
    ]


def _cost(record: Record) -> float:
    """Returns the seconds that measuring it again may take: what it found computed may have to be computed anew."""
    return (record.wall_seconds or 0.0) + float(record.prefix.get("seconds") or 0.0)
