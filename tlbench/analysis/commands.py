"""Writes the commands that run configurations again: more seeds or blocks for those that are not decided yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from tlbench.analysis.figures import FIGURES
from tlbench.analysis.summary import Configuration
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.records.definitions import outdated, said
from tlbench.records.identity import measured_at
from tlbench.records.record import Record

SEEDS = 5
"""Seeds that an accuracy should rest on; 3 are enough for a look."""
BLOCKS = 3
"""Blocks that a time should rest on."""
CONTENDERS = 4
"""Configurations that a command to decide runs at most."""


def to_decide(rows: Sequence[Configuration], figure: str) -> str:
    """Returns the command that repeats these configurations: with new seeds for an accuracy, in blocks for a time;
    empty where one of them means something else today, so that no run of it could decide.
    """
    rows = rows[:CONTENDERS]
    records = [row["record"] for row in rows]
    if any(map(outdated, records)):
        return ""
    if not FIGURES[figure].points:
        return command(records, blocks=max(BLOCKS, *(row["units"] for row in rows)))
    seeds_so_far = {seed for row in rows for seed in row["values"][figure]}
    more = SEEDS - len(seeds_so_far) if len(seeds_so_far) < SEEDS else SEEDS
    return command(records, [seed for seed in range(max(seeds_so_far) + 1 + more) if seed not in seeds_so_far][:more])


def command(records: Iterable[Record], seeds: Sequence[int] | None = None, blocks: int | None = None) -> str:
    """Returns the command that runs the records' cells again, and what else their axes span; a comment that says why
    where that is another cell today.

    Axes at their defaults are left out where no id tells them.
    """
    records, default = list(records), Cell()
    if changed := next(filter(None, map(said, records)), ""):
        return f"# cannot be run again: {changed}"
    cells = [measured_at(record) for record in records]
    words = ["tlbench", "run"]
    for name, axis in AXES.items():
        # A seed is part of every id, also of inference, which does not depend on it.
        asked = [c for c in cells if c.task == "train" or not axis.training_only or name == "seed"]
        values = list(dict.fromkeys(getattr(c, name) for c in asked) if name != "seed" or seeds is None else seeds)
        if None not in values and values and (axis.in_id or values != [getattr(default, name)]):
            words += [f"--{axis.option}", ",".join(map(str, values))]
    for option, setting in SETTINGS.items():
        values = list(dict.fromkeys(getattr(record.settings, setting.field) for record in records))
        value = blocks if setting.field == "blocks" and blocks is not None else values[0]
        if value != getattr(Settings(), setting.field):
            words += [f"--{option}", {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)]
    return " ".join(map(shlex.quote, words))
