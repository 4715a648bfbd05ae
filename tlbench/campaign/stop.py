"""Watches for Ctrl-C and SIGTERM while a run goes on: the first stops it in good order, the second at once. A terminal
that is closed stops nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Any

from tlbench.machine.interrupts import importing
from tlbench.records.record import Record

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\r\nStopping; what is finished is kept. Once more stops at once.\n"
SHOW_CURSOR = b"\x1b[?25h"
AGAIN_SECONDS = 0.1
"""Time until a cell that is importing something is looked at again."""
SWALLOWED_SECONDS = 10.0
"""Time until a cell that goes on, since it has caught what should have ended it, is ended once more."""
IMPORT_SECONDS = 30.0
"""Longest time that an import is not torn."""
OWN_INTERRUPT = "KeyboardInterrupt, raised by the cell's own code: nobody has stopped the run"


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
        self._outermost: FrameType | None = None
        self._since = 0.0
        self._alarm: Any = None

    def __enter__(self) -> Stop:
        self._open.enter_context(despite_hangup())
        self._outermost = sys._getframe(1)
        self._before = install(self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self._outermost = None  # a frame holds whatever its function does
        self._disarm()
        restore(self._before)
        self._open.close()

    @property
    def watches(self) -> bool:
        """Tells whether each signal that stops the run is seen here, so that no KeyboardInterrupt comes of another."""
        return bool(self._before)

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for each, before in self._before.items():
            # A notebook's or a prompt's process holds more than this run, so that there the second one ends the run.
            signal.signal(each, before if hasattr(sys, "ps1") else signal.SIG_DFL)
        # Not by print: the handler may have interrupted one. Where nobody can be told, the run stops all the same.
        with suppress(OSError):
            os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + NOTICE)
        self._since = time.monotonic()
        self._abandon(number, frame)

    def _abandon(self, _: int, frame: FrameType | None) -> None:
        """Abandons the cell that runs in this process. What it is importing is not torn, since half a module would be
        left, and libraries catch whatever their imports raise: it is looked at again until the import is done. So is a
        cell that has caught the exception.
        """
        if not self._measuring:
            return
        torn = time.monotonic() - self._since > IMPORT_SECONDS
        if not torn and importing(frame, self._outermost) and self._look_again(AGAIN_SECONDS):
            return
        self._look_again(SWALLOWED_SECONDS)
        raise KeyboardInterrupt

    def _look_again(self, seconds: float) -> bool:
        """Has `_abandon` called again after some seconds. Returns whether that can be done on this system."""
        if not hasattr(signal, "setitimer"):
            return False
        before = signal.signal(signal.SIGALRM, self._abandon)
        if self._alarm is None:
            self._alarm = signal.SIG_DFL if before is None else before
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return True

    def _disarm(self) -> None:
        if self._alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)
            self._alarm = None

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
            self._disarm()
            if self.signal is None:
                for number in self._before:  # the cell's code may have taken them for itself
                    signal.signal(number, self._first)


def as_it_ended(record: Record, stopped_by: int | None) -> Record:
    """Returns the record of a cell with its true ending; ``stopped_by`` is the signal that has stopped the run, if one
    has. What a stopped cell fails with is the stop, whatever its code has made of it; and where nobody has stopped the
    run, a KeyboardInterrupt is the cell's own.
    """
    if stopped_by is not None and record.status in ("failed", "interrupted"):
        return replace(record, status="interrupted", reason=why_stopped(stopped_by))
    if stopped_by is None and record.status == "interrupted":
        return replace(record, status="failed", reason=OWN_INTERRUPT)
    return record


def why_stopped(number: int | None) -> str:
    """Says who has stopped a run: the user, by Ctrl-C, or whatever has sent another signal, such as a scheduler.

    >>> why_stopped(signal.SIGTERM)
    'stopped by a signal (SIGTERM)'
    """
    if number is None or number == signal.SIGINT:
        return "stopped by the user"
    return f"stopped by a signal ({name_of(number)})"


def name_of(number: int) -> str:
    """Names a signal; those for real time have none but their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def held() -> Iterator[None]:
    """Makes signals wait until its end, while a record is written. (A mask would hold them in one thread only.)"""
    came: list[int] = []
    before = install(lambda number, _: came.append(number))
    try:
        yield
    finally:
        restore(before)
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


def install(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Sets handlers, and returns what to restore: nothing outside the main thread, nor what is ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = ((int(number), signal.getsignal(number)) for number in SIGNALS)
    before = {number: old for number, old in handlers if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def restore(before: dict[int, Any]) -> None:
    """Puts the handlers back that `install` has replaced."""
    for number, handler in before.items():
        signal.signal(number, handler)
