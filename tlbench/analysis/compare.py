"""Run against run: matched cells, ratios with intervals, and a gate that a build can fail on.

A figure has changed only if its interval excludes "no change", also among so many comparisons (Holm), and the change
exceeds the noise floor that A/A pairs measured. Cells of one run that the other lacks are listed, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.matching import Matched, match
from tlbench.analysis.sides import METRICS, Run
from tlbench.errors import UserError, lookup

DEFAULT = {
    "train": ("epoch_seconds", "training_seconds", "accuracy_test"),
    "infer": ("images_per_second", "latency_p50_ms"),
}
"""What is compared where no gate says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate such as ``epoch_seconds:10%`` fails when a cell gets worse by at least this much."""

    metric: str
    limit: float
    """A fraction; of an accuracy, 0.01 is a point."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Says what became of one figure of one cell."""

    cell: str
    metric: str
    effect: stats.Interval
    """The ratio new / base; of an accuracy, the difference new - base."""
    p_adjusted: float | None
    outcome: str
    """changed, same or cannot say."""
    reason: str

    @property
    def worse_by(self) -> float:
        """Returns how much worse it is, as a fraction (of an accuracy, of all images); negative when better."""
        metric = METRICS[self.metric]
        if metric.points:
            return metric.sign * self.effect.estimate
        return self.effect.estimate - 1 if metric.better == "lower" else 1 / self.effect.estimate - 1

    @property
    def verdict(self) -> str:
        """Returns worse, better, same, or cannot say."""
        if self.outcome != "changed":
            return self.outcome
        return "worse" if self.worse_by > 0 else "better"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds what came of comparing two runs."""

    base: str
    new: str
    changes: tuple[Change, ...]
    overall: Mapping[str, stats.Interval]
    """Metric -> geometric mean of the cells' ratios (of an accuracy, the mean difference)."""
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    failed: Mapping[str, str]
    """Cells that have figures in one run and failed in the other, with the reason."""
    floors: Mapping[str, float]
    """Cell -> the larger one of the two runs' noise floors, or the one that was given."""
    machines: Mapping[str, tuple[Any, Any]]
    """What differs between the runs' machines: key -> (base, new)."""
    regressions: tuple[Change, ...]
    undecided: tuple[str, ...]
    """Reasons why a gate cannot decide."""
    unlike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What keeps cells of both runs from being compared -> their names; they are in nothing else here."""
    cautions: tuple[str, ...] = ()
    """What a reader should know of how cells were matched."""

    @property
    def exit_status(self) -> int:
        """Returns 0: nothing a gate fails on; 1: a regression; 2: cannot compare."""
        return 1 if self.regressions else 2 if self.undecided else 0


def parse_gate(text: str) -> Gate:
    """Returns the gate that ``METRIC:N%`` describes. Errors: UserError naming the choices."""
    name, _, limit = text.partition(":")
    lookup(METRICS, "metric for --fail-on", name.strip())
    percentage = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*%\s*", limit, re.ASCII)
    if not percentage:
        raise UserError(f"--fail-on {text!r}: {limit!r} is not a percentage; write it as 'epoch_seconds:10%'")
    return Gate(metric=name.strip(), limit=float(percentage[1]) / 100)


# --- comparing ------------------------------------------------------------------------------------------------


def compare(base: Run, new: Run, gates: Sequence[Gate] = (), noise_floor: float | None = None) -> Comparison:
    """Compares the cells that both runs have.

    ``noise_floor`` replaces the ones that the runs measured themselves, of which the larger counts. Errors: UserError
    when no cell matches.
    """
    matched = match(base, new)
    if matched.unlike and not [name for name in matched.base.values if name in matched.new.values]:
        raise UserError(f"no cell of {base.name} is the same thing in {new.name}: {'; '.join(matched.unlike)}")
    base, new = matched.base, matched.new
    common = [name for name in base.values if name in new.values]
    if not common:
        raise UserError(
            f"no cell of {base.name} is in {new.name}, so there is nothing to compare: "
            f"{_some(base.values, base.failed)} against {_some(new.values, new.failed)}"
        )
    floors = dict.fromkeys(common, noise_floor) if noise_floor is not None else _larger(base.floors, new.floors)
    wanted = list(dict.fromkeys(gate.metric for gate in gates))
    changes: list[Change] = []
    overall = {}
    for metric in METRICS:
        names = [n for n in common if metric in (wanted or _default(n, base.values[n]))]
        pairs = {n: (new.values[n].get(metric) or {}, base.values[n].get(metric) or {}) for n in names}
        pairs = {n: pair for n, pair in pairs.items() if pair[0] and pair[1]}
        if pairs:
            judged = _judge(metric, pairs, floors)
            changes += judged
            overall[metric] = _overall(metric, judged)
    only_base = tuple(n for n in (*base.values, *base.failed) if n not in new.values and n not in new.failed)
    only_new = tuple(n for n in (*new.values, *new.failed) if n not in base.values and n not in base.failed)
    failed = {n: f"in {new.name}: {why}" for n, why in new.failed.items() if n in base.values}
    failed |= {n: f"in {base.name}: {why}" for n, why in base.failed.items() if n in new.values}
    regressions = tuple(
        change
        for gate in gates
        for change in changes
        if change.metric == gate.metric and change.verdict == "worse" and change.worse_by >= gate.limit
    )
    return Comparison(
        base=base.name,
        new=new.name,
        changes=tuple(changes),
        overall=overall,
        only_base=only_base,
        only_new=only_new,
        failed=failed,
        floors=floors,
        machines={
            key: (base.machine.get(key), new.machine.get(key))
            for key in dict.fromkeys([*base.machine, *new.machine])
            if base.machine.get(key) != new.machine.get(key)
        },
        regressions=regressions,
        undecided=(*unlike_reasons(gates, matched), *_undecided(gates, changes, only_base, only_new, failed)),
        unlike=matched.unlike,
        cautions=matched.cautions,
    )


def unlike_reasons(gates: Sequence[Gate], matched: Matched) -> tuple[str, ...]:
    """Says what keeps gates from deciding on cells that are not the same thing, each reason once."""
    if not gates:
        return ()
    return tuple(f"not the same thing, {len(cells)} of the cells: {why}" for why, cells in matched.unlike.items())


def _default(name: str, values: Mapping[str, Any]) -> Sequence[str]:
    task = name.split(" ", 1)[0]
    return DEFAULT.get(task) or [m for m in METRICS if values.get(m)]


def _larger(base: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    return {name: max(base.get(name, 0.0), new.get(name, 0.0)) for name in {**base, **new}}


Pairs = Mapping[str, tuple[Mapping[Any, float], Mapping[Any, float]]]
"""Cell -> the values of a figure in the new run and in the base, by unit."""


def _judge(metric: str, pairs: Pairs, floors: Mapping[str, float]) -> list[Change]:
    """Returns a change for each cell, after Holm over all. Nothing is paired: the runs' blocks are not the same."""
    if METRICS[metric].points:
        return _judge_points(metric, pairs)
    ratios = {name: stats.ratio_of(list(new.values()), list(base.values())) for name, (new, base) in pairs.items()}
    adjusted = _adjusted(ratios)
    changes = []
    for name, c in ratios.items():
        floor = floors.get(name) if METRICS[metric].timed else 0.0
        verdict = stats.verdict(c.interval, floor, adjusted.get(name))
        same = _identical(*pairs[name])
        changes.append(
            Change(
                cell=name,
                metric=metric,
                effect=c.interval,
                p_adjusted=adjusted.get(name),
                outcome="same" if same else verdict.outcome,
                reason="the very same figures" if same else verdict.reason,
            )
        )
    return changes


def _adjusted(comparisons: Mapping[str, stats.Comparison]) -> dict[str, float]:
    """Returns the p-values by Holm, of those cells that have one."""
    p_values = {name: c.p_value for name, c in comparisons.items() if c.p_value is not None}
    return dict(zip(p_values, stats.holm(list(p_values.values())), strict=True))


def _identical(new: Mapping[Any, float], base: Mapping[Any, float]) -> bool:
    return sorted(new.values()) == sorted(base.values())


def _judge_points(metric: str, pairs: Pairs) -> list[Change]:
    """Returns the changes of accuracies, on the seeds that both runs have."""
    comparisons: dict[str, stats.Comparison] = {}
    for name, (new, base) in pairs.items():
        seeds = [seed for seed in new if seed in base]
        if seeds:
            comparisons[name] = stats.paired_difference([new[s] for s in seeds], [base[s] for s in seeds])
        else:
            comparisons[name] = stats.difference_of(list(new.values()), list(base.values()))
    adjusted = _adjusted(comparisons)
    changes = []
    for name, c in comparisons.items():
        excludes, p_value = c.interval.excludes(0.0), adjusted.get(name)
        shown = f"{100 * c.interval.estimate:+.1f} points"
        if _identical(*pairs[name]):
            outcome, reason = "same", "the very same figures"
        elif excludes is None:
            outcome, reason = "cannot say", f"{shown}, but one seed gives no interval; run 3 seeds or more"
        elif excludes and p_value is not None and p_value <= 0.05:
            outcome, reason = "changed", f"{shown} ({100 * c.interval.low:+.1f} to {100 * c.interval.high:+.1f})"  # type: ignore[operator]
        else:
            outcome, reason = "same", f"{shown} is not beyond chance"
        changes.append(
            Change(cell=name, metric=metric, effect=c.interval, p_adjusted=p_value, outcome=outcome, reason=reason)
        )
    return changes


def _overall(metric: str, changes: Sequence[Change]) -> stats.Interval:
    effects = [change.effect.estimate for change in changes]
    return stats.mean_interval(effects) if METRICS[metric].points else stats.geometric_mean(effects)


def _undecided(
    gates: Sequence[Gate],
    changes: Sequence[Change],
    only_base: Sequence[str],
    only_new: Sequence[str],
    failed: Mapping[str, str],
) -> tuple[str, ...]:
    """Says what keeps the gates from deciding. Without a gate nothing has to be decided."""
    if not gates:
        return ()
    reasons = [f"only in the base: {name}" for name in only_base]
    reasons += [f"only in the new run: {name}" for name in only_new]
    reasons += [f"{name} failed {why}" for name, why in failed.items()]
    for gate in gates:
        gated = [change for change in changes if change.metric == gate.metric]
        if not gated:
            reasons.append(f"no cell has {gate.metric} in both runs")
        reasons += [
            f"{c.metric} of {c.cell}: {c.reason}"
            for c in gated
            if c.outcome == "cannot say" and (c.effect.low is None or c.worse_by >= gate.limit)
        ]
    return tuple(dict.fromkeys(reasons))


def _some(values: Mapping[str, Any], failed: Mapping[str, str]) -> str:
    names = [*values, *failed]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
