"""Room on a GPU for what cells leave to those after them: activations and images have one budget."""

from __future__ import annotations

from collections.abc import Container

import torch

from tlbench.machine.kept import KEPT

RAM_SHARE = 0.25
"""Share of the free memory that activations may take by default."""


def make_room_on(device: torch.device, size: int, taken: int = 0, besides: Container[str] = ()) -> bool:
    """Makes room for so many bytes among what is kept on a GPU; False where they are more than all of it may take.
    ``taken`` bytes are of what is being kept at this moment; activations of the names ``besides`` stay.

    All together may take `RAM_SHARE` of what would be free without it; the activations used longest ago go first.
    """
    pool = str(device)
    kept, images = KEPT.activations, KEPT.device_images.bytes(pool)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, for whom it needs it
    free = torch.cuda.mem_get_info(device)[0] + idle
    budget = int(RAM_SHARE * (free + kept.bytes(pool) + images + taken)) - images - taken
    while kept.bytes(pool) + size > budget >= size and kept.drop_oldest(pool, besides):
        pass
    return kept.bytes(pool) + size <= budget


def leave_device(device: torch.device) -> bool:
    """Forgets all that is kept on a GPU; False where nothing is, so that there is nothing to gain by it."""
    pool = str(device)
    if device.type == "cpu" or not KEPT.activations.bytes(pool) + KEPT.device_images.bytes(pool):
        return False
    KEPT.device_images.forget()
    while KEPT.activations.drop_oldest(pool):
        pass
    return True
