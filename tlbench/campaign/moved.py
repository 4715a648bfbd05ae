"""Data sets and checkpoints that lie at another place than when they were measured: the same ones, by their hashes.

One file, since where something lies, and whether it is the same there, is one question. What a cell names stays what it
is known by; where it is read now is said beside it (`Record.places`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tlbench.backbones import WEIGHTS, check_weights, input_of, parse_checkpoint
from tlbench.backbones.checkpoint import with_key_of
from tlbench.data import DATASETS, Described, parse_dataset
from tlbench.data.lent import lending
from tlbench.data.relabel import read_corrections
from tlbench.errors import NotApplicable, Unavailable, UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.images import describe_images
from tlbench.records.identity import PLACES, RANDOM, same_place, short_sha, weights_of
from tlbench.records.plan import Plan
from tlbench.records.record import Record

Places = Mapping[str, Mapping[str, str]]
"""Field of `Cell` -> {data set or checkpoint, as cells name it: where it is read}."""


def names_a_place(field: str, value: str) -> bool:
    """Tells whether a data set or weights are named by a path. Errors: UserError for an unknown data set."""
    if field == "weights":
        return value not in WEIGHTS
    name, path = parse_dataset(value)
    return DATASETS[name].takes_path and not DATASETS[name].is_name(path)


# --- whether it is the same -----------------------------------------------------------------------------------


def what_differs(record: Record, cell: Cell, settings: Settings) -> list[str]:
    """Names what of a record's images and pretrained weights is another where the cell says that they are, a line each:
    ``images of folder:x: 6e2d85f0 and f637518e``.

    What tlbench draws itself, splits and random weights, is left out: it comes out again, or it is a result. Errors:
    UserError where images or a checkpoint cannot be read.
    """
    return [*_images_differ(record, cell, settings), *_weights_differ(record, cell)]


def _images_differ(record: Record, cell: Cell, settings: Settings) -> list[str]:
    if record.images_sha256 is not None:
        found = _data(cell, settings)
        images = _line("images", record.cell.dataset, cell.dataset, record.images_sha256, found.images_sha256)
        return [*images, *(_corrections_differ(record, cell, found) if images else [])]
    if record.data_sha256 is not None and cell.dataset != record.cell.dataset:  # an older record
        where = record.cell.dataset, cell.dataset
        return _line("images or split", *where, record.data_sha256, _data(cell, settings).sha256)
    return []


def _corrections_differ(record: Record, cell: Cell, found: Described) -> list[str]:
    """Names files of corrections that are two, where what is trained on is not the same."""
    before, now = (one.get("sha256", "") for one in (record.relabelled, found.relabelled))
    if not before or not now:
        return []
    return _line("corrected labels", str(record.cell.relabel), str(cell.relabel), before, now)


def _data(cell: Cell, settings: Settings) -> Described:
    spec = input_of(cell.backbone)
    with lending(settings.isolate != "none"):  # should they be decoded, the cells' processes take them
        found = describe_images(cell, settings, spec, cell.image_size or spec.size)
    assert found is not None, "it is None only where nothing may be decoded"
    return found


def _weights_differ(record: Record, cell: Cell) -> list[str]:
    known = weights_of(record)
    if known in (None, RANDOM):
        return []
    from tlbench.measure.shared_weights import load_weights

    try:
        found = load_weights(cell).weights
    except NotApplicable as error:
        if cell.weights in WEIGHTS:
            return []
        raise UserError(str(error)) from None  # what was measured fitted
    except Unavailable:
        return []  # running the cell tells what is missing
    loaded = found.sha256 if found.pretrained else RANDOM
    if record.cell.weights in WEIGHTS:
        return _line("weights", cell.backbone, cell.backbone, known, loaded)
    return _line("weights", record.cell.weights, cell.weights, known, loaded)


def changed_since(cells: Iterable[Cell], earlier: Sequence[Record], settings: Settings, places: Places) -> list[str]:
    """Names each data set and checkpoint of these cells, of a run that goes on, that is another where it is read now
    than when it was measured, a line each: the records are of something that is no longer there.

    Errors: UserError where images or a checkpoint cannot be read.
    """
    lines = []
    wanted = {name: {getattr(cell, name): None for cell in cells} for name in PLACES}
    for name, values in wanted.items():
        for value in values:
            record = _measured(name, value, earlier) if names_a_place(name, value) else None
            if record is not None:
                now = _with(record.cell, {name: places.get(name, {}).get(value, value)})
                lines += _images_differ(record, now, settings) if name == "dataset" else _weights_differ(record, now)
    return [f"changed since this run measured them: {line}" for line in lines]


def _line(what: str, old: str, new: str, before: str | None, now: str) -> list[str]:
    names = old if old == new else f"{old} and {new}"
    return [f"{what} of {names}: {short_sha(before or '')} and {short_sha(now)}"] if before != now else []


# --- a run that goes on ---------------------------------------------------------------------------------------


def relocate(
    plan: Plan, earlier: Sequence[Record], given: Mapping[str, tuple[Any, ...]]
) -> tuple[Mapping[str, tuple[Any, ...]], Places]:
    """Returns the axes that were given to a run that goes on, with each data set and checkpoint that it has already
    under its name there; and where those are now that have moved.

    Errors: UserError, naming both hashes, where what has gone from its place is another thing at the new one.
    """
    axes = dict(given)
    places: dict[str, dict[str, str]] = {name: _known_places(name, earlier) for name in PLACES}
    for name in PLACES:
        planned = list(dict.fromkeys(v for grid in plan.grids for v in grid.axes[name] if names_a_place(name, v)))
        found = []
        for value in axes.get(name, ()):
            known, moved = (value, False)
            if names_a_place(name, value):
                known, moved = _stands_for(name, value, planned, earlier, plan.settings)
            if moved:
                places[name][known] = _place(name, value, known)
            else:
                places[name].pop(known, None)
            found.append(known)
        if found:
            axes[name] = tuple(dict.fromkeys(found))
    return axes, places


def _known_places(name: str, earlier: Iterable[Record]) -> dict[str, str]:
    """Returns where the run found what had moved when it went on before; where that is gone too, the old place is
    looked at again, if that is there.
    """
    return {
        getattr(record.cell, name): record.places[name]
        for record in earlier
        if name in record.places
        and (_exists(name, record.places[name]) or not _exists(name, getattr(record.cell, name)))
    }


def _stands_for(
    name: str, value: str, planned: Sequence[str], earlier: Sequence[Record], settings: Settings
) -> tuple[str, bool]:
    """Returns what the run calls a place, and whether it has moved there: where the hash agrees, also if something lies
    at the old place still, which may have changed. The place itself where it is something new.

    Errors: as `relocate`.
    """
    for old in planned:
        if same_place(old, value):
            return old, False
    if name == "weights":
        check_weights(value)
    refused = []
    for old in planned:
        record = _measured(name, old, earlier)
        gone = not _exists(name, old)
        if record is None:
            if gone:
                return old, True  # nothing was measured there, so nothing can be mixed up
            continue
        differ = _images_differ if name == "dataset" else lambda r, c, _: _weights_differ(r, c)
        lines = differ(record, _with(record.cell, {name: _place(name, value, old)}), settings)
        if not lines and name == "dataset" and _groups_of(old) != _groups_of(value):
            # The same images, divided in another way: those of a group stay together, or do not.
            lines = [f"groups of {old} and {value}: {_groups_of(old) or 'none'} and {_groups_of(value) or 'none'}"]
        if not lines:
            return old, True
        if gone:
            refused += lines
    if refused:
        raise UserError(
            f"--{AXES[name].option} {value}: not what this run has measured: {refused[0]}; give the place where the "
            "same lies now, or start a new run"
        )
    return value, False


def _groups_of(dataset: str) -> str:
    """Returns what a data set's options say of groups, as they are written."""
    return "&".join(re.findall(r"(?:(?<=\?)|(?<=&))(?:group|group_column)=[^&]*", dataset))


def _measured(name: str, old: str, earlier: Iterable[Record]) -> Record | None:
    """Returns a record that says what lay at a place; None where nothing was measured there."""
    for record in earlier:
        known = (record.images_sha256 or record.data_sha256) if name == "dataset" else weights_of(record)
        if known and getattr(record.cell, name) == old:
            return record
    return None


def _exists(name: str, value: str) -> bool:
    if name == "dataset":
        kind, path = parse_dataset(value)
        return all(map(os.path.exists, DATASETS[kind].places(path) or ()))
    return os.path.exists(os.path.expanduser(parse_checkpoint(value).path))


def check_there(plan: Plan, places: Places) -> None:
    """Raises UserError, with how to say where it lies now, for what a run that goes on has begun with and that is
    neither there any more nor known to have moved.
    """
    for name in PLACES:
        for value in dict.fromkeys(value for grid in plan.grids for value in grid.axes[name]):
            if names_a_place(name, value) and not _exists(name, places.get(name, {}).get(value, value)):
                form = f"{parse_dataset(value)[0]}:PATH" if name == "dataset" else "PATH"
                raise UserError(
                    f"{value!r} is not there any more, which this run was begun with; --{AXES[name].option} {form} "
                    "says where the same lies now"
                )


def grid_at(grid: Grid, places: Places) -> Grid:
    """Returns a grid with data sets and checkpoints where they lie now."""
    return grid.with_axes({name: tuple(places[name].get(v, v) for v in grid.axes[name]) for name in places})


def cell_at(cell: Cell, places: Places) -> Cell:
    """Returns a cell with its data set and its checkpoint where they lie now."""
    moved = {name: known[value] for name, known in places.items() if (value := getattr(cell, name)) in known}
    return _with(cell, moved)


def moved_to(cell: Cell, places: Mapping[str, str]) -> Cell:
    """Returns a cell with what it names by a path at these places (field -> place): nothing else can have moved.

    Errors: UserError for an unknown data set.
    """
    old = {name: getattr(cell, name) for name in places if _may_move(name, getattr(cell, name))}
    return _with(cell, {name: _place(name, places[name], value) for name, value in old.items()})


def _may_move(name: str, value: str | None) -> bool:
    """Tells whether a cell has something that may lie elsewhere; a file of corrections always is a path."""
    return value is not None and (name == RELABEL or names_a_place(name, value))


def said_to_lie(records: Sequence[Record], data_root: str | None = None, **given: str | None) -> dict[str, str]:
    """Returns where what these records name lies now, by what a person has said (field of `Cell` -> place; None: not
    said).

    Errors: UserError for images, a checkpoint, corrected labels or a folder of named data sets that none of the records
    has anything of, and for a file of corrections that cannot be read.
    """
    places = {name: place for name, place in given.items() if place is not None}
    for name in PLACES:
        if name in places and not any(names_a_place(name, getattr(record.cell, name)) for record in records):
            raise UserError(f"--{AXES[name].option} {places[name]!r}: nothing here {MAY_MOVE[name]}; leave it")
    if RELABEL in places:
        if not any(record.cell.relabel for record in records):
            raise UserError(f"--relabel {places[RELABEL]!r}: nothing here was measured with corrected labels; leave it")
        read_corrections(places[RELABEL])
    if data_root is not None and all(_kind(record) in OUTSIDE_THE_ROOT for record in records):
        raise UserError(
            f"--data-root {data_root!r}: nothing here is of torchvision:NAME, which is looked for there; --dataset "
            "says where a folder or a list lies now"
        )
    return places


def _kind(record: Record) -> str:
    return record.cell.dataset.partition(":")[0]


MAY_MOVE = {
    "dataset": "was measured on images of a folder or a list, which alone may lie elsewhere",
    "weights": "was measured with a checkpoint file, which alone may lie elsewhere",
}
"""Field of `Cell` -> what is said where nothing of it can have moved."""
RELABEL = "relabel"
OUTSIDE_THE_ROOT = ("digits", "folder", "hf", "list", "synthetic")
"""Data sets that are not looked for below ``--data-root``."""


def _place(name: str, new: str, old: str) -> str:
    """Returns a new place, of a checkpoint with the key that chose among its weights at the old one."""
    return with_key_of(new, old) if name == "weights" else new


def _with(cell: Cell, places: Mapping[str, Any]) -> Cell:
    return replace(cell, **places) if places else cell


def called(record: Record, cell: Cell) -> Record:
    """Returns the record of a cell that was measured at another place, as that of the cell that the run knows."""
    moved = {name: at for name in PLACES if (at := getattr(record.cell, name)) != getattr(cell, name)}
    if moved:
        return replace(record, cell=cell, places=moved)
    # One object for the plan and its records: a record that came from elsewhere has a copy.
    return replace(record, cell=cell) if record.cell == cell else record
