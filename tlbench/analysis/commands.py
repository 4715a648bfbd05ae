"""Writes the commands that run configurations again: more seeds or blocks for those that are not decided yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tlbench.analysis.figures import FIGURES, column
from tlbench.analysis.summary import Configuration
from tlbench.data.folds import FEW
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.folding import folds_of
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.grid.values import join_values
from tlbench.records.definitions import said
from tlbench.records.identity import NAMED_WEIGHTS, measured_at, place_of, short_sha, weights_of
from tlbench.records.record import Record

SEEDS = 5
"""Seeds that an accuracy should rest on; 3 are enough for a look."""
BLOCKS = 3
"""Blocks that a time should rest on."""
CONTENDERS = 4
"""Configurations that a command to decide runs at most."""


def to_decide(rows: Sequence[Configuration], figure: str, among: Sequence[Configuration] = ()) -> str:
    """Returns the command that repeats these configurations: with new seeds for an accuracy, in blocks for a time;
    empty where no run could (`hindrance`). ``among``: all configurations that are known; seeds are above theirs, so
    that none is proposed which another run, reported together with them, has measured already.
    """
    rows = rows[:CONTENDERS]
    records = [row["record"] for row in rows]
    if hindrance(rows, among):
        return ""
    if not FIGURES[figure].points:
        return command(records, blocks=max(BLOCKS, *(row["units"] for row in rows)))
    seeds_so_far = {seed for row in rows for seed in row["values"][figure]}
    more = SEEDS - len(seeds_so_far) if len(seeds_so_far) < SEEDS else SEEDS
    trained = [item for row in among if row["task"] == "train" for item in row["group"]]
    first = 1 + max(*seeds_so_far, *column(trained, "seed"), 0)
    return command(records, range(first, first + more))


Contents = Mapping[tuple[Any, ...], Sequence[str]]
"""What a name is read as -> the hashes that were found under it."""


def contents_of(rows: Iterable[Configuration]) -> Contents:
    """Returns the hashes of what lay at each place that these configurations name, and of what ``auto`` took."""
    found: dict[tuple[Any, ...], dict[str, None]] = {}
    for row in rows:
        for key, sha256 in _read(row).items():
            if sha256:
                found.setdefault(key, {})[sha256] = None
    return {key: tuple(hashes) for key, hashes in found.items()}


def _read(row: Configuration) -> dict[tuple[Any, ...], str | None]:
    record: Record = row["record"]
    cell = measured_at(record)
    decides = cell.backbone, record.image_size or cell.image_size, cell.decode, cell.relabel
    return {
        ("weights", place_of(cell.weights), cell.backbone): weights_of(record),
        ("images", place_of(cell.dataset), *decides): record.images_sha256,
    }


def hindrance(rows: Sequence[Configuration], among: Iterable[Configuration] = ()) -> str:
    """Says why no command could run the first of these configurations again (`CONTENDERS`), ``among`` all that are
    known: as `hindrance_by`.
    """
    every = {id(row): row for row in (*rows, *among)}  # most of thousands are in both
    return hindrance_by(rows[:CONTENDERS], contents_of(every.values()))


def hindrance_by(rows: Iterable[Configuration], contents: Contents) -> str:
    """Says why no command could run these configurations again: one means something else today, or what it was measured
    with is one of several things that one name stood for. Empty where nothing is in the way.
    """
    rows = list(rows)
    if axis := _default_of_one(rows):
        return f"one has --{axis}, the other what is usual without it: no one command measures both"
    for row in rows:
        if changed := said(row["record"]):
            return changed
        for key in _read(row):
            if len(hashes := contents.get(key, ())) > 1:
                what, name, *_ = key
                shown = " and ".join(map(short_sha, hashes))
                where = "name each as it is" if name in NAMED_WEIGHTS else "keep each at a place of its own"
                return f"to run them again takes the {what} {shown}, which were all {name}: {where}"
    return ""


def _default_of_one(rows: Iterable[Configuration]) -> str:
    """Names an option that some of these configurations have, and others have not, which no one command can say."""
    cells = [measured_at(row["record"]) for row in rows if row["task"] == "train"]
    for name, axis in AXES.items():
        if name not in ("fold", "seed", "relabel"):
            written = {axis.written(getattr(cell, name)) is None for cell in cells}
            if len(written) > 1:
                return axis.option
    return ""


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
        if name == "fold":
            values = _folds(records)
        by_default = values == [getattr(default, name)] and not axis.in_id
        written = [axis.written(value) for value in values]
        if written and not by_default and None not in written:
            words += [f"--{axis.option}", join_values(written)]
    usual = Settings()
    for option, setting in SETTINGS.items():
        values = list(dict.fromkeys(getattr(record.settings, setting.field) for record in records))
        value: Any = blocks if setting.field == "blocks" and blocks is not None else values[0]
        if value != getattr(usual, setting.field):
            several: Any = value if setting.repeats else [value]
            for one in several:
                switch = {True: "on", False: "off"}[one] if isinstance(one, bool) else None
                words += [f"--{option}", switch or setting.write(one)]
    # A file that has moved is where the last record says.
    for plugin in {Path(name).name: name for record in records for name in record.plugins}.values():
        words += ["--plugin", plugin]
    return " ".join(map(shlex.quote, words))


def reading(first: str, commands: Iterable[str]) -> str:
    """Writes the command that reads runs, whose ``first`` words are given, together with what these commands measure:
    it needs the plugins that they have.
    """
    words = [word for command in commands for word in shlex.split(command, comments=True)]
    named = dict.fromkeys(name for option, name in pairwise(words) if option == "--plugin")
    return " ".join([first, *(f"--plugin {shlex.quote(name)}" for name in named)])


def _folds(records: Iterable[Record]) -> list[object]:
    """Returns what ``--folds`` is given: all folds of what one is of; that none are taken, where images that a person
    has not split would be put into folds (`tlbench.data.folds`).
    """
    trained = [record for record in records if record.cell.task == "train"]
    counts = dict.fromkeys(folds_of(record.cell.fold) for record in trained)
    few = any(":" in r.cell.dataset and 0 < r.samples.get("test", 0) < FEW for r in trained if r.cell.fold is None)
    if set(counts) == {None}:
        return ["off"] if few else []
    return ["off" if count is None else count for count in counts]
