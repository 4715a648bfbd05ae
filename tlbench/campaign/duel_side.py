"""Reads one side of a duel, a cell and how it is measured, as people write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tlbench.campaign.check import check
from tlbench.errors import NotApplicable, UserError, nearest, unknown
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings, parse_settings
from tlbench.grid.values import split_values
from tlbench.heads import HEADS
from tlbench.records.identity import measured_at
from tlbench.records.record import Record

OWN_SETTINGS = ("threads", "deterministic", "prefix", "views")
"""Settings that a side may have to itself; the others belong to the process."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A side is a cell, and how it is measured."""

    cell: Cell
    settings: Settings = field(default_factory=Settings)


def parse_side(text: str, records: Sequence[Record] = ()) -> Side:
    """Reads a side from the id or the key of one of the records, or from ``backbone=resnet18,freeze=full,threads=1``:
    axes, and the settings of `OWN_SETTINGS`; what is left out is at its default.

    Errors: UserError naming the value, the choices and the next step.
    """
    for record in records:
        if text in (record.id, record.key):
            # Where it was measured, without other tests, which a duel has no use for.
            return Side(cell=measured_at(record), settings=replace(record.settings, also_test=(), corrupt=()))
    if "=" not in text:
        names = list(dict.fromkeys(record.id for record in records))
        guess = nearest(text, names)
        hint = f"; did you mean {guess!r}?" if guess else ""
        where = "is no cell of the run" if records else "is no cell; give --run for the ids of a run"
        raise UserError(f"{text!r} {where}{hint}; a cell is also written as backbone=resnet18,freeze=full")
    options = {axis.option.replace("_", "-"): name for name, axis in AXES.items()} | {"seed": "seed"}
    axes: dict[str, tuple[Any, ...]] = {}
    settings: dict[str, object] = {}
    for part in split_values(text):
        key, _, value = part.partition("=")
        key = key.strip().replace("_", "-")
        if key not in options and key not in OWN_SETTINGS:
            raise unknown(f"axis in {text!r}:", key, [*options, *OWN_SETTINGS])
        name = options.get(key, key)
        if name in axes or name in settings:
            raise UserError(f"{text!r} gives {key!r} twice")
        if key in options:
            axes[name] = parse_axis(name, value)
            if len(axes[name]) > 1:
                raise UserError(f"{text!r} gives {key!r} several values; one side of a duel is one cell")
        else:
            settings[key] = value.strip()
    return Side(cell=Grid(axes=axes).expand()[0], settings=parse_settings(settings))


def checked(side: Side) -> Side:
    """Returns the side with its device and number of threads resolved.

    Errors: UserError and NotApplicable, before anything is built.
    """
    cell = side.cell
    grid = check(Grid.of(cell), side.settings)
    if cell.task == "train" and HEADS[cell.head].fit is not None:
        raise NotApplicable(
            f"the head {cell.head} is fitted in one go, and a duel compares epochs; choose another head"
        )
    # Which rate a cell trains at, and after which epoch it stops, does not change how long an epoch takes.
    cell = replace(grid.expand()[0], lr=None if cell.lr == "auto" else cell.lr, patience=None)
    threads = side.settings.threads or torch.get_num_threads()
    return Side(cell=cell, settings=replace(side.settings, threads=threads))


def names(a: Side, b: Side) -> tuple[str, str]:
    """Says what tells the sides apart: ``freeze=full`` against ``freeze=norm``; all of the cell where nothing does."""
    labels = []
    for facts, other_facts in ((_facts(a), _facts(b)), (_facts(b), _facts(a))):
        labels.append(" ".join(f"{key}={_word(value)}" for key, value in facts.items() if value != other_facts[key]))
    return (labels[0], labels[1]) if all(labels) else (a.cell.id, f"{b.cell.id} (the same)")


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _facts(side: Side) -> Mapping[str, Any]:
    settings = {name: getattr(side.settings, SETTINGS[name].field) for name in OWN_SETTINGS}
    return {axis.option: getattr(side.cell, name) for name, axis in AXES.items()} | settings
