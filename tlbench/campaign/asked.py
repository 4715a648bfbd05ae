"""Reads what a person asks of a campaign, the same for the command line and for pytest. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlbench.campaign.steps import parse_rerun
from tlbench.errors import UserError
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.grid import FIRST, SHAPE, Grid, load_grid
from tlbench.grid.settings import SETTINGS, parse_given
from tlbench.grid.values import join_values
from tlbench.records.record import Record

OWN = ("grid", "out", "resume", "rerun", "plugin")
"""Names of the options beside those of the axes and the settings."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Holds the options as they were given; what was left away is None or empty."""

    grid: Grid | None = None
    """Grid of a file."""
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Axes that replace those of the grid."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Field of `Settings` -> value."""
    out: str | Path | None = None
    resume: str | None = None
    redo: Callable[[Record], bool] = lambda record: False
    """Tells whether a record that is there is to be made anew."""
    plugins: tuple[str, ...] = ()
    measures: bool = True
    """Nothing is measured where this is false: the cells are only listed, also while another process measures them."""

    def or_first_grid(self) -> Asked:
        """Returns this, with the first grid where a new run names neither a grid nor any axis that makes one."""
        if self.grid is not None or self.resume is not None or any(name in self.axes for name in SHAPE):
            return self
        return replace(self, grid=FIRST)

    @property
    def wanted(self) -> Grid:
        """Returns the grid of a new run."""
        return (self.grid or Grid()).asked_for(self.axes)

    def about_axes(self) -> list[str]:
        """Says, in a line or none, what of the grid is left at its default, since it suits the grid's own images."""
        grid = self.grid or Grid()
        if not (freed := grid.freed_by(self.axes)):
            return []
        held = ", ".join(f"{AXES[name].option} {join_values(grid.axes[name])}" for name in freed)
        own, given = (join_values(grid_of.axes["dataset"]) for grid_of in (grid, self.wanted))
        options = ", ".join(f"--{AXES[name].option}" for name in freed)
        return [f"the grid's {held} are for {own}: {given} takes the defaults, or what {options} say"]


def parse_asked(given: Mapping[str, Any], dashes: str = "--") -> Asked:
    """Reads the options of `AXES`, `SETTINGS` and `OWN` by name, None for those that were left away. ``dashes`` is what
    they begin with, for the messages.

    Errors: UserError naming the value, the choices and the next step.
    """
    named = {name: value for name, value in given.items() if value is not None}
    axes = {name: parse_axis(name, named[axis.option]) for name, axis in AXES.items() if axis.option in named}
    settings = parse_given({name: named[name] for name in SETTINGS if name in named})
    if "resume" in named and "out" in named:
        raise UserError(f"{dashes}resume goes on in the run's own folder: leave {dashes}out away")
    if "rerun" in named and "resume" not in named:
        raise UserError(f"{dashes}rerun chooses what of a run to measure again: name the run with {dashes}resume RUN")
    return Asked(
        grid=load_grid(named["grid"]) if "grid" in named else None,
        axes=axes,
        settings=settings,
        out=named.get("out"),
        resume=named.get("resume"),
        redo=parse_rerun(named.get("rerun")),
        plugins=tuple(named.get("plugin", ())),
    )
