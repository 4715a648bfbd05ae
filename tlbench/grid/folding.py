"""How folds of a cross-validation are written: ``5`` for all five, ``2of5`` for one of them, ``off`` for none."""

from __future__ import annotations

import re

AUTO = "auto"
"""Folds where one split would leave too few test images (`tlbench.data.folds.FEW`), decided when a run begins."""
MOST_FOLDS = 100
EXPECTED = f"a number of folds from 2 to {MOST_FOLDS}, one fold such as 1of5, auto, or off"


def spread_folds(value: object) -> list[object]:
    """Returns each fold of a number of folds; what is no number as it is.

    >>> spread_folds("3")
    ['1of3', '2of3', '3of3']
    """
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(written, str) or not re.fullmatch(r"\s*\d{1,3}\s*", written, re.ASCII):
        return [value]
    count = int(written)
    return [f"{fold}of{count}" for fold in range(1, count + 1)] if 2 <= count <= MOST_FOLDS else [value]


def parse_fold(value: object) -> str | None:
    """Reads one fold, None for ``off``. Errors: ValueError saying what is expected."""
    text = value.strip() if isinstance(value, str) else ""
    if text == "off":
        return None
    found = re.fullmatch(r"(\d{1,3})of(\d{1,3})", text, re.ASCII)
    if text == AUTO:
        return text
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST_FOLDS or int(found[2]) < 2:
        raise ValueError(EXPECTED)
    return f"{int(found[1])}of{int(found[2])}"


def fold_of(text: str) -> tuple[int, int]:
    """Returns which fold a text names, from 1, and of how many.

    >>> fold_of("2of5")
    (2, 5)
    """
    number, _, count = text.partition("of")
    return int(number), int(count)


def folds_of(text: str | None) -> int | None:
    """Returns the number of folds that a fold is one of: all of them are measured together, and pooled. None for no
    fold.
    """
    return None if text is None else fold_of(text)[1]


def whole_of(text: str) -> str:
    """Writes what stands for all images of a cross-validation, none left out: nobody can ask for it as a cell.

    >>> whole_of("2of5")
    '0of5'
    """
    return f"0of{fold_of(text)[1]}"


def is_whole(text: str | None) -> bool:
    """Tells whether a fold is none of them, so that all images are trained on."""
    return text is not None and fold_of(text)[0] == 0


def fold_label(text: str | None) -> str:
    """Writes a fold for an id."""
    return "unfolded" if text is None else f"f{text}"
