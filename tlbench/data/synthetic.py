"""Random images, for throughput only."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tlbench.data import Request
from tlbench.data.store import Images, make_images

CLASSES = 10
SPLITS = {"train": 256, "val": 64, "test": 64}


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Uniform noise; the same for every seed, since nothing is learned from it."""
    parts, start = {}, 0
    for name, count in SPLITS.items():
        parts[name] = list(range(start, start + count))
        start += count
    return _images(request.size), parts


@lru_cache(maxsize=2)
def _images(size: int) -> Images:
    count = sum(SPLITS.values())
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    return make_images(pixels, [n % CLASSES for n in range(count)], [str(c) for c in range(CLASSES)])
