"""What stands in a report: the table's columns, the notes, and the details of each cell, all as plain data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import tlbench
from tlbench.analysis import commands, speedup, verdict
from tlbench.analysis.efficiency import REASONS, freeze_efficiency
from tlbench.analysis.frame import quantile
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import Scope
from tlbench.records.machine import machine_differences, machine_key
from tlbench.report import wording
from tlbench.report.plots import look

Row = Mapping[str, Any]

LISTED = 200
"""Names in a list: of failed cells of one reason, of flagged records. Beyond it the number of the others is said."""
FIRST_ROWS = 200
"""Rows of the table that a browser lays out at once; the others wait in a template element until asked for."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the report's table."""

    name: str
    """Of `tlbench.analysis.summary.SUMMARY`: what it shows and is sorted by."""
    heading: str
    draw: Callable[[Any], str] = wording.text
    number: bool = True
    interval: Callable[[Any], str] | None = None
    """How the ends of its 95 % interval are written, where it has one."""
    hidden: bool = False
    """Until the reader asks for it."""
    filter: bool = False
    """An axis that the reader can pick a value of."""


def _axis(name: str, heading: str, hidden: bool = False) -> Column:
    return Column(name=name, heading=heading, number=False, filter=True, hidden=hidden)


TABLE: tuple[Column, ...] = (
    _axis("backbone", "backbone"),
    _axis("task", "task"),
    _axis("weights", "weights"),
    _axis("freeze", "freeze"),
    _axis("head", "head"),
    _axis("dataset", "data set"),
    _axis("device", "device"),
    _axis("precision", "precision"),
    _axis("batch_size", "batch"),
    _axis("image_size", "pixels"),
    _axis("epochs", "epochs"),
    _axis("variant", "other settings"),
    Column(name="accuracy_test", heading="test accuracy", draw=wording.percent, interval=wording.share_end),
    Column(name="accuracy_val", heading="validation accuracy", draw=wording.percent, interval=wording.share_end),
    Column(name="epoch_seconds", heading="epoch, s", draw=wording.number, interval=wording.number),
    Column(name="training_seconds", heading="training, s", draw=wording.number, interval=wording.number),
    Column(name="images_per_second", heading="images/s", draw=wording.number, interval=wording.number),
    Column(name="inference_latency_p50_ms", heading="latency p50, ms", draw=wording.number),
    Column(name="inference_latency_p95_ms", heading="p95, ms", draw=wording.number),
    Column(name="trainable_parameters", heading="trainable parameters", draw=wording.whole),
    Column(name="flops_train_step", heading="training FLOPs an image", draw=wording.short),
    Column(name="cut", heading="trains from", number=False),
    Column(name="total_parameters", heading="parameters", draw=wording.whole),
    Column(name="peak_memory_bytes", heading="memory", draw=wording.size),
    Column(name="status", heading="status", number=False, filter=True),
    Column(name="seeds", heading="seeds", draw=wording.whole, hidden=True),
    Column(name="units", heading="blocks or seeds timed", draw=wording.whole, hidden=True),
    Column(name="epoch_iqr_seconds", heading="epoch IQR, s", draw=wording.number, hidden=True),
    Column(name="ceiling_share", heading="share of the ceiling", draw=wording.percent, hidden=True),
    Column(name="prefix_seconds", heading="prefix, s", draw=wording.number, hidden=True),
    Column(name="prefix_bytes", heading="prefix size", draw=wording.size, hidden=True),
    Column(name="energy_joules", heading="energy, J", draw=wording.number, hidden=True),
    Column(name="optimizer", heading="optimizer", number=False, hidden=True),
    Column(name="lr", heading="learning rate", draw=wording.number, hidden=True),
    Column(name="machine", heading="machine", number=False, hidden=True),
    Column(name="run", heading="run", number=False, hidden=True),
)


def ordered(table: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a configuration: data set by data set, device by device, training before inference, the best first."""
    summary = summarise(table)
    scopes = {(r["dataset"], r["device"], r["machine"]): None for r in summary}
    order = {scope: n for n, scope in enumerate(scopes)}
    return sorted(
        summary,
        key=lambda r: (
            order[r["dataset"], r["device"], r["machine"]],
            r["task"] != "train",
            not r["records_ok"],
            -(r["accuracy_val"] or 0),
            -(r["images_per_second"] or 0),
        ),
    )


def context(
    table: Sequence[Row], summary: Sequence[Row], figures: Sequence[Mapping[str, Any]], made: datetime
) -> dict[str, Any]:
    """What the templates need."""
    scopes = verdict.verdicts(summary, verdict.noise_floors(table))
    records = [item["record"] for item in table]
    machines = _machines(table)
    columns = [c for c in TABLE if _says_something(c, summary)]
    notes = _notes(scopes, summary)
    flagged = [item for item in table if item["status"] == "ok" and item["validity"] not in (None, "ok")]
    return {
        "wording": wording,
        "version": tlbench.__version__,
        "made": made.strftime("%Y-%m-%d %H:%M UTC"),
        "runs": list(dict.fromkeys(item["run"] for item in table)),
        "record_count": len(records),
        "summary": summary,
        "scopes": [_scope(scope, scopes) for scope in scopes],
        "columns": columns,
        "rows": [[_cell(c, row) for c in columns] for row in summary],
        "first_rows": FIRST_ROWS,
        "machines": machines,
        "differences": machine_differences(records),
        "noise_floor": _noise_floor(scopes),
        "flagged": flagged[:LISTED],
        "flagged_count": len(flagged),
        "not_ok": _not_ok(summary),
        "weights": _weights(summary),
        "notes": [note["text"] for note in notes],
        "speedups": _speedups(summary),
        "shortfalls": _shortfalls(summary),
        "figures": _with_notes(figures, notes),
        "details": _details(summary, machines),
    }


# --- the table ------------------------------------------------------------------------------------------------


def _says_something(column: Column, summary: Sequence[Row]) -> bool:
    """Whether a column holds anything; one of the settings, whether it differs between rows."""
    values = {row[column.name] for row in summary} - {None, ""}
    return len(values) > 1 if column.name in wording.SOMETIMES else bool(values)


def _cell(column: Column, row: Row) -> dict[str, Any]:
    """Text, the raw value as the CSV has it, and the interval's ends both ways."""
    value = row[column.name]
    cell = {"text": column.draw(value), "raw": raw(value) if column.number else None, "interval": "", "ends": None}
    if column.interval and (low := row[f"{column.name}_low"]) is not None:
        high = row[f"{column.name}_high"]
        cell["interval"] = f"{column.interval(low)}–{column.interval(high)}"
        cell["ends"] = f"{raw(low)} {raw(high)}"
    if column.name == "status":
        flags = [row["status"], *([row["validity"]] if row["validity"] not in (None, "ok") else [])]
        cell["text"] = ", ".join(flags)
        cell["interval"] = "; ".join(filter(None, [row["reason"], row["validity_reason"]]))
    return cell


def raw(value: Any) -> str:
    """A number as the CSV has it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if value is None else value, ""])
    return text.getvalue()[:-1]


# --- words around the figures ---------------------------------------------------------------------------------


def _scope(scope: Scope, scopes: Sequence[Scope]) -> dict[str, Any]:
    differs = wording.varying(scope.rows)
    picks = [
        {
            "question": wording.question(pick),
            "answer": wording.answer(pick, differs),
            "cell": pick.row["configuration"] if pick.row else None,
            "evidence": wording.evidence(pick),
            "certainty": wording.certainty(pick, differs),
            "standing": pick.standing,
            "command": pick.command,
        }
        for pick in scope.picks
    ]
    return {"name": wording.scope_name(scope, scopes), "picks": picks}


def _noise_floor(scopes: Sequence[Scope]) -> list[str]:
    """What the A/A pairs of each device and machine say."""
    places = {(scope.device, scope.machine): scope for scope in scopes}
    return [f"{wording.place_name(scope, scopes)}: {wording.noise_floor(scope.floor)}" for scope in places.values()]


def _not_ok(summary: Sequence[Row]) -> list[dict[str, Any]]:
    """What did not finish, grouped by status and reason."""
    differs = wording.varying(summary)
    groups: dict[tuple[str, str], list[str]] = {}
    for row in summary:
        if row["status"] != "ok":
            name = f"{row['task']} {wording.label(row, differs)}"
            groups.setdefault((row["status"], row["reason"]), []).append(name)
    return [
        {"status": status, "reason": reason, "cells": cells[:LISTED], "count": len(cells)}
        for (status, reason), cells in groups.items()
    ]


def _weights(summary: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Weights -> backbone -> where they come from, or why there are none."""
    found: dict[str, dict[str, str]] = {}
    for row in summary:
        if row["weights_source"]:
            known = "" if row["weights_source"] == "random" else f"from {row['weights_source']}"
            reason = f"since {row['weights_reason']}" if row["weights_reason"] else ""
            found.setdefault(row["weights"], {})[row["backbone"]] = ", ".join(filter(None, [known, reason]))
    return found


BUDGETS = {
    "epochs": "Cells were trained for different numbers of epochs: {}.",
    "train_images": "Cells were trained on different numbers of images: {}.",
    "lr_trials": "Cells tried different numbers of learning rates before training: {}.",
}


def _notes(scopes: Sequence[Scope], summary: Sequence[Row]) -> list[dict[str, str]]:
    """What a reader must know before believing a figure; ``about`` is accuracy, time or choice."""
    notes = []
    random = list(dict.fromkeys(r["backbone"] for r in summary if r["weights"] == "random" and r["records_ok"]))
    if random:
        notes.append({"about": "accuracy", "text": f"Random weights, not pretrained: {', '.join(random)}."})
    for scope in scopes:
        where = f" ({wording.scope_name(scope, scopes)})" if len(scopes) > 1 else ""
        for name, values in scope.budgets.items():
            listed = ", ".join(map(str, sorted(values)[:8])) + (" …" if len(values) > 8 else "")
            notes.append({"about": "accuracy", "text": BUDGETS[name].format(listed) + where})
        if scope.left_out:
            text = f"{wording.count(len(scope.left_out), 'configuration')} did not finish and can be no pick{where}."
            notes.append({"about": "choice", "text": text})
    notes += [{"about": "accuracy", "text": text} for text in _about_images(summary)]
    noisy = [r for r in summary if r["validity"] not in (None, "ok")]
    if noisy:
        text = f"Times of {wording.count(len(noisy), 'configuration')} are flagged, or have flagged records left out."
        notes.append({"about": "time", "text": text})
    few = [r for r in summary if r["task"] == "train" and r["accuracy_test"] is not None and r["seeds"] < 3]
    if few:
        text = (
            f"{wording.count(len(few), 'training configuration')} with fewer than 3 seeds: accuracies for a first look."
        )
        notes.append({"about": "accuracy", "text": text})
    return notes


def _about_images(summary: Sequence[Row]) -> list[str]:
    """What is wrong with data sets: the most that any of their cells saw."""
    found: dict[str, list[Row]] = {}
    for row in summary:
        found.setdefault(row["dataset"], []).extend(row["group"])
    texts = []
    for dataset, items in found.items():
        for name, what in IMAGES.items():
            if number := max(item[name] or 0 for item in items):
                texts.append(f"{dataset}: {what.format(wording.count(number, 'image'), wording.count(number, 'file'))}")
    return texts


IMAGES = {
    "repeated_test_images": "{} in the test split with the same pixels as a training image; what a copy earns is no "
    "accuracy.",
    "repeated_val_images": "{} in the validation split with the same pixels as a training image.",
    "dropped_images": "{} left out, since they cannot be read.",
    "passed_over_files": "{1} beside the images passed over, being no images by their names.",
}


ABOUT = {
    "accuracy_against_cost": ("accuracy", "time"),
    "accuracy_against_parameters": ("accuracy",),
    "heat_map": ("accuracy",),
    "learning_curves": ("accuracy", "time"),
    "noise": (),
}
"""Which notes stand under a figure; under the others those about time."""


def _with_notes(figures: Sequence[Mapping[str, Any]], notes: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [
        {**f, "notes": [n["text"] for n in notes if n["about"] in ABOUT.get(f["name"], ("time",))]} for f in figures
    ]


def _speedups(summary: Sequence[Row]) -> list[dict[str, Any]]:
    """Geometric means of the matched pairs: overall, by policy, by batch size."""
    found = []
    for axis in speedup.AXES:
        for one in speedup.speedups(summary, axis):
            overall = one.overall()
            lines = {"all matched pairs": overall} if overall else {}
            lines |= {f"policy {value}": ratio for value, ratio in one.by("freeze").items() if value != "none"}
            if len(by_batch := one.by("batch_size")) > 1:
                lines |= {f"batch size {value}": ratio for value, ratio in by_batch.items()}
            found.append(
                {
                    "name": f"{one.new} over {one.base}",
                    "lines": {name: wording.ratio(ratio) for name, ratio in lines.items()},
                    "pairs": len(one.pairs),
                    "unmatched": len(one.unmatched),
                }
            )
    return found


def _shortfalls(summary: Sequence[Row]) -> list[dict[str, Any]]:
    """Where freezing buys less time than FLOPs promise, by the reason; the widest gap first."""
    differs = wording.varying(summary)
    short = sorted((one for one in freeze_efficiency(summary) if one.reason), key=lambda one: one.share)
    groups: dict[str, list[str]] = {}
    for one in short:
        line = f"{wording.label(one.row, differs)}: {wording.ratio(one.measured)} of {wording.number(one.promised)}"
        groups.setdefault(str(one.reason), []).append(line)
    return [
        {"reason": f"{name}: {REASONS[name]}", "cells": cells[:LISTED], "count": len(cells)}
        for name, cells in groups.items()
    ]


# --- details --------------------------------------------------------------------------------------------------


def _machines(table: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Machine -> its devices, and its stable facts and settings as flat names and values."""
    found: dict[str, dict[str, Any]] = {}
    for item in table:
        record = item["record"]
        if (key := item["machine"]) not in found:
            environment = record.environment
            stable, settings = environment.get("stable", {}), environment.get("settings", {})
            found[key] = {
                "devices": {},
                "processor": stable.get("gpu") if record.cell.device != "cpu" else stable.get("cpu_model"),
                "threads": settings.get("threads"),
                "torch": stable.get("torch"),
                "facts": dict(_flat({**stable, **settings})),
            }
            assert key == machine_key(record)
        found[key]["devices"][record.cell.device] = None
    return {key: {**machine, "devices": list(machine["devices"])} for key, machine in found.items()}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", wording.text(value)


def _details(summary: Sequence[Row], machines: Mapping[str, Any]) -> dict[str, Any]:
    """For the script: what the section of each configuration shows. Short names, since there may be 10,000."""
    differs = wording.varying(summary)
    return {
        "machines": {key: machine["facts"] for key, machine in machines.items()},
        "cells": {row["configuration"]: _detail(row, differs) for row in summary},
    }


def _detail(row: Row, differs: Sequence[str]) -> dict[str, Any]:
    seeds = sorted({item["seed"] for item in row["group"]})
    facts = {
        "weights": wording.text(row["weights_source"]),
        "optimizer": f"{row['optimizer']}, learning rate {row['lr']:g}" if row["optimizer"] and row["lr"] else None,
        "trains from": row["cut"],
        "images": f"{row['train_images']} to train, {row['val_images']} to validate, {row['test_images']} to test"
        if row["train_images"]
        else None,
        "test images allow": _wilson(row),
        "memory layout": row["memory_format"],
        "prefix kept in": row["prefix_where"],
    }
    return {
        "n": f"{row['task']} {wording.label(row, differs)}",
        "c": commands.command([item["record"] for item in row["group"][:1]], seeds),
        "m": row["machine"],
        "f": {name: value for name, value in facts.items() if value},
        "r": [_run(item) for item in row["group"]],
    }


def _wilson(row: Row) -> str | None:
    """How far the accuracy may lie off because the test images are so few."""
    low, high = row["accuracy_test_wilson_low"], row["accuracy_test_wilson_high"]
    return None if low is None else f"{wording.share_end(low)} to {wording.share_end(high)} % of test accuracy"


def _run(item: Row) -> dict[str, Any]:
    """One record: status, rounds, accuracies, latency as its 5 % steps."""
    phases = item["round_phase"]
    found = {
        "run": item["run"],
        "seed": item["seed"],
        "block": item["block"],
        "status": item["status"],
        "reason": item["reason"],
        "validity": item["validity"] if item["validity"] != "ok" else None,
        "why": item["validity_reason"],
        "val": _rounded(item["accuracy_val"]),
        "test": _rounded(item["accuracy_test"]),
        "s": [_rounded(value) for value in item["round_seconds"]],
        "a": [_rounded(value) for value in item["round_accuracy_val"]] if item["task"] == "train" else None,
        "p": phases if len(set(phases)) > 1 else None,
        "q": [_rounded(quantile(item["latency_ms"], n / 20)) for n in range(21)] if item["latency_ms"] else None,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


# --- texts ----------------------------------------------------------------------------------------------------


def markdown(value: Any) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", str(value)).replace("\n", " ")


def code(text: str) -> str:
    """Text as Markdown's code, fenced by more backticks than it has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text.replace(chr(10), ' ')}{space}{fence}"


def inline_svg(svg: str, title: str) -> str:
    """A figure for the page: in the page's own colours, with no name that another figure in it may have too."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<rect class=\"paper\"[^>]*/>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' id="(?!C\d)[A-Za-z][\w.]*_\d{1,5}"', "", svg)  # what is left is named by its content
    svg = svg.replace(look.INK, "currentColor")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
