"""Reads pytest-benchmark's JSON: its tests are cells, an epoch or round's median the figure, seeds the units."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tlbench.analysis.figures import FIGURES
from tlbench.errors import UserError
from tlbench.records import strict_json
from tlbench.records.identity import IDENTITY, Facts, differences

FACTS = {f.name for f in fields(Facts)}
GIVEN = [name for name, figure in FIGURES.items() if figure.compared and name != "epoch_seconds"]
"""Figures that a benchmark may have beside its time, in ``extra_info``."""


@dataclass(kw_only=True)
class Benchmarks:
    """Holds what files say, gathered one after the other."""

    values: dict[str, dict[str, dict[Any, float]]] = field(default_factory=dict)
    """Cell -> metric -> {unit: value}; an accuracy's unit is its seed."""
    measured: set[Hashable] = field(default_factory=set)
    """The single measurements, as what a copy is known by."""
    facts: dict[str, Facts] = field(default_factory=dict)
    """Cell -> what it measured, where that is told."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Of the first file."""
    nameless: bool = False
    """Some test does not say what it measured."""


def read_benchmarks(files: Sequence[Path]) -> Benchmarks:
    """Reads the files, each a block. Errors: UserError naming the file, and the test where it is one's."""
    found = Benchmarks()
    for block, file in enumerate(files):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            machine = data.get("machine_info") or {}
            if block == 0:
                found.machine = {key: value for key, value in machine.items() if not isinstance(value, dict | list)}
            # Without a date, figures that happen to be equal make no copy; a whole file of them does.
            origin = data.get("datetime") or _hash(data["benchmarks"])
            for benchmark in data["benchmarks"]:
                _add(found, block, benchmark, str(file))
                found.measured.add(_hash([origin, benchmark["fullname"], benchmark["stats"]]))
        except OSError as error:
            raise UserError(f"cannot read {str(file)!r}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{str(file)!r} is not pytest-benchmark's JSON: {type(error).__name__} {error}") from None
    return found


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _add(found: Benchmarks, block: int, benchmark: Mapping[str, Any], file: str) -> None:
    """Adds one test's figures. Errors: UserError for a figure that cannot be one; what else is off, as it comes."""
    full = benchmark["fullname"]
    plain, seed = _without_seed(full)
    known = _facts_in(benchmark)
    found.nameless |= known is None
    name = _named_by(plain, known, found.facts) if known is not None else plain
    metrics = found.values.setdefault(name, {})
    extra = benchmark.get("extra_info") or {}
    given = {"epoch_seconds": benchmark["stats"]["median"], **{metric: extra.get(metric) for metric in GIVEN}}
    for metric, value in given.items():
        number = _number(value)
        if number is None and metric != "epoch_seconds":
            continue
        if number is None or not _can_be(metric, number):
            shown = f"{value!r}" if len(str(value)) <= LONGEST else f"{str(value)[:LONGEST]}…"
            what = "a median" if metric == "epoch_seconds" else metric
            raise UserError(f"{file!r} cannot be compared: {full!r} has {what} of {shown}, which it cannot be")
        unit = int(seed) if FIGURES[metric].points and seed else (block, seed)
        metrics.setdefault(metric, {})[unit] = number


LONGEST = 40
"""Most characters of a value that a message shows."""


def _number(value: Any) -> float | None:
    """Returns a number; infinity for a whole number that no float holds; None for what is none, or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number


def _can_be(metric: str, number: float) -> bool:
    """Tells whether a figure may be this: a share of all images, or what a ratio can be made of."""
    return 0 <= number <= 1 if FIGURES[metric].points else 0 < number < math.inf


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


def _without_seed(name: str) -> tuple[str, str]:
    """Splits the seed off a benchmark's name: tlbench's ids have ``-s0`` at their end or before more axes."""
    match = re.search(r"-s(\d+)(?=[-\]])", name)
    return (name[: match.start()] + name[match.end() :], match[1]) if match else (name, "")
