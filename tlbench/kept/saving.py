"""Writes the model of a cell that was just trained into a folder, and holds it against the record."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tlbench
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.kept import conformal
from tlbench.kept.card import CARD, OUT_OF_FOLD, WEIGHTS, Calibration, Card, Preprocessing, hash_file, write_card
from tlbench.kept.folds import OutOfFold
from tlbench.kept.licence import licence_of
from tlbench.kept.model import KeptModel, load_model
from tlbench.machine.credentials import cleaned
from tlbench.machine.scratch import host
from tlbench.measure.build import BuiltCell
from tlbench.measure.findings import Findings
from tlbench.measure.outcome import merged
from tlbench.records.record import Record

RECORDED = ("accuracy_val", "accuracy_test", "predictions_sha256")
"""Fields of a record that a card repeats."""
TIES = 0.002
"""Share of the test images that a kept model may predict otherwise than the trained one, which took its frozen stages'
outputs in other batches: two classes may be as likely to the last bit."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Says where a kept model comes from."""

    run: str
    """Name of the run's folder."""
    record: Record
    folds: OutOfFold | None = None
    """What its folds have told, where the model is of all images of a cross-validation."""


def save(built: BuiltCell, findings: Findings, folder: Path, origin: Origin) -> Card:
    """Writes a trained cell's model into a folder, which must be new or empty: all of it, or nothing.

    The model is loaded again from what was written and tried on validation images, on which sets of classes are
    calibrated, and on test images, whose predictions have to be the trained model's. A model of all images of a
    cross-validation has neither: its folds tell what it is worth, and sets go by them. Returns the card.

    Errors: UserError where the folder cannot be written; RuntimeError where the kept model predicts otherwise.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    check_free(folder)
    aside = _aside(folder)
    try:
        aside.mkdir(parents=True)
        model = plain_model(built)
        save_file(weights_of(model), aside / WEIGHTS)
        card = _card(built, findings, origin, hash_file(aside / WEIGHTS))
        write_card(aside, card)
        card = _tried(load_model(aside), built, findings, card, origin.folds)
        write_card(aside, card)
        if folder.exists():  # it may be a link, or where a disk is mounted: no other folder can take its place
            # Last the card, without which it is no model.
            for name in sorted((one.name for one in aside.iterdir()), key=lambda name: name == CARD):
                (aside / name).rename(folder / name)
        else:
            aside.rename(folder)
    except (OSError, SafetensorError) as error:  # the latter of a full disk, too
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot write the model to {str(folder)!r}: {why}; choose another with --out") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return card


PART = ".part"
"""Ending of what is not whole yet."""


def _aside(folder: Path) -> Path:
    """Returns where a model is written before it takes its place: inside a folder that is there, else beside it."""
    # No other process has this name, in another container neither, where process numbers are the same.
    name = f".{folder.resolve().name}.{host()}-{secrets.token_hex(8)}{PART}"
    return folder / name if folder.is_dir() else folder.with_name(name)


def check_free(folder: Path) -> None:
    """Raises UserError for a folder that something is in, or that cannot be written to; nothing is made."""
    try:
        taken = folder.is_file() or (folder.is_dir() and any(one.suffix != PART for one in folder.iterdir()))
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        why = "" if os.access(there, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
        why = why if there.is_dir() else os.strerror(errno.ENOTDIR)
        why = "it is a link that leads nowhere" if folder.is_symlink() and not folder.exists() else why
    except OSError as error:
        taken, why = False, error.strerror or str(error)
    if taken:
        raise UserError(f"{str(folder)!r} is not empty; choose a new folder for the model with --out, or remove it")
    if why:
        raise UserError(f"cannot write the model to {str(folder)!r}: {why}; choose another with --out")


def plain_model(built: BuiltCell) -> nn.Sequential:
    """Returns the cell's model as it predicts: what its policy has put in is merged where it can be."""
    already = built.adapter is None or built.adapter.merge is None or not _has_adapter(built)
    return built.model if already else merged(built)


def _has_adapter(built: BuiltCell) -> bool:
    """Tells whether what the policy has put into the model is still there: looking at the test images merges it."""
    assert built.adapter is not None
    return any(built.adapter.owns(name) for name, _ in built.model.named_parameters())


def weights_of(model: nn.Module, without: frozenset[str] = frozenset()) -> dict[str, Tensor]:
    """Returns each parameter and buffer, ``without`` some of them, as a tensor of its own on the CPU: safetensors takes
    no shared memory.
    """
    return {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, tensor in model.state_dict().items()
        if name not in without
    }


def _card(built: BuiltCell, findings: Findings, origin: Origin, weights_sha256: str) -> Card:
    backbone, cell, record = findings.building.backbone, built.cell, origin.record
    assert backbone is not None
    spec, weights = backbone.input, cleaned(asdict(backbone.weights))
    return Card(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        suite_version=tlbench.__version__,
        run=origin.run,
        record=record.id,
        key=record.key,
        cell=dict(vars(cell)),
        classes=tuple(built.data.classes),
        preprocessing=Preprocessing(
            size=built.size,
            resize=spec.resized(built.size),
            interpolation=spec.interpolation,
            crop_mode=spec.crop_mode,
            fill=spec.fill,
            mean=spec.mean,
            std=spec.std,
            decode=cell.decode,
            pixel_range=dict(built.data.pixel_range),
        ),
        channels_last=built.arithmetic.channels_last,
        batch_size=cell.batch_size,
        weights_sha256=weights_sha256,
        initial_weights=weights,
        licence=licence_of(cell.backbone, weights),
        plugins=dict(record.plugins),
        measured=_measured(built, findings, origin),
        recorded={name: getattr(record, name) for name in RECORDED} if origin.folds is None else {},
        calibration=Calibration(scores=(), images=0),
        environment={"torch": torch.__version__, "tlbench": tlbench.__version__},
    )


def _measured(built: BuiltCell, findings: Findings, origin: Origin) -> dict[str, Any]:
    """Returns what was measured of the model; of one that none is left to test on, of its folds' models."""
    if origin.folds is not None:
        return {"samples": {"train": len(built.data.train)}, "out_of_fold": dict(origin.folds.measured)}
    return {
        "accuracy_val": findings.accuracy_val,
        "accuracy_test": findings.test.accuracy_test if findings.test else None,
        "predictions_sha256": findings.test.predictions_sha256 if findings.test else None,
        "samples": dict(origin.record.samples),
    }


def _of_folds(folds: OutOfFold) -> Calibration:
    return Calibration(scores=folds.scores, images=int(folds.measured["images"] or 0), kind=OUT_OF_FOLD)


def _tried(model: KeptModel, built: BuiltCell, findings: Findings, card: Card, folds: OutOfFold | None = None) -> Card:
    """Returns the card with what the loaded model says of validation and test images, or, where it has seen them all,
    with what its ``folds`` have told. Errors: RuntimeError where it predicts otherwise than the trained one: by batches
    of another size a tie may fall otherwise, and no more.
    """
    data = built.data
    if not data.measures_accuracy or findings.test is None or findings.test.evaluation is None:
        return card
    test = model.logits_of(data.test.images, data.test.index)
    before = findings.test.evaluation.predictions.numpy()
    otherwise = int((test.argmax(1) != before).sum())
    if otherwise > max(1, TIES * len(before)):
        raise RuntimeError(
            f"the kept model predicts {otherwise} of {len(before)} test images otherwise than the trained one"
        )
    if folds is not None:
        return replace(card, measured={**card.measured, "predicted_otherwise": otherwise}, calibration=_of_folds(folds))
    leaked = set(data.leaked["val"])
    clean = np.array([n for n in range(len(data.val)) if n not in leaked], np.int64)
    val = model.logits_of(data.val.images, data.val.index[torch.from_numpy(clean)])
    scores = conformal.scores_of(conformal.softmax(val), data.val.classes[clean]) if len(clean) else np.empty(0)
    return replace(
        card,
        measured={**card.measured, "kept_predictions_sha256": model.hash_of(test), "predicted_otherwise": otherwise},
        calibration=Calibration(
            scores=tuple(scores.tolist()),
            images=len(data.val),
            test=_held(scores.tolist(), conformal.softmax(test), data.test.classes),
        ),
    )


def _held(scores: list[float], probabilities: conformal.Floats, labels: np.ndarray) -> dict[str, Any]:
    """Returns how the sets do on the test images; nothing where too few images were calibrated on to make any."""
    if len(scores) < conformal.fewest(conformal.DEFAULT):
        return {}
    return conformal.held_against(scores, probabilities, labels)


def folder_name(cell: Cell) -> str:
    """Returns a name for the folder of a cell's model: its id and the beginning of its key, which is the exact one."""
    plain = re.sub(r"[^\w.+@()=,-]", "_", cell.id)
    return f"{plain}-{cell.key[:6]}"
