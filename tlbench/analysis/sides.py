"""Reads one side of a comparison: a run, or pytest-benchmark's JSON, becomes named cells with their figures."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tlbench.analysis.derived import changed_axes
from tlbench.analysis.figures import FIGURES, Figure, Row
from tlbench.analysis.frame import rows
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.summary import Configuration, summarise
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.records import strict_json
from tlbench.records.counting import read_current
from tlbench.records.definitions import meant
from tlbench.records.identity import IDENTITY, Facts, differences
from tlbench.records.machine import SHORT, machine_of, short_hash
from tlbench.records.record import Record
from tlbench.records.run_folder import RECORDS

METRICS: dict[str, Figure] = {
    name: figure
    for name, figure in sorted(FIGURES.items(), key=lambda item: item[1].points)  # accuracies stand last
    if figure.compared
}
"""Figures that runs are compared by."""
FACTS = {f.name for f in fields(Facts)}


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
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Cell -> what earlier runs told of its device's noise (`Record.machine_noise`)."""
    predictions: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Cell -> {seed: hash of the predicted classes of the test images}."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """Cell -> what it measured; without an entry where that is not told, so that its name alone says what it is."""
    cautions: tuple[str, ...] = ()
    """What a reader should know of this side, a line each."""
    measured: frozenset[str] = frozenset()
    """Hashes of the single measurements, by which a copy is known."""
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Cell -> its rows, where records are behind it."""


# --- reading --------------------------------------------------------------------------------------------------


def read_run(path: str | Path) -> Run:
    """Reads a run's folder or records file, or pytest-benchmark's JSON (a file, or a folder of them: one block each).

    Errors: UserError when it is none of these or holds nothing to compare.
    """
    path = Path(path)
    if files := _json_files(path):
        return _from_json(path, files)
    records = read_current(path).records
    table = rows(records, str(path))
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
        machine=machine_of(records[0]),
        known={name: row["record"].machine_noise for name, row in names.items()},
        predictions={name: _predictions(row) for name, row in names.items()},
        facts={name: Facts.of(item.record for item in row["group"]) for name, row in names.items()},
        measured=frozenset(map(_measurement, records)),
        rows={name: row["group"] for name, row in names.items() if row["status"] == "ok"},
    )


def _measurement(record: Record) -> str:
    """Returns a short hash that only a copy of the record has as well."""
    seconds = [*(r.seconds for r in record.rounds), *record.latency_seconds]
    return short_hash([record.key, record.role, record.block, record.started, record.wall_seconds, seconds])


def check_apart(runs: Sequence[Run]) -> None:
    """Raises UserError where all that one run measured is in another one: a copy, or the same run under another name,
    is no second measurement.
    """
    for one, other in itertools.combinations(runs, 2):
        if one.measured and other.measured and (one.measured <= other.measured or other.measured <= one.measured):
            raise UserError(
                f"{one.name!r} and {other.name!r} are the same measurements; a run that is given twice, or copied, "
                "says nothing of how runs differ"
            )


def read_runs(path: str | Path) -> list[Run]:
    """Reads what lies at a path as the runs that it is: each of pytest-benchmark's files is one, a run's folder one.

    Errors: as `read_run`.
    """
    path = Path(path)
    return [_from_json(file, [file]) for file in _json_files(path)] or [read_run(path)]


def _json_files(path: Path) -> list[Path]:
    """Returns pytest-benchmark's files at a path; none where it is a run."""
    if path.is_dir() and not (path / RECORDS).exists():
        return sorted(path.rglob("*.json"))
    return [path] if path.suffix == ".json" else []


def _predictions(row: Configuration) -> dict[int, str]:
    found = {r.seed: r.record.predictions_sha256 for r in row["group"] if r.status == "ok" and r.record is not None}
    return {seed: sha256 for seed, sha256 in found.items() if sha256}


def _constant(row: Configuration, metric: str) -> dict[Any, float]:
    """Returns a figure that is no average over units, such as memory: one value for each record."""
    values = [r[metric] for r in row["group"] if r.status == "ok"]
    return {n: value for n, value in enumerate(values) if value is not None}


def _names(summary: Iterable[Configuration]) -> dict[str, Configuration]:
    """Gives configurations readable, unique names: by what the cell is, not by when and where it ran."""
    named: dict[str, Configuration] = {}
    for row in summary:
        name = _name(meant(row["record"]))
        if (other := named.get(name)) is not None:
            # Every row has a configuration of its own.
            column = next(c for c in (*APART, "configuration") if row[c] and other[c] and row[c] != other[c])
            name = f"{name} [{APART.get(column, column)} {str(row[column])[:SHORT]}]"
        named[name if name not in named else f"{name} [{row['configuration']}]"] = row
    return named


APART = {"machine": "machine", "weights_sha256": "weights", "images_sha256": "images"}
"""Column that tells configurations with equal axes apart -> what it is called in their names."""


def _name(cell: Cell) -> str:
    """Returns ``train resnet18 · last_1 · linear · digits · cpu · epochs=3``, with axes that are not at defaults."""
    parts = [cell.backbone, *([cell.freeze] if cell.task == "train" else []), cell.head, cell.dataset, cell.device]
    others = [text for name, text in changed_axes(cell).items() if not AXES[name].in_id]
    return f"{cell.task} {' · '.join([*parts, *others])}"


# --- pytest-benchmark's JSON ----------------------------------------------------------------------------------


def _from_json(path: Path, files: Sequence[Path]) -> Run:
    """Reads pytest-benchmark's JSON: its tests are cells, an epoch or round's median the figure, seeds the units."""
    values: dict[str, dict[str, dict[Any, float]]] = {}
    measured: set[str] = set()
    facts: dict[str, Facts] = {}
    machines, nameless = [], False
    for block, file in enumerate(files):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            machines.append(data.get("machine_info") or {})
            for benchmark in data["benchmarks"]:
                plain, seed = _without_seed(benchmark["fullname"])
                known = _facts_in(benchmark)
                nameless |= known is None
                name = _named_by(plain, known, facts) if known is not None else plain
                metrics = values.setdefault(name, {})
                metrics.setdefault("epoch_seconds", {})[block, seed] = _positive(benchmark["stats"]["median"])
                measured.add(short_hash([data.get("datetime"), benchmark["fullname"], benchmark["stats"]]))
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
    by_name = f"{path} does not say what its tests measured (weights, images, machine): they are matched by name"
    return Run(
        name=str(path),
        values=values,
        machine=machine,
        measured=frozenset(measured),
        facts=facts,
        cautions=(by_name,) if nameless else (),
    )


def _facts_in(benchmark: Mapping[str, Any]) -> Facts | None:
    """Returns what a benchmark says that it measured; None where it says nothing, as those of older versions and of
    other tests. Errors: ValueError when it is not of the form that `Facts` has.
    """
    given = (benchmark.get("extra_info") or {}).get(IDENTITY)
    if given is None:
        return None
    strict_json.check(Facts, given, IDENTITY)
    return Facts(**{name: value for name, value in given.items() if name in FACTS})


def _named_by(plain: str, known: Facts, facts: dict[str, Facts]) -> str:
    """Returns the name of the benchmark's cell, under which its facts are put: one test measures several things where
    files are of several image sizes, weights or images.
    """
    for name in itertools.chain([plain], (f"{plain} [{n}]" for n in itertools.count(2))):
        if name not in facts:
            facts[name] = known
        elif _apart(facts[name], known):
            continue
        # Each seed has a split, and initial weights, of its own.
        splits, initial = {**facts[name].splits, **known.splits}, {**facts[name].initial, **known.initial}
        facts[name] = replace(facts[name], splits=splits, initial=initial)
        return name
    raise AssertionError("unreachable")


def _apart(one: Facts, other: Facts) -> bool:
    return (one.axes, one.machine) != (other.axes, other.machine) or bool(differences(one, other))


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"a median of {value!r}")
    return float(value)


def _without_seed(name: str) -> tuple[str, str]:
    """Splits the seed off a benchmark's name: tlbench's ids have ``-s0`` at their end or before more axes."""
    match = re.search(r"-s(\d+)(?=[-\]])", name)
    return (name[: match.start()] + name[match.end() :], match[1]) if match else (name, "")
