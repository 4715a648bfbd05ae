"""Which rows are one configuration, and which data sets are one: by hashes, not by names and paths.

Rows pool seeds where axes, image size, machine, the images' hash and the pretrained weights' hash (or "random") agree;
at equal seed, the hashes of the split and of the initial weights agree as well. Rows of older records lack the images'
hash: it is taken from rows with the same split, or from their own run; what stays unknown goes by its data set as it is
written, and is never put together with another hash.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlbench.analysis.figures import NAMED, Row, column, each_column
from tlbench.records.identity import place_of, short_sha

BY_HASH = ("dataset", "weights", "seed")
"""Columns of axes that hashes and the seed stand for."""
ALIKE = tuple(name for name in ("variant", *NAMED) if name not in BY_HASH)
"""Columns of axes that are the same in one configuration."""


def images_key(row: Mapping[str, Any]) -> str:
    """Returns what a row's images are known by: their hash, else the data set as it is written."""
    return row["images_sha256"] or place_of(row["dataset"])


def weights_key(row: Mapping[str, Any]) -> str:
    """Returns what a row's weights are known by: the pretrained ones' hash or ``random``, else what was asked for."""
    return row["weights_sha256"] or place_of(row["weights_requested"])


def identity(row: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what makes two rows, of records or configurations, the same cell whatever the seed, run and machine."""
    axes = {name: row[name] for name in ALIKE if name not in without}
    return {**axes, "images": images_key(row), "weights": weights_key(row)}


def of_one_condition(table: Iterable[Row]) -> list[Row]:
    """Returns the finished rows whose times may stand in one table: where some cells had their node to themselves,
    these alone. A cell that shared its node was measured under another condition, as if on another machine, so that
    its times are not averaged, ranked or drawn with theirs; its accuracies are.
    """
    every = list(table)
    told = zip(every, *each_column(every, ("status", "shares_node")), strict=True)
    finished = [(row, shared) for row, status, shared in told if status == "ok"]
    return [row for row, shared in finished if not shared] or [row for row, _ in finished]


# --- one configuration ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Seen:
    """Holds the hashes that must agree at equal seed, of rows that are put together."""

    rows: list[Row] = field(default_factory=list)
    by_seed: dict[Hashable, str] = field(default_factory=dict)
    told: set[Hashable] = field(default_factory=set)
    """What rows told of these hashes, which another that tells the same adds nothing to."""

    def allows(self, hashes: Mapping[Hashable, str]) -> bool:
        return all(self.by_seed.get(key, value) == value for key, value in hashes.items())

    def add(self, rows: Iterable[Row], hashes: Mapping[Hashable, str]) -> None:
        self.rows += rows
        self.by_seed.update(hashes)


OF_SEED = ("task", "seed", "fold", "split_sha256", "initial_sha256")
"""Columns that tell the hashes that must agree at a row's seed."""


def _at_its_seed(task: str, seed: int, fold: str | None, split: str | None, initial: str | None) -> dict[Hashable, str]:
    """Returns the hashes that must agree at a row's seed, and fold; inference depends on neither."""
    if task != "train":
        return {}
    named = {("split", seed, fold): split, ("initial", seed): initial}
    return {key: value for key, value in named.items() if value}


def group(table: Sequence[Row], images: Sequence[str]) -> list[list[Row]]:
    """Groups rows by configuration, in order of appearance. One that failed before its images or weights were known
    goes with its cell's others, where these are of one kind. ``images``: of `resolved_images`.
    """
    whole: dict[Hashable, list[Row]] = {}
    kinds: dict[Hashable, set[tuple[Any, ...]]] = defaultdict(set)
    early = [status != "ok" and _is_early(row) for row, status in zip(table, column(table, "status"), strict=True)]
    some = any(early)
    asked = zip(*each_column(table, ("weights_sha256", "weights_requested")), strict=True)
    known = column(table, "machine"), images, [sha256 or place_of(weights) for sha256, weights in asked]
    for row, is_early, *key in zip(table, early, *known, *each_column(table, ALIKE), strict=True):
        if not is_early:
            whole.setdefault(tuple(key), []).append(row)
            if some:
                kinds[_as_asked(row)].add(tuple(key))
    first = {id(row): place for place, row in enumerate(table)}
    for row in (row for row, is_early in zip(table, early, strict=True) if is_early):
        others = kinds.get(_as_asked(row), set())
        key = next(iter(others)) if len(others) == 1 else ("early", *_as_asked(row))
        whole.setdefault(key, []).append(row)
    groups = [piece for rows in whole.values() for piece in _pieces(sorted(rows, key=lambda r: first[id(r)]))]
    return sorted(groups, key=lambda rows: first[id(rows[0])])


def _is_early(row: Row) -> bool:
    """Tells whether a row ended before its weights or its images were known."""
    return row.status != "ok" and (row.weights_sha256 is None or (row.images_sha256 or row.split_sha256) is None)


def _as_asked(row: Row) -> tuple[Any, ...]:
    """Returns the row's cell as it was asked for: the image size is resolved together with the weights."""
    axes = [row[name] for name in ALIKE if name != "image_size"]
    return (*axes, place_of(row.dataset), place_of(row.weights_requested), row.machine)


def _pieces(rows: Sequence[Row]) -> list[list[Row]]:
    """Parts rows whose splits or initial weights differ at equal seed. What is of one run stays together as long as it
    agrees: a hash that is another from some record on is another for all that follow.
    """
    of_run: dict[str, list[_Seen]] = {}
    for row, run, *told in zip(rows, *each_column(rows, ("run", *OF_SEED)), strict=True):
        pieces = of_run.setdefault(run, [_Seen()])
        if (known := tuple(told)) in pieces[-1].told:
            pieces[-1].rows.append(row)
            continue
        hashes = _at_its_seed(*told)
        if not pieces[-1].allows(hashes):
            pieces.append(_Seen())
        pieces[-1].add([row], hashes)
        pieces[-1].told.add(known)
    together: list[_Seen] = []
    for piece in (piece for pieces in of_run.values() for piece in pieces):
        fitting = next((other for other in together if other.allows(piece.by_seed)), None)
        if fitting is None:
            together.append(fitting := _Seen())
        fitting.add(piece.rows, piece.by_seed)
    return [seen.rows for seen in together]


# --- images of older records ----------------------------------------------------------------------------------


def resolved_images(table: Sequence[Row]) -> list[str]:
    """Returns what each row's images are known by, as far as the other rows tell."""
    hashes = list(zip(*each_column(table, ("split_sha256", "images_sha256")), strict=True))
    of_split = {split: images for split, images in hashes if images}
    known = [images or (split and of_split.get(split)) for split, images in hashes]
    if all(known):
        return [images for images in known if images]
    in_run: dict[Hashable, set[str]] = defaultdict(set)
    for row, images in zip(table, known, strict=True):
        if images:
            in_run[_prepared(row)].add(images)
    older = _older_labels(row for row, images in zip(table, known, strict=True) if not images)
    found = []
    for row, images in zip(table, known, strict=True):
        others = in_run.get(_prepared(row), set())
        found.append(images or (next(iter(others)) if len(others) == 1 else older[_prepared(row)]))
    return found


def _older_labels(rows: Iterable[Row]) -> dict[Hashable, str]:
    """Returns what images without a hash are known by: the place as it is written. Equal splits are of equal images,
    whatever the place is called.
    """
    splits: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        splits.setdefault(_prepared(row), []).extend([row.split_sha256] if row.split_sha256 else [])
    labels: dict[Hashable, str] = {}
    of_split: dict[str, str] = {}
    for prepared, hashes in splits.items():
        _, place, *_ = prepared
        label = next((of_split[one] for one in hashes if one in of_split), place)
        labels[prepared] = label
        of_split.update({one: of_split.get(one, label) for one in hashes})
    return labels


def _prepared(row: Row) -> tuple[Any, ...]:
    """Returns what decides a run's decoded images: a backbone's weights say how they are resized."""
    cell = row.record.cell if row.record is not None else None
    how = (cell.decode, cell.relabel) if cell is not None else (None, None)
    return row.run, place_of(row.dataset), row.backbone, row.image_size, *how


# --- one data set ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _DataSet:
    """Holds what is known of one data set, whatever the places and sizes at which it was read."""

    name: str
    detail: str
    """Hash that tells it from another of this name."""
    places: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    facts: dict[Hashable, Any] = field(default_factory=dict)
    """What tells two data sets apart -> its value here."""
    told: set[Hashable] = field(default_factory=set)
    """What rows of it told, so that another that tells the same need not be asked."""

    def may_be(self, place: str, label: str, facts: Mapping[Hashable, Any]) -> bool:
        """Tells whether images of this place, or of this label, may be those of this data set."""
        return (place in self.places or label in self.images) and not self.contradicts(facts)

    def contradicts(self, facts: Mapping[Hashable, Any]) -> bool:
        return any(self.facts.get(key, value) != value for key, value in facts.items())


def data_set_names(table: Sequence[Row], images: Sequence[str]) -> list[str]:
    """Returns the name of each row's data set: the same for one data set at two places, and another, with a hash, for
    other images at the same place. ``images``: of `resolved_images`.

    Sizes and backbones have their own decoded pixels, so that hashes are equal or not within one of them only. A place
    of a run is one data set, as long as nothing in it says otherwise; two runs' are one where a hash is in both, or
    where they name the same place and nothing contradicts.
    """
    known: list[_DataSet] = []
    current: dict[Hashable, _DataSet] = {}
    of_row = []
    for row, label, dataset, run, *told in zip(table, images, *_told(table), strict=True):
        place, known_as = place_of(dataset), (label, dataset, *told)
        found = current.get((run, place))
        if found is not None and known_as in found.told:
            of_row.append(found)
            continue
        facts = _tells_apart(row, label)
        if found is None or found.contradicts(facts):
            found = next((one for one in known if row.images_sha256 and label in one.images), None)
            found = found or next((one for one in known if one.may_be(place, label, facts)), None)
            if found is None:
                found = _DataSet(name=row.dataset, detail=_detail(row))
                known.append(found)
        if found.contradicts(facts):  # images of one hash all the same
            found.told.clear()
        found.places.add(place)
        found.images.add(label)
        found.facts.update(facts)
        found.told.add(known_as)
        current[run, place] = found
        of_row.append(found)
    names = Counter(one.name for one in known)
    return [f"{one.name} ({one.detail})" if names[one.name] > 1 else one.name for one in of_row]


TOLD = (
    "images_sha256", "split_sha256", "backbone", "image_size", "seed", "split_seed", "fold", "train_images",
    "val_images", "test_images", "classes", "dropped_images",
)  # fmt: skip
"""Columns that `_tells_apart` goes by, beside the data set and how it was decoded."""


def _told(table: Sequence[Row]) -> Iterator[Sequence[Any]]:
    """Yields the columns of the data set, the run and all that `_tells_apart` goes by."""
    yield from each_column(table, ("dataset", "run", *TOLD))
    yield [None if row.record is None else row.record.cell.decode for row in table]
    yield [None if row.record is None else row.record.cell.relabel for row in table]


def _detail(row: Row) -> str:
    if row.images_sha256:
        return f"images {short_sha(row.images_sha256)}"
    return f"images and split {short_sha(row.split_sha256)}" if row.split_sha256 else "images unknown"


def _tells_apart(row: Row, images: str) -> dict[Hashable, Any]:
    """Returns what of a row would be the same in every row of one data set."""
    prepared = _prepared(row)[2:]
    facts: dict[Hashable, Any] = {}
    if row.images_sha256:
        facts["images", *prepared] = images
    if row.split_sha256:
        facts["split", *prepared, row.seed, row.split_seed, row.fold, row.train_images] = row.split_sha256
    if row.val_images is not None and not row.dropped_images:
        facts["counts", row.seed, row.split_seed, row.fold] = (row.classes, row.val_images, row.test_images)
    return facts
