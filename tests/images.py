"""Results on single images for hand-made records: each record's accuracies come from images of its own choice."""

from dataclasses import replace

import numpy as np

from tlbench.records.images import PerImage, SplitResults

IMAGES = 1000


def identities(split, count=IMAGES, start=0):
    """What identifies ``count`` images of a split, (count, 16) uint8."""
    numbers = np.arange(start, start + count, dtype=np.uint64)
    return np.stack([numbers, np.full(count, {"val": 1, "test": 2}[split], np.uint64)], axis=1).view(np.uint8)


def results(correct, split="val", start=0):
    """Results of a model that has exactly these images right, of two classes."""
    correct = np.asarray(correct, dtype=bool)
    labels = (np.arange(correct.size) % 2).astype(np.uint8)
    return SplitResults(
        images=identities(split, correct.size, start), labels=labels, predictions=np.where(correct, labels, 1 - labels)
    )


def with_images(record, images=IMAGES, shift=0):
    """The record with results on so many images a split: of the easiest, as many are right as its accuracies say.
    ``shift`` makes others the easiest.
    """
    splits, accuracies = {}, {}
    for split, accuracy in (("val", record.accuracy_val), ("test", record.accuracy_test)):
        right = np.roll(np.arange(images) < round(accuracy * images), shift)
        splits[split] = results(right, split)
        accuracies[f"accuracy_{split}"] = float(right.mean())
    return replace(
        record, per_image=PerImage(splits), samples={**record.samples, "val": images, "test": images}, **accuracies
    )
