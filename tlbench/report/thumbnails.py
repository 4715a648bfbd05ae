"""Small pictures of single images, taken from the files of their data set at the time of the report, where these are
still what the models saw: an image is known by the SHA-256 of its file.

Whatever is wrong with a file costs its picture, never the report.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.data.budget import Budget
from tlbench.data.data_root import data_root, root_of_data
from tlbench.data.decode import own_limit, read_image
from tlbench.data.depth import Extent, scale_of
from tlbench.data.scaled import takes_all
from tlbench.data.store import workers
from tlbench.report.wording import count

if TYPE_CHECKING:
    from PIL import Image

    from tlbench.records.record import Record

SIDE = 96
"""Most pixels a side of a thumbnail."""
QUALITY = 80
"""Of its JPEG."""
MOST_BYTES = 2**26
"""A larger file is not read for a thumbnail."""
MOST_SECONDS = 5.0
"""What looking for images may take of a report's time; those that come after it are left out."""
AT_ONCE = 4
"""Most images that are read side by side: all of these may end after `MOST_SECONDS`."""
GONE = "the file is not where it was, or holds another image by now"
HELD = "no file is called so; of images that a data set holds in one file or table no pictures are made"
IN_ONE = ("torchvision:", "hf:")
"""What data sets begin with whose images may lie in no files of their own."""
LATE = "left out, since reading the images of this report took too long"


class Thumbnails:
    """Makes thumbnails for one report; each image once. Threads may ask at the same time."""

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self._end = time.monotonic() + seconds
        self._made: dict[bytes, str] = {}
        self._budget = Budget()

    def of(self, roots: Sequence[Path], file: str, identity: bytes) -> str:
        """Returns a thumbnail as ``data:image/jpeg;base64,…``. ``file`` is the image's path below one of the roots,
        ``identity`` the beginning of its SHA-256.

        Errors: ValueError, a line that says why there is none.
        """
        if identity not in self._made:
            if time.monotonic() > self._end:
                raise ValueError(LATE)
            self._made[identity] = _thumbnail(_find(roots, file, identity), self._budget)
        return self._made[identity]


def pictured(
    thumbnails: Thumbnails, records: Sequence[Record], images: Sequence[tuple[str, bytes]]
) -> tuple[list[str], list[str]]:
    """Returns a thumbnail of each image of records, as `Thumbnails.of` has it, empty where there is none, and sentences
    that say how many are not shown and why. ``images`` have the path of each below the data set and the beginning of
    its SHA-256.
    """
    roots = roots_of_records(records)
    in_one = all(record.cell.dataset.startswith(IN_ONE) for record in records)

    def one(file: str, identity: bytes) -> str:
        if not file:
            raise ValueError("the records name no files, as those of data sets that have none")
        if in_one and not any(os.path.exists(root / file) for root in roots):
            raise ValueError(HELD)
        if not roots:
            raise ValueError("their data set is not where it was")
        return thumbnails.of(roots, file, identity)

    def made_or_why(image: tuple[str, bytes]) -> tuple[str, str]:
        try:
            return one(*image), ""
        except ValueError as error:
            return "", str(error)

    with warnings.catch_warnings(), ThreadPoolExecutor(min(workers(), AT_ONCE)) as pool:
        warnings.simplefilter("ignore")  # what PIL warns of does not matter to a small picture
        found = list(pool.map(made_or_why, images))
    missing = Counter(why for _, why in found if why)
    return [picture for picture, _ in found], [f"{count(n, 'image')} not shown: {why}." for why, n in missing.items()]


def with_picture(line: Mapping[str, str], picture: str) -> dict[str, str]:
    """Returns what is said of an image with its thumbnail, where there is one."""
    return {**line, "image": picture} if picture else dict(line)


def roots_of_records(records: Sequence[Record]) -> list[Path]:
    """Returns the folders that the images of records may lie below."""
    datasets = [place for one in records for place in (one.cell.dataset, one.places.get("dataset", ""))]
    roots = roots_of(dict.fromkeys(datasets))
    if any(place.startswith("torchvision:") for place in datasets):
        for given in dict.fromkeys(record.settings.data_root for record in records):
            with data_root(given):
                roots.append(root_of_data())
    return roots


def roots_of(datasets: Iterable[str]) -> list[Path]:
    """Returns the folders that the images of data sets, as cells name them, may lie below."""
    found: dict[Path, None] = {}
    for dataset in datasets:
        kind, colon, path = dataset.partition(":")
        path = re.sub(r"\([^()]*\)$", "", path) if kind == "hf" else path
        if not colon:
            continue
        plain, *options = re.split(r"[?&](?=[a-z_]+=)", path)
        places = [Path(os.path.expanduser(one)) for one in dict.fromkeys([path, plain, *plain.split("+")]) if one]
        lists = [place.parent for place in places if place.is_file()]  # beside which their images lie
        roots = [Path(os.path.expanduser(one[5:])) for one in options if one.startswith("root=")]
        roots += [place / root for place in lists for root in roots]
        found |= dict.fromkeys([*(one for one in (*places, *roots) if one.is_dir()), *lists])
        if len(found) > 1:
            found[Path(os.path.commonpath([os.path.abspath(one) for one in found]))] = None
    return list(found)


def _find(roots: Sequence[Path], file: str, identity: bytes) -> Path:
    """Returns the file that has this identity. Errors: ValueError where there is none."""
    for root in roots:
        try:
            place = root / file
            found = place.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:  # reading a pipe would never end
                continue
            with open(place, "rb") as opened:
                if hashlib.file_digest(opened, "sha256").digest().startswith(identity):
                    return place
        except (OSError, ValueError):  # ValueError: no name of a file
            continue
    raise ValueError(GONE)


def _thumbnail(place: Path, budget: Budget) -> str:
    """Returns an image at `SIDE` pixels a side at most, upright and without transparency, as the models saw it.

    Errors: ValueError, a line that says why it cannot be read.
    """
    with own_limit():
        small = _photograph(place, budget) or _any(place, budget)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _small(image: Image.Image) -> Image.Image:
    from PIL import Image

    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return image


def _photograph(place: Path, budget: Budget) -> Image.Image | None:
    """Returns a JPEG, of which no more is decoded than a thumbnail takes: a tenth of the time, with 12 megapixels. None
    for whatever is none.
    """
    from PIL import Image, ImageOps

    try:
        with budget.room() as take, open(place, "rb") as file, Image.open(file, formats=["JPEG"]) as image:
            width, height = image.size
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            take(width * height if takes_all(image) else image.width * image.height)
            return _small(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:  # a decoder may raise anything; `_any` says what is wrong
        return None


def _any(place: Path, budget: Budget) -> Image.Image:
    """Returns an image of any format; of more than 8 bits, between what is black and white in this one."""
    extents: list[Extent] = []
    with budget.room() as take:
        image = read_image(place, lambda width, height: take(width * height), tell=extents.append)
        if extents:
            del image  # there is room for one
            image = read_image(place, scale=scale_of(extents))
        return _small(image)
