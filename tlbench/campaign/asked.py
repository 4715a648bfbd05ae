"""Reads what a person asks of a campaign, the same for the command line and for pytest. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlbench.campaign.engine import LOCAL, Wanted
from tlbench.campaign.steps import UNTESTED, parse_rerun
from tlbench.errors import UserError, lookup
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.grid import FIRST, SHAPE, Grid, load_grid
from tlbench.grid.settings import SETTINGS, parse_given
from tlbench.grid.values import join_values, split_values
from tlbench.records.record import Record

KEEP = {"best": "the model of the cell that the verdict names, of its seeds the one best on validation images"}
"""What of a run may be kept as a model."""
OWN = ("grid", "out", "resume", "rerun", "plugin", "download")
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
    redo_untested: bool = False
    """Whether those are, too, that lack a test which is asked for (`tlbench.campaign.other_tests`)."""
    plugins: tuple[str, ...] = ()
    engine: Wanted = field(default_factory=Wanted)
    """Where cells are measured."""
    download: bool = False
    """Data sets that are known by a name and are not on this disk are downloaded."""
    keep: str | None = None
    """``best``: the model of the cell that the verdict names is kept in the run's folder."""
    measures: bool = True
    """Nothing is measured where this is false: the cells are only listed, also while another process measures them."""

    @property
    def elsewhere(self) -> bool:
        """Tells whether other machines than this one measure, or may."""
        return self.engine.engine != LOCAL

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
        held = ", ".join(
            f"{AXES[name].option} {join_values(map(AXES[name].written, grid.axes[name]))}" for name in freed
        )
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
    settings = parse_given({name: named[name] for name in SETTINGS if named.get(name, []) != []})
    # No shell expands a tilde behind a "=", and Python has none.
    named |= {name: os.path.expanduser(named[name]) for name in ("out", "grid", "resume") if name in named}
    grid = load_grid(named["grid"]) if "grid" in named else None
    if "resume" in named and "out" in named:
        raise UserError(f"{dashes}resume goes on in the run's own folder: leave {dashes}out away")
    if "rerun" in named and "resume" not in named:
        raise UserError(f"{dashes}rerun chooses what of a run to measure again: name the run with {dashes}resume RUN")
    return Asked(
        grid=grid,
        axes=axes,
        settings={**(grid.settings if grid is not None else {}), **settings},
        out=named.get("out"),
        resume=named.get("resume"),
        redo=parse_rerun(named.get("rerun")),
        redo_untested=UNTESTED in split_values(named.get("rerun", "")),
        plugins=tuple(map(os.path.expanduser, named.get("plugin", ()))),
        download=bool(named.get("download", False)),
        keep=_kept(named.get("keep")),
    )


def _kept(which: str | None) -> str | None:
    return which if which is None else (lookup(KEEP, "choice for --keep", which) and which)


def parse_engine(given: Mapping[str, Any]) -> Wanted:
    """Reads where cells are to be measured, from the options of that name, None for what was left away. Whether there
    is such an engine, and what it knows of this, is for `tlbench.engines.check_engine` to say.

    Errors: UserError naming the value and what it should be.
    """
    options: dict[str, str] = {}
    for text in given.get("engine_option") or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--engine-option {text!r}: give NAME=VALUE, such as slurm_partition=gpu")
        options[name.strip()] = value
    named = [name for name in ("engine_address", "engine_option") if given.get(name)]
    if given.get("engine") is None and named:
        raise UserError(f"--{named[0].replace('_', '-')} is an engine's: name it, such as --engine ray")
    return Wanted(
        engine=LOCAL if given.get("engine") is None else given["engine"],
        address=given.get("engine_address"),
        options=options,
        cpus=_amount("cpus", given.get("cpus")),
        gpus=_amount("gpus", given.get("gpus")),
        exclusive=bool(given.get("exclusive")),
        skip_bad_nodes=bool(given.get("skip_bad_nodes")),
    )


def _amount(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 4096 or (value > 1 and value != int(value)):
        raise UserError(f"--{name} {text!r}: give a whole number, or a part such as 0.5, above 0")
    return value
