"""Follows the decoding of images, which takes minutes where there are many: a line that moves on a terminal, one now
and then in a log, with the time that is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tlbench.data.watching import watched
from tlbench.grid.values import clock_time

if TYPE_CHECKING:
    from rich.console import Console

SILENT_SECONDS = 2.0
"""What is done sooner needs no word."""
LINE_SECONDS = 30.0
"""How often a log gets a line."""
REDRAWN_SECONDS = 0.25


class Decoding:
    """Is told how many images are decoded (`tlbench.data.watching`), and says so on a console."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._moves = console.is_terminal
        self._status: Any = None
        self._began: float | None = None
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Takes in that so many images are decoded of so many."""
        now = self._clock()
        if self._began is None or done == 1:
            self._began, self._next = now, now + SILENT_SECONDS
        if done == total:
            self.stop()
        elif now >= self._next:
            self._next = now + (REDRAWN_SECONDS if self._moves else LINE_SECONDS)
            self._say(done, total, now - self._began)

    def _say(self, done: int, total: int, elapsed: float) -> None:
        left = elapsed / done * (total - done)
        text = f"decoding images: {done:,} of {total:,}, {clock_time(left)} left"
        if not self._moves:
            self._console.print(text, markup=False, soft_wrap=True)
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def stop(self) -> None:
        """Takes what moves off the terminal."""
        if self._status is not None:
            self._status.stop()
        self._status, self._began = None, None


@contextmanager
def decoding_shown(console: Console) -> Iterator[None]:
    """Shows on a console how far images are that are decoded within."""
    decoding = Decoding(console)
    try:
        with watched(decoding):
            yield
    finally:
        decoding.stop()
