"""Picks under a user's limits: configurations that break one are excluded with the reason, as are those that learned
nothing, or have random weights beside others; the most accurate of the rest is the pick, the next one the runner-up.
How limits are written is read here too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tlbench.analysis.commands import hindrance, to_decide
from tlbench.analysis.deciding import metric_for, told
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.label_efficiency import of_size
from tlbench.analysis.learning import candidates
from tlbench.analysis.metrics import ACCURACY
from tlbench.analysis.raced import is_stopped
from tlbench.analysis.scores import standings
from tlbench.analysis.summary import Configuration
from tlbench.analysis.times import flagged
from tlbench.analysis.verdict import ties_within_a_point
from tlbench.errors import UserError
from tlbench.grid.values import size


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Says what a cell must keep to; None is no limit."""

    max_latency_ms: float | None = None
    """Limit of the 95th percentile of single images."""
    max_memory_bytes: float | None = None
    """Limit of the peak in training."""
    max_training_seconds: float | None = None
    min_accuracy: float | None = None
    """Limit of the validation accuracy, by which cells are chosen."""
    device: str | None = None
    dataset: str | None = None
    train_size: str | None = None
    """Train size that the pick is to be made at, ``all`` or a number; None takes the largest."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Gives one reason why a configuration was not picked, or may not keep to what it was picked for."""

    kind: Literal[
        "unfinished",
        "no accuracy",
        "not told",
        "train size",
        "random weights",
        "learned nothing",
        "unknown",
        "broken",
        "close",
        "behind",
        "flagged",
        "raced",
    ]
    """A record of it is not ok; it measures no accuracy; its records do not tell the metric that
    decides; it was trained on another number of images than those that are weighed; its weights are random, and
    others' are not; its accuracy
    cannot be told from knowing nothing; what a limit holds for was not measured; it breaks the limit; it keeps to the
    limit, but the end of its interval does not, or its time is flagged; others are more accurate; a race did not
    continue it.
    """
    figure: str = "accuracy_val"
    """Figure that the limit holds for."""
    value: float = math.nan
    """The configuration's figure; of one that lies behind, the difference to the pick's."""
    limit: float = math.nan
    end: float = math.nan
    """End of the interval on the limit's side."""
    standing: str = ""
    """Standing of one that lies behind: ``behind``, ``tied``, ``cannot say``."""
    flag: str = ""
    """What the time or speed that was held against the limit is flagged as; empty where it is not."""


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Names a configuration that was not picked, and says why: every limit it breaks, or how far it lies behind."""

    row: Configuration
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Holds the pick under limits, the runner-up, and why each other is neither."""

    pick: Configuration | None
    runner_up: Configuration | None
    tied: bool
    """Pick and runner-up cannot be told apart in accuracy."""
    caveats: tuple[Reason, ...]
    """Limits that the pick keeps to, but the ends of its intervals may not, or of which its time is flagged."""
    excluded: tuple[Excluded, ...]
    command: str = ""
    """Command that may tell pick and runner-up apart; empty where more seeds cannot, the images being too few."""
    hindrance: str = ""
    """The reason why they cannot be run again, where that is why there is no command."""
    unlimited: bool = False
    """Whether nothing limits the choice, so that it is that of the run's own verdict."""
    cheapest_tie: Configuration | None = None
    """Of those that cannot be told from the pick and came out within a point of it the one that trains in the least
    time, which a verdict names; None where that is the pick."""
    metric: str = ACCURACY
    """What decides, on validation images: a key of `tlbench.analysis.metrics.DECIDING`."""


LIMITED = {
    "max_latency_ms": "latency_p95_ms",
    "max_memory_bytes": "peak_memory_bytes",
    "max_training_seconds": "training_seconds",
    "min_accuracy": "accuracy_val",
}
"""Field of `Limits` -> the figure that it holds for."""
OF_INFERENCE = ("latency_p95_ms",)
"""Figures of these that are taken from the inference cell with the same model."""


def recommend(summary: Sequence[Configuration], limits: Limits) -> Recommendation:
    """Returns the most accurate configuration that keeps to the limits, or the best in the metric that decides, the
    runner-up, and why each other is neither.

    Errors: UserError when there is nothing to choose from, or the cells are of several data sets, whose accuracies
    cannot be compared, or of runs that are to be decided by different metrics.
    """
    rows = _candidates(summary, limits)
    metric = metric_for(rows)
    inference = {r["inference"]: r for r in summary if r["task"] == "infer" and r["status"] == "ok"}
    excluded, kept, caveats = [], [], {}
    measured = [row for row in rows if row["status"] == "ok" and row["accuracy_val"] is not None]
    stopped = {id(row) for row in measured if is_stopped(row)}
    judged = [row for row in measured if told(row, metric) and id(row) not in stopped]
    weighed = of_size(judged, limits.train_size)
    choice, known = candidates(weighed), set(map(id, weighed))
    others = {id(row) for row in judged if id(row) not in known}
    for row in rows:
        reasons, close = _judge(row, inference.get(row["inference"]), limits)
        if row["accuracy_val"] is not None and not told(row, metric):
            reasons = [Reason(kind="not told", figure=metric.val), *reasons]
        if (why := choice.why_not(row)) is not None:
            reasons = [Reason(kind=why), *reasons]
        if id(row) in stopped:
            reasons = [Reason(kind="raced"), *reasons]
        if id(row) in others:
            reasons = [Reason(kind="train size"), *reasons]
        if reasons:
            excluded.append(Excluded(row=row, reasons=tuple(reasons)))
        else:
            kept.append(row)
            caveats[row["configuration"]] = tuple(close)
    if not kept:
        none = Recommendation(pick=None, runner_up=None, tied=False, caveats=(), excluded=tuple(excluded))
        return replace(none, metric=metric.name)
    ranked = standings(kept, metric.val)
    pick = ranked[0][0]
    for row, r in ranked[2:]:
        by = pick[metric.val] - row[metric.val]
        behind = Reason(kind="behind", figure=metric.val, value=by, standing=r.standing)
        excluded.append(Excluded(row=row, reasons=(behind,)))
    second = ranked[1] if len(ranked) > 1 else None
    tied = second is not None and second[1].standing != "behind"
    helped = second is not None and tied and second[1].seeds_help
    both = [pick, second[0]] if second is not None else [pick]
    return Recommendation(
        pick=pick,
        runner_up=second[0] if second else None,
        tied=tied,
        caveats=caveats[pick["configuration"]],
        excluded=tuple(excluded),
        command=to_decide(both, "accuracy_val", rows) if helped else "",
        hindrance=hindrance(both, rows) if helped else "",
        metric=metric.name,
        unlimited=limits == Limits() and len({(row["device"], row["dataset"]) for row in rows}) == 1,
        cheapest_tie=_cheapest_tie(pick, [row for row, r in ranked[1:] if r.standing == "tied"], metric.val),
    )


def _cheapest_tie(pick: Configuration, ties: Sequence[Configuration], figure: str) -> Configuration | None:
    """Returns the one that trains in less time than the pick, and in the least, of those within a point of it by the
    figure; None where none does.
    """
    near = ties_within_a_point(pick, ties, figure)
    timed = [row for row in near if row["training_seconds"] is not None]
    best = min(timed, key=lambda row: row["training_seconds"], default=pick)
    return best if best is not pick and pick["training_seconds"] is not None else None


def _candidates(summary: Sequence[Configuration], limits: Limits) -> list[Configuration]:
    rows = [r for r in summary if r["task"] == "train"]
    for name, wanted in (("device", limits.device), ("dataset", limits.dataset)):
        choices = list(dict.fromkeys(r[name] for r in rows))
        if wanted is not None and wanted not in choices:
            raise UserError(f"no training cell on {name} {wanted!r} in these runs; there are: {', '.join(choices)}")
        rows = [r for r in rows if wanted in (None, r[name])]
    if not rows:
        raise UserError("these runs have no training cell, and so no accuracy to choose by; run with --task train")
    datasets = list(dict.fromkeys(r["dataset"] for r in rows))
    if len(datasets) > 1:
        raise UserError(
            f"these runs have cells of several data sets, whose accuracies cannot be compared: {', '.join(datasets)}; "
            "choose one with --dataset"
        )
    return rows


def _judge(row: Configuration, inference: Configuration | None, limits: Limits) -> tuple[list[Reason], list[Reason]]:
    """Says why a row is excluded, and which limits the ends of its intervals break."""
    if row["status"] != "ok":
        return [Reason(kind="unfinished")], []
    if row["accuracy_val"] is None:
        return [Reason(kind="no accuracy")], []
    broken, close = [], []
    for field, figure in LIMITED.items():
        limit = getattr(limits, field)
        if limit is None:
            continue
        source = (inference or {}) if figure in OF_INFERENCE else row
        if (value := source.get(figure)) is None:
            broken.append(Reason(kind="unknown", figure=figure, limit=limit))
            continue
        flag = flagged(source) if FIGURES[figure].timed else ""
        sign, side = (1, "high") if FIGURES[figure].better == "lower" else (-1, "low")
        end = source.get(f"{figure}_{side}")
        if sign * value > sign * limit:
            broken.append(Reason(kind="broken", figure=figure, value=value, limit=limit, flag=flag))
        elif end is not None and sign * end > sign * limit:
            close.append(Reason(kind="close", figure=figure, value=value, limit=limit, end=end))
        if flag:
            close.append(Reason(kind="flagged", figure=figure, value=value, limit=limit, flag=flag))
    return broken, close


# --- how limits are written -----------------------------------------------------------------------------------

_SECONDS = {"": 1, "S": 1, "MIN": 60, "M": 60, "H": 3600}
_SHARE = {"": 1, "%": 0.01}


def parse_bytes(text: str) -> int:
    """Returns the bytes that ``2GB``, ``500 MiB`` or ``1e9`` means. Errors: UserError."""
    try:
        return size(text)
    except ValueError:
        raise UserError(f"{text!r} is not a size such as 2GB or 500MB") from None


def parse_seconds(text: str) -> float:
    """Returns the seconds that ``90``, ``90s``, ``5min`` or ``2h`` means. Errors: UserError."""
    return _quantity(text, _SECONDS, "a time such as 90s, 5min or 2h")


def parse_share(text: str) -> float:
    """Returns the share that ``0.9`` or ``90%`` means. Errors: UserError."""
    share = _quantity(text, _SHARE, "a share such as 0.9 or 90%")
    if share > 1:
        raise UserError(f"{text!r} is more than all; write a share such as 0.9 or 90%")
    return share


def _quantity(text: str, units: Mapping[str, float], expected: str) -> float:
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)\s*", text, re.IGNORECASE | re.ASCII)
    factor = units.get(match[2].upper()) if match else None
    if match is None or factor is None or not math.isfinite(value := float(match[1]) * factor):
        raise UserError(f"{text!r} is not {expected}")
    return value
