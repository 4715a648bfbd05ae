"""Tests a finished model once on what it was not trained for: other data sets, and its test images corrupted.

It is done last and nothing is chosen by it. Each test has its own seconds, which are of evaluation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from tlbench.data import Split
from tlbench.data.corruptions import STRENGTHS, names_of
from tlbench.errors import LostInput, UserError
from tlbench.grid.other_tests import named
from tlbench.machine.clock import now
from tlbench.measure.build import BuiltCell
from tlbench.measure.images import load_other_images
from tlbench.records.images import IDENTITY_BYTES, SplitResults
from tlbench.train.activations import key_of
from tlbench.train.chunks import chunk_of
from tlbench.train.corrupted import Corrupted
from tlbench.train.evaluate import Evaluation, evaluate
from tlbench.train.featured import Featured, has_room, prefix_over
from tlbench.train.prefix import Feed
from tlbench.train.source import Source


@dataclass(kw_only=True)
class OtherTests:
    """Holds what came of a cell's other tests so far, by their names."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """As `tlbench.records.record.Record.other_tests` has them."""
    splits: dict[str, SplitResults] = field(default_factory=dict)
    """What the model said of each image."""


def run_other_tests(built: BuiltCell, model: nn.Sequential, pristine: int, found: OtherTests) -> None:
    """Tests the cell's finished model, of which ``pristine`` stages have their initial weights, on all that its
    settings ask for; each test is in ``found`` when it is done.

    Errors: LostInput for images that cannot be had any more.
    """
    if not built.data.measures_accuracy:
        return
    for text in built.settings.also_test:
        _elsewhere(built, (model, pristine), *named(text), found)
    test = built.data.test
    places = test.index.tolist()
    identities = [built.data.identities[n] for n in places]
    # As they are kept of the test images, so that one file serves all.
    said: dict[str, Any] = {
        "classes": built.data.classes,
        "files": tuple(built.data.files[n] for n in places) if built.data.files else (),
        "trained": np.bincount(built.data.train.classes, minlength=len(built.data.classes)),
    }
    for kind in built.settings.corrupt:
        for strength, name in zip(STRENGTHS, names_of([kind]), strict=True):
            source = Corrupted(built.sources["test"], test, kind, strength)
            evaluation = _evaluated(built, (model, pristine), source, test, source.prepared, corruption=name)
            found.figures[name] = _figures(evaluation)
            found.splits[name] = replace(_results(evaluation, test, identities), **said)


Finished = tuple[nn.Sequential, int]
"""A model, and how many of its stages have their initial weights."""


def _evaluated(
    built: BuiltCell,
    finished: Finished,
    source: Source,
    split: Split,
    prepare: Callable[[Tensor], Tensor],
    **decided: Any,
) -> Evaluation:
    """Evaluates a model on a test. Where all stages but the head are as they were, what they make of the images is kept
    for other cells, as far as there is room: a probe of another seed or head need not run them again. ``decided`` is
    what else than the rows decides that.
    """
    (model, pristine), store, batch = finished, built.store, built.cell.batch_size
    features = 4 * int(np.prod(built.stages[-2].output)) * len(split)
    if store is None or source.arithmetic.device.type != "cpu" or pristine < len(model) - 1:
        return evaluate(model, source, batch)
    key = key_of(plain=store.plain.key, rows=split.index.tolist(), decode=built.cell.decode, **decided)
    prefix = prefix_over(store.plain, split, prepare, key)
    if not (prefix.has(pristine) or has_room(store.plain, features)):
        return evaluate(model, source, batch)
    store.tests.add(key)
    kept = Featured(source, prefix, split.labels.to(source.arithmetic.device))
    return evaluate(model, kept, batch, pristine, chunk_of(built.size, source.arithmetic.device))


def _elsewhere(built: BuiltCell, finished: Finished, name: str, dataset: str, found: OtherTests) -> None:
    begin = now()
    with _lost(name):
        taken = built.input, built.size
        there, split = load_other_images(built.cell, built.settings, taken, dataset, built.data)
    loading = now() - begin
    source = Feed(split, built.input, built.arithmetic)
    evaluation = _evaluated(built, finished, source, split, source.normalise, dataset=dataset, images=there.sha256)
    found.figures[name] = {
        "dataset": dataset,
        **_figures(evaluation),
        "loading_seconds": loading,
        "classes": there.classes,
        "missing": list(there.missing),
        "unknown": list(there.unknown),
        "left_out_images": there.left_out,
        "seen_images": there.seen,
        "dropped_images": there.dropped,
        "data_sha256": there.sha256,
    }
    found.splits[name] = _results(evaluation, split, there.identities)


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": evaluation.accuracy,
        # What a model says of images that it was not made for may be beyond what a number holds.
        "loss": evaluation.loss if math.isfinite(evaluation.loss) else None,
        "images": len(evaluation.predictions),
        "seconds": evaluation.seconds,
        "predictions_sha256": hashlib.sha256(evaluation.predictions.numpy().tobytes()).hexdigest(),
    }


def _results(evaluation: Evaluation, split: Split, identities: Sequence[bytes]) -> SplitResults:
    joined = b"".join(identity[:IDENTITY_BYTES] for identity in identities)
    return SplitResults(
        images=np.frombuffer(joined, np.uint8).reshape(-1, IDENTITY_BYTES),
        labels=split.labels.numpy(),
        predictions=evaluation.predictions.numpy(),
    )


@contextmanager
def _lost(name: str) -> Iterator[None]:
    """Turns the errors of images that a check has seen before into LostInput."""
    try:
        yield
    except UserError as error:
        raise LostInput(f"--also-test {name}: {error}") from None
