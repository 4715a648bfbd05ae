"""Images that memory has no room for: brought when a batch asks for them, and ahead of it where the order is known.

They lie in a file that is mapped into memory, or in no place at all and are decoded each time. Either way a batch has
the same pixels, to the last bit, as if all of them were in memory. Threads bring the next batches while one is computed
with.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tlbench.data.store import Images

Pixels = NDArray[np.uint8]
Bring = Callable[[int, Pixels], None]
"""Puts the image at a position of the store into (3, S, S). Errors: LostInput where it cannot be had any more."""
MAPPED, DECODED = "mapped file", "decoded on the way"
"""Where images are that memory has no room for: what a record says."""
AHEAD = 2
"""Batches that are brought ahead of the one that is computed with."""
EASE = 2**22
"""Bytes that are touched of a mapped file before it is told that they are needed no more: they stay in the system's
cache while nobody else needs that room, but are not counted as this process's. The system maps several times as much as
is touched, in large pages."""


class Streamed:
    """Holds images (M, 3, S, S), uint8, of which none is in memory; it is indexed as the tensor of them would be."""

    def __init__(self, shape: tuple[int, ...], bring: Bring, where: str, at_once: int = 1) -> None:
        """``at_once`` is how many images a thread brings before it looks for more work."""
        self.shape, self.where = tuple(shape), where
        self._bring, self._at_once = bring, at_once

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Returns the bytes that all of them would take."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def device(self) -> torch.device:
        """Returns the device that batches are made on: the CPU."""
        import torch

        return torch.device("cpu")

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns the images of a slice."""
        return self.take(np.arange(*rows.indices(len(self))))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Returns the images (n, 3, S, S) at an index (n,), as of a tensor."""
        if dim != 0:
            raise ValueError(f"images are chosen among, not what is within them: dimension {dim}")
        return self.take(index.cpu().numpy())

    def take(self, positions: NDArray[np.int64], pinned: bool = False) -> Tensor:
        """Returns the images (n, 3, S, S) at positions, in pinned memory where a GPU takes them from there."""
        return self.start(positions, pinned).wait()

    def start(self, positions: NDArray[np.int64], pinned: bool = False) -> Coming:
        """Has images brought by other threads; `Coming.wait` gives them."""
        import torch

        batch = torch.empty((len(positions), *self.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        rows = batch.numpy()
        futures = [
            _threads().submit(self._bring_some, positions[start : start + self._at_once], rows, start)
            for start in range(0, len(positions), self._at_once)
        ]
        return Coming(positions, batch, futures)

    def _bring_some(self, positions: NDArray[np.int64], rows: Pixels, start: int) -> None:
        for row, position in enumerate(positions.tolist(), start):
            self._bring(position, rows[row])

    def ahead(self, batches: Iterable[NDArray[np.int64]], pinned: bool = False) -> Ahead:
        """Returns what brings batches of positions ahead of whoever takes them in this order."""
        return Ahead(self, batches, pinned)


class Coming:
    """Holds a batch that is being brought."""

    def __init__(self, positions: NDArray[np.int64], batch: Tensor, futures: Sequence[Future[None]]) -> None:
        self.positions, self._batch, self._futures = positions, batch, futures

    def wait(self) -> Tensor:
        """Returns the batch when all of it is there. Errors: those of bringing it."""
        for future in self._futures:
            future.result()
        return self._batch


class Ahead:
    """Brings the batches of an epoch ahead. The first is begun when it is asked for: an epoch pays for all of its
    own."""

    def __init__(self, images: Streamed, batches: Iterable[NDArray[np.int64]], pinned: bool) -> None:
        self._images, self._pinned = images, pinned
        self._planned = deque(batches)
        self._coming: deque[Coming] = deque()

    def take(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the images at positions: those that were brought where it is one of the next batches."""
        self._begin(AHEAD)
        place = next((n for n, one in enumerate(self._coming) if np.array_equal(one.positions, positions)), None)
        if place is None:  # not what was planned, such as a batch to warm up with
            return self._images.take(positions, self._pinned)
        for _ in range(place):
            self._coming.popleft()
        found = self._coming.popleft()
        self._begin(AHEAD)
        return found.wait()

    def _begin(self, most: int) -> None:
        while self._planned and len(self._coming) < most:
            self._coming.append(self._images.start(self._planned.popleft(), self._pinned))


_pool: list[ThreadPoolExecutor] = []
_making = threading.Lock()


def _threads() -> ThreadPoolExecutor:
    """Returns this process's threads that bring images, as many as it may use processors."""
    with _making:
        if not _pool:
            from tlbench.data.store import workers

            _pool.append(ThreadPoolExecutor(workers(), thread_name_prefix="tlbench-images"))
        return _pool[0]


def _forget_threads() -> None:
    """Threads do not come along into a copy of the process."""
    global _making
    _making = threading.Lock()
    _pool.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


# --- a mapped file --------------------------------------------------------------------------------------------


class Easing:
    """Counts what is touched of a mapped file, and lets go of it from time to time, so that it does not add up."""

    def __init__(self, pixels: Pixels) -> None:
        found: Any = getattr(pixels, "_mmap", None)
        self._map = found if isinstance(found, mmap.mmap) else None
        self._touched, self._lock = 0, threading.Lock()

    def touch(self, count: int) -> None:
        """Counts so many bytes more. Nothing is lost: what was written is the file's, and read from there again."""
        with self._lock:
            self._touched += count
            if self._touched < EASE:
                return
            self._touched = 0
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def of_map(pixels: Pixels) -> Streamed:
    """Returns images that lie in a mapped file."""
    easing = Easing(pixels)

    def bring(position: int, row: Pixels) -> None:
        row[...] = pixels[position]
        easing.touch(row.nbytes)

    return Streamed(pixels.shape, bring, MAPPED, at_once=16)


def taken_from(images: Images) -> Pixels | Streamed:
    """Returns what batches are made of: the pixels in memory, or what brings them."""
    return of_map(images.pixels) if isinstance(images.pixels, np.memmap) else images.pixels
