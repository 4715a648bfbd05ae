"""Activations that are kept, and the pass over the images that computed them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Says how much room activations may take, in bytes; None takes the default share of what is free."""

    ram_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Says how one pass over the images went. It is one measurement, whichever cells take what it left."""

    name: str = ""
    """The same for all that this pass filled, and for nothing else; empty where an older version filled it."""
    block: int = 0
    """Of the run that it was measured in."""
    noisy: str = ""
    """Why its seconds are not to be trusted; empty when they are."""
    throttled: str = ""
    """What held the processors or the GPU back; empty when nothing did."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Holds the activations of all images of a store at one boundary."""

    activations: Tensor
    """(M, …): channels last in memory where the layout is."""
    boundary: int
    """Number of stages that have run."""
    seconds: float
    """What computing them took: all stages from the images on."""
    images: int
    where: str
    """memory, disk or the device's name."""
    fill: Fill = Fill()
    shared: bool = False
    """Computed earlier, for another cell."""
    screened_seconds: float = 0.0
    """Of the seconds, those of a screen before the run, whose batches the pass has taken."""
    channels_last: bool = False
    """Kept as (M, H, W, C)."""
    batches: tuple[tuple[int, int], ...] | None = None
    """Of which images of the store these are, where not of all: the first one of each batch, and how many."""

    @property
    def bytes(self) -> int:
        """Returns the size of the activations."""
        return self.activations.numel() * self.activations.element_size()

    def batch(self, start: int, images: int) -> Tensor | None:
        """Returns the activations (images, …) of a batch; None where exactly this one is not here."""
        row = 0
        for begin, rows in self.batches or ():
            if (begin, rows) == (start, images):
                return self.activations[row : row + rows]
            row += rows
        return None

    def take(self, index: Tensor, device: torch.device) -> Tensor:
        """Returns the activations (n, …) of images of the store, on the device."""
        found = self.activations.index_select(0, index.to(self.activations.device))
        if found.ndim == 4 and self.channels_last:
            found = found.permute(0, 3, 1, 2)
        return found.to(device, non_blocking=True)
