"""Races in a made-up world, for tests: nothing is measured, and a clock moves by what measurements would take."""

from dataclasses import replace
from types import SimpleNamespace

from images import with_images
from records import failure, record

from tlbench.analysis import raced
from tlbench.analysis.expectation import Expectation
from tlbench.campaign.budget import Budget
from tlbench.campaign.racing import Racing
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load

GRID = {
    "backbone": ("efficientnet_lite0", "efficientnet_lite1"),
    "freeze": ("linear_probe", "last_1"),
    "head": ("linear", "mlp"),
    "weights": ("pretrained",),
    "epochs": (3,),
    "seed": (0,),
}
GOOD = {"efficientnet_lite0": 0.80, "efficientnet_lite1": 0.84, "linear_probe": 0.0, "last_1": 0.06}


def accuracy(cell):
    """What a cell of a made-up world gets: heads are alike, and seeds differ by half a point."""
    return GOOD[cell.backbone] + GOOD[cell.freeze] + 0.005 * (cell.seed % 3 - 1)


def seconds(cell):
    """What it takes there."""
    return {"linear_probe": 4.0, "last_1": 12.0}[cell.freeze] * (2 if cell.backbone.endswith("1") else 1)


class World:
    """Gives records of what cells would come to, and moves a clock by what they would take."""

    def __init__(self, folder, budget, axes=None, earlier=(), before=0.0, accuracy=accuracy, seconds=seconds, **more):
        self.accuracy, self.seconds, self.now, self.asked = accuracy, seconds, 0.0, []
        plan = Plan(grids=(Grid(axes={**GRID, **(axes or {})}),), settings=Settings(isolate="backbone", twins=0))
        self.store = Store(folder)
        if not (folder / "run.json").exists():
            self.store.describe(plan)
        times = Expectation(settings=plan.settings, speeds={"cpu": 1e11})
        for one in earlier:
            times.learn(one)
        self.campaign = SimpleNamespace(
            plan=plan, times=times, earlier=earlier, places={}, store=self.store,
            current=lambda: load(self.store.folder).records, asked=SimpleNamespace(settings={}),
        )  # fmt: skip
        counted = Budget(seconds=budget, before=before, clock=lambda: self.now)
        self.racing = Racing(campaign=self.campaign, budget=counted, **more)

    def run(self, most=10_000):
        """Runs the race to its end, or for so many measurements."""
        while len(self.asked) < most and (batch := self.racing.next()) is not None:
            (task,) = batch.tasks
            self.asked.append((task.step.cell, self.now, task.most_seconds))
            made, took = self.measured(task)
            self.now += took
            self.campaign.times.learn(made, took)
            self.racing.taken(task, self.store.append(made))
        return self

    def measured(self, task):
        cell, took = task.step.cell, self.seconds(task.step.cell)
        given = {name: getattr(cell, name) for name in vars(cell)}
        if took > task.most_seconds:
            return failure("stopped", "the budget ended", id=task.step.name, **given), task.most_seconds
        if cell.task == "infer":
            given |= {"latency": [took / 1000] * 40}
            return replace(record(**given, id=task.step.name), cell=cell, wall_seconds=took), took
        share = self.accuracy(cell)
        rounds = (0.02 if cell.freeze == "linear_probe" else (took - 1) / 3,) * 3
        made = record(seconds=rounds, accuracies=(share,) * 3, wall_seconds=took, id=task.step.name, **given)
        return with_images(made, 400), took

    @property
    def state(self):
        return raced.read(self.store.folder)

    @property
    def entrants(self):
        return {one.name: one for one in self.state.entrants}
