"""Two sides of a comparison, and how far a figure of a cell differs between them: what counts as a repetition is a run.

Blocks of one run share that run's offset. So the repetitions are runs: several a side, or pairs that were measured in
turns; of one run a side, what earlier runs on the machine tell of how runs vary. Where none is there, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.noise import of_runs
from tlbench.analysis.sides import METRICS, Run

CLAIM = 0.975
"""Confidence of the intervals between runs: two runs of the same are called changed once in 40 times."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Holds both sides, and estimates what became of a figure."""

    base: Sequence[Run]
    new: Sequence[Run]
    noise_floor: float | None
    in_turns: bool

    def cells(self, runs: Iterable[Run]) -> dict[str, None]:
        return dict.fromkeys(name for run in runs for name in run.values)

    def values(self, runs: Iterable[Run], cell: str, metric: str) -> list[Mapping[Any, float]]:
        """Returns a cell's values by unit, for each run that has any."""
        found = [run.values.get(cell, {}).get(metric) or {} for run in runs]
        return [values for values in found if values]

    def means(self, runs: Iterable[Run], cell: str, metric: str) -> list[float]:
        """Returns the mean of each run, on the scale on which it is compared: logs of times and ratios."""
        scale = _scale(metric)
        return [fmean(map(scale, values.values())) for values in self.values(runs, cell, metric)]

    def averaged(self, cell: str, metric: str) -> tuple[list[float], list[float]]:
        """Returns what a figure of either side, (new, base), is the mean of, on the scale on which it is compared. Of
        an accuracy these are the seeds that both sides have, or all seeds where no seed is shared; of other figures
        the runs, and in turns those whose partner has the figure as well.
        """
        if METRICS[metric].points:
            new, base = (_by_seed(self.values(runs, cell, metric)) for runs in (self.new, self.base))
            shared = [seed for seed in new if seed in base]
            return [new[seed] for seed in shared or new], [base[seed] for seed in shared or base]
        whole = self._whole_pairs(cell, metric) if self.in_turns else []
        if whole:
            return [new for new, _ in whole], [base for _, base in whole]
        return self.means(self.new, cell, metric), self.means(self.base, cell, metric)

    def _whole_pairs(self, cell: str, metric: str) -> list[tuple[float, float]]:
        """Returns the means of the runs that were measured in turns, (new, base), where both have the figure."""
        pairs = (
            (self.means([new], cell, metric), self.means([base], cell, metric))
            for new, base in zip(self.new, self.base, strict=True)
        )
        return [(new[0], base[0]) for new, base in pairs if new and base]

    def seeds(self, cell: str, metric: str) -> tuple[list[Any], list[Any], list[Any]]:
        """Returns the units of a figure: those of both sides, of the new one alone, of the base alone; of an accuracy
        these are its seeds.
        """
        new, base = (
            dict.fromkeys(unit for values in self.values(runs, cell, metric) for unit in values)
            for runs in (self.new, self.base)
        )
        return [u for u in new if u in base], [u for u in new if u not in base], [u for u in base if u not in new]

    def identical(self, cell: str, metric: str) -> bool:
        """Tells whether both sides hold the very same figures, to the last bit, seed by seed and in every repetition;
        of times, that would say nothing.
        """
        if METRICS[metric].timed:
            return False
        shared, *others = self.seeds(cell, metric)
        if not shared or (any(others) and not METRICS[metric].points):
            return False
        every = (_every(run, cell, metric) for run in (*self.base, *self.new))
        values: dict[Any, set[float]] = {}
        for unit, value in (item for items in every for item in items):
            values.setdefault(unit, set()).add(value)
        if any(len(values[unit]) > 1 for unit in shared):
            return False
        return not METRICS[metric].points or self._same_predictions(cell, metric, shared)

    def _same_predictions(self, cell: str, metric: str, seeds: Collection[Any]) -> bool:
        """Tells whether each of these seeds predicts the same in every run that has it. Where no run tells, several
        seeds with equal accuracies do; one may be chance, and what one side alone tells is no evidence.
        """
        runs = (*self.base, *self.new)
        told = [
            {
                run.predictions.get(cell, {}).get(seed)
                for run in runs
                if seed in run.values.get(cell, {}).get(metric, {})
            }
            for seed in seeds
        ]
        if all(hashes is None for several in told for hashes in several):
            return len(seeds) > 1
        return all(len(several) == 1 and len(several.pop() or ()) == 1 for several in told)

    def estimate(self, cell: str, metric: str) -> stats.Estimate | None:
        """Returns the difference new - base, of logs or of accuracies; None where nothing tells how it varies."""
        found = self._points(cell, metric) if METRICS[metric].points else self._ratio(cell, metric)
        # Values that agree to the last bit tell no spread, whatever the formula says.
        return found if found is not None and (found.error or found.slack) else None

    def _ratio(self, cell: str, metric: str) -> stats.Estimate | None:
        if self.in_turns:
            whole = self._whole_pairs(cell, metric)
            return stats.paired_estimate(*map(list, zip(*whole, strict=True))) if len(whole) > 1 else None
        new, base = (self.means(runs, cell, metric) for runs in (self.new, self.base))
        slack = self._slack(cell) if METRICS[metric].timed else 0.0
        spread = self._spread(cell, metric, len(new) + len(base))
        found = stats.runs_estimate(new, base, spread)
        if found is None and (slack or not METRICS[metric].timed):
            # One run a side: its blocks, and how far apart somebody says that runs may come out.
            scale, both = _scale(metric), (self.new, self.base)
            news, bases = ([scale(v) for v in self.values(runs, cell, metric)[0].values()] for runs in both)
            found = stats.unrelated_estimate(news, bases)
        return None if found is None else replace(found, slack=slack)

    def _slack(self, cell: str) -> float:
        """Returns the log of how far apart runs of the same may come out, as somebody says; what the runs' own
        identical cells showed is the least of it.
        """
        if not self.noise_floor:
            return 0.0
        own = [run.floors.get(cell, 0.0) for run in (*self.base, *self.new)]
        return math.log1p(max(self.noise_floor, *own))

    def _points(self, cell: str, metric: str) -> stats.Estimate | None:
        """Returns the difference over the seeds that both sides have; other seeds are unrelated."""
        new, base = (_by_seed(self.values(runs, cell, metric)) for runs in (self.new, self.base))
        seeds = [seed for seed in new if seed in base]
        found: stats.Estimate | None = None
        if len(seeds) > 1:
            found = stats.paired_estimate([new[s] for s in seeds], [base[s] for s in seeds])
        elif not seeds and min(len(new), len(base)) > 1:
            found = stats.unrelated_estimate(list(new.values()), list(base.values()))
        if found is None:
            return None
        return replace(found, error=max(found.error, self._grain(cell, metric) / math.sqrt(found.n)))

    def _grain(self, cell: str, metric: str) -> float:
        """Returns the standard deviation that rounding to whole images leaves in a difference of two accuracies: seeds
        that differ by the same few images seem to have no spread. Unknown is 0.
        """
        count = {"accuracy_val": "val_images", "accuracy_test": "test_images"}.get(metric, "")
        images = [row[count] for run in self.base for row in run.rows.get(cell, ()) if count and row[count]]
        return math.sqrt(2 / 12) / min(images) if images else 0.0

    def _spread(self, cell: str, metric: str, runs: int) -> stats.Spread | None:
        """Returns how runs of this cell vary by what earlier ones tell. Of one run a side, what these runs themselves
        show is a lower bound: how their blocks vary, and how far apart their identical cells came out.
        """
        known = of_runs(run.known[cell] for run in (*self.base, *self.new) if cell in run.known)
        if known is None or not METRICS[metric].timed:
            return None
        sd, freedom = known[0], min(known[1], stats.PRIOR_FREEDOM)
        if runs == 2:
            for run in (self.base[0], self.new[0]):
                logs = [math.log(value) for value in run.values[cell][metric].values()]
                if len(logs) > 1:
                    sd = max(sd, math.sqrt(variance(logs) / len(logs)))
                reach = stats.t_quantile(freedom, stats.CONFIDENCE) * math.sqrt(2)
                sd = max(sd, math.log1p(run.floors.get(cell, 0.0)) / reach)
        return stats.Spread(sd=sd, freedom=freedom)

    def overall(self, metric: str, cells: Sequence[str]) -> stats.Interval:
        """Returns the mean over cells, with an interval where runs are the repetitions: cells of a run share its
        offset, so that they are none.
        """
        both = [self.averaged(cell, metric) for cell in cells]
        centre = fmean(fmean(new) - fmean(base) for new, base in both)
        found = None
        new, base = ([self.means(runs, cell, metric) for cell in cells] for runs in (self.new, self.base))
        # Every run has every cell, and of an accuracy every seed.
        whole = len({len(means) for means in new}) == len({len(means) for means in base}) == 1
        if whole and (not METRICS[metric].points or all(self._same_seeds(cell, metric) for cell in cells)):
            news, bases = ([fmean(run) for run in zip(*side, strict=True)] for side in (new, base))
            if self.in_turns and len(news) == len(self.new) == len(bases) > 1:
                found = stats.paired_estimate(news, bases)
            elif not self.in_turns and not METRICS[metric].points:
                found = stats.runs_estimate(news, bases)
        return shown(found, centre, metric)

    def _same_seeds(self, cell: str, metric: str) -> bool:
        """Tells whether every run has the same seeds."""
        return len({frozenset(v) for runs in (self.new, self.base) for v in self.values(runs, cell, metric)}) == 1

    def floors(self, cells: Iterable[str]) -> dict[str, float]:
        """Returns for each cell the largest floor that the runs themselves tell."""
        found = {name: [run.floors[name] for run in (*self.base, *self.new) if name in run.floors] for name in cells}
        return {name: max(values) for name, values in found.items() if values}


def _scale(metric: str) -> Callable[[float], float]:
    return float if METRICS[metric].points else math.log


def _every(run: Run, cell: str, metric: str) -> Iterable[tuple[Any, float]]:
    """Returns each single figure with its unit: of an accuracy each record's, where records are behind it, since a
    mean over blocks may hide that they differ.
    """
    if METRICS[metric].points and cell in run.rows and not any(r.fold for r in run.rows[cell]):
        return [(r.seed, r[metric]) for r in run.rows[cell] if r.status == "ok" and r[metric] is not None]
    return (run.values.get(cell, {}).get(metric) or {}).items()


def _by_seed(runs: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    seeds = dict.fromkeys(seed for values in runs for seed in values)
    return {seed: fmean(values[seed] for values in runs if seed in values) for seed in seeds}


def shown(found: stats.Estimate | None, centre: float, metric: str) -> stats.Interval:
    """Returns an estimate as people read it: a ratio, or a difference of accuracies."""
    if found is None:
        interval = stats.Interval(estimate=centre, low=None, high=None, n=1, confidence=CLAIM)
    else:
        interval = found.interval(CLAIM)
    return interval if METRICS[metric].points else stats.ratio_interval(interval)
