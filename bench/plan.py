"""A plan against what is measured then: seconds and peak memory of cells, and the largest batch that fits.

    python bench/plan.py [--small] [--data PATH] [--no-fits | --only-fits] [--out DIR]

60 cells: 5 backbones, 6 policies, 2 batch sizes; of each backbone three policies at 224 px and three at 96. All are
planned from profiles alone, in a cache of their own; then each group is planned once more, by what was measured before
it, and measured. Prints the errors of both in the median and at the 90th percentile, how often the intervals held, and
for each cell what was planned and measured. ``fits`` is held against bisection with ``--memory-limit`` on the
processor. ``--small`` takes two backbones at 96 and 64 px. The whole takes a quarter of an hour on two cores.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tlbench
from tlbench.analysis.expectation import timed_seconds
from tlbench.api.keywords import options_of
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.foretelling import largest_batches
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.records.record import Record

BACKBONES = ("efficientnet_lite0", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0", "regnet_y_400mf")
POLICIES = ("linear_probe", "last_1", "norm", "full", "bias", "lp_ft")
BATCHES = (16, 32)
BARS = {"total": (0.10, 0.25), "memory": (0.08, 0.15)}
"""Median and 90th percentile that errors are to stay within."""
FITS = (
    ("resnet18", "full", 2_000_000_000),
    ("resnet18", "norm", 2_000_000_000),
    ("mobilenet_v3_small", "full", 1_500_000_000),
)
"""Backbone, policy, and limit of memory that bisection is made with."""
FIT_SIZE, MOST = 96, 256


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Holds what was planned and measured of one figure of a cell."""

    cell: str
    figure: str
    planned: float
    measured: float
    between: tuple[float, float] | None = None

    @property
    def error(self) -> float:
        """Returns by what share the plan was off."""
        return abs(self.planned - self.measured) / self.measured

    @property
    def held(self) -> bool:
        """Tells whether the interval held."""
        return self.between is not None and self.between[0] <= self.measured <= self.between[1]


def groups(small: bool, data: str) -> list[dict[str, Any]]:
    """Returns the keywords of each group of cells, a run each."""
    sizes = (96, 64) if small else (224, 96)
    found: list[dict[str, Any]] = []
    for number, backbone in enumerate(BACKBONES[:2] if small else BACKBONES):
        for place, size in enumerate(sizes):
            found.append(
                {
                    "dataset": data, "backbone": backbone, "freeze": POLICIES[(number + place) % 2 :: 2],
                    "batch_size": BATCHES, "image_size": size, "epochs": 2, "train_size": 96, "folds": "off",
                    "weights": "random", "twins": 0,
                }
            )  # fmt: skip
    return found


def planned(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a group's plan."""
    return [{str(name): value for name, value in row.items()} for row in tlbench.plan(**given).to_dict("records")]


def measured(given: dict[str, Any], out: Path) -> list[tuple[Record, float]]:
    """Measures a group. Returns its records, each with the seconds that the clock saw pass."""
    asked = parse_asked(options_of(None, {**given, "out": out}))
    campaign = begin(replace(asked, settings={"isolate": "backbone", **asked.settings}))
    began, found = [0.0], []
    campaign.run(
        lambda step: began.__setitem__(0, time.monotonic()),
        lambda record: found.append((record, time.monotonic() - began[0])),
    )
    return found


def compared(rows: Sequence[dict[str, Any]], records: Sequence[tuple[Record, float]]) -> list[Pair]:
    """Returns what was planned beside what was measured."""
    by_cell = {(r.cell.freeze, r.cell.batch_size): (r, seconds) for r, seconds in records if r.role == "cell"}
    pairs = []
    for row in rows:
        record, whole = by_cell[row["freeze"], row["batch_size"]]
        if record.status != "ok":
            sys.exit(f"{record.id}: {record.status}: {record.reason}")
        name = f"{row['backbone']} {row['image_size']:.0f} px {row['freeze']} {row['batch_size']}"
        epochs = statistics.fmean(r.seconds for r in record.rounds)
        fill = 0.0 if record.prefix.get("shared") else float(record.prefix.get("seconds") or 0.0)
        between = row["total_seconds_low"], row["total_seconds_high"]
        pairs.append(
            Pair(
                cell=name, figure="total", planned=row["total_seconds"], measured=whole,
                between=between,
            )
        )  # fmt: skip
        pairs.append(Pair(cell=name, figure="epoch", planned=row["epoch_seconds"], measured=epochs))
        if fill and row["prefix_seconds"]:
            pairs.append(Pair(cell=name, figure="frozen layers", planned=row["prefix_seconds"], measured=fill))
        if record.peak_memory_bytes:
            between = row["peak_memory_bytes_low"], row["peak_memory_bytes_high"]
            pairs.append(
                Pair(
                    cell=name, figure="memory", planned=row["peak_memory_bytes"], between=between,
                    measured=float(record.peak_memory_bytes),
                )
            )  # fmt: skip
        timed = timed_seconds(record)
        print(
            f"  {name}: {row['total_seconds']:.2f} s planned, {whole:.2f} measured; an epoch "
            f"{row['epoch_seconds']:.4f} and {epochs:.4f}; timed {timed:.2f}; frozen layers "
            f"{row['prefix_seconds']:.2f} and {fill:.2f}; memory {row['peak_memory_bytes'] / 1e6:.0f} MB and "
            f"{(record.peak_memory_bytes or 0) / 1e6:.0f}"
        )
    return pairs


def report(title: str, pairs: Sequence[Pair]) -> None:
    """Prints the errors by figure."""
    print(title)
    for figure in dict.fromkeys(pair.figure for pair in pairs):
        some = [pair for pair in pairs if pair.figure == figure]
        errors = sorted(pair.error for pair in some)
        ninetieth = errors[min(math.ceil(0.9 * len(errors)) - 1, len(errors) - 1)]
        bias = math.exp(statistics.fmean(math.log(p.planned / p.measured) for p in some if p.planned > 0)) - 1
        held = [pair.held for pair in some if pair.between is not None]
        more = f", interval held {sum(held)} of {len(held)}" if held else ""
        bars = BARS.get(figure)
        bar = f" (bars {bars[0]:.0%} and {bars[1]:.0%})" if bars else ""
        print(
            f"  {figure}: {len(some)} cells, error {statistics.median(errors):.1%} in the median, {ninetieth:.1%} at "
            f"the 90th percentile{bar}, on average {bias:+.1%}{more}"
        )


def fits_or_not(cell: Cell, batch: int, limit: int, folder: Path) -> bool:
    """Tells whether a cell with this batch runs within a limit of memory."""
    run = tlbench.run(
        dataset="synthetic", backbone=cell.backbone, freeze=cell.freeze, batch_size=batch, image_size=FIT_SIZE,
        epochs=1, weights="random", isolate="cell", memory_limit=limit, twins=0,
        out=folder / f"{cell.backbone}-{cell.freeze}-{batch}",
    )  # fmt: skip
    (record,) = run.records
    print(f"  {cell.backbone} {cell.freeze}, batches of {batch}: {record.status}", flush=True)
    if record.status not in ("ok", "oom", "failed"):
        sys.exit(f"{record.id}: {record.status}: {record.reason}")
    return record.status == "ok"


def bisected(cell: Cell, guess: int, limit: int, folder: Path) -> int:
    """Returns the largest batch that runs, to a twentieth: a bracket around a guess, then bisection."""
    low, high = 0, MOST + 1
    batch = min(max(guess, 2), MOST)
    while high - low > max(1, low // 20):
        if fits_or_not(cell, batch, limit, folder):
            low = batch
        else:
            high = batch
        if high <= 2:
            break
        if low and high <= MOST:
            batch = (low + high) // 2
        else:
            batch = min(max(low + 1, round(1.15 * low)), MOST) if low else max(2, min(round(high / 1.15), high - 1))
    return low


def main(arguments: argparse.Namespace) -> None:
    """Plans, measures and prints."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        os.environ["TLBENCH_CACHE"] = str(folder / "cache")
        some = [] if arguments.only_fits else groups(arguments.small, arguments.data)
        first = [planned(given) for given in some]
        pure: list[Pair] = []
        corrected: list[Pair] = []
        for number, (given, rows) in enumerate(zip(some, first, strict=True)):
            again = planned(given)
            records = measured(given, folder / f"run{number}")
            print(f"{given['backbone']}, {given['image_size']} px")
            pure += compared(rows, records)
            corrected += compared(again, records)
        if pure:
            report("from profiles alone", pure)
            report("corrected by what was measured before", corrected)
        if not arguments.no_fits:
            print("the largest batch, predicted and by bisection")
            for backbone, policy, limit in FITS:
                cell = Cell(
                    backbone=backbone, freeze=policy, image_size=FIT_SIZE, dataset="synthetic", weights="random"
                )
                (fit,) = largest_batches([cell], [limit], Settings(), beside_bytes=384 * 3 * FIT_SIZE**2)
                batch = fit.batches[limit]
                found = bisected(cell, batch, limit, folder)
                off = batch / max(found, 1) - 1
                print(f"  {backbone} {policy}, {limit / 1e9:g} GB: {batch} predicted, {found} found ({off:+.0%})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A plan against what is measured then.")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--no-fits", action="store_true")
    parser.add_argument("--only-fits", action="store_true")
    parser.add_argument("--out")
    main(parser.parse_args())
