"""Reads one side of a comparison: a run, or pytest-benchmark's JSON, becomes named cells with their figures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlbench.analysis.derived import changed_axes
from tlbench.analysis.figures import FIGURES, Figure
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import Configuration, summarise
from tlbench.analysis.verdict import noise_floors
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.records.definitions import meant
from tlbench.records.machine import machine_of
from tlbench.records.resuming import current
from tlbench.records.run_folder import RECORDS, load

METRICS: dict[str, Figure] = {
    name: figure
    for name, figure in sorted(FIGURES.items(), key=lambda item: item[1].points)  # accuracies stand last
    if figure.compared
}
"""Figures that runs are compared by."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run is one side of a comparison: cells with their figures, one value a block or seed."""

    name: str
    values: Mapping[str, Mapping[str, Mapping[Any, float]]]
    """Cell -> metric -> {unit: value}."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Cell -> why it has no figures."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Cell -> noise floor of the device and machine that it ran on."""
    machine: Mapping[str, Any] = field(default_factory=dict)


# --- reading --------------------------------------------------------------------------------------------------


def read_run(path: str | Path) -> Run:
    """Reads a run's folder or records file, or pytest-benchmark's JSON (a file, or a folder of them: one block each).

    Errors: UserError when it is none of these or holds nothing to compare.
    """
    path = Path(path)
    if path.is_dir() and not (path / RECORDS).exists() and (files := sorted(path.rglob("*.json"))):
        return _from_json(path, files)
    if path.suffix == ".json":
        return _from_json(path, [path])
    loaded = load(path)
    if not loaded.records:
        raise UserError(f"no records in {str(path)!r}; `tlbench run --out DIR` makes some")
    table = rows(current(loaded.records), str(path))
    summary = summarise(table)
    names = _names(summary)
    floors = noise_floors(table)
    return Run(
        name=str(path),
        values={
            name: {metric: row["values"].get(metric) or _constant(row, metric) for metric in METRICS}
            for name, row in names.items()
            if row["status"] == "ok"
        },
        failed={name: f"{r['status']}: {r['reason']}" for name, r in names.items() if r["status"] != "ok"},
        floors={
            name: floor.relative for name, r in names.items() if (floor := floors.get((r["device"], r["machine"])))
        },
        machine=machine_of(loaded.records[0]),
    )


def _constant(row: Configuration, metric: str) -> dict[Any, float]:
    """Returns a figure that is no average over units, such as memory: one value for each record."""
    values = [r[metric] for r in row["group"] if r.status == "ok"]
    return {n: value for n, value in enumerate(values) if value is not None}


def _names(summary: Iterable[Configuration]) -> dict[str, Configuration]:
    """Gives configurations readable, unique names: by what the cell is, not by when and where it ran."""
    named: dict[str, Configuration] = {}
    for row in summary:
        name = _name(meant(row["record"]))
        named[name if name not in named else f"{name} [machine {row['machine']}]"] = row
    return named


def _name(cell: Cell) -> str:
    """Returns ``train resnet18 · last_1 · linear · digits · cpu · epochs=3``, with axes that are not at defaults."""
    parts = [cell.backbone, *([cell.freeze] if cell.task == "train" else []), cell.head, cell.dataset, cell.device]
    others = [text for name, text in changed_axes(cell).items() if not AXES[name].in_id]
    return f"{cell.task} {' · '.join([*parts, *others])}"


def _from_json(path: Path, files: Sequence[Path]) -> Run:
    """Reads pytest-benchmark's JSON: its tests are cells, an epoch or round's median the figure, seeds the units."""
    values: dict[str, dict[str, dict[Any, float]]] = {}
    machines = []
    for block, file in enumerate(files):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            benchmarks = data["benchmarks"]
            machines.append(data.get("machine_info") or {})
            for benchmark in benchmarks:
                name, seed = _without_seed(benchmark["fullname"])
                metrics = values.setdefault(name, {})
                metrics.setdefault("epoch_seconds", {})[block, seed] = _positive(benchmark["stats"]["median"])
                for metric in METRICS:
                    given = (benchmark.get("extra_info") or {}).get(metric)
                    if isinstance(given, int | float) and math.isfinite(given) and metric != "epoch_seconds":
                        metrics.setdefault(metric, {})[block, seed] = float(given)
        except OSError as error:
            raise UserError(f"cannot read {str(file)!r}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{str(file)!r} is not pytest-benchmark's JSON: {type(error).__name__} {error}") from None
    if not values:
        raise UserError(f"no benchmark in {str(path)!r}")
    machine = {key: value for key, value in machines[0].items() if not isinstance(value, dict | list)}
    return Run(name=str(path), values=values, machine=machine)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"a median of {value!r}")
    return float(value)


def _without_seed(name: str) -> tuple[str, str]:
    """Splits the seed off a benchmark's name: tlbench's ids have ``-s0`` at their end or before more axes."""
    match = re.search(r"-s(\d+)(?=[-\]])", name)
    return (name[: match.start()] + name[match.end() :], match[1]) if match else (name, "")
