"""Reads one side of a comparison: a run, or pytest-benchmark's JSON, becomes named cells with their figures."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlbench.analysis.benchmarks import read_benchmarks
from tlbench.analysis.derived import changed_axes
from tlbench.analysis.figures import FIGURES, Figure, Row, column
from tlbench.analysis.folded import fold_number
from tlbench.analysis.frame import rows
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.record_source import Shared
from tlbench.analysis.summary import Configuration, values_of
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.records.counting import measurement, read_current
from tlbench.records.definitions import meant
from tlbench.records.identity import Facts
from tlbench.records.machine import SHORT, machine_of
from tlbench.records.record import Record
from tlbench.records.run_folder import RECORDS

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
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Cell -> what earlier runs told of its device's noise (`Record.machine_noise`)."""
    predictions: Mapping[str, Mapping[int, frozenset[str]]] = field(default_factory=dict)
    """Cell -> {seed: hashes of the predicted classes of the test images, one where every block predicts the same}."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """Cell -> what it measured; without an entry where that is not told, so that its name alone says what it is."""
    cautions: tuple[str, ...] = ()
    """What a reader should know of this side, a line each."""
    measured: frozenset[Hashable] = frozenset()
    """The single measurements, as what a copy is known by."""
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Cell -> its rows, where records are behind it; they tell no times."""
    shared: Mapping[str, bool] = field(default_factory=dict)
    """Cell -> whether its times are of a node that other cells may have shared."""


# --- reading --------------------------------------------------------------------------------------------------


def read_run(path: str | Path) -> Run:
    """Reads a run's folder or records file, or pytest-benchmark's JSON (a file, or a folder of them: one block each).

    Errors: UserError when it is none of these or holds nothing to compare.
    """
    path = Path(path)
    if files := _json_files(path):
        return _from_json(path, files)
    records = read_current(path, whole=False).records
    table = rows(records, str(path))
    figures = {metric: column(table, metric) for metric in METRICS}
    _check_figures(table, figures, str(path))
    names = _names(values_of(table, figures))
    floors = noise_floors(table)
    return Run(
        name=str(path),
        values={
            name: {metric: _values(row, metric) for metric in METRICS}
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
        measured=frozenset(measurement(record) for record in records if _whole(record)),
        rows=_light({name: row["group"] for name, row in names.items() if row["status"] == "ok"}),
        shared={name: True for name, row in names.items() if any(item.shares_node for item in row["timed"])},
    )


def timed_alike(runs: Sequence[Run]) -> tuple[list[Run], tuple[str, ...]]:
    """Returns runs whose times of a cell are all of one condition, and what to say of the others: where some run had
    the node to itself, the times of those that shared it with other cells are taken out.
    """

    def times(run: Run, cell: str) -> bool:
        return any(figure.timed and run.values.get(cell, {}).get(name) for name, figure in METRICS.items())

    alone = {cell for run in runs for cell in run.values if not run.shared.get(cell) and times(run, cell)}
    kept, cautions = [], []
    for run in runs:
        out = [cell for cell in run.values if run.shared.get(cell) and cell in alone and times(run, cell)]
        if out:
            cautions.append(
                f"times of {run.name} are of nodes that cells shared, those held against them are not: left out of "
                f"{len(out)} of its cells; measure with --exclusive"
            )
        values = {cell: _without_times(figures) if cell in out else figures for cell, figures in run.values.items()}
        kept.append(replace(run, values=values))
    return kept, tuple(cautions)


def _without_times(figures: Mapping[str, Mapping[Any, float]]) -> dict[str, Mapping[Any, float]]:
    return {name: {} if name in METRICS and METRICS[name].timed else values for name, values in figures.items()}


HEAVY: Mapping[str, Any] = {"rounds": (), "latency_seconds": (), "environment": {}, "detail": {}}
"""Fields that records are long for -> what is left of them in a side of a comparison."""


def _light(groups: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Returns rows without what records are long for, so that not all of every run is in memory at once: what is made
    of rounds and environments is in the values of the run.

    The records lose it themselves. They were read here and are nobody else's, and to copy them takes as long as to read
    them.
    """
    known = Shared()

    def light(row: Row) -> Row:
        assert row.record is not None, "a run is read from records"
        assert row.source is not None
        for name, nothing in HEAVY.items():
            object.__setattr__(row.record, name, nothing)
        row.source.known = known
        return row

    return {name: list(map(light, rows)) for name, rows in groups.items()}


def _whole(record: Record) -> bool:
    """Tells whether it measured anything: what failed or means nothing is no measurement that could be shared."""
    return bool(record.rounds or record.latency_seconds)


def check_apart(runs: Sequence[Run]) -> None:
    """Raises UserError where two runs hold the same measurements: a copy, whole or in part, or the same run under
    another name, is no second measurement.
    """
    for one, other in itertools.combinations(runs, 2):
        shared = len(one.measured & other.measured)
        if shared:
            whole = shared == min(len(one.measured), len(other.measured))
            what = f"are the same measurements ({shared})" if whole else f"share measurements ({shared} of them)"
            raise UserError(
                f"{one.name!r} and {other.name!r} {what}; a run that is given twice, or copied, says nothing of how "
                "runs differ"
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


def _predictions(row: Configuration) -> dict[int, frozenset[str]]:
    """Returns what each seed predicted, in all of its folds, of the seeds of which every record tells."""
    found: dict[int, dict[int, set[str | None]]] = {}
    for r in row["group"]:
        if r.status == "ok" and r.record is not None:
            found.setdefault(r.seed, {}).setdefault(fold_number(r), set()).add(r.record.predictions_sha256)
    return {
        seed: frozenset(
            map(" ".join, itertools.product(*(sorted(filter(None, of_folds[fold])) for fold in sorted(of_folds))))
        )
        for seed, of_folds in found.items()
        if all(all(several) for several in of_folds.values())
    }


def _values(row: Configuration, metric: str) -> Mapping[Any, float]:
    known: Mapping[str, Mapping[Any, float]] = row["values"]
    return known[metric] if metric in known else _constant(row, metric)


def _constant(row: Configuration, metric: str) -> dict[Any, float]:
    """Returns a figure that is no average over units, such as memory: one value for each seed and block, the most."""
    values: dict[Any, float] = {}
    for r, value in zip(row["group"], column(row["group"], metric), strict=True):
        if r.status == "ok" and value is not None:
            values[r.seed, r.block] = max(value, values.get((r.seed, r.block), value))
    return values


def _check_figures(table: Sequence[Row], columns: Mapping[str, Sequence[Any]], run: str) -> None:
    """Raises UserError for a time, speed or size of 0 or below, of which there is no ratio. ``columns``: of the rows,
    by figure.
    """
    for metric in (name for name, figure in METRICS.items() if not figure.points):
        for row, value in zip(table, columns[metric], strict=True):
            if value is not None and not value > 0 and row.status == "ok":
                raise UserError(
                    f"{run!r} cannot be compared: {metric} of {row.id!r} is {value:g}, which is no {metric}"
                )


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


def _from_json(path: Path, files: Sequence[Path]) -> Run:
    """Reads pytest-benchmark's JSON as one run, a block a file. Errors: UserError."""
    found = read_benchmarks(files)
    if not found.values:
        raise UserError(f"no benchmark in {str(path)!r}")
    by_name = f"{path} does not say what its tests measured (weights, images, machine): they are matched by name"
    return Run(
        name=str(path),
        values=found.values,
        machine=found.machine,
        measured=frozenset(found.measured),
        facts=found.facts,
        cautions=(by_name,) if found.nameless else (),
    )
