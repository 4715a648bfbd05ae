"""Which measurements of a run are done, which are still to be made, and what must not have changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.records.identity import place_of, short_sha, standard, weights_of
from tlbench.records.record import Record

FINAL = "final"
AGAIN = "again"
RESUME = {
    "ok": (FINAL, "its figures are there"),
    "not_applicable": (FINAL, "it means nothing, today and tomorrow"),
    "diverged": (FINAL, "the same seed would diverge again"),
    "skipped": (AGAIN, "what it needs may be here now"),
    "failed": (AGAIN, "the cause may be gone, and there is no figure to lose"),
    "oom": (AGAIN, "what else took the memory may be gone"),
    "timeout": (AGAIN, "what kept it waiting may be gone"),
    "interrupted": (AGAIN, "it was stopped, it did not fail"),
    "stopped": (AGAIN, "a larger budget may have room for it"),
}
"""Status of a record -> whether resuming runs its cell again, and why. A cell without a record is missing: it runs."""

Identity = tuple[str, str, int]
"""The key of the cell's `standard`, the role and the block: what a run measures once, but for those of `REPEATED`."""
REPEATED = ("aa",)
"""Roles of which a block may hold several measurements of one cell, which all count: twins tell the noise."""


# --- which cells are done -------------------------------------------------------------------------------------


def identity(record: Record) -> Identity:
    """Says what the record measured."""
    return identity_of(record.cell, record.role, record.block)


def identity_of(cell: Cell, role: str = "cell", block: int = 0) -> Identity:
    """Says what a measurement of a cell is known by in its run."""
    return standard(cell).key, role, block


def current(records: Iterable[Record]) -> list[Record]:
    """Returns the records that count of a run that was resumed, in the order of writing: of each identity the latest
    final one (`RESUME`), of twins all of them; the latest of all where none is final. So a
    repetition that fails or is stopped does not undo a cell that was finished.
    """
    every_record = list(records)
    hashes: dict[int, int] = {}  # records that were read share their cells
    maybe_alike: dict[tuple[int, str, int], list[tuple[int, Record]]] = {}
    for place in enumerate(every_record):
        cell, role, block = place[1].cell, place[1].role, place[1].block
        if id(cell) not in hashes:
            hashes[id(cell)] = hash(tuple(vars(standard(cell)).values()))
        maybe_alike.setdefault((hashes[id(cell)], role, block), []).append(place)
    kept: list[tuple[int, Record]] = []
    keys: dict[int, str] = {}
    by_identity: dict[Identity, list[tuple[int, Record]]] = {}
    for (_, role, block), several in maybe_alike.items():
        if len(several) == 1:  # of most no other has the hash, so that nobody need know the key, which takes longer
            kept += several
            continue
        for place in several:
            cell = place[1].cell
            if id(cell) not in keys:
                keys[id(cell)] = standard(cell).key
            by_identity.setdefault((keys[id(cell)], role, block), []).append(place)
    for (_, role, _), every in by_identity.items():
        final = [place for place in every if is_final(place[1])]
        kept += (final if role in REPEATED else final[-1:]) or every[-1:]
    return [record for _, record in sorted(kept, key=lambda place: place[0])]


def todo(
    wanted: Iterable[Identity], records: Iterable[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[int]:
    """Returns the positions in ``wanted`` that are still to be measured: those without a final record of their own, and
    those whose record ``redo`` wants anew (a noisy one).
    """
    left = Counter(identity(record) for record in current(records) if is_final(record) and not redo(record))
    positions = []
    for position, one in enumerate(wanted):
        if left[one]:
            left[one] -= 1
        else:
            positions.append(position)
    return positions


def is_final(record: Record) -> bool:
    """Tells whether resuming leaves its cell as it is."""
    return RESUME[record.status][0] == FINAL


# --- what must not have changed -------------------------------------------------------------------------------


def _images(record: Record) -> Input:
    cell = record.cell
    size = record.image_size or cell.image_size
    return record.images_sha256, (place_of(cell.dataset), cell.backbone, size, cell.relabel, cell.decode)


def _split(record: Record) -> Input:
    cell = record.cell
    return record.data_sha256, (*_images(record)[1], cell.train_size, cell.seed, cell.split_seed, cell.fold)


def _weights(record: Record) -> Input:
    return weights_of(record), (record.cell.backbone, place_of(record.cell.weights))


def _initial(record: Record) -> Input:
    return record.weights.get("sha256"), (*_weights(record)[1], record.cell.seed)


Input = tuple[str | None, tuple[Any, ...]]
"""Hash, and what decides it."""
SAME_INPUT: dict[str, tuple[str, Callable[[Record], Input]]] = {
    "images": ("images", _images),
    "split": ("images", _split),
    "weights": ("weights", _weights),
    "initial": ("initial weights", _initial),
}
"""What two records of a run must share -> what a person calls it, and its hash. A split without a hash of its images is
one of older records, which a changed image shows in.
"""


class SameInput:
    """Holds what a run's records measured, and refuses a record that measured something else under the same names."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._first: dict[tuple[str, tuple[Any, ...]], tuple[str, str]] = {}
        for record in records:
            self._add(record)

    def check(self, record: Record) -> None:
        """Takes a record in. Errors: UserError, naming both hashes, when images or weights are no longer those that
        earlier records of this run measured, though the cells name the same.
        """
        for name, (what, input_of) in SAME_INPUT.items():
            mine, decided_by = input_of(record)
            found, other = self._first.get((name, decided_by), (mine, ""))
            if mine and found != mine:
                called = "split" if name == "split" and record.images_sha256 else what
                raise UserError(
                    f"the {called} of {record.id!r} have changed since {other!r} was measured in this run "
                    f"({short_sha(found or '')}, now {short_sha(mine)}); restore them, or start a new run"
                )
        self._add(record)

    def _add(self, record: Record) -> None:
        for name, (_, input_of) in SAME_INPUT.items():
            mine, decided_by = input_of(record)
            if mine:
                self._first.setdefault((name, decided_by), (mine, record.id))
