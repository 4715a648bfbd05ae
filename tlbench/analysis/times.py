"""Configurations by a time or a speed: ranked, and how many times as much one takes as another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlbench.analysis import stats
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.metrics import ACCURACY, DECIDING
from tlbench.analysis.scores import standings
from tlbench.analysis.summary import Configuration

MUCH = 2.0
"""A cell is a cheaper alternative from this many times less training time on."""


def ranking(rows: Sequence[Configuration], figure: str) -> list[tuple[Configuration, stats.Ranked]]:
    """Ranks configurations by a time or a speed, best first; compared by seed or block where all have the same ones.

    Accuracies are ranked by `tlbench.analysis.scores.standings`.
    """
    by_name = {f"{n:06}": row for n, row in enumerate(rows)}
    samples = {name: row["values"][figure] for name, row in by_name.items()}
    units = next(iter(samples.values()))
    paired = all(values.keys() == units.keys() for values in samples.values())
    ranked = stats.rank(
        {name: [values[unit] for unit in (units if paired else values)] for name, values in samples.items()},
        FIGURES[figure].better == "higher",
        paired=paired,
        logarithmic=FIGURES[figure].timed,
    )
    return [(by_name[r.name], r) for r in ranked]


def within(gap: stats.Interval | None, floor: float | None) -> bool:
    """Tells whether a ratio lies within the noise floor."""
    return gap is not None and floor is not None and abs(math.log(gap.estimate)) <= math.log1p(floor)


def flagged(row: Configuration) -> str:
    """Returns what a configuration's times are flagged as; empty where some of its records have valid ones, of which
    its times are then made.
    """
    if any(item.status == "ok" and item.has_valid_times for item in row["group"]):
        return ""
    return "" if row["validity"] in (None, "ok") else str(row["validity"])


# --- a cheaper one --------------------------------------------------------------------------------------------


Doubt = Literal["", "flagged", "once", "noise"]
"""``flagged``: a time is flagged; ``once``: measured once, on a machine whose noise is unknown; ``noise``: within the
noise floor, or within what repetitions vary by."""


@dataclass(frozen=True, kw_only=True)
class Cheaper:
    """Holds a configuration that takes less training time than the pick, and how both stand."""

    row: Configuration
    times: float
    """How many times as long the pick trains."""
    doubt: Doubt
    """Why that may not be so; empty where it is beyond the noise of the machine and of repetitions."""
    figure: str
    """The accuracy, or other metric that decides, by which both are compared here: of the test images, on which nothing
    was chosen; where it was not measured, of the validation images."""
    behind: float
    """How much lower its accuracy is; negative where it is higher."""
    standing: stats.Standing
    """``behind``: one of the two is beyond chance; ``tied``: they cannot be told apart; ``cannot say``: one seed."""


def cheaper_than(
    pick: Configuration,
    others: Sequence[Configuration],
    floor: stats.NoiseFloor | None,
    first: Configuration | None = None,
) -> Cheaper | None:
    """Returns the alternative to name beside the pick: ``first`` where it is one, else of those that train in half the
    time or less the one with the highest validation accuracy; None where there is none. ``others``: best first.
    """
    seconds = pick["training_seconds"]
    if not seconds:
        return None
    known = [row for row in others if row is not pick and row["training_seconds"]]
    if first is not None and any(row is first for row in known) and first["training_seconds"] < seconds:
        found = _against(pick, first, floor)
        if not found.doubt or found.times >= MUCH:
            return found
    half = next((row for row in known if MUCH * row["training_seconds"] <= seconds), None)
    return _against(pick, half, floor) if half is not None else None


def _against(pick: Configuration, row: Configuration, floor: stats.NoiseFloor | None) -> Cheaper:
    metric = DECIDING[pick["metric"]]
    told = metric.name == ACCURACY or None not in (pick["scores"][metric.test], row["scores"][metric.test])
    figure = metric.test if told and None not in (pick[metric.test], row[metric.test]) else metric.val
    _, second = standings([pick, row], figure)
    return Cheaper(
        row=row,
        times=pick["training_seconds"] / row["training_seconds"],
        doubt=_doubt(pick, row, floor),
        figure=figure,
        behind=pick[figure] - row[figure],
        standing=second[1].standing,
    )


def _doubt(slow: Configuration, fast: Configuration, floor: stats.NoiseFloor | None) -> Doubt:
    """Says why one may not train longer than the other. One measurement of each tells it where the floor is known."""
    if flagged(slow) or flagged(fast):
        return "flagged"
    last = ranking([slow, fast], "training_seconds")[-1][1]
    if floor is not None and within(last.gap, floor.relative):
        return "noise"
    if last.standing != "cannot say" and all(row["training_seconds_low"] is not None for row in (slow, fast)):
        return "" if last.standing == "behind" else "noise"
    return "once" if floor is None else ""
