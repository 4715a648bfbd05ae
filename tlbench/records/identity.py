"""What makes two measurements the same thing, and how a difference is named.

The same thing is measured where every axis that matters for the task, the image size, the weights, the images and the
machine are the same. Weights and images are known by their hashes, never by a path or by ``auto``; at equal seed the
split and the initial weights agree as well. A hash that a record does not have is unknown: it makes no two records
equal that have other hashes which differ, and where nothing else is known, what is written as the same place counts as
the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from tlbench.backbones.checkpoint import parse_checkpoint
from tlbench.data.options import apart, apart_by_text
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.grid import without_training
from tlbench.records.definitions import meant
from tlbench.records.machine import SHORT, machine_key, short_hash
from tlbench.records.record import Record

RANDOM = "random"
IDENTITY = "identity"
"""Key under which pytest-benchmark's JSON has the facts of a test, among its extra information."""
NAMED_WEIGHTS = ("auto", "pretrained", RANDOM)
PLACES = ("dataset", "weights")
"""Fields of `Cell` that may name a place on a disk."""
BY_HASH = (*PLACES, "seed", "image_size", "relabel")
"""Fields of `Cell` that no axis is compared by: hashes, the seed and the resolved image size stand for them."""


# --- places ---------------------------------------------------------------------------------------------------


@cache
def place_of(value: str) -> str:
    """Writes a data set or checkpoint in one way, from its text alone: ``folder:./x`` becomes ``folder:x``."""
    if value in NAMED_WEIGHTS:
        return value
    kind, path = _kind_and_path(value)
    if not kind:  # a checkpoint's path, or a data set that has none
        return os.path.normpath(os.path.expanduser(value))
    plain, options = apart_by_text(path)
    return f"{kind}:{os.path.normpath(os.path.expanduser(plain))}{options}" if path else value


def _kind_and_path(value: str) -> tuple[str, str]:
    """Takes the kind of a data set off its path; a colon further on in a path is a part of it."""
    kind, colon, path = value.partition(":")
    return (kind, path) if colon and re.fullmatch(r"[\w.-]+", kind) else ("", value)


def same_place(one: str, other: str) -> bool:
    """Tells whether two data sets or checkpoints are one place on this disk, however they are written."""
    return one == other or _resolved(one) == _resolved(other)


def _resolved(value: str) -> str:
    kind, path = _kind_and_path(value)
    if not kind:
        return value if value in NAMED_WEIGHTS else _checkpoint_file(value)
    plain, options = apart(path)
    return f"{kind}:{os.path.realpath(os.path.expanduser(plain))}{options}" if path else value


def _checkpoint_file(value: str) -> str:
    """Writes a checkpoint as the file that it is, links followed, with the key that chooses among its weights."""
    checkpoint = parse_checkpoint(value)
    key = "" if checkpoint.key is None else f"?key={checkpoint.key}"
    return f"{os.path.realpath(checkpoint.file)}{key}"


def measured_at(record: Record) -> Cell:
    """Returns the record's cell with the places where its data set and its checkpoint really were."""
    known: dict[str, Any] = {name: place for name, place in record.places.items() if name in PLACES}
    return replace(record.cell, **known) if known else record.cell


def standard(cell: Cell) -> Cell:
    """Returns the cell that stands for all that ask for the same measurement of one run: axes that do not matter for
    the task are at their defaults, places are written in one way.
    """
    alike = without_training(cell)
    dataset, weights = place_of(alike.dataset), place_of(alike.weights)
    if (dataset, weights) == (alike.dataset, alike.weights):
        return alike
    return replace(alike, dataset=dataset, weights=weights)


# --- hashes ---------------------------------------------------------------------------------------------------


def weights_of(record: Record) -> str | None:
    """Returns the hash of the pretrained weights as they were loaded, ``random``, or None where it is not known.

    What is pretrained has nothing in it that depends on the seed: a checkpoint that lacks a tensor is refused, and head
    and adapter are no part of the hash. So it is the hash of the initial weights, also in records of older versions.
    """
    if not record.weights:
        return None
    return record.weights.get("sha256") if record.weights.get("pretrained") else RANDOM


def weights_name(record: Record) -> str:
    """Says what the cell started from: pretrained, random, a checkpoint's file name; before that is known, what was
    asked for.
    """
    loaded, requested = record.weights, record.cell.weights
    named = requested in NAMED_WEIGHTS
    if not loaded:
        return requested if named else "checkpoint"
    if named:
        return "pretrained" if loaded.get("pretrained") else RANDOM
    return Path(str(loaded["source"])).name


def axes_of(cell: Cell) -> str:
    """Returns a short hash of every axis that matters for the cell's task, but those `BY_HASH`."""
    return short_hash(changed_fields(without_training(cell), BY_HASH))


_DEFAULT = vars(Cell())
ALIKE = {name: axis.alike for name, axis in AXES.items() if axis.alike is not None}
"""Field -> what of its value cells are told apart by."""


def changed_fields(cell: Cell, without: Iterable[str]) -> dict[str, Any]:
    """Returns the fields that are not at their defaults: a field of a later version leaves their hash as it is. All
    folds of a cross-validation have the same.
    """
    left_out, default = {*without}, _DEFAULT
    changed = {name: value for name, value in vars(cell).items() if name not in left_out and value != default[name]}
    return {name: ALIKE[name](value) if name in ALIKE else value for name, value in changed.items()}


def split_name(cell: Cell) -> str:
    """Writes what tells a cell's split from the others of its configuration: ``0``, or of folds ``0, fold 1of5``."""
    return str(cell.seed) if cell.fold is None else f"{cell.seed}, fold {cell.fold}"


def weights_label(record: Record) -> str:
    """Returns `weights_of`; where it is unknown, what was asked for as it is written."""
    return weights_of(record) or place_of(record.cell.weights)


def short_sha(sha256: str) -> str:
    """Shortens a hash for people; ``random`` stays as it is."""
    return sha256[:SHORT]


# --- what was measured, and how it differs --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Says what records of one configuration measured."""

    axes: str
    """Hash of `axes_of`."""
    task: str
    backbone: str
    dataset: str
    """As it is written."""
    weights_name: str
    image_size: int | None = None
    weights: str | None = None
    """Result of `weights_of`."""
    images: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    """Seed, and fold where there are several (`split_name`) -> hash of images and split."""
    initial: Mapping[str, str] = field(default_factory=dict)
    """Seed -> hash of the initial weights."""
    machine: str = ""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Facts:
        """Returns the facts of records of one configuration, at least one; of what some do not know, the others'."""
        every = list(records)
        first = next((r for r in every if r.status == "ok"), every[0])
        known = [(r, split_name(r.cell)) for r in every]
        return cls(
            axes=axes_of(meant(first)),
            task=first.cell.task,
            backbone=first.cell.backbone,
            dataset=first.cell.dataset,
            weights_name=weights_name(first),
            image_size=next((size for r in every if (size := r.image_size or r.cell.image_size)), None),
            weights=next((found for r in every if (found := weights_of(r))), None),
            images=next((r.images_sha256 for r in every if r.images_sha256), None),
            splits={name: r.data_sha256 for r, name in known if r.data_sha256},
            initial={str(r.cell.seed): r.weights["sha256"] for r in every if r.weights.get("sha256")},
            machine=machine_key(first),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, ready for JSON."""
        return {**vars(self), "splits": dict(self.splits), "initial": dict(self.initial)}


def differences(base: Facts, new: Facts) -> list[str]:
    """Names everything in which two measurements with the same axes are not the same thing, a line each: ``weights of
    ck.pth: 6e2d85f0 and f637518e``. The machine is left to the caller.
    """
    lines = [_weights_differ(base, new)]
    if base.image_size and new.image_size and base.image_size != new.image_size:
        # Other pixels have another hash in any case.
        lines.append(f"image size: {base.image_size} and {new.image_size} px")
    else:
        lines.append(_images_differ(base, new) or _split_differs(base, new))
    return [line for line in lines if line]


def _weights_differ(base: Facts, new: Facts) -> str:
    name = _both(*(f.backbone if f.weights_name in NAMED_WEIGHTS else f.weights_name for f in (base, new)))
    if base.weights and new.weights:
        if base.weights != new.weights:
            return f"weights of {name}: {short_sha(base.weights)} and {short_sha(new.weights)}"
        # Random numbers of other machines and libraries may differ in their last bits.
        same_machine = base.weights == RANDOM and base.machine == new.machine and base.task == "train"
        return _at_a_seed(f"initial weights of {name}", base.initial, new.initial) if same_machine else ""
    return "" if base.weights_name == new.weights_name else f"weights: {base.weights_name} and {new.weights_name}"


def _images_differ(base: Facts, new: Facts) -> str:
    name = _both(base.dataset, new.dataset)
    if base.images and new.images:
        return (
            ""
            if base.images == new.images
            else f"images of {name}: {short_sha(base.images)} and {short_sha(new.images)}"
        )
    if any(base.splits[seed] == new.splits[seed] for seed in base.splits if seed in new.splits):
        return ""  # the hash of a split has the images in it
    if line := _at_a_seed(f"images or split of {name}", base.splits, new.splits):
        return line
    same = place_of(base.dataset) == place_of(new.dataset)
    return "" if same else f"data sets: {base.dataset} and {new.dataset}, whose images' hashes are not known"


def _split_differs(base: Facts, new: Facts) -> str:
    if base.task != "train":
        return ""  # inference takes whatever images there are
    return _at_a_seed(f"split of {_both(base.dataset, new.dataset)}", base.splits, new.splits)


def _at_a_seed(what: str, base: Mapping[str, str], new: Mapping[str, str]) -> str:
    for seed in base:
        if seed in new and base[seed] != new[seed]:
            return f"{what} at seed {seed}: {short_sha(base[seed])} and {short_sha(new[seed])}"
    return ""


def _both(one: str, other: str) -> str:
    return one if one == other else f"{one} and {other}"
