"""Folds where images are few: a test of nine photographs tells little, one of all of them, in folds, more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tlbench.backbones.inputs import InputSpec
from tlbench.campaign.seen import Seen
from tlbench.data import DATASETS, parse_dataset
from tlbench.data.folds import FEW, FOLDS
from tlbench.errors import UserError
from tlbench.grid.axes import parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.folding import AUTO
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.images import describe_images

SEEDS_TRIED = 4
"""Splits that are compared: of the smallest data sets, two seeds may have the same one."""


def folds_by_themselves(grid: Grid) -> bool:
    """Tells whether folds are taken where images are few: nobody has said anything else. Errors: UserError where that
    is one wish among others.
    """
    asked = grid.axes["fold"]
    if AUTO in asked and len(asked) > 1:
        raise UserError(
            "--folds auto stands alone: it takes 5 folds or none; give the numbers of folds, and off for none"
        )
    return asked == (AUTO,) or "fold" not in grid.named


def is_few(found: Seen, cell: Cell, spec: InputSpec, settings: Settings, decode: bool) -> bool:
    """Tells whether one split of a person's own images would leave too few to test on, and is made by seed: what
    somebody has put aside to be tested on is never put into folds unasked.
    """
    own = DATASETS[parse_dataset(cell.dataset)[0]].takes_path
    if cell.task != "train" or not own or found.parts["test"][0] >= FEW:
        return False
    if found.bytes is not None:  # by the names of its files alone
        return "test" in found.about
    size, tests = cell.image_size or spec.size, set()
    for seed in range(SEEDS_TRIED):
        one = describe_images(replace(cell, split_seed=seed), settings, spec, size, decode=decode)
        tests.add(None if one is None else one.positions["test"].tobytes())
    return len(tests) > 1


def in_folds(grid: Grid) -> Grid:
    """Returns a grid with the folds that few images are put into."""
    return grid.with_axes({"fold": parse_axis("fold", FOLDS)})


def with_folds(grid: Grid, seen: Mapping[str, Seen]) -> tuple[Grid, ...]:
    """Returns a checked grid as the grids of a plan: where folds were taken by themselves, their data sets have one of
    their own unless all have folds. ``seen``: data set -> what the check has counted.
    """
    folded = tuple(name for name in grid.axes["dataset"] if name in seen and seen[name].instead_of)
    whole = tuple(name for name in grid.axes["dataset"] if name not in folded)
    grids = [grid.with_axes({"dataset": whole})] if whole else []
    if folded:
        grids.append(in_folds(grid.with_axes({"dataset": folded})))
    return tuple(grids)
