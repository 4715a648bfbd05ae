"""Records -> tidy rows and DataFrames. All derived figures are computed here, from raw seconds and counts.

A row stands for one record; `summarise` turns rows into one row a configuration, over seeds and blocks, with
intervals. `row` needs nothing heavy, so that an export answers at once.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, TextIO

from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.records.machine import _short_hash, machine_key
from tlbench.records.record import Record, Round

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
    "status": "ok, skipped, not_applicable, failed, oom, timeout, diverged, interrupted",
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
    "passed_over_files": "beside the images, no images by their names",
    "repeated_val_images": "validation images whose pixels are also in the training split",
    "repeated_test_images": "test images whose pixels are also in the training split",
    "classes": "of the data set",
    "optimizer": "as used",
    "lr": "learning rate of the head, as used",
    "backbone_lr": "learning rate of the backbone, as used",
    "cut": "first stage that trains or adapts; what lies before it is the frozen prefix",
    "phases": "seconds an epoch by phase, for schedules",
    "lr_trials": "learning rates that --lr auto tried first; none where the rate was given",
    "variant": "the cell's other axes that are not at their defaults: train-size=150, lr=0.01",
    "block": "of the shuffled block that the record was measured in",
    "role": "cell, or aa: one of two identical cells that measure the noise floor",
    "validity": "ok, noisy, throttled, drifting",
    "validity_reason": "why it is not ok",
    "memory_format": "of activations and weights, as used: contiguous, channels_last",
    "flops_forward": "floating-point operations of the forward pass, an image",
    "flops_train_step": "of a training step, an image; of a schedule, the mean over its epochs",
    "flops_prefix": "of the part of the frozen prefix whose output is kept, an image",
    "prefix_where": "where the frozen prefix's output is kept: memory, disk; none where it is computed anew",
    "prefix_seconds": "one-off cost of computing and storing it",
    "prefix_bytes": "its size",
    "data_seconds": "of a training step: loading, moving and normalising the batch",
    "forward_seconds": "of a training step: forward pass and loss",
    "backward_seconds": "of a training step: backward pass",
    "optimizer_seconds": "of a training step: the optimizer's update",
    "ceiling_flops_per_second": "of a large matrix product in the same precision and thread count, in the same run",
    "ceiling_share": "floating-point operations a second achieved over the ceiling, which a convolution may exceed",
    "energy_joules": "of the timed rounds",
    "round_phase": "phase of each timed round",
    "round_seconds": "seconds of each timed round, in order",
    "round_samples": "images of each timed round",
    "round_loss": "mean training loss of each epoch",
    "round_accuracy_val": "validation accuracy after each epoch",
    "latency_ms": "milliseconds of each single image",
    "epoch_iqr_seconds": "spread of the epochs: third minus first quartile; spread, not an interval",
    "machine": "short hash of what must agree before records are averaged: hardware, libraries, settings",
    "hardware": "short hash of hardware and libraries alone, without torch's settings",
    "configuration": "short hash of every field of the cell but the seed, of the weights' source and of the machine",
    "inference": "short hash of what inference depends on, which a training cell shares with its inference cell",
}
EXPORT_COLUMNS = tuple(COLUMNS)[: list(COLUMNS).index("key")]
"""Of `tlbench export`: the tidy table."""

P99_IMAGES = 299
STEP_PARTS = ("data", "forward", "backward", "optimizer")
NAMED = (
    "task", "backbone", "weights", "freeze", "head", "dataset", "device", "precision", "batch_size", "image_size",
    "epochs", "seed",
)  # fmt: skip
"""Axes that are columns of their own; the others are in ``variant`` where they are not at their defaults."""
TRAINING_ONLY = (
    "freeze", "epochs", "train_size", "optimizer", "lr", "backbone_lr", "weight_decay", "schedule", "warmup",
    "label_smoothing", "augment", "bn_momentum", "fused",
)  # fmt: skip
"""Fields of a cell that inference does not depend on."""


def row(record: Record, run: str = "") -> dict[str, Any]:
    """One record as a flat row: the keys of `COLUMNS`, what is unknown being None, and the ``record`` itself."""
    cell, rounds = record.cell, record.rounds
    single_phase = len({r.phase for r in rounds}) == 1
    seconds = [r.seconds for r in rounds]
    training = cell.task == "train"
    recipe = record.recipe
    machine = machine_key(record)
    flops, prefix, detail = (_mapping(record, name) for name in ("flops", "prefix", "detail"))
    train_step, prefix_flops = (_over_epochs(flops.get(name), rounds) for name in ("train_step", "prefix"))
    images_per_second = _images_per_second(rounds) if single_phase else None
    ceiling = getattr(record, "ceiling_flops_per_second", None)
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
        "training_seconds": sum(seconds) + (prefix.get("seconds") or 0) if training and rounds else None,
        "accuracy_val": record.accuracy_val,
        "accuracy_test": record.accuracy_test,
        "images_per_second": images_per_second,
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
        "passed_over_files": record.passed_over_files,
        "repeated_val_images": record.repeated_images.get("val"),
        "repeated_test_images": record.repeated_images.get("test"),
        "classes": record.classes,
        "optimizer": recipe.get("optimizer"),
        "lr": recipe.get("lr"),
        "backbone_lr": recipe.get("backbone_lr"),
        "cut": record.cut,
        "phases": _by_phase(rounds) if training and not single_phase else None,
        "lr_trials": len(record.lr_trials) if training else None,
        "variant": _variant(cell),
        "block": getattr(record, "block", None),
        "role": getattr(record, "role", "cell"),
        "validity": getattr(record, "validity", None) or None,
        "validity_reason": getattr(record, "validity_reason", None) or None,
        "memory_format": _mapping(record, "layout").get("chosen"),
        "flops_forward": flops.get("forward"),
        "flops_train_step": train_step,
        "flops_prefix": prefix_flops,
        "prefix_where": prefix.get("where"),
        "prefix_seconds": prefix.get("seconds"),
        "prefix_bytes": prefix.get("bytes"),
        **{f"{part}_seconds": detail.get(part) for part in STEP_PARTS},
        "ceiling_flops_per_second": ceiling,
        "ceiling_share": _product(
            _less(train_step, prefix_flops) if training else flops.get("forward"),
            images_per_second,
            1 / ceiling if ceiling else None,
        ),
        "energy_joules": getattr(record, "energy_joules", None),
        "round_phase": [r.phase for r in rounds],
        "round_seconds": seconds,
        "round_samples": [r.samples for r in rounds],
        "round_loss": [r.loss for r in rounds],
        "round_accuracy_val": [r.accuracy_val for r in rounds],
        "latency_ms": [1000 * s for s in record.latency_seconds],
        "epoch_iqr_seconds": _iqr(seconds) if training and single_phase else None,
        "machine": machine,
        "hardware": _short_hash(record.environment.get("stable", {})),
        "configuration": _short_hash(
            {**_fields(cell, ("seed",)), "machine": machine, "source": record.weights.get("source")}
        ),
        "inference": _short_hash({**_fields(cell, ("task", "seed", *TRAINING_ONLY)), "machine": machine}),
        "record": record,
    }


def rows(records: Sequence[Record], run: str | Sequence[str] = "") -> list[dict[str, Any]]:
    """A row for each record, in order. ``run`` is the name of their run, or of each record's."""
    names = [run] * len(records) if isinstance(run, str) else run
    return [row(record, name) for record, name in zip(records, names, strict=True)]


def _mapping(record: Record, name: str) -> Mapping[str, Any]:
    """A field that records of older versions lack."""
    return getattr(record, name, None) or {}


def _over_epochs(by_phase: Any, rounds: Sequence[Round]) -> float | None:
    """The mean over the epochs of a figure that is known for each phase."""
    if not isinstance(by_phase, Mapping):
        return by_phase if isinstance(by_phase, int | float) else None
    known = [by_phase[r.phase] for r in rounds if r.phase in by_phase]
    return fmean(known) if known and len(known) == len(rounds) else None


def _less(all_: float | None, part: float | None) -> float | None:
    """What is left without a part that is not there where it is unknown."""
    return None if all_ is None else all_ - (part or 0)


def _product(*factors: float | None) -> float | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


def _variant(cell: Cell) -> str:
    """``train-size=150 augment=flip``: the axes without a column of their own that are not at their defaults."""
    default = Cell()
    return " ".join(
        f"{axis.option}={getattr(cell, name)}"
        for name, axis in AXES.items()
        if name not in NAMED and getattr(cell, name) != getattr(default, name)
    )


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


def _fields(cell: Cell, without: Sequence[str]) -> dict[str, Any]:
    """The fields that are not at their defaults, so that a field of a later version leaves the hash as it is."""
    default = vars(Cell())
    return {name: value for name, value in vars(cell).items() if name not in without and value != default[name]}


def identity(row: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """What makes two rows, of records or configurations, the same cell whatever the seed, run and machine."""
    left_out = ("weights", "seed", *without)
    return {name: row[name] for name in ("weights_requested", "variant", *NAMED) if name not in left_out}


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


def frame(table: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame: one row a record, the columns of `COLUMNS`; unknown numbers are NaN."""
    import pandas as pd

    data = pd.DataFrame(list(table), columns=list(COLUMNS))
    for name in NUMBERS:
        data[name] = pd.to_numeric(data[name])
    return data


def load(*runs: str | Path) -> pd.DataFrame:
    """The records of one or several runs as a tidy DataFrame, one row a record.

    Its columns are explained in `COLUMNS`; `tlbench.plots` draws it. Damaged lines of a records file are left out
    with a warning. Errors: UserError for a run that is not there or has no record.
    """
    import warnings

    from tlbench.records.run_folder import load as load_run

    table: list[dict[str, Any]] = []
    for run in runs:
        loaded = load_run(run)
        for line in loaded.damaged:
            warnings.warn(f"set aside {line}", stacklevel=2)
        if not loaded.records:
            raise UserError(f"no records in {str(run)!r}; `tlbench run --out DIR` makes some")
        table += rows(loaded.records, str(run))
    return frame(table)


TEXTS = (
    "task", "backbone", "weights", "freeze", "head", "dataset", "device", "precision", "status", "reason", "key", "id",
    "run", "started", "weights_requested", "weights_source", "weights_reason", "optimizer", "cut", "phases", "variant",
    "role", "validity", "validity_reason", "memory_format", "prefix_where", "machine", "hardware", "configuration",
    "inference",
)  # fmt: skip
LISTS = ("round_phase", "round_seconds", "round_samples", "round_loss", "round_accuracy_val", "latency_ms")
NUMBERS = tuple(name for name in COLUMNS if name not in TEXTS and name not in LISTS)
