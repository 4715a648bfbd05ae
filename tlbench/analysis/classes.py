"""Figures of each class, and which are taken for which: of a configuration over its seeds, and as tidy frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbench.analysis.figures import Row
from tlbench.analysis.folded import fold_number
from tlbench.analysis.image_figures import fits
from tlbench.analysis.metrics import ByClass, Matrix, by_class, confusion_matrix
from tlbench.analysis.scores import Numbers
from tlbench.errors import UserError, lookup, unknown
from tlbench.records.images import SplitResults

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {"val": "validation", "test": "test"}
"""Split -> what its images are called."""


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """Holds what a configuration does with the images of one class, over its seeds; what is unknown is None."""

    name: str
    images: tuple[int, int]
    """The fewest and the most images of the class that a seed has in the split; zeros for no images."""
    accuracy: float | None
    """Share of its images that are said to be of it (recall), the mean over seeds."""
    low: float | None
    """Lower end of its 95 % interval: of one seed for new images (Wilson 1927), of several for new images and a new
    seed."""
    high: float | None
    precision: float | None
    """Share of the images said to be of it that are, of all seeds together; None where none were."""
    f1: float | None
    taken_for: str
    """The class that its images are most often mistaken for; empty where none are."""
    mistaken: float
    """The share of its images that are taken for that one."""


def results_on(
    group: Sequence[Row], split: str, numbers: Numbers, logits: bool = False
) -> list[tuple[Row, SplitResults]]:
    """Returns the finished rows of records that have results on the images of a split, with these; with logits where
    they are wanted and kept.
    """
    found = []
    for item in group:
        per_image = numbers.results(item) if item.status == "ok" else None
        results = per_image.split(split, logits) if per_image is not None else None
        if results is not None and fits(results, item[f"accuracy_{split}"]):
            found.append((item, results))
    return found


def confusion_of(several: Sequence[SplitResults]) -> tuple[Matrix, tuple[str, ...]]:
    """Returns the confusion matrix of the results of one data set, summed, and the names of its classes, their numbers
    where the names are not known.
    """
    names = max((results.classes for results in several), key=len, default=())
    each = [confusion_matrix(results.labels, results.predictions, len(names)) for results in several]
    count = max(map(len, each), default=0)
    total = np.zeros((count, count), np.int64)
    for matrix in each:
        total[: len(matrix), : len(matrix)] += matrix
    return total, (*names, *map(str, range(len(names), count)))


def classes_of(group: Sequence[Row], split: str = "test") -> list[ClassFigures]:
    """Returns the figures of each class, in their order, over the records of one configuration; empty where none has
    results on single images of the split.
    """
    numbers = Numbers()
    known = _once(results_on(group, split, numbers))
    matrix, names = confusion_of([results for _, results in known])
    if not known:
        return []
    found = by_class(matrix)
    return [_class_figures(label, names, matrix, found, (known, numbers)) for label in range(len(names))]


def _once(known: Sequence[tuple[Row, SplitResults]]) -> list[tuple[Row, SplitResults]]:
    """Returns one of the results of each seed and fold: blocks and runs repeat the same answers, and add no images."""
    first: dict[tuple[int, int], tuple[Row, SplitResults]] = {}
    for item, results in known:
        first.setdefault((item.seed, fold_number(item)), (item, results))
    return list(first.values())


def _class_figures(
    label: int,
    names: Sequence[str],
    matrix: Matrix,
    found: ByClass,
    results: tuple[Sequence[tuple[Row, SplitResults]], Numbers],
) -> ClassFigures:
    from tlbench.analysis import stats

    by_seed: dict[int, list[tuple[Any, Any]]] = {}
    counts: dict[int, int] = {}
    """Images of the class by seed: those of folds are of one split."""
    known, numbers = results
    for item, own in known:
        its = own.labels == label
        counts[item.seed] = counts.get(item.seed, 0) + int(its.sum())
        if its.any():
            by_seed.setdefault(item.seed, []).append((numbers.of(own.images)[its], own.correct[its]))
    interval = None
    if by_seed:
        images, correct = zip(*(map(np.concatenate, zip(*each, strict=True)) for each in by_seed.values()), strict=True)
        scores = stats.Scores(images=images, correct=correct)
        one = len(by_seed) == 1
        interval = stats.wilson(int(correct[0].sum()), len(correct[0])) if one else stats.accuracy_interval(scores)
    wrong = np.where(np.arange(len(matrix)) == label, 0, matrix[label])
    most = int(wrong.argmax())
    return ClassFigures(
        name=names[label],
        images=(min(counts.values()), max(counts.values())),
        accuracy=None if interval is None else interval.estimate,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        precision=float(found.precision[label]) if matrix[:, label].any() else None,
        f1=None if np.isnan(found.f1[label]) else float(found.f1[label]),
        taken_for=names[most] if wrong[most] else "",
        mistaken=float(wrong[most] / matrix[label].sum()) if wrong[most] else 0.0,
    )


# --- for notebooks --------------------------------------------------------------------------------------------

NAMING = ("run", "id", "configuration", "backbone", "freeze", "head", "dataset", "seed", "block")
"""Columns that say which record a row of `per_class` is of."""


def per_class(*runs: str | Path, split: str = "test") -> pd.DataFrame:
    """Returns the figures of each class as a tidy DataFrame, one row for each record and class.

    Beside the columns that name the record (`NAMING`) there are ``split``, ``class``, ``images`` (of the class, 0 where
    the split has none), ``right``, ``accuracy`` (recall) with ``accuracy_low`` and ``accuracy_high`` (95 %, Wilson),
    ``precision`` and ``f1``; what is unknown is NaN. Records without results on single images are left out with a
    warning. ``split``: ``test`` or ``val``. Errors: UserError as `tlbench.load`, or where no record has results.
    """
    import pandas as pd

    return pd.DataFrame(list(_each_class(_rows(runs, split), split)))


def confusion(run: str | Path, id: str | None = None, split: str = "test") -> pd.DataFrame:
    """Returns how many images of each class (``true``, a row each) a cell takes for each class (``predicted``, a column
    each). ``id`` names the cell as in the column ``id`` of `tlbench.load`; it may be left out where there is one.

    Errors: UserError as `tlbench.load`, for an unknown cell, or where it has no results on single images.
    """
    import pandas as pd

    known = {item.id: results for item, results in _rows([run], split)}
    if id is None and len(known) == 1:
        id = next(iter(known))
    if id is None:
        raise UserError(f"name one of the {len(known)} cells, such as id={next(iter(known))!r}")
    if id not in known:
        raise unknown("cell", id, known)
    matrix, names = confusion_of([known[id]])
    labels = pd.Index(names, name="true"), pd.Index(names, name="predicted")
    return pd.DataFrame(matrix, index=labels[0], columns=labels[1])


def _rows(runs: Sequence[str | Path], split: str) -> list[tuple[Row, SplitResults]]:
    """Returns the trained records of runs with their results on a split."""
    from tlbench.analysis.frame import rows
    from tlbench.analysis.summary import without_twins
    from tlbench.records.counting import read_together

    lookup(SPLITS, "split", split)
    together = read_together(runs)
    finished = [item for item in without_twins(rows(together.records, together.runs)) if item.status == "ok"]
    trained = [item for item in finished if item.task == "train" and item[f"accuracy_{split}"] is not None]
    known = results_on(trained, split, Numbers())
    if not known:
        raise UserError(
            f"no record of {', '.join(repr(str(run)) for run in runs)} has results on single {SPLITS[split]} images; "
            "runs of this version keep them in images/ beside the records"
        )
    if lacking := len(trained) - len(known):
        warnings.warn(f"{lacking} of {len(trained)} records have no results on single images", stacklevel=3)
    return known


def _each_class(known: Sequence[tuple[Row, SplitResults]], split: str) -> Iterator[Mapping[str, Any]]:
    from tlbench.analysis import stats

    for item, results in known:
        matrix, names = confusion_of([results])
        found = by_class(matrix)
        naming = {name: item[name] for name in NAMING}
        for label, name in enumerate(names):
            images, right = int(found.images[label]), int(found.right[label])
            interval = stats.wilson(right, images) if images else None
            yield {
                **naming,
                "split": split,
                "class": name,
                "images": images,
                "right": right,
                "accuracy": interval.estimate if interval else None,
                "accuracy_low": interval.low if interval else None,
                "accuracy_high": interval.high if interval else None,
                "precision": float(found.precision[label]) if matrix[:, label].any() else None,
                "f1": None if np.isnan(found.f1[label]) else float(found.f1[label]),
            }
