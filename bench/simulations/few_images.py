"""A few photographs of many: how often the interval of five folds holds the accuracy on all the others.

    python bench/simulations/few_images.py FOLDER [--photographs 60] [--draws 200] [--head ridge]

The frozen features of a backbone are computed once. Each draw takes some photographs, cross-validates a head on them as
``tlbench run --folds 5`` does (less a part for validation, which chooses what a head chooses), and tests the models of
the folds, and one of all that was drawn, on the photographs that were not.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlbench.analysis.stats import Scores, accuracy_interval
from tlbench.data import Request
from tlbench.data.folds import fold_parts
from tlbench.data.store import Known
from tlbench.heads import Fitted, fit


@dataclass(frozen=True, kw_only=True)
class Features:
    """Holds what a frozen backbone makes of all images of a folder."""

    x: NDArray[np.float32]
    """(n, features)"""
    known: Known
    """Labels, classes and groups of copies of these images."""


def features_of(folder: str, backbone: str = "efficientnet_lite0", size: int | None = None) -> Features:
    """Computes the features of all images of a folder, with pretrained weights."""
    import torch

    from tlbench.backbones import load_backbone
    from tlbench.data import folder as folders
    from tlbench.measure.build import assemble

    loaded = load_backbone(backbone, "pretrained")
    spec = loaded.input
    pixels = size or spec.size
    request = Request(
        size=pixels, resize=spec.resized(pixels), interpolation=spec.interpolation, crop_mode=spec.crop_mode,
        fill=spec.fill, seed=0, path=folder,
    )  # fmt: skip
    images, _ = folders.load(request)
    stages = assemble(loaded, "linear", len(images.classes))[:-1].eval()
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images.labels), 32):
            batch = torch.from_numpy(images.pixels[start : start + 32].copy())
            parts.append(stages((batch.float() / 255 - mean) / std).numpy())
    return Features(x=np.concatenate(parts), known=images)


def predict(fitted: Fitted, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the classes that a fitted head gives to features."""
    found: NDArray[np.int64] = (x @ fitted.weight.T + fitted.bias).argmax(axis=1)
    return found


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Says what came of one draw."""

    low: float
    high: float
    estimate: float
    of_folds: float
    """Accuracy of the folds' models on the photographs that were not drawn."""
    of_all: float
    """The same of a model of all that were drawn."""


def one_draw(features: Features, photographs: int, head: str, seed: int, folds: int = 5) -> Draw | None:
    """Draws photographs and cross-validates; None where a class is too small among them."""
    from tlbench.errors import UserError

    rng = np.random.default_rng(seed)
    labels = np.array(features.known.labels)
    groups = features.known.groups
    order = rng.permutation(len(labels))
    drawn = np.sort(order[:photographs])
    inside = {groups[position] for position in drawn}
    others = np.array([position for position in order[photographs:] if groups[position] not in inside])
    images, correct, fold_of, elsewhere = [], [], [], []
    for number in range(1, folds + 1):
        try:
            parts = fold_parts(features.known, {"train": drawn.tolist()}, (number, folds), seed)
        except UserError:
            return None
        train, val, test = (np.array(parts[part]) for part in ("train", "val", "test"))
        fitted = fit(head, features.x[train], labels[train], features.x[val], labels[val])
        images.append(test)
        correct.append((predict(fitted, features.x[test]) == labels[test]).astype(float))
        fold_of.append(np.full(len(test), number))
        elsewhere.append(float((predict(fitted, features.x[others]) == labels[others]).mean()) * len(test))
    scores = Scores(
        images=(np.concatenate(images),), correct=(np.concatenate(correct),), folds=(np.concatenate(fold_of),)
    )
    interval = accuracy_interval(scores)
    assert interval.low is not None, "folds tell how far models differ"
    assert interval.high is not None, "folds tell how far models differ"
    cut = fold_parts(features.known, {"train": drawn.tolist()}, (1, folds), seed)["val"]
    rest = np.setdiff1d(drawn, cut)
    fitted = fit(head, features.x[rest], labels[rest], features.x[cut], labels[cut])
    return Draw(
        low=interval.low,
        high=interval.high,
        estimate=interval.estimate,
        of_folds=sum(elsewhere) / photographs,
        of_all=float((predict(fitted, features.x[others]) == labels[others]).mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--head", default="ridge")
    parser.add_argument("--image-size", type=int)
    given = parser.parse_args()
    features = features_of(given.folder, size=given.image_size)
    found = [one_draw(features, given.photographs, given.head, seed) for seed in range(given.draws)]
    draws = [one for one in found if one is not None]
    for what in ("of_folds", "of_all"):
        held = np.mean([one.low <= getattr(one, what) <= one.high for one in draws])
        print(f"holds the accuracy on the others, {what}: {100 * held:.1f} % of {len(draws)} draws")
    for name, values in (
        ("estimate", [one.estimate for one in draws]),
        ("accuracy on the others", [one.of_folds for one in draws]),
        ("width", [one.high - one.low for one in draws]),
    ):
        print(f"{name}: {100 * np.mean(values):.1f} % (standard deviation {100 * np.std(values):.1f})")


if __name__ == "__main__":
    main()
