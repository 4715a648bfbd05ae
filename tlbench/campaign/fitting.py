"""Keeps the model of a recorded cell: takes the weights that it left, or trains it again from its record, holds it
against that, and writes it down.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tlbench.analysis.frame import rows
from tlbench.analysis.summary import Configuration, summarise
from tlbench.analysis.verdict import Scope, verdicts
from tlbench.campaign.check import check
from tlbench.campaign.moved import moved_to, what_differs
from tlbench.campaign.replay import CLOSE, EQUAL, IMPOSSIBLE, Replay, held_against, rebuilt, select
from tlbench.console import say
from tlbench.errors import NotApplicable, Unavailable, UserError, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.folding import fold_of, folds_of, whole_of
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.kept.card import Card, read_card
from tlbench.kept.folds import OutOfFold, out_of_fold
from tlbench.kept.left import left_by, restore
from tlbench.kept.saving import Origin, check_free, folder_name, save
from tlbench.kept.trained import TRAINED
from tlbench.machine.kept import KEPT
from tlbench.machine.process import set_up
from tlbench.measure.cell import LOST, run_cell
from tlbench.measure.place import Place
from tlbench.records.definitions import said
from tlbench.records.record import Record

MODELS = "models"
"""Folder of a run's kept models."""
MODEL = "model"
"""Folder, in that of a run, of the model that ``--keep best`` keeps."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Says where what records name lies now."""

    places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Field of `Cell` -> as records have it -> where it is (`tlbench.campaign.moved`)."""
    data_root: str | None = None
    """Folder of data sets by name."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Says what became of a model that was to be kept."""

    folder: Path
    card: Card
    held: Replay
    """How what was trained now compares with the record."""
    left: bool = False
    """Whether it has the weights that were measured; else they were trained again."""


def chosen(records: Sequence[Record], id: str | None = None) -> Record:
    """Returns the record whose model is kept: that of an id, or of the cell that the verdict names, of its seeds the
    one with the best validation accuracy. Test images choose nothing.

    Errors: UserError where none or several can be meant.
    """
    if id is not None:
        matches = [record for record in select(records, id=id) if record.cell.task == "train"]
        good = [record for record in matches if record.status == "ok"]
        if not matches:
            raise UserError(f"{id!r} is a cell of inference, which trains no model; name one of training")
        if not good:
            raise UserError(f"{id!r} is {matches[0].status}: {matches[0].reason}; there is no model of it to keep")
        return _best(good)
    picks = [(scope, pick) for scope in verdicts(summarise(rows(records))) if (pick := pick_of(scope)) is not None]
    if not picks:
        raise UserError("the verdict of this run names no cell; name one with --id (tlbench export RUN lists them)")
    if len(picks) > 1:
        names = ", ".join(f"{scope.dataset} on {scope.device}: --id {_best(_of(pick)).id}" for scope, pick in picks)
        raise UserError(f"this run has {len(picks)} verdicts; name the cell that you want: {names}")
    return _best(_of(picks[0][1]))


def pick_of(scope: Scope) -> Configuration | None:
    """Returns the configuration that a verdict says to use: of those that cannot be told from the most accurate one,
    and came out within a point of it, that which trains in the least time.
    """
    if scope.cheapest_tie is not None and scope.cheapest_tie.row is not None:
        return scope.cheapest_tie.row
    return scope.picks[0].row


def _of(row: Configuration) -> list[Record]:
    return [item.record for item in row["group"] if item.record is not None and item.record.status == "ok"]


def _best(records: Sequence[Record]) -> Record:
    """Returns the record of the seed that is best on validation images; of folds, which have different ones, that of
    the first fold and the least seed, which stands for all of them.
    """
    if any(record.cell.fold for record in records):
        there = Counter(record.cell.seed for record in records)
        whole = [one for one in records if there[one.cell.seed] >= (folds_of(one.cell.fold) or 1)]
        records = whole or records  # of a seed that lacks folds no model can be made
        return min(records, key=lambda record: (fold_of(record.cell.fold or "1of1"), record.cell.seed))
    return max(records, key=lambda record: (record.accuracy_val or 0.0, -record.cell.seed))


def fit(
    record: Record,
    run: Path,
    out: Path | None = None,
    places: Mapping[str, str] | None = None,
    data_root: str | None = None,
    folds: OutOfFold | None = None,
) -> Fitted:
    """Writes the model of a record's cell into a folder, by default below the run's ``models/``: with the weights that
    the cell has left (`tlbench.kept.left`), or else by training it again. Of a cell of a fold it trains another one by
    the same recipe and seed, on all images; ``folds`` is what all folds have told of its worth
    (`tlbench.kept.folds.out_of_fold`).

    ``places`` says where a data set, a checkpoint or corrected labels lie now (field of `Cell` -> place), ``data_root``
    where data sets of a name do. Errors: UserError where the cell cannot be built again, comes out otherwise than
    within the tolerance of a replay, or cannot be written; KeyboardInterrupt when the user stops it.
    """
    assert (record.cell.fold is None) == (folds is None), "what folds have told is for a cell of a fold"
    if changed := said(record):
        raise UserError(f"the model of {record.id!r} cannot be made again: {changed}")
    folder = folder_of(record, run, out)
    check_free(folder)
    cell, settings = rebuilt(record)
    settings = replace(settings, also_test=(), corrupt=())  # what else it was tested on makes no other model
    settings = settings if data_root is None else replace(settings, data_root=data_root)
    record = replace(record, other_tests={})
    cell = moved_to(cell, places or {})
    check(Grid.of(cell), settings)
    if differing := what_differs(record, cell, settings):
        raise UserError(f"the model of {record.id!r} cannot be made again: {'; '.join(differing)}")
    if folds is not None:
        cell = folds.cell(of_all_images(cell))
    origin = Origin(run=run.resolve().name, record=record, folds=folds)
    if folds is None and (weights := left_by(record, run / TRAINED)) is not None:
        try:
            return _of_left(cell, settings, weights, folder, origin)
        except (ValueError, RuntimeError, MemoryError, OSError, NotApplicable, Unavailable) as error:
            why = (text_of(error).strip().splitlines() or [type(error).__name__])[0][:200]
            say(f"the weights that {record.id!r} has left cannot be taken: {why}; it is trained again")
    KEPT.activations.forget()  # what another cell of this process has kept must not stand in for it
    cards: list[Card] = []
    again = run_cell(
        cell,
        settings,
        place=Place(name=record.id, block=record.block, role=record.role),
        take=lambda built, findings: cards.append(save(built, findings, folder, origin)),
    )
    if again.status == "interrupted":
        raise KeyboardInterrupt
    if again.status != "ok" or not cards:
        why = again.reason if again.reason.startswith(LOST) else f"{again.status}: {again.reason}"
        raise UserError(f"the model of {record.id!r} cannot be made again: {why}")
    held = held_against(record, again) if folds is None else Replay(record=record, outcome=IMPOSSIBLE, reason=OF_ALL)
    return Fitted(folder=folder, card=cards[0], held=held)


def _of_left(cell: Cell, settings: Settings, weights: Path, folder: Path, origin: Origin) -> Fitted:
    """Writes the model of a record from the weights that its cell had left. Errors: UserError where it cannot be
    written; as `tlbench.kept.left.restore` and `tlbench.kept.saving.save` where they are not the recorded model's.
    """
    device = torch.device(cell.device)
    with set_up(settings.threads, cell.precision, settings.deterministic, settings.allocator, device):
        built, findings = restore(cell, settings, origin.record, weights)
        card = save(built, findings, folder, origin)
    outcome = CLOSE if card.measured.get("predicted_otherwise") else EQUAL
    return Fitted(folder=folder, card=card, held=Replay(record=origin.record, outcome=outcome), left=True)


OF_ALL = "that is of a fold, whose model has not seen all images"


def of_all_images(cell: Cell) -> Cell:
    """Returns the cell that trains on all images of a cross-validation; one that is of no fold as it is."""
    return cell if cell.fold is None else replace(cell, fold=whole_of(cell.fold))


def keep_best(records: Sequence[Record], run: Path, moved: Moved | None = None) -> Fitted | Path:
    """Keeps the model of the cell that the verdict names in the run's ``model/``, or, where another cell's is there, in
    ``model-2/`` and so on. Returns what became of it, or the folder where it was there already.

    Errors: as `chosen` and `fit`.
    """
    record = chosen(records)
    for folder in _folders(run):
        if not folder.exists():
            moved = moved or Moved()
            places = {name: of[v] for name, of in moved.places.items() if (v := getattr(record.cell, name)) in of}
            fitted = fit(record, run, folder, places, moved.data_root, out_of_fold(records, record))
            shutil.rmtree(run / TRAINED, ignore_errors=True)  # the one that they were there for is kept
            return fitted
        if _is_of(folder, record):
            shutil.rmtree(run / TRAINED, ignore_errors=True)
            return folder
    raise AssertionError("unreachable")


def is_kept(record: Record, run: Path) -> bool:
    """Tells whether `keep_best` has kept the model of a record in its run."""
    return any(_is_of(folder, record) for folder in itertools.takewhile(Path.exists, _folders(run)))


def _folders(run: Path) -> Iterator[Path]:
    """Yields where the models of a run's picks are kept, one after the other."""
    yield run / MODEL
    yield from (run / f"{MODEL}-{number}" for number in itertools.count(2))


def _is_of(folder: Path, record: Record) -> bool:
    """Tells whether a folder holds the model of a record."""
    try:
        card = read_card(folder)
    except UserError:
        return False
    if card.key != record.key:
        return False
    # A model of all images has no predictions of its own that a record could tell.
    return bool(record.cell.fold) or card.recorded.get("predictions_sha256") == record.predictions_sha256


def folder_of(record: Record, run: Path, out: Path | None = None) -> Path:
    """Returns where the model of a record of a run is written."""
    return run / MODELS / folder_name(of_all_images(record.cell)) if out is None else out


WHY_THIS = {
    False: "the seed that is best on validation images, of the cell that the verdict names",
    True: "the least seed of the cell that the verdict names, on all images of its folds",
}
"""Whether it is of a fold -> why this record is taken."""


def in_words(fitted: Fitted) -> list[str]:
    """Says in lines how what was trained now compares with the record, and what the sets of classes are worth."""
    from tlbench.kept.card import coverage_in_words, fold_in_words, guarantee_in_words

    held = fitted.held
    if fitted.left:
        images, otherwise = held.record.samples.get("test", 0), fitted.card.measured.get("predicted_otherwise", 0)
        lines = [f"the weights that were measured: {images - otherwise:,} of {images:,} test images predicted as then"]
    elif held.outcome == EQUAL:
        lines = [f"the same as the record, in {held.compared} results to the last bit"]
    elif held.outcome == IMPOSSIBLE:
        lines = [f"not compared with the record: {held.reason}"]
    else:
        what = "; ".join(f"{d.what}: {d.recorded}, now {d.now}" for d in held.differences[:3])
        lines = [f"{held.outcome} of the record's results: {what}"]
    if of_fold := fold_in_words(fitted.card):
        lines.append(f"accuracy: {of_fold}")
        if fitted.card.calibration.scores:
            lines.append(f"sets of classes: {guarantee_in_words(fitted.card)}")
    if fitted.card.calibration.test:
        lines.append(f"sets of classes: {coverage_in_words(fitted.card.calibration.test)}")
    return lines
