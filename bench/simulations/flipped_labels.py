"""Wrong labels that are known: how many of them stand in the first tenth of the list of suspects.

    python bench/simulations/flipped_labels.py FOLDER [--share 0.05] [--seeds 0-4] [--image-size 96]

Some labels of a folder are replaced by another class, at random. A linear probe on the frozen features of a backbone is
trained on each fold's rest (AdamW, as `tlbench run --freeze linear_probe` trains its head), and images are ranked by
several scores of how surely the models contradict their label.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simulations.few_images import Features, features_of
from tlbench.analysis.suspects import contradiction, probabilities
from tlbench.data.folds import fold_parts
from tlbench.grid.values import spread

FIRST = 0.1
"""Part of the list that is looked at."""
EPOCHS, BATCH, RATE, DECAY = 10, 32, 3e-3, 0.01


def flipped(labels: NDArray[np.int64], classes: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns labels of which a share is another class."""
    wrong = labels.copy()
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    wrong[chosen] = (wrong[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return wrong


def probe(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> nn.Linear:
    """Trains a linear layer on features."""
    torch.manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(layer.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return layer


def out_of_fold(features: Features, labels: NDArray[np.int64], seed: int, folds: int = 5) -> NDArray[np.float64]:
    """Returns the probabilities (n, classes) that models give which have not seen the image."""
    classes = len(features.known.classes)
    shares = np.zeros((len(labels), classes))
    for number in range(1, folds + 1):
        # folds go by the labels before they were flipped, as with --relabel
        parts = fold_parts(features.known, {"train": range(len(labels))}, (number, folds), seed)
        train, test = np.array(parts["train"]), np.array(parts["test"])
        layer = probe(features.x[train], labels[train], classes, seed)
        with torch.inference_mode():
            shares[test] = probabilities(layer(torch.from_numpy(features.x[test])).numpy())
    return shares


def _others(shares: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the largest share of the other classes."""
    found: NDArray[np.float64] = shares[np.arange(len(labels)), contradiction(shares, labels)[1]]
    return found


def scores_of(shares: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Returns scores of each image, the most suspect highest, by their names."""
    rows = np.arange(len(labels))
    own = shares[rows, labels]
    usual = np.array(
        [own[labels == label].mean() if (labels == label).any() else 0.0 for label in range(shares.shape[1])]
    )
    adjusted = shares - usual
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1) / np.log(shares.shape[1])
    return {
        "self-confidence": -own,
        "normalized margin": _others(shares, labels) - own,
        "margin less the class's usual confidence": _others(adjusted, labels) - adjusted[rows, labels],
        "self-confidence less the class's usual one": usual[labels] - own,
        "confidence-weighted entropy": entropy / np.maximum(own, 1e-12),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--image-size", type=int)
    given = parser.parse_args()
    features = features_of(given.folder, size=given.image_size)
    true = np.array(features.known.labels)
    first = round(FIRST * len(true))
    found: dict[str, list[float]] = {}
    accuracies = []
    for seed in map(int, map(str, spread(given.seeds))):
        labels = flipped(true, len(features.known.classes), given.share, np.random.default_rng(seed))
        shares = out_of_fold(features, labels, seed)
        accuracies.append(float((shares.argmax(axis=1) == true).mean()))
        wrong = labels != true
        for name, score in scores_of(shares, labels).items():
            order = np.argsort(-score, kind="stable")[:first]
            found.setdefault(name, []).append(float(wrong[order].sum() / wrong.sum()))
    print(f"{len(true)} images, {round(given.share * len(true))} flipped, accuracy {100 * np.mean(accuracies):.1f} %")
    for name, values in found.items():
        each = ", ".join(f"{100 * value:.0f}" for value in values)
        print(f"{name}: {100 * np.mean(values):.1f} % in the first {first} ({each})")


if __name__ == "__main__":
    main()
