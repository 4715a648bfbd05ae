"""Memory for decoding: a file of 270 kB may hold an image of 90 million pixels, and each thread may have one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tlbench.machine.memory import free_bytes

SHARE = 0.25
"""The share of the free memory that images may take while they are decoded, all threads together."""
PIXEL_BYTES = 12
"""What a pixel takes at most: PIL holds it in 4 bytes, and has it as it was stored, as RGB and turned upright."""


class NoRoom(ValueError):
    """Says that an image takes more memory than is free: another time more may be."""


class Budget:
    """Lets threads decode at the same time as far as there is memory; one image at least, however large."""

    def __init__(self, free: int | None = None) -> None:
        """Takes the memory that is free now, or as many bytes as are given."""
        self.free = free_bytes() if free is None else free
        self._told = free is not None
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Yields what a thread calls with the number of pixels before it decodes an image, once, and which waits until
        there is room; at the end the room is free again.

        Errors of what is called: NoRoom for an image that the memory cannot hold, whatever else is there.
        """
        held = 0

        def take(pixels: int) -> None:
            nonlocal held
            needed = pixels * PIXEL_BYTES
            if needed > self.free and not self._told:
                self.free = max(self.free, free_bytes())  # it may have been short for a moment
            if needed > self.free:
                raise NoRoom(f"to decode it takes {needed / 1e9:.1f} GB, and {self.free / 1e9:.1f} GB are free")
            with self._changed:
                self._changed.wait_for(lambda: not self._taken or self._taken + needed <= SHARE * self.free)
                self._taken += needed
                held = needed

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= held
                self._changed.notify_all()
