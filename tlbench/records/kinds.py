"""What a file is that somebody has taken for the records of a run: its first bytes tell."""

from __future__ import annotations

import json
from pathlib import Path

BEGINS = (
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"II*\0", "an image"),
    (b"MM\0*", "an image"),
    (b"RIFF", "an image"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a ZIP archive or a checkpoint of torch's"),
    (b"\x1f\x8b", "a compressed file"),
    (b"<!doctype html", "a page, such as a report"),
    (b"<html", "a page, such as a report"),
)
"""How files begin, in small letters where they are texts -> what they are."""
LOOKED_AT = 4096
COLUMNS = {"backbone", "freeze"}
"""Two of the columns that tables of tlbench's begin with."""


def kind_of(path: Path) -> str:
    """Says what a file is that holds no records; empty where its beginning does not tell."""
    try:
        with path.open("rb") as file:
            begin = file.read(LOOKED_AT)
    except OSError:
        return ""
    for start, what in BEGINS:
        if begin.startswith(start) or begin.lstrip().lower().startswith(start):
            return what
    text = begin.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    line = text.partition("\n")[0]
    if {name.strip().strip('"') for name in line.split(",")} >= COLUMNS:
        return "a table that tlbench has written (export or report.csv)"
    if text.startswith("{") and '"machine_info"' in text:
        return "JSON of pytest-benchmark"
    if path.name == "run.json" or (text.startswith("{") and '"grids"' in text):
        return "the plan of a run; name its folder"
    if path.name == "records.jsonl" or '"cell"' in text:  # what is wrong with its lines is to be said
        return ""
    if text.startswith("[") or (text.startswith("{") and not _is_object(line)):
        return "JSON of another kind"
    return ""


def _is_object(line: str) -> bool:
    """Tells whether a line is a JSON object by itself, as a record is."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
