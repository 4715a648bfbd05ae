"""Says what decides a verdict where that is not accuracy, and where validation and test images are not alike."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.metrics import ACCURACY
from tlbench.analysis.splits import Unlike
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Scope
from tlbench.report import wording


def decided_by(scope: Scope) -> str:
    """Says which metric decides, and who cannot be judged by it; empty where that is accuracy."""
    if scope.metric.name == ACCURACY:
        return ""
    said = f"Decided by {scope.metric.words} on the validation images, not by accuracy."
    if scope.untold:
        names = wording.few([wording.label(row, wording.varying(scope.rows)) for row in scope.untold])
        said += f" Left out, since records without results on single images do not tell it: {names}."
    return said


def unlike(scope: Scope) -> str:
    """Says that validation and test images are not alike, of the picked cell where it is one that shows it, and what
    could be behind that; empty where nothing shows it.
    """
    if not scope.unlike:
        return ""
    pick = scope.picks[0].row
    one = next((found for found in scope.unlike if found.row is pick), scope.unlike[0])
    val, test = (wording.percent(one.row[name]) for name in ("accuracy_val", "accuracy_test"))
    apart = f"{100 * abs(one.gap):.1f} points apart where chance allows {100 * one.reach:.1f}"
    trained = sum(row["task"] == "train" and bool(row["records_ok"]) for row in scope.rows)
    others = len(scope.unlike) - 1
    more = f", and so do {others} more of {trained} cells" if others > 1 else ", and so does one more" * others
    name = wording.label(one.row, wording.varying(scope.rows))
    return (
        f"Validation and test images are not alike: {name} gets {val} of the first and {test} of the second right "
        f"({apart}){more}; behind it may be {_causes(one, scope.rows)}, so that what is best on the validation images "
        "need not be on new ones."
    )


def _causes(one: Unlike, rows: Sequence[Configuration]) -> str:
    """Names what may be behind it: first what was seen, then what no look at the images can rule out."""
    if one.gap < 0:
        return "test images that are easier, of another time or place, or in other shares of the classes"
    leaked = max((item.leaked_val_images or 0 for row in rows for item in row["group"]), default=0)
    unseen = "near-copies of training images among the validation images that were not recognised"
    return (
        f"{f'{leaked:,} validation images that are copies of training images' if leaked else unseen}, groups (a place, "
        "a patient, a day) that training and validation share, or test images of another time or place"
    )
