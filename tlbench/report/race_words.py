"""Puts into words what a race has come to: what its budget went into, what was stopped and why, and what the budget did
not allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.raced import EXCLUDED, FAILED, OUT, RAN_OUT, SLOW, Entrant, Raced
from tlbench.analysis.summary import Configuration
from tlbench.grid.values import about, taken
from tlbench.report import wording

FEW = 3
"""Cells that a line names in a terminal."""


def rung(row: Configuration) -> str:
    """Writes how far a race went with a configuration, for a narrow column: ``2/4``; a dash where there was none."""
    at = str(row["race"] or "").removeprefix("stopped at ").partition(":")[0]
    return at.removeprefix("rung ").replace(" of ", "/") or wording.UNKNOWN


def lines(races: Sequence[Raced], every: bool = False) -> list[str]:
    """Says what races have come to, in a line each for what they went into, for what was stopped at which rung, and for
    what there was no budget for; nothing where there was none. ``every``: all cells are named, however many.
    """
    return [line for raced in races for line in _of_one(raced, every)]


def _of_one(raced: Raced, every: bool) -> list[str]:
    seen = [one for one in raced.entrants if one.rung]
    measured = sum(one.rung for one in seen)
    state = "" if raced.ended else "; it has not ended"
    found = [
        f"The race took {taken(raced.spent_seconds)} of a budget of {taken(raced.budget_seconds)}: "
        f"{wording.count(measured, 'measurement')} of {len(seen)} of {wording.count(len(raced.entrants), 'cell')}, "
        f"up to {wording.count(raced.rungs, 'seed')} of one, a rung each{state}."
    ]
    for why in (EXCLUDED, FAILED, SLOW):
        found += _stopped(raced, raced.out_by(why), OUT[why], every)
    if raced.ended:
        found += _stopped(raced, raced.ran_out, RAN_OUT, every)
    return [*found, *_unseen(raced, every)]


def _stopped(raced: Raced, some: Sequence[Entrant], why: str, every: bool) -> list[str]:
    """Writes ``Stopped at rung 1 of 4, excluded by validation: …``, a line for each rung."""
    found = []
    for at in sorted({one.rung for one in some}):
        names = [f"{one.name}{f' ({one.reason})' if one.reason else ''}" for one in some if one.rung == at]
        where = f"Stopped at rung {at} of {raced.rungs}" if at else "Not raced"
        found.append(f"{where}, {why}: {_listed(names, every)}.")
    return found


def _unseen(raced: Raced, every: bool) -> list[str]:
    """Says which cells were never looked at, and what a look would have taken."""
    if not raced.ended or not (unseen := raced.unseen):
        return []
    names = [f"{one.name} (about {about(one.expected_seconds)})" for one in unseen]
    return [
        f"The budget did not allow a look at {wording.count(len(names), 'cell')}: {_listed(names, every)}; nobody says "
        "that they are worse. tlbench find --resume RUN --budget TIME goes on with a larger budget."
    ]


def _listed(names: Sequence[str], every: bool) -> str:
    return wording.few(names, len(names) if every else FEW)
