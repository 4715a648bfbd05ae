"""What a cell's model has learned, on its validation and test images; and the trainer that teaches it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tlbench.data import Data
from tlbench.measure.build import BuiltCell
from tlbench.policies.base import Phase
from tlbench.records.images import IDENTITY_BYTES, PerImage, SplitResults
from tlbench.train.chunks import chunk_of
from tlbench.train.evaluate import Evaluation, evaluate
from tlbench.train.loop import Batching, Diverged, Trainer
from tlbench.train.recipe import Recipe

MERGED = {False: 1e-3, True: 2e-2}
"""How far the logits of a merged model may be off, as a share of the largest one: in fp32, and where products round
their factors to the 10 bits of TF32 (2^-11 each), over a model's depth."""


class DivergedAfter(Diverged):
    """An evaluation after an epoch is the first to show that training has diverged."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """Holds what came of the test images; all None where the data set measures no accuracy."""

    __test__ = False  # no class of tests, whatever its name says to pytest

    accuracy_test: float | None = None
    accuracy_test_clean: float | None = None
    """Without the copies of training and validation images; None where there are none."""
    loss_test: float | None = None
    test_seconds: float | None = None
    predictions_sha256: str | None = None
    """SHA-256 of the predicted classes, in order."""
    evaluation: Evaluation | None = None
    """What these figures were taken from; no field of the record."""


def make_trainer(built: BuiltCell, model: nn.Sequential, plan: Sequence[Phase], recipe: Recipe) -> Trainer:
    """Makes what trains a model on the cell's images; what was compiled is for the cell's own model alone."""
    batching = Batching(size=built.cell.batch_size, seed=built.cell.seed)
    compiled = built.compiled if model is built.model else None
    return Trainer(model, plan, recipe, built.sources["train"], batching, compiled)


def evaluate_split(
    built: BuiltCell, split: str, pristine: int, model: nn.Sequential | None = None, keep_logits: bool = False
) -> Evaluation | None:
    """Evaluates the cell's model, or another one; None where the data set measures no accuracy.

    ``pristine`` stages still have their initial weights; logits are kept where that is wanted here and by the settings
    (``--logits``). Errors: DivergedAfter where the loss is no number.
    """
    if not built.data.measures_accuracy:
        return None
    model = built.model if model is None else model
    # The batches of the prefix are known to fit.
    chunk = chunk_of(built.size, built.arithmetic.device)
    keep = keep_logits and built.settings.logits
    evaluation = evaluate(model, built.sources[split], built.cell.batch_size, pristine, chunk, keep)
    if not math.isfinite(evaluation.loss):
        raise DivergedAfter(f"after it, the loss on the {split} images is {evaluation.loss}")
    return evaluation


def accuracy_without_copies(data: Data, split: str, evaluation: Evaluation | None) -> float | None:
    """Returns the accuracy on the images of a split that are no copies of images seen before; None where none is one,
    and where all are.
    """
    leaked, labels = list(data.leaked[split]), getattr(data, split).labels
    if evaluation is None or not 0 < len(leaked) < len(labels):
        return None
    clean = torch.ones(len(labels), dtype=torch.bool)
    clean[leaked] = False
    return float((evaluation.predictions == labels)[clean].double().mean())


def look_at_test_images(built: BuiltCell, pristine: int, model: nn.Sequential) -> TestResult:
    """Evaluates the finished model (`merged`) on the test split, which is looked at once, here: nothing is chosen on
    it.
    """
    evaluation = evaluate_split(built, "test", pristine, model, True)
    if evaluation is None:
        return TestResult()
    predictions = hashlib.sha256(evaluation.predictions.numpy().tobytes()).hexdigest()
    return TestResult(
        accuracy_test=evaluation.accuracy,
        accuracy_test_clean=accuracy_without_copies(built.data, "test", evaluation),
        loss_test=evaluation.loss,
        test_seconds=evaluation.seconds,
        predictions_sha256=predictions,
        evaluation=evaluation,
    )


def per_image(built: BuiltCell, evaluations: Mapping[str, Evaluation | None]) -> PerImage | None:
    """Returns what the cell's model said of each image of these splits; None where nothing was evaluated."""
    data, splits = built.data, {}
    for name, evaluation in evaluations.items():
        if evaluation is not None:
            split = getattr(data, name)
            places = split.index.tolist()
            identities = b"".join(data.identities[n][:IDENTITY_BYTES] for n in places)
            splits[name] = SplitResults(
                images=np.frombuffer(identities, np.uint8).reshape(-1, IDENTITY_BYTES),
                labels=split.labels.numpy(),
                predictions=evaluation.predictions.numpy(),
                logits=None if evaluation.logits is None else evaluation.logits.numpy(),
                classes=data.classes,
                files=tuple(data.files[n] for n in places) if data.files else (),
                trained=np.bincount(data.train.classes, minlength=len(data.classes)) if name == "test" else None,
            )
    return PerImage(splits) if splits else None


def merged(built: BuiltCell) -> nn.Sequential:
    """Returns the model without its adapter, where that can be merged.

    Errors: RuntimeError when merging changed what the model computes.
    """
    if built.adapter is None or built.adapter.merge is None:
        return built.model
    built.model.eval()
    source = built.sources["val"]
    images = source.normalise(source.raw(torch.arange(min(len(source), built.cell.batch_size)))[0])
    with torch.inference_mode():
        before = built.model(images)
    model = built.adapter.merge(built.injected)
    with torch.inference_mode():
        after = model.eval()(images)
    tolerance = MERGED[built.arithmetic.precision == "tf32"]
    if not torch.allclose(before, after, rtol=tolerance, atol=tolerance * float(before.abs().max())):
        raise RuntimeError(f"the merged model's logits differ by {float((before - after).abs().max()):.2g}")
    return model
