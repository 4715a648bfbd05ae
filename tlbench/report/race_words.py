"""Puts into words what a race has come to: what its budget went into, what was stopped and why, and what the budget did
not allow.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Sequence

from tlbench.analysis.raced import EXCLUDED, FAILED, OUT, RAN_OUT, SLOW, Entrant, Raced
from tlbench.analysis.summary import Configuration
from tlbench.grid.values import about, taken
from tlbench.report import wording

FEW = 3
"""Cells that a line names in a terminal; a report puts more of them together."""
_NAME = re.compile(r"(\S+) ((?:[^\s(]|\([^)]*\))+) (.+)")
"""A cell's name: its backbone, its policy, whose arguments may have spaces, its head and what else tells it apart."""
BACKBONES, POLICIES, HEADS = range(3)
Product = tuple[tuple[str, ...], ...]
"""Backbones, policies, and heads with what else tells cells apart."""


def rung(row: Configuration) -> str:
    """Writes how far a race went with a configuration, for a narrow column: ``2/4``, with one seed that was measured
    after it ``2/4 +1``; a dash where there was none.
    """
    at = str(row["race"] or "").removeprefix("stopped at ").partition(":")[0]
    at, _, later = at.partition(" and ")
    more = f" +{later.split()[0]}" if later else ""
    return at.removeprefix("rung ").replace(" of ", "/") + more or wording.UNKNOWN


def lines(races: Sequence[Raced], every: bool = False) -> list[str]:
    """Says what races have come to, in a line each for what they went into, for what was stopped at which rung, and for
    what there was no budget for; nothing where there was none. ``every``, for a page that others may get: all cells are
    named, many of them by backbones × policies × heads, and the run's folder is not.
    """
    return [line for raced in races for line in _of_one(raced, every)]


def _of_one(raced: Raced, every: bool) -> list[str]:
    seen = [one for one in raced.entrants if one.rung]
    measured = sum(one.rung for one in seen)
    state = "" if raced.ended else "; it has not ended"
    found = [
        f"The race took {taken(raced.spent_seconds)} of a budget of {taken(raced.budget_seconds)}: "
        f"{wording.count(measured, 'measurement')} of {len(seen)} of {wording.count(len(raced.entrants), 'cell')}, "
        f"up to {wording.count(raced.rungs, 'seed')} of one (rung 1 is the first seed){state}."
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
        here = [one for one in some if one.rung == at]
        names = [f"{one.name}{f' ({one.reason})' if one.reason else ''}" for one in here]
        plain = every and len(here) > FEW and not any(one.reason for one in here)
        listed = "; ".join(_together(here)) if plain else _listed(names, every)
        where = f"Stopped at rung {at} of {raced.rungs}" if at else "Not raced"
        found.append(f"{where}, {why}: {listed}.")
    return found


def _unseen(raced: Raced, every: bool) -> list[str]:
    """Says which cells were never looked at, and what a look would have taken."""
    if not raced.ended or not (unseen := raced.unseen):
        return []
    if every and len(unseen) > FEW:
        listed = "; ".join(_together([one for one in raced.entrants if one in unseen], timed=True))
    else:
        listed = _listed([f"{one.name} ({_times([one])})" for one in unseen], every)
    run = shlex.quote(raced.place) if raced.place and not every else "RUN"
    more = f"{math.ceil(2 * max(raced.budget_seconds, raced.spent_seconds) / 60)}m"
    return [
        f"The budget did not allow a look at {wording.count(len(unseen), 'cell')}: {listed}; nobody says "
        f"that they are worse. tlbench find --resume {run} --budget {more} goes on with a larger budget."
    ]


def _listed(names: Sequence[str], every: bool) -> str:
    return wording.few(names, len(names) if every else FEW)


def _together(some: Sequence[Entrant], timed: bool = False) -> list[str]:
    """Names cells as products, each cell in one of them: ``lite0, lite1 × last_1, last_2 × linear, mlp``. ``timed``:
    with what a look at one of them would take.
    """
    known = {one.name: one for one in some}
    matches = filter(None, map(_NAME.fullmatch, known))
    products: list[Product] = [tuple((part,) for part in found.groups()) for found in matches]
    for axis in (HEADS, POLICIES, BACKBONES):
        products = _merged(products, axis)
    groups = [[known[" ".join(parts)] for parts in itertools.product(*axes)] for axes in products]
    words = [" × ".join(map(", ".join, axes)) for axes in products]
    named = dict(zip(words, groups, strict=True)) | {name: [known[name]] for name in known if not _NAME.fullmatch(name)}
    plain = {cells[0].name if len(cells) == 1 else product: cells for product, cells in named.items()}
    return [f"{product} ({_times(cells)})" if timed else product for product, cells in plain.items()]


def _merged(products: Sequence[Product], axis: int) -> list[Product]:
    """Returns products of which those that differ in one axis alone are one."""
    found: dict[Product, list[str]] = {}
    for product in products:
        found.setdefault(product[:axis] + product[axis + 1 :], []).extend(product[axis])
    return [(*others[:axis], tuple(values), *others[axis:]) for others, values in found.items()]


def _times(some: Sequence[Entrant]) -> str:
    """Says what a look at each of some cells would take: ``about 2 to 5 minutes each``."""
    seconds = [one.expected_seconds for one in some]
    least, most = about(min(seconds)), about(max(seconds))
    number, unit = least.split()
    span = least if least == most else f"{number if most.endswith(f' {unit}') else least} to {most}"
    return f"about {span}{' each' * (len(some) > 1)}"
