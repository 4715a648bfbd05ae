"""scikit-learn's scanned digits (UCI's optical recognition of handwritten digits): 1,797 images of 8 x 8."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from tlbench.data import Request
from tlbench.data.copies import grouped
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import RESAMPLING, Images, allocate, make_images, remember


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Returns the digits, each resized as a whole, nothing cut off, with three equal channels."""
    size, interpolation = request.size, request.interpolation
    images = remember(("digits", size, interpolation), lambda: _images(size, interpolation, request.ram_bytes))
    known = (images.labels, images.classes)
    return images, divide(
        range(len(images.labels)), *known, {"val": HELD_OUT, "test": HELD_OUT}, request.seed, images.groups
    )


def _images(size: int, interpolation: str, ram: int | None = None) -> Images:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = allocate(len(bunch.images), size, ram)
    for target, source in zip(pixels, bunch.images, strict=True):
        grey = Image.fromarray(np.round(source * (255 / 16)).astype(np.uint8))
        target[:] = np.asarray(grey.resize((size, size), RESAMPLING[interpolation]))
    images = make_images(pixels, bunch.target.tolist(), [str(digit) for digit in range(10)])
    # No photographs: at 8 x 8, digits that different people wrote look the same.
    return grouped(images, [hashlib.sha256(source.tobytes()).digest() for source in bunch.images])
