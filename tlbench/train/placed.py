"""Images on the device: a data set that fits goes there once, so that no batch has to cross over in a timed epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from tlbench.data.streaming import Streamed
from tlbench.machine.kept import KEPT
from tlbench.train.room import make_room_on

AT_ONCE = 256
"""Images that cross over at a time, of those that are in no memory."""


def placed(images: Tensor | Streamed, sha256: str, device: torch.device) -> Tensor | Streamed:
    """Returns images (M, 3, S, S) uint8 on the device, copied there once for all cells that take them in a row; as they
    are where they do not fit, and on a CPU.

    ``sha256`` is the hash of the images.
    """
    if device.type == "cpu":
        return images
    key = (sha256, tuple(images.shape), str(device))
    if key not in KEPT.device_images:
        KEPT.device_images.forget()
        if not make_room_on(device, images.nbytes):
            return images
        there = _brought(images, device) if isinstance(images, Streamed) else images.to(device)
        KEPT.device_images.put(key, there, images.nbytes, str(device))
    found: Tensor = KEPT.device_images.get(key)
    return found


def _brought(images: Streamed, device: torch.device) -> Tensor:
    """Returns images that are in no memory on the device, where they fit."""
    there = torch.empty(images.shape, dtype=torch.uint8, device=device)
    batches = torch.arange(len(images)).split(AT_ONCE)
    ahead = images.ahead((batch.numpy() for batch in batches), pinned=device.type == "cuda")
    for batch in batches:
        there[batch[0] : batch[-1] + 1] = ahead.take(batch.numpy()).to(device, non_blocking=True)
    return there


def gather(images: Tensor | Streamed, index: Tensor, device: torch.device) -> Tensor:
    """Returns the images (n, 3, S, S) at an index (n,), on the device; it lies where the images do.

    From main memory they go through pinned memory, so that the host makes the next batch while this one crosses over.
    """
    if isinstance(images, Streamed):
        return images.take(index.numpy(), pinned=device.type == "cuda").to(device, non_blocking=True)
    if images.device.type == device.type:
        return images.index_select(0, index)
    batch = torch.empty((len(index), *images.shape[1:]), dtype=images.dtype, pin_memory=True)
    torch.index_select(images, 0, index, out=batch)
    return batch.to(device, non_blocking=True)
