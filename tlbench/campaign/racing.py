"""Races the cells of a run for a budget: asks the race (`tlbench.analysis.race`) what to measure next, gives that to
the driver, and tells the race what came out on validation images. One file, since all of it shares the race's state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tlbench.analysis import raced
from tlbench.analysis.frame import row, rows
from tlbench.analysis.metrics import DECIDING
from tlbench.analysis.race import Race
from tlbench.analysis.raced import CUT, SLOW, Entrant, Raced, contender
from tlbench.analysis.scores import Numbers, scores_of
from tlbench.campaign.batches import Tasks
from tlbench.campaign.budget import Budget
from tlbench.campaign.engine import Batch, Task
from tlbench.campaign.entrants import DEEPER, USUAL, names_of, promising, top1
from tlbench.campaign.expecting import ROUGH, Expecting
from tlbench.campaign.steps import Step
from tlbench.console import surviving
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.values import about, taken, three_digits
from tlbench.kept.trained import left_in, name_of
from tlbench.records.record import Record
from tlbench.records.resuming import current, is_final

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign

PROMISING_SHARE = 2 / 3
"""Share of the budget that is spent at most when a look at the backbone that promises most is done."""
KNOWN_SHARE = 5 / 6
"""The same where a profile of this machine tells how long the look takes, and nothing was measured before it."""
Wanted = tuple[str, int]
"""Cell of the race, and its seed."""
Model = tuple[object, ...]
"""What a latency is of."""


@dataclass(kw_only=True)
class Racing:
    """Is the source of a campaign (`tlbench.campaign.driver.Source`) that a race chooses the steps of."""

    campaign: Campaign
    budget: Budget
    max_latency_ms: float | None = None
    keep: str | None = None
    cells: dict[str, list[Cell]] = field(init=False)
    """Cell of the race -> the cells that are measured together of its first seed: its folds, or one."""
    race: Race = field(init=False)
    reasons: dict[str, str] = field(default_factory=dict)
    """Cell that is out -> more of why."""
    is_over: bool = False
    """Whether the race has come to its end: nothing more is affordable, or nothing is left to tell apart."""

    def __post_init__(self) -> None:
        planned = self.campaign.plan.cells()
        self._tasks, self._number = Tasks(self.campaign.places), 0
        self._queue: deque[Step] = deque()
        self._records: dict[Wanted, list[Record]] = {}
        self._latencies: dict[Model, float] = {}
        self._inference = {_model(cell): cell for cell in planned if cell.task == "infer"}
        self._numbers, self._ended_early = Numbers(), False
        self._first: str | None = None
        self._best: dict[str, tuple[str, float]] = {}
        """Cell of the race -> name of the weights that its best seed leaves, and that seed's validation accuracy."""
        self._took: dict[str, float] = {}
        """Cell of the race -> seconds of its first look, of its frozen layers as well."""
        self._expecting = Expecting(self.campaign.times)
        trained = [cell for cell in planned if cell.task == "train" and cell.seed == 0]
        by_key: dict[str, list[Cell]] = {}
        for cell in trained:
            by_key.setdefault(contender(cell), []).append(cell)
        self._names = dict(zip(by_key, names_of([cells[0] for cells in by_key.values()]), strict=True))
        self.cells = {self._names[key]: cells for key, cells in by_key.items()}
        costs = {name: self._expecting.of_all(cells) for name, cells in self.cells.items()}
        race = Race(costs=costs, budget=self.budget.for_measuring)
        self.race = replace(race, foresee=self._foresee, prefer=self._prefer, favour=self._favour)
        self._take_in_earlier(self.campaign.earlier)

    # --- the source -------------------------------------------------------------------------------------------

    def next(self) -> Batch | None:
        """Returns the next measurement, alone; None where the race is over."""
        if not self._queue:
            self._ask()
        if not self._queue:
            self.is_over = True
            self.write()
            return None
        self._number += 1
        task = replace(self._tasks.of(self._queue.popleft(), "all"), most_seconds=self.budget.longest)
        return Batch(number=self._number, tasks=(task,))

    def step_of(self, task: Task) -> Step:
        """Returns the step of a task as the run knows it."""
        return self._tasks.step_of(task)

    def again(self, tasks: Sequence[Task]) -> None:
        """Does nothing: what has no record here was stopped, and the run with it."""

    def ended(self, batch: Batch) -> None:
        """Does nothing."""

    def taken(self, task: Task, record: Record) -> None:
        """Takes in what came of a measurement, and writes down how the race stands."""
        self._tasks.measured(task)
        self._take_in(record)
        self.write()

    # --- what is asked for next -------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Puts the steps of what the race wants next into the queue; none where it is over."""
        while (wanted := self._wanted()) is not None:
            name, seed = wanted
            cells = self.cells[name]
            if (inference := self._unmeasured_inference(cells[0])) is not None:
                self._queue.append(self._step(inference))
                return
            known = {record.cell for record in self._records.get(wanted, ())}
            steps = [self._step(at) for cell in cells if (at := replace(cell, seed=seed)) not in known]
            if steps:
                self._queue.extend(steps)
                return
            self._finish(wanted)

    def _wanted(self) -> Wanted | None:
        if self.keep:
            # The verdict names the best, or a cheaper one that came out within a point of it.
            kept_back = max(map(self._making, self.race.near()), default=0.0)
            self.budget.kept_back = min(kept_back, self.budget.seconds / 2)
        self.race.spent, self.race.budget = self.budget.spent, self.budget.for_measuring
        wanted = self.race.next()
        if wanted is None and not self.race.taken:
            # What earlier runs told may be of a busier machine; the first measurement tells of this one.
            name = min((name for name in self.cells if name not in self.race.out), key=self._at_most, default=None)
            if name is not None and self._foresee(name) / ROUGH <= self.budget.left and not self._ended_early:
                return name, 0
        return wanted

    def _step(self, cell: Cell) -> Step:
        return Step(cell=cell, name=self.campaign.plan.name_of(cell))

    def _unmeasured_inference(self, cell: Cell) -> Cell | None:
        model = _model(cell)
        if self.max_latency_ms is None or model in self._latencies:
            return None
        return self._inference.get(model)

    def _foresee(self, name: str) -> float:
        """Returns the seconds that one more seed of a cell would take now."""
        cells = self.cells[name]
        seed = len(self.race.scores.get(name, ()))
        seconds = self._expecting.of_another_seed(name, [replace(cell, seed=seed) for cell in cells])
        if (inference := self._unmeasured_inference(cells[0])) is not None:
            seconds += self._expecting.expected_seconds(inference)
        return seconds

    def _prefer(self, some: Sequence[str]) -> str:
        """Returns which of some cells to look at first: the cheapest."""
        return min(some, key=lambda name: (self._at_most(name), name))

    def _favour(self, some: Sequence[str]) -> str | None:
        """Returns the cell that promises more than those of its kind that were looked at, where there is time for it:
        looks at all cheaper ones would leave none. The very first is such a cell only where it is known what that
        takes (`tlbench.campaign.promise`): else the cheapest tells what this machine takes. None where there is nothing
        to favour.
        """
        if not self.race.scores:  # one that the budget has ended had all of it
            return self._first if self._first in some and not self._ended_early else None
        looked = [self.cells[name][0] for name in {*self.race.scores, *self.race.out}]
        seen = max((top1(cell.backbone) for cell in looked if cell.freeze == USUAL), default=-1.0)
        most = PROMISING_SHARE * self.race.budget - self.race.spent
        found = promising({name: self.cells[name][0] for name in some}, self._at_most, most)
        if found is not None and top1(self.cells[found][0].backbone) > seen:
            return found
        return self._deeper(some, most)

    def _deeper(self, some: Sequence[str], most: float) -> str | None:
        """Returns the cell that trains more of the backbone whose usual policy is the best so far, where a look takes
        no more than ``most`` seconds, by what the usual one took; None where there is none. It is what somebody would
        try who has seen that this backbone does well, rather than a smaller one.
        """
        usual = [name for name in self._took if name not in self.race.out and self.cells[name][0].freeze == USUAL]
        best = max(usual, key=lambda name: (self.race.mean(name) or 0.0, name), default=None)
        if best is None:
            return None
        given = self.cells[best][0]
        deeper = [
            name for name, (cell, *_) in self.cells.items() if (cell.backbone, cell.freeze) == (given.backbone, DEEPER)
        ]
        off = self._took[best] / self.by_rule(best)
        if any(name not in some for name in deeper):  # one of them had its look
            return None
        fitting = [name for name in deeper if off * self.by_rule(name) <= most]
        return min(fitting, key=lambda name: (self.cells[name][0].head != given.head, name), default=None)

    # --- what it may begin with -------------------------------------------------------------------------------

    def expected(self, name: str) -> float:
        """Returns the seconds that one more seed of a cell would take now."""
        return self._foresee(name)

    def by_rule(self, name: str) -> float:
        """Returns the seconds of a cell by the rule of thumb, whatever profiles tell."""
        return self._expecting.by_rule(self.cells[name])

    def is_known(self, name: str) -> bool:
        """Tells whether a profile of this machine says what a cell takes."""
        return self.campaign.times.by_profile(self.cells[name][0])

    def is_known_in_a_hurry(self, name: str) -> bool:
        """Tells whether that profile was measured in a hurry, each step once."""
        profile = self.campaign.times.profile_of(self.cells[name][0])
        return profile is not None and profile.quick

    def may_have_room(self, name: str) -> bool:
        """Tells whether the race may begin with a cell for all that the rule of thumb tells: of a training on what
        frozen layers have computed it knows next to nothing, so that these alone count.
        """
        return self._begins(self.campaign.times.frozen_seconds(self.cells[name][0]) / ROUGH)

    def has_room(self, name: str, seconds: float) -> bool:
        """Tells whether the race may begin with a cell that takes so many seconds: whether it leaves room for others,
        and for the making of its model where that is to be kept.
        """
        making = self._expecting.making(self.cells[name], seconds) if self.keep else 0.0
        return self._begins(seconds + making)

    def _begins(self, seconds: float) -> bool:
        return self.budget.spent + seconds <= KNOWN_SHARE * self.budget.for_measuring

    def begin_with(self, name: str) -> None:
        """Has the race begin with a cell."""
        self._first = name
        self._queue.clear()

    def _at_most(self, name: str) -> float:
        """Returns what a look at a cell may take: what is expected, and more where the rule of thumb alone tells."""
        return self._foresee(name) * (1.0 if self._expecting.has_timed(self.cells[name][0]) else ROUGH)

    # --- what came of it --------------------------------------------------------------------------------------

    def _take_in(self, record: Record) -> None:
        if record.cell.task == "infer":
            self._take_in_inference(record)
            return
        wanted = self._names.get(contender(record.cell), ""), record.cell.seed
        if wanted[0] not in self.cells:
            return
        self._records.setdefault(wanted, []).append(record)
        if record.status in CUT:  # which is nothing against the cell
            self._ended_early = True
            del self._records[wanted]
            self._queue.clear()
        elif record.status != "ok" or len(self._records[wanted]) == len(self.cells[wanted[0]]):
            self._queue.clear()
            self._finish(wanted)

    def _finish(self, wanted: Wanted) -> None:
        """Tells the race what came of all folds of a seed."""
        name, seed = wanted
        records = self._records.pop(wanted)
        bad = next((record for record in records if record.status != "ok"), None)
        if bad is None:
            self._expecting.learn(name, records)
            self._took.setdefault(name, sum(record.wall_seconds or 0.0 for record in records))
            accuracy = records[0].accuracy_val or 0.0
            if accuracy > self._best.get(name, ("", -1.0))[1]:
                self._best[name] = name_of(records[0].id, records[0].block), accuracy
            scores, problems = scores_of(rows(records), self._figure, self._numbers)
            if scores is not None:
                self.race.take(name, seed, 0.0, scores.images[0], scores.correct[0].astype(float))
                return
            self.reasons[name] = problems[0] if problems else "it has no results on single validation images"
        else:
            self.reasons[name] = f"{bad.status.replace('_', ' ')}: {bad.reason}"
        self.race.take(name, seed, 0.0, None, None)

    @property
    def _figure(self) -> str:
        return DECIDING[self.campaign.plan.settings.metric].val

    def _take_in_inference(self, record: Record) -> None:
        """Takes in a latency, and takes out of the race what is above the limit."""
        model = _model(record.cell)
        if model not in self._inference:
            return
        if record.status in CUT:  # which is nothing against the cell
            self._ended_early = True
            self._queue.clear()
            return
        latency = row(record).latency_p95_ms if record.status == "ok" else None
        self._latencies[model] = float("inf") if latency is None else latency
        if self.max_latency_ms is None:
            return
        if latency is None:
            why = f"its latency cannot be told: {record.status}: {record.reason}"
        elif latency > self.max_latency_ms:
            why = f"p95 of {three_digits(latency)} ms, the limit is {three_digits(self.max_latency_ms)} ms"
        else:
            return
        for name, cells in self.cells.items():
            if _model(cells[0]) == model and name not in self.race.out:
                self.race.out[name], self.reasons[name] = SLOW, why

    def _take_in_earlier(self, records: Sequence[Record]) -> None:
        """Takes in what earlier times have measured, in the order in which they did: the race looks at its standings
        when it did then.
        """
        for record in current(records):
            if not is_final(record) or record.role != "cell":
                continue
            with_latency = record.cell.task == "infer" and record.status == "ok"
            if with_latency or record.cell.task == "train":
                self.race.next()  # it excludes what the results so far do
                self._take_in(record)
        self._expecting.begin()

    # --- how it stands ----------------------------------------------------------------------------------------

    def state(self) -> Raced:
        """Returns how the race stands."""
        finalists = set(self.race.finalists())
        return Raced(
            budget_seconds=float(self.budget.seconds),
            spent_seconds=float(self.budget.spent),
            ended=self.is_over,
            max_latency_ms=self.max_latency_ms,
            metric=self.campaign.plan.settings.metric,
            keep=self.keep,
            entrants=tuple(
                Entrant(
                    name=name,
                    key=contender(cells[0]),
                    expected_seconds=float(self._foresee(name)),
                    rung=len(self.race.scores.get(name, ())),
                    accuracy=self.race.mean(name),
                    out=self.race.out.get(name, ""),
                    reason=self.reasons.get(name, ""),
                    finalist=name in finalists,
                )
                for name, cells in self.cells.items()
            ),
        )

    def why_not_kept(self) -> str:
        """Says why the budget has no room for making the picked cell's model; empty where it has, or may have, and
        where it is kept already.
        """
        from tlbench.campaign.fitting import is_kept

        record = self._picked()
        if record is None or is_kept(record, self.campaign.store.folder):
            return ""
        named = self._named_by_the_verdict()
        needed = self._making(named) if named is not None else 0.0
        if needed <= self.budget.seconds - self.budget.spent + self.budget.late:
            return ""
        return f"making it takes about {about(needed)}, for which the budget has no room"

    def _named_by_the_verdict(self) -> str | None:
        """Returns the cell whose model is kept; None where there is none."""
        record = self._picked()
        return self._names.get(contender(record.cell)) if record is not None else None

    def _picked(self) -> Record | None:
        """Returns the measurement whose model is kept; None where there is none."""
        from tlbench.analysis.deciding import deciding
        from tlbench.campaign.fitting import chosen

        try:
            return chosen(deciding(self.campaign.current(), self.campaign.asked.settings.get("metric")))
        except UserError:
            return None

    def _making(self, name: str) -> float:
        """Returns the seconds of making a cell's model: of the weights of its best seed, where these lie there."""
        return self._expecting.alone(name, self._best.get(name, ("", 0.0))[0] in left_in(self.campaign.store.folder))

    def write(self) -> None:
        """Writes down how the race stands; that it cannot be costs the words about the race, and not the run."""
        with surviving("what the race has come to is not written down"):
            raced.write(self.campaign.store.folder, self.state())

    def check_affordable(self) -> None:
        """Raises UserError where the budget has no room for a single measurement, and there is none yet."""
        self._queue.clear()
        self._ask()
        if self._queue or self.race.scores:
            return
        if out := [name for name in self.cells if name in self.race.out]:
            raise UserError(f"no cell can be raced: {out[0]}: {self.reasons.get(out[0], self.race.out[out[0]])}")
        name = min(self.cells, key=self._foresee)
        alone, others = self._foresee(name), self.budget.seconds - self.budget.left
        raise UserError(
            f"--budget of {taken(self.budget.seconds)} is spent before anything is measured: the cheapest cell, "
            f"{name}, takes about {about(alone)}, start and report {about(others)}; "
            f"give --budget {max(1, math.ceil((alone + others) / 30))}m or more"
        )


def _model(cell: Cell) -> Model:
    """Returns what decides the latency of a cell's model."""
    return cell.backbone, cell.head, cell.image_size, cell.precision, cell.layout, cell.compile
