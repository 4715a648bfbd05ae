"""A part of scikit-learn's digits in the place of all: most of a tiny cell's time goes into images it is tested on."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tlbench.data import digits

FEW = 400
"""In the order of the data set, where the classes take turns: 280 to train on, 60 for each of the other two splits."""


ALL = digits._images
"""What loads them all."""


@contextlib.contextmanager
def few_digits(count: int = FEW) -> Iterator[None]:
    """As long as it lasts, the data set ``digits`` has so many images in this process."""

    def some(size: int, interpolation: str):
        from sklearn import datasets

        bunch = datasets.load_digits()
        part = SimpleNamespace(images=bunch.images[:count], target=bunch.target[:count])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "load_digits", lambda: part)
            return ALL(size, interpolation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_images", some)
        yield
