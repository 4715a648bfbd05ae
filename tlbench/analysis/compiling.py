"""When compiling pays: its seconds against what a compiled epoch, or image, saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tlbench.analysis.summary import Configuration

_ALIKE = (
    "task", "backbone", "weights", "weights_sha256", "freeze", "head", "dataset", "device", "precision",
    "memory_format", "batch_size", "image_size", "machine",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Paying:
    """Says from when on a compiled configuration is faster than the same one in eager mode, compiling included."""

    row: Configuration
    seconds: float
    """Of compiling."""
    saved: float
    """Seconds that an epoch takes less, or an image of inference; none or less where nothing is saved."""
    start: int | None
    """The first epoch, or image, after which it has paid; None where it never does."""


def paying(rows: Sequence[Configuration]) -> list[Paying]:
    """Returns what is known of each compiled configuration whose eager form is among the rows."""
    eager = {_key(row, row["variant"]): row for row in rows if "compile=" not in row["variant"]}
    found = []
    for row in rows:
        seconds, plain = row["compile_seconds"], eager.get(_key(row, _without_compiling(row["variant"])))
        costs = (_cost(plain), _cost(row)) if plain is not None else (None, None)
        if seconds is None or costs[0] is None or costs[1] is None:
            continue
        saved = costs[0] - costs[1]
        start = max(1, math.ceil(seconds / saved)) if saved > 0 else None
        found.append(Paying(row=row, seconds=seconds, saved=saved, start=start))
    return found


def _cost(row: Configuration) -> float | None:
    """Returns the seconds of an epoch, or of an image of inference."""
    if row["task"] == "train":
        return None if row["epoch_seconds"] is None else float(row["epoch_seconds"])
    return 1 / row["images_per_second"] if row["images_per_second"] else None


def _key(row: Configuration, variant: str) -> tuple[object, ...]:
    return (*(row.get(name) for name in _ALIKE), variant)


def _without_compiling(variant: str) -> str:
    return " ".join(part for part in variant.split() if not part.startswith("compile="))
