"""What a run costs its driver where many nodes measure, and how well its batches fill them, on simulated nodes.

    python bench/engines.py [--cells N] [--nodes N] [--lost SHARE] [--images] [--profile FILE]

Nodes answer at once, in simulated time, one event after the other; everything else is as in `tlbench run --engine`: the
plan, the batches, the records on the disk, `tlbench status`'s file, the lines of the terminal. What a node would do
itself (making its records) is not counted. Seconds are those of the processor, memory is the resident one.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import io
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from simulations.spread import Spread, Truth, bound, grid_of, truth

from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign, begin
from tlbench.campaign.engine import Wanted
from tlbench.progress import SpreadProgress
from tlbench.records.images import PerImage, SplitResults
from tlbench.records.record import Record
from tlbench.records.run_folder import RECORDS, load

TEMPLATE = Path(__file__).parents[1] / "results" / "published" / "quick-cpu"
LOOKS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the cells at which memory is looked at."""


def resident() -> float:
    """Returns the megabytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def user() -> float:
    """Returns the seconds of the processor that this process has taken, without the system's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def template(images: bool) -> Record:
    """Returns a record of a trained cell, as this repository has some; with results on single images, if wanted."""
    found = next(r for r in load(TEMPLATE).records if r.status == "ok" and r.cell.task == "train")
    if not images:
        return replace(found, per_image=None, images={})
    rng = np.random.default_rng(0)
    splits = {
        split: SplitResults(
            images=rng.integers(0, 256, (270, 16), np.uint8),
            labels=rng.integers(0, 10, 270),
            predictions=rng.integers(0, 10, 270),
        )
        for split in ("val", "test")
    }
    return replace(found, per_image=PerImage(splits=splits), images={})


class Watching:
    """Follows a run as the command line does, and looks at the memory now and then."""

    def __init__(self, campaign: Campaign, engine: Spread) -> None:
        console = Console(file=io.StringIO(), width=120)
        self._file = console.file
        self._progress = SpreadProgress(campaign.left, campaign.times, console, engine)
        self._at = {max(int(share * len(campaign.left)), 1) for share in LOOKS}
        self.seen: dict[int, float] = {}
        self.start, self._count = self._progress.start, 0

    def finish(self, record: Record) -> None:
        """Takes a record in."""
        self._progress.finish(record)
        self._count += 1
        if self._count in self._at:
            self.seen[self._count] = resident()
        if isinstance(self._file, io.StringIO) and self._file.tell() > 1e6:  # a terminal keeps nothing either
            self._file.seek(0)
            self._file.truncate()


def measure(
    cells: int, nodes: int, lost: float, images: bool, folder: Path, seconds: Truth | None = None
) -> dict[str, str]:
    """Has a grid measured by simulated nodes. Returns what it has cost, in words."""
    began = user()
    wanted = Wanted(engine="simulated")
    asked = Asked(grid=grid_of(cells), settings={"isolate": "backbone", "threads": 1}, out=folder, engine=wanted)
    campaign = begin(asked)
    count = len(campaign.left)
    known = seconds or truth(campaign.plan.settings)
    engine = Spread(nodes, lost, known, template(images))
    _ = campaign.store, campaign.times
    watching = Watching(campaign, engine)
    planned, memory = user() - began, resident()
    least = bound(campaign.left, known, nodes)
    began, cpu, wall = user(), time.process_time(), time.monotonic()
    assert campaign.run(watching.start, watching.finish, engine) is None
    spent = user() - began, time.process_time() - cpu
    driver, both = (1000 * (seconds - engine.node_seconds) / count for seconds in spent)
    wall = 1000 * (time.monotonic() - wall) / count
    check(campaign, count)
    looks = ", ".join(f"{mb:,.0f} MB after {number:,}" for number, mb in watching.seen.items())
    return {
        "cells": f"{count:,} on {nodes:,} nodes, {100 * lost:g} % of batches lost ({engine.lost:,})",
        "planned": f"{planned:.1f} s, {memory:,.0f} MB",
        "driver": f"{driver:.2f} ms a cell ({both:.2f} with the system's, {wall:.2f} of the clock)",
        "memory": f"{looks}; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:,.0f} MB at most",
        "schedule": (
            f"ends at {engine.now / least:.3f} of the bound ({least:,.0f} s); {engine.fills:,} prefixes filled, nodes "
            f"worked {100 * engine.spent / engine.now / nodes:.1f} % of the time"
        ),
    }


def check(campaign: Campaign, count: int) -> None:
    """Every cell has one record, on the disk."""
    with (campaign.store.folder / RECORDS).open("rb") as file:
        assert sum(1 for _ in file) == count
    assert not campaign.undone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="about so many (default 100,000)")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--lost", type=float, default=0.02, help="share of the batches whose node is lost")
    parser.add_argument("--images", action="store_true", help="with results on single images, files of their own")
    parser.add_argument("--profile", metavar="FILE", help="writes a profile for pstats")
    given = parser.parse_args()
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        if given.profile:
            profile.enable()
        try:
            told = measure(given.cells, given.nodes, given.lost, given.images, Path(folder, "run"))
        finally:
            profile.disable()
            if given.profile:
                profile.dump_stats(given.profile)
    for name, words in told.items():
        print(f"{name:9} {words}")
    gc.collect()


if __name__ == "__main__":
    main()
