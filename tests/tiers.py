"""The two tiers: what runs always, and what is marked `exhaustive`, the rest of a sweep over a table."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def sweep(values: Iterable[Any], few: Container[Any]) -> list[Any]:
    """Parameters of a test; all but the few are exhaustive. A value that is a tuple is of several parameters."""
    return [
        value
        if value in few
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.exhaustive)
        for value in values
    ]
