"""What freezing buys: the speed-up over `full` that the FLOPs of a training step promise, against the one measured.

FLOPs are no time. What reads the batch, what the optimizer does, what every call costs however little it computes,
and what moves memory without computing (norm layers, activations) does not shrink with them; where the promise is
not kept, the part of a step that lags behind most is the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.figures import Row
from tlbench.analysis.grouping import identity
from tlbench.analysis.summary import Configuration

BASE = "full"
KEPT = 0.9
"""Share of the promise from which on it is kept."""
REASONS = {
    "data": "batches take as long to read, to move and to normalise, whatever trains",
    "launch": "every operation takes a while to start, however little it computes",
    "optimizer": "the update of what trains takes its time",
    "memory": "norm layers, activations and copies move memory, which FLOPs do not count",
    "unknown": "measure with --detail on to see where a step's time goes",
}


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Holds one configuration against the one that trains everything and is equal otherwise."""

    row: Configuration
    base: Configuration
    promised: float
    """FLOPs of the base's training step over its own, less what is kept of the frozen prefix."""
    measured: stats.Interval
    """How many times as fast an epoch is."""
    reason: str | None
    """A key of `REASONS`; None where the promise is kept."""

    @property
    def share(self) -> float:
        """Returns the share of the promise that was kept; above 1 where it was exceeded."""
        return self.measured.estimate / self.promised


def freeze_efficiency(summary: Iterable[Configuration]) -> list[Efficiency]:
    """Holds every finished training configuration against the `full` one that is equal in everything but the policy, on
    the same machine. Those without a `full` one are left out. ``summary``: of `tlbench.analysis.summary.summarise`.

    Left out are schedules and training-free heads, which have no one epoch, and records without FLOPs.
    """
    bases: dict[tuple[Any, ...], Configuration] = {}
    usable = [row for row in summary if row["status"] == "ok" and row["epoch_seconds"] and _flops(row)]
    for row in usable:
        if row["freeze"] == BASE:
            bases[_place(row)] = row
    return [_against(row, bases[_place(row)]) for row in usable if row["freeze"] != BASE and _place(row) in bases]


def _place(row: Configuration) -> tuple[Any, ...]:
    return (*identity(row, ("freeze",)).values(), row["machine"])


def _flops(row: Configuration) -> float | None:
    """Returns the FLOPs of an epoch's steps for one image, less what is kept of the frozen prefix."""
    step: float | None = row["flops_train_step"]
    return None if step is None else step - (row["flops_prefix"] or 0)


def _against(row: Configuration, base: Configuration) -> Efficiency:
    work, base_work = _flops(row), _flops(base)
    assert work is not None
    assert base_work is not None
    promised, measured = base_work / work, _measured(row, base)
    kept = measured.estimate >= KEPT * promised
    return Efficiency(
        row=row, base=base, promised=promised, measured=measured, reason=None if kept else _reason(row, base, promised)
    )


def _measured(row: Configuration, base: Configuration) -> stats.Interval:
    """Returns the ratio of the epochs: in the same blocks, where both have the same ones."""
    epochs, base_epochs = row["values"]["epoch_seconds"], base["values"]["epoch_seconds"]
    if set(epochs) == set(base_epochs):
        return stats.paired_ratio([base_epochs[unit] for unit in epochs], list(epochs.values())).interval
    return stats.ratio_of(list(base_epochs.values()), list(epochs.values())).interval


def _reason(row: Configuration, base: Configuration, promised: float) -> str:
    parts, base_parts = _parts(row["timed"]), _parts(base["timed"])
    if parts is None or base_parts is None:
        return "unknown"
    # Had every part shrunk by what was promised, none would lag.
    return max(parts, key=lambda name: parts[name] - base_parts[name] / promised)


def _parts(group: Sequence[Row]) -> dict[str, float] | None:
    """Returns the seconds of a step by reason; None where no record has them."""
    records = [r.record for r in group if r.status == "ok" and r.record is not None]
    details = [record.detail for record in records if "launch" in record.detail]
    if not details:
        return None
    mean = {name: fmean(detail[name] for detail in details) for name in details[0]}
    computing = mean["forward"] + mean["backward"]
    launch = min(mean["launch"], computing)
    return {
        "data": mean["data"], "launch": launch, "optimizer": mean["optimizer"], "memory": computing - launch,
    }  # fmt: skip
