"""The command line: a file for each group of commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from tlbench.cli import comparing, listing, repeating, reporting, running
from tlbench.cli.app import PlainCommand, app
from tlbench.cli.output import lasting_output
from tlbench.errors import NotApplicable, Unavailable, UserError, printable
from tlbench.machine.credentials import without_credentials

COMMANDS: dict[str, Callable[..., Any]] = {
    "list": listing.list_,
    "show": listing.show,
    "run": running.run,
    "report": reporting.report,
    "summary": reporting.summary,
    "recommend": reporting.recommend,
    "compare": comparing.compare,
    "speedup": comparing.speedup,
    "export": reporting.export,
    "cache": reporting.cache,
    "env": reporting.env,
    "duel": repeating.duel,
    "replay": repeating.replay,
    "efficiency": reporting.efficiency,
}
"""Name -> command, in the order of ``tlbench --help``."""

for _name, _command in COMMANDS.items():
    app.command(_name, cls=PlainCommand)(_command)


def command() -> None:
    """Runs the command line as a process of its own, which ends as soon as everything is written: taking torch or
    matplotlib apart first would be for nothing.
    """
    try:
        main()
        status: object = 0
    except SystemExit as done:
        status = done.code
    if not isinstance(status, int | None) or threading.active_count() > 1:
        raise SystemExit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status or 0)


def main() -> None:
    """Runs the command line: a user's mistake is one line on standard error and exit status 2."""
    try:
        with lasting_output():
            app(args=comparing.with_sides(sys.argv[1:]))
    except (UserError, NotApplicable, Unavailable) as error:
        with lasting_output():
            print(f"tlbench: {printable(without_credentials(str(error)))}", file=sys.stderr)
        raise SystemExit(2) from None
