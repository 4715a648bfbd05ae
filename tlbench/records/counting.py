"""What counts of runs that are read: of a cell that was measured again, its latest measurement alone; of a measurement
that several runs hold, since one of them is a copy or was begun as one, one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from tlbench.errors import UserError
from tlbench.records.kinds import kind_of
from tlbench.records.record import Record
from tlbench.records.resuming import current
from tlbench.records.run_folder import RECORDS, find_run, load

MOST_LINES = 3


def aside(damaged: Sequence[str]) -> list[str]:
    """Says which lines were set aside: the first few, and how many more there are."""
    lines = [f"set aside {line}" for line in damaged[:MOST_LINES]]
    more = len(damaged) - MOST_LINES
    return [*lines, f"set aside {more} more such lines"] if more > 0 else lines


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Holds what counts of a run, and what does not."""

    records: list[Record]
    """The records that count (`tlbench.records.resuming.current`), at least one."""
    superseded: list[Record]
    """The earlier tries, in whose place others count now."""
    damaged: list[str]
    """As in `Loaded`."""

    @property
    def notes(self) -> list[str]:
        """Says what was left out, a line each."""
        lines = aside(self.damaged)
        if self.superseded:
            number = _number(len(self.superseded), "earlier record")
            lines.append(f"{number} superseded by later measurements of the same cells")
        return lines


@dataclass(frozen=True, kw_only=True)
class Together:
    """Holds what counts of several runs that are read together: each measurement once."""

    records: list[Record]
    runs: list[str]
    """The run of each record: of a measurement that several hold, the first."""
    damaged: list[str]
    """As in `Loaded`, of all runs."""
    superseded: list[str]
    """Says how many earlier tries were left out, a line a run."""
    copies: list[str]
    """Names the runs that hold measurements of others, a line each."""

    @property
    def notes(self) -> list[str]:
        """Says what was left out, a line each."""
        return [*aside(self.damaged), *self.superseded, *self.copies]


def measurement(record: Record) -> Hashable:
    """Returns what a copy of the record has as well, and no other measurement: when it was made, and what it took."""
    seconds = (*(one.seconds for one in record.rounds), *record.latency_seconds)
    return record.cell, record.role, record.block, record.started, record.wall_seconds, seconds


def check_once(runs: Sequence[str | Path]) -> None:
    """Raises UserError when a run is given twice, under whatever names. Copies are for `read_together`."""
    first: dict[Path, str | Path] = {}
    for run in runs:
        path = find_run(run)
        path = (path / RECORDS if path.is_dir() else path).resolve()
        if path in first:
            also = f" (also as {str(first[path])!r})" if str(first[path]) != str(run) else ""
            raise UserError(f"run {str(run)!r} is given twice{also}; its records would count double")
        first[path] = run


def read_current(run: str | Path, whole: bool = True) -> Counting:
    """Reads what counts of a run, for everything that reports or compares it; without ``whole``, records lack what no
    figure is made of (`tlbench.records.alike.Alike`). Errors: as `load`; also UserError when it has no record.
    """
    loaded = load(run, whole)
    if not loaded.records:
        what = kind_of(path) if loaded.damaged and (path := find_run(run)).is_file() else ""
        why = f" (the first of its {len(loaded.damaged)} lines: {loaded.damaged[0]})" if loaded.damaged else ""
        why = f", which is {what}, not a run" if what else why
        raise UserError(f"no records in {str(run)!r}{why}; `tlbench run --out DIR` makes some")
    records = current(loaded.records)
    counted = set(map(id, records))
    superseded = [record for record in loaded.records if id(record) not in counted]
    return Counting(records=records, superseded=superseded, damaged=loaded.damaged)


def read_together(runs: Sequence[str | Path], whole: bool = True) -> Together:
    """Reads what counts of several runs. A measurement that several of them hold counts once, and one in whose place
    any of them has measured anew does not count. ``whole`` and errors: as `read_current`; also UserError for a run that
    is given twice.
    """
    check_once(runs)
    read = [read_current(run, whole) for run in runs]
    names = list(map(str, runs))
    left = [one.records for one in read]
    copies: list[str] = []
    if len(read) > 1:
        anew = set[Hashable]().union(*map(_measured_anew, read))
        first: dict[Hashable, str] = {}
        for number, (name, records) in enumerate(zip(names, left, strict=True)):
            left[number], lines = _once(name, records, first, anew)
            copies += lines
    return Together(
        records=[record for records in left for record in records],
        runs=[name for name, records in zip(names, left, strict=True) for _ in records],
        damaged=[line for one in read for line in one.damaged],
        superseded=[line for one in read for line in one.notes[len(aside(one.damaged)) :]],
        copies=copies,
    )


def _measured_anew(run: Counting) -> set[Hashable]:
    """Returns the measurements that a run has replaced by later ones; a copy of the run may still hold them."""
    found = set(map(measurement, run.superseded))
    return found.difference(map(measurement, run.records)) if found else found


def _once(
    name: str, records: Sequence[Record], first: dict[Hashable, str], anew: Set[Hashable]
) -> tuple[list[Record], list[str]]:
    """Returns the records of a run that no run before it holds, and says what was left out. ``first``: measurement ->
    the first run that holds it, to which this run's are added.
    """
    left: list[Record] = []
    holders: list[str] = []
    replaced = 0
    for record in records:
        what = measurement(record)
        if what in anew:
            replaced += 1
        elif (holder := first.setdefault(what, name)) != name:  # twins of one run may be alike to the last bit
            holders.append(holder)
        else:
            left.append(record)
    lines = []
    if holders:
        others = ", ".join(map(repr, dict.fromkeys(holders)))
        lines.append(f"{name!r} repeats {_number(len(holders), 'record')} of {others}; each counts once")
    if replaced:
        lines.append(f"{_number(replaced, 'record')} of {name!r} superseded by later measurements in a copy of it")
    return left, lines


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
