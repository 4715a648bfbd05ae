"""Room for activations while a pass fills it: in main memory, on a GPU, or in a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from tlbench.machine.kept import MEMORY
from tlbench.train import files
from tlbench.train.stored import Fill, Stored


@dataclass(kw_only=True)
class Target:
    """Holds the room for a store that is being filled."""

    tensor: Tensor
    where: str
    taken: int
    """Bytes of the budget of its kind of memory."""
    channels_last: bool
    device: torch.device
    pool: str = MEMORY
    file: str | None = None
    """Its name, where it lies in a file."""

    def put(self, start: int, x: Tensor) -> None:
        """Takes the activations of a batch that begins with an image."""
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        self.tensor[start : start + len(x)] = x.to(self.tensor.device)

    def drop(self) -> None:
        """Gives the room back."""
        if self.file is not None:
            files.give_up(self.file)

    def finish(self, boundary: int, seconds: float, images: int, fill: Fill) -> Stored:
        """Returns the store, which is whole now; a file is published."""
        stored = Stored(
            activations=self.tensor,
            boundary=boundary,
            seconds=seconds,
            images=images,
            where=self.where,
            fill=fill,
            channels_last=self.channels_last,
        )
        if self.file is not None:
            facts = {"seconds": seconds, "images": images, "channels_last": self.channels_last} | {"fill": asdict(fill)}
            files.publish(self.file, self.tensor.dtype, facts)
        return stored
