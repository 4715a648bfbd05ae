"""Says of each benchmark, as `tlbench run` does of each cell, what came of it and how long the rest will take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tlbench.progress import RunProgress

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.steps import Step
    from tlbench.records.record import Record


class Following:
    """Follows the steps of a session. What it has to say of one waits until pytest has written the test's dot: while a
    test runs, whatever is written is captured.
    """

    def __init__(self, campaign: Campaign, steps: Sequence[Step], reporter: Any) -> None:
        from rich.console import Console

        self._reporter, self._said = reporter, io.StringIO()
        console = Console(file=self._said, force_terminal=False, force_jupyter=False, color_system=None)
        self._progress = RunProgress(steps, campaign.times, console)

    def start(self, step: Step) -> None:
        """Takes in that a step begins."""
        self._progress.start(step)

    def finish(self, record: Record) -> None:
        """Takes in what came of a step."""
        self._progress.finish(record)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Writes what there is to say, on lines of their own."""
        if text := self._said.getvalue():
            self._said.seek(0)
            self._said.truncate()
            for line in text.splitlines():
                self._reporter.write_line(line)
