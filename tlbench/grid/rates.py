"""The learning rates that ``--lr auto`` tries, and what that costs, the same for every cell. Nothing here needs torch.

Each trial is a whole training of the cell from its initial weights, by the recipe that it will be measured with. First
the default rates of head and backbone are multiplied together. What comes then depends on what there is to choose:
where the policy trains parameters of the backbone at a rate of their own, the backbone's rate alone, around the best of
the first; else that best rate in finer steps. So every cell spends the same number of trials.
"""

from __future__ import annotations

from tlbench.grid.cell import Cell
from tlbench.heads import HEADS

AUTO = "auto"
VERSION = 2
"""Counts the meanings that ``--lr auto`` has had, as a policy counts its own: the first tried `BOTH` alone."""
BOTH = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the default rates of head and backbone, tried first. A backbone's rate that the user gives stays."""
BACKBONE = (0.3, 3.0)
"""Factors on the backbone's rate, the head's being the best of the first."""
FINER = (0.55, 1.8)
"""Factors on the best rates of the first: halfway, on a logarithmic scale, to their neighbours."""
TRIALS = len(BOTH) + len(BACKBONE)
"""Trials of a cell whose rates are chosen."""
assert len(BACKBONE) == len(FINER), "an equal budget for every cell"


def chooses(cell: Cell) -> bool:
    """Tells whether a cell's rates are chosen before it trains: a head that is fitted in one go has none."""
    head = HEADS.get(cell.head)
    return cell.task == "train" and cell.lr == AUTO and (head is None or head.fit is None)


def trials(cell: Cell) -> int:
    """Returns how many trainings choosing a cell's rates costs before its own; each has at most as many epochs."""
    return TRIALS if chooses(cell) else 0
