"""What screens told of the backbones for a data set, kept for the reports of later runs: in the cache folder, a file
for each content of the images. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tlbench.machine.cache import cache_folder
from tlbench.machine.scratch import write_aside
from tlbench.records import strict_json
from tlbench.records.lines import seal, unseal

MOST = 2000
"""Backbones of one data set that are kept at most, the latest."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """Says what a screen told of one backbone: a row of its table. Unknown is None."""

    backbone: str
    weights: str = ""
    """What its weights are: a name, ``random``; empty where there are none here."""
    weights_sha256: str | None = None
    image_size: int | None = None
    images: int | None = None
    """Training images that were looked at."""
    ridge: float | None = None
    """Leave-one-out accuracy of ridge regression on the features."""
    knn: float | None = None
    """Leave-one-out accuracy of the nearest neighbours."""
    logme: float | None = None
    top1: float | None = None
    """ImageNet accuracy of its default weights, or of those that it names, in percent, as published."""
    parameters: int | None = None
    """Of the stages, without a head."""
    features: int | None = None
    seconds: float | None = None
    """What the forward pass over these images took."""
    problem: str = ""
    """Why it was not looked at; empty where it was."""


COLUMNS = ("ridge", "knn", "logme", "top1", "parameters")
"""Columns of the table that rank backbones, the higher the better; the last two never look at the images."""


def folder() -> Path:
    """Returns the folder that they lie in; it may not exist yet."""
    return cache_folder() / "screens"


def keep(images_sha256: str, rows: Iterable[Screened]) -> None:
    """Keeps what a screen told of these images, beside what earlier ones told of other backbones. A cache that cannot
    be written keeps nothing: a screen is worth its table.
    """
    known = {(row.backbone, row.weights_sha256, row.image_size): row for row in recall(images_sha256)}
    for row in rows:
        if not row.problem:
            key = row.backbone, row.weights_sha256, row.image_size
            known.pop(key, None)
            known[key] = row
    data = {"images": images_sha256, "rows": [asdict(row) for row in list(known.values())[-MOST:]]}
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        write_aside(_path(images_sha256), seal(data).encode())


def recall(images_sha256: str) -> list[Screened]:
    """Returns what screens told of these images; nothing where none did, or what they wrote is damaged."""
    try:
        data = unseal(_path(images_sha256).read_text(encoding="utf-8"))
        rows = [_row(row) for row in data["rows"]]
        for row in rows:
            strict_json.check(Screened, asdict(row))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return rows


def _path(images_sha256: str) -> Path:
    return folder() / f"{images_sha256}.json"


_NAMES = {one.name for one in fields(Screened)}


def _row(data: Mapping[str, Any]) -> Screened:
    return Screened(**{name: value for name, value in data.items() if name in _NAMES})


def by_column(rows: Sequence[Screened], column: str) -> dict[str, float | None]:
    """Returns a column's value of each backbone."""
    return {row.backbone: getattr(row, column) for row in rows}
