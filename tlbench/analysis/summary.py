"""Rows of single records -> one row a configuration, over seeds and blocks, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, geometric_mean
from typing import TYPE_CHECKING, Any

from tlbench.analysis.frame import COLUMNS, STEP_PARTS, identity

if TYPE_CHECKING:
    pass


# --- one row a configuration ----------------------------------------------------------------------------------

TIMES = (
    "epoch_seconds", "training_seconds", "images_per_second", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms",
)  # fmt: skip
"""Figures of time: their middle is the geometric mean over blocks or seeds, their interval Student's t on logs."""
ACCURACIES = ("accuracy_val", "accuracy_test")
"""Their middle is the mean over seeds, their interval Student's t."""
INFERENCE = ("images_per_second", "latency_p50_ms", "latency_p95_ms", "peak_memory_bytes")
"""Figures of the inference cell that a training row shows as well: what its model costs in use."""
GRADES = ("ok", "drifting", "noisy", "throttled")
STATUS_ORDER = ("ok", "not_applicable", "skipped", "interrupted", "diverged", "timeout", "oom", "failed")
CONSTANT = (
    "task", "backbone", "weights", "freeze", "head", "dataset", "device", "precision", "memory_format", "batch_size",
    "image_size", "epochs", "variant", "total_parameters", "trainable_parameters", "train_images", "val_images",
    "test_images", "classes", "cut", "optimizer", "lr", "backbone_lr", "lr_trials", "flops_forward", "flops_train_step",
    "flops_prefix", "prefix_where", "prefix_bytes", "weights_requested", "weights_source", "weights_reason",
    "machine", "hardware", "configuration", "inference",
)  # fmt: skip
"""The same for every record of a configuration: taken from the first that knows it."""
MEANS = (*(f"{part}_seconds" for part in STEP_PARTS), "ceiling_share", "energy_joules", "loss_test", "prefix_seconds",
         "epoch_iqr_seconds")  # fmt: skip

SUMMARY: dict[str, str] = {
    **{name: COLUMNS[name] for name in CONSTANT[: CONSTANT.index("total_parameters")]},
    "status": "ok when every record is; else the worst of them",
    "reason": "why it is not ok",
    "validity": "of the timing: ok, or the worst of the records",
    "validity_reason": "why it is not ok, and how many of the records are left out of the times for it",
    "records": "of this configuration, over seeds and blocks",
    "records_ok": "of them with status ok; the figures are theirs",
    "seeds": "seeds with status ok: what the accuracies are averaged over",
    "units": "blocks, or where there is one block, seeds: what the times are averaged over",
    "accuracy_val": "mean over seeds; cells are chosen by it",
    "accuracy_val_low": "95 % interval over seeds",
    "accuracy_val_high": "95 % interval over seeds",
    "accuracy_test": "mean over seeds; nothing is chosen by it",
    "accuracy_test_low": "95 % interval over seeds",
    "accuracy_test_high": "95 % interval over seeds",
    "accuracy_test_wilson_low": "95 % interval that the number of test images leaves (Wilson)",
    "accuracy_test_wilson_high": "95 % interval that the number of test images leaves (Wilson)",
    **{
        key: text
        for name in TIMES
        for key, text in {
            name: "geometric mean over blocks or seeds; " + COLUMNS[name],
            f"{name}_low": "95 % interval over blocks or seeds",
            f"{name}_high": "95 % interval over blocks or seeds",
        }.items()
    },
    **{
        f"inference_{name}": "of the inference cell with the same backbone, head and settings; " + COLUMNS[name]
        for name in INFERENCE
    },
    "peak_memory_bytes": "the most of all records; " + COLUMNS["peak_memory_bytes"],
    **{name: COLUMNS[name] for name in CONSTANT[CONSTANT.index("total_parameters") :]},
    **{name: COLUMNS[name] for name in MEANS},
    "run": "folders of the runs that the records come from",
}
"""Columns of `summarise`, of report.csv and of the table in the report."""


def summarise(table: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each configuration, in order of appearance, with the keys of `SUMMARY`, and beside them what
    they are made of: ``group`` (the rows), ``record`` (the first record), ``values`` ({figure: {unit: value}}). A/A
    measurements are left out.
    """
    summary = [_summary(group) for group in _groups(without_twins(table))]
    inferring = {row["inference"]: row for row in summary if row["task"] == "infer" and row["status"] == "ok"}
    for row in summary:
        found = inferring.get(row["inference"], {})
        row |= {f"inference_{name}": found.get(name) for name in INFERENCE}
    return summary


def _groups(table: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows by configuration. One that failed before its weights were known goes with its cell's others."""
    known: dict[tuple[Any, ...], set[str]] = {}
    for item in table:
        if item["weights_source"] is not None:
            known.setdefault(_cell_and_machine(item), set()).add(item["configuration"])
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in table:
        others = known.get(_cell_and_machine(item), set())
        alone = item["weights_source"] is not None or len(others) != 1
        groups.setdefault(item["configuration"] if alone else next(iter(others)), []).append(item)
    return list(groups.values())


def _cell_and_machine(item: Mapping[str, Any]) -> tuple[Any, ...]:
    # The image size is resolved together with the weights.
    return (*identity(item, ("image_size",)).values(), item["machine"])


def without_twins(table: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows less the A/A measurements, which repeat a cell only to measure the noise."""
    return [item for item in table if item["role"] != "aa"]


def _summary(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    good = [r for r in group if r["status"] == "ok"]
    worst = max(group, key=lambda r: STATUS_ORDER.index(r["status"]))
    valid = [r for r in good if r["validity"] in (None, "ok")]
    timed = valid or good
    values = {
        **{name: _by(good, name, lambda r: r["seed"], fmean) for name in ACCURACIES},
        **{name: _by(timed, name, _unit(timed), geometric_mean) for name in TIMES},
    }
    return {
        **{name: _first([*good, *group], name) for name in CONSTANT},
        "status": worst["status"],
        "reason": _reason(group),
        "validity": max((r["validity"] for r in good if r["validity"]), key=_grade, default=None),
        "validity_reason": _validity_reason(good, valid),
        "records": len(group),
        "records_ok": len(good),
        "seeds": len({r["seed"] for r in good}),
        "units": len({_unit(timed)(r) for r in timed}),
        **_intervals(values, _first(good, "test_images")),
        "peak_memory_bytes": max((r["peak_memory_bytes"] for r in good if r["peak_memory_bytes"]), default=None),
        **{name: _mean(timed, name) for name in MEANS},
        "run": ", ".join(dict.fromkeys(r["run"] for r in group)),
        "values": values,
        "group": group,
        "record": group[0].get("record"),
    }


def _unit(timed: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], Any]:
    """What counts as one measurement of time: the block, in which all seeds share the machine's mood; else the seed."""
    if len({(r["run"], r["block"]) for r in timed}) > 1:
        return lambda r: (r["run"], r["block"])
    return lambda r: r["seed"]


def _by(
    group: Sequence[Mapping[str, Any]],
    name: str,
    unit: Callable[[Mapping[str, Any]], Any],
    middle: Callable[..., float],
) -> dict[Any, float]:
    found: dict[Any, list[float]] = {}
    for r in group:
        if (value := r[name]) is not None and value == value:  # NaN is how a DataFrame says unknown
            found.setdefault(unit(r), []).append(value)
    return {key: middle(numbers) if len(numbers) > 1 else numbers[0] for key, numbers in found.items()}


def _intervals(values: Mapping[str, Mapping[Any, float]], test_images: int | None) -> dict[str, Any]:
    from tlbench.analysis import stats

    found: dict[str, Any] = {}
    for name, by_unit in values.items():
        numbers = list(by_unit.values())
        low = high = middle = None
        if len(numbers) == 1:
            middle = numbers[0]
        elif numbers:
            interval = (stats.mean_interval if name in ACCURACIES else stats.log_interval)(numbers)
            middle, low, high = interval.estimate, interval.low, interval.high
        found |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    accuracy = found["accuracy_test"]
    wilson = stats.wilson(round(accuracy * test_images), test_images) if accuracy is not None and test_images else None
    found["accuracy_test_wilson_low"] = wilson and wilson.low
    found["accuracy_test_wilson_high"] = wilson and wilson.high
    return found


def _first(group: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((r[name] for r in group if r[name] is not None), None)


def _mean(group: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [r[name] for r in group if r[name] is not None]
    return fmean(known) if known else None


def _grade(validity: str) -> int:
    return GRADES.index(validity) if validity in GRADES else len(GRADES)


def _reason(group: Sequence[Mapping[str, Any]]) -> str:
    """``seed 1, 2: the loss is not a number``, each reason once."""
    seeds: dict[str, list[str]] = {}
    for r in group:
        if r["status"] != "ok":
            seeds.setdefault(r["reason"], []).append(str(r["seed"]))
    if len(seeds) == 1 and all(r["status"] != "ok" for r in group):
        return next(iter(seeds))
    return "; ".join(f"seed {', '.join(dict.fromkeys(own))}: {reason}" for reason, own in seeds.items())


def _validity_reason(good: Sequence[Mapping[str, Any]], valid: Sequence[Mapping[str, Any]]) -> str | None:
    bad = [r for r in good if r not in valid] if len(valid) < len(good) else []
    if not bad:
        return None
    reasons = "; ".join(dict.fromkeys(r["validity_reason"] or r["validity"] for r in bad))
    left_out = "left out of the times" if valid else "all there is"
    return f"{len(bad)} of {len(good)}, {left_out}: {reasons}"
