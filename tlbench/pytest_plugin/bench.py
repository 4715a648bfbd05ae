"""Holds the campaign of one pytest session, which measures its benchmarks step by step in pytest's order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid, load_grid
from tlbench.grid.settings import SETTINGS, Settings

if TYPE_CHECKING:
    from tlbench.campaign.asked import Asked
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.measuring import RunCell
    from tlbench.campaign.steps import Step
    from tlbench.machine.clock import Clock
    from tlbench.pytest_plugin.following import Following
    from tlbench.records.record import Record
    from tlbench.records.run_folder import Store

MARKER = "speedup"
UNPAIRED = "no cell of this grid is measured on two devices: needs a CUDA GPU that torch can use beside the CPU"

EXTRA_INFO = (
    "key",
    "status",
    "weights",
    "accuracy_val",
    "accuracy_test",
    "total_parameters",
    "trainable_parameters",
    "images_per_second",
    "latency_p50_ms",
    "latency_p95_ms",
    "peak_memory_bytes",
)
"""Columns of a cell's row that pytest-benchmark's JSON gets."""


class Bench:
    """Holds what the benchmarks of one pytest session share: their campaign, and what runs its cells."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._open = ExitStack()
        self._block: int | None = None
        self.following: Following | None = None
        """What says how the session gets on; None where nobody is to be told."""

    @cached_property
    def campaign(self) -> Campaign:
        """Returns the campaign, begun at the first use. Errors: UserError."""
        from tlbench.campaign.asked import OWN, parse_asked
        from tlbench.campaign.campaign import begin

        names = [*(axis.option for axis in AXES.values()), *SETTINGS, *OWN]
        asked = parse_asked({name: self.config.getoption(f"--tl-{name}") for name in names}, "--tl-")
        asked = replace(asked, measures=not self.config.getoption("--collect-only"))
        if asked.resume is None:
            grid = self._grid(asked)
            asked = replace(asked, grid=grid, settings={**grid.settings, **asked.settings})
            _check_tries(Settings(**asked.settings))
        campaign = begin(asked)
        try:
            _check_tries(campaign.plan.settings)
        except BaseException:
            campaign.release()
            raise
        return campaign

    @cached_property
    def store(self) -> Store:
        """Returns the run's folder, held by this process from now on. Errors: UserError."""
        store = self.campaign.store
        if note := store.hold():
            self.config.issue_config_time_warning(UserWarning(note), stacklevel=2)
        return store

    @property
    def notes(self) -> list[str]:
        """Returns what there is to say of the records that are there: lines that were set aside. What was found of the
        images stands in the outlook (`tlbench.campaign.outlook`).
        """
        if "campaign" not in vars(self):
            return []
        from tlbench.records.counting import aside

        return list(aside(self.campaign.damaged))

    def _grid(self, asked: Asked) -> Grid:
        grid = asked.grid or self._grid_beside() or asked.or_first_grid().grid or Grid()
        if self.pairs_only and grid.axes["device"] == (Cell.device,):
            return grid.with_axes({"device": ("available",)})
        return grid

    def _grid_beside(self) -> Grid | None:
        """Returns the grid that lies beside the benchmarks."""
        folders = [Path(arg.partition("::")[0]) for arg in self.config.args]
        for folder in [*folders, self.config.rootpath / "bench"]:
            path = (folder if folder.is_dir() else folder.parent) / "grids" / "quick.toml"
            if path.is_file():
                return load_grid(path)
        return None

    @property
    def is_open(self) -> bool:
        """Tells whether there is a folder to measure into."""
        return "campaign" in vars(self) and self.campaign.is_open

    @cached_property
    def pairs_only(self) -> bool:
        """Tells whether ``-m speedup`` asks for what can be held against another device."""
        chosen = self.config.getoption("-m") or ""
        return bool(re.search(rf"\b{MARKER}\b", chosen)) and not re.search(rf"\bnot\s+{MARKER}\b", chosen)

    @cached_property
    def paired(self) -> set[Cell]:
        """Returns the cells that are also measured on another device."""
        kinds: dict[Cell, set[Cell]] = {}
        for cell in {step.cell for step in self.campaign.planned}:
            kinds.setdefault(replace(cell, device=""), set()).add(cell)
        return {cell for alike in kinds.values() if len(alike) > 1 for cell in alike}

    @cached_property
    def run_cell(self) -> RunCell:
        """Returns what runs a cell. Signals are left to pytest."""
        from tlbench.campaign.measuring import measuring
        from tlbench.campaign.stop import Stop

        self.campaign.decode_images()
        return self._open.enter_context(measuring(self.settings, Stop(), self.campaign.asked.plugins))

    @property
    def settings(self) -> Settings:
        return self.campaign.plan.settings

    @property
    def isolated(self) -> bool:
        """Tells whether cells run in processes of their own, where no clock of this one reaches."""
        return self.settings.isolate != "none"

    def measure(self, step: Step, clock: Clock) -> Record:
        """Returns a step's record, after the twins of the block before it; all are taken in. Errors: UserError."""
        if self._block is not None and step.block != self._block:
            self._measure_twins(self.campaign.twins(self._block))
        self._block = step.block
        if self.following is not None:
            self.following.start(step)
        # The fixture times one measurement a test, so there is no second try for a noisy one here.
        run_cell = self.run_cell if self.isolated else partial(self.run_cell, clock=clock)
        record = self.campaign.take(self.campaign.measure(step, run_cell, once=not self.isolated))
        if self.following is not None:
            self.following.finish(record)
        return record

    def finish(self) -> None:
        """Measures the twins of the last block, and those that are left of earlier ones. Errors: UserError."""
        from tlbench.machine.device import broken_context

        if not broken_context():
            if self._block is not None:
                self._measure_twins(self.campaign.twins(self._block))
            self._measure_twins(self.campaign.twins())
        self.campaign.remember()

    def _measure_twins(self, twins: Iterable[Step]) -> None:
        for twin in twins:
            self.campaign.take(self.campaign.measure(twin, self.run_cell))

    @property
    def lacking(self) -> list[str]:
        """Says, in lines, what the session lacks that no failed test shows: it was to measure cells, and measured none,
        or cells that were measured once more came to nothing.
        """
        if self.is_open and self.campaign.counts:  # its records are not held where there are many
            from tlbench.campaign.ending import shortcomings

            return shortcomings(self.campaign)
        idle = ("collectonly", "benchmark_disable", "benchmark_skip")
        if any(getattr(self.config.option, name, False) for name in idle) or "campaign" not in vars(self):
            return []
        return [f"No cell was measured: {UNPAIRED}"] if self.pairs_only and not self.paired else []

    def close(self) -> None:
        """Ends the processes of isolated cells, and lets others measure the run."""
        self._open.close()
        if "campaign" in vars(self):
            self.campaign.release()


def _check_tries(settings: Settings) -> None:
    """Raises UserError where noisy cells are to be measured again, and pytest's fixture times each once."""
    if settings.retry_noisy and settings.isolate == "none":
        from tlbench.errors import UserError

        raise UserError(
            "--tl-retry-noisy needs --tl-isolate backbone or cell: a benchmark in pytest's own process is timed once"
        )
