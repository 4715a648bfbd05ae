"""Commands that run something again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.records.record import Record

Row = Mapping[str, Any]

SEEDS = 5
"""What an accuracy should rest on; 3 are enough for a look."""
BLOCKS = 3
"""What a time should rest on."""
CONTENDERS = 4
"""Configurations that a command to decide runs at most."""


# --- commands that run something again ------------------------------------------------------------------------


def _to_decide(rows: Sequence[Row], figure: str) -> str:
    """The command that repeats these configurations: with new seeds for an accuracy, in blocks for a time."""
    rows = rows[:CONTENDERS]
    records = [row["record"] for row in rows]
    if figure != "accuracy_val":
        return command(records, blocks=max(BLOCKS, *(row["units"] for row in rows)))
    known = {seed for row in rows for seed in row["values"][figure]}
    more = SEEDS - len(known) if len(known) < SEEDS else SEEDS
    return command(records, [seed for seed in range(max(known) + 1 + more) if seed not in known][:more])


SHOWN_AXES = ("task", "backbone", "freeze", "head", "dataset", "device", "seed")
"""Written into a command even where they are at their defaults."""
NOT_FOR_INFERENCE = ("freeze", "epochs")


def command(records: Iterable[Record], seeds: Sequence[int] | None = None, blocks: int | None = None) -> str:
    """The command that runs the records' cells again, and what else their axes span."""
    records, default = list(records), Cell()
    cells = [record.cell for record in records]
    words = ["tlbench", "run"]
    for name, axis in AXES.items():
        values = [getattr(c, name) for c in cells if not (c.task == "infer" and name in NOT_FOR_INFERENCE)]
        values = list(dict.fromkeys(values if name != "seed" or seeds is None else seeds))
        if None not in values and values and (name in SHOWN_AXES or values != [getattr(default, name)]):
            words += [f"--{axis.option}", ",".join(map(str, values))]
    for option, setting in SETTINGS.items():
        values = list(dict.fromkeys(getattr(record.settings, setting.field) for record in records))
        value = blocks if setting.field == "blocks" and blocks is not None else values[0]
        if value != getattr(Settings(), setting.field):
            words += [f"--{option}", {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)]
    return " ".join(map(shlex.quote, words))
