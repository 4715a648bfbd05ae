"""Puts into words and into a table what configurations score elsewhere: on other data sets, on corrupted images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlbench.analysis.elsewhere import CORRUPTED, Elsewhere, Pair, Result
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Scope
from tlbench.report import wording
from tlbench.report.ends import SHARES, ends

TESTED = "test"
"""Heading of the accuracy on the test images."""


def sentences(scope: Scope) -> list[str]:
    """Returns a sentence for each test in which the order of the cells was looked at; none where there was none."""
    return [text for one in scope.elsewhere if (text := _sentence(one, scope))]


def _sentence(one: Elsewhere, scope: Scope) -> str:
    where = f"On the images of {one.test.label}"
    if one.test.corrupts:
        where = "On corrupted test images" + f" ({one.test.label})" * (one.test.label != CORRUPTED)
    if one.standing == "other order":
        first, more = one.pairs[0], len(one.pairs) - 1
        others = f", as do {wording.count(more, 'other pair')}" if more else ""
        return f"{where} the order is another: {_places(first, scope)}, both beyond chance{others}."
    if one.standing == "behind":
        return f"{where}, {_ahead(one.pairs[0], scope)}."
    if one.standing == "cannot say":
        if one.one_seed:
            return f"{where} it cannot be said whether the order is another: one seed tells no spread."
        assert one.first is not None
        return (
            f"{where} it cannot be said whether the order is another: {_named(one.first, scope)} came out first, with "
            f"{wording.percent(one.first.accuracy)}, which may be chance."
        )
    if one.standing == "same":
        assert one.first is not None
        share = wording.percent(one.first.accuracy)
        said = _fallen(one.pairs, scope) if one.pairs else "no two cells change places beyond chance"
        return f"{where} the pick stays ahead, with {share}; {said}."
    return ""


def _places(pair: Pair, scope: Scope) -> str:
    a, b = pair.ahead, pair.behind
    return (
        f"{_named(a, scope)} is ahead of {_named(b, scope)} there ({_percents(a.accuracy, b.accuracy)}), and behind it "
        f"on the test images ({_percents(a.row['accuracy_test'], b.row['accuracy_test'])})"
    )


def _ahead(pair: Pair, scope: Scope) -> str:
    a, b = pair.ahead, pair.behind
    here = "so it is" if pair.here_too else "the two cannot be told apart"
    return (
        f"{_named(a, scope)} is ahead of the pick, {_named(b, scope)}, beyond chance "
        f"({_percents(a.accuracy, b.accuracy)}); on the test images {here} "
        f"({_percents(a.row['accuracy_test'], b.row['accuracy_test'])})"
    )


def _fallen(pairs: Sequence[Pair], scope: Scope) -> str:
    """Says what falls behind the pick there, and on the test images does not."""
    names = wording.few([_named(pair.behind, scope) for pair in pairs])
    shares = wording.few([wording.percent(pair.behind.accuracy) for pair in pairs])
    fall = "falls" if len(pairs) == 1 else "fall"
    return f"{names} {fall} behind it beyond chance ({shares}), and cannot be told from it on the test images"


def _percents(one: float, other: float) -> str:
    return f"{wording.percent(one).removesuffix(' %')} against {wording.percent(other)}"


def _named(one: Result, scope: Scope) -> str:
    return wording.label(one.row, wording.varying(scope.rows))


# --- the table ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Table:
    """Holds a table of a scope: a row a configuration, a column a test."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    """The configuration's hash and its name, and for each column the accuracy and its interval, empty where it has
    none."""
    notes: tuple[str, ...]


def table_of(scope: Scope) -> Table | None:
    """Returns the table of a scope; None where nothing was tested elsewhere."""
    if not scope.elsewhere:
        return None
    by_test = [{id(one.row): one for one in test.results} for test in scope.elsewhere]
    rows = [row for row in scope.rows if row["task"] == "train" and row["accuracy_test"] is not None]
    rows.sort(key=lambda row: -(row["accuracy_val"] or 0))
    differs = wording.varying(scope.rows)
    return Table(
        headings=(TESTED, *(one.test.label for one in scope.elsewhere)),
        rows=tuple(
            (
                row["configuration"],
                wording.label(row, differs),
                (_on_test(row), *(_cell(f.get(id(row))) for f in by_test)),
            )
            for row in rows
        ),
        notes=tuple(notes(scope.elsewhere)),
    )


def _on_test(row: Configuration) -> tuple[str, str]:
    return _written(row["accuracy_test"], row["accuracy_test_low"], row["accuracy_test_high"])


def _cell(one: Result | None) -> tuple[str, str]:
    return (wording.UNKNOWN, "") if one is None else _written(one.accuracy, one.low, one.high)


def _written(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    text = wording.percent(value)
    if low is None or high is None:
        return text, ""
    return text, ends(value, low, high, wording.share_end, whole=SHARES, between="–")


def notes(found: Sequence[Elsewhere]) -> list[str]:
    """Says of each test what it is of, what of it is left out, and which cells lack it."""
    lines: list[str] = []
    for one in found:
        about = [*_about(one), *_lacking(one)]
        if about:
            lines.append(f"{one.test.label}: {'; '.join(about)}")
    if any(one.test.corrupts for one in found):
        lines.append(
            "corruptions of the test images, each in three strengths, of which the means are shown; corrupted is the "
            "mean over all of them"
        )
    return lines


def _about(one: Elsewhere) -> list[str]:
    """Says what data set is behind a test, as the records tell it."""
    records = [item.record for r in one.results for item in r.row["group"] if item.record is not None]
    told: list[dict[str, Any]] = [
        dict(r.other_tests[n]) for r in records for n in one.test.splits if n in r.other_tests
    ]
    told = [each for each in told if "dataset" in each]
    if not told:
        return []
    first = told[0]
    parts = [str(first["dataset"])]
    if (counts := [each["images"] for each in told if isinstance(each.get("images"), int)]) and not one.test.corrupts:
        most = "up to " if min(counts) < max(counts) else ""
        parts.append(most + wording.count(max(counts), "image"))
    for field, words in LEFT_OUT.items():
        if names := first.get(field):
            parts.append(words.format(wording.few([str(name) for name in names])))
    for field, words in COUNTED.items():
        if count := max((each[field] for each in told if isinstance(each.get(field), int)), default=0):
            parts.append(words.format(wording.count(count, "image")))
    return parts


LEFT_OUT = {
    "missing": "no image of {}",
    "unknown": "without {}, which the training set does not have",
}
"""Field of a record's test that names classes -> what is said of them."""
COUNTED = {
    "left_out_images": "{} of these left out",
    "seen_images": "{} left out, being files that were trained on or chosen by",
    "dropped_images": "{} that cannot be read",
}


def _lacking(one: Elsewhere) -> list[str]:
    return [f"not measured for {wording.count(one.lacking, 'configuration')}"] if one.lacking else []
