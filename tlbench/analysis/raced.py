"""What a race has come to (`tlbench find`), kept beside its records in ``race.json``: what its budget was, which cells
entered, how far each got and why it was not continued. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tlbench.analysis.figures import Row, column
from tlbench.grid.cell import Cell
from tlbench.grid.folding import folds_of
from tlbench.machine.scratch import write_aside
from tlbench.records import strict_json
from tlbench.records.lines import seal, unseal

FILE = "race.json"
EXCLUDED, FAILED, SLOW = "excluded", "failed", "slow"
OUT = {
    EXCLUDED: "excluded by validation",
    FAILED: "it failed",
    SLOW: "its latency is above --max-latency-ms",
}
"""Why a cell is not continued -> what that means."""
RAN_OUT = "ran out of budget"
"""What is said of a cell that nothing speaks against, and that fewer seeds were measured of than of others."""
CUT = ("stopped", "interrupted")
"""Statuses of measurements that something else has ended."""
BY_NAME = ("auto", "pretrained", "random")
"""Weights that are known by a name, not by a file."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """Says how a cell stands in a race."""

    name: str
    key: str
    """What its records are known by (`contender`)."""
    expected_seconds: float
    """Seconds that a further seed of it would take, as far as the race has learned."""
    rung: int = 0
    """Seeds that were measured of it."""
    accuracy: float | None = None
    """Mean of what decides on validation images over these seeds; None without any."""
    out: str = ""
    """Key of `OUT`; empty while it is in."""
    reason: str = ""
    """More of why it is out, where there is more to say."""
    finalist: bool = False
    """Whether it is one of those among which one is picked."""
    later: int = 0
    """Seeds that were measured of it after the race, which the race's file knows nothing of."""


@dataclass(frozen=True, kw_only=True)
class Raced:
    """Says what a race has come to."""

    budget_seconds: float
    """Seconds from the command's start to its end."""
    spent_seconds: float
    """Seconds of it that were spent, over all times that the run went on."""
    entrants: tuple[Entrant, ...]
    ended: bool = False
    """Whether it came to its end; else it goes on, or was stopped."""
    max_latency_ms: float | None = None
    metric: str = "accuracy"
    keep: str | None = None
    """``best`` where the picked cell's model is to be kept."""
    place: str = ""
    """The run's folder, where it is known; not in its file, since folders move."""

    @property
    def rungs(self) -> int:
        """Returns the most seeds that were measured of a cell."""
        return max((one.rung for one in self.entrants), default=0)

    @property
    def unseen(self) -> list[Entrant]:
        """Returns the cells that nothing was measured of, the cheapest first."""
        found = [one for one in self.entrants if not (one.rung or one.out or one.later)]
        return sorted(found, key=lambda one: one.expected_seconds)

    @property
    def ran_out(self) -> list[Entrant]:
        """Returns the cells that nothing speaks against, and that were measured less often than the finalists."""
        return [one for one in self.entrants if one.rung and not (one.out or one.finalist or one.later)]

    def out_by(self, why: str) -> list[Entrant]:
        """Returns the cells that are out for a reason."""
        return [one for one in self.entrants if one.out == why]


def contender(cell: Cell) -> str:
    """Returns what tells the cells of a race apart: all of a cell but its seed, its fold, and where its images and
    weights lie, which is the same for all and may move.
    """
    weights = cell.weights if cell.weights in BY_NAME else "checkpoint"
    return replace(cell, seed=0, fold=None, dataset="", relabel=None, weights=weights).key


# --- the file -------------------------------------------------------------------------------------------------


def write(folder: Path, raced: Raced) -> None:
    """Writes what a race has come to into its run's folder, all of it or nothing. Errors: OSError."""
    write_aside(folder / FILE, seal(asdict(raced) | {"place": ""}).encode())


def read(folder: Path) -> Raced | None:
    """Returns what the race of a run's folder has come to; None where there was none, or its file is damaged."""
    try:
        stat = os.stat(folder / FILE)
    except (OSError, ValueError):
        return None
    return _read(folder / FILE, stat.st_mtime_ns, stat.st_size)


def is_damaged(folder: Path) -> bool:
    """Tells whether there was a race in a run's folder, but what it has come to cannot be read any more."""
    return (folder / FILE).is_file() and read(folder) is None


@lru_cache(maxsize=16)
def _read(path: Path, changed: int, size: int) -> Raced | None:
    try:
        data = unseal(path.read_text(encoding="utf-8"))
        entrants = tuple(Entrant(**_known(Entrant, one)) for one in data.pop("entrants"))
        made = Raced(**_known(Raced, data), entrants=entrants)
        for one in entrants:
            strict_json.check(Entrant, asdict(one))
        strict_json.check(float, made.budget_seconds)
        strict_json.check(float, made.spent_seconds)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return made


def _known(kind: type[Entrant] | type[Raced], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


# --- rows of records ------------------------------------------------------------------------------------------


def folder_of(item: Row) -> Path | None:
    """Returns the folder of a row's run, as far as its results on single images lie there."""
    if item.record is not None:
        place = item.record.per_image.place if item.record.per_image is not None else None
    else:
        place = item.image_results if isinstance(item.image_results, Mapping) else None
    return Path(place["folder"]) if place else None


def races_of(rows: Iterable[Mapping[str, Any]]) -> list[Raced]:
    """Returns the races that configurations were measured in, each once, as they stand by all that was measured of
    their cells, also after them.
    """
    measured: dict[Path, list[Row]] = {}
    for item in (item for row in rows for item in row["group"]):
        if (folder := folder_of(item)) is not None:
            measured.setdefault(folder, []).append(item)
    known = ((folder, read(folder), some) for folder, some in measured.items())
    return [replace(_caught_up(raced, some), place=str(folder)) for folder, raced, some in known if raced is not None]


def _caught_up(raced: Raced, measured: Iterable[Row]) -> Raced:
    """Returns a race with the seeds that `tlbench run --resume` has ``measured`` after it of cells that it had to
    leave, and that nothing speaks against.
    """
    groups: dict[str, list[Row]] = {}
    for item in measured:
        if item.record is not None and item.record.cell.task == "train":
            groups.setdefault(contender(item.record.cell), []).append(item)
    later = {key: len(_whole_seeds([item for item in group if item.status == "ok"])) for key, group in groups.items()}
    entrants = tuple(
        replace(one, later=max(later.get(one.key, 0) - one.rung, 0)) if not one.out else one for one in raced.entrants
    )
    return replace(raced, entrants=entrants)


def _whole_seeds(group: Sequence[Row]) -> set[int]:
    """Returns the seeds of a configuration of which no fold is lacking or was ended by something else."""
    folds: dict[int, set[str | None]] = {}
    for item in group:
        if item.status not in CUT:
            folds.setdefault(item.seed, set()).add(item.fold)
    most = max((folds_of(item.fold) or 1 for item in group), default=1)
    return {seed for seed, there in folds.items() if len(there) == most}


def entrant_of(group: Sequence[Row]) -> tuple[Raced, Entrant] | None:
    """Returns the race of a configuration's records and how it stands there; None where records of it are of no race,
    or of several.
    """
    if all(item.record is not None and item.record.per_image is None for item in group):
        return None  # nothing tells where it lies
    folders = {folder_of(item) for item in group if item.status == "ok"}
    if len(folders) != 1 or (folder := next(iter(folders))) is None or (raced := read(folder)) is None:
        return None
    record = next((item.record for item in group if item.record is not None), None)
    if record is None or record.cell.task != "train":
        return None
    key, raced = contender(record.cell), _caught_up(raced, group)
    return next(((raced, one) for one in raced.entrants if one.key == key), None)


def counted(group: Sequence[Row]) -> list[Row]:
    """Returns the rows of a configuration that figures are of: in a race not those of a seed that the budget or the
    user has ended, of which a fold or all is lacking, unless there is nothing else.
    """
    if not any(status in CUT for status in column(group, "status")) and not any(column(group, "fold")):
        return list(group)
    if entrant_of(group) is None:
        return [item for item in group if item.status != "stopped"] or list(group)
    whole = _whole_seeds(group)
    return [item for item in group if item.seed in whole and item.status not in CUT] or list(group)


def rung_in_words(raced: Raced, one: Entrant) -> str:
    """Says how far a cell got: ``stopped at rung 2 of 4: ran out of budget``, of a finalist ``rung 4 of 4``, of one
    that was measured after the race ``rung 0 of 4 and 1 seed after it``.
    """
    at = f"rung {one.rung} of {raced.rungs}"
    if one.later:
        return f"{at} and {one.later} seed{'s' * (one.later > 1)} after it"
    if one.out:
        return f"stopped at {at}: {OUT.get(one.out, one.out)}"
    return at if one.finalist or not raced.ended else f"stopped at {at}: {RAN_OUT}"


def rung_of(group: Sequence[Row]) -> str | None:
    """Returns `rung_in_words` of a configuration's records; None where they are of no race."""
    found = entrant_of(group)
    return rung_in_words(*found) if found is not None else None


def is_stopped(row: Mapping[str, Any]) -> bool:
    """Tells whether a configuration was not continued to the end of a race, so that no pick is made of it: it was
    excluded, or fewer seeds were measured of it than of the finalists, and none after the race either.
    """
    found = entrant_of(row["group"])
    if found is None or found[1].finalist or found[1].later:
        return False
    return any(one.finalist for one in found[0].entrants)
