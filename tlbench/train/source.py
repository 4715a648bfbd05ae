"""Where training and evaluation take their images from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from tlbench.machine.arithmetic import Arithmetic


class Source(Protocol):
    """A source gives the images of one split, on the device."""

    def __len__(self) -> int:
        """Counts the images."""
        ...

    @property
    def arithmetic(self) -> Arithmetic:
        """Says on which device, in which precision and layout."""

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images (n, 3, S, S), not normalised, and labels (n,) at positions (n,) of the split."""

    def normalise(self, images: Tensor) -> Tensor:
        """Makes of images what the backbone takes: float, scaled and normalised."""

    def stored(self, boundary: int, epoch: int | None) -> Take | None:
        """Returns a function from positions (n,) to kept activations and labels; None where none are kept.

        They are those after ``boundary`` stages with their initial weights. ``epoch`` chooses among stored augmented
        views; None means none.
        """


Take = Callable[[Tensor], tuple[Tensor, Tensor]]
