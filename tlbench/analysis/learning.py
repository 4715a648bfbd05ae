"""Which cells may be recommended: those that learned something, and of weights the pretrained ones.

A cell is held against what knowing nothing scores: always naming the most frequent class, or where the classes of the
images were not counted, guessing. Both are decided by validation images where there are some: nothing is chosen on test
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from tlbench.analysis.averages import JUDGED, OVER_IMAGES
from tlbench.analysis.folded import IMAGES_OF
from tlbench.analysis.metrics import ACCURACY, DECIDING, metric_of
from tlbench.analysis.scores import MAJORITIES, Numbers
from tlbench.analysis.summary import Configuration


@dataclass(frozen=True, kw_only=True)
class Ignorance:
    """Says what a model that knows nothing of the images scores."""

    share: float
    kind: Literal["majority", "chance"]
    """``majority``: it always names the most frequent class; ``chance``: it guesses, the classes not being counted."""


def ignorance(row: Configuration, figure: str = "accuracy_test") -> Ignorance | None:
    """Returns what knowing nothing scores on the images of an accuracy; None where not even the classes are known."""
    if figure not in JUDGED:
        column = next(name for name, of in MAJORITIES.items() if of == figure)
        if (share := row.get(column)) is not None and share == share:  # NaN is how a DataFrame says unknown
            return Ignorance(share=float(share), kind="majority")
    # Of balanced accuracy and macro F1 nothing that ignores the images gets more than one in K, whatever it names.
    classes = _classes_there(row, figure) if figure in JUDGED else row.get("classes")
    return Ignorance(share=1 / classes, kind="chance") if classes and classes == classes else None


def _classes_there(row: Configuration, figure: str) -> int | None:
    """Counts the classes that a split has images of."""
    split, numbers = metric_of(figure)[1], Numbers()
    for item in row["group"]:
        per_image = numbers.results(item) if item.status == "ok" else None
        if per_image is not None and (found := per_image.split(split, logits=False)) is not None:
            return len(set(found.labels.tolist()))
    return None


def judged_by(row: Configuration) -> str | None:
    """Names the figure by which a configuration is judged, an accuracy or the metric that decides: of validation images
    where there are some.
    """
    metric = DECIDING.get(row.get("metric", ACCURACY))
    judged = () if metric is None else (metric.val, metric.test)
    known = (name for name in judged if row.get(name) is not None and row["scores"].get(name) is not None)
    accuracies = (name for name in ("accuracy_val", "accuracy_test") if row.get(name) is not None)
    return next(accuracies if metric is None or metric.name == ACCURACY else known, None)


def learned_nothing(row: Configuration) -> bool:
    """Tells whether a configuration's accuracy cannot be told from knowing nothing: its 95 % interval, over images and
    seeds, or for one seed over the images (Wilson), includes that or lies below. False where no accuracy was measured,
    or neither the images nor the classes were counted.
    """
    figure = judged_by(row)
    if figure is None or row.get("task") != "train" or (least := ignorance(row, figure)) is None:
        return False
    if _surely_learned(row, figure, least.share):
        return False
    low = lower_end(row, figure)
    return low is not None and low <= least.share


def _surely_learned(row: Configuration, figure: str, share: float) -> bool:
    """Tells whether the lower end of an accuracy surely lies above a share, which most do that are counted; False says
    nothing.
    """
    if figure in JUDGED or (row.get("accuracy_over") in OVER_IMAGES and row[f"{figure}_low"] is not None):
        return False
    images = row.get(IMAGES_OF[figure])
    if not images:
        return False
    from tlbench.analysis import stats

    return stats.surely_above(list(row["values"][figure].values()), int(images), share)


def lower_end(row: Configuration, figure: str) -> float | None:
    """Returns the lower end of an accuracy's 95 % interval over images, and over seeds where there are several.

    Where single images are not known, their number has to do, as `tlbench.analysis.stats.counted` says; None without.
    """
    if (figure in JUDGED or row.get("accuracy_over") in OVER_IMAGES) and row[f"{figure}_low"] is not None:
        return float(row[f"{figure}_low"])
    if figure in JUDGED:
        from tlbench.analysis import stats

        return stats.images_interval(row["scores"][figure]).low
    images = row.get(IMAGES_OF[figure])
    if not images:
        return None
    right = tuple(row["values"][figure].values())
    if len(right) > 1:
        return _counted_end(right, int(images))
    from tlbench.analysis import stats

    return stats.wilson(round(row[figure] * images), int(images)).low


@lru_cache(maxsize=100_000)  # the verdict, the table and each figure ask of every configuration
def _counted_end(right: tuple[float, ...], images: int) -> float | None:
    from tlbench.analysis import stats

    return stats.accuracy_interval(stats.counted(right, images, 0)).low


# --- candidates -----------------------------------------------------------------------------------------------

Why = Literal["random weights", "learned nothing"]


def fell_back(row: Configuration) -> bool:
    """Tells whether weights are random though nobody asked for that: neither the grid nor the policy."""
    return bool(row["weights"] == "random" and row["weights_requested"] != "random" and row["freeze"] != "scratch")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Parts trained configurations into those that may be recommended and those that may not."""

    rows: tuple[Any, ...]
    random: tuple[Any, ...]
    """Those with random weights, where there are others that were not."""
    ignorant: tuple[Any, ...]
    """Of the rest, those that learned nothing."""

    def why_not(self, row: Configuration) -> Why | None:
        """Says why a configuration is none; None where it is one."""
        return self._reasons.get(id(row))

    @cached_property
    def _reasons(self) -> dict[int, Why]:
        reasons: dict[int, Why] = {id(row): "learned nothing" for row in self.ignorant}
        return reasons | {id(row): "random weights" for row in self.random}

    def of_inference(self, rows: Sequence[Configuration]) -> list[Configuration]:
        """Returns the inference configurations of models that may be recommended, and of those never trained here; all
        where none would be left. A speed depends on no weights, but who would use a model that knows nothing?
        """
        aside = {row["inference"] for row in (*self.random, *self.ignorant)} - {row["inference"] for row in self.rows}
        return [row for row in rows if row["inference"] not in aside] or list(rows)


def candidates(rows: Sequence[Configuration]) -> Candidates:
    """Parts trained configurations with an accuracy. Random weights stand behind whatever started from others: they are
    recommended only where they alone are there.
    """
    others = [row for row in rows if row["weights"] != "random"]
    random = [row for row in rows if row["weights"] == "random"] if others else []
    rest = others or list(rows)
    ignorant = [row for row in rest if learned_nothing(row)]
    known = set(map(id, ignorant))
    return Candidates(
        rows=tuple(row for row in rest if id(row) not in known), random=tuple(random), ignorant=tuple(ignorant)
    )
