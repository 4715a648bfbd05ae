"""Decoded images in one array: where it lies, what it is known by, and how an image is made to fit.

One file, since what an image is made to fit decides the room that all of them take.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlbench.data import lent
from tlbench.errors import UserError
from tlbench.machine import locks
from tlbench.machine.disk import room_in
from tlbench.machine.kept import KEPT
from tlbench.machine.memory import free_bytes

if TYPE_CHECKING:
    from tlbench.data.streaming import Streamed

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MEMORY_SHARE = 0.25
"""The share of the free memory that decoded images may take. Beyond it they lie in a file."""
AT_ONCE = 100
"""Images that a thread hashes before it looks for more work."""
DISK_SHARE = 0.9
"""The share of what is free in the temporary folder that such a file may take: others write there as well."""
DISK = "a file"
"""Where images lie that memory has no room for, of the shelf that they are kept on (`tlbench.machine.kept`)."""
MOST_PIXELS = 89_478_485
"""An image of more after resizing is refused: 256 MiB as RGB."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Holds what is known of all images of a data set, whether their pixels are at hand or not."""

    shape: tuple[int, ...] = ()
    """Of the pixels: (M, 3, S, S)."""
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    digests: tuple[bytes, ...]
    """SHA-256 of each image's pixels: equal exactly when the images are."""
    origins: tuple[int, ...] = ()
    """The position of each image in the list of files, where images come from files."""
    dropped: tuple[str, ...] = ()
    """Files left out because they could not be read, each with the reason."""
    passed_over: tuple[str, ...] = ()
    """Files that are no images by their names."""
    identities: tuple[bytes, ...] = ()
    """What each image is known by, whatever the size it is decoded to; empty where nobody has said."""
    groups: tuple[bytes, ...] = ()
    """Name of each image's group: copies of one photograph have the same (`tlbench.data.copies.grouped`)."""
    together: tuple[bytes, ...] = ()
    """Name of what each image stays in one split with, where a person has named groups: these, and the copies in them
    (`tlbench.data.groups.joined`); empty where `groups` is all there is."""
    near_copies: int | None = None
    """Images that look like an earlier one without having its pixels; None where that is not known."""
    uncompared: int | None = None
    """Images too small or too plain to have a look, so that only exact copies of them are known; None where looks were
    not compared at all."""
    alike: bool = False
    """All images look so much alike that copies cannot be told by their looks."""
    mixed: tuple[str, ...] = ()
    """Photographs that are there under two classes: two of the files of each."""
    pixel_range: Mapping[str, int] = field(default_factory=dict)
    """What black and white are in images of more than 8 bits (`tlbench.data.pixel_range`); empty without any."""
    files: tuple[str, ...] = ()
    """Path of each image below the data set's root, as the data set calls it; empty where there are none."""
    decoding: Mapping[str, int] = field(default_factory=dict)
    """How many photographs were decoded at a fraction of their size (``scaled``), or decoded exactly could have been
    (``could``); empty where none was that large (`tlbench.data.scaled`)."""
    decode_seconds: float = 0.0
    """What decoding one image took a thread, about; 0 where that is not known."""

    @property
    def sha256(self) -> str:
        """Returns the SHA-256 of classes, labels and pixels."""
        described = hashlib.sha256(repr((self.classes, self.labels, self.shape)).encode())
        described.update(b"".join(self.digests))
        return described.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Images(Known):
    """Holds all images of a data set."""

    pixels: NDArray[np.uint8] | Streamed
    """(M, 3, S, S), uint8."""
    memory_bytes: int
    """What the pixels take of the memory: nothing where they lie in a file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.pixels.shape))


def make_images(
    pixels: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    origins: Sequence[int] = (),
    dropped: Sequence[str] = (),
    passed_over: Sequence[str] = (),
) -> Images:
    """Makes images from an array (M, 3, S, S) of uint8, which is not copied."""

    def hashed(start: int) -> list[bytes]:
        return [hashlib.sha256(image.data).digest() for image in pixels[start : start + AT_ONCE]]

    with ThreadPoolExecutor(workers()) as pool:
        digests = tuple(itertools.chain.from_iterable(pool.map(hashed, range(0, len(pixels), AT_ONCE))))
    return Images(
        pixels=pixels,
        labels=tuple(labels),
        classes=tuple(classes),
        digests=digests,
        memory_bytes=0 if isinstance(pixels, np.memmap) else pixels.nbytes,
        origins=tuple(origins),
        dropped=tuple(dropped),
        passed_over=tuple(passed_over),
    )


def workers() -> int:
    """Returns the number of threads to decode with: the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- where the pixels lie -------------------------------------------------------------------------------------


def remember(key: Hashable, make: Callable[[], Images]) -> Images:
    """Returns what ``make`` gives, or what this process was lent of it; keeps it for the next equal key, which holds
    everything that decides it.
    """
    images: Images | None = KEPT.images.get(key)
    if images is None:
        images = _borrowed(key) or make()
        if isinstance(images.pixels, np.memmap):
            KEPT.images.put(key, images, images.pixels.nbytes, DISK)
        else:
            KEPT.images.put(key, images, images.memory_bytes)
    return images


IN_HEX = ("digests", "identities", "groups", "together")
"""Fields of `Images` that hold bytes, which JSON does not know."""


def loans() -> dict[str, lent.Loan]:
    """Returns what another process can be lent of the images that this one keeps, by name (`tlbench.data.lent`)."""
    found = {}
    for key in list(KEPT.images):
        images = KEPT.images.get(key)
        known: dict[str, Any] = {f.name: getattr(images, f.name) for f in fields(images) if f.name != "pixels"}
        known |= {name: [one.hex() for one in known[name]] for name in IN_HEX}
        if isinstance(images.pixels, np.ndarray) and (loan := lent.loan(images.pixels, known)) is not None:
            found[lent.name_of(key)] = loan
    return found


def _borrowed(key: Hashable) -> Images | None:
    """Returns images that this process was lent, which take none of its memory; None where it was not."""
    if (found := lent.borrowed(key)) is None:
        return None
    pixels, known = found
    known |= {name: [bytes.fromhex(one) for one in known[name]] for name in IN_HEX} | {"memory_bytes": 0}
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return Images(pixels=pixels, **known)


def allocate(count: int, size: int, ram: int | None = None) -> np.ndarray:
    """Returns room for ``count`` images, (count, 3, size, size) uint8, not yet filled.

    The room is in memory where there is some (`in_memory`). Beyond that it is in a file without a name in the temporary
    folder, which goes with the process, and leaves some of that folder's room to others. Errors: UserError when that
    folder has no room either.
    """
    if (room := in_memory(count, size, ram)) is not None:
        return room
    return in_temporary_file(count, size)


def in_memory(count: int, size: int, ram: int | None = None) -> NDArray[np.uint8] | None:
    """Returns room for images in memory, not yet filled; None where all stores together would take more than ``ram``
    bytes (None: their share of what is free). Those used longest ago are forgotten first.
    """
    if not make_room(count, size, ram):
        return None
    shape = (count, 3, size, size)
    room = lent.in_memory(shape)
    return np.empty(shape, np.uint8) if room is None else room


def make_room(count: int, size: int, ram: int | None = None) -> bool:
    """Tells whether so many images may lie in memory, as `in_memory` has it; others that are there give way."""
    needed, budget = count * 3 * size * size, memory_for_images(ram)
    while KEPT.images.bytes() + needed > budget and KEPT.images.drop_oldest():
        pass
    return needed <= budget


def in_temporary_file(count: int, size: int) -> NDArray[np.uint8]:
    """Returns room for images in a file without a name. Errors: UserError where the temporary folder has none."""
    shape, needed = (count, 3, size, size), count * 3 * size * size
    while not disk_takes(needed) and KEPT.images.drop_oldest(DISK):
        pass
    check_room(count, size)
    try:
        file = _reserved(needed)
    except OSError as error:
        raise _no_room(count, size, f"{temporary_folder()!r} cannot take them: {error.strerror}") from None
    pixels = np.memmap(file, np.uint8, "r+", shape=shape)
    lent.on_disk(pixels, file)
    return pixels


def check_room(count: int, size: int) -> None:
    """Raises UserError where so many images of a size have room neither in memory nor in the temporary folder. Nothing
    is reserved.
    """
    needed = count * 3 * size * size
    if needed > memory_for_images() and not disk_takes(needed):
        room = room_in(temporary_folder()) or 0
        raise _no_room(
            count, size, f"of the {room / 1e9:.1f} GB that are free in {temporary_folder()!r} a tenth is left to others"
        )


def memory_for_images(ram: int | None = None) -> float:
    """Returns the bytes that all decoded images in memory may take: ``ram``, or their share of what is free."""
    return ram if ram is not None else MEMORY_SHARE * (free_bytes() + KEPT.images.bytes())


def disk_takes(needed: int) -> bool:
    """Tells whether the temporary folder has room, and some more; where the system does not tell, the file will."""
    room = room_in(temporary_folder())
    return room is None or needed <= DISK_SHARE * room


def _reserved(size: int) -> IO[bytes]:
    """Returns a file without a name that has room for so many bytes. Errors: OSError."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the map keeps it open, and it is gone with the map
    try:
        # Reserved now: a full disk would otherwise kill the process at some later write.
        locks.reserve(file, size)
    except OSError:
        file.close()  # what it has so far is free again, whoever keeps the error
        raise
    return file


def temporary_folder() -> str:
    """Returns the temporary folder. Errors: UserError where there is none that can be written."""
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise UserError(f"memory has no room for the decoded images, and {error.strerror}; set TMPDIR") from None


def _no_room(count: int, size: int, why: str) -> UserError:
    needed = count * 3 * size * size
    return UserError(
        f"{count:,} images of {size} px need {needed / 1e9:.1f} GB; memory has {memory_for_images() / 1e9:.1f} GB for "
        f"them, and {why}; use a smaller --image-size, or set TMPDIR to a folder with "
        f"{needed / DISK_SHARE / 1e9:.1f} GB free"
    )


# --- one image ------------------------------------------------------------------------------------------------


def fit(
    image: Image.Image,
    resize: int,
    size: int,
    resampling: Image.Resampling,
    crop_mode: str = "center",
    fill: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Returns (3, size, size) uint8 of an RGB image: brought to what `resized` says, then the centre of ``size`` x
    ``size``. What it does not reach has the colour ``fill``. So do it torchvision's classification preset (``center``)
    and timm's transforms (all three modes) on PIL images.

    Errors: ValueError for an image so long and thin that it would not fit into memory.
    """
    width, height = image.size
    new = resized(width, height, resize, crop_mode)
    if new[0] * new[1] > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are too long and thin: {new[0]} x {new[1]} after resizing")
    if new != (width, height):
        image = image.resize(new, resampling)
    centre = Image.new("RGB", (size, size), fill)
    centre.paste(image, (_start(new[0], size), _start(new[1], size)))
    return np.asarray(centre, dtype=np.uint8).transpose(2, 0, 1)


def resized(width: int, height: int, resize: int, crop_mode: str = "center") -> tuple[int, int]:
    """Returns width and height of an image before its centre is cut out: with ``center`` the shorter side gets
    ``resize`` pixels, with ``border`` the longer one, with ``squash`` both.
    """
    if crop_mode == "squash":
        return resize, resize
    if crop_mode == "border":
        ratio = max(width, height) / resize
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return resize, int(resize * height / width)
    return int(resize * width / height), resize


def _start(side: int, size: int) -> int:
    """Returns where a side of an image begins in ``size`` pixels that show its centre: torchvision pads by half the
    difference, the smaller half first.
    """
    return (size - side) // 2 if side < size else -round((side - size) / 2)
