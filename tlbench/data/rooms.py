"""Where the decoded images of files lie: in memory, in a file that later runs take too, in one that goes with the
process, or nowhere, so that they are decoded each time a batch takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlbench.data import decoded_folder, lent
from tlbench.data.decoded import Filling, Rows, at_most, keep
from tlbench.data.store import disk_takes, in_memory, in_temporary_file, memory_for_images
from tlbench.data.streaming import Easing, Pixels
from tlbench.errors import UserError

if TYPE_CHECKING:
    from tlbench.data import Request

MEMORY, FILE, TEMPORARY, NOWHERE = "memory", "file", "temporary file", "nowhere"


def place_of(count: int, size: int, ram: int | None, disk: int | None) -> str:
    """Returns where so many images of a size will lie. ``ram`` and ``disk`` are the bytes that they may take there;
    None: a quarter of the free memory, a tenth of the free disk, and beyond that of the temporary folder all but a
    tenth.
    """
    needed = count * 3 * size * size
    if needed <= memory_for_images(ram):
        return MEMORY
    if at_most(count, size) <= decoded_folder.room(disk):
        return FILE
    try:
        return TEMPORARY if disk is None and disk_takes(needed) else NOWHERE
    except UserError:  # there is no temporary folder
        return NOWHERE


class Room:
    """Takes the images of a data set while they are decoded."""

    def __init__(self, count: int, pixels: Pixels | None, filling: Filling | None = None) -> None:
        """Without ``pixels``, (count, 3, S, S), they are only told apart, and not kept."""
        self.pixels, self.filling = pixels, filling
        self.digests = [b""] * count
        self._easing = Easing(pixels) if isinstance(pixels, np.memmap) else None

    def put(self, position: int, image: NDArray[np.uint8]) -> bytes:
        """Takes an image (3, S, S); threads may do so at once. Returns the SHA-256 of its pixels."""
        image = np.ascontiguousarray(image)
        digest = self.digests[position] = hashlib.sha256(image.data).digest()
        if self.pixels is not None:
            self.pixels[position] = image
            if self._easing is not None:
                self._easing.touch(image.nbytes)
        return digest

    def only(self, kept: Sequence[int]) -> Pixels | None:
        """Leaves out all but some images, in order, whose pixels are returned where they are there."""
        for position, origin in enumerate(kept):  # in place: a copy would need the memory twice
            if position != origin:
                self.digests[position] = self.digests[origin]
                if self.pixels is not None:
                    self.pixels[position] = self.pixels[origin]
        del self.digests[len(kept) :]
        return None if self.pixels is None else self.pixels[: len(kept)]

    def keep(self, final: Path, rows: Rows, budget: int | None) -> None:
        """Keeps the images that `only` has left for later runs, within ``budget`` bytes of the disk, where they fit."""
        if self.filling is not None:
            with suppress(OSError):  # they stay where they are for this run
                self.filling.publish(rows)
        elif self.pixels is not None and not isinstance(self.pixels, np.memmap):
            keep(final, self.pixels[: len(rows.contents)], rows, budget)


@contextmanager
def room_for(count: int, request: Request, final: Path) -> Iterator[Room]:
    """Yields room for images of a request; ``final`` is the file that they lie in where that is beyond memory.

    Errors: UserError where a temporary folder that should have room has none.
    """
    size, ram, disk = request.size, request.ram_bytes, request.disk_bytes
    if (pixels := in_memory(count, size, ram)) is not None:
        yield Room(count, pixels)
        return
    filling = None
    try:
        if decoded_folder.make_way(at_most(count, size), disk):
            filling = Filling(final, count, size)
            lent.on_disk(filling.pixels, filling.scratch.file)
    except OSError:
        filling = None
    if filling is None:
        there = place_of(count, size, ram, disk) == TEMPORARY
        yield Room(count, in_temporary_file(count, size) if there else None)
        return
    try:
        yield Room(count, filling.pixels, filling)
    finally:
        filling.drop()
