"""Which functions are benchmarks, and of which task."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from tlbench.grid.choices import TASKS

if TYPE_CHECKING:
    import pytest


def make_items(collector: Any, name: str, obj: object) -> list[pytest.Item] | None:
    """Collects functions named exactly after a task that ask for the fixture ``tl_run``: ``train`` and ``infer`` are
    tests in this project by its settings, and in others, where the benchmarks were copied to, by nothing else. What has
    another name is left to pytest.
    """
    if name in TASKS and inspect.isfunction(obj) and "tl_run" in inspect.signature(obj).parameters:
        return list(collector._genfunctions(name, obj))
    return None


def task_of(name: str) -> str | None:
    """Returns the task that a benchmark of this name measures; None for cells of every task.

    >>> [task_of(name) for name in ("train", "test_inference", "test_mine")]
    ['train', 'infer', None]
    """
    words = re.split(r"[^a-z]+", name.lower())  # training and inference are words for them, too
    return next((task for task in TASKS if any(word.startswith(task) for word in words)), None)
