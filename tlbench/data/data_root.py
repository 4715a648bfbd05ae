"""The folder of data sets that are known by a name: ``--data-root``, ``TLBENCH_DATA``, or one in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlbench.errors import UserError
from tlbench.machine.cache import cache_folder

VARIABLE = "TLBENCH_DATA"
_given: list[str | None] = [None]


@contextmanager
def data_root(folder: str | None) -> Iterator[None]:
    """Has data sets looked for in ``folder`` within; None leaves it to the environment and the cache."""
    before, _given[0] = _given[0], folder
    try:
        yield
    finally:
        _given[0] = before


def root_of_data() -> Path:
    """Returns the folder, which may not be there yet."""
    given = _given[0] or os.environ.get(VARIABLE)
    return Path(os.path.expanduser(given)) if given else cache_folder() / "data"


def check_root() -> None:
    """Raises UserError where a folder was named that is not there: what lies in it would all be called missing."""
    given, root = _given[0] or os.environ.get(VARIABLE), root_of_data()
    if given and not root.is_dir():
        name = "--data-root" if _given[0] else VARIABLE
        what = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"{name} {str(root)!r} {what}; give the folder that data sets lie in, or make it")
