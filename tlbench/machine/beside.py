"""Work that a copy of this process does meanwhile, on a second processor. Nothing here imports torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PR_SET_PDEATHSIG = 1
WHOLE = b"whole"
"""What an answer ends with that has been told to its end."""


@contextmanager
def beside(make: Callable[[], bytes], worth_it: bool = True) -> Iterator[Callable[[], bytes]]:
    """Yields what waits for the result of ``make()`` and returns it.

    A copy of this process works on it meanwhile, where that is ``worth_it`` and can be: Linux, a second processor, no
    other thread, whose locks would stay as they are in the copy, and no torch, whose threads would be missing. Else it
    is made here and now; and it is made here once more where the copy has come to nothing, such as for want of memory.
    What it changes beside its result is changed in the copy alone.
    """
    copied = _copy(make) if worth_it and _can_copy() else None
    if copied is None:
        made = make()
        yield lambda: made
        return
    process, pipe = copied
    waiting, answers = [process], os.fdopen(pipe, "rb")

    def wait() -> bytes:
        content = answers.read()
        with suppress(ChildProcessError):  # the system has waited: SIGCHLD may be ignored here
            os.waitpid(process, 0)
        waiting.clear()
        return content.removesuffix(WHOLE) if content.endswith(WHOLE) else make()

    try:
        with answers:
            yield wait
    finally:
        for left in waiting:  # nobody waits for it any more
            with suppress(OSError):
                os.kill(left, signal.SIGKILL)
                os.waitpid(left, 0)


def _can_copy() -> bool:
    if not sys.platform.startswith("linux") or threading.active_count() > 1 or "torch" in sys.modules:
        return False
    return len(os.sched_getaffinity(0)) > 1


def _end_with(parent: int) -> None:
    """Leaves Ctrl-C to the parent, which says so and ends this process, and has the kernel end it with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before the kernel was told
        os._exit(1)


def _copy(make: Callable[[], bytes]) -> tuple[int, int] | None:
    """Begins to make something in a copy of this process. Returns its number and the end of the pipe that it answers
    by; None where the system has no room for one more.
    """
    parent = os.getpid()
    answers, told = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python warns of threads that libraries have, whose locks are made anew in the copy.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
    except OSError:
        os.close(answers)
        os.close(told)
        return None
    if process:
        os.close(told)
        return process, answers
    status = 1
    try:
        _end_with(parent)
        os.close(answers)
        content = make()
        with os.fdopen(told, "wb") as file:
            file.write(content)
            file.write(WHOLE)
        status = 0
    except BaseException:  # the one that waits makes it once more, and says why it cannot
        pass
    finally:
        os._exit(status)
