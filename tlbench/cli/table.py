"""The table of commands, and the application that has them all. Heavy imports wait until a command needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlbench.cli import (
    classes,
    comparing,
    finding,
    housekeeping,
    keeping,
    listing,
    repeating,
    reporting,
    running,
    screening,
    suspecting,
    watching,
)
from tlbench.cli.app import PlainCommand, app

__all__ = ["COMMANDS", "app"]

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": listing.list_,
    "show": listing.show,
    "screen": screening.screen,
    "run": running.run,
    "find": finding.find,
    "status": watching.status,
    "report": reporting.report,
    "summary": reporting.summary,
    "recommend": reporting.recommend,
    "classes": classes.classes,
    "compare": comparing.compare,
    "speedup": comparing.speedup,
    "export": reporting.export,
    "cache": housekeeping.cache,
    "env": housekeeping.env,
    "duel": repeating.duel,
    "replay": repeating.replay,
    "fit": keeping.fit,
    "predict": keeping.predict,
    "efficiency": reporting.efficiency,
    "suspects": suspecting.suspects,
}
"""Name -> command, in the order of ``tlbench --help``."""

for _name, _command in COMMANDS.items():
    app.command(_name, cls=PlainCommand)(_command)
