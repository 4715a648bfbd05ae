"""Has trained cells leave their weights (`tlbench.kept.left`) where ``--keep best`` waits for one, and keeps the best.
Nothing here loads torch where nothing is to be left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlbench.console import surviving
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.kept.trained import TRAINED, keep_the_best, name_of
from tlbench.measure.place import Place
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record


def leaving(place: Place) -> dict[str, Any]:
    """Returns what `tlbench.measure.cell.run_cell` is to be given beside a place: what takes the trained model."""
    if not place.trained:
        return {}
    from tlbench.kept.left import leaving_at

    return {"take": leaving_at(place)}


def may_leave(cell: Cell) -> bool:
    """Tells whether a trained cell leaves its weights: not one of a fold, whose model is of all images, nor one with an
    adapter in its model, whose weights are not the model's own.
    """
    if cell.fold is not None:
        return False
    try:
        return parse_policy(cell.freeze).policy.adapter is None
    except UserError:  # of a plugin that is not loaded here
        return False


class Weights:
    """Holds the weights that the cells of a run leave, as far as there is room for them."""

    def __init__(self, run: Path, records: Sequence[Record]) -> None:
        self._folder = run / TRAINED
        self._accuracies: dict[str, float] = {}
        for record in records:
            self._note(record)

    def _note(self, record: Record) -> None:
        if record.role == "cell" and record.status == "ok":
            self._accuracies[name_of(record.id, record.block)] = record.accuracy_val or 0.0

    def take(self, record: Record) -> None:
        """Takes in a measurement; weights that are behind on validation images go where there are too many."""
        self._note(record)
        with surviving("weights of cells that are behind are not removed"):
            keep_the_best(self._accuracies, self._folder)
