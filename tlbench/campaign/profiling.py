"""Measures a profile in a process of its own, as cells are: what another process has in memory, or has done before, is
not what theirs has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tlbench.backbones.sources import name_of_source
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
    try:
        worker = Worker(library=name_of_source(wanted.cell.backbone))
    except OSError as error:
        raise UserError(f"cannot start a process to profile {wanted.cell.backbone}: {error.strerror}") from None
    try:
        told = worker.profile(
            {
                "wanted": asdict(wanted),
                "settings": asdict(settings),
                "plugins": list(plugins),
                "layouts": layouts.told(),
            }
        )
    except Lost as lost:
        raise RuntimeError(str(lost)) from None
    finally:
        worker.end()
    layouts.hear(told["layouts"])
    if "error" in told:
        raise ERRORS[told["error"]](told["why"])
    try:
        return profile_of(told["profile"])
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"its profile holds what is no figure: {text_of(error)}") from None


def answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Measures what `profiled` has asked for, in the process that it has started. Errors: UserError."""
    from tlbench.measure.profile import Wanted, measure_profile

    load_plugins(asked["plugins"])
    layouts.hear(asked["layouts"])
    given = asked["wanted"]
    wanted = Wanted(
        **{
            **given,
            "cell": Cell(**given["cell"]),
            "policies": tuple(map(tuple, given["policies"])),
            "heads": tuple(given["heads"]),
        }
    )
    try:
        found: dict[str, Any] = {"profile": asdict(measure_profile(wanted, Settings(**asked["settings"])))}
    except tuple(ERRORS.values()) as error:
        kind = next(name for name, one in ERRORS.items() if isinstance(error, one))
        found = {"error": kind, "why": text_of(error)}
    return {**found, "layouts": layouts.told()}
