"""Works out what a report shows of labels that look wrong: of each data set that was measured in folds the images whose
label is contradicted the most surely, by models that had not seen them, with their pictures where these may be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbench.analysis.folded import folds_in
from tlbench.analysis.summary import Configuration
from tlbench.analysis.suspects import Suspects, suspects_of
from tlbench.data.short_names import data_sets
from tlbench.errors import UserError
from tlbench.report import wording
from tlbench.report.disclosure import Disclosure
from tlbench.report.thumbnails import Thumbnails, pictured, with_picture

MOST_IMAGES = 12
"""Images of a data set that are shown; `tlbench suspects` lists all."""


def of_data_sets(summary: Sequence[Configuration], disclosure: Disclosure) -> list[dict[str, Any]]:
    """Returns for each data set that was measured in folds its name, in lines what there is to say, and the most
    suspect images; nothing of the others, whose images were mostly trained on.
    """
    thumbnails = Thumbnails()
    folded = [row for row in summary if row["task"] == "train" and folds_in(row) and row["accuracy_test"] is not None]
    found = []
    for dataset, name in data_sets(dict.fromkeys(row["dataset"] for row in folded)).items():
        try:
            found.append(_of_data_set(name, suspects_of(summary, dataset), thumbnails, disclosure))
        except UserError as error:
            found.append({"dataset": name, "said": f"Labels were not ranked: {error}.", "images": [], "without": []})
    return found


def _of_data_set(name: str, found: Suspects, thumbnails: Thumbnails, disclosure: Disclosure) -> dict[str, Any]:
    records = [item.record for item in found.configuration["group"] if item.record is not None]
    wanted = disclosure.thumbnails and all(record.settings.thumbnails for record in records)
    rows = [row for row in found.rows if row["contradicted"]][:MOST_IMAGES]
    lines = [_line(row) | ({"file": row["file"]} if disclosure.file_names else {}) for row in rows]
    without: list[str] = []
    if wanted:
        pictures, without = pictured(thumbnails, records, [(_file(row), row["image"]) for row in rows])
        lines = [with_picture(*one) for one in zip(lines, pictures, strict=True)]
    return {"dataset": name, "said": _said(found, len(lines)), "images": lines, "without": without}


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    return {"given": row["given"], "likelier": row["likelier"], "sure": wording.percent(row["score"])}


def _file(row: Mapping[str, Any]) -> str:
    """Returns the path of an image below its data set's folder; empty where it is known by its hash alone."""
    return "" if row["file"].startswith("sha256:") else row["file"]


def _said(found: Suspects, shown: int) -> str:
    """Says how many labels are contradicted, by whom, and where all of them are."""
    by = f"{found.seeds} models" if found.seeds > 1 else "a model"
    name = wording.label(found.configuration)
    if not found.contradicted:
        return f"No image looks more like another class to {by} of {name} that had not seen it."
    first = " The surest of them:" if found.contradicted > shown else ""
    return (
        f"{found.contradicted:,} of {wording.count(len(found.rows), 'image')} look more like another class to {by} of "
        f"{name} that had not seen them: wrong labels, or hard images. tlbench suspects RUN lists all, to be corrected "
        f"for --relabel.{first}"
    )
