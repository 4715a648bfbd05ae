"""Records -> tidy rows and DataFrames. All derived figures are computed here, from raw seconds and counts.

`row` needs nothing heavy, so that an export answers at once; `frame` and `summarise` return pandas DataFrames.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from tlbench.grid import AXES, Cell
from tlbench.record import Record, Round

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, str] = {
    "task": "train or infer",
    "backbone": "name, with the weights' tag after @ where one was asked for",
    "weights": "pretrained, random, or the checkpoint's file name: what the cell really started from",
    "freeze": "freeze policy; none for inference, which does not depend on it",
    "head": "what is put on the pooled features",
    "dataset": "digits, synthetic, folder:PATH",
    "device": "cpu, cuda, cuda:1, …",
    "precision": "fp32, …",
    "seed": "of split, head, batch order and stochastic layers",
    "status": "ok, skipped, not_applicable, failed, oom, diverged, interrupted",
    "reason": "why the status is not ok",
    "total_parameters": "of backbone and head",
    "trainable_parameters": "that train in any phase",
    "epoch_seconds": "median over the epochs; empty for a schedule, whose phases differ, and for training-free heads",
    "training_seconds": "all rounds of training, and the one-off cost of the frozen prefix where it is stored",
    "accuracy_val": "share of the validation images classified correctly after training",
    "accuracy_test": "share of the test images, looked at once",
    "images_per_second": "of the median round: training, or inference in batches; empty where epoch_seconds is",
    "latency_p50_ms": "of one image at batch size 1",
    "latency_p95_ms": "of one image at batch size 1",
    "peak_memory_bytes": "CUDA: allocated by torch; CPU: resident in the process",
    # --- beyond the export
    "key": "16 hexadecimal digits that identify the cell",
    "id": "the cell's readable name",
    "run": "folder of the run",
    "started": "UTC",
    "wall_seconds": "the whole cell, building, warming up and evaluating included",
    "latency_p99_ms": "empty below 299 single images, which a 95 % bound needs",
    "loss_test": "mean cross-entropy on the test images",
    "weights_requested": "as the grid says: auto, pretrained, random, a path",
    "weights_source": "name of the weights enum, of a package, a path, or random",
    "weights_reason": "why auto fell back to random weights",
    "image_size": "pixels a side, resolved",
    "batch_size": "images in a batch",
    "epochs": "of training",
    "train_images": "in the training split",
    "val_images": "in the validation split",
    "test_images": "in the test split",
    "dropped_images": "left out because they could not be read",
    "classes": "of the data set",
    "optimizer": "as used",
    "lr": "learning rate of the head, as used",
    "backbone_lr": "learning rate of the backbone, as used",
    "cut": "first stage that trains or adapts; what lies before it is the frozen prefix",
    "phases": "seconds an epoch by phase, for schedules",
    "round_seconds": "seconds of each timed round, in order",
    "epoch_iqr_seconds": "spread of the epochs: third minus first quartile; spread, not an interval",
    "machine": "short hash of what must agree before records are averaged: hardware, libraries, settings",
    "configuration": "short hash of every field of the cell but the seed, and of the machine",
}
EXPORT_COLUMNS = tuple(COLUMNS)[: list(COLUMNS).index("key")]
"""Of `tlbench export`: the tidy table."""

P99_IMAGES = 299
SHORT = 8


def row(record: Record, run: str = "") -> dict[str, Any]:
    """One record as a flat row: the keys of `COLUMNS`; what is unknown is None."""
    cell, rounds = record.cell, record.rounds
    single_phase = len({r.phase for r in rounds}) == 1
    seconds = [r.seconds for r in rounds]
    training = cell.task == "train"
    recipe = record.recipe
    machine = machine_key(record)
    return {
        "task": cell.task,
        "backbone": cell.backbone,
        "weights": weights_label(record),
        "freeze": cell.freeze,
        "head": cell.head,
        "dataset": cell.dataset,
        "device": cell.device,
        "precision": cell.precision,
        "seed": cell.seed,
        "status": record.status,
        "reason": record.reason,
        "total_parameters": record.total_parameters,
        "trainable_parameters": record.trainable_parameters,
        "epoch_seconds": median(seconds) if training and single_phase else None,
        "training_seconds": sum(seconds) if training and rounds else None,
        "accuracy_val": record.accuracy_val,
        "accuracy_test": record.accuracy_test,
        "images_per_second": _images_per_second(rounds) if single_phase else None,
        "latency_p50_ms": _milliseconds(record.latency_seconds, 0.50, least=1),
        "latency_p95_ms": _milliseconds(record.latency_seconds, 0.95, least=20),
        "peak_memory_bytes": record.peak_memory_bytes,
        "key": record.key,
        "id": record.id,
        "run": run,
        "started": record.started,
        "wall_seconds": record.wall_seconds,
        "latency_p99_ms": _milliseconds(record.latency_seconds, 0.99, least=P99_IMAGES),
        "loss_test": record.loss_test,
        "weights_requested": cell.weights,
        "weights_source": record.weights.get("source"),
        "weights_reason": record.weights.get("reason"),
        "image_size": record.image_size or cell.image_size,
        "batch_size": cell.batch_size,
        "epochs": cell.epochs if training else None,
        "train_images": record.samples.get("train"),
        "val_images": record.samples.get("val"),
        "test_images": record.samples.get("test"),
        "dropped_images": record.dropped_images,
        "classes": record.classes,
        "optimizer": recipe.get("optimizer"),
        "lr": recipe.get("lr"),
        "backbone_lr": recipe.get("backbone_lr"),
        "cut": record.cut,
        "phases": _by_phase(rounds) if training and not single_phase else None,
        "round_seconds": seconds,
        "epoch_iqr_seconds": _iqr(seconds) if training and single_phase else None,
        "machine": machine,
        "configuration": _configuration(cell, machine),
    }


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A row for each record, in order."""
    return [row(record) for record in records]


def weights_label(record: Record) -> str:
    """What the cell started from; before that is known, what was asked for."""
    if not record.weights:
        return record.cell.weights if record.cell.weights in ("auto", "pretrained", "random") else "checkpoint"
    source, requested = str(record.weights["source"]), record.cell.weights
    if requested in ("auto", "pretrained", "random"):
        return "pretrained" if record.weights.get("pretrained") else "random"
    return Path(source).name


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between the order statistics, as numpy's default."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _milliseconds(seconds: Sequence[float], share: float, least: int) -> float | None:
    return 1000 * quantile(seconds, share) if len(seconds) >= least else None


def _iqr(seconds: Sequence[float]) -> float | None:
    return quantile(seconds, 0.75) - quantile(seconds, 0.25) if len(seconds) >= 4 else None


def _images_per_second(rounds: Sequence[Round]) -> float | None:
    return median(r.samples / r.seconds for r in rounds if r.seconds > 0) if rounds else None


def _by_phase(rounds: Sequence[Round]) -> dict[str, float] | None:
    """Median seconds of each phase's rounds: a schedule's phases cost different amounts, so none are pooled."""
    phases: dict[str, list[float]] = {}
    for r in rounds:
        phases.setdefault(r.phase, []).append(r.seconds)
    return {name: median(seconds) for name, seconds in phases.items()} or None


# --- what may be averaged -------------------------------------------------------------------------------------


def machine_of(record: Record) -> dict[str, Any]:
    """Everything that must agree before two records are averaged: hardware, libraries, torch's settings."""
    environment = record.environment
    stable, settings = environment.get("stable", {}), environment.get("settings", {})
    return {**stable, **{f"settings.{key}": value for key, value in settings.items()}}


def machine_key(record: Record) -> str:
    """A short hash of `machine_of`."""
    return _short_hash(machine_of(record))


def machine_differences(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Key -> (machine key -> value), for the keys that differ between the records' machines."""
    machines = {machine_key(record): machine_of(record) for record in records}
    names = dict.fromkeys(name for values in machines.values() for name in values)
    table = {name: {key: values.get(name) for key, values in machines.items()} for name in names}
    return {name: values for name, values in table.items() if len({_text(v) for v in values.values()}) > 1}


def _configuration(cell: Cell, machine: str) -> str:
    fields = {name: getattr(cell, name) for name in ["task", *AXES, "precision"] if name != "seed"}
    return _short_hash({**fields, "machine": machine})


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()[:SHORT]


# --- tables ---------------------------------------------------------------------------------------------------


def write_csv(table: Iterable[Mapping[str, Any]], file: TextIO, columns: Sequence[str] = EXPORT_COLUMNS) -> None:
    """Rows as CSV with full precision; None is an empty field."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for item in table:
        writer.writerow([_plain(item.get(name)) for name in columns])


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return value


def frame(records: Iterable[Record], run: str = "") -> pd.DataFrame:
    """One row a record, the columns of `COLUMNS`; unknown numbers are NaN."""
    import pandas as pd

    table = pd.DataFrame([row(record, run) for record in records], columns=list(COLUMNS))
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name])
    return table


NUMBERS = (
    "seed", "total_parameters", "trainable_parameters", "epoch_seconds", "training_seconds", "accuracy_val",
    "accuracy_test", "images_per_second", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "peak_memory_bytes",
    "wall_seconds", "loss_test", "image_size", "batch_size", "epochs", "train_images", "val_images", "test_images",
    "dropped_images", "classes", "lr", "backbone_lr", "epoch_iqr_seconds",
)  # fmt: skip
