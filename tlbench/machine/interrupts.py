"""Ctrl-C on the command line: one line and exit status 130, also while modules are imported.

An import that an exception tears leaves half of a module behind, and libraries catch whatever their imports raise: so
what is imported is not torn, the process ends instead. Nothing here imports torch, nor anything that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

STATUS = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C has ended, as a shell shows it of any program."""
LINE = b"tlbench: stopped by Ctrl-C\n"


def importing(frame: FrameType | None, outermost: FrameType | None = None) -> bool:
    """Tells whether a frame runs since a module is being imported, by something further in than the outermost one."""
    while frame is not None and frame is not outermost:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class CtrlC:
    """Holds as long as a command lasts: the first Ctrl-C writes a line, and raises KeyboardInterrupt, or ends the
    process where it would tear an import; the second one ends it at once. Another handler than Python's own is left
    alone.
    """

    def __init__(self) -> None:
        self.came = False
        """Whether there was one, whoever has caught the exception."""
        self._outermost: FrameType | None = None
        self._in_place = False

    def __enter__(self) -> CtrlC:
        _told[:] = [False]
        self._outermost = sys._getframe(1)
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._stop)
            self._in_place = True
        return self

    def __exit__(self, *_: object) -> None:
        self._outermost = None  # a frame holds whatever its function does
        if self._in_place and signal.getsignal(signal.SIGINT) == self._stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self.came = self.came, True
        tell()
        if again or importing(frame, self._outermost):
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # a stream that is gone, or is being written at this moment
                    stream.flush()
            os._exit(STATUS)
        raise KeyboardInterrupt


_told = [False]
"""Whether the command that runs has written the line."""


def tell() -> None:
    """Writes the line, unless it is written."""
    if not _told[0]:
        _told[0] = True
        with suppress(OSError):  # not by print: the handler may have interrupted one
            os.write(2, (b"\r\n" if os.isatty(2) else b"") + LINE)


def end_quietly() -> None:
    """Makes a Ctrl-C from now on end the process without a traceback: all that it was started for is done."""
    with suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
