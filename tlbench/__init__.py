"""tlbench: which backbone, freeze policy and head for my images on my hardware, and what does each cost?

In a notebook: ``tlbench.load(run)`` gives a run's records as a tidy DataFrame (columns: `tlbench.frame.COLUMNS`), and
``tlbench.plots`` has figures that take it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "plots"]


def __getattr__(name: str) -> Any:
    """Loads what is heavy at its first use, so that ``import tlbench`` stays light."""
    if name == "load":
        return import_module("tlbench.frame").load
    if name == "plots":
        return import_module("tlbench.plots")
    raise AttributeError(f"module 'tlbench' has no attribute {name!r}")
