"""How large libraries are imported. Nothing here imports torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keeps Python from looking for garbage among what is imported within: nothing of it is any, and looking takes a
    fifth of the time that torch and torchvision take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
