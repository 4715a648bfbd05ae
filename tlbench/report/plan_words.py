"""A plan as a person reads it: a table with a line for each configuration, and what the whole takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tlbench.grid.values import about, taken, three_digits, written_size

if TYPE_CHECKING:
    from rich.table import Table

    from tlbench.grid.cell import Cell
    from tlbench.grid.settings import Settings

HEADINGS = ("cell", "px", "batch", "cells", "frozen layers", "an epoch", "in all", "9 of 10", "peak memory", "fits")
DAY = 24 * 3600
MOST_NAMES = 6
"""Most configurations that a line names; of more it gives the number."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """Holds what a table says of one cell: `tlbench.campaign.foretelling.Row.values`, and the cell."""

    cell: Cell
    values: dict[str, Any]


def table(rows: Sequence[Said]) -> Table:
    """Returns the table: cells that differ in seed, fold and block alone share a line."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    # On a narrow terminal a name goes over several lines, and no part of it is cut off.
    widest = max((len(word) for row in rows for word in (row.cell.backbone, row.cell.freeze)), default=0)
    for heading in HEADINGS:
        least = widest if heading == "cell" else None
        made.add_column(heading, justify="left" if heading in ("cell", "fits") else "right", min_width=least)
    varying = [name for name in TOLD if len({getattr(row.cell, name) for row in rows}) > 1]
    for together in _grouped(rows):
        name, *figures = _line(together)
        made.add_row(" ".join([name, *(f"{word} {getattr(together[0].cell, word)}" for word in varying)]), *figures)
    return made


TOLD = (
    "dataset",
    "device",
    "precision",
    "layout",
    "weights",
    "augment",
    "compile",
    "optimizer",
    "lr",
    "backbone_lr",
    "schedule",
    "patience",
    "sampler",
    "decode",
    "epochs",
    "train_size",
)
"""Fields of the cell that a line's name tells where they vary."""


def _grouped(rows: Sequence[Said]) -> list[list[Said]]:
    groups: dict[object, list[Said]] = {}
    for row in rows:
        groups.setdefault(replace(row.cell, seed=0, fold=None), []).append(row)
    return list(groups.values())


def _line(rows: Sequence[Said]) -> list[str]:
    cell, first = rows[0].cell, rows[0].values
    size = "own" if cell.image_size is None else str(cell.image_size)
    start = [_name(cell), size, str(cell.batch_size), str(len(rows))]
    if first["total_seconds"] is None:
        return [*start, "", "", first["note"] or "cannot say", "", "", ""]
    sums = {name: sum(row.values[name] or 0.0 for row in rows) for name in _SUMMED}
    memory = max((row.values["peak_memory_bytes"] or 0.0 for row in rows), default=0.0)
    return [
        *start,
        _seconds(sums["prefix_seconds"]) if sums["prefix_seconds"] else "–",
        "–" if first["epoch_seconds"] is None else _seconds(first["epoch_seconds"]),
        _seconds(sums["total_seconds"]),
        f"{_seconds(sums['total_seconds_low'])} to {_seconds(sums['total_seconds_high'])}",
        written_size(memory) if memory else "–",
        first["fits"] or "–",
    ]


_SUMMED = ("prefix_seconds", "total_seconds", "total_seconds_low", "total_seconds_high")


def _name(cell: Cell) -> str:
    return " ".join([cell.backbone, *([cell.freeze] if cell.task == "train" else ["inference"]), cell.head])


def _seconds(value: float) -> str:
    return taken(value) if value >= 120 else f"{three_digits(value)} s"


def sums(rows: Sequence[Said], seconds: float | None, between: tuple[float, float], now: datetime) -> list[str]:
    """Says in lines what the whole grid takes, when it will end, and what will not fit."""
    lines = []
    if seconds is None:
        lines.append("the whole: cannot be said, since nothing tells of some cells")
    else:
        least, most = between
        end = now + timedelta(seconds=seconds)
        on = f" on {end:%A, %d %B}" if seconds > DAY / 2 and end.date() != now.date() else ""
        lines.append(
            f"the whole: about {about(seconds)}, {about(least)} to {about(most)} in nine of ten; begun now, it ends at "
            f"about {end:%H:%M}{on}"
        )
    for answer, words in (("no", "will not fit into memory"), ("perhaps", "may not fit into memory")):
        names = list(dict.fromkeys(_sized(row.cell) for row in rows if row.values["fits"] == answer))
        if names:
            shown = ", ".join(names[:MOST_NAMES])
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            lines.append(f"{words}: {shown}{more}; `tlbench fits` says which batches do")
    notes = dict.fromkeys(row.values["note"] for row in rows if row.values["note"])
    for note in notes:
        names = list(dict.fromkeys(_name(row.cell) for row in rows if row.values["note"] == note))
        shown = ", ".join(names[:MOST_NAMES]) + (" …" if len(names) > MOST_NAMES else "")
        lines.append(f"{shown}: {note}")
    return lines


UNCOUNTED = {
    "also_test": "other test images (--also-test)",
    "corrupt": "corrupted test images (--corrupt)",
    "detail": "passes that see where a step's time goes (--detail)",
    "views": "augmented views that are kept (--views)",
    "twins": "cells that are measured once more (--twins)",
    "retry_noisy": "noisy cells that are measured again (--retry-noisy)",
}
"""Field of `Settings` -> what it adds to a run that a plan knows nothing of."""


DECODED_AT_ONCE = ("digits", "synthetic")
"""Data sets that have no files to decode."""


def uncounted(settings: Settings, datasets: Iterable[str]) -> list[str]:
    """Says in a line, or none, what takes time that is not in the plan: of the settings, and of data sets as they are
    read for the first time.
    """
    found = [words for name, words in UNCOUNTED.items() if getattr(settings, name)]
    if settings.twins is None:
        found.insert(0, "cells that are measured once more to see the noise (a twentieth of the time at most)")
    if any(dataset.partition(":")[0] not in DECODED_AT_ONCE for dataset in datasets):
        found.insert(0, "images read and decoded for the first time")
    return [f"not counted: {', '.join(found)}"] if found else []


def _sized(cell: Cell) -> str:
    return f"{_name(cell)}, batches of {cell.batch_size}"
