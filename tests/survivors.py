"""What processes do that are made to be killed, or to lose their terminal: reports and runs whose cells take no time.

They are forked from a server that has imported everything heavy, so that a hundred of them start at once.
"""

import contextlib
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import records

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "torchvision", "sklearn.datasets", "scipy.stats", "pyarrow.parquet", "seaborn", "jinja2", "tlbench.cli",
     "tlbench.report.plots", "tlbench.report.terminal", "tlbench.campaign.campaign", "tlbench.measure.cell"]
)  # fmt: skip
GRID = [
    "--freeze=linear_probe,full,norm",
    "--seeds=0,1",
    "--isolate=none",
    "--threads=1",
    "--twins=0",
    "--layout=contiguous",
]
CELLS = 6


def begin(work, *given):
    """Starts one of the functions below in a process of its own."""
    process = SERVER.Process(target=work, args=given, daemon=True)
    process.start()
    return process


# --- reports --------------------------------------------------------------------------------------------------


def one_figure():
    """Leaves one figure in the table, which is drawn in no time."""
    from matplotlib.figure import Figure

    from tlbench.report import plots

    def draw(summary):
        figure = Figure(figsize=(2, 1))
        figure.text(0, 0.5, f"{len(summary)} configurations")
        return figure

    plots.PLOTS.clear()
    plots.PLOTS["mine"] = plots.Plot(title="Mine", caption="", draw=draw)


def report_of(which, folder):
    """Writes one of two reports, the same bytes each time."""
    from tlbench.report import write_report

    made = [records.record(seed=seed, freeze=freeze) for seed in range(2 + which) for freeze in ("full", "norm")]
    write_report(made, folder, ["a run"] * len(made), datetime(2026, 1, 1 + which, tzinfo=UTC))


def report_for_ever(folder):
    """Writes the two reports in turns."""
    _quiet()
    one_figure()
    from tlbench.errors import UserError

    while True:
        for which in (0, 1):
            with contextlib.suppress(UserError):  # there is no room for this one
                report_of(which, Path(folder))


# --- runs -----------------------------------------------------------------------------------------------------


def run(arguments, cache, log, seconds=0.02, terminal=None):
    """Runs the command line, with hand-made records in the place of cells; at a terminal, if one is named."""
    os.environ["TLBENCH_CACHE"] = str(cache)
    if terminal is None:
        _quiet(log)
    else:
        _sit_at(terminal)
    from tlbench import cli
    from tlbench.measure import cell as measuring

    def measured(cell, settings, *_, place):
        time.sleep(seconds)
        made = records.record(freeze=cell.freeze)
        return replace(made, id=place.name, cell=cell, settings=settings, block=place.block, role=place.role)

    measuring.run_cell = measured
    one_figure()
    sys.argv = ["tlbench", "run", *map(str, arguments)]
    cli.main()


def _quiet(log=os.devnull):
    """Writes into a file what else would go to the terminal of the tests."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _standard(file)


def _sit_at(terminal):
    """Makes a pseudo-terminal this process's own, so that the kernel hangs it up when the other side is closed."""
    os.setsid()
    _standard(os.open(terminal, os.O_RDWR))


def _standard(file):
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", encoding="utf-8", buffering=1) for number in (1, 2))


def without_standard_error(folder):
    """Exits with the number of the first file that is opened where standard error is closed."""
    from tlbench.cli.output import lasting_output

    os.close(2)
    with lasting_output(), (Path(folder) / "records").open("w") as file:
        number = file.fileno()
    os._exit(number)
