"""Works out what a report shows of the classes of the cells that its verdict names: which are taken for which, how well
each is known, what a confidence is worth, and the images that a model was the surest about, and wrong. All plain data:
the page's script draws it when the section of a cell is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlbench.analysis import answers as analysis
from tlbench.analysis import mistakes
from tlbench.analysis.answers import Answers
from tlbench.analysis.classes import ClassFigures, classes_of
from tlbench.analysis.mistakes import Mistaken, SureMistake
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Scope
from tlbench.console import because
from tlbench.errors import NotApplicable
from tlbench.report import wording
from tlbench.report.disclosure import Disclosure
from tlbench.report.ends import SHARES, ends
from tlbench.report.thumbnails import Thumbnails, pictured, with_picture

MOST_CELLS = 8
"""Most cells of a report that are shown so, those of the first verdicts."""
MOST_PAIRS = 8
"""Pairs of classes that are put into words."""
FEW_CLASSES = 12
"""With so many classes a matrix is legible with all their names; of more, these are the most often mistaken."""
MOST_WHOLE = 300
"""With so many classes a matrix of all of them still shows something."""
MOST_IMAGES = 12
"""Images that are shown."""


def of_picks(scopes: Sequence[Scope], disclosure: Disclosure) -> dict[str, dict[str, Any]]:
    """Maps the trained configurations that the verdicts name to what is shown of their classes; those whose records
    do not tell are not in it.
    """
    thumbnails = Thumbnails()
    named = {row["configuration"]: row for scope in scopes for row in picked(scope)}
    found: dict[str, dict[str, Any]] = {}
    for name, row in named.items():
        if len(found) == MOST_CELLS:
            break
        try:
            found[name] = _of_cell(row, thumbnails, disclosure)
        except NotApplicable:
            continue  # the figures say what is missing
        except Exception as error:  # whatever it is, it costs this part alone
            found[name] = {"lacks": f"What is known of its classes cannot be shown: {because(error)}"}
    return found


def picked(scope: Scope) -> list[Configuration]:
    """Returns the trained configurations that a verdict names, each once; of one that names none, since nothing was
    learned, the best there is.
    """
    picks = [*scope.picks, *([scope.cheapest_tie] if scope.cheapest_tie is not None else [])]
    rows = {pick.row["configuration"]: pick.row for pick in picks if pick.row is not None}
    return [row for row in rows.values() if row["task"] == "train"] or analysis.leaders(scope.rows)


def _of_cell(row: Configuration, thumbnails: Thumbnails, disclosure: Disclosure) -> dict[str, Any]:
    """Returns what is shown of one configuration. Errors: NotApplicable where its records do not tell."""
    answers = analysis.answers_of(row)
    pairs = mistakes.mistaken(answers)
    shown: dict[str, Any] = {
        "asked": _asked(answers),
        "pairs": [pair_in_words(pair, answers.classes) for pair in pairs[:MOST_PAIRS]],
        "more": max(0, len(pairs) - MOST_PAIRS),
        **_matrices(answers, pairs),
        "classes": _class_lines(row, answers, pairs),
    }
    try:
        shown |= _confidence(answers)
        shown |= _wrong(row, answers, thumbnails, disclosure)
    except NotApplicable as error:
        shown["lacks"] = f"Neither reliability nor sure mistakes: {error}."
    return shown


def _asked(answers: Answers) -> str:
    images, count = len(set(answers.images.tolist())), len(answers.labels)
    if answers.models == 1:
        return f"One model judged {wording.count(images, 'test image')}."
    return (
        f"{answers.models} models, one a seed, judged {wording.count(images, 'test image')}: {count:,} answers, which "
        "are counted together."
    )


def pair_in_words(pair: Mistaken, classes: Sequence[str]) -> str:
    """Writes ``12 of 40 Golden-Delicious were taken for Granny-Smith``."""
    were = "was" if pair.count == 1 else "were"
    return f"{pair.count:,} of {pair.asked:,} {classes[pair.true]} {were} taken for {classes[pair.predicted]}"


# --- matrices -------------------------------------------------------------------------------------------------


def _matrices(answers: Answers, pairs: Sequence[Mistaken]) -> dict[str, Any]:
    """Returns the matrix of all classes; of many, that of the most often mistaken with their names, and the whole one
    with those that are taken for each other side by side.
    """
    every = range(len(answers.classes))
    if len(every) <= FEW_CLASSES:
        return {"block": _matrix(list(every), answers)}
    few = mistakes.side_by_side(mistakes.most_mistaken(pairs, FEW_CLASSES), pairs)
    found = {"block": _matrix(few, answers)} if few else {}
    if len(every) <= MOST_WHOLE:
        found["whole"] = _matrix(mistakes.side_by_side(every, pairs), answers)
    return found


def _matrix(classes: Sequence[int], answers: Answers) -> dict[str, Any]:
    """Returns the names, the answers for images of each, and as (row, column, answers) what they were taken for, right
    ones too; the column after the last is any other class.
    """
    counts = mistakes.counts_among(classes, answers)
    cells = [[int(y), int(x), int(counts[y, x])] for y, x in zip(*counts.nonzero(), strict=True)]
    return {
        "names": [answers.classes[one] for one in classes],
        "asked": [int(answers.asked[one]) for one in classes],
        "cells": cells,
        "others": len(classes) < len(answers.classes),
    }


# --- class by class -------------------------------------------------------------------------------------------


def _class_lines(row: Configuration, answers: Answers, pairs: Sequence[Mistaken]) -> list[list[Any]]:
    """Returns a line for each class, the least accurate first, those without test images last: name, training images,
    test images (the number, and as text), accuracy (the number, as text, its interval), what its images are most often
    taken for, and how often.
    """
    worst = {pair.true: pair for pair in reversed(pairs)}
    figures = list(enumerate(classes_of(row["group"])))
    figures.sort(key=lambda each: (each[1].accuracy is None, each[1].accuracy or 0.0, -each[1].images[1]))
    trained = answers.trained or (None,) * len(figures)
    return [_class_line(one, trained[number], worst.get(number), answers.classes) for number, one in figures]


def _class_line(one: ClassFigures, trained: int | None, worst: Mistaken | None, classes: Sequence[str]) -> list[Any]:
    fewest, most = one.images
    images = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    line: list[Any] = [one.name, trained, most, images]
    if one.accuracy is None:
        return [*line, None, "no images", "", "", ""]
    interval = ""
    if one.low is not None and one.high is not None:
        interval = ends(one.accuracy, one.low, one.high, wording.share_end, whole=SHARES, between="–")
    taken = classes[worst.predicted] if worst is not None else ""
    often = f"{worst.count:,} of {worst.asked:,}" if worst is not None else ""
    return [*line, float(f"{one.accuracy:.5g}"), wording.percent(one.accuracy), interval, taken, often]


# --- confidence -----------------------------------------------------------------------------------------------


def _confidence(answers: Answers) -> dict[str, Any]:
    found = analysis.reliability(answers)
    return {
        "bins": [[one.count, float(f"{one.confidence:.4g}"), float(f"{one.right:.4g}")] for one in found.bins],
        "calibration": reliability_in_words(found),
    }


def reliability_in_words(found: analysis.Reliability) -> str:
    """Says how far confidences lie from accuracies, and to which side."""
    gap = found.confidence - found.right
    side = "surer than they are right" if gap > 0 else "less sure than they are right"
    words = f", on the whole {side}" if abs(gap) > found.ece / 2 and abs(gap) >= 0.005 else ""
    return (
        f"Expected calibration error {wording.percent(found.ece)} over {len(found.bins)} bins; negative log-likelihood "
        f"{wording.number(found.nll)} nats. Mean confidence {wording.percent(found.confidence)}, "
        f"{wording.percent(found.right)} right{words}."
    )


def _wrong(row: Configuration, answers: Answers, thumbnails: Thumbnails, disclosure: Disclosure) -> dict[str, Any]:
    """Returns the surest mistakes, each with its image where that is wanted and still there, and what to say of those
    that are not. Errors: NotApplicable without logits.
    """
    records = [item.record for item in row["group"] if item.record is not None]
    wanted = disclosure.thumbnails and all(record.settings.thumbnails for record in records)
    found = list(mistakes.surest_mistakes(answers, MOST_IMAGES))
    lines = [_mistake(mistake, answers) for mistake in found]
    if disclosure.file_names:
        lines = [line | {"file": mistake.file} for line, mistake in zip(lines, found, strict=True)]
    if not wanted:
        return {"wrong": lines, "without": []}
    pictures, without = pictured(thumbnails, records, [(mistake.file, mistake.identity) for mistake in found])
    return {"wrong": [with_picture(*one) for one in zip(lines, pictures, strict=True)], "without": without}


def _mistake(mistake: SureMistake, answers: Answers) -> dict[str, str]:
    line = {
        "true": answers.classes[mistake.true],
        "taken": answers.classes[mistake.predicted],
        "sure": wording.percent(mistake.confidence),
    }
    return line | ({"models": f"{mistake.wrong} of {mistake.models} models wrong"} if mistake.models > 1 else {})


# --- for pages without a script -------------------------------------------------------------------------------

MOST_LINES = 10
"""Classes that Markdown lists."""


def in_lines(name: str, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the name of a configuration, what there is to say of its classes, and of the least known ones a line
    each."""
    said = [shown.get("asked"), shown.get("calibration"), shown.get("lacks")]
    classes = shown.get("classes", [])
    return {
        "name": name,
        "said": list(filter(None, said)),
        "pairs": shown.get("pairs", []),
        "classes": [_in_words(line) for line in classes[:MOST_LINES]],
        "count": len(classes),
    }


def _in_words(line: Sequence[Any]) -> list[str]:
    name, trained, _, images, _, accuracy, interval, taken, often = line
    return [
        name,
        wording.whole(trained),
        images,
        f"{accuracy} ({interval})" if interval else accuracy,
        f"{taken}, {often}" if taken else wording.UNKNOWN,
    ]
