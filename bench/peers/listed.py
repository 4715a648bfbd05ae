"""The photographs of a data set as rows that anybody can read: a split, a file, a class. Nothing is decoded."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tlbench.data import parse_dataset
from tlbench.data.lists import scan_list
from tlbench.data.scan import Scan, scan

SCANS: dict[str, Callable[[str], Scan]] = {"folder": scan, "list": scan_list}


@dataclass(frozen=True)
class Photograph:
    """Names one photograph of a data set."""

    part: str
    """train, val or test; empty where tlbench makes the splits."""
    file: Path
    label: str


def photographs(dataset: str) -> list[Photograph]:
    """Returns the photographs of ``folder:PATH`` or ``list:PATH``, in the order that tlbench has them in.

    Errors: SystemExit for other data sets, and for photographs inside archives; UserError as reading them does.
    """
    name, path = parse_dataset(dataset)
    if name not in SCANS:
        raise SystemExit(f"dataset {dataset!r}: this needs photographs in files; choose folder:PATH or list:PATH")
    found = SCANS[name](path)
    if inside := [name for name, file in zip(found.names, found.files, strict=True) if not isinstance(file, Path)]:
        raise SystemExit(f"dataset {dataset!r}: {inside[0]!r} lies inside an archive; unpack it")
    rows = zip(found.parts, found.files, found.labels, strict=True)
    return [Photograph(part, Path(str(file)).resolve(), found.classes[label]) for part, file, label in rows]


def write(rows: Iterable[Photograph], folder: Path) -> None:
    """Writes a file for each split, ``train.csv`` and so on, with the columns ``image`` and ``label``."""
    folder.mkdir(parents=True, exist_ok=True)
    by_part: dict[str, list[Photograph]] = {}
    for row in rows:
        by_part.setdefault(row.part or "train", []).append(row)
    for part, some in by_part.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("image", "label"))
            table.writerows((str(row.file), row.label) for row in some)
