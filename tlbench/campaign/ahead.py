"""A process for cells that is started before it is needed: while this one checks what is asked for, that one imports
torch. It is for the first cell that needs a process, and ends unused where none does.

Nothing of this goes on while a cell is measured: neither is a process started then, nor any chore done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol


class Process(Protocol):
    """Is `tlbench.campaign.isolate.Worker`, which knows more than this."""

    def has_ended(self) -> bool:
        """Tells whether there is no such process any more."""

    def end(self) -> None:
        """Ends it."""


Chore = Callable[[], object]
"""Something short that has to be done once, and may be done before it is needed."""


SET_ANYWAY = ("CUBLAS_WORKSPACE_CONFIG",)
"""Variables that each process sets for itself before it computes (`tlbench.machine.process.set_up`)."""


class _Scope:
    """Holds what was started, and what is to be done, from the beginning of `starting` to its end."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self.chores = list(chores)
        self.process: Any = None
        self.surroundings: object = None
        self.was_started = False

    def drop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.end()


_scope: ContextVar[_Scope | None] = ContextVar("scope", default=None)
"""Of this thread: runs of several threads each have their own."""


@contextmanager
def starting(chores: Sequence[Chore] = ()) -> Iterator[None]:
    """Lets one process be started ahead within, and ends it where nobody has taken it by the end. ``chores`` are done
    while a process that is needed is not ready yet (`do_a_chore`), in this order, as far as there is time.
    """
    scope = _Scope(chores)
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)
        scope.drop()


def start(make: Callable[[], Process]) -> None:
    """Starts a process by ``make``, the first time within `starting`, and nowhere else. That none can be started is
    said once one is needed.
    """
    scope = _scope.get()
    if scope is None or scope.was_started:
        return
    scope.was_started = True
    with suppress(OSError):
        scope.surroundings = _surroundings()
        scope.process = make()


def started() -> Any:
    """Returns the process that was started and is not taken yet; None where there is none."""
    scope = _scope.get()
    return None if scope is None or scope.process is None or scope.process.has_ended() else scope.process


def take() -> Any:
    """Returns the process that was started, which is the caller's from now on; None where there is none, or where it
    would be another one if it were started now: in another folder, with other variables, or with other places to import
    from.
    """
    scope, process = _scope.get(), started()
    if scope is None or process is None:
        return None
    with suppress(OSError):
        if scope.surroundings == _surroundings():
            scope.process = None
            return process
    scope.drop()
    return None


def drop() -> None:
    """Ends the process that was started, where nobody has taken it, and starts no other: all is measured."""
    if (scope := _scope.get()) is not None:
        scope.was_started = True
        scope.drop()


def do_a_chore() -> bool:
    """Does the next chore; what fails of it fails once more when it is needed, and is said then. Returns False where
    none is left.
    """
    scope = _scope.get()
    if scope is None or not scope.chores:
        return False
    with suppress(Exception):
        scope.chores.pop(0)()
    return True


def _surroundings() -> object:
    """Returns what a process takes over from this one when it is started. Errors: OSError."""
    variables = {name: value for name, value in os.environ.items() if name not in SET_ANYWAY}
    return list(sys.path), variables, os.getcwd()
