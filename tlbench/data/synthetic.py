"""Random images, for throughput only."""

from __future__ import annotations

import numpy as np

from tlbench.data import Request
from tlbench.data.store import Images, allocate, make_images, remember

CLASSES = 10
SPLITS = {"train": 256, "val": 64, "test": 64}


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Returns uniform noise; the same for every seed, since nothing is learned from it."""
    parts, start = {}, 0
    for name, count in SPLITS.items():
        parts[name] = list(range(start, start + count))
        start += count
    return remember(("synthetic", request.size), lambda: _images(request.size, request.ram_bytes)), parts


def _images(size: int, ram: int | None = None) -> Images:
    count = sum(SPLITS.values())
    pixels = allocate(count, size, ram)
    generator = np.random.default_rng(0)
    for image in pixels:
        image[:] = generator.integers(0, 256, image.shape, np.uint8)
    return make_images(pixels, [n % CLASSES for n in range(count)], [str(c) for c in range(CLASSES)])
