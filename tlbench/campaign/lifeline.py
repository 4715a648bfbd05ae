"""Ties the processes that a run starts to its own: whatever ends that ends them as well, with all that they started.

The kernel's parent-death signal does not do: it comes when the *thread* that started a process ends, as the threads of
engines do, and it reaches nobody else. So there is a pipe that this process holds open as long as it lives, and writes
nothing to; its end is what they are told of, by the kernel itself, so that no hang keeps them from it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows, which has no processes for cells
    fcntl = None  # type: ignore[assignment]

_F_SETSIG = 10
"""Linux's number of what Python has no name for: which signal tells that a pipe has changed."""
_pipes: list[tuple[int, int]] = []
"""Both ends of the pipe, once a process is tied to this one; of two where two threads were the first at once."""


def lifeline() -> int:
    """Returns the end of the pipe that is to be handed to a process, for it to call `tie_to`."""
    if not _pipes:
        _pipes.append(os.pipe())
    return _pipes[0][0]


def _let_go() -> None:
    """A copy of this process must not hold the pipe open when this one is gone."""
    for end in [end for pipe in _pipes for end in pipe]:
        with suppress(OSError):
            os.close(end)
    _pipes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def tie_to(end: int) -> None:
    """Makes this process, and its process group where it leads one, die with the process that has handed it the end of
    its pipe. Errors: SystemExit where that is gone already.
    """
    watched = _told_by_the_kernel(end)
    if watched is None:
        watched = end
        threading.Thread(target=_wait, args=(watched,), name="lifeline", daemon=True).start()
    if _has_ended(watched, 0):
        sys.exit(1)


def _told_by_the_kernel(end: int) -> int | None:
    """Has the kernel kill the process group when the pipe ends; None where it cannot (it is not Linux). The pipe is
    opened anew: whom it tells is said of an open file, which the processes that got this one share.
    """
    watched = None
    try:
        watched = os.open(f"/proc/self/fd/{end}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(watched, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(watched, fcntl.F_SETOWN, -os.getpid() if _leads() else os.getpid())
        fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, AttributeError):
        if watched is not None:
            os.close(watched)
        return None
    os.close(end)
    return watched


def _leads() -> bool:
    return os.getpgrp() == os.getpid()


def _has_ended(end: int, milliseconds: int | None) -> bool:
    poll = select.poll()
    poll.register(end, 0)
    return bool(poll.poll(milliseconds))


def _wait(end: int) -> None:
    while not _has_ended(end, None):
        pass
    _die()


def _die() -> None:
    if _leads():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
