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


def with_classes(record, classes=10, images=60, gain=3.0, logits=True, files=None, **given):
    """The record with answers of a model of so many classes for so many images a split, of which it takes each class
    for its neighbour most often; ``gain`` is how much it knows. ``files``: identity and path of each test image.
    """
    rng = np.random.default_rng([record.cell.seed, classes])
    names = tuple(given.pop("names", [f"class {n}" for n in range(classes)]))
    splits, accuracies = {}, {}
    for split in ("val", "test"):
        own = files if split == "test" and files is not None else []
        count = len(own) or images
        labels = np.arange(count) % classes
        made = rng.normal(size=(count, classes))
        made[np.arange(count), labels] += gain
        made[np.arange(count), np.minimum(labels ^ 1, classes - 1)] += gain / 2
        made = (made - made.max(axis=1, keepdims=True)).astype(np.float16)
        splits[split] = SplitResults(
            images=np.stack([np.frombuffer(identity, np.uint8) for identity, _ in own]) if own
            else identities(split, count),
            labels=labels.astype(np.uint16), predictions=made.argmax(axis=1).astype(np.uint16),
            logits=made if logits else None, classes=names, files=tuple(path for _, path in own),
            trained=np.full(classes, 7) if split == "test" else None,
        )  # fmt: skip
        accuracies[f"accuracy_{split}"] = float(splits[split].correct.mean())
    counts = {split: len(results.labels) for split, results in splits.items()}
    return replace(
        record, per_image=PerImage(splits), classes=classes, samples={**record.samples, **counts}, **accuracies, **given
    )


def leading(records, **given):
    """The records, of which those of one cell are the most accurate and keep answers with classes and logits."""
    cells = [one.cell for one in records if one.status == "ok" and one.cell.task == "train" and one.role == "cell"]
    first = replace(cells[0], seed=0)
    return [
        with_classes(one, gain=9.0, **given) if replace(one.cell, seed=0) == first and one.status == "ok" else one
        for one in records
    ]
