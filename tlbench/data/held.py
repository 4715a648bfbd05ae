"""An image that lies in no file of its own: in an archive of many, in a column of a table, in an array.

It stands where a file's path would (`tlbench.data.scan.Scan.files`), so that all that is done with files is done with
it: decoding, identities, copies, splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Content = bytes | NDArray[np.uint8]
"""An encoded image, or its pixels: (H, W) grey or (H, W, 3) red, green and blue, uint8."""


@dataclass(frozen=True, slots=True)
class Held:
    """Names an image, and says how to get it. Two are equal where names and numbers are."""

    name: str
    """What it is called below the data set's root, as a file's path would be: ``train/000012``."""
    number: int
    source: Callable[[int], Content] = field(compare=False, repr=False)
    """Number -> the image. Threads may call it at once. Errors: OSError or ValueError where there is none."""

    def __str__(self) -> str:
        return self.name

    def relative_to(self, root: object) -> str:
        """Returns the name, which has no root in it."""
        return self.name

    def read(self) -> Content:
        """Returns the image. Errors: as `source`."""
        return self.source(self.number)


def identity_of(file: Path | Held) -> bytes:
    """Returns what an image is known by, whatever it is decoded to: the SHA-256 of its encoded bytes, or else of its
    pixels with their shape. Errors: OSError, ValueError.
    """
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    content = file.read()
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    return hashlib.sha256(repr(content.shape).encode() + np.ascontiguousarray(content).tobytes()).digest()


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """Returns pixels as an RGB image. Errors: ValueError where they are none."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"an array of shape {pixels.shape} and type {pixels.dtype} is no image of 8 bits")
    if not pixels.size:
        raise ValueError("it has no pixels")
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
