"""Small pictures of single images, taken from the files of their data set at the time of the report, where these are
still what the models saw: an image is known by the SHA-256 of its file.

Whatever is wrong with a file costs its picture, never the report.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.data.decode import FORMATS

if TYPE_CHECKING:
    from PIL import Image

SIDE = 96
"""Most pixels a side of a thumbnail."""
QUALITY = 80
"""Of its JPEG."""
MOST_BYTES = 2**26
"""A larger file is not read for a thumbnail."""
MOST_SECONDS = 5.0
"""What looking for images may take of a report's time; those that come after it are left out."""
GONE = "the file is not where it was, or holds another image by now"
LATE = "left out, since reading the images of this report took too long"


class Thumbnails:
    """Makes thumbnails for one report; each image once."""

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self._end = time.monotonic() + seconds
        self._made: dict[bytes, str] = {}

    def of(self, roots: Sequence[Path], file: str, identity: bytes) -> str:
        """Returns a thumbnail as ``data:image/jpeg;base64,…``. ``file`` is the image's path below one of the roots,
        ``identity`` the beginning of its SHA-256.

        Errors: ValueError, a line that says why there is none.
        """
        if identity not in self._made:
            if time.monotonic() > self._end:
                raise ValueError(LATE)
            self._made[identity] = _thumbnail(_content(roots, file, identity))
        return self._made[identity]


def roots_of(datasets: Iterable[str]) -> list[Path]:
    """Returns the folders that the images of data sets, as cells name them, may lie below."""
    found: dict[Path, None] = {}
    for dataset in datasets:
        _, colon, path = dataset.partition(":")
        plain, _, options = path.partition("?")
        roots = [value for key, _, value in (one.partition("=") for one in options.split("&")) if key == "root"]
        for one in (path, *plain.split("+"), *roots) if colon else ():
            if not one:
                continue
            place = Path(os.path.expanduser(one))
            if place.is_dir():
                found[place] = None
            elif place.is_file():  # a list, beside which its images lie
                found |= dict.fromkeys([place.parent, *(place.parent / root for root in roots)])
    return list(found)


def _content(roots: Sequence[Path], file: str, identity: bytes) -> bytes:
    """Returns the bytes of the file that has this identity. Errors: ValueError where there is none."""
    for root in roots:
        try:
            place = root / file
            found = place.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:  # reading a pipe would never end
                continue
            content = place.read_bytes()
        except (OSError, ValueError):  # ValueError: no name of a file
            continue
        if hashlib.sha256(content).digest().startswith(identity):
            return content
    raise ValueError(GONE)


def _thumbnail(content: bytes) -> str:
    """Returns an image at `SIDE` pixels a side at most, upright and without transparency, as the models saw it."""
    from PIL import Image, ImageOps

    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PIL warns of does not matter to a small picture
            formats = [name for name in FORMATS if name in Image.OPEN]
            with Image.open(io.BytesIO(content), formats=formats) as image:
                image.draft("RGB", (2 * SIDE, 2 * SIDE))  # of a photograph of 12 megapixels a small part is decoded
                small = _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
    except Exception as error:  # a decoder may raise anything
        raise ValueError(f"the image cannot be read: {type(error).__name__}") from None
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns a grey image of more than 8 bits with its own darkest value black and its lightest white: it has to be
    seen, not measured.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    import numpy as np
    from PIL import Image as images

    values = np.asarray(image, dtype=np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return images.fromarray(np.nan_to_num(255 * (values - low) / ((high - low) or 1)).astype(np.uint8))
