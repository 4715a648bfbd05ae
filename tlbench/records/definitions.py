"""Which meaning the name of a policy or a head, or ``--lr auto``, had when a record was written.

A row of the tables counts its meanings (`Policy.version`, `Head.version`), and so does the choice of rates
(`tlbench.grid.rates.VERSION`); a record keeps the counts above 1, so that records written before there were any have
version 1. What a name means today is shown plainly, any other meaning under ``name@version``: `meant` is what
everything that pools, matches or names records goes by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.rates import VERSION, chooses
from tlbench.heads import HEADS
from tlbench.policies.parse import parse_policy
from tlbench.policies.table import POLICIES
from tlbench.records.record import Record


def _policy(text: str) -> tuple[str, int] | None:
    return _read(text, tuple((name, policy.version) for name, policy in POLICIES.items()))


@cache
def _read(text: str, _: tuple[tuple[str, int], ...]) -> tuple[str, int] | None:
    """Keeps the answer, since every record asks; asks anew where a plugin has added to the table."""
    try:
        expression = parse_policy(text)
    except UserError:  # of a plugin that is not loaded
        return None
    return expression.name, expression.policy.version


def _head(text: str) -> tuple[str, int] | None:
    return (text, HEADS[text].version) if text in HEADS else None


TABLES: Mapping[str, Callable[[str], tuple[str, int] | None]] = {"freeze": _policy, "head": _head}
"""Field of `Cell` -> (its text) -> name of the row that it stands for and that row's version; None for no row here."""
RATES = "--lr auto"
"""What the choice of learning rates is called."""


def _rows(cell: Cell) -> dict[str, tuple[str, int]]:
    """Maps the fields that mean something in a cell to row and version; inference depends on no policy, and a learning
    rate has a meaning that may change where it is chosen.
    """
    fields = [field for field in TABLES if field != "freeze" or cell.task == "train"]
    rows = {field: row for field in fields if (row := TABLES[field](getattr(cell, field))) is not None}
    return {**rows, "lr": (RATES, VERSION)} if chooses(cell) else rows


def definitions(cell: Cell) -> dict[str, int]:
    """Returns today's versions of a cell's policy, head and choice of rates, under the fields' names, where they are
    above 1.
    """
    return {field: version for field, (_, version) in _rows(cell).items() if version > 1}


def outdated(record: Record) -> dict[str, tuple[str, int, int]]:
    """Maps the fields of a record's cell whose meaning has changed to the row's name, its version then, and now."""
    then = {field: (name, record.definitions.get(field, 1), now) for field, (name, now) in _rows(record.cell).items()}
    return {field: row for field, row in then.items() if row[1] != row[2]}


def meant(record: Record) -> Cell:
    """Returns the record's cell as it is named today: what has another meaning as ``layer_decay@1``, ``auto@1``.

    Records are of the same kind of cell exactly when these are equal; such a cell cannot be run.
    """
    changed: Any = {f: f"{getattr(record.cell, f)}@{then}" for f, (_, then, _) in outdated(record).items()}
    return replace(record.cell, **changed) if changed else record.cell


def said(record: Record) -> str:
    """Says in words what has changed its meaning since the record was written; empty where nothing has."""
    return "; ".join(
        f"{name} means something else since then (version {then} there, {now} here)"
        for name, then, now in outdated(record).values()
    )


def check_same_meaning(cells: Iterable[Cell], earlier: Iterable[Record]) -> None:
    """Raises UserError where one of the cells uses a name that an earlier record of the run used in another meaning."""
    used = {row for cell in cells for row in _rows(cell).items()}
    for record in earlier:
        for field, (name, _, now) in outdated(record).items():
            if (field, (name, now)) in used:
                raise UserError(f"this run has measured {record.id!r}, and {said(record)}; start a new run")
