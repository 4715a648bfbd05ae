"""What a cell leaves behind: one `Record`, one line of strict JSON. Nothing here imports torch.

Raw seconds and raw counts are stored; everything derived from them is computed in `tlbench.frame`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tlbench.grid import Cell

SCHEMA = 1

STATUSES = {
    "ok": "finished; its figures can be used",
    "skipped": "something it needs is not here (weights, a device); the reason says how to get it",
    "not_applicable": "means nothing for this backbone (`norm` without normalisation layers)",
    "failed": "raised an error; the reason names it",
    "oom": "ran out of memory",
    "diverged": "the loss became infinite or not a number",
    "interrupted": "stopped by the user before it finished",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a cell is measured; what is measured is in `Cell`."""

    throughput_rounds: int = 10
    """Rounds of the throughput measurement."""
    throughput_batches: int = 2
    """Batches in one of those rounds; the clock is synchronised only at the ends."""
    latency_rounds: int = 300
    """Single images timed one by one: a p99 needs 299 for a 95 % bound."""
    bad_images: str = "fail"
    """What to do about images that cannot be read: fail, or skip (the record counts them)."""
    threads: int | None = None
    """Threads within an operation; None leaves torch's default."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One timed round: an epoch of training, or a few batches of inference."""

    phase: str
    """Name of the policy's phase, or ``throughput``."""
    seconds: float
    samples: int
    """Images processed; the last, smaller batch counts its real size."""
    trainable_parameters: int = 0
    loss: float | None = None
    """Mean training loss over the epoch's images."""
    accuracy_val: float | None = None
    """Share of validation images classified correctly after this epoch."""
    loss_val: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything known about one run of one cell. Unknown is None, never 0."""

    schema: int = SCHEMA
    id: str
    cell: Cell
    settings: Settings
    status: str
    reason: str = ""
    started: str
    """UTC, ISO 8601."""
    wall_seconds: float | None = None
    """The whole cell, building, warming up and evaluating included."""
    suite_version: str
    weights: Mapping[str, Any] = field(default_factory=dict)
    """source, sha256 of the initial backbone weights, pretrained, reason (why not, under ``auto``)."""
    image_size: int | None = None
    classes: int | None = None
    samples: Mapping[str, int] = field(default_factory=dict)
    """Images in train, val and test."""
    dropped_images: int = 0
    """Left out because they could not be read."""
    data_sha256: str | None = None
    """Of the data set's content and split."""
    total_parameters: int | None = None
    trainable_parameters: int | None = None
    """Parameters that train in any phase."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Optimizer, learning rates, decay, schedule, augmentation as used, every default resolved."""
    lr_trials: tuple[Mapping[str, Any], ...] = ()
    """With ``--lr auto``: each rate that was tried, its validation accuracy and loss, and the seconds it took."""
    cut: str | None = None
    """First stage with anything that trains or adapts; the stages before it are the frozen prefix."""
    rounds: tuple[Round, ...] = ()
    latency_seconds: tuple[float, ...] = ()
    """One for each single-image forward pass."""
    accuracy_val: float | None = None
    accuracy_test: float | None = None
    loss_test: float | None = None
    predictions_sha256: str | None = None
    """Of the predicted classes of the test images, in order."""
    frozen_sha256_before: str | None = None
    frozen_sha256_after: str | None = None
    peak_memory_bytes: int | None = None
    """CUDA: most memory allocated in a step. CPU: most resident memory of the process in a step."""
    baseline_memory_bytes: int | None = None
    """The same measure before the model was built."""
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The cell's key."""
        return self.cell.key

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and texts, ready for strict JSON."""
        return {**asdict(self), "key": self.key}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The record that `to_dict` wrote. Fields that a newer version added are ignored.

        Errors: ValueError when it is no record or of a newer schema.
        """
        try:
            if int(data["schema"]) > SCHEMA:
                raise ValueError(f"schema {data['schema']} is newer than this tlbench reads ({SCHEMA})")
            known = _known(cls, data)
            known["cell"] = Cell(**_known(Cell, known["cell"]))
            known["settings"] = Settings(**_known(Settings, known["settings"]))
            known["rounds"] = tuple(Round(**_known(Round, item)) for item in known.get("rounds", ()))
            known["lr_trials"] = tuple(known.get("lr_trials", ()))
            known["latency_seconds"] = tuple(float(s) for s in known.get("latency_seconds", ()))
            record = cls(**known)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from None
        if record.status not in STATUSES:
            raise ValueError(f"not a record: unknown status {record.status!r}")
        return record


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in dict(data).items() if key in names}
