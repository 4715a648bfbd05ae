"""A cell trains as a loop in plain torch does that follows the same recipe (`plain_recipe`): the same losses, the same
predictions.
"""

import pytest
from plain_recipe import MODELS, TRAINS, plain_training
from tiers import sweep

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import cell as run
from tlbench.measure.build import build
from tlbench.policies.parse import parse_policy


@pytest.mark.exhaustive
@pytest.mark.parametrize("policy", sweep(TRAINS, {"linear_probe"}))
@pytest.mark.parametrize("backbone", sweep(MODELS, {"shufflenet_v2_x0_5"}))
def test_a_cell_trains_as_a_plain_loop_does(backbone, policy):
    cell = Cell(
        backbone=backbone, weights="random", freeze=policy, dataset="digits", image_size=32, train_size=100,
        epochs=3, layout="contiguous", seed=3,
    )  # fmt: skip
    settings = Settings(prefix="off")
    record = run.run_cell(cell, settings)
    assert record.status == "ok", record.reason
    plain = plain_training(build(cell, settings, parse_policy(policy)), record.recipe)
    assert [r.loss for r in record.rounds] == plain.losses
    assert record.predictions_sha256 == plain.predictions_sha256
    assert record.accuracy_test == plain.accuracy_test
