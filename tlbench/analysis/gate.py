"""Gates that a build can fail on: a cell passes where its whole interval stays within the limit, and fails where all
of it is beyond; else it cannot be said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tlbench.analysis import stats
from tlbench.analysis.changes import IDENTICAL, Change, towards_worse
from tlbench.analysis.repetitions import CLAIM, Sides
from tlbench.analysis.sides import METRICS
from tlbench.errors import UserError, lookup


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate such as ``epoch_seconds:10%`` fails when a cell gets worse by more than this."""

    metric: str
    limit: float
    """A fraction; of an accuracy, 0.01 is a point."""

    def __str__(self) -> str:
        """Returns it as people write it."""
        return f"{self.metric}:{100 * self.limit:g}%"


@dataclass(frozen=True, kw_only=True)
class Gated:
    """Says what a gate says of one cell: pass, fail or cannot say; and why not, and what would decide it."""

    gate: Gate
    cell: str
    outcome: stats.Gated
    reason: str = ""
    needs: str = ""
    """What would decide it, where it cannot be said."""


def parse_gate(text: str) -> Gate:
    """Returns the gate that ``METRIC:N%`` describes. Errors: UserError naming the choices."""
    name, _, limit = text.partition(":")
    lookup(METRICS, "metric for --fail-on", name.strip())
    percentage = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", limit, re.ASCII)
    if not percentage:
        raise UserError(f"--fail-on {text!r}: {limit!r} is not a percentage; write it as 'epoch_seconds:10%'")
    return Gate(metric=name.strip(), limit=float(percentage[1]) / 100)


def gated(sides: Sides, gates: Sequence[Gate], changes: Sequence[Change]) -> tuple[Gated, ...]:
    """Says of every gated cell whether it passes. What fails does so after Holm over all that is gated; to pass, every
    cell has to, which needs no correction.
    """
    tested = [(gate, c) for gate in gates for c in changes if c.metric == gate.metric]
    found: dict[int, tuple[stats.Estimate, float]] = {}
    for number, (gate, change) in enumerate(tested):
        estimate = sides.estimate(change.cell, gate.metric)
        if estimate is not None:
            limit = gate.limit if METRICS[gate.metric].points else math.log1p(gate.limit)
            found[number] = towards_worse(estimate, gate.metric), limit
    tails = {number: estimate.p_above(limit) for number, (estimate, limit) in found.items()}
    adjusted = dict(zip(tails, stats.holm(list(tails.values())), strict=True))
    return tuple(
        _one_gated(gate, change, found.get(number), adjusted.get(number))
        for number, (gate, change) in enumerate(tested)
    )


def _one_gated(
    gate: Gate, change: Change, found: tuple[stats.Estimate, float] | None, p_adjusted: float | None
) -> Gated:
    if change.verdict == "same" and change.reason == IDENTICAL:
        return Gated(gate=gate, cell=change.cell, outcome="pass")
    if found is None:
        return Gated(gate=gate, cell=change.cell, outcome="cannot say", reason=change.reason)
    estimate, limit = found
    outcome = estimate.gated(limit, CLAIM)
    if outcome == "fail" and p_adjusted is not None and p_adjusted > 1 - CLAIM:
        outcome = "cannot say"
    if outcome != "cannot say":
        return Gated(gate=gate, cell=change.cell, outcome=outcome)
    what = "seeds" if METRICS[gate.metric].points else "runs a side, or blocks in turns"
    more = estimate.enough(limit, CLAIM)
    needs = f"about {more} {what}" if more else f"more than {stats.MOST} {what}"
    return Gated(gate=gate, cell=change.cell, outcome="cannot say", reason=HOLDS_THE_LIMIT, needs=needs)


HOLDS_THE_LIMIT = "the interval holds the limit of the gate"


def undecided(
    gates: Sequence[Gate],
    changes: Sequence[Change],
    only_base: Sequence[str],
    only_new: Sequence[str],
    failed: Mapping[str, str],
) -> tuple[str, ...]:
    """Says what beside the cells' own figures keeps the gates from deciding: each reason once, with its cells."""
    reasons = []
    for what, names in (("only in the base", only_base), ("only in the new run", only_new)):
        if names:
            reasons.append(f"{what}: {few(names)}")
    grouped: dict[str, list[str]] = {}
    for name, why in failed.items():
        grouped.setdefault(why, []).append(name)
    reasons += [f"failed {why}: {few(names)}" for why, names in grouped.items()]
    measured = {change.metric for change in changes}
    reasons += [f"no cell has {gate.metric} on both sides" for gate in gates if gate.metric not in measured]
    return tuple(dict.fromkeys(reasons))


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
