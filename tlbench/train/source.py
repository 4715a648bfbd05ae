"""Where training and evaluation take their images from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tlbench.machine.arithmetic import Arithmetic
from tlbench.train.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Taking:
    """Takes kept activations of a split, by positions."""

    kept: Stored
    index: Tensor
    """(n,) row of each position, where the activations are."""
    labels: Tensor
    """(n,) on the device."""

    @property
    def place(self) -> torch.device:
        """Says where positions are best, since the activations are there."""
        return self.index.device

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns activations and labels (n,) at positions (n,), on the device."""
        device = self.labels.device
        rows = self.kept.take(self.index[positions.to(self.place)], device)
        return rows, self.labels[positions.to(device, non_blocking=True)]


class Source(Protocol):
    """A source gives the images of one split, on the device."""

    def __len__(self) -> int:
        """Counts the images."""
        ...

    @property
    def labels(self) -> Tensor:
        """Gives the classes (n,) of the images, on the device."""

    @property
    def arithmetic(self) -> Arithmetic:
        """Says on which device, in which precision and layout."""

    @property
    def place(self) -> torch.device:
        """Says where positions are best, since the images are there."""

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images (n, 3, S, S), not normalised, and labels (n,) at positions (n,) of the split."""

    def follow(self, batches: Sequence[Tensor]) -> None:
        """Is told which batches of positions `raw` will be asked for, in order: images that are in no memory can then
        be brought ahead.
        """

    def normalise(self, images: Tensor) -> Tensor:
        """Makes of images what the backbone takes: float, scaled and normalised."""

    def stored(self, boundary: int, epoch: int | None) -> Taking | None:
        """Returns what takes kept activations and labels; None where none are kept.

        They are those after ``boundary`` stages with their initial weights. ``epoch`` chooses among stored augmented
        views; None means none.
        """


def send(batches: list[Tensor], place: torch.device) -> list[Tensor]:
    """Returns batches of positions where they are wanted: one copy for all of an epoch."""
    if not batches or place.type == "cpu":
        return batches
    return list(torch.cat(batches).to(place).split([len(batch) for batch in batches]))
