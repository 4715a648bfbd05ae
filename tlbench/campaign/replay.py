"""Runs a record's cell again, from the record alone, and says what came out differently.

The same cell with the same number of threads on the same machine gives the same losses, accuracies and predictions to
the last bit. Other numbers of threads, processors and libraries add in another order, and every step carries that
on: how far apart the results are is said, and what differs between the two machines beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tlbench.campaign.check import check
from tlbench.campaign.moved import moved_to, what_differs
from tlbench.errors import UserError, nearest
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as run
from tlbench.measure.place import Place
from tlbench.records.definitions import said
from tlbench.records.identity import measured_at
from tlbench.records.machine import machine_of
from tlbench.records.record import Record

EQUAL, CLOSE, DIFFERENT, IMPOSSIBLE = "equal", "within tolerance", "different", "cannot be rebuilt"
EXIT = {EQUAL: 0, CLOSE: 0, DIFFERENT: 1, IMPOSSIBLE: 2}

LOSS, ACCURACY, EXACT, DIGEST = "loss", "accuracy", "exact", "digest"
TOLERANCES = {LOSS: 0.05, ACCURACY: 0.02, EXACT: 0.0, DIGEST: 0.0}
"""Largest differences that are tolerated: of a loss, relative to it; of an accuracy, as a share of the images, and two
of them where they are few. With 2 threads in place of 1, MobileNetV3 from random weights was 0.01 % off in its loss
after one epoch, 0.16 % after three.
"""
FEWEST_IMAGES = 2

COMPARABLE = ("ok", "diverged")
"""Statuses of records that say what should come out again."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result is something that a record says came out."""

    value: Any
    kind: str
    """A key of `TOLERANCES`. A digest that differs says nothing about how much."""
    images: int = 0
    """Images behind an accuracy."""

    def tolerates(self, other: Any) -> bool:
        """Tells whether another value can come from the same cell, computed in another order."""
        if self.kind == DIGEST:
            return other is not None
        if self.kind == EXACT or not isinstance(other, float | int):
            return False
        allowed = TOLERANCES[self.kind] * (abs(self.value) if self.kind == LOSS else 1.0)
        if self.kind == ACCURACY and self.images:
            allowed = max(allowed, FEWEST_IMAGES / self.images)
        return bool(abs(self.value - other) <= allowed * (1 + 1e-9))


def results(record: Record) -> dict[str, Result]:
    """Maps names to all that a record says about what was computed; nothing about how long it took."""
    images = record.samples
    all_results: dict[str, Result] = {
        "status": Result(value=record.status, kind=EXACT),
        "initial weights": Result(value=record.weights.get("sha256"), kind=EXACT),
        "data": Result(value=record.data_sha256, kind=EXACT),
        "frozen part": Result(value=record.frozen_sha256_before, kind=EXACT),
        **{f"{name} images": Result(value=count, kind=EXACT) for name, count in images.items()},
        "parameters": Result(value=record.total_parameters, kind=EXACT),
        "trainable parameters": Result(value=record.trainable_parameters, kind=EXACT),
        **{name: Result(value=value, kind=EXACT) for name, value in record.recipe.items()},
    }
    for number, epoch in enumerate(record.rounds if record.cell.task == "train" else (), start=1):
        all_results |= {
            f"loss of epoch {number}": Result(value=epoch.loss, kind=LOSS),
            f"validation loss of epoch {number}": Result(value=epoch.loss_val, kind=LOSS),
            f"validation accuracy of epoch {number}": Result(
                value=epoch.accuracy_val, kind=ACCURACY, images=images.get("val", 0)
            ),
        }
    all_results |= {
        "best epoch": Result(value=record.best_epoch, kind=EXACT),
        "test loss": Result(value=record.loss_test, kind=LOSS),
        "test accuracy": Result(value=record.accuracy_test, kind=ACCURACY, images=images.get("test", 0)),
        "predictions": Result(value=record.predictions_sha256, kind=DIGEST),
    }
    for name, one in record.other_tests.items():
        all_results |= {
            f"images of {name}": Result(value=one.get("data_sha256"), kind=EXACT),
            f"accuracy on {name}": Result(value=one.get("accuracy"), kind=ACCURACY, images=one.get("images") or 0),
            f"predictions on {name}": Result(value=one.get("predictions_sha256"), kind=DIGEST),
        }
    return {name: result for name, result in all_results.items() if result.value is not None}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Holds a result that came out differently."""

    what: str
    recorded: Any
    now: Any
    tolerated: bool


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Says what became of one record."""

    record: Record
    outcome: str
    """A key of `EXIT`."""
    compared: int = 0
    """Results that were held against the record."""
    differences: tuple[Difference, ...] = ()
    machine: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """What differs between the machines and their settings: key -> (recorded, now)."""
    reason: str = ""
    """The reason why it cannot be rebuilt."""


def replay(record: Record, threads: int | None = None, places: Mapping[str, str] | None = None) -> Replay:
    """Runs the record's cell again. ``threads`` takes the place of the recorded number; ``places`` says where a data
    set or a checkpoint lies now (field of `Cell` -> place). Where images or pretrained weights are not those that were
    measured, nothing is run.

    Errors: KeyboardInterrupt when the user stops it.
    """
    if record.status not in COMPARABLE:
        return Replay(record=record, outcome=IMPOSSIBLE, reason=f"it is {record.status}, so nothing came out of it")
    if changed := said(record):
        return Replay(record=record, outcome=IMPOSSIBLE, reason=changed)
    cell, settings = rebuilt(record, threads)
    try:
        cell = moved_to(cell, places or {})
        check(Grid.of(cell), settings)
        if differing := what_differs(record, cell, settings):
            return Replay(record=record, outcome=IMPOSSIBLE, reason=f"not the same thing: {'; '.join(differing)}")
        KEPT.activations.forget()  # what another cell of this process has kept must not stand in for it
        again = run.run_cell(cell, settings, place=Place(name=record.id, block=record.block, role=record.role))
    except UserError as error:
        return Replay(record=record, outcome=IMPOSSIBLE, reason=str(error))
    if again.status == "interrupted":
        raise KeyboardInterrupt
    if again.status in ("skipped", "not_applicable", "oom") or again.reason.startswith(run.LOST):
        return Replay(record=record, outcome=IMPOSSIBLE, reason=f"{again.status}: {again.reason}")
    return held_against(record, again)


def held_against(record: Record, again: Record) -> Replay:
    """Returns the verdict on two records of one cell."""
    before, now = results(record), results(again)
    differences = [
        Difference(what=name, recorded=old.value, now=new, tolerated=old.tolerates(new))
        for name, old in before.items()
        if (new := now[name].value if name in now else None) != old.value
    ]
    differences += [
        Difference(what=name, recorded=None, now=new.value, tolerated=False)
        for name, new in now.items()
        if name not in before
    ]
    outcome = EQUAL if not differences else CLOSE if all(d.tolerated for d in differences) else DIFFERENT
    return Replay(
        record=record,
        outcome=outcome,
        compared=len(before),
        differences=tuple(differences),
        machine=_machine_differences(record, again),
        reason=again.reason if again.status != record.status else "",
    )


def rebuilt(record: Record, threads: int | None = None) -> tuple[Cell, Settings]:
    """Returns the record's cell and settings, with what was found out when it ran for what was left open."""
    used = record.environment.get("settings", {}).get("threads") or record.settings.threads
    cell = replace(measured_at(record), layout=record.layout.get("chosen") or record.cell.layout)
    if cell.weights == "auto" and record.weights:
        cell = replace(cell, weights="pretrained" if record.weights.get("pretrained") else "random")
    kept = bool(record.prefix.get("boundaries"))
    settings = replace(
        record.settings,
        threads=threads or used,
        # What is kept is computed in batches of its own, so whether it is decides the last bits.
        prefix=record.settings.prefix if kept else "off",
        detail=False,
        latency_rounds=1,
        throughput_rounds=1,
    )
    return cell, settings


def _machine_differences(record: Record, again: Record) -> dict[str, tuple[Any, Any]]:
    # The threads are those of the record: variables of threads decide as little about it as about what is made anew.
    alike = replace(record, settings=replace(record.settings, threads=again.settings.threads))
    before, now = (_flat({**machine_of(r), **r.environment.get("arithmetic", {})}) for r in (alike, again))
    names = dict.fromkeys([*before, *now])
    return {name: (before.get(name), now.get(name)) for name in names if _text(before, name) != _text(now, name)}


def _flat(facts: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat


def _text(facts: Mapping[str, Any], name: str) -> str:
    return json.dumps(facts.get(name), sort_keys=True, default=str)


def select(records: Sequence[Record], key: str | None = None, id: str | None = None) -> list[Record]:
    """Selects one record for each cell with this key or id, or for every cell; one with a result before one without,
    and a cell's own before those of an A/A pair.

    Errors: UserError where none matches.
    """
    matches = [r for r in records if key in (None, r.key) and id in (None, r.id)]
    if not matches:
        wanted, names = (key, [r.key for r in records]) if key is not None else (id, [r.id for r in records])
        guess = nearest(str(wanted), dict.fromkeys(names))
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UserError(f"no record has the {'key' if key is not None else 'id'} {wanted!r}{hint}")
    matches.sort(key=lambda r: (r.status not in COMPARABLE, r.role != "cell"))
    best: dict[str, Record] = {}
    for record in matches:
        best.setdefault(record.key, record)
    return [record for record in best.values() if record.status in COMPARABLE] or list(best.values())
