"""Watches for Ctrl-C and SIGTERM while a run goes on: the first stops it in good order, the second at once. A terminal
that is closed stops nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\r\nStopping; what is finished is kept. Once more stops at once.\n"
SHOW_CURSOR = b"\x1b[?25h"


class Stop:
    """A stop watches the signals: within it the first one sets `signal`, for the run to see, and abandons the cell that
    runs in this process. From then on signals do what they do by default: they end the process, whatever it is in the
    middle of; at a prompt and in a notebook, what they did before, which is to raise KeyboardInterrupt. That the
    terminal is gone (SIGHUP) is no wish to stop: `despite_hangup`.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """Signal that came; None while none has."""
        self._before: dict[int, Any] = {}
        self._measuring = False
        self._open = ExitStack()

    def __enter__(self) -> Stop:
        self._open.enter_context(despite_hangup())
        self._before = _install(self._first)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)
        self._open.close()

    def _first(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        for each, before in self._before.items():
            # A notebook's or a prompt's process holds more than this run, so that there the second one ends the run.
            signal.signal(each, before if hasattr(sys, "ps1") else signal.SIG_DFL)
        # Not by print: the handler may have interrupted one. Where nobody can be told, the run stops all the same.
        with suppress(OSError):
            os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + NOTICE)
        if self._measuring:
            raise KeyboardInterrupt

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Lets a signal abandon what runs within, a cell in this process; nothing else is torn from its place."""
        self._measuring = True
        try:
            if self.signal is not None:  # it came just before
                raise KeyboardInterrupt
            yield
        finally:
            self._measuring = False


@contextmanager
def held() -> Iterator[None]:
    """Makes signals wait until its end, while a record is written. (A mask would hold them in one thread only.)"""
    came: list[int] = []
    before = _install(lambda number, _: came.append(number))
    try:
        yield
    finally:
        _restore(before)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def despite_hangup() -> Iterator[None]:
    """Lets this process go on when its terminal is gone: a window that was closed, a connection that broke. A handler
    of the program's own, or none under nohup, stays as it is.
    """
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    here = threading.current_thread() is threading.main_thread()
    if number is None or not here or signal.getsignal(number) != signal.SIG_DFL:
        yield
        return
    # Not SIG_IGN, which the processes that it starts would inherit.
    signal.signal(number, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def _install(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Sets handlers, and returns what to restore: nothing outside the main thread, nor what is ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = ((int(number), signal.getsignal(number)) for number in SIGNALS)
    before = {number: old for number, old in handlers if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
