"""What a session prints of its run, and how it goes on when its terminal is gone."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from typing import Any

import pytest

from tlbench.pytest_plugin.bench import Bench


def outlive_terminal(config: pytest.Config, reporter: Any) -> None:
    """Lets a session that measures go on when its terminal is closed, and when nothing can be written to it any more:
    pytest itself would end at its next dot. ``reporter`` is pytest's, or None.
    """
    from tlbench.campaign.stop import despite_hangup
    from tlbench.console import Steady

    opened = ExitStack()
    opened.enter_context(despite_hangup())
    config.add_cleanup(opened.close)
    if reporter is not None:
        reporter._tw._file = Steady(reporter._tw._file)


def print_run(bench: Bench, reporter: Any, exitstatus: int) -> None:
    """Prints verdict and table of a session's run, then writes its report, which may fail for more reasons; neither
    costs the other.
    """
    from tlbench.analysis.deciding import deciding
    from tlbench.campaign.plugins import again_by
    from tlbench.console import new_console, surviving

    folder = bench.campaign.store.folder
    # Of a run that is done already no record says by what it is to be decided now.
    records = deciding(bench.campaign.current(), bench.campaign.asked.settings.get("metric"))
    again = shlex.quote(str(folder))
    reporter.section("tlbench")
    reporter.flush()
    console = new_console(file=reporter._tw._file)
    if bench.paired:
        with surviving("the speed-ups cannot be printed"):
            from tlbench.analysis.frame import rows
            from tlbench.analysis.speedup import speedups
            from tlbench.analysis.summary import summarise
            from tlbench.report.terminal import print_speedups

            print_speedups(console, speedups(summarise(rows(records))))
    plugins = bench.campaign.asked.plugins
    with surviving("the summary cannot be printed", f"{again_by('summary', folder, plugins)} tries again"):
        from tlbench.report.terminal import print_summary

        print_summary(console, records, runs=str(folder))
    with surviving("no report is written", f"{again_by('report', folder, plugins)} tries again"):
        from tlbench.report import write_report

        console.print(f"Report: {write_report(records, folder)}", markup=False, soft_wrap=True)
    for line in bench.lacking:
        console.print(line, markup=False, soft_wrap=True)
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        console.print(
            f"Stopped; what is finished is kept. To go on: the same command with --tl-resume {again}"
            + " in the place of --tl-out" * (reporter.config.getoption("tl_out", None) is not None),
            markup=False,
            soft_wrap=True,
        )
