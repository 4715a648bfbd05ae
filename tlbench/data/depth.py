"""Images of more than 8 bits a value: which value is black, which is white, and how they become 8 bits.

A 16-bit file seldom uses its range: scanners and microscopes have 10, 12 or 14 bits, a CT 12 with negative values among
them, and hardly a file says so. What its images have in common is the instrument, so a data set has one `Scale`: from
black, 0 or the power of two that holds what is negative (Hounsfield units: -1,024), to white, what the smallest of
`DEPTHS` holds above black. It is that of the training images; what lies beyond it elsewhere is cut off there. Scales of
each image's own would make bright what is dark, and one of the exact extremes would move with every image added.

The lowest bits are dropped, as torchvision's ``to_dtype(…, scale=True)`` does from 16 bits to 8. Of floating-point
values only 0 to 1 have a meaning that libraries agree on; they become what the same function makes of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that an instrument may have."""
LEAST, MOST = -(2**15), 2**16 - 1
"""Values of whole numbers that are read: of 16 bits, with a sign or without."""
BITS_PER_SAMPLE, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339
"""Tags of a TIFF."""
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2
"""Values of these tags."""
COLOURS = re.compile(r"(RGB|RGBA|RGBX|RGBa|CMYK);16[BLN]|LA;16B")
"""Raw modes of 16-bit colours, of which PIL keeps the high bytes alone."""
OF_COLOUR = {"RGB": 3, "RGBA": 3, "CMYK": 4, "LA": 1}
"""Channels of a mode that are no transparency."""
ROWS = 64
"""Rows of a colour image that are put together at a time."""

Values = NDArray[np.int32]
Stored = tuple[Any, ...]
"""PIL's name of a decoder and what it is told; empty for formats that do not say before they decode."""
Reopen = Callable[[], AbstractContextManager[ImageFile]]
"""What opens a file anew."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Says how values become 8 bits."""

    black: int = 0
    bits: int = 16
    """White is the largest that so many bits hold above black."""

    @property
    def white(self) -> int:
        """Returns the value that becomes 255."""
        return self.black + (1 << self.bits) - 1

    def to_bytes(self, values: Values) -> NDArray[np.uint8]:
        """Returns values of 8 bits, for ``values``, which are overwritten; beyond black or white they are cut off."""
        np.clip(values, self.black, self.white, out=values)
        values -= self.black
        values >>= self.bits - 8
        return values.astype(np.uint8)


FULL = Scale()
"""All that 16 bits hold without a sign."""


class Extent(NamedTuple):
    """Says between which values an image lies; of colours, the least and the most of that high byte."""

    low: int
    high: int

    def beyond(self, scale: Scale) -> bool:
        """Tells whether values lie beyond a scale's black or white."""
        return self.low < scale.black or self.high > scale.white


def scale_of(extents: Iterable[Extent]) -> Scale:
    """Returns the scale that holds all of them; `FULL` for none."""
    every = list(extents)
    if not every:
        return FULL
    low, high = min(one.low for one in every), max(one.high for one in every)
    black = -(1 << (-low - 1).bit_length()) if low < 0 else 0
    # Files with a sign and files that use the whole range without one may lie in one folder.
    return Scale(black=black, bits=next((bits for bits in DEPTHS if high - black < 2**bits), 17))


# --- one image ------------------------------------------------------------------------------------------------


def storage(image: ImageFile) -> Stored:
    """Returns how an opened image is stored, which PIL forgets once it is loaded. A colour PPM that says no more than
    that it has 16 bits is then loaded as other formats of 16-bit colours are. Errors: ValueError where PIL takes values
    of 16 bits for such of 8.
    """
    if not image.tile:
        return ()
    codec, where, offset, told = image.tile[0]
    if codec == "ppm" and told == ("RGB", MOST):
        image.tile = [_tile(image.tile[0], ("raw", where, offset, ("RGB;16B", 0, 1)))]
        return storage(image)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(PLANES) == SEPARATE and codec != "libtiff" and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise ValueError("its 16-bit colours lie in planes of their own, which are not read; save it with 8 bits")
    return codec, *((told,) if isinstance(told, str) else told or ())


def is_deep(image: ImageFile, stored: Stored) -> bool:
    """Tells whether an opened image may have more than 8 bits a value: it takes twice the memory of others."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _are_colours(stored)


def eight_bits(
    image: ImageFile,
    stored: Stored,
    reopen: Reopen,
    scale: Scale,
    tell: Callable[[Extent], None],
) -> Image.Image:
    """Returns a loaded image with 8 bits a value at most.

    ``reopen`` opens the file anew, for the bytes that PIL drops. ``tell`` gets the extent of values whose range the
    file does not say, and which ``scale`` is for. Errors: ValueError for values of no known range.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if _are_colours(stored):
        return _colour(image, stored, reopen, scale, tell)
    if image.mode == "F":
        grey = _of_unit(np.asarray(image))
    elif (values := _whole(image, tags)) is not None:
        own = _own_scale(stored)
        if own is None:
            tell(Extent(int(values.min()), int(values.max())))
        grey = (own or scale).to_bytes(values)
    else:
        return image
    # PIL turns those of 8 bits round, these not.
    return Image.fromarray(255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey)


def in_eight_bits(image: Image.Image, scale: Scale) -> Image.Image:
    """Returns an image in memory with 8 bits a value, as a file with the same values is read. Errors: ValueError for
    values of no known range.
    """
    if image.mode == "F":
        return Image.fromarray(_of_unit(np.asarray(image)))
    values = _whole(image, {})
    return image if values is None else Image.fromarray(scale.to_bytes(values))


def _of_unit(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # nor is NaN
        raise ValueError(
            f"its floating-point values go from {low:g} to {high:g}, and only 0 to 1 have a known meaning; save it "
            "with 16-bit whole numbers, or with values from 0 to 1"
        )
    return (values * np.float32(255.999)).astype(np.uint8)


def _whole(image: Image.Image, tags: Mapping[int, Any]) -> Values | None:
    """Returns whole numbers that are no 8 bits without a sign; None for any other image."""
    with_sign = SIGNED in tags.get(SAMPLE_FORMAT, ())
    if image.mode == "L" and with_sign:  # PIL takes them for values without one
        return np.asarray(image).view(np.int8).astype(np.int32)
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return None
    values = np.asarray(image).astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if SAMPLE_FORMAT in tags and not with_sign and low < 0:  # 32 bits without a sign, which PIL has no mode for
        low, high = 0, 2**32 + low
    if low < LEAST or high > MOST:
        raise ValueError(
            f"its values go from {low:,} to {high:,}, and only {LEAST:,} to {MOST:,} are read; save it with 16 bits"
        )
    return values


def _own_scale(stored: Stored) -> Scale | None:
    """Returns the scale of a file that says its own range: PGM (PIL brings it to 16 bits), JPEG 2000 (as well), and
    TIFF of 12 bits a value; None for all others, and for a PGM that says no more than that it has 16 bits.
    """
    codec, told = (*stored, "")[0], stored[1:]
    if codec == "jpeg2k" or (codec in ("ppm", "ppm_plain") and told[-1] != MOST):
        return FULL
    return Scale(bits=12) if told[:1] == ("I;12",) else None


# --- colours --------------------------------------------------------------------------------------------------


def _are_colours(stored: Stored) -> bool:
    return len(stored) > 1 and isinstance(stored[1], str) and COLOURS.fullmatch(stored[1]) is not None


def _colour(
    image: ImageFile,
    stored: Stored,
    reopen: Reopen,
    scale: Scale,
    tell: Callable[[Extent], None],
) -> Image.Image:
    """Returns an image of 16-bit colours at a scale. The high bytes tell the depth; where it is less than 16 bits, the
    low ones are needed, which the decoder gives when it is told the other order of bytes.
    """
    high = np.asarray(image)
    seen = high[..., : OF_COLOUR[image.mode]]
    tell(Extent(0, int(seen.max()) << 8 | 255))
    if scale == FULL:
        return image
    low = _low_bytes(stored[1], image, reopen)
    mixed = np.empty(high.shape, np.uint8)
    for start in range(0, len(high), ROWS):
        rows = slice(start, start + ROWS)
        mixed[rows] = scale.to_bytes(high[rows].astype(np.int32) << 8 | low[rows])
    return Image.frombytes(image.mode, image.size, mixed.tobytes())


def _low_bytes(raw: str, image: ImageFile, reopen: Reopen) -> NDArray[np.uint8]:
    """Returns the low bytes of an image's 16-bit colours, (height, width, channels). Errors: ValueError where PIL
    computes with the high ones (colours multiplied by their alpha), or leaves planes apart.
    """
    name, _, order = raw.partition(";16")
    if name == "RGBa" or getattr(image, "tag_v2", {}).get(PLANES) == SEPARATE:
        raise ValueError("its 16-bit colours have fewer than 16 bits, and are stored so that they cannot be read whole")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    other = "RGBA" if name == "LA" else f"{name};16{'B' if little else 'L'}"
    with reopen() as again:
        storage(again)
        if name == "LA":  # its four bytes are those of four channels
            again._mode = "RGBA"
        again.tile = [_told(tile, other) for tile in again.tile]
        again.load()
        low = np.asarray(again)
    if name == "LA":
        return low[..., [1, 1, 1, 3]] if image.mode == "RGBA" else low[..., [1, 3]]
    return low


def _told(tile: Any, raw: str) -> Any:
    """Returns a tile whose decoder is told another raw mode."""
    told = tile[3]
    return _tile(tile, (*tile[:3], raw if isinstance(told, str) else (raw, *told[1:])))


def _tile(tile: Any, changed: tuple[Any, ...]) -> Any:
    """Returns a tile of the kind that this version of PIL has: a tuple, or one with names."""
    return type(tile)(*changed) if hasattr(tile, "_fields") else changed
