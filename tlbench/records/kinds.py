"""What a file is that somebody has taken for the records of a run: its first bytes tell."""

from __future__ import annotations

import codecs
import json
import re
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


TABLES = {".csv": "a table in CSV", ".tsv": "a table in TSV"}
"""Ending -> what a text of such a name is."""
_JSON = re.compile(r'(?:\[\s*)+(?:[{"\]\d-]|(?:true|false|null)\b|$)|\{\s*(?:["}]|$)')
"""How JSON begins, and neither TOML (``[grid]``) nor Markdown (``[a link](...)``)."""


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
    if _JSON.match(text) and not (text.startswith("{") and _is_object(line)):
        return "JSON of another kind"
    if path.suffix == ".jsonl" or text.startswith("{"):
        return ""
    return _kind_of_text(path, text) if _is_text(begin) else ""


def _kind_of_text(path: Path, text: str) -> str:
    """Says what a text is that is no JSON; empty where there is nothing in it."""
    if text.startswith("<svg") or (text.startswith("<") and "<svg" in text):
        return "an SVG, such as a figure of a report"
    return TABLES.get(path.suffix.lower(), "a text") if text else ""


def _is_text(begin: bytes) -> bool:
    """Tells whether the beginning of a file, which may end within a character, is that of a text."""
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False


def _is_object(line: str) -> bool:
    """Tells whether a line is a JSON object by itself, as a record is."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
