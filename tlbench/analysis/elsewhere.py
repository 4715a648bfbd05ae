"""Accuracy elsewhere: on other data sets and on corrupted test images, beside that on the test images; and whether the
order of the configurations is another there than on the test images.

Nothing is chosen by it. Orders are compared pair by pair, paired by the images that both classified, over images and
seeds, for all pairs of a test at once: two configurations change places where one is ahead beyond chance on the test
images and the other beyond chance elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from tlbench.analysis.figures import Row
from tlbench.analysis.image_figures import ROUNDING
from tlbench.analysis.scores import Numbers
from tlbench.analysis.summary import Configuration
from tlbench.data.corruptions import CORRUPTIONS, kind_of

if TYPE_CHECKING:
    import numpy as np

    from tlbench.analysis.stats import Pairs, Scores

CORRUPTED = "corrupted"
"""The test that is the mean over all corruptions."""
MOST = 30
"""Most configurations whose order is compared, those with the best validation accuracies: every two are."""


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test is what an accuracy elsewhere is of: another data set, or the mean over some corruptions."""

    __test__ = False  # no class of tests, whatever its name says to pytest

    label: str
    splits: tuple[str, ...]
    """Names in `tlbench.records.record.Record.other_tests`, whose accuracies are averaged."""
    dataset: str = ""
    """The data set behind the name; empty for corruptions, and where only a frame is known."""

    @property
    def corrupts(self) -> bool:
        """Tells whether it is of corrupted test images."""
        return bool(kind_of(self.splits[0]))


@dataclass(frozen=True, kw_only=True)
class Result:
    """Holds what a configuration scores in a test."""

    row: Configuration
    accuracy: float
    """The mean over seeds."""
    low: float | None
    """End of the 95 % interval for new images and a new seed; None for one seed."""
    high: float | None
    by_seed: Mapping[Any, float]
    images: int | None
    """Images of a seed's test; None where nothing tells."""
    scores: Scores | None
    """Which images each seed has right; None where a record does not tell."""


Standing = Literal["other order", "behind", "same", "cannot say", "alone"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Holds two configurations of which the first is ahead in a test."""

    ahead: Result
    behind: Result
    here_too: bool
    """Whether the first is ahead on the test images as well, beyond chance."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Says how the configurations of a scope do in one test, and whether their order is another there."""

    test: Test
    results: tuple[Result, ...]
    """The best first."""
    lacking: int
    """Configurations with a test accuracy that were not tested so."""
    standing: Standing = "alone"
    """``other order``: some change places beyond chance; ``behind``: another is ahead of the pick beyond chance, and no
    two change places; ``same``: neither; ``cannot say``: the seeds are too few, or another came
    out first by no more than chance; ``alone``: there are no two to compare."""
    pairs: tuple[Pair, ...] = ()
    """What changes places, those with the pick and those furthest apart first; or what is ahead of the pick; or, where
    the pick stays ahead, what falls behind it that cannot be told from it on the test images."""
    first: Result | None = None
    """What came out first, where that may be chance."""
    one_seed: bool = False
    """Whether it cannot be said since there is one seed."""


# --- what was tested ------------------------------------------------------------------------------------------


def known_tests(rows: Iterable[Configuration], kinds: bool = True) -> list[Test]:
    """Returns the tests that configurations have: data sets by name (and by what is behind it, where that is several),
    then the kinds of corruptions where ``kinds`` are wanted, and the mean over all of these.
    """
    datasets: dict[str, dict[str, None]] = {}
    corruptions: dict[str, None] = {}
    for item in (item for row in rows for item in row["group"] if item.status == "ok"):
        for name in item.other_tests or ():
            if kind_of(name):
                corruptions[name] = None
            else:
                datasets.setdefault(name, {})[_dataset_of(item, name)] = None
    found = [
        Test(label=name if len(behind) == 1 else f"{name} ({dataset})", splits=(name,), dataset=dataset)
        for name, behind in datasets.items()
        for dataset in behind
    ]
    by_kind = {kind: tuple(name for name in corruptions if kind_of(name) == kind) for kind in CORRUPTIONS}
    there = {kind: names for kind, names in by_kind.items() if names}
    if kinds:
        found += [Test(label=kind, splits=names) for kind, names in there.items()]
    if len(there) > 1 or (there and not kinds):
        found.append(Test(label=CORRUPTED, splits=tuple(name for names in there.values() for name in names)))
    return found


def _dataset_of(item: Row, name: str) -> str:
    return "" if item.record is None else str(item.record.other_tests.get(name, {}).get("dataset", ""))


def _accuracy(item: Row, test: Test) -> float | None:
    """Returns a record's accuracy in a test; None where it lacks any part of it."""
    known = item.other_tests or {}
    lacks = any(name not in known for name in test.splits)
    if lacks or (test.dataset and _dataset_of(item, *test.splits) != test.dataset):
        return None
    return fmean(known[name] for name in test.splits)


def result(row: Configuration, test: Test, numbers: Numbers) -> Result | None:
    """Returns what a configuration scores in a test; None where none of its records was tested so."""
    good = [item for item in row["group"] if item.status == "ok"]
    found = {id(item): value for item in good if (value := _accuracy(item, test)) is not None}
    items = [item for item in good if id(item) in found]
    if not items:
        return None
    by_seed: dict[Any, list[tuple[float, int]]] = {}
    for item in items:  # folds have other numbers of images, each of which counts alike
        by_seed.setdefault(item.seed, []).append((found[id(item)], _tested(item, test) or 1))
    values = {seed: sum(v * n for v, n in each) / sum(n for _, n in each) for seed, each in by_seed.items()}
    scores = _scores(items, test, found, numbers)
    low, high = _interval(values, scores)
    return Result(
        row=row,
        accuracy=fmean(values.values()),
        low=low,
        high=high,
        by_seed=values,
        images=_images(items, test, scores),
        scores=scores,
    )


def _scores(items: Sequence[Row], test: Test, known: Mapping[int, float], numbers: Numbers) -> Scores | None:
    """Returns which images each seed has right, of several corruptions the share of them; None where a record does not
    tell, or its results do not fit its accuracy.
    """
    import numpy as np

    from tlbench.analysis.stats import Scores

    by_seed: dict[Any, list[tuple[np.ndarray, np.ndarray]]] = {}
    for item in items:
        per_image = numbers.results(item)
        splits = [per_image.split(name) for name in test.splits] if per_image is not None else [None]
        told = [split for split in splits if split is not None]
        if len(told) < len(splits) or any(len(one.images) != len(told[0].images) for one in told):
            return None
        right = np.mean([one.correct for one in told], axis=0)
        if abs(float(right.mean()) - known[id(item)]) > ROUNDING:
            return None
        by_seed.setdefault(item.seed, []).append((numbers.of(told[0].images), right))
    images, correct = [], []
    for several in by_seed.values():  # several: blocks or runs with the same seed
        codes, right = (np.concatenate(each) for each in zip(*several, strict=True))
        images.append(codes)
        correct.append(right)
    return Scores(images=tuple(images), correct=tuple(correct))


def _interval(values: Mapping[Any, float], scores: Scores | None) -> tuple[float | None, float | None]:
    """Returns the ends of the 95 % interval: over images and seeds, or seeds alone where the images are unknown."""
    from tlbench.analysis import stats

    if len(values) < 2:
        return None, None
    interval = stats.accuracy_interval(scores) if scores is not None else stats.mean_interval(list(values.values()))
    low, high = interval.low, interval.high
    return (None, None) if low is None or high is None else (max(0.0, low), min(1.0, high))


def _tested(item: Row, test: Test) -> int | None:
    """Returns how many images a record was tested on; None where it does not tell."""
    told = {} if item.record is None else item.record.other_tests.get(test.splits[0], {})
    count = told.get("images")
    return count if isinstance(count, int) else None


def _images(items: Sequence[Row], test: Test, scores: Scores | None) -> int | None:
    """Returns the images of a seed's test, those of all its folds together."""
    if items[0].record is not None:
        counts = {item.fold: _tested(item, test) for item in items if item.seed == items[0].seed}
        folded = any(item.fold for item in items) and test.corrupts  # other data sets are tested whole by each fold
        several = list(counts.values()) if folded else [counts[items[0].fold]]
        return None if None in several else sum(filter(None, several))
    return None if scores is None else int(scores.images[0].size)


# --- whether the order is another -----------------------------------------------------------------------------


def elsewhere(
    rows: Sequence[Configuration], candidates: Sequence[Configuration], pick: Configuration | None
) -> list[Elsewhere]:
    """Returns how the trained configurations ``rows`` of a scope do in each test; the order is that of ``candidates``,
    which may be recommended, and of the ``pick`` among them.
    """
    trained = [row for row in rows if row["task"] == "train" and row["accuracy_test"] is not None]
    numbers, found = Numbers(), []
    tests = known_tests(trained)
    corrupting = [test for test in tests if test.corrupts]
    for test in tests:
        results = [one for row in trained if (one := result(row, test, numbers)) is not None]
        results.sort(key=lambda one: -one.accuracy)
        compared = [one for one in results if any(one.row is row for row in candidates)]
        compared = sorted(compared, key=lambda one: -(one.row["accuracy_val"] or 0))[:MOST]
        # Of corruptions all together, or the only kind.
        looked_at = not test.corrupts or test.label == CORRUPTED or len(corrupting) == 1
        more = _order(compared, pick) if pick is not None and looked_at else {}
        found.append(Elsewhere(test=test, results=tuple(results), lacking=len(trained) - len(results), **more))
    return found


def _order(compared: Sequence[Result], pick: Configuration | None) -> dict[str, Any]:
    """Returns the fields of `Elsewhere` that say whether the order of these is another than on the test images."""
    from tlbench.analysis import stats

    chosen = next((place for place, one in enumerate(compared) if one.row is pick), None)
    if chosen is None or len(compared) < 2:
        return {}
    there = stats.all_pairs(_cells([(one.scores, one.by_seed, one.images) for one in compared]))
    here = stats.all_pairs(
        _cells([(one.row["scores"]["accuracy_test"], one.row["values"]["accuracy_test"], one.row["test_images"])
                for one in compared])
    )  # fmt: skip
    places = range(len(compared))
    changed = [(a, b) for a in places for b in places if there.ahead(a, b) and here.ahead(b, a)]
    changed.sort(key=lambda pair: (chosen not in pair, -abs(there.means[pair[0]] - there.means[pair[1]])))
    if changed:
        return {"standing": "other order", "pairs": tuple(_pair(compared, pair, here) for pair in changed)}
    ahead = sorted((a for a in places if there.ahead(a, chosen)), key=lambda a: -there.means[a])
    if ahead:
        return {"standing": "behind", "pairs": tuple(_pair(compared, (a, chosen), here) for a in ahead)}
    best = max(places, key=lambda place: (there.means[place], place == chosen))
    few = sum(len(one.by_seed) > 1 for one in compared) < 2 or len(compared[chosen].by_seed) < 2
    if few or best != chosen:
        return {"standing": "cannot say", "first": compared[best], "one_seed": few}
    told_apart = [b for b in places if there.ahead(chosen, b) and not (here.ahead(chosen, b) or here.ahead(b, chosen))]
    told_apart.sort(key=lambda b: -there.means[b])
    return {
        "standing": "same",
        "first": compared[chosen],
        "pairs": tuple(_pair(compared, (chosen, b), here) for b in told_apart),
    }


def _pair(compared: Sequence[Result], places: tuple[int, int], here: Pairs) -> Pair:
    return Pair(ahead=compared[places[0]], behind=compared[places[1]], here_too=here.ahead(*places))


def _cells(known: Sequence[tuple[Scores | None, Mapping[Any, float], int | None]]) -> dict[str, Scores]:
    """Returns the scores of configurations; where which images were right is not known, their number has to do, and
    where not even that is, they count as one.
    """
    from tlbench.analysis import stats

    first = 1 + max((int(i.max()) for scores, _, _ in known if scores is not None for i in scores.images), default=0)
    cells = {}
    for number, (scores, values, images) in enumerate(known):
        cells[f"{number:06}"] = scores or stats.counted(list(values.values()), images or 1, first)
        first += 0 if scores is not None else images or 1
    return cells
