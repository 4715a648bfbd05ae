"""tlbench: which backbone, freeze policy and head for my images on my hardware, and what does each cost?

From Python: ``tlbench.run(dataset="folder:PATH", …)`` measures, and gives a `Run` with its table, verdict and frame;
``tlbench.find(PATH, budget="20m")`` races cells for a budget of time, and gives the same.
``tlbench.load(run)`` gives a run's records as a tidy DataFrame (columns: `tlbench.frame.COLUMNS`), and the figures of
``tlbench.plots`` take it. ``tlbench.per_class(run)`` has a row for each record and class, and ``tlbench.confusion(run,
id)`` says which classes a cell takes for which. ``tlbench.load_model(folder)`` loads a model that ``tlbench fit`` has
kept.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not see what `__getattr__` loads
    from tlbench import frame, plots
    from tlbench.analysis.classes import confusion, per_class
    from tlbench.analysis.frame import load
    from tlbench.api.calling import find, run
    from tlbench.api.finished import Run
    from tlbench.kept.model import load_model

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "confusion", "find", "frame", "load", "load_model", "per_class", "plots", "run"]

HOMES = {
    "confusion": "tlbench.analysis.classes",
    "find": "tlbench.api.calling",
    "load": "tlbench.analysis.frame",
    "load_model": "tlbench.kept.model",
    "per_class": "tlbench.analysis.classes",
    "run": "tlbench.api.calling",
    "Run": "tlbench.api.finished",
}
"""Name -> the module that has it."""
MODULES = ("frame", "plots")


def __getattr__(name: str) -> Any:
    """Loads what is heavy at its first use, so that ``import tlbench`` stays light."""
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    if name in MODULES:
        return import_module(f"tlbench.{name}")
    raise AttributeError(f"module 'tlbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
