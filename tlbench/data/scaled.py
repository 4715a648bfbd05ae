"""Large photographs decoded at a fraction of their size: libjpeg computes 1/2, 1/4 or 1/8 of the pixels a side
directly.

It takes the lowest frequencies of each block of 8 x 8, at 1/8 their mean alone. What is decoded so is then resized as
the whole photograph would be. It has to have some times the pixels a side that are asked for (`LEAST`), so that what a
resize filter weighs is still there. How far pixels and accuracies differ is in docs/data.md; bench/decoding.py measures
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image
from PIL.ImageFile import ImageFile

Size = tuple[int, int]
Box = tuple[float, float, float, float]
"""Left, upper, right and lower side of a part of an image."""
Wanted = Callable[[int, int], Size]
"""Width and height of a photograph -> the least that is to be decoded of it."""

LEAST: Mapping[str, float] = {"scaled": 2, "auto": 4}
"""``decode`` -> what is decoded is at least so many times as large, a side, as what the photograph is resized to."""
FORMATS = ("JPEG", "MPO")
MOST_FRACTION = 8
"""libjpeg computes an eighth at the least."""
SCALED, COULD = 1, 2
"""What is said of an image: it was decoded at a fraction; it could have been."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """Holds an image as it was decoded, upright."""

    image: Image.Image
    """RGB."""
    size: Size
    """Of the whole photograph, whatever was decoded of it."""
    box: Box | None = None
    """Where it lies in ``image``, which may end in a part of a pixel; None where it was decoded whole."""
    format: str = ""


def wanted(decode: str, resized: Wanted) -> Wanted | None:
    """Returns what is to be decoded of a photograph at least; None where it is to be decoded whole. ``resized`` says
    what it is resized to.
    """
    if decode not in LEAST:
        return None

    def least(width: int, height: int) -> Size:
        across, down = resized(width, height)
        return math.ceil(LEAST[decode] * across), math.ceil(LEAST[decode] * down)

    return least


def could(photo: Photograph, resized: Wanted) -> bool:
    """Tells whether ``--decode scaled`` would decode a photograph at a fraction."""
    least = wanted("scaled", resized)
    assert least is not None
    return photo.format in FORMATS and _fraction(photo.size, least(*photo.size)) > 1


def draft(image: ImageFile, least: Size) -> Box | None:
    """Has an opened image decoded at the smallest fraction that leaves ``least`` pixels. Returns the part of what is
    decoded that the photograph takes; None where it is decoded whole.
    """
    if image.format not in FORMATS or _fraction(image.size, least) == 1:
        return None
    drafted = image.draft(None, least)
    return None if drafted is None else tuple(map(float, drafted[1]))  # type: ignore[return-value]


def _fraction(size: Size, least: Size) -> int:
    """Returns by how much each side is divided, as libjpeg can and ``least`` allows."""
    most = min(have // max(need, 1) for have, need in zip(size, least, strict=True))
    return next(part for part in (MOST_FRACTION, 4, 2, 1) if most >= part or part == 1)


def takes_all(image: ImageFile) -> bool:
    """Tells whether decoding takes the memory of the whole image even at a fraction: a progressive JPEG is put together
    from several passes over it.
    """
    return bool(image.info.get("progressive") or image.info.get("progression"))


def turned(box: Box, size: Size, turn: Image.Transpose | None) -> Box:
    """Returns where a part of an image of a size lies once that is turned."""
    left, upper, right, lower = box
    width, height = size
    if turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180):
        left, right = width - right, width - left
    if turn in (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180):
        upper, lower = height - lower, height - upper
    if turn in (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270):
        left, upper, right, lower = upper, left, lower, right
        if turn == Image.Transpose.ROTATE_270:  # clockwise: what was below is on the left
            left, right = height - right, height - left
    elif turn in (Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90):
        left, upper, right, lower = upper, width - right, lower, width - left
        if turn == Image.Transpose.TRANSVERSE:
            left, right = height - right, height - left
    return left, upper, right, lower


def brought(photo: Photograph, resized: Wanted, resampling: Image.Resampling) -> Image.Image:
    """Returns an image whose pixels a side are those of ``resized`` where it was decoded at a fraction; one that was
    decoded whole as it is.
    """
    if photo.box is None:
        return photo.image
    return photo.image.resize(resized(*photo.size), resampling, box=photo.box)


def in_words(decode: str, decoding: Mapping[str, int], images: int) -> str:
    """Says in a line how photographs were decoded; nothing where there is nothing to say."""
    if count := decoding.get("scaled", 0):
        which = "all" if count == images else f"{count:,} of {images:,}"
        rest = "" if count == images else "; the others, which are no large JPEGs, exactly"
        return (
            f"{decode}: {which} photographs by libjpeg at 1/2 to 1/8 of their size, at least {LEAST[decode]:g} times "
            f"the pixels a side that are asked for{rest}"
        )
    if count := decoding.get("could", 0):
        which = "all" if count == images else f"{count:,} of {images:,}"
        if decode == "exact":
            return f"exact: {which} photographs are so large that --decode scaled takes a fraction of the time"
        return f"{decode}: exactly, since none is {LEAST[decode]:g} times as large as what is asked for"
    return "" if decode == "exact" else f"{decode}: exactly, since no photograph is a JPEG of twice the size asked for"
