"""A part of scikit-learn's digits in the place of all: most of a tiny cell's time goes into images it is tested on."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tlbench.data import DATASETS, Request

FEW = 400
"""In the order of the data set, where the classes take turns: 280 to train on, 60 for each of the other two splits."""
ALL = DATASETS["digits"]
"""The row of the table as it is."""


@contextlib.contextmanager
def few_digits() -> Iterator[None]:
    """As long as it lasts, the data set ``digits`` has so many images in this process."""

    def load(request: Request):
        from sklearn import datasets

        bunch = datasets.load_digits()
        part = SimpleNamespace(images=bunch.images[:FEW], target=bunch.target[:FEW])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets, "load_digits", lambda: part)
            return ALL.load(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", replace(ALL, load=load))
        yield
