"""The command line: a file for each group of commands, all of them in `table`. Here stands what a process begins and
ends with: nothing that takes time is imported before Ctrl-C is watched for.
"""

from __future__ import annotations

import os
import sys

from tlbench.machine.interrupts import STATUS, CtrlC, end_quietly


def command() -> None:
    """Runs the command line as a process of its own, which ends as soon as everything is written: taking torch or
    matplotlib apart first would be for nothing.
    """
    try:
        main()
        status: object = 0
    except SystemExit as done:
        status = done.code
    end_quietly()
    import atexit
    import threading

    if not isinstance(status, int | None) or threading.active_count() > 1:
        _end_all_the_same(status)
        raise SystemExit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status or 0)


PATIENCE_SECONDS = 10.0
"""How long threads that a plugin or a library has left running may keep a command from ending."""


def _end_all_the_same(status: object) -> None:
    """Ends the process a while from now, should threads of others keep it from ending by itself."""
    import threading

    def end() -> None:
        main = threading.main_thread()
        names = ", ".join(repr(each.name) for each in threading.enumerate() if each is not main and not each.daemon)
        if names:
            os.write(2, f"tlbench: ended, though threads of a plugin or a library go on: {names}\n".encode())
            os._exit(status if isinstance(status, int) else status is not None)

    timer = threading.Timer(PATIENCE_SECONDS, end)
    timer.daemon = True
    timer.start()


def main() -> None:
    """Runs the command line, which ends with one of the statuses in docs/exit-status.md: a user's mistake is one line
    on standard error and 2, Ctrl-C one line and 130, whatever has caught it.
    """
    with CtrlC() as ctrl_c:
        try:
            _main()
        except BaseException:
            if ctrl_c.came:
                raise SystemExit(STATUS) from None
            raise
        if ctrl_c.came:
            raise SystemExit(STATUS)


def _main() -> None:
    """Runs a command. Errors: SystemExit with its status."""
    from tlbench.cli.output import lasting_output
    from tlbench.errors import NotApplicable, Unavailable, UserError, printable

    try:
        with lasting_output():
            from tlbench.cli.comparing import with_sides
            from tlbench.cli.table import app

            app(args=with_sides(sys.argv[1:]))
    except (UserError, NotApplicable, Unavailable) as error:
        from tlbench.machine.credentials import without_credentials

        with lasting_output():
            print(f"tlbench: {printable(without_credentials(str(error)))}", file=sys.stderr)
        raise SystemExit(2) from None
