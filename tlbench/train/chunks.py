"""How many images go through a frozen prefix at a time."""

from __future__ import annotations

import torch

CHUNKS = {"cpu": (32, 128), "cuda": (256, 256)}
"""Kind of device -> images in a batch of the prefix: at 224 px, and the most, of small ones, whose maps would leave the
processor waiting."""
LEAST_CHUNK = 32
MEMORY_FOR_MOST = 32e9
"""Bytes of a GPU that takes its whole batch, a smaller one a part of it: 256 images of VGG-16 are 7 GB."""


def chunk_of(pixels: int, device: torch.device) -> int:
    """Returns the images in a batch of the prefix, which depend on their pixels a side and the device alone."""
    usual, most = CHUNKS[device.type]
    if device.type == "cuda":  # the card's whole memory, which is the same whatever ran before
        share = min(1.0, torch.cuda.get_device_properties(device).total_memory / MEMORY_FOR_MOST)
        usual, most = (max(LEAST_CHUNK, int(share * n) // LEAST_CHUNK * LEAST_CHUNK) for n in (usual, most))
    return min(max(LEAST_CHUNK, usual * 224**2 // pixels**2), most)
