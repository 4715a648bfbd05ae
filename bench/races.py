"""Races replayed from what was really measured: does a quarter of a grid's time find what the whole grid finds?

    python bench/races.py --command 'list:PATH?label=1'    # the `tlbench run` that makes such a run, and how many cells
    python bench/races.py RUN [--races 20] [--share 0.25]

A race asks for a cell and a seed; what it is given is a record of the run: its results on validation images, and its
seconds. Seeds come in another random order in each race. The pass over the images that cells share is charged to the
first cell of a race that needs it, as in a real one. What cells would take is predicted with an error of 25 % (one
standard deviation of its logarithm), `--off`.

Regret is how far the pick lies behind the best cell, by the means of validation accuracies over all seeds. *Dropped* is
a best cell that was excluded. The bars: a regret of at most a point in 18 of 20 races, the best dropped in at most 1.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlbench.analysis.race import MOST_SEEDS, Race, replayed, unaffordable
from tlbench.analysis.scores import Numbers
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.records.images import SplitResults
from tlbench.records.record import Record
from tlbench.records.run_folder import load

POINT = 0.01
"""Regret that a race may have."""
BARS = {"regret": 18 / 20, "dropped": 1 / 20}
CELLS, SEEDS = 30, 10
"""What a run needs for the bars to mean something."""
AXES = {
    "backbone": "efficientnet_lite0,efficientnet_lite1,efficientnet_lite2",
    "freeze": "linear_probe",
    "head": "linear,dropout_linear,mlp,cosine,ridge",
    "seeds": "0-9",
    "epochs": "5",
    "weights": "pretrained",
    "twins": "0",
}
"""A grid of 30 cells that is cheap: the stages before the head run once for five heads and ten seeds."""

SIZES = {"digits": "32,48"}
"""Data set -> its two sizes; of photographs they are those below."""
SIZE = "64,96"

Measured = tuple[float, np.ndarray, np.ndarray]
"""Seconds, numbers of validation images, 1 for those that are right."""


@dataclass(frozen=True, kw_only=True)
class One:
    """Holds what was measured of one seed of a cell."""

    own: float
    """Seconds without the pass over the images that others share."""
    fills: Mapping[str, float]
    """Passes that it took -> their seconds."""
    images: np.ndarray
    correct: np.ndarray


class Charged(Sequence[Measured]):
    """Gives the measurements of a cell; a pass over the images is charged to whoever is first to need it."""

    def __init__(self, seeds: Sequence[One], filled: set[str]) -> None:
        """``filled`` is shared by all cells of a race."""
        self.seeds, self.filled = seeds, filled
        self.took: list[float] = []
        """Seconds of its own that each measurement took which was asked for."""

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> Measured:  # type: ignore[override]
        one, new = self.seeds[number], self.to_fill(number)
        self.filled.update(one.fills)
        self.took.append(one.own)
        return one.own + new, one.images, one.correct

    def to_fill(self, number: int = 0) -> float:
        """Returns the seconds of what nobody has filled yet."""
        return sum(seconds for name, seconds in self.seeds[number].fills.items() if name not in self.filled)


@dataclass(kw_only=True)
class Foreseen(Race):
    """Is a race that knows what cells share: a pass over the images is expected of the first of them alone."""

    recorded: Mapping[str, Charged]

    def expected(self, name: str) -> float:
        """Returns the seconds that a further seed of a cell will take: its own as they were, or as they were predicted,
        by how far the predictions of the others were off; and what is still to be filled.
        """
        took, off = self.recorded[name].took, [
            math.log(np.mean(one.took) / self.costs[other]) for other, one in self.recorded.items() if one.took
        ]  # fmt: skip
        own = float(np.mean(took)) if took else self.costs[name] * math.exp(float(np.median(off)) if off else 0.0)
        return own + self.recorded[name].to_fill()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Says how a race ended."""

    regret: float
    named: float
    """Regret of the cheapest that came out within a point of the pick, which a verdict names where they are tied."""
    dropped: bool
    """Whether a best cell was excluded."""
    spent: float
    """Seconds."""
    never: int
    """Cells that the budget did not allow a look at."""
    excluded: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="folder of a run, or its name in results/")
    parser.add_argument("--command", metavar="DATASET", help="print the command that makes a run of this data set")
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.25, help="of the grid's seconds (default 0.25)")
    parser.add_argument("--off", type=float, default=0.25, help="error of predicted seconds (default 0.25)")
    given = parser.parse_args()
    if given.command is not None:
        print(command(given.command))
        return
    if given.run is None:
        parser.error("name a run, or a data set with --command to see how one is made")
    try:
        cells = measured(load(given.run).records)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print("\n".join(lines(cells, given.races, given.share, given.off)))


def command(dataset: str) -> str:
    """Returns the `tlbench run` that makes a run for races."""
    axes = " ".join(f"--{name} {value}" for name, value in AXES.items())
    return f"tlbench run --dataset '{dataset}' {axes} --image-size {SIZES.get(dataset, SIZE)} --out results/races"


def measured(records: Sequence[Record]) -> dict[str, list[One]]:
    """Returns the cells of a run that were measured with all of its seeds; what each took, and had right, by seed.

    Errors: UserError where there is nothing to race.
    """
    by_cell: dict[Cell, dict[int, Record]] = {}
    for record in records:
        if record.cell.task == "train" and record.status == "ok" and record.role == "cell" and record.cell.fold is None:
            by_cell.setdefault(replace(record.cell, seed=0), {}).setdefault(record.cell.seed, record)
    seeds = set().union(*by_cell.values()) if by_cell else set()
    numbers = Numbers()
    cells = {}
    for known in by_cell.values():
        if set(known) == seeds and all(_kept(record) is not None for record in known.values()):
            cells[known[min(seeds)].id] = [_one(known[seed], numbers) for seed in sorted(seeds)]
    if len(cells) < 2 or len(seeds) < 2:
        raise UserError(
            f"{len(cells)} cells were measured with all of {len(seeds)} seeds, results on single images kept: a race "
            "needs two of each; --command DATASET prints a run for it"
        )
    return cells


def _kept(record: Record) -> SplitResults | None:
    return record.per_image.split("val", logits=False) if record.per_image is not None else None


def _one(record: Record, numbers: Numbers) -> One:
    results, prefix = _kept(record), record.prefix
    assert results is not None
    seconds, names = float(prefix.get("seconds") or 0.0), list(prefix.get("fills", ()))
    fresh = 0.0 if prefix.get("shared") else seconds - float(prefix.get("screened_seconds") or 0.0)
    return One(
        own=max((record.wall_seconds or 0.0) - fresh, 0.01),
        fills={name: seconds / len(names) for name in names},
        images=numbers.of(results.images),
        correct=results.correct.astype(float),
    )


def grid_seconds(cells: Mapping[str, Sequence[One]]) -> float:
    """Returns the seconds of measuring all seeds of all cells, each shared pass once."""
    fills = {name: seconds for seeds in cells.values() for one in seeds for name, seconds in one.fills.items()}
    return sum(fills.values()) + sum(one.own for seeds in cells.values() for one in seeds)


def raced(cells: Mapping[str, Sequence[One]], budget: float, off: float, number: int) -> Race:
    """Replays a race: its number decides the order of seeds and the errors of predictions."""
    chance = np.random.default_rng(number)
    costs = {
        name: float(np.mean([one.own for one in seeds]) * np.exp(off * chance.normal()))
        for name, seeds in cells.items()
    }
    filled: set[str] = set()
    recorded = {name: Charged(seeds, filled) for name, seeds in cells.items()}
    seeds = min(MOST_SEEDS, len(next(iter(cells.values()))))
    race = Foreseen(costs=costs, budget=budget, recorded=recorded)
    return replayed(race, recorded, chance.permutation(seeds).tolist())


def outcome(race: Race, cells: Mapping[str, Sequence[One]]) -> Outcome:
    """Holds a race against what all seeds of all cells say."""
    truth = {name: float(np.mean([one.correct.mean() for one in seeds])) for name, seeds in cells.items()}
    best, pick = max(truth.values()), race.pick()
    seconds = {name: float(np.mean([one.own for one in seeds])) for name, seeds in cells.items()}
    cheapest = min(race.near(), key=lambda name: seconds[name], default=None)
    return Outcome(
        named=best - (truth[cheapest] if cheapest is not None else 0.0),
        regret=best - (truth[pick] if pick is not None else 0.0),
        dropped=all(race.out.get(name) == "excluded" for name, value in truth.items() if value == best),
        spent=race.spent,
        never=len(unaffordable(race)),
        excluded=sum(why == "excluded" for why in race.out.values()),
    )


def lines(cells: Mapping[str, Sequence[One]], races: int, share: float, off: float) -> list[str]:
    """Returns what came of races, in lines."""
    whole, seeds = grid_seconds(cells), len(next(iter(cells.values())))
    ended = [outcome(raced(cells, share * whole, off, number), cells) for number in range(races)]
    regrets = [100 * one.regret for one in ended]
    named = [100 * one.named for one in ended]
    small, dropped = sum(one.regret <= POINT + 1e-9 for one in ended), sum(one.dropped for one in ended)
    values = sorted((float(np.mean([one.correct.mean() for one in some])) for some in cells.values()), reverse=True)
    said = [
        f"{len(cells)} cells x {seeds} seeds, {whole:.0f} s in all; validation accuracies from {100 * values[-1]:.1f} "
        f"to {100 * values[0]:.1f} %, {sum(value >= values[0] - POINT for value in values)} within a point of the best",
        f"{races} races of {share * whole:.0f} s each ({100 * share:g} %)",
        f"regret at most a point of validation accuracy: {small} of {races} (wanted: {_at_least(races)}); median "
        f"{np.median(regrets):.2f}, most {max(regrets):.2f} points",
        f"of the cheapest within a point of the pick, which a verdict names where they are tied: median "
        f"{np.median(named):.2f}, most {max(named):.2f} points",
        f"the best cell dropped: {dropped} of {races} (wanted: at most {int(BARS['dropped'] * races)})",
        f"on the average {np.mean([one.excluded for one in ended]):.1f} cells excluded, "
        f"{np.mean([one.never for one in ended]):.1f} never looked at, {np.mean([one.spent for one in ended]):.0f} s "
        "spent",
    ]
    if len(cells) < CELLS or seeds < SEEDS:
        said.append(f"too small to say much: the bars are meant for {CELLS} cells x {SEEDS} seeds")
    return said


def _at_least(races: int) -> int:
    return int(np.ceil(BARS["regret"] * races - 1e-9))


if __name__ == "__main__":
    main()
