"""Works out what stands in a report, all as plain data: rows and their summary become verdicts, the table, failures,
notes, and what the figures say. The templates only lay it out. One file, since
it is all that the templates get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import tlbench
from tlbench.analysis import speedup, verdict
from tlbench.analysis.commands import reading
from tlbench.analysis.deciding import metric_for
from tlbench.analysis.efficiency import REASONS, freeze_efficiency
from tlbench.analysis.figures import VALID, Row, column
from tlbench.analysis.folded import folds_in
from tlbench.analysis.learning import fell_back
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.summary import Configuration, summarise
from tlbench.analysis.verdict import Scope
from tlbench.data.pixel_range import in_words
from tlbench.records.machine import machine_differences
from tlbench.records.record import Record
from tlbench.report import noise_words, race_words, wording
from tlbench.report import verdict_words as words
from tlbench.report.class_pictures import in_lines
from tlbench.report.columns import columns_for, table_cell
from tlbench.report.details import details_of, machines_of
from tlbench.report.elsewhere_words import table_of
from tlbench.report.headline import sentences
from tlbench.report.remarks import remarks
from tlbench.report.screened import foretold

LISTED = 200
"""Most names in a list of failed cells of one reason or of flagged records; for the others their number is said."""
FIRST_ROWS = 200
"""Rows of the table that a browser lays out at once; the others wait in a template element until asked for."""


def ordered(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns one row a configuration: by data set, by device, training before inference, the best first."""
    summary = summarise(table)
    scopes = {(r["dataset"], r["device"], r["machine"]): None for r in summary}
    order = {scope: n for n, scope in enumerate(scopes)}
    return sorted(
        summary,
        key=lambda r: (
            order[r["dataset"], r["device"], r["machine"]],
            r["task"] != "train",
            not r["records_ok"],
            -(r.get(f"{r['metric']}_val") or 0),
            -(r["images_per_second"] or 0),
        ),
    )


Pictures = Callable[[Sequence[Scope]], Mapping[str, Mapping[str, Any]]]
"""Scopes -> configuration -> what is shown of its classes (`tlbench.report.class_pictures`)."""


def context(
    table: Sequence[Row],
    summary: Sequence[Configuration],
    made: datetime,
    pictures: Pictures = lambda scopes: {},
    suspects: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns what the templates need but `of_figures`; ``suspects`` are labels that look wrong, by data set
    (`tlbench.report.suspect_pictures`).
    """
    scopes = verdict.verdicts(summary, noise_floors(table))
    shown = pictures(scopes)
    records = [item.record for item in table if item.record is not None]
    machines = machines_of(table)
    columns = columns_for(summary)
    judged = zip(table, column(table, "status"), column(table, "validity"), strict=True)
    flagged = [item for item, status, validity in judged if status == "ok" and validity not in VALID]
    return {
        "wording": wording,
        "version": tlbench.__version__,
        "made": made.strftime("%Y-%m-%d %H:%M UTC"),
        "runs": list(dict.fromkeys(column(table, "run"))),
        "record_count": len(records),
        "summary": summary,
        "scopes": [_scope(scope, scopes) for scope in scopes],
        "columns": columns,
        "rows": [[table_cell(c, row) for c in columns] for row in summary],
        "first_rows": FIRST_ROWS,
        "machines": machines,
        "decided_by": metric_for(summary).words,
        "ordered_by": metric_for(summary).val,
        "differences": machine_differences(records),
        "noise_floor": _noise_floor(scopes),
        "flagged": [_flagged(item) for item in flagged[:LISTED]],
        "flagged_count": len(flagged),
        "not_ok": _not_ok(summary),
        "weights": _weights(summary),
        "notes": _notes(scopes, summary),
        "speedups": _speedups(summary),
        "shortfalls": _shortfalls(summary),
        "pictured": _pictured(shown, summary),
        "suspects": suspects,
        "details": details_of(summary, machines, scopes, shown),
    }


def of_figures(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the templates need beside `context`: the figures, and why some are not drawn."""
    return {"figures": figures, "not_drawn": _not_drawn(figures)}


# --- words around the figures ---------------------------------------------------------------------------------


def _not_drawn(figures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Maps reasons to the figures that are not drawn for them; that of the noise has a section of its own."""
    titles: dict[str, list[str]] = {}
    for figure in figures:
        if not figure["svg"] and figure["name"] != "noise":
            titles.setdefault(figure["reason"], []).append(figure["title"])
    return {reason: ", ".join(names) for reason, names in titles.items()}


def _pictured(shown: Mapping[str, Mapping[str, Any]], summary: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Says of the configurations whose classes are shown what a page without a script can say."""
    differs = wording.varying(summary)
    rows = {row["configuration"]: row for row in summary}
    return [in_lines(wording.label(rows[name], differs), one) | {"cell": name} for name, one in shown.items()]


def _scope(scope: Scope, scopes: Sequence[Scope]) -> dict[str, Any]:
    differs = wording.varying(scope.rows)
    picks = [
        {
            "question": words.question(pick),
            "answer": words.answer(pick, differs) + " again" * again,
            "cell": pick.row["configuration"] if pick.row else None,
            "evidence": [] if again else words.evidence(pick),
            "certainty": words.certainty(pick, differs),
            # What is no advice is not in the colour of what is decided.
            "standing": "alone" if pick.row and fell_back(pick.row) else pick.standing,
            "command": pick.command,
            "then": reading("tlbench report RUN latest", [pick.command]),
        }
        for pick, again in zip(scope.picks, words.told_again(scope.picks), strict=True)
    ]
    return {
        "name": wording.scope_title(scope, scopes),
        "sentences": sentences(scope),
        "picks": picks,
        "elsewhere": table_of(scope),
    }


def _flagged(item: Row) -> dict[str, Any]:
    again = " (measured a second time)" if item.role == "aa" else ""
    return {
        "validity": item.validity,
        "name": f"{item.task} {item.id.removeprefix('A/A ')}{again}",
        "cell": item.configuration,
        "reason": item.validity_reason,
    }


def _noise_floor(scopes: Sequence[Scope]) -> list[str]:
    """Says how noisy each device and machine was."""
    places = {(scope.device, scope.machine): scope for scope in scopes}
    return [f"{wording.place_name(scope, scopes)}: {noise_words.of_scope(scope)}" for scope in places.values()]


def _not_ok(summary: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Lists what did not finish, grouped by status and reason."""
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


def _weights(summary: Sequence[Configuration]) -> dict[str, dict[str, str]]:
    """Maps weights and backbone to where they come from, or why there are none."""
    origins: dict[str, dict[str, str]] = {}
    for row in summary:
        if row["weights_source"]:
            source = "" if row["weights_source"] == "random" else f"from {row['weights_source']}"
            reason = f"since {row['weights_reason']}" if row["weights_reason"] else ""
            origins.setdefault(row["weights"], {})[row["backbone"]] = ", ".join(filter(None, [source, reason]))
    return origins


BUDGETS = {
    "epochs": "Cells were trained for different numbers of epochs: {}.",
    "train_images": "Cells were trained on different numbers of images: {}.",
    "lr_trials": "Cells tried different numbers of learning rates before training: {}.",
}


def _notes(scopes: Sequence[Scope], summary: Sequence[Configuration]) -> list[str]:
    """Returns what a reader must know before believing a figure, each once."""
    notes = [f"{text}." for text in words.baselines([r for r in summary if r["task"] == "train"])]
    random = list(dict.fromkeys(r["backbone"] for r in summary if r["weights"] == "random" and r["records_ok"]))
    if random:
        beside = ", and so no pick beside others" if any(scope.candidates.random for scope in scopes) else ""
        notes.append(f"Random weights, not pretrained: {', '.join(random)}{beside}.")
    for scope in scopes:
        where = f" ({wording.scope_name(scope, scopes)})" if len(scopes) > 1 else ""
        notes += [f"{text}{where}." for text in words.ignorant(scope.candidates, wording.varying(scope.rows))]
        for name, values in scope.budgets.items():
            listed = ", ".join(map(str, sorted(values)[:8])) + (" …" if len(values) > 8 else "")
            notes.append(BUDGETS[name].format(listed) + where)
        if scope.left_out:
            count = wording.count(len(scope.left_out), "configuration")
            notes.append(f"{count} did not finish and can be no pick{where}.")
    for folds in dict.fromkeys(filter(None, (folds_in(row) for row in summary))):
        notes.append(
            f"In {folds} folds of all images each is tested once, by a model that has not seen it: accuracies are "
            "of all images together, times of one fold's training."
        )
    notes += _about_images(summary)
    notes += dict.fromkeys(text for scope in scopes for text in race_words.lines(scope.races, every=True))
    notes += foretold(summary)
    if over := wording.accuracies_over(summary):
        notes.append(f"Intervals of accuracies: {over}.")
    notes += [f"{text}." for text in [*wording.image_problems(summary), *remarks(summary)]]
    flags = [r["validity"] for r in summary if r["validity"] not in (None, "ok")]
    if flags:
        kinds = ", ".join(f"{flags.count(kind)} {kind}" for kind in dict.fromkeys(flags))
        count = wording.count(len(flags), "configuration")
        notes.append(f"Times of {count} are flagged ({kinds}), or have flagged records left out.")
    few = [r for r in summary if r["accuracy_test"] is not None and r["seeds"] < 3 and not folds_in(r)]
    few = [r for r in few if r["task"] == "train"]
    if few:
        notes.append(
            f"{wording.count(len(few), 'training configuration')} with fewer than 3 seeds: accuracies for a first look."
        )
    return notes


def _about_images(summary: Sequence[Configuration]) -> list[str]:
    """Says what is wrong with data sets: the most that any of their cells saw."""
    rows_of: dict[str, list[Row]] = {}
    for row in summary:
        rows_of.setdefault(row["dataset"], []).extend(row["group"])
    texts: list[str] = []
    for dataset, items in rows_of.items():
        ranges = [item.record.pixel_range for item in items if item.record is not None]
        texts += dict.fromkeys(f"{dataset}: {in_words(one)}." for one in ranges if one)
        unread = [item.record.passed_over_endings for item in items if item.record is not None]
        texts += dict.fromkeys(
            f"{dataset}: pictures that are not read, by ending: {_listed(one)}." for one in unread if one
        )
        texts += dict.fromkeys(_about_decoding(dataset, item.record) for item in items if item.record is not None)
        for name, what in IMAGES.items():
            if name in AMONG and any(column(items, AMONG[name])):
                continue
            told = zip(column(items, name), column(items, "task"), strict=True)
            counts = [found or 0 for found, task in told if task == "train" or name not in OF_TRAINING]
            if number := max(counts, default=0):
                # Of seeds and train sizes each has its own.
                most = "up to " if name in OF_TRAINING and min(counts) < number else ""
                nouns = (most + wording.count(number, noun) for noun in ("image", "file", "photograph"))
                texts.append(f"{dataset}: {what.format(*nouns)}")
    return [text for text in texts if text]


def _about_decoding(dataset: str, record: Record) -> str:
    """Says which photographs were decoded at a fraction of their size; nothing where none was."""
    if not record.scaled_images:
        return ""
    count = wording.count(record.scaled_images, "photograph")
    return f"{dataset}: {count} decoded at a fraction of their size (--decode {record.cell.decode})."


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


IMAGES = {
    "leaked_test_images": "{} in the test split that are copies (the same, re-encoded, resized, mirrored or cropped by "
    "a few pixels) of training or validation images; the accuracy without them stands beside.",
    "leaked_val_images": "{} in the validation split that are such copies of training images; the accuracy without "
    "them stands beside.",
    "repeated_test_images": "{} in the test split with the same pixels as a training image; what a copy earns is no "
    "accuracy.",
    "repeated_val_images": "{} in the validation split with the same pixels as a training image.",
    "exact_copies": "{} with the file or the pixels of another.",
    "near_copies": "{} that look like another, re-encoded, resized, mirrored or cropped by a few pixels.",
    "uncompared_images": "{} too small or too plain to be compared by their looks; only exact copies of them were "
    "searched.",
    "copy_groups_apart": "{2} there in more than one split.",
    "copy_groups_mixed": "{2} there under more than one class: one of the labels is wrong.",
    "dropped_images": "{} left out, since they cannot be read.",
    "passed_over_files": "{1} beside the images passed over, being no images by their names.",
}

OF_TRAINING = ("leaked_test_images", "leaked_val_images", "repeated_test_images", "repeated_val_images")
"""Figures that depend on what a cell trained on: one of inference says nothing of them."""
AMONG = {"repeated_test_images": "leaked_test_images", "repeated_val_images": "leaked_val_images"}
"""Figures that need no words of their own where another has some."""


def _speedups(summary: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Returns geometric means of the matched pairs: overall, by policy, by batch size."""
    groups = []
    for axis in speedup.AXES:
        for one in speedup.speedups(summary, axis):
            overall = one.overall()
            lines = {"all matched pairs": overall} if overall else {}
            lines |= {f"policy {value}": ratio for value, ratio in one.by("freeze").items() if value != "none"}
            if len(by_batch := one.by("batch_size")) > 1:
                lines |= {f"batch size {value}": ratio for value, ratio in by_batch.items()}
            groups.append(
                {
                    "name": f"{one.new} over {one.base}",
                    "lines": {name: wording.ratio(ratio) for name, ratio in lines.items()},
                    "pairs": len(one.pairs),
                    "unmatched": len(one.unmatched),
                }
            )
    return groups


def _shortfalls(summary: Sequence[Configuration]) -> list[dict[str, Any]]:
    """Lists where freezing buys less time than FLOPs promise, by the reason; the widest gap first."""
    differs = wording.varying(summary)
    short = sorted((one for one in freeze_efficiency(summary) if one.reason), key=lambda one: one.share)
    groups: dict[str, list[str]] = {}
    for one in short:
        line = f"{wording.label(one.row, differs)}: {wording.ratio(one.measured)} of {wording.promise(one.promised)}"
        groups.setdefault(str(one.reason), []).append(line)
    return [
        {"reason": f"{name}: {REASONS[name]}", "cells": cells[:LISTED], "count": len(cells)}
        for name, cells in groups.items()
    ]
