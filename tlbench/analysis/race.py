"""A budget instead of a grid: what to measure next, and what is out, by validation images alone.

A race goes by rungs, a seed each. In the first every cell is measured once, the cheapest first, as far as half of the
budget goes (all of it where there would be nothing to compare, or once there are a few seeds of the best); in each
further one those that are still in and may be the best by what they came to so far, the best first, and only where time
is left the others. A cell is *excluded* only where its interval to the leader, over the same images and seeds, excludes
that it is as good: for all cells and all looks of the race at once. Of one seed nothing is known of its spread, so that
a cell is then excluded only where it lies further behind than seeds were ever seen to carry it. What is neither
excluded nor continued *ran out*: nobody says that it is worse.

Nothing here measures anything: `Race` says what comes next and takes in what came out, so that it can be replayed from
records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tlbench.analysis.stats import Against, Scores, against_the_best
from tlbench.analysis.stats.accuracy import PSEUDO, TYPICAL
from tlbench.analysis.why import ONE_POINT

FIRST_SHARE = 0.5
"""Share of the budget that the first rung may take: what is left has to tell the best from each other."""
CHEAP = 0.5
"""A look that takes less than this part of any further seed comes before it, whatever the first rung has taken."""
ENOUGH = 3
"""Seeds of each that may be the best, after which what was never looked at comes before more of them."""
MOST_SEEDS = 10
"""Seeds of a cell at most: what more of them tell is less than what other images would."""
FAR = 3.0
"""Standard deviations that a cell of one seed has to lie behind to be excluded."""
WIDE = 2.0
"""Spread of seeds that is then reckoned with, as a multiple of the typical one (`TYPICAL`)."""
WRONG = 0.05
"""Chance that the best cell is excluded at some rung of a race."""
LUCK = 2.0
"""Standard errors of its seeds by which a cell of fewer seeds has to be ahead to be picked: of many that were seen once
the best was lucky by about so much."""
HOPE = 0.5
"""Standard errors by which a cell may lie below the best, and the best above it, so that its next seed comes before
those of what lies further behind."""
LOOKS = MOST_SEEDS - 1
"""Times that intervals are looked at, once a rung: each is allowed its share of `WRONG`."""
TINY = 1e-9
"""Of a point, so that arithmetic does not decide."""
DRAWS = 2000
"""Draws that an interval of a look rests on."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Says how a cell stands in a race."""

    name: str
    rung: int = 0
    """Seeds that were measured of it."""
    out: str = ""
    """Why it is not continued: ``excluded``, ``failed``; empty while it is in."""


@dataclass(kw_only=True)
class Race:
    """Keeps a race: give `take` what came out of each measurement that `next` asked for."""

    costs: Mapping[str, float]
    """Cell -> seconds that one seed of it is expected to take; what is measured corrects it."""
    budget: float
    """Seconds of all measurements together."""
    spent: float = 0.0
    scores: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    """Cell -> seed -> (numbers of the validation images, 1 for correct)."""
    taken: dict[str, list[float]] = field(default_factory=dict)
    """Cell -> seconds of its measurements."""
    out: dict[str, str] = field(default_factory=dict)
    """Cell -> why it is not continued."""
    looked: tuple[int, int] = (0, 0)
    """Seeds that all cells had at the last look, and cells that were in."""
    foresee: Callable[[str], float] | None = None
    """What tells the seconds that a further seed of a cell would take now; None: `costs`, and what was measured."""
    prefer: Callable[[Sequence[str]], str] | None = None
    """What chooses the next of those that had no look yet and can be afforded; None: the cheapest."""
    favour: Callable[[Sequence[str]], str | None] | None = None
    """What names, of those that had no look yet, one that is to have it before all others, whatever it takes."""

    def take(self, name: str, seed: int, seconds: float, images: np.ndarray | None, correct: np.ndarray | None) -> None:
        """Takes in a measurement; without results it has failed, and is out."""
        self.spent += seconds
        self.taken.setdefault(name, []).append(seconds)
        if images is None or correct is None:
            self.out[name] = "failed"
        else:
            self.scores.setdefault(name, {})[seed] = images, correct

    def next(self) -> tuple[str, int] | None:
        """Returns the cell and the seed to measure next; None where the race is over: the budget does not take another
        measurement, or one cell is left, or none.
        """
        self._exclude()
        running = [name for name in self.costs if name not in self.out]
        first = [name for name in running if name not in self.scores]
        running = [name for name in running if name in self.scores]
        hopeful = self._hopeful(running)
        least = min((len(self.scores[name]) for name in hopeful), default=0)
        # With nothing to compare, or once more seeds tell little, a first look may take all that there is.
        limit = self.budget if len(running) < 2 or least >= ENOUGH else FIRST_SHARE * self.budget
        cheap = CHEAP * min(map(self.expected, running), default=0.0)
        affordable = [
            name
            for name in first
            if self.spent + (seconds := self.expected(name)) <= (self.budget if seconds < cheap else limit)
        ]
        if first and self.favour is not None and (favoured := self.favour(first)) is not None:
            return favoured, 0
        if affordable:
            return (self.prefer or self._cheapest)(affordable), 0
        if len(running) < 2:
            return None
        # A rung at a time, the best first: where the budget ends within it, what is left of it is the least promising.
        for some in (hopeful, running):
            for name in sorted(some, key=lambda name: (len(self.scores[name]), -self._mean(name), name)):
                if len(self.scores[name]) < MOST_SEEDS and self.spent + self.expected(name) <= self.budget:
                    return name, len(self.scores[name])
        return None

    def _hopeful(self, some: Sequence[str]) -> list[str]:
        """Returns those of some cells that may be the best of them: `HOPE` standard errors above their means reach as
        far as any of them is with so many below its own.
        """
        best = max((self._bound(name, -HOPE) for name in some), default=0.0)
        return [name for name in some if self._bound(name, HOPE) >= best]

    def expected(self, name: str) -> float:
        """Returns the seconds that a further seed of a cell will take: what one took, or, of a cell without any, what
        was predicted, by how far the predictions of the others were off.
        """
        if self.foresee is not None:
            return self.foresee(name)
        if name in self.taken:
            return float(np.mean(self.taken[name]))
        off = [math.log(np.mean(took) / self.costs[one]) for one, took in self.taken.items() if self.costs[one] > 0]
        return self.costs[name] * math.exp(float(np.median(off))) if off else self.costs[name]

    def _cheapest(self, some: Sequence[str]) -> str:
        return min(some, key=lambda name: (self.expected(name), name))

    def standings(self) -> list[Against]:
        """Returns how the cells that are still in stand against the best of them, best first."""
        return against_the_best(self._scores(), 1 - WRONG)

    def pick(self) -> str | None:
        """Returns the cell with the best mean of validation accuracies among the `finalists`; None without any."""
        return max(self.finalists(), key=lambda name: (self._mean(name), -self.expected(name), name), default=None)

    def near(self) -> list[str]:
        """Returns the `finalists` that came out within a point of the best of them."""
        some = self.finalists()
        best = max(map(self._mean, some), default=0.0)
        return [name for name in some if best - self._mean(name) <= ONE_POINT + TINY]

    def finalists(self) -> list[str]:
        """Returns the cells among which one is picked: of those that are in, those of the most seeds, or `ENOUGH`, and
        those of fewer that are ahead of them by more than the luck of their seeds.

        The best of many that were seen once is the luckiest of them. But seeds of a cheap cell are soon there, and one
        that costs more is no worse for having fewer.
        """
        inside = {name: seeds for name, seeds in self.scores.items() if name not in self.out}
        most = max(map(len, inside.values()), default=0)
        least = most if sum(len(seeds) == most for seeds in inside.values()) > 1 else most - 1
        least = min(least, ENOUGH)
        closely = [name for name, seeds in inside.items() if len(seeds) >= max(1, least)]
        best = max(map(self._cautious, closely), default=0.0)
        return [name for name in inside if name in closely or self._cautious(name) > best]

    def _cautious(self, name: str) -> float:
        """Returns the mean of a cell's validation accuracies less `LUCK` standard errors that the typical spread of
        seeds gives it: 1 seed of 85 % counts for more than 7 of 75 %, and for less than 7 of 80 %.
        """
        return self._bound(name, -LUCK)

    def _bound(self, name: str, errors: float) -> float:
        """Returns the mean of a cell's validation accuracies and so many standard errors, of the typical spread of
        seeds.
        """
        mean = self._mean(name)
        return mean + errors * TYPICAL * math.sqrt(max(mean * (1 - mean), 0.0) / len(self.scores[name]))

    def mean(self, name: str) -> float | None:
        """Returns the mean of a cell's validation accuracies over seeds; None where it has none."""
        return self._mean(name) if name in self.scores else None

    def runners(self) -> list[Runner]:
        """Returns how each cell stands, in the order that they were given."""
        return [
            Runner(name=name, rung=len(self.scores.get(name, {})), out=self.out.get(name, "")) for name in self.costs
        ]

    # --- what is out ------------------------------------------------------------------------------------------

    def _exclude(self) -> None:
        inside = self._scores()
        if len(inside) < 2:
            return
        rung, (before, count) = min(len(one.images) for one in inside.values()), self.looked
        if rung <= before and len(inside) == count:
            return
        repeated = {name: one for name, one in inside.items() if len(one.images) > 1}
        if rung > max(before, 1) and len(repeated) > 1:  # a look in the middle of a rung would be one more
            for one in against_the_best(repeated, 1 - WRONG / LOOKS, DRAWS):
                if one.standing == "behind":
                    self.out[one.name] = "excluded"
        leader = max(inside, key=self._mean)
        for name in inside:
            if name not in self.out and len(self.scores[name]) == 1 and self._is_far_behind(name, leader):
                self.out[name] = "excluded"
        self.looked = max(rung, before), len(self._scores())  # those that are out now are no news

    def _is_far_behind(self, name: str, leader: str) -> bool:
        """Tells whether a cell of one seed lies so far behind that no seed would carry it to the leader."""
        seed = next(iter(self.scores[name]))
        if name == leader or seed not in self.scores[leader]:
            return False
        images, correct = self.scores[name][seed]
        others, right = self.scores[leader][seed]
        _, here, there = np.intersect1d(images, others, return_indices=True)
        if not here.size:
            return False
        apart = right[there] - correct[here]
        of_images = (float(apart.var()) * here.size + PSEUDO) / here.size**2
        shares = [(float(one.mean()) * one.size + 2) / (one.size + 4) for one in (correct, right)]
        of_seeds = sum((WIDE * TYPICAL) ** 2 * share * (1 - share) for share in shares)
        return float(apart.mean()) > FAR * math.sqrt(of_images + of_seeds)

    def _scores(self) -> dict[str, Scores]:
        return {
            name: Scores(
                images=tuple(images for images, _ in seeds.values()),
                correct=tuple(correct for _, correct in seeds.values()),
            )
            for name, seeds in self.scores.items()
            if name not in self.out
        }

    def _mean(self, name: str) -> float:
        return float(np.mean([correct.mean() for _, correct in self.scores[name].values()]))


def unaffordable(race: Race) -> list[str]:
    """Returns the cells that the budget did not allow a single look at, the cheapest first."""
    return sorted(
        (name for name in race.costs if name not in race.scores and name not in race.out), key=lambda n: race.costs[n]
    )


def replayed(
    race: Race, recorded: Mapping[str, Sequence[tuple[float, np.ndarray, np.ndarray]]], order: Sequence[int]
) -> Race:
    """Runs a race from what was really measured: of each cell, for each seed, (seconds, images, correct); ``order``
    says which recorded seed stands for the race's first, second, … Returns the race at its end.
    """
    while (wanted := race.next()) is not None:
        name, seed = wanted
        if seed >= len(order):
            break
        seconds, images, correct = recorded[name][order[seed]]
        race.take(name, seed, seconds, images, correct)
    return race
