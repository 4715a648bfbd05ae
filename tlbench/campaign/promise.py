"""Has the backbone that promises most profiled before a race measures anything, so that the race can begin with it.

A race that begins with what is cheapest spends a short budget on what it will not name. To begin with the best backbone
it has to know what a look at that takes on this machine. A profile tells that the machine has of it; or else a few
training steps on random images do (`tlbench.measure.profile`, in a hurry: nothing of it is kept), of the least backbone
of its family: what others of a family take follows from their operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlbench.analysis import costing
from tlbench.backbones.known import BACKBONES
from tlbench.campaign.entrants import USUAL, top1
from tlbench.campaign.foretelling import profiles_for
from tlbench.campaign.racing import Racing
from tlbench.console import because
from tlbench.grid.cell import Cell
from tlbench.grid.values import about

MARGIN = 1.25
"""By how much a backbone may take longer than what another one of its family tells."""
PROFILED_SHARE = 0.1
"""Share of the budget that such steps may take, as the rule of thumb has it."""
PASSES = 100
"""Forward passes of an image, as that rule has a training step run them, that they are worth."""


def foresee_the_best(racing: Racing, say: Callable[[str], None]) -> None:
    """Finds the best backbone that the race has room to begin with, has what tells that measured where it is not known,
    and has the race begin with it; ``say`` is told. A race that goes on has its first look behind it. Families that
    cannot be profiled, or whose profile would take too much of the budget, are left to the race.
    """
    if racing.race.scores or racing.race.out:
        return
    usual = _usual(racing)
    told: dict[str, float] = {}
    """Family -> by how much its least backbone is off the rule of thumb."""
    for name in sorted(usual, key=lambda name: -top1(racing.cells[name][0].backbone)):
        family = _family(racing.cells[name][0])
        if not racing.is_known(name) and family not in told and racing.may_have_room(name):
            told[family] = _off(racing, [one for one in usual if _family(racing.cells[one][0]) == family], say)
        if racing.is_known(name):
            seconds = racing.expected(name) * (MARGIN if racing.is_known_in_a_hurry(name) else 1.0)
        elif (off := told.get(family, 0.0)) > 0:
            seconds = MARGIN * off * racing.by_rule(name)
        else:
            continue
        if racing.has_room(name, seconds):
            say(f"it begins with {name}, which is expected to take up to {about(seconds)}")
            racing.begin_with(name)
            return


def _family(cell: Cell) -> str:
    """Returns the architecture that a backbone is one of; one that is not known is its own."""
    info = BACKBONES.get(cell.backbone.partition("@")[0])
    return info.family if info is not None else cell.backbone


def _usual(racing: Racing) -> list[str]:
    """Returns the cell of the usual policy of each backbone, that with the cheaper head."""
    cheapest: dict[str, str] = {}
    for name in sorted(racing.cells, key=lambda name: (racing.expected(name), name)):
        cell = racing.cells[name][0]
        if cell.freeze == USUAL:
            cheapest.setdefault(cell.backbone, name)
    return list(cheapest.values())


def _off(racing: Racing, names: Sequence[str], say: Callable[[str], None]) -> float:
    """Returns how many times as long as the rule of thumb has it a look takes at cells of one family, as the least of
    them tells by a few training steps; 0 where it cannot.
    """
    least = min(names, key=racing.by_rule)
    cell, times, settings = racing.cells[least][0], racing.campaign.times, racing.campaign.plan.settings
    by_rule = racing.by_rule(least)
    if racing.is_known(least):
        return racing.expected(least) / by_rule
    if cell.device != "cpu" and settings.isolate != "none":
        return 0.0  # what this process had on the device would be a foreign one's to all cells
    if PASSES * times.forward_seconds(cell) > PROFILED_SHARE * racing.budget.seconds:
        return 0.0
    policies = (USUAL, "linear_probe")  # the pass over frozen layers is for both
    alike = [
        one[0]
        for one in racing.cells.values()
        if costing.profile_key(one[0]) == costing.profile_key(cell) and one[0].freeze in policies
    ]
    try:
        profiles, _ = profiles_for(alike, settings, say, quick=True)
    except Exception as error:  # the code of a model may raise anything, which its own cell will tell
        say(f"{cell.backbone}: what it takes cannot be seen beforehand: {because(error)}")
        return 0.0
    times.know(profiles)
    return racing.expected(least) / by_rule if racing.is_known(least) else 0.0
