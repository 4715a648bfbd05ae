"""The engines that can place a run's cells, in one table. Nothing of an engine is imported before it is asked for.

A row added to `ENGINES`, by a plugin as well, is all that another engine needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlbench.campaign.engine import LOCAL, Engine, Wanted
from tlbench.errors import UserError, lookup

if TYPE_CHECKING:
    from tlbench.grid.settings import Settings

Made = Callable[[Wanted], Engine]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Says what an engine is, and how it is made."""

    summary: str
    make: str | Made
    """What makes one of what a person wants: a function, or ``module:function``, imported when it is asked for."""
    extra: str = ""
    """The extra of this package that installs it (``pip install 'tlbench[ray]'``); empty where it needs nothing."""
    options: Mapping[str, str] | None = field(default_factory=dict)
    """Name of an option (``--engine-option NAME=VALUE``) -> what it is; None where the engine itself knows them."""
    exclusive: bool = False
    """Whether it keeps neighbours away from a cell where ``--exclusive`` asks for it; else times would be said to be of
    a cell that has its node to itself, and are not."""
    sizes: bool = False
    """Whether it gives cells the processors and GPUs of ``--cpus`` and ``--gpus``."""
    addressed: bool = False
    """Whether it may run somewhere already (``--engine-address``)."""
    reach: str | Callable[[Wanted], None] | None = None
    """What raises a UserError where nobody answers at that address, as ``make`` is written: it is asked before the run
    has a folder. None where there is nothing to ask."""


ENGINES: dict[str, Row] = {
    LOCAL: Row(summary="this machine, one cell at a time", make="tlbench.campaign.local:Local"),
    "ray": Row(
        summary="Ray: a cluster, or all processors and GPUs of this machine",
        make="tlbench.engines.ray:make",
        extra="ray",
        options={"autoscale": "cells that a cluster which grows on demand is asked for at the same time, at most"},
        exclusive=True,
        sizes=True,
        addressed=True,
        reach="tlbench.engines.ray:reach",
    ),
    "submitit": Row(
        summary="Slurm, by submitit: each batch is a job",
        make="tlbench.engines.submitit:make",
        extra="submitit",
        options=None,
        exclusive=True,
        sizes=True,
    ),
}
"""Name -> engine."""


def check_engine(wanted: Wanted, settings: Settings, devices: Collection[str] = ()) -> None:
    """Raises UserError where an engine is unknown, or does not know what is asked of it; ``devices`` are those of the
    run's cells.
    """
    row = lookup(ENGINES, "engine", wanted.engine)
    if wanted.engine == LOCAL:
        given = {
            "--cpus": wanted.cpus,
            "--gpus": wanted.gpus,
            "--exclusive": wanted.exclusive,
            "--skip-bad-nodes": wanted.skip_bad_nodes,
        }
        if named := [name for name, value in given.items() if value]:
            raise UserError(f"{' and '.join(named)}: on this machine alone one cell runs at a time; give --engine ray")
    elif settings.isolate == "none":
        raise UserError(
            f"--engine {wanted.engine} measures each cell in a process of its own: leave --isolate none away, or give "
            "--isolate backbone or cell"
        )
    elif settings.retry_noisy and not wanted.exclusive:
        raise UserError(
            f"--retry-noisy with --engine {wanted.engine} needs --exclusive: times of cells that may have neighbours "
            "are marked as shared, whatever their noise"
        )
    _check_sizes(wanted, row, devices)
    if wanted.address is not None and not row.addressed:
        raise UserError(f"--engine {wanted.engine} has no address: leave --engine-address away, or give --engine ray")
    if row.options is not None:
        for name in wanted.options:
            if not row.options:
                raise UserError(f"--engine {wanted.engine} has no options: leave --engine-option {name}=… away")
            lookup(row.options, f"option of the engine {wanted.engine}", name)


def _check_sizes(wanted: Wanted, row: Row, devices: Collection[str]) -> None:
    """Raises UserError for what would be accepted and ignored."""
    if wanted.engine == LOCAL:
        return
    if wanted.exclusive and not row.exclusive:
        raise UserError(f"--engine {wanted.engine} keeps no neighbours away from a cell: leave --exclusive away")
    for name, value in (("--cpus", wanted.cpus), ("--gpus", wanted.gpus)):
        if value and not row.sizes:
            raise UserError(f"--engine {wanted.engine} does not heed {name}: leave it away")
    if wanted.exclusive and wanted.cpus:
        raise UserError("--exclusive gives a cell its whole node: leave --cpus away, or give --threads")
    if wanted.gpus and devices and not any(device.startswith("cuda") for device in devices):
        raise UserError("--gpus is for cells on CUDA, and there is none: give --device cuda, or leave --gpus away")


def make_engine(wanted: Wanted) -> Engine:
    """Returns the engine that is wanted. Errors: UserError where it is not installed, or cannot be as it is wanted."""
    row = lookup(ENGINES, "engine", wanted.engine)
    if not isinstance(row.make, str):
        return row.make(wanted)
    try:
        make = _named(row.make)
    except ImportError as error:
        if not row.extra or (error.name or "").partition(".")[0] == "tlbench":
            raise
        raise UserError(
            f"--engine {wanted.engine} needs a package that is not here ({error}); run "
            f"pip install 'tlbench[{row.extra}]'"
        ) from None
    made: Engine = make() if wanted.engine == LOCAL else make(wanted)
    return made


def check_reachable(wanted: Wanted) -> None:
    """Raises UserError where an engine that runs somewhere already does not answer there. It is installed
    (`make_engine`).
    """
    reach = lookup(ENGINES, "engine", wanted.engine).reach
    if wanted.address is not None and reach is not None:
        (_named(reach) if isinstance(reach, str) else reach)(wanted)


def _named(place: str) -> Any:
    """Returns what ``module:name`` names. Errors: ImportError."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
