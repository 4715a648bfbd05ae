"""Has the backbone that promises most profiled before a race measures anything, so that the race can begin with it.

A race that begins with what is cheapest spends a short budget on what it will not name. To begin with the best backbone
it has to know what a look at that takes on this machine: a profile tells that the machine has of it, or else a few
training steps on random images (`tlbench.measure.profile`, in a hurry: nothing of it is kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tlbench.analysis import costing
from tlbench.campaign.entrants import USUAL, top1
from tlbench.campaign.foretelling import profiles_for
from tlbench.campaign.racing import Racing
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.values import about, taken

PROFILED_AT_MOST = 2
"""Backbones that are profiled: where neither the best one nor the one after it has room, the cheapest cell begins."""
PROFILED_SHARE = 0.1
"""Share of the budget that the profile of a backbone may take, as the rule of thumb has it."""
PASSES = 100
"""Forward passes of an image, as the rule of thumb has a training step run them, that such a profile is worth."""


def foresee_the_best(racing: Racing, say: Callable[[str], None]) -> None:
    """Profiles the backbones that promise most, the best first, until the race has room to begin with one of them;
    ``say`` is told. A race that goes on has its first look behind it. A backbone that cannot be profiled, or whose
    profile would take too much of the budget, is left to the race.
    """
    if racing.race.scores or racing.race.out:
        return
    profiled = 0
    for name in _by_promise(racing):
        cell = racing.cells[name][0]
        if not racing.is_known(name):
            if profiled == PROFILED_AT_MOST:
                break
            if not racing.may_have_room(name) or _takes_too_long(racing, cell):
                continue
            profiled += 1
            _profile(racing, cell, say)
        if racing.begins_with(name):
            break
    racing.ask_anew()


def _by_promise(racing: Racing) -> list[str]:
    """Returns the cell of the usual policy of each backbone, the cheaper head, the best backbone on ImageNet first."""
    best: dict[str, str] = {}
    for name in sorted(racing.cells, key=lambda name: (racing.expected(name), name)):
        cell = racing.cells[name][0]
        if cell.freeze == USUAL:
            best.setdefault(cell.backbone, name)
    return sorted(best.values(), key=lambda name: -top1(racing.cells[name][0].backbone))


def _takes_too_long(racing: Racing, cell: Cell) -> bool:
    seconds = PASSES * racing.campaign.times.forward_seconds(cell)
    return seconds > PROFILED_SHARE * racing.budget.seconds


def _profile(racing: Racing, cell: Cell, say: Callable[[str], None]) -> None:
    """Has a backbone profiled with the policy that is usual, and that of its head alone, whose pass both need."""
    alike = [
        one[0]
        for one in racing.cells.values()
        if costing.profile_key(one[0]) == costing.profile_key(cell) and one[0].freeze in (USUAL, "linear_probe")
    ]
    begin = time.monotonic()
    try:
        profiles, _ = profiles_for(alike, racing.campaign.plan.settings, quick=True)
    except UserError as error:  # of a name that only the processes of the run know
        say(f"what {cell.backbone} takes cannot be seen beforehand: {error}")
        return
    racing.campaign.times.know(profiles)
    name = next(iter(name for name, cells in racing.cells.items() if cells[0] == cell))
    if racing.is_known(name):
        seen = taken(time.monotonic() - begin)
        say(f"a look at {name} is expected to take {about(racing.expected(name))} (a few steps told, in {seen})")
