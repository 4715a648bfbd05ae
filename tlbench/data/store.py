"""Decoded images in one tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Images:
    """All images of a data set."""

    pixels: Tensor
    """(M, 3, S, S), uint8."""
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    sha256: str
    """Of classes, labels and pixels."""
    dropped: tuple[str, ...] = ()


def make_images(
    pixels: np.ndarray, labels: Sequence[int], classes: Sequence[str], dropped: Sequence[str] = ()
) -> Images:
    """From an array (M, 3, S, S) of uint8."""
    digest = hashlib.sha256(repr((tuple(classes), tuple(labels), pixels.shape)).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return Images(
        pixels=torch.from_numpy(pixels),
        labels=tuple(labels),
        classes=tuple(classes),
        sha256=digest.hexdigest(),
        dropped=tuple(dropped),
    )


def fit(image: Image.Image, resize: int, size: int, resampling: Image.Resampling) -> np.ndarray:
    """Shorter side to ``resize``, then the centre of ``size`` x ``size``, as torchvision's classification preset
    does it on PIL images; an image that is still too small is padded with black. Returns (3, size, size) uint8.
    """
    width, height = image.size
    new = (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    if new != (width, height):
        image = image.resize((max(new[0], 1), max(new[1], 1)), resampling)
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    if width < size or height < size:
        # torchvision pads by half the difference, the smaller half first.
        left, top = -((size - width) // 2) if width < size else left, -((size - height) // 2) if height < size else top
    image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)
