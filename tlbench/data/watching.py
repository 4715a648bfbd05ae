"""Tells whoever wants to know how far the decoding of images is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Watch = Callable[[int, int], None]
"""Is told, after each image, how many are decoded and how many there are."""
_watch: list[Watch] = [lambda done, total: None]


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Has ``watch`` told of the images that are decoded within."""
    before, _watch[0] = _watch[0], watch
    try:
        yield
    finally:
        _watch[0] = before


def tell(done: int, total: int) -> None:
    """Says how far decoding is."""
    _watch[0](done, total)
