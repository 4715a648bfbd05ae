"""Room for a run's records: they come before what is cached on the same disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from tlbench.data import decoded_folder
from tlbench.errors import UserError
from tlbench.kept import trained
from tlbench.records.run_folder import Store
from tlbench.train import inventory

T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a disk, or of a person's share of it, that takes no more."""


def with_room(store: Store, write: Callable[[], T]) -> T:
    """Returns what writing into a run's folder gives. Where the folder's disk is full and stored activations, decoded
    images or weights that cells have left lie on it, these are removed and it is tried once more.

    Errors: UserError, as ``write``.
    """
    try:
        return write()
    except UserError as error:
        cause = error.__context__
        if not (isinstance(cause, OSError) and cause.errno in FULL):
            raise
        quota = cause.errno == errno.EDQUOT
        gone = [inventory.give_way(store.folder, quota), decoded_folder.give_way(store.folder, quota)]
        if not any((*gone, trained.give_way(store.folder))):
            raise
    return write()
