"""Where a measurement stands in its run. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEEP = {
    "all": "activations of the frozen prefix stay in memory as far as the budget goes",
    "pretrained": "those of pretrained weights stay, which cells of other seeds share",
    "nothing": "the cell gives those that it used back",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Tells a cell about the run that it is a part of."""

    name: str | None = None
    """The record's id; None takes the cell's own."""
    block: int = 0
    role: str = "cell"
    siblings: tuple[str, ...] = ()
    """The freeze policies of the grid: what they will need of the frozen prefix is computed in the same pass."""
    keep: str = "all"
    """What of the frozen prefix stays in memory for later cells: a key of `KEEP`."""
    again: bool = False
    """Whether it is measured again because it was noisy; what was noisy of its frozen prefix is, too."""
    shared: bool = False
    """Whether other cells of the run may be measured on this node at the same time."""
    node: str = ""
    """Name of the machine that an engine has placed it on; empty where it is the run's own."""
    engine: str = ""
    """What has placed it there; empty where nothing has."""
    most_seconds: float | None = None
    """Seconds that a budget leaves for it, after which a process of its own is ended; None: no end."""

    trained: str = ""
    """Folder where a trained cell leaves its weights, for a model that is kept later (`tlbench.kept.left`); empty:
    nowhere."""

    @property
    def where(self) -> dict[str, Any]:
        """Returns what a record says of this, by its fields."""
        return {"engine": self.engine, "node": self.node, "shares_node": self.shared}


ALONE = Place()
"""The place of a cell that belongs to no run."""
