"""Where training and evaluation take their images from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from tlbench.machine.arithmetic import Compute


class Source(Protocol):
    """The images of one split, on the device."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    @property
    def compute(self) -> Compute:
        """Device, precision, layout."""

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (n,) of the split -> images (n, 3, S, S), not normalised, and labels (n,)."""

    def normalise(self, images: Tensor) -> Tensor:
        """What the backbone takes: float, scaled and normalised."""

    def stored(self, boundary: int, epoch: int | None) -> Take | None:
        """The activations after ``boundary`` stages with their initial weights, where they are kept: a function from
        positions (n,) to activations and labels. ``epoch`` chooses among stored augmented views; None means none.
        """


Take = Callable[[Tensor], tuple[Tensor, Tensor]]
