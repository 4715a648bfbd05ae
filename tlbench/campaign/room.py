"""Room for a run's records: they come before what is cached on the same disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tlbench.errors import UserError
from tlbench.records.run_folder import Store
from tlbench.train.inventory import give_way

T = TypeVar("T")


def with_room(store: Store, write: Callable[[], T]) -> T:
    """Returns what writing into a run's folder gives. Where the folder's disk is full and stored activations lie on it,
    these are removed and it is tried once more.

    Errors: UserError, as ``write``.
    """
    try:
        return write()
    except UserError:
        if not give_way(store.folder):
            raise
    return write()
