"""The pick under a user's limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlbench.analysis.commands import _to_decide
from tlbench.analysis.verdict import Row, ranking
from tlbench.errors import UserError

# --- the pick under limits ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a cell must keep to. None: no limit."""

    max_latency_ms: float | None = None
    """Of the 95th percentile of single images."""
    max_memory_bytes: float | None = None
    """Of the peak in training."""
    max_training_seconds: float | None = None
    min_accuracy: float | None = None
    """Of the validation accuracy, by which cells are chosen."""
    device: str | None = None
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A configuration that was not picked, and why: every limit that it breaks, or how far it lies behind."""

    row: Row
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The pick under limits."""

    pick: Row | None
    runner_up: Row | None
    tied: bool
    """Pick and runner-up cannot be told apart in accuracy."""
    caveats: tuple[str, ...]
    """Limits that the pick keeps to, but the ends of its intervals may not."""
    excluded: tuple[Excluded, ...]
    command: str = ""
    """What to run to tell pick and runner-up apart."""


@dataclass(frozen=True, kw_only=True)
class _Limit:
    field: str
    figure: str
    what: str
    most: bool
    """An upper limit."""
    unknown: str


_LIMITS = (
    _Limit(
        field="max_latency_ms",
        figure="latency_p95_ms",
        what="p95 latency",
        most=True,
        unknown="its latency was not measured; run it with --task train,infer",
    ),
    _Limit(
        field="max_memory_bytes",
        figure="peak_memory_bytes",
        what="peak memory",
        most=True,
        unknown="its memory is unknown",
    ),
    _Limit(
        field="max_training_seconds",
        figure="training_seconds",
        what="training time",
        most=True,
        unknown="its training time is unknown",
    ),
    _Limit(
        field="min_accuracy",
        figure="accuracy_val",
        what="validation accuracy",
        most=False,
        unknown="its accuracy was not measured",
    ),
)


def recommend(summary: Sequence[Row], limits: Limits, show: Any = None) -> Recommendation:
    """The most accurate configuration that keeps to the limits, the runner-up, and why each other is neither.

    ``show``: figure name, value -> text (`tlbench.report.wording.figure`). Errors: UserError when there is nothing to
    choose from, or the cells are of several data sets, whose accuracies cannot be compared.
    """
    show = show or (lambda _, value: f"{value:g}")
    rows = _candidates(summary, limits)
    inference = {r["inference"]: r for r in summary if r["task"] == "infer" and r["status"] == "ok"}
    excluded, kept, caveats = [], [], {}
    for row in rows:
        reasons, close = _judge(row, inference.get(row["inference"]), limits, show)
        if reasons:
            excluded.append(Excluded(row=row, reasons=tuple(reasons)))
        else:
            kept.append(row)
            caveats[row["configuration"]] = tuple(close)
    if not kept:
        return Recommendation(pick=None, runner_up=None, tied=False, caveats=(), excluded=tuple(excluded))
    ranked = ranking(kept, "accuracy_val")
    pick = ranked[0][0]
    for row, r in ranked[2:]:
        behind = f"{100 * (pick['accuracy_val'] - row['accuracy_val']):.1f} points less accurate than the pick"
        note = {"tied": ", which may be chance", "cannot say": " on one seed"}
        excluded.append(Excluded(row=row, reasons=(behind + note.get(r.standing, ""),)))
    second = ranked[1] if len(ranked) > 1 else None
    tied = second is not None and second[1].standing != "behind"
    return Recommendation(
        pick=pick,
        runner_up=second[0] if second else None,
        tied=tied,
        caveats=caveats[pick["configuration"]],
        excluded=tuple(excluded),
        command=_to_decide([pick, second[0]], "accuracy_val") if second and tied else "",
    )


def _candidates(summary: Sequence[Row], limits: Limits) -> list[Row]:
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


def _judge(row: Row, inference: Row | None, limits: Limits, show: Any) -> tuple[list[str], list[str]]:
    """Why a row is excluded, and which limits the ends of its intervals break."""
    if row["status"] != "ok":
        return [f"{row['status']}: {row['reason']}"], []
    if row["accuracy_val"] is None:
        return ["it measures no accuracy"], []
    broken, close = [], []
    for limit in _LIMITS:
        bound = getattr(limits, limit.field)
        if bound is None:
            continue
        source = inference if limit.figure == "latency_p95_ms" else row
        value = source[limit.figure] if source is not None else None
        if value is None:
            broken.append(limit.unknown)
            continue
        assert source is not None
        sign = 1 if limit.most else -1
        far = source.get(f"{limit.figure}_{'high' if limit.most else 'low'}")
        told, bounded = show(limit.figure, value), show(limit.figure, bound)
        if sign * value > sign * bound:
            broken.append(f"{limit.what} of {told} is {'above' if limit.most else 'below'} {bounded}")
        elif far is not None and sign * far > sign * bound:
            close.append(
                f"{limit.what} of {told} keeps to {bounded}, but its interval reaches {show(limit.figure, far)}"
            )
    return broken, close


# --- how limits are written -----------------------------------------------------------------------------------

_BYTES = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECONDS = {"": 1, "S": 1, "MIN": 60, "M": 60, "H": 3600}
_SHARE = {"": 1, "%": 0.01}


def parse_bytes(text: str) -> float:
    """``2GB``, ``500 MiB``, ``1e9``. Errors: UserError."""
    return _quantity(text, _BYTES, "a size such as 2GB or 500MB")


def parse_seconds(text: str) -> float:
    """``90``, ``90s``, ``5min``, ``2h``. Errors: UserError."""
    return _quantity(text, _SECONDS, "a time such as 90s, 5min or 2h")


def parse_share(text: str) -> float:
    """``0.9``, ``90%``. Errors: UserError."""
    share = _quantity(text, _SHARE, "a share such as 0.9 or 90%")
    if share > 1:
        raise UserError(f"{text!r} is more than all; write a share such as 0.9 or 90%")
    return share


def _quantity(text: str, units: Mapping[str, float], expected: str) -> float:
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)\s*", text, re.IGNORECASE | re.ASCII)
    factor = units.get(found[2].upper()) if found else None
    if found is None or factor is None or not math.isfinite(value := float(found[1]) * factor):
        raise UserError(f"{text!r} is not {expected}")
    return value
