"""What became of a figure of a cell: worse, better, the same within a margin, or it cannot be said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tlbench.analysis import stats
from tlbench.analysis.repetitions import CLAIM, Sides, shown
from tlbench.analysis.sides import METRICS

MARGINS = {False: 0.05, True: 0.01}
"""What is called the same, unless a gate asks otherwise: within 5 % of a time, within a point of an accuracy."""
IDENTICAL = "identical"
NO_RUNS = (
    "one run a side, and no earlier runs of these cells, or of cells about as long, tell how far apart runs come out "
    "on this machine; give several runs a side (BASE… -- NEW…), or measure in turns (--against)"
)
ONE_BLOCK = "one block in turns gives no interval; measure 3 (--blocks 3)"
ONE_SEED = "one seed is shared by both sides: it gives no interval; run the same 3 seeds or more on both"
NO_SEED = "no seed is shared by both sides, and one of them has one alone; run the same 3 seeds or more on both"
NO_SPREAD = "the values agree to the last bit, which tells nothing of how they vary"


@dataclass(frozen=True, kw_only=True)
class Change:
    """Says what became of one figure of one cell."""

    cell: str
    metric: str
    base: float
    new: float
    """Means over runs, blocks and seeds: geometric ones of times and speeds; of an accuracy over the seeds that both
    sides have, where there are such."""
    effect: stats.Interval
    """The ratio new / base; of an accuracy, the difference new - base. Without ends where nothing tells the spread."""
    p_adjusted: float | None
    verdict: str
    """worse, better, same (within a margin), or cannot say."""
    reason: str
    """Why it cannot be said, or what "same" means here."""

    @property
    def worse_by(self) -> float:
        """Returns how much worse it is, as a fraction (of an accuracy, of all images); negative when better."""
        metric = METRICS[self.metric]
        if metric.points:
            return metric.sign * self.effect.estimate
        return self.effect.estimate - 1 if metric.better == "lower" else 1 / self.effect.estimate - 1


def judge(sides: Sides, pairs: Sequence[tuple[str, str]], margins: Mapping[str, float]) -> list[Change]:
    """Returns a change for each cell and metric, after Holm over all of them."""
    estimates = {pair: sides.estimate(pair[1], pair[0]) for pair in pairs}
    p_values = {pair: found.p_value() for pair, found in estimates.items() if found is not None}
    adjusted = dict(zip(p_values, stats.holm(list(p_values.values())), strict=True))
    changes = []
    for (metric, cell), found in estimates.items():
        new, base = map(fmean, sides.averaged(cell, metric))
        unscaled = float if METRICS[metric].points else stats.exp
        p_adjusted = adjusted.get((metric, cell))
        margin = margins.get(metric, MARGINS[METRICS[metric].points])
        same = sides.identical(cell, metric)
        verdict, reason = ("same", IDENTICAL) if same else _verdict(found, metric, p_adjusted, margin)
        if found is None and not same:
            reason = _why_no_interval(sides, cell, metric)
        changes.append(
            Change(
                cell=cell,
                metric=metric,
                base=unscaled(base),
                new=unscaled(new),
                effect=shown(found, new - base, metric),
                p_adjusted=p_adjusted,
                verdict=verdict,
                reason=reason,
            )
        )
    return changes


def _why_no_interval(sides: Sides, cell: str, metric: str) -> str:
    if METRICS[metric].points:
        shared, *_ = sides.seeds(cell, metric)
        return ONE_SEED if len(shared) == 1 else NO_SPREAD if shared else NO_SEED
    if min(map(len, sides.averaged(cell, metric))) > 1:
        return NO_SPREAD
    return ONE_BLOCK if sides.in_turns else NO_RUNS


def _verdict(found: stats.Estimate | None, metric: str, p_adjusted: float | None, margin: float) -> tuple[str, str]:
    if found is None:
        return "cannot say", ""
    points = METRICS[metric].points
    interval = found.interval(CLAIM)
    assert interval.low is not None
    assert interval.high is not None
    if p_adjusted is not None and p_adjusted <= 1 - CLAIM and abs(found.centre) > stats.ROUNDING:
        return ("worse" if towards_worse(found, metric).centre > 0 else "better"), ""
    reach = margin if points else math.log1p(margin)
    limits = f"{100 * margin:g} {'points' if points else '%'}"
    if -reach <= interval.low and interval.high <= reach:
        return "same", f"within {limits}"
    return "cannot say", f"its interval reaches beyond {limits}"


def towards_worse(found: stats.Estimate, metric: str) -> stats.Estimate:
    """Returns a difference that is positive where the figure became worse."""
    return found if METRICS[metric].sign > 0 else replace(found, centre=-found.centre)
