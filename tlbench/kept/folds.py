"""What is known of a model of all images from a cross-validation: what the models of its folds said of images that they
had not seen.

Sets of classes go by the scores of all images, each by the model of its fold. Where the sets of a new image asked those
same models (CV+: Barber, Candès, Ramdas and Tibshirani 2021; for classes, Romano, Sesia and Candès 2020), they would
hold the right class with a probability of at least 1 - 2a, less a little of the order of the square root of 1 / images,
where 1 - a is asked for, whatever the learner, and about 1 - a in practice. A kept model asks one model, that of all
images: about 1 - a where this one is as sure of new images as those of the folds are (a stable learner), or surer, and
nothing that holds for every learner. The card says so. tests/test_conformal.py shows it by simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tlbench.analysis.folded import fold_number
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.folding import fold_of, folds_of
from tlbench.grid.rates import chooses
from tlbench.kept import conformal
from tlbench.policies.base import SCALE
from tlbench.policies.parse import parse_policy
from tlbench.records.images import SplitResults
from tlbench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Holds what the models of a configuration's folds said of images that they had not seen."""

    measured: Mapping[str, Any]
    """accuracy, low and high (95 %, over images and folds or seeds; None where not known), images, folds, seeds."""
    scores: tuple[float, ...] = ()
    """1 - probability of the right class, ascending, of each image by the model of its fold (`tlbench.kept.conformal`);
    empty where the logits were not kept."""
    rates: tuple[tuple[float, float], ...] = field(default=())
    """Learning rates of head and backbone that each fold has chosen by its validation images (``--lr auto``)."""

    epochs: tuple[int, ...] = ()
    """Epochs whose weights the folds have kept by their validation images (``--patience``)."""

    def cell(self, cell: Cell) -> Cell:
        """Returns the cell with the learning rate and the number of epochs in the middle of those that the folds have
        chosen, where they have: nothing is left to choose by where all images are trained on. The schedule is laid
        over so many epochs.
        """
        if self.epochs:
            cell = replace(cell, patience=None, epochs=sorted(self.epochs)[len(self.epochs) // 2])
        if not self.rates:
            return cell
        lr, backbone_lr = sorted(self.rates)[len(self.rates) // 2]
        given = cell.backbone_lr is not None or SCALE in parse_policy(cell.freeze).explicit
        # A policy that names its factor takes no rate of the backbone.
        return replace(cell, lr=lr, backbone_lr=cell.backbone_lr if given else backbone_lr)


def out_of_fold(records: Sequence[Record], record: Record) -> OutOfFold | None:
    """Returns what the folds of a record's configuration have told; None for a record that is of no fold.

    Errors: UserError where a fold of the record's seed has no result.
    """
    count = folds_of(record.cell.fold)
    if count is None:
        return None
    good = [one for one in records if one.status == "ok" and one.role == "cell" and _alike(one.cell, record.cell)]
    of_seed = {fold_of(one.cell.fold or "")[0]: one for one in good if one.cell.seed == record.cell.seed}
    if lacking := [number for number in range(1, count + 1) if number not in of_seed]:
        raise UserError(
            f"the model of {record.id!r} is one of all images, whose worth its folds tell, but fold "
            f"{', '.join(map(str, lacking))} of {count} of seed {record.cell.seed} has no result; go on with the run "
            "by --resume"
        )
    whole = [of_seed[number] for number in sorted(of_seed)]
    chosen = [(one.recipe["lr"], one.recipe["backbone_lr"]) for one in whole if chooses(one.cell)]
    epochs = tuple(one.best_epoch for one in whole if one.best_epoch is not None)
    return OutOfFold(measured=_measured(good, record), scores=_scores(whole), rates=tuple(chosen), epochs=epochs)


def _alike(one: Cell, other: Cell) -> bool:
    """Tells whether two cells differ in fold and seed at the most, and have as many folds."""
    return folds_of(one.fold) == folds_of(other.fold) and replace(one, fold=other.fold, seed=other.seed) == other


def _measured(good: Sequence[Record], record: Record) -> dict[str, Any]:
    """Returns the accuracy of the folds' models with its interval: of these records the configuration that has the
    record, and of its seeds those of which every fold is there.
    """
    count = folds_of(record.cell.fold) or 0
    table = rows(good)
    there: dict[int, set[int]] = {}
    for item in table:
        there.setdefault(item.seed, set()).add(fold_number(item))
    table = [item for item in table if len(there[item.seed]) == count]
    (row, *_) = [one for one in summarise(table) if any(item.id == record.id for item in one["group"])]
    return {
        "accuracy": row["accuracy_test"],
        "low": row["accuracy_test_low"],
        "high": row["accuracy_test_high"],
        "images": row["test_images"],
        "folds": count,
        "seeds": row["seeds"],
    }


def _scores(folds: Sequence[Record]) -> tuple[float, ...]:
    """Returns the scores of all images; none where a fold does not tell its logits."""
    told: list[SplitResults] = []
    for one in folds:
        results = one.per_image and one.per_image.split("test")
        if not results or results.logits is None:
            return ()
        told.append(results)
    logits = np.concatenate([results.logits for results in told if results.logits is not None])
    labels = np.concatenate([results.labels for results in told])
    return tuple(conformal.scores_of(conformal.softmax(logits), labels).tolist())
