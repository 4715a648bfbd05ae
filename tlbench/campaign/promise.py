"""Has the backbone that promises most profiled before a race measures anything, so that the race can begin with it.

A race that begins with what is cheapest spends a short budget on what it will not name. To begin with the best backbone
it has to know what a look at that takes on this machine, which a few training steps on random images tell
(`tlbench.measure.profile`), and which this machine keeps for later races.
"""

from __future__ import annotations

from collections.abc import Callable

from tlbench.analysis import costing
from tlbench.campaign.entrants import USUAL, top1
from tlbench.campaign.foretelling import profiles_for
from tlbench.campaign.racing import Racing
from tlbench.errors import UserError
from tlbench.grid.cell import Cell

PROFILED_AT_MOST = 2
"""Backbones that are profiled: where neither the best one nor the one after it has room, the cheapest cell begins."""
PROFILED_SHARE = 0.05
"""Share of the budget that the profile of a backbone may take, as the rule of thumb has it."""
PASSES = 300
"""Forward passes of an image, as a training step runs them, that such a profile is worth."""


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
    """Has a backbone profiled with the policies that keep what frozen layers compute, which are soon measured."""
    alike = [
        one[0]
        for one in racing.cells.values()
        if costing.profile_key(one[0]) == costing.profile_key(cell) and racing.campaign.times.may_share(one[0])
    ]
    try:
        profiles, _ = profiles_for(alike, racing.campaign.plan.settings, say)
    except UserError as error:  # of a name that only the processes of the run know
        say(f"{cell.backbone}: its profile cannot be measured: {error}")
    else:
        racing.campaign.times.know(profiles)
