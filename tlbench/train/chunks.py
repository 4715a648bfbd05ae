"""How many images go through a frozen prefix at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHUNKS = {"cpu": (32, 128), "cuda": (256, 256)}
"""Kind of device -> images in a batch of the prefix: at 224 px, and the most, of small ones, whose maps would leave the
processor waiting."""
LEAST_CHUNK = 32


def chunk_of(pixels: int, device: torch.device) -> int:
    """Returns the images in a batch of the prefix, which depend on their pixels a side and the kind of device alone."""
    usual, most = CHUNKS[device.type]
    return min(max(LEAST_CHUNK, usual * 224**2 // pixels**2), most)
