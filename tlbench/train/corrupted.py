"""Images of a split, corrupted, as an evaluation takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tlbench.data import Split
from tlbench.data.corruptions import corrupted
from tlbench.machine.arithmetic import Arithmetic
from tlbench.train.source import Source


class Corrupted:
    """Gives the images of another source in one corruption (`tlbench.train.source.Source`). They are made when they are
    asked for, and not kept: fifteen times the test images would take more memory than all that a cell is measured with.
    """

    def __init__(self, source: Source, split: Split, kind: str, strength: int) -> None:
        self.source, self.split, self.kind, self.strength = source, split, kind, strength

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Tensor:
        return self.source.labels

    @property
    def arithmetic(self) -> Arithmetic:
        return self.source.arithmetic

    @property
    def place(self) -> torch.device:
        return torch.device("cpu")

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.split.batch(positions)
        device = self.arithmetic.device
        return self._corrupted(images).to(device), labels.to(device)

    def _corrupted(self, images: Tensor) -> Tensor:
        return torch.from_numpy(corrupted(images.numpy(), self.kind, self.strength, torch.get_num_threads()))

    def prepared(self, images: Tensor) -> Tensor:
        """Makes of plain images (n, 3, S, S) what the backbone takes, corrupted."""
        return self.normalise(self._corrupted(images.cpu()).to(self.arithmetic.device))

    def follow(self, batches: Sequence[Tensor]) -> None:
        """Brings nothing ahead: what is asked for is made then."""

    def normalise(self, images: Tensor) -> Tensor:
        return self.source.normalise(images)

    def stored(self, boundary: int, epoch: int | None) -> None:
        return None
