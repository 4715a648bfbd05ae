"""Which measurements of a run are done, which are still to be made, and what must not have changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tlbench.errors import UserError
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
}
"""Status of a record -> whether resuming runs its cell again, and why. A cell without a record is missing: it runs."""

Identity = tuple[str, str, int]
"""The cell's key, the role and the block: what a run measures once, but for the roles of `REPEATED`."""
REPEATED = ("aa",)
"""Roles of which a block may hold several measurements of one cell, which all count: twins tell the noise."""


# --- which cells are done -------------------------------------------------------------------------------------


def identity(record: Record) -> Identity:
    """Says what the record measured."""
    return record.key, record.role, record.block


def current(records: Iterable[Record]) -> list[Record]:
    """Returns the records that count of a run that was resumed, in the order of writing: of each identity the latest
    final one (`RESUME`), of twins all of them; the latest of all where none is final. So a
    repetition that fails or is stopped does not undo a cell that was finished.
    """
    by_identity: dict[Identity, list[tuple[int, Record]]] = {}
    for place in enumerate(records):
        by_identity.setdefault(identity(place[1]), []).append(place)
    kept: list[tuple[int, Record]] = []
    for (_, role, _), every in by_identity.items():
        final = [place for place in every if _is_final(place[1])]
        kept += (final if role in REPEATED else final[-1:]) or every[-1:]
    return [record for _, record in sorted(kept, key=lambda place: place[0])]


def todo(
    wanted: Iterable[Identity], records: Iterable[Record], redo: Callable[[Record], bool] = lambda record: False
) -> list[int]:
    """Returns the positions in ``wanted`` that are still to be measured: those without a final record of their own, and
    those whose record ``redo`` wants anew (a noisy one).
    """
    left = Counter(identity(record) for record in current(records) if _is_final(record) and not redo(record))
    positions = []
    for position, one in enumerate(wanted):
        if left[one]:
            left[one] -= 1
        else:
            positions.append(position)
    return positions


def _is_final(record: Record) -> bool:
    return RESUME[record.status][0] == FINAL


SAME_INPUT: dict[str, tuple[Callable[[Record], str | None], tuple[str, ...]]] = {
    "images": (lambda r: r.data_sha256, ("dataset", "backbone", "image_size", "train_size", "seed")),
    "initial weights": (lambda r: r.weights.get("sha256"), ("backbone", "weights", "seed")),
}
"""What two records must share -> the hash of it, and the fields of `Cell` that decide it."""


def check_same_input(record: Record, earlier: Sequence[Record]) -> None:
    """Raises UserError when images or weights are no longer those that this run's earlier records measured, though the
    cells name the same.
    """
    for what, (hash_of, names) in SAME_INPUT.items():
        mine = hash_of(record)
        for other in earlier:
            same = all(getattr(other.cell, name) == getattr(record.cell, name) for name in names)
            if same and mine and hash_of(other) and hash_of(other) != mine:
                raise UserError(
                    f"the {what} of {record.id!r} have changed since {other.id!r} was measured in this run; "
                    "restore them, or start a new run"
                )
