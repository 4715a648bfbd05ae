"""From rows of records to which images each seed of a configuration has right, and to what follows from that: how a
configuration stands against the best, and how two differ image by image (McNemar).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.analysis.figures import Row, column
from tlbench.analysis.folded import fold_number
from tlbench.analysis.image_figures import fits
from tlbench.analysis.metrics import ACCURACY, metric_of
from tlbench.records.images import PerImage, Reader, SplitResults

if TYPE_CHECKING:
    import numpy as np

    from tlbench.analysis.stats import Against, Discordance, Scores

SPLITS = {"accuracy_val": "val", "accuracy_test": "test"}
"""Accuracy -> the split that it was measured on."""


class Numbers:
    """Numbers images by what identifies them: the same image has one number, in every split that is shown to it."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._seen: dict[int, tuple[Any, np.ndarray]] = {}
        self._readers: dict[str, Reader] = {}

    def of(self, images: np.ndarray) -> np.ndarray:
        """Returns the numbers (n,) of images (n, 16)."""
        import numpy as np

        if id(images) not in self._seen:
            numbers = [self._known.setdefault(row.tobytes(), len(self._known)) for row in images]
            self._seen[id(images)] = images, np.array(numbers, dtype=np.int64)  # kept, so that no other takes its id
        return self._seen[id(images)][1]

    def results(self, item: Row) -> PerImage | None:
        """Returns what a row's record, or the row of a frame, knows of single images."""
        if item.record is not None:
            found: PerImage | None = item.record.per_image
            return found
        if not isinstance(item.image_results, Mapping):
            return None
        folder, names = item.image_results["folder"], item.image_results["names"]
        reader = self._readers.setdefault(folder, Reader(Path(folder)))
        return PerImage(reader=reader, names=names)


def scores_of(good: Sequence[Row], figure: str, numbers: Numbers) -> tuple[Scores | None, list[str]]:
    """Returns which images each seed of a configuration has right, or of another metric than accuracy what each image
    adds to it (`tlbench.analysis.metrics.Judged`); None where a record does not tell. And what is wrong with files that
    should tell it.
    """
    import numpy as np

    from tlbench.analysis.stats import Scores

    metric, split = metric_of(figure)
    by_seed: dict[int, list[tuple[np.ndarray, SplitResults, np.ndarray]]] = {}
    problems: list[str] = []
    complete = True
    for item, accuracy in zip(good, column(good, f"{ACCURACY}_{split}"), strict=True):
        if accuracy is None:
            continue
        per_image = numbers.results(item)
        found = per_image.split(split, logits=False) if per_image is not None else None
        if found is None:
            complete = False
            if per_image is not None and per_image.problem:
                problems.append(per_image.problem)
        elif not fits(found, accuracy):
            complete = False
            problems.append(f"{per_image and per_image.file}: does not fit the accuracy of its record {item.id!r}")
        else:
            fold = np.full(len(found.correct), fold_number(item), np.int64)
            by_seed.setdefault(item.seed, []).append((numbers.of(found.images), found, fold))
    if not complete or not by_seed:
        return None, problems
    images, correct, folds, doubts = [], [], [], []
    for several in by_seed.values():  # several: folds, blocks or runs with the same seed
        if len({int(fold[0]) for _, _, fold in several}) > 1:  # the folds of a seed are one split
            whole = np.concatenate([one.labels for _, one, _ in several])
            judged = [metric.judge(whole, np.concatenate([one.predictions for _, one, _ in several]))]
        else:
            judged = [metric.judge(one.labels, one.predictions) for _, one, _ in several]
        doubts += [one.doubt for one in judged]
        single = len(several) == 1
        images.append(several[0][0] if single else np.concatenate([codes for codes, _, _ in several]))
        correct.append(judged[0].values if len(judged) == 1 else np.concatenate([one.values for one in judged]))
        folds.append(several[0][2] if single else np.concatenate([fold for _, _, fold in several]))
    folded = tuple(folds) if any(fold.any() for fold in folds) else None
    doubt = sum(doubts) / len(doubts)
    return Scores(images=tuple(images), correct=tuple(correct), folds=folded, doubt=doubt), problems


MAJORITIES = {"majority_share": "accuracy_test", "majority_share_val": "accuracy_val"}
"""Share of the most frequent class -> the accuracy that it stands beside."""


def majority_shares(good: Sequence[Row], numbers: Numbers) -> dict[str, float | None]:
    """Returns the shares of images that are of the most frequent class, the means over a configuration's records: as
    these counted them, else by the labels of their results on single images; None where neither tells. Of folds the
    labels of all that a seed is tested on together, as its accuracy is: each fold's own few images have another class
    that happens to be the most frequent one.
    """
    found: dict[str, float | None] = {}
    in_folds = any(column(good, "fold"))
    for name, figure in MAJORITIES.items():
        counted = [] if in_folds else [share for share in column(good, name) if share is not None]
        shares = counted or _by_labels(good, figure, numbers)
        found[name] = sum(shares) / len(shares) if shares else None
    return found


def _by_labels(good: Sequence[Row], figure: str, numbers: Numbers) -> list[float]:
    import numpy as np

    labels: dict[Any, dict[str | None, Any]] = {}
    for place, item in enumerate(good):
        per_image = numbers.results(item) if item[figure] is not None else None
        if per_image is not None and (found := per_image.split(SPLITS[figure], logits=False)) is not None:
            unit = item.seed if item.fold else ("alone", place)
            labels.setdefault(unit, {})[item.fold] = found.labels.astype(np.int64)
    shares = []
    for of_folds in labels.values():
        every = np.concatenate(list(of_folds.values()))
        shares.append(float(np.bincount(every).max()) / len(every))
    return shares


# --- against the best -----------------------------------------------------------------------------------------


def standings(rows: Sequence[Mapping[str, Any]], figure: str = "accuracy_val") -> list[tuple[Any, Against]]:
    """Returns configurations with how each stands against the best, best first, by the accuracy or another metric that
    can decide.

    Where a record does not tell which images were right, their number and its accuracy have to do (`stats.counted`);
    where even the number of images is unknown, as where there is one seed, nothing can be said.

    What is drawn at random follows the names that configurations are given here, so that these go by what they are and
    not by the order of the rows: a page that sorts its table must not come to another verdict than a terminal.
    """
    import numpy as np

    from tlbench.analysis import stats

    count = f"{metric_of(figure)[1]}_images"
    first = 1 + max((int(i.max()) for row in rows if (s := row["scores"][figure]) for i in s.images), default=0)
    cells, by_name = {}, {}
    for number, row in enumerate(sorted(rows, key=lambda row: _name_of(row, figure))):
        name = f"{number:06}"
        by_name[name] = row
        known, values, images = row["scores"][figure], list(row["values"][figure].values()), row[count]
        if known is not None:
            cells[name] = known
        elif images:
            cells[name] = stats.counted(values, images, first)
            first += images
        else:
            mean = np.array([sum(values) / len(values)])
            cells[name] = stats.Scores(images=(np.array([first]),), correct=(mean,))
            first += 1
    ranked = [(by_name[one.name], one) for one in stats.against_the_best(cells)]
    unpaired = not ranked or ranked[0][0]["scores"][figure] is None
    return [
        (row, replace(one, seeds_help=True) if unpaired or row["scores"][figure] is None else one)
        for row, one in ranked
    ]


def _name_of(row: Mapping[str, Any], figure: str) -> tuple[Any, ...]:
    """Returns what tells a configuration from others, whatever stands before it: the first id of its records, and its
    accuracies by seed.
    """
    ids = [str(item.record.id) for item in row.get("group", ()) if getattr(item, "record", None) is not None]
    return min(ids, default=""), sorted(map(str, row["values"][figure].items()))


# --- two configurations, image by image -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SeedDiscordance:
    """Says on how many images of one seed exactly one of two configurations is right."""

    seed: int
    counts: Discordance
    p_adjusted: float
    """The p-value of McNemar's exact test, by Holm over the seeds that were tested."""


def discordance(a: Iterable[Row], b: Iterable[Row], figure: str = "accuracy_val") -> list[SeedDiscordance]:
    """Returns McNemar's exact test for each seed that both have, on the same images; seeds are never pooled, since the
    answers of two seeds to one image are not independent.
    """
    from tlbench.analysis import stats

    numbers = Numbers()
    ours, theirs = (_by_seed(rows, figure, numbers) for rows in (a, b))
    tested = {}
    for seed, one in ours.items():
        if (other := theirs.get(seed)) is not None and (pair := _aligned(one, other, numbers)) is not None:
            tested[seed] = stats.mcnemar(*pair)
    adjusted = stats.holm([counts.p_value for counts in tested.values()])
    return [
        SeedDiscordance(seed=seed, counts=counts, p_adjusted=p)
        for (seed, counts), p in zip(tested.items(), adjusted, strict=True)
    ]


def _by_seed(rows: Iterable[Row], figure: str, numbers: Numbers) -> dict[int, SplitResults]:
    found: dict[int, dict[int, SplitResults]] = {}
    for item in rows:
        per_image = numbers.results(item) if item.status == "ok" else None
        results = per_image.split(SPLITS[figure], logits=False) if per_image is not None else None
        if results is not None:
            found.setdefault(item.seed, {}).setdefault(fold_number(item), results)
    return {seed: together([of_folds[fold] for fold in sorted(of_folds)]) for seed, of_folds in found.items()}


def together(parts: Sequence[SplitResults]) -> SplitResults:
    """Returns the results of folds as those of one split. Each image is in it once: one that several folds have
    validated on, by the first of them.
    """
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    images = np.concatenate([part.images for part in parts])
    _, first = np.unique(images, axis=0, return_index=True)
    first = np.sort(first)
    return SplitResults(
        images=images[first],
        labels=np.concatenate([part.labels for part in parts])[first],
        predictions=np.concatenate([part.predictions for part in parts])[first],
    )


def _aligned(a: SplitResults, b: SplitResults, numbers: Numbers) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns what each has right, image by image; None where their images are not the same."""
    import numpy as np

    if a.images.shape != b.images.shape:
        return None
    if a.images is b.images:  # of one file, which all cells of the split share
        return a.correct, b.correct
    ours, theirs = numbers.of(a.images), numbers.of(b.images)
    if np.array_equal(ours, theirs):
        return a.correct, b.correct
    order, other = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    return (a.correct[order], b.correct[other]) if np.array_equal(ours[order], theirs[other]) else None
