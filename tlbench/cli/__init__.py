"""The command line: a file for each group of commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tlbench.cli import comparing, listing, reporting, running
from tlbench.cli.app import app
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
    "duel": comparing.duel,
    "replay": comparing.replay,
    "efficiency": reporting.efficiency,
}
"""Name -> command, in the order of ``tlbench --help``."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Runs the command line: a user's mistake is one line on standard error and exit status 2."""
    try:
        with lasting_output():
            app(args=comparing.with_sides(sys.argv[1:]))
    except (UserError, NotApplicable, Unavailable) as error:
        with lasting_output():
            print(f"tlbench: {printable(without_credentials(str(error)))}", file=sys.stderr)
        raise SystemExit(2) from None
