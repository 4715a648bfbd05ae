"""A small run on simulated nodes, some of which are lost: how well its batches fill them, and that nothing is lost.
`bench/engines.py` has the large one.
"""

import io
import random
from dataclasses import replace

import pytest
from records import record
from rich.console import Console
from simulations.spread import Spread, bound, grid_of, truth

from tlbench.analysis.expectation import Expectation
from tlbench.campaign import batches as cutting
from tlbench.campaign.asked import Asked
from tlbench.campaign.batches import PIECES, batches
from tlbench.campaign.campaign import Campaign
from tlbench.campaign.engine import Wanted
from tlbench.grid.settings import Settings
from tlbench.progress import SpreadProgress
from tlbench.records.plan import Plan
from tlbench.records.resuming import identity
from tlbench.records.run_folder import load

NODES = 10


def test_five_hundred_cells_on_ten_nodes(tmp_path):
    grid, settings = grid_of(500), Settings(isolate="backbone", threads=1)
    asked = Asked(out=tmp_path / "run", engine=Wanted(engine="simulated"))
    campaign = Campaign(asked=asked, plan=Plan(grids=(grid,), settings=settings))
    seconds = truth(settings)
    engine = Spread(NODES, 0.1, seconds, record())
    engine._rng = random.Random(1)  # which loses one of the few batches
    # Not what earlier tests have told of this machine.
    campaign.times = Expectation(settings=settings, speeds={"cpu": 1e11})
    least = bound(campaign.left, seconds, NODES)
    assert campaign.run(engine=engine) is None
    found = load(tmp_path / "run").records
    assert sorted(map(identity, found)) == sorted(step.identity for step in campaign.planned)
    assert len(found) == 500
    assert {r.status for r in found} == {"ok"}
    assert engine.lost >= 1
    assert engine.now <= 1.25 * least, "a batch that is lost is a large part of so short a run"


def test_no_batch_takes_in_what_the_others_were_too_short_by():
    """Cells of nine tenths of a piece leave a tenth of each; the last one had all of these."""
    settings = Settings(isolate="backbone", threads=1)
    seconds = truth(settings, kinds=0.0, cells=0.0)
    for cells, nodes in ((500, 10), (2500, 40), (5000, 100)):
        campaign = Campaign(asked=Asked(), plan=Plan(grids=(grid_of(cells),), settings=settings))
        made = batches(campaign.left, seconds.rule, nodes)
        assert sorted(step.identity for batch in made for step in batch) == sorted(s.identity for s in campaign.planned)
        took = [seconds.fill([s.cell for s in batch]) + sum(seconds.own(s.cell) for s in batch) for batch in made]
        own = [max(seconds.own(step.cell) for step in batch) for batch in made]
        share = sum(took) / nodes / PIECES + max(seconds.fill([s.cell for s in batch]) for batch in made)
        assert all(one <= 2 * share + longest for one, longest in zip(took, own, strict=True))


@pytest.mark.parametrize(("fill", "each"), [(0.1, 0.7), (0.1, 0.35), (0.7, 1.1), (1e-3, 3.3)])
def test_the_last_digit_of_a_sum_makes_no_piece_more(monkeypatch, fill, each):
    """0.1 + 0.7 - 0.1 is less than 0.7: one node got two jobs for what is one batch."""
    monkeypatch.setattr(cutting, "PIECES", 1)
    grid, settings = grid_of(2), Settings(isolate="backbone", threads=1)
    steps = Campaign(asked=Asked(), plan=Plan(grids=(grid,), settings=settings)).left
    times = Expectation(settings=settings)
    monkeypatch.setattr(times, "alone", lambda cells: (fill, [each / len(cells)] * len(cells)))
    groups = {cutting.prefix_of(step) for step in steps}
    assert len(batches(steps[:1], times, 1)) == 1
    same = [step for step in steps if cutting.prefix_of(step) == cutting.prefix_of(steps[0])]
    assert len(batches(same, times, 1)) == 1
    assert len(batches(steps, times, 1)) == len(groups)


def test_that_times_are_shared_is_said_once():
    grid, file = grid_of(2), io.StringIO()
    steps = Campaign(asked=Asked(), plan=Plan(grids=(grid,), settings=Settings())).planned
    times = Expectation(settings=Settings(), speeds={"cpu": 1e11})
    progress = SpreadProgress(steps, times, Console(file=file, width=300), Spread(1, 0.0, truth(Settings()), record()))
    with progress:
        for step in steps:
            progress.start(step)
            shared = {"validity": "shared", "validity_reason": "other cells", "shares_node": True, "node": "here"}
            progress.finish(replace(record(), cell=step.cell, block=step.block, **shared))
    said = file.getvalue()
    assert said.count("--exclusive measures times") == 1
    assert "other cells" not in said
    assert said.count(", on here") == len(steps)


def test_a_share_and_a_second_time_are_explained_as_in_a_run_of_this_machine():
    grid, file = grid_of(2), io.StringIO()
    steps = Campaign(asked=Asked(), plan=Plan(grids=(grid,), settings=Settings())).planned[:2]
    times = Expectation(settings=Settings(), speeds={"cpu": 1e11})
    progress = SpreadProgress(steps, times, Console(file=file, width=300), Spread(1, 0.0, truth(Settings()), record()))
    with progress:
        for step in steps:
            progress.start(step)
            progress.finish(replace(record(), cell=step.cell, prefix={"seconds": 2.0, "boundaries": {"head": {}}}))
        progress.finish(replace(record(), cell=steps[0].cell, role="aa"))
    said = file.getvalue()
    assert said.count("(its share: what the frozen layers compute was computed once") == 1
    assert "the same once more, to see how far times differ" in said
    assert " the first time" in said
