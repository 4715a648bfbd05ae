"""Early stopping (Prechelt 1998): after which epoch a training ends, and which of its epochs is kept. Nothing here
imports torch, and nothing is computed: an epoch is told by what it scored on the validation images.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.policies.base import Phase

Score = tuple[float, float]
"""What validation images choose by, the greater the better: accuracy, then minus the loss."""


def score(accuracy: float, loss: float) -> Score:
    """Returns what rates and epochs are chosen by: the higher validation accuracy is better, of equal ones the lower
    validation loss.
    """
    return accuracy, -loss


def last_phase(plan: Sequence[Phase]) -> int:
    """Returns the epoch (0 first) with which the last phase of a plan, a phase an epoch, begins."""
    return next(epoch for epoch in range(len(plan)) if all(phase is plan[-1] for phase in plan[epoch:]))


class Patience:
    """Hears the score of each epoch; says which is the best so far, and when so many after it were no better.

    Epochs before ``first`` count for nothing: the phases of a schedule before its last are run whole, and what they
    end with is no model of the policy's.
    """

    def __init__(self, epochs: int, first: int = 0) -> None:
        self.epochs, self.first = epochs, first
        self.best: int | None = None
        """The best epoch (0 first), of equal ones the earliest; None before ``first``."""
        self._best_score: Score | None = None
        self._heard = -1

    def hear(self, accuracy: float, loss: float) -> bool:
        """Takes in what the next epoch scored. Returns whether it is the best so far."""
        self._heard += 1
        found = score(accuracy, loss)
        if self._heard < self.first or (self._best_score is not None and found <= self._best_score):
            return False
        self.best, self._best_score = self._heard, found
        return True

    @property
    def enough(self) -> bool:
        """Tells whether the training ends here: as many epochs as the patience is were no better than the best."""
        return self.best is not None and self._heard - self.best >= self.epochs
