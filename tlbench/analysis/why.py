"""Why a question of a verdict has no answer, or none that is certain: in words."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.folded import images_of
from tlbench.analysis.learning import Candidates
from tlbench.analysis.metrics import ACCURACY, Metric
from tlbench.analysis.summary import Configuration

ONE_POINT = 0.01
"""Accuracy that one may give up for a cheaper cell."""


def of_one_image(row: Configuration) -> list[str]:
    """Says how much one validation image is, where that is more than the point that one may give up: of one seed's
    accuracy where several are averaged, from the seed that has the most images to the one that has the fewest. Of other
    metrics an image counts by its class, and nothing is said.
    """
    fewest, most = images_of(row, "val_images")
    if not fewest or fewest * ONE_POINT >= 1 or row["metric"] != ACCURACY:
        return []
    least, largest = f"{100 / most:.1f}", f"{100 / fewest:.1f}"
    points = largest if least == largest else f"{least} to {largest}"
    return [f"one validation image is {points} points" + (" of one seed's accuracy" if row["seeds"] > 1 else "")]


def these_images(row: Configuration) -> str:
    """Writes ``these 2,485 validation images``."""
    fewest, most = images_of(row, "val_images")
    return (
        f"these {fewest:,} validation images" if fewest == most else f"{fewest:,} to {most:,} validation images a seed"
    )


def why_no_accuracy(rows: Sequence[Configuration], choice: Candidates, metric: Metric) -> str:
    """Says why there is no cell that could be the most accurate."""
    if choice.ignorant:
        return "no cell learned anything that shows"
    if not any(r["task"] == "train" for r in rows):
        return "no cell was trained; a run with --task train,infer trains as well"
    trained = [r for r in rows if r["task"] == "train" and r["status"] == "ok"]
    if any(r["accuracy_val"] is not None for r in trained):
        return (
            f"no record tells its {metric.words}, since no results on single images are there; --metric accuracy "
            "decides without them"
        )
    if any(r["accuracy_test"] is not None for r in trained):
        return "no validation accuracy is known, and nothing is chosen by test images"
    if trained:
        return f"{rows[0]['dataset']} has no labels that mean anything; run with a data set of real images"
    return "no training cell finished; the failures below say why"


def why_no_inference(rows: Sequence[Configuration]) -> str:
    """Says why there is no cell that could be the fastest."""
    if any(r["task"] == "infer" for r in rows):
        return "no inference cell finished; the failures below say why"
    return "inference was not measured; a run with --task train,infer does"
