"""Measures a profile, or what a cell maps, in a process of its own, as cells are: what another process has in memory,
or has done before, is not what theirs has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tlbench.backbones.sources import name_of_source
from tlbench.campaign.budget import seconds_since_start
from tlbench.campaign.isolate import Lost, Worker
from tlbench.campaign.plugins import load_plugins
from tlbench.errors import NotApplicable, Unavailable, UserError, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.machine.profiles import Profile, profile_of

if TYPE_CHECKING:
    from tlbench.measure.profile import Wanted

ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (NotApplicable, Unavailable, MemoryError, RuntimeError)
}
"""Errors that are raised here as they were there; UserError passes anyway."""


def profiled(wanted: Wanted, settings: Settings, plugins: Sequence[str] = ()) -> Profile:
    """Returns a profile, measured in a process of its own, or in this one where the settings have cells measured here.

    Errors: as `tlbench.measure.profile.measure_profile`; RuntimeError where the process has ended without an answer, or
    with one that is none; UserError where none can be started.
    """
    if settings.isolate == "none" or os.name != "posix":
        from tlbench.measure.profile import measure_profile

        return measure_profile(wanted, settings)
    told = _told(wanted.cell.backbone, {"wanted": asdict(wanted)}, settings, plugins)
    try:
        return profile_of(told["profile"])
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"its profile holds what is no figure: {text_of(error)}") from None


def mapped_bytes(cell: Cell, settings: Settings, plugins: Sequence[str] = ()) -> int:
    """Returns the most bytes that a cell's process has mapped for its data, of what ``--memory-limit`` counts. The
    process is a new one, as limited ones are, but for what the C library maps ahead.

    Errors: as `profiled`; RuntimeError for a cell that does not end well, with its reason.
    """
    told = _told(cell.backbone, {"mapped": asdict(cell)}, settings, plugins, limited=True)
    if not isinstance(told.get("bytes"), int) or told["bytes"] <= 0:
        raise RuntimeError("its process told of no memory")
    return int(told["bytes"])


def _told(
    backbone: str, what: Mapping[str, Any], settings: Settings, plugins: Sequence[str], limited: bool = False
) -> dict[str, Any]:
    """Returns what a new process answers. Errors: as `profiled`."""
    try:
        worker = Worker(library=name_of_source(backbone), limited=limited)
    except OSError as error:
        raise UserError(f"cannot start a process to profile {backbone}: {error.strerror}") from None
    asked = {**what, "settings": asdict(settings), "plugins": list(plugins), "layouts": layouts.told()}
    try:
        told = worker.profile(asked)
    except Lost as lost:
        raise RuntimeError(str(lost)) from None
    finally:
        worker.end()
    layouts.hear(told["layouts"])
    if "error" in told:
        raise ERRORS[told["error"]](told["why"])
    return told


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Measures what `profiled` or `mapped_bytes` has asked for, in the process that was started. Errors: UserError."""
    load_plugins(asked["plugins"])
    layouts.hear(asked["layouts"])
    settings = Settings(**asked["settings"])
    try:
        if "mapped" in asked:
            from tlbench.measure.mapped import most_mapped

            found: dict[str, Any] = {"bytes": most_mapped(Cell(**asked["mapped"]), settings)}
        else:
            found = {"profile": asdict(_measured(asked["wanted"], settings))}
    except tuple(ERRORS.values()) as error:
        kind = next(name for name, one in ERRORS.items() if isinstance(error, one))
        found = {"error": kind, "why": text_of(error)}
    return {**found, "layouts": layouts.told()}


def _measured(given: Mapping[str, Any], settings: Settings) -> Profile:
    """Measures a profile here. Errors: as `tlbench.measure.profile.measure_profile`."""
    from tlbench.measure.profile import Wanted, measure_profile

    wanted = Wanted(
        **{
            **given,
            "cell": Cell(**given["cell"]),
            "policies": tuple(map(tuple, given["policies"])),
            "heads": tuple(given["heads"]),
        }
    )
    start = seconds_since_start()
    return replace(measure_profile(wanted, settings), start_seconds=start or None)
