"""Room for activations while a pass fills it: in main memory, on a GPU, or in a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from tlbench.machine.kept import MEMORY
from tlbench.train.files import Filling
from tlbench.train.stored import Fill, Stored


@dataclass(kw_only=True)
class Target:
    """Holds the room for a store that is being filled."""

    room: Tensor | Filling
    where: str
    taken: int
    """Bytes of the budget of its kind of memory."""
    channels_last: bool
    device: torch.device
    pool: str = MEMORY

    def put(self, start: int, x: Tensor) -> None:
        """Takes the activations of a batch that begins with an image. Errors: tlbench.train.files.NoRoom."""
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        if isinstance(self.room, Filling):
            self.room.put(start, x)
        else:
            self.room[start : start + len(x)] = x.to(self.room.device)

    def drop(self) -> None:
        """Gives the room back; what is finished stays."""
        if isinstance(self.room, Filling):
            self.room.drop()

    def finish(self, boundary: int, seconds: float, images: int, fill: Fill) -> Stored:
        """Returns the store, which is whole now; a file is published. Errors: tlbench.train.files.NoRoom."""
        if isinstance(self.room, Filling):
            facts = {"seconds": seconds, "images": images, "channels_last": self.channels_last} | {"fill": asdict(fill)}
            tensor = self.room.publish(facts)
        else:
            tensor = self.room
        return Stored(
            activations=tensor,
            boundary=boundary,
            seconds=seconds,
            images=images,
            where=self.where,
            fill=fill,
            channels_last=self.channels_last,
        )
