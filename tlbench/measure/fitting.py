"""Training-free heads: features once, then a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from tlbench.errors import NotApplicable
from tlbench.grid.folding import is_whole
from tlbench.heads import HEADS, Fitted, check_class_weights, fit
from tlbench.machine.clock import Clock, now, plain_clock
from tlbench.machine.device import peak_memory
from tlbench.measure.build import BuiltCell
from tlbench.measure.outcome import evaluate_split
from tlbench.measure.peaks import kept_by_others
from tlbench.measure.timed import Timed, nothing
from tlbench.records.record import Round
from tlbench.train.evaluate import Evaluation

Features = tuple[Any, Any]
"""Features (n, d) float64 and labels (n,), as numpy arrays."""


class HeadFit:
    """Fits a training-free head: one round extracts the features (or takes them, where they are kept), another fits.

    Errors: NotApplicable where the labels mean nothing, and for what is chosen of training that a fit does not have.
    """

    def __init__(self, built: BuiltCell, trainable_parameters: int) -> None:
        if not built.data.measures_accuracy:
            raise NotApplicable(
                f"the head {built.cell.head} is fitted to labels, and {built.data.name} has none that mean anything"
            )
        check_class_weights(built.cell.head, built.cell.class_weights)
        if built.cell.sampler != "shuffle":
            raise NotApplicable(
                f"the head {built.cell.head} is fitted to all training images at once, no batches are drawn for it: "
                "leave --sampler out"
            )
        if built.cell.augment != "none":
            raise NotApplicable(
                f"the head {built.cell.head} is fitted to the features of images as they are: leave --augment out"
            )
        if built.cell.patience is not None:
            raise NotApplicable(
                f"the head {built.cell.head} is fitted in one go, there are no epochs to stop after: leave --patience "
                "out"
            )
        if built.compiled is not None:
            raise NotApplicable(f"the head {built.cell.head} is fitted, and nothing of that can be compiled")
        self.built, self.trainable_parameters = built, trainable_parameters
        self.fitted: Fitted | None = None
        self._features: dict[str, Features] = {}
        self._extraction, self._fitting = Timed(built), Timed(built)
        self.evaluation: Evaluation | None = None
        """On the validation images."""
        self._val_features_seconds = 0.0

    def warm_up(self) -> int | None:
        """Extracts the features of one batch, twice. Returns the peak memory in bytes."""
        self.built.model.eval()
        _features(self.built, "train", limit=self.built.cell.batch_size)
        peak = peak_memory(
            self.built.arithmetic.device,
            lambda: _features(self.built, "train", limit=self.built.cell.batch_size) and None,
        )
        return None if peak is None else peak - kept_by_others(self.built)

    def run(self, clock: Clock) -> None:
        """Extracts the training images' features under the clock, fits the head and puts it into the model."""
        self._extraction.run(clock, nothing, self._extract, 1)  # timed
        begin = now()
        self._features["val"] = _features(self.built, "val")
        self._val_features_seconds = now() - begin
        self._fitting.run(plain_clock, nothing, self._fit, 1)  # timed
        assert self.fitted is not None
        put(self.fitted, self.built.model[-1])
        self.evaluation = evaluate_split(self.built, "val", len(self.built.model) - 1, None, True)

    def _extract(self) -> None:
        self._features["train"] = _features(self.built, "train")

    def _fit(self) -> None:
        cell, train = self.built.cell, self._features["train"]
        if is_whole(cell.fold) and HEADS[cell.head].chooses:
            # All images are trained on, those that it chooses by among them: it would choose what learns by heart.
            others = ~np.isin(self.built.data.train.positions, self.built.data.val.positions)
            train = train[0][others], train[1][others]
        self.fitted = fit(cell.head, *train, *self._features["val"], cell.class_weights)

    def rounds(self) -> tuple[Round, ...]:
        """Returns two rounds: the extraction of the features, and the fit."""
        samples, val = len(self.built.data.train), self.evaluation
        extracted = [Round(phase="features", samples=samples, **seen) for seen in self._extraction.rounds()]
        fitted = [
            Round(
                phase="fit",
                samples=samples,
                trainable_parameters=self.trainable_parameters,
                accuracy_val=val.accuracy if val else None,
                loss_val=val.loss if val else None,
                evaluation_seconds=val.seconds + self._val_features_seconds if val else None,
                **seen,
            )
            for seen in self._fitting.rounds()
        ]
        return (*extracted, *fitted)

    def last_evaluation(self) -> Evaluation | None:
        """Returns what came of the validation images after the fit."""
        return self.evaluation

    def energy(self) -> float | None:
        """Returns the joules of both rounds; None where the machine does not tell."""
        if not self._fitting.seconds:
            return None
        both = self._extraction.energy(), self._fitting.energy()
        return None if both[0] is None or both[1] is None else both[0] + both[1]


def put(fitted: Fitted, head: nn.Module) -> None:
    """Puts what was fitted into a head as its `build` makes it."""
    layer = head[-1]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.weight))
        layer.bias.copy_(torch.from_numpy(fitted.bias))
        if fitted.centre is not None:
            head[0].centre.copy_(torch.from_numpy(fitted.centre))  # type: ignore[index]


def _features(built: BuiltCell, split: str, limit: int | None = None) -> Features:
    """Returns the features of a split, or of its first ``limit`` images."""
    source, trunk = built.sources[split], built.model[:-1]
    stored = source.stored(len(trunk), None)
    parts, labels = [], []
    with torch.inference_mode(), built.arithmetic.autocast():
        places = torch.arange(min(len(source), limit or len(source)), device=(stored or source).place)
        for positions in places.split(built.cell.batch_size):
            if stored:
                rows, targets = stored(positions)
            else:
                images, targets = source.raw(positions)
                rows = trunk(source.normalise(images))
            parts.append(rows)
            labels.append(targets)
        # At the end: each transfer makes the device wait.
        return torch.cat(parts).double().cpu().numpy(), torch.cat(labels).cpu().numpy()
