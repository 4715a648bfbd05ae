"""What a run's A/A pairs, and earlier runs on the same machine, tell of noise: between cells, and between runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.figures import Row, column
from tlbench.analysis.grouping import of_one_condition
from tlbench.heads import HEADS
from tlbench.machine.history import Past
from tlbench.records.machine import short_hash

Place = tuple[str, str]
"""Device and machine."""

LATEST = 200
"""Most pairs of earlier runs that count: the latest."""
LEAST_ROUNDS = 3
ROUNDS_FREEDOM = 4
"""Degrees of freedom that the spread of rounds counts for: it is no measurement of what tells two cells apart."""


# --- the floor of a run ---------------------------------------------------------------------------------------


def noise_floors(table: Iterable[Row]) -> dict[Place, stats.NoiseFloor]:
    """Maps (device, machine) to how far apart two identical measurements of a block come out there; no entry where
    neither a pair of this run nor an earlier run on this machine tells.

    Noisy pairs count: leaving them out would make a floor of the lucky ones. Those that shared their node count only
    where all cells did.
    """
    places: dict[Place, list[Row]] = {}
    alike = of_one_condition(table)
    for row, *place in zip(alike, column(alike, "device"), column(alike, "machine"), strict=True):
        places.setdefault((place[0], place[1]), []).append(row)
    floors = {place: _floor(rows) for place, rows in places.items()}
    return {place: floor for place, floor in floors.items() if floor is not None}


def _floor(rows: Sequence[Row]) -> stats.NoiseFloor | None:
    ratios: list[float] = []
    noisy = 0
    for group in _repeated(rows):
        found = stats.contrasts([seconds for seconds in _own(group) if seconds is not None])
        ratios += found
        noisy += len(found) * any(not row.has_valid_times for row in group)
    earlier = _earlier(rows, bool(ratios))
    if not ratios and earlier is None:
        return None
    # A comparison averages what both have: of runs of other cells each has its own blocks alone.
    named = zip(map(_hash, rows), column(rows, "run"), column(rows, "block"), column(rows, "role"), strict=True)
    of_cell: dict[Hashable, set[tuple[Any, Any]]] = {}
    for cell, run, block, role in named:
        if role == "cell":
            of_cell.setdefault(cell, set()).add((run, block))
    blocks = min(map(len, of_cell.values()), default=1)
    return stats.noise_floor(ratios, blocks, prior=stats.filled_up(earlier, _of_rounds(rows)), noisy=noisy)


def _repeated(rows: Iterable[Row]) -> list[list[Row]]:
    """Returns the measurements of each cell that a block measured more than once, in order."""
    every = list(rows)
    timed = [row for row, seconds in zip(every, _own(every), strict=True) if seconds is not None]
    places = list(zip(column(timed, "run"), map(_hash, timed), column(timed, "block"), strict=True))
    several = Counter(places)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row, place in zip(timed, places, strict=True):
        if several[place] > 1:  # of most no other has the hash, so that nobody need know the key, which takes longer
            groups.setdefault((row.run, row.key, row.block), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _hash(row: Row) -> Hashable:
    """Returns what is equal for rows with equal keys."""
    return row.key if row.record is None else hash(tuple(vars(row.record.cell).values()))


def _own(rows: Sequence[Row]) -> list[float | None]:
    """Returns `own` of each row."""
    columns = (column(rows, name) for name in ("task", "head", "own_seconds"))
    return [
        own(row) if task == "infer" else seconds or None if _trains(head) else None
        for row, task, head, seconds in zip(rows, *columns, strict=True)
    ]


def own(row: Row) -> float | None:
    """Returns the seconds that a cell measured itself: its rounds of training, or an image of inference; None where it
    has none, as with training-free heads, most of whose time is the frozen prefix.
    """
    if row.task == "infer":
        return 1 / row.images_per_second if row.images_per_second else None
    return row.own_seconds or None if _trains(row.head) else None


def _trains(name: str) -> bool:
    """Tells whether a head trains by steps."""
    head = HEADS.get(name)
    return head is not None and head.fit is None


def _earlier(rows: Iterable[Row], has_pairs: bool = True) -> stats.Prior | None:
    """Returns what the first of the runs knew of the machine's pairs when it began: what a later one knew has the pairs
    of those before it in it. Where none of them ``has_pairs``, that can do no harm, and the last one to know is asked.
    """
    every = list(rows)
    if not any(row.record is not None and row.record.machine_noise.get("pairs") for row in every):
        return None
    ordered = sorted(zip(column(every, "started"), every, strict=True), key=lambda one: one[0] or "")
    asked = ordered[:1] if has_pairs else ordered[::-1]
    told = (row.record.machine_noise for _, row in asked if row.record is not None)
    known = next((one for one in told if one.get("pairs")), {})
    if not known.get("pairs"):
        return None
    pairs = float(known["pairs"])
    return stats.Prior(log_sd=float(known["pair_log_sd"]), freedom=pairs, pairs=pairs)


def _of_rounds(rows: Iterable[Row]) -> stats.Prior | None:
    """Returns how the rounds of cells vary about their means, as the spread of a ratio of two cells.

    It is not divided by their number: what lasts as long as a cell is in none of its rounds.
    """
    variances = []
    every = list(rows)
    for row, seconds in zip(every, _own(every), strict=True):
        phases: dict[str, list[float]] = {}
        for r in row.record.rounds if row.record is not None and seconds is not None else ():
            if r.seconds > 0:
                phases.setdefault(r.phase, []).append(math.log(r.seconds))
        variances += [_variance(logs) for logs in phases.values() if len(logs) >= LEAST_ROUNDS]
    if not variances or not any(variances):
        return None
    return stats.Prior(log_sd=math.sqrt(2 * fmean(variances)), freedom=ROUNDS_FREEDOM, source="rounds")


def _variance(values: Sequence[float]) -> float:
    """Returns what `statistics.variance` does but for its last digit, which takes a hundred times as long."""
    centre = fmean(values)
    return math.fsum([(value - centre) ** 2 for value in values]) / (len(values) - 1)


# --- what is handed on from run to run ------------------------------------------------------------------------


def told(table: Sequence[Row], run: str) -> list[Past]:
    """Returns what a run tells of each device and machine that it was measured on; what shared it tells nothing."""
    places: dict[Place, list[Row]] = {}
    for row in table:
        if row.status == "ok" and own(row) is not None and not row.shares_node:
            places.setdefault((row.device, row.machine), []).append(row)
    return [_past(run, place, rows) for place, rows in places.items()]


def _past(run: str, place: Place, rows: Sequence[Row]) -> Past:
    pairs = [
        math.log(ratio)
        for group in _repeated(rows)
        for ratio in stats.contrasts([own(row) or math.nan for row in group])
    ]
    logs: dict[str, list[float]] = {}
    for row in rows:
        if row.role == "cell" and (seconds := own(row)):
            logs.setdefault(_measured(row), []).append(math.log(seconds))
    device, machine = place
    return Past(
        run=run,
        machine=machine,
        device=device,
        pairs=pairs,
        cells={name: fmean(values) for name, values in logs.items()},
    )


def _measured(row: Row) -> str:
    """Returns a short hash that two runs share where they measured the same with the same code."""
    record = row.record
    code = (record.suite_version, record.suite_commit) if record is not None else ()
    return short_hash([row.configuration, row.seed, *code])


def known(pasts: Sequence[Past], row: Row) -> dict[str, Any]:
    """Returns what earlier runs tell of a device of a machine, as `Record.machine_noise` keeps it: ``pairs`` and
    ``pair_log_sd`` of a log ratio within a run; ``runs``, ``run_freedom`` and ``run_log_sd`` of the row's log seconds
    from run to run, and ``like`` whether this very cell tells them, or cells about as long. Nothing where there is
    nothing to tell.
    """
    found: dict[str, Any] = {}
    pairs = [value for past in pasts for value in past.pairs][-LATEST:]
    if pairs and any(pairs):
        found |= {"pairs": len(pairs), "pair_log_sd": math.sqrt(fmean(value**2 for value in pairs))}
    seconds = own(row)
    if row.status != "ok" or not seconds:
        return found
    own_name, centre = _measured(row), math.log(seconds)
    if spread := _between_runs(pasts, lambda name, _: name == own_name):
        return found | spread | {"like": "this cell"}
    if spread := _between_runs(pasts, lambda _, log: centre - log >= -LONGER and centre - log <= SHORTER):
        return found | spread | {"like": "cells about as long"}
    return found


LONGER, SHORTER = math.log(1.5), math.log(4)
"""Cells that tell how another one varies are at most 1.5 times as long, since longer ones vary less, and at least a
fourth as long, since much shorter ones vary more.
"""


def _between_runs(pasts: Sequence[Past], tells: Callable[[str, float], bool]) -> dict[str, Any]:
    """Returns how cells vary from run to run. Cells of one run share its offset, so that the degrees of freedom are
    counted in runs: those that share a cell, less one for each group of them. Times that are equal to the last bit are
    one measurement, told twice.
    """
    runs_of: dict[str, dict[float, int]] = {}
    for number, past in enumerate(pasts):
        for name, value in past.cells.items():
            if tells(name, value):
                runs_of.setdefault(name, {}).setdefault(value, number)
    repeated = [values for values in runs_of.values() if len(values) > 1]
    if not repeated:
        return {}
    groups: list[set[int]] = []
    for values in repeated:
        mine = set(values.values())
        joined = [group for group in groups if group & mine]
        groups = [group for group in groups if not group & mine] + [mine.union(*joined)]
    squares = sum((value - fmean(values)) ** 2 for values in repeated for value in values)
    freedom = sum(len(values) - 1 for values in repeated)
    return {
        "runs": sum(map(len, groups)),
        "run_freedom": sum(len(group) - 1 for group in groups),
        "run_log_sd": math.sqrt(squares / freedom),
    }


def of_runs(records: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Returns spread and degrees of freedom of a cell's log seconds from run to run, of the runs' own knowledge: that
    with most behind it. None where no earlier runs tell.
    """
    best = max((one for one in records if one.get("run_freedom")), key=lambda one: one["run_freedom"], default=None)
    return None if best is None else (float(best["run_log_sd"]), float(best["run_freedom"]))
