"""The weights that measured cells leave behind while ``--keep best`` waits for the one whose model is kept.

A cell leaves what its training has changed (safetensors) in ``trained/`` of the run's folder; what was frozen comes
from the backbone's own weights again, and its fingerprint says whether it is the same. Those of the best validation
accuracies stay, as far as there is room; of the others, and of cells that leave nothing (with an adapter in the model,
in folds), a model is trained again. Nothing here is needed to read a run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.kept.saving import weights_of
from tlbench.kept.trained import name_of
from tlbench.machine.scratch import write_aside
from tlbench.measure.build import BuiltCell
from tlbench.measure.findings import Findings
from tlbench.measure.outcome import TestResult
from tlbench.measure.phases import TrainingPlan, plan_training
from tlbench.measure.place import ALONE, Place
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record
from tlbench.train.evaluate import Evaluation


def leaving_at(place: Place) -> Callable[[BuiltCell, Findings], None] | None:
    """Returns what leaves a trained cell's weights where its place says; None for a twin, whose model is the same."""
    if place.role != ALONE.role:
        return None
    return lambda built, findings: _leave(built, findings, place)


def _leave(built: BuiltCell, findings: Findings, place: Place) -> None:
    """Leaves the weights of a trained cell. That they cannot be written costs nothing of what was measured: the model
    is trained again then, should it be the one.
    """
    from safetensors.torch import save

    if built.adapter is not None or built.cell.fold is not None or findings.plan is None:
        return
    path = Path(place.trained) / name_of(place.name or built.cell.id, place.block)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier measurement of the cell
        sealed = _sealed(findings.test.predictions_sha256 if findings.test else None, findings.accuracy_val)
        write_aside(path, save(_changed(built, findings.plan), sealed))
    except Exception:  # whatever it is: the cell is measured
        return


def _sealed(predictions_sha256: str | None, accuracy_val: float | None) -> dict[str, str]:
    """Returns what ties weights to the record that was made with them."""
    return {"predictions_sha256": str(predictions_sha256), "accuracy_val": repr(accuracy_val)}


def _changed(built: BuiltCell, plan: TrainingPlan) -> dict[str, Tensor]:
    """Returns each parameter and buffer that training may have changed, on the CPU."""
    return weights_of(built.model, without=frozenset(plan.frozen))


def left_by(record: Record, folder: Path) -> Path | None:
    """Returns the weights that a record's cell has left; None where there are none, or its results on single test
    images are not there to hold a model against.
    """
    path = folder / name_of(record.id, record.block)
    known = record.per_image is not None and record.per_image.split("test", logits=False) is not None
    return path if known and path.is_file() else None


def restore(cell: Cell, settings: Settings, record: Record, weights: Path) -> tuple[BuiltCell, Findings]:
    """Builds a record's cell with the weights that it had left, and returns it with what the record says of it.

    Errors: as `tlbench.measure.build.build`; ValueError where the weights are not those of this model, or what was
    frozen is another by now; OSError.
    """
    expression, findings = parse_policy(cell.freeze), Findings()
    built = findings.building.build(cell, settings, expression)
    findings.plan = plan_training(built, expression)
    _put_back(built, findings, weights, record)
    return built, findings


def _put_back(built: BuiltCell, findings: Findings, path: Path, record: Record) -> None:
    """Gives a cell that was built, and planned, the weights that it had left, and ``findings`` what its record says.

    Errors: ValueError where they are not those of this model, or the frozen part is another; OSError.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    assert findings.plan is not None
    if record.frozen_sha256_after not in (None, findings.plan.frozen_sha256):
        raise ValueError("the frozen part is another by now")
    try:
        with safe_open(path, "pt") as file:
            sealed = file.metadata()
        if sealed != _sealed(record.predictions_sha256, record.accuracy_val):
            raise ValueError("they are of another measurement")
        changed = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    expected = {name: tensor.shape for name, tensor in _changed(built, findings.plan).items()}
    if {name: tensor.shape for name, tensor in changed.items()} != expected:
        raise ValueError("they are of another model")
    built.model.load_state_dict({**built.model.state_dict(), **changed})
    findings.frozen_sha256_after = freezing.fingerprint(built.model, findings.plan.frozen)
    findings.accuracy_val = record.accuracy_val
    findings.test = _as_recorded(built, record)


def _as_recorded(built: BuiltCell, record: Record) -> TestResult:
    """Returns what the measured model said of the test images, which the kept one is held against.

    Errors: ValueError where that is not there, or of other images.
    """
    results = None if record.per_image is None else record.per_image.split("test", logits=False)
    if results is None or not np.array_equal(results.labels, built.data.test.labels.numpy()):
        raise ValueError("what it said of the test images is not there")
    predictions = torch.from_numpy(results.predictions.astype(np.int64))
    evaluation = Evaluation(
        accuracy=record.accuracy_test or 0.0,
        loss=record.loss_test or 0.0,
        predictions=predictions,
        seconds=record.test_seconds or 0.0,
    )
    return TestResult(
        accuracy_test=record.accuracy_test,
        accuracy_test_clean=record.accuracy_test_clean,
        loss_test=record.loss_test,
        test_seconds=record.test_seconds,
        predictions_sha256=record.predictions_sha256,
        evaluation=evaluation,
    )
