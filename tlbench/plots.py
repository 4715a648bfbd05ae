"""The report's figures for notebooks: ``from tlbench.plots import PLOTS, latency``.

Each is called with a frame that `tlbench.load` gives, and what it returns shows itself. They are `PLOTS` by name, those
that a plugin has added among them.
"""

from tlbench.report.plots import PLOTS
from tlbench.report.plots.look import Plot
from tlbench.report.plots.picture import Picture

__all__ = ["PLOTS", "Picture", "Plot"]


def __getattr__(name: str) -> Plot:
    """Returns a figure of the table. Errors: AttributeError naming those that there are."""
    if name in PLOTS:
        return PLOTS[name]
    raise AttributeError(f"there is no figure {name!r}; there are: {', '.join(PLOTS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *PLOTS])
