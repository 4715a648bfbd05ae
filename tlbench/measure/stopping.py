"""Early stopping of a cell: which epoch is the best by its validation images, and the weights that it had."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlbench.train.evaluate import Evaluation
from tlbench.train.loop import Trainer
from tlbench.train.stopping import Patience, last_phase


class EarlyStopping:
    """Hears the evaluation after each epoch of a training, keeps the weights of the best one, and puts them back."""

    def __init__(self, trainer: Trainer, patience: int) -> None:
        self.trainer = trainer
        self.rule = Patience(patience, last_phase(trainer.plan))
        self._weights: dict[str, Tensor] = {}

    def hear(self, evaluation: Evaluation) -> None:
        """Takes in what the epoch that was just trained scored."""
        if self.rule.hear(evaluation.accuracy, evaluation.loss):
            # In main memory also where a GPU computes: its peak is that of a step.
            trained = self._changing().state_dict()
            self._weights = {name: value.detach().to("cpu", copy=True) for name, value in trained.items()}

    def restore(self) -> bool:
        """Gives the model the weights and statistics of the best epoch. Returns whether that was not the last one."""
        if self.rule.best is None or self.rule.best == self.trainer.epoch:
            return False
        with torch.no_grad():
            for name, value in self._changing().state_dict().items():
                value.copy_(self._weights[name])
        return True

    @property
    def best_epoch(self) -> int | None:
        """Returns the number of the best epoch (1 first); None where none has counted."""
        return None if self.rule.best is None else self.rule.best + 1

    def _changing(self) -> nn.Module:
        """Returns what the last phase may change: the best epoch is one of it, and so is the last."""
        return self.trainer.suffix
