"""tlbench: which backbone, freeze policy and head for my images on my hardware, and what does each cost?

In a notebook: ``tlbench.load(run)`` gives a run's records as a tidy DataFrame (columns: `tlbench.frame.COLUMNS`), and
``tlbench.plots`` has figures that take it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "frame", "load", "plots"]

MODULES = {"frame": "tlbench.analysis.frame", "plots": "tlbench.report.plots"}
"""Short name -> module, for notebooks."""


def __getattr__(name: str) -> Any:
    """Loads what is heavy at its first use, so that ``import tlbench`` stays light."""
    if name == "load":
        return import_module("tlbench.analysis.frame").load
    if name in MODULES:
        return import_module(MODULES[name])
    raise AttributeError(f"module 'tlbench' has no attribute {name!r}")
