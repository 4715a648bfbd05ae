"""What a run is to measure, as ``run.json`` says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import tlbench
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import SINCE, Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.records import strict_json
from tlbench.records.identity import standard
from tlbench.records.lines import unseal
from tlbench.records.machine import short_hash
from tlbench.records.record import SCHEMA

RUN = "run.json"

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
"""The packages that decide what a cell computes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Says what a run measures, and how."""

    grids: tuple[Grid, ...]
    """The grid that it started with, and those added when it was resumed."""
    settings: Settings
    plugins: Mapping[str, str] = field(default_factory=dict)
    """As `tlbench.records.record.Record.plugins`."""

    def cells(self) -> dict[Cell, str]:
        """Returns every cell of every grid once, in order, with its readable name."""
        merged = self._merged
        once: dict[Cell, Cell] = {}
        for grid in self.grids:
            for cell in grid.expand():
                once.setdefault(standard(cell), cell)
        return {cell: merged.id_of(cell) for cell in once.values()}

    def name_of(self, cell: Cell) -> str:
        """Returns the readable name of a cell that the plan has, or has with another seed."""
        return self._merged.id_of(cell)

    @property
    def _merged(self) -> Grid:
        """Returns a grid with all values of all grids."""
        return Grid(axes={name: tuple(dict.fromkeys(v for g in self.grids for v in g.axes[name])) for name in AXES})

    def extended(self, grid: Grid) -> Plan:
        """Returns this plan with a grid's cells added; itself where it has them all."""
        if set(map(standard, grid.expand())) <= set(map(standard, self.cells())):
            return self
        return replace(self, grids=(*self.grids, grid))


@dataclass(frozen=True, kw_only=True)
class Start:
    """Holds what ``run.json`` says: what is planned, and under which conditions it began."""

    plan: Plan
    versions: Mapping[str, str | None]
    started: str
    """UTC, ISO 8601."""
    id: str = ""
    """What tells this run from all others, wherever its folder lies."""


GUARDS = {setting.field: getattr(Settings(), setting.field) for setting in SETTINGS.values() if setting.guards}
"""Settings that decide no figure: a run of a version that did not have one yet goes on with its default."""

NEW_AXES = {name: [value] for name, value in SINCE.items() if name in AXES}
"""Axes that a version after the first has added, at their defaults: a run of an older one goes on as it began."""


def load_start(folder: Path) -> Start:
    """Reads ``run.json``. Errors: UserError when it is not there, damaged or of another version."""
    path = folder / RUN
    try:
        data = unseal(path.read_bytes().decode())
        if data.get("schema") != SCHEMA:
            raise ValueError(f"of schema {data.get('schema')!r}, while this tlbench has {SCHEMA}")
        strict_json.check(tuple[Mapping[str, tuple[Any, ...]], ...], data["grids"], "grids")
        strict_json.check(Settings, data["settings"], "settings")
        strict_json.check(Mapping[str, str | None], data["versions"], "versions")
        strict_json.check(str, data["started"], "started")
        plugins = data.get("plugins", {})
        strict_json.check(Mapping[str, str], plugins, "plugins")
        settings = {**GUARDS, **data["settings"]}
        _check_names("setting", settings, (f.name for f in fields(Settings)))
        grids = [{**NEW_AXES, **axes} for axes in data["grids"]]
        for axes in grids:
            _check_names("axis", axes, AXES)
            for name, values in axes.items():
                for value in values:
                    strict_json.check(Cell, {name: value}, "axis")
        read = tuple(Grid(axes={name: tuple(values) for name, values in axes.items()}) for axes in grids)
        plan = Plan(grids=read, settings=Settings(**settings), plugins=plugins)
        known = data.get("id") or short_hash([data["started"], data["grids"]])
        return Start(plan=plan, versions=data["versions"], started=data["started"], id=str(known))
    except FileNotFoundError:
        raise UserError(
            f"{str(folder)!r} holds no run that could go on (no {RUN}); start one with `tlbench run`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{str(path)!r} is damaged or of another version: {error}; start a new run") from None


def said(grid: Grid) -> dict[str, tuple[Any, ...]]:
    """Returns the axes of a grid as ``run.json`` has them: without those that 0.1.0 did not have, where these are at
    their defaults.
    """
    return {name: values for name, values in grid.axes.items() if name not in SINCE or values != (SINCE[name],)}


def _check_names(kind: str, given: Iterable[str], expected: Iterable[str]) -> None:
    # A default must not stand in for what another version knew or did not know.
    if differing := sorted(set(given) ^ set(expected)):
        raise ValueError(f"{kind} {differing[0]!r} is in one and not in the other")


def versions() -> dict[str, str | None]:
    """Returns the versions of what decides the figures; None where a package is not installed."""
    installed: dict[str, str | None] = {"tlbench": tlbench.__version__}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = None
    return installed
