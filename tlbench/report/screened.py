"""What screens of these images foretold, beside what the cells then measured."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis import screens, transferability
from tlbench.analysis.screens import COLUMNS, Screened
from tlbench.analysis.summary import Configuration

NAMES = {"ridge": "ridge", "knn": "kNN", "logme": "LogME", "top1": "ImageNet top-1", "parameters": "parameters"}


def foretold(summary: Sequence[Configuration]) -> list[str]:
    """Says of each column of earlier screens how it ranked the backbones by the best validation accuracy that each
    reached here; nothing where no screen has told of enough of them, so that their order would be chance.
    """
    lines = []
    trained = [row for row in summary if row["task"] == "train" and row["accuracy_val"] is not None]
    for dataset in dict.fromkeys(row["dataset"] for row in trained):
        best: dict[str, Configuration] = {}
        for row in trained:
            if (
                row["dataset"] == dataset
                and row["accuracy_val"] > best.get(row["backbone"], {"accuracy_val": -1})["accuracy_val"]
            ):
                best[row["backbone"]] = row
        if len(best) < transferability.LEAST:
            continue
        told = [found for name, row in best.items() if (found := _told(name, row)) is not None]
        accuracies = {name: row["accuracy_val"] for name, row in best.items()}
        rankings = [
            transferability.ranking(NAMES[column], screens.by_column(told, column), accuracies) for column in COLUMNS
        ]
        lines += [f"Screened, {text}." for text in transferability.in_words(rankings)]
    return lines


def _told(backbone: str, row: Configuration) -> Screened | None:
    record = row["record"]
    if record is None or record.images_sha256 is None:
        return None
    weights = record.weights.get("sha256")
    return next(
        (
            one
            for one in screens.recall(record.images_sha256)
            if (one.backbone, one.weights_sha256) == (backbone, weights)
        ),
        None,
    )
