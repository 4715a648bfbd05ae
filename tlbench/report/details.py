"""Works out what the page's script shows of one configuration: records, curves, machine and command, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlbench.analysis import commands
from tlbench.analysis.derived import quantiles
from tlbench.analysis.figures import Row, column, each_column
from tlbench.analysis.folded import images_of
from tlbench.analysis.scores import discordance
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Scope
from tlbench.records.machine import settings_of
from tlbench.report import wording


def machines_of(table: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Maps each machine to its devices, and its stable facts and settings as flat names and values."""
    machines: dict[str, dict[str, Any]] = {}
    every = list(table)
    for item, key in zip(every, column(every, "machine"), strict=True):
        record = item.record
        assert record is not None, "a report is made from records"
        if key not in machines:
            stable, settings = record.environment.get("stable", {}), settings_of(record)
            machines[key] = {
                "devices": {},
                "processor": stable.get("gpu") if record.cell.device != "cpu" else stable.get("cpu_model"),
                "threads": settings.get("threads"),
                "torch": stable.get("torch"),
                "facts": dict(_flat({**stable, **settings})),
            }
        machines[key]["devices"][record.cell.device] = None
    return {key: {**machine, "devices": list(machine["devices"])} for key, machine in machines.items()}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", wording.text(value)


def details_of(
    summary: Sequence[Configuration],
    machines: Mapping[str, Any],
    scopes: Sequence[Scope] = (),
    pictures: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns what the script shows of each configuration; of some, what is known of its classes
    (`tlbench.report.class_pictures`). Names are short, since there may be 10,000.
    """
    pictures = pictures or {}
    differs = wording.varying(summary)
    contents = commands.contents_of(summary)
    leaders = {
        row["configuration"]: pick.row
        for scope in scopes
        for pick in scope.picks
        if pick.question == "accurate" and pick.row is not None
        for row in scope.rows
    }
    return {
        "machines": {key: machine["facts"] for key, machine in machines.items()},
        "cells": {
            row["configuration"]: _detail(row, differs, leaders.get(row["configuration"]))
            | {"c": _again(row, contents)}
            | ({"k": pictures[row["configuration"]]} if row["configuration"] in pictures else {})
            for row in summary
        },
    }


def _again(row: Configuration, contents: commands.Contents) -> str:
    """Returns the command that runs a configuration again, or a comment that says why there is none."""
    if why := commands.hindrance_by([row], contents):
        return f"# cannot be run again: {why}"
    return commands.command([item.record for item in row["group"][:1]], sorted({item.seed for item in row["group"]}))


def _detail(row: Configuration, differs: Sequence[str], leader: Configuration | None) -> dict[str, Any]:
    facts = {
        "weights": wording.text(row["weights_source"]),
        "optimizer": _optimizer(row),
        "trains from": row["cut"],
        "images": ", ".join(f"{_images(row, f'{part}_images')} to {verb}" for part, verb in USES.items())
        if row["train_images"]
        else None,
        "test images allow": _wilson(row),
        "validation images against the best": _against(row, leader),
        "memory layout": row["memory_format"],
        "prefix kept in": row["prefix_where"],
    }
    return {
        "n": f"{row['task']} {wording.label(row, differs)}",
        "m": row["machine"],
        "f": {name: value for name, value in facts.items() if value},
        "r": _runs(row["group"]),
    }


USES = {"train": "train", "val": "validate", "test": "test"}


def _images(row: Configuration, name: str) -> str:
    """Writes how many images a split has: from the least to the most where its seeds have different splits."""
    fewest, most = images_of(row, name)
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _optimizer(row: Configuration) -> str | None:
    """Says what trains; learning rates that seeds have chosen may differ."""
    if not row["optimizer"]:
        return None
    if row["lr"]:
        return f"{row['optimizer']}, learning rate {row['lr']:g}"
    return f"{row['optimizer']}, each seed with the learning rate that it chose" if row["lr_trials"] else None


def _wilson(row: Configuration) -> str | None:
    """Says how far the accuracy may lie off because the test images are so few."""
    low, high = row["accuracy_test_wilson_low"], row["accuracy_test_wilson_high"]
    return None if low is None else f"{wording.share_end(low)} to {wording.share_end(high)} % of test accuracy"


def _against(row: Configuration, leader: Configuration | None) -> str | None:
    """Says on how many validation images only this configuration, or only the leader, is right."""
    if leader is None or row is leader or row["task"] != "train" or not row["scores"]["accuracy_val"]:
        return None
    return wording.discordances(discordance(row["group"], leader["group"]), "this one", "the most accurate") or None


STEPS = [n / 20 for n in range(21)]


SHOWN = (
    "run", "seed", "block", "status", "reason", "validity", "validity_reason", "accuracy_val", "accuracy_test",
    "round_seconds", "round_accuracy_val", "round_phase", "latency_ms", "task",
)  # fmt: skip
"""Figures of a record that the script shows."""


def _runs(group: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns each record: status, rounds, accuracies, latency as its 5 % steps."""
    return [_run(*told) for told in zip(*each_column(group, SHOWN), strict=True)]


def _run(*told: Any) -> dict[str, Any]:
    run, seed, block, status, reason, validity, why, val, test, seconds, accuracies, phases, latencies, task = told
    facts = {
        "run": run,
        "seed": seed,
        "block": block,
        "status": status,
        "reason": reason,
        "validity": validity if validity != "ok" else None,
        "why": why,
        "val": _rounded(val),
        "test": _rounded(test),
        "s": [_rounded(value) for value in seconds],
        "a": [_rounded(value) for value in accuracies] if task == "train" else None,
        "p": phases if len(set(phases)) > 1 else None,
        "q": [_rounded(value) for value in quantiles(latencies, STEPS)] if latencies else None,
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [])}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
