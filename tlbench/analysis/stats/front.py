"""The Pareto front of points whose places are known within intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlbench.analysis.stats.student import Interval

Position = Literal["on the front", "dominated", "cannot say"]


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """Gives a point's position, and the index of a point that dominates it, or may ("cannot say"); else None."""

    position: Position
    by: int | None


def pareto(points: Sequence[tuple[Interval, Interval]]) -> list[Pareto]:
    """Finds the front of (cost, value) points, low cost and high value being good; answers in the order given.

    A point dominates another when its cost is no higher and its value no lower, one of them strictly.
    "dominated": by some point, wherever in their intervals the two really lie. "on the front": by no point, wherever
    they lie. "cannot say": otherwise. An end that is None may lie anywhere, so a point measured once can leave its
    neighbours undecided; leave it out to see the front of the others. Takes O(n log n).
    """
    cost_low, cost_high = _ends([cost for cost, _ in points])
    value_low, value_high = _ends([value for _, value in points])
    surely = _dominators(cost_high, value_low, cost_low, value_high)
    perhaps = _dominators(cost_low, value_high, cost_high, value_low)
    answers: list[Pareto] = []
    for sure, may in zip(surely, perhaps, strict=True):
        if sure is not None:
            answers.append(Pareto(position="dominated", by=sure))
        else:
            answers.append(Pareto(position="on the front" if may is None else "cannot say", by=may))
    return answers


def _ends(axis: Sequence[Interval]) -> tuple[list[float], list[float]]:
    low = [-math.inf if i.low is None else i.low for i in axis]
    high = [math.inf if i.high is None else i.high for i in axis]
    return low, high


def _dominators(
    cost: list[float], value: list[float], own_cost: list[float], own_value: list[float]
) -> list[int | None]:
    """Returns for each i some j ≠ i with cost[j] ≤ own_cost[i] and value[j] ≥ own_value[i], one of them strictly; else
    None.

    Sweeps by cost, keeping the two highest values so far: the second one answers for the point that holds the first.
    """
    answer: list[int | None] = [None] * len(cost)
    arrivals = sorted(range(len(cost)), key=cost.__getitem__)
    queries = sorted(range(len(cost)), key=own_cost.__getitem__)
    for strict_cost in (True, False):
        top: list[int] = []
        arrived = 0
        for i in queries:
            while arrived < len(arrivals) and (
                cost[arrivals[arrived]] < own_cost[i] or (not strict_cost and cost[arrivals[arrived]] == own_cost[i])
            ):
                top = sorted([*top, arrivals[arrived]], key=value.__getitem__, reverse=True)[:2]
                arrived += 1
            for j in top:
                better = value[j] > own_value[i] or (strict_cost and value[j] == own_value[i])
                if j != i and better and answer[i] is None:
                    answer[i] = j
    return answer
