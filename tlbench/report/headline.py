"""Puts a verdict into one sentence, which needs no manual: what to use, what to expect of it, what is cheaper; or why
that cannot be said. One file, since its sentences are of one paragraph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlbench.analysis.averages import JUDGED, OVER_IMAGES
from tlbench.analysis.folded import folds_in
from tlbench.analysis.learning import fell_back, ignorance
from tlbench.analysis.metrics import ACCURACY, DECIDING, metric_of
from tlbench.analysis.raced import RAN_OUT
from tlbench.analysis.stats import ANYTHING, says_nothing
from tlbench.analysis.summary import Configuration
from tlbench.analysis.times import Cheaper, flagged
from tlbench.analysis.verdict import Pick, Scope, ties_within_a_point
from tlbench.errors import UserError
from tlbench.report import elsewhere_words, wording
from tlbench.report.ends import SHARES
from tlbench.report.size_words import chosen_at, overtaking
from tlbench.report.split_words import decided_by, unlike
from tlbench.report.verdict_words import IGNORANCE, capital

NONE_AT_HAND = "nothing can be recommended, since no pretrained weights were at hand; of the cells with random weights"
FEW = 3
"""Names in a sentence at most."""


def headline(scope: Scope) -> str:
    """Returns what to make of the cells of a scope, as one text."""
    return " ".join(sentences(scope))


def sentences(scope: Scope) -> list[str]:
    """Returns what to make of the cells of a scope: one sentence, and others where random weights matter, where another
    metric than accuracy decides, where train sizes differ, where validation and test images are not alike, and for each
    other test.
    """
    accurate, fastest = scope.picks[0], scope.picks[-1]
    if accurate.row is None:
        said = [_nothing(scope, accurate, fastest)]
    else:
        said = [capital(SENTENCES[accurate.standing](scope, accurate)), _random(scope, accurate.row)]
        said.append(_not_continued(scope, accurate.row))
        said += [chosen_at(scope), overtaking(scope)]
    said += [decided_by(scope), unlike(scope)]
    if accurate.row is not None:
        said += elsewhere_words.sentences(scope)
    return [text for text in said if text]


# --- what can be said -----------------------------------------------------------------------------------------


def _decided(scope: Scope, pick: Pick) -> str:
    row = pick.row
    assert row is not None
    if fell_back(row):
        return f"{NONE_AT_HAND}, {_named(row, scope)} is the most accurate: {_figures(row)}{_cheaper(scope, row)}."
    return f"use {_named(row, scope)}: {_figures(row)}{_cheaper(scope, row)}."


def _alone(scope: Scope, pick: Pick) -> str:
    row = pick.row
    assert row is not None
    if scope.candidates.ignorant and fell_back(row):
        return (
            f"{NONE_AT_HAND}, {_named(row, scope)} is the only one that learned anything that shows: {_figures(row)}."
        )
    if scope.candidates.ignorant:
        only = "the only one" if not scope.candidates.random else "of those with pretrained weights the only one"
        return f"use {_named(row, scope)}, {only} that learned anything that shows: {_figures(row)}."
    kind = "one cell with pretrained weights" if scope.candidates.random else "one cell"
    if scope.stopped and any(not one.ended for one in scope.races):
        return f"the race has not ended; {_named(row, scope)} leads with {_figures(row)}."
    if _ran_out(scope):
        return f"only {kind} was measured to the end of the race: {_named(row, scope)} has {_figures(row)}."
    if scope.stopped:
        left = f"left of {1 + len(scope.stopped)} that the race looked at"
        return f"use {_named(row, scope)}, the only one {left}: {_figures(row)}."
    return f"only {kind} was trained, so that there is nothing to choose: {_named(row, scope)} has {_figures(row)}."


def _tied(scope: Scope, pick: Pick) -> str:
    assert pick.row is not None
    rows = [pick.row, *pick.ties]
    begin = f"it cannot be said yet which of {_listed(rows, scope)} is best"
    cheapest = scope.cheapest_tie
    if cheapest is None or cheapest.row is None:
        return f"{begin}; the first of them has {_figures(pick.row)}."
    near = ties_within_a_point(pick.row, pick.ties, scope.metric.val)
    if len(near) == 1:
        how = "came out first"
    else:
        how = "is the cheapest of" if cheapest.standing == "decided" else "took the least training time of"
        how += " them" if len(near) == len(rows) else " those that came out within a point of the first"
    return f"{begin}; {_named(cheapest.row, scope)} {how}: {_figures(cheapest.row)}{_cheaper(scope, cheapest.row)}."


def _cannot_say(scope: Scope, pick: Pick) -> str:
    row = pick.row
    assert row is not None
    one = "one seed cannot tell" if row["seeds"] < 2 and not folds_in(row) else "cells of one seed leave open"
    which = f"the {len(scope.candidates.rows)} cells" + " with pretrained weights" * bool(scope.candidates.random)
    which += " that learned something" * bool(scope.candidates.ignorant)
    return (
        f"{one} which of {which} is best; {_named(row, scope)} came out first here: "
        f"{_figures(row)}{_cheaper(scope, row)}."
    )


SENTENCES = {"decided": _decided, "alone": _alone, "tied": _tied, "cannot say": _cannot_say}
"""Standing of the most accurate cell -> what to make of it."""


def _nothing(scope: Scope, accurate: Pick, fastest: Pick) -> str:
    """Says why there is nothing to recommend, and what there is instead."""
    ignorant = scope.candidates.ignorant
    if ignorant:
        val = scope.metric.val
        best = max(ignorant, key=lambda row: row[val])
        least = ignorance(best, val)
        assert least is not None
        right = "right" if scope.metric.name == ACCURACY else f"of {scope.metric.words}"
        of_it = "" if scope.metric.name == ACCURACY else f" {scope.metric.words}"
        with_pretrained = " with pretrained weights" if scope.candidates.random else ""
        return (
            f"No cell{with_pretrained} learned anything that shows: the best, {_named(best, scope)}, gets "
            f"{_share(best, val)}{of_it} on the validation images, and "
            f"{IGNORANCE[least.kind].format(wording.percent(least.share))} {right}."
        )
    said = f"Nothing can be recommended: {accurate.reason}."
    if fastest.row is not None and fastest.row["images_per_second"]:
        row = fastest.row
        name = wording.label(row, wording.varying(scope.rows))
        begin = {"decided": "Fastest at inference is", "alone": "At inference, there is"}
        said += f" {begin.get(fastest.standing, 'Fastest at inference here was')} {name}:"
        said += f" {wording.number(row['images_per_second'])} images a second."
    return said


def _random(scope: Scope, row: Configuration) -> str:
    """Says where random weights came out better than what is recommended."""
    higher = _higher(scope, row, scope.candidates.random)
    return f"{higher[1]}, but random weights are recommended only where nothing else was measured." if higher else ""


def _not_continued(scope: Scope, row: Configuration) -> str:
    """Says which cells a race had no room for more seeds of, though nothing speaks against them; of one that came out
    better than what is recommended, that it did.
    """
    some = _ran_out(scope)
    if higher := _higher(scope, row, some):
        seeds = wording.count(higher[0]["seeds"], "seed")
        return f"{higher[1]} on {seeds}, which may be luck: the budget of the race had no room for more."
    if not some:
        return ""
    differs = wording.varying(scope.rows)
    names = wording.few([wording.label(one, differs) for one in some], FEW)
    return f"The budget of the race had no room for as many seeds of {names}: nobody says that they are worse."


def _ran_out(scope: Scope) -> list[Configuration]:
    """Returns the cells that a race had no room for more seeds of."""
    return [one for one in scope.stopped if str(one["race"]).endswith(RAN_OUT)]


def _higher(scope: Scope, row: Configuration, some: Sequence[Configuration]) -> tuple[Configuration, str] | None:
    """Returns the best of some cells that came out higher than what is recommended, and the beginning of a sentence
    that says so; None where none did.
    """
    val = scope.metric.val
    best = max((one for one in some if one[val] is not None), key=lambda one: one[val], default=None)
    if best is None or not best[val] > row[val]:
        return None
    a, b = (wording.percent(one[val]) for one in (best, row))
    of = "of the" if scope.metric.name == ACCURACY else f"{scope.metric.words} on the"
    name = wording.label(best, wording.varying(scope.rows))
    return best, f"{name} came out higher here ({a} against {b} {of} validation images)"


# --- names ----------------------------------------------------------------------------------------------------


def _named(row: Configuration, scope: Scope) -> str:
    """Writes ``resnet18 with last_1 (it trains the last stage and the head) and a linear head``."""
    return f"{wording.model(row)} with {row['freeze']}{_trains(row['freeze'])} and {_head(row)}{_settings(row, scope)}"


def _head(row: Configuration) -> str:
    return f"{'an' if row['head'][:1] in 'aeiou' or row['head'] == 'mlp' else 'a'} {row['head']} head"


def _settings(row: Configuration, scope: Scope) -> str:
    """Names what tells this cell from others beside backbone, policy and head."""
    shown = [wording.SOMETIMES[name](row[name]) for name in wording.varying(scope.rows) if row[name] not in (None, "")]
    return f" ({', '.join(shown)})" if shown else ""


def _trains(freeze: str) -> str:
    """Says what a policy trains, as the table of policies does; nothing of one that is in no table."""
    from tlbench.policies.parse import parse_policy

    try:
        policy = parse_policy(freeze)
    except UserError:
        return ""
    words = policy.policy.summary.partition(";")[0].partition(":")[0].partition(" (")[0]
    if words.startswith("everything,"):
        words = "everything"
    count = f"{policy.place} stages" if policy.place != "1" else "stage"
    return f" (it trains {words.replace('K stages', count)})"


def _listed(rows: Sequence[Any], scope: Scope) -> str:
    """Names cells that are tied, and behind them what they share."""
    differs = wording.varying(scope.rows)
    parts = [wording.label(row, differs).split(" · ") for row in rows]
    shared = [part for part in parts[0] if all(part in other for other in parts[1:])]
    names = [" · ".join(part for part in own if part not in shared) for own in parts]
    if not all(names) or len(set(map(len, parts))) > 1:
        names, shared = [" · ".join(own) for own in parts], []
    behind = f" ({'both' if len(names) == 2 else 'all'} {' · '.join(shared)})" if shared else ""
    if len(names) <= FEW:
        return f"{', '.join(names[:-1])} and {names[-1]}{behind}"
    return f"these {len(names)} cells{behind}, {', '.join(names[: FEW - 1])} and {len(names) - FEW + 1} more,"


def _short(row: Configuration, pick: Configuration, scope: Scope) -> str:
    """Names a cell beside another by what differs."""
    parts = [wording.model(row)] if wording.model(row) != wording.model(pick) else []
    if row["freeze"] != pick["freeze"]:
        parts += [*(["with"] if parts else []), f"{row['freeze']}{_trains(row['freeze'])}"]
    if row["head"] != pick["head"]:
        # One thing beside another: "linear_probe with an mlp head", and of a named model "with last_1 and an mlp head".
        both = bool(parts) and wording.model(row) != wording.model(pick) and row["freeze"] != pick["freeze"]
        parts += ["and" if both else "with" if parts else "", _head(row)]
    settings = _settings(row, scope)
    if settings != _settings(pick, scope):
        parts.append(settings.strip() if parts else f"the same{settings}")
    return " ".join(filter(None, parts))


# --- figures --------------------------------------------------------------------------------------------------


def _figures(row: Configuration) -> str:
    """Writes ``81 % (79 to 83) on your test images, 4 minutes of training``."""
    metric = DECIDING[row["metric"]]
    figure, split = (metric.test, "test") if row[metric.test] is not None else (metric.val, "validation")
    whose = "your" if str(row["dataset"]).startswith(("folder:", "list:")) else "the"
    kind = "" if folds_in(row) and split == "test" else f"{split} "  # every image is tested once
    found = [f"{_share(row, figure)}{f' {metric.words}' * (metric.name != ACCURACY)} on {whose} {kind}images"]
    if row["training_seconds"]:
        unsteady = f" (a time flagged as {flag})" if (flag := flagged(row)) else ""
        found.append(f"{spoken(row['training_seconds'])} of training{unsteady}")
    return ", ".join(found)


def _share(row: Configuration, figure: str) -> str:
    """Writes ``81 % (79 to 83)``; of one seed what the number of images allows, and that it is one seed."""
    low, high, how = row[f"{figure}_low"], row[f"{figure}_high"], ""
    if low is None and figure == "accuracy_test" and row["accuracy_test_wilson_low"] is not None:
        low, high = row["accuracy_test_wilson_low"], row["accuracy_test_wilson_high"]
        how = " by the number of images alone"
    elif low is not None and figure not in JUDGED and row["accuracy_over"] not in OVER_IMAGES:
        how = " over seeds alone"
    one_seed = f"{folds} folds" if (folds := folds_in(row)) else "with one seed" if row["seeds"] < 2 else ""
    value = row[figure]
    if low is None:
        return wording.percent(value) + (one_seed and f" ({one_seed})")
    if says_nothing(value, low, high, SHARES):
        return f"{wording.percent(value)} ({ANYTHING})"
    write = _rounded([value, low, high])
    return f"{write(value)} % ({write(low)} to {write(high)}{how}{one_seed and f', {one_seed}'})"


def _rounded(shares: Sequence[float]) -> Any:
    """Returns what writes shares in percent: whole where they lie far apart, and none becomes 0 or 100 by that."""
    whole = max(shares) - min(shares) >= 0.02 and not any(
        0 < share < 1 and f"{100 * share:.0f}" in ("0", "100") for share in shares
    )
    return lambda share: f"{100 * share:.{0 if whole else 1}f}"


def spoken(seconds: float) -> str:
    """Writes seconds as they are said: ``22 seconds``, ``4 minutes``, ``2.5 hours``."""
    for unit, size, most in (("second", 1.0, 100.0), ("minute", 60.0, 6000.0), ("hour", 3600.0, float("inf"))):
        if seconds < most:
            shown = _two_digits(seconds / size)
            return f"{shown} {unit}" + ("" if shown == "1" else "s")
    raise AssertionError("every number of seconds is less than infinity")


def _two_digits(value: float) -> str:
    """Writes about two digits, and none that says nothing: 0.35, 2.4, 9, 27, 1,230."""
    if value >= 9.95:
        return f"{value:,.0f}"
    text = f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"
    return text.removesuffix(".0")


def points(value: float) -> str:
    """Writes a difference of accuracies: ``1 point``, ``2.4 points``."""
    text = f"{100 * abs(value):.1f}".removesuffix(".0")
    return f"{text} point" + ("" if text == "1" else "s")


# --- the cheaper one ------------------------------------------------------------------------------------------


def _cheaper(scope: Scope, pick: Configuration) -> str:
    """Says what is cheaper, and by how much it is less accurate."""
    found = scope.cheaper
    if found is None:
        return ""
    times = _two_digits(found.times)
    cheaper = UNSURE[found.doubt].format(times) if found.doubt else f"is {times} times cheaper to train"
    clause = f"{_short(found.row, pick, scope)} {_behind(found)} and {cheaper}"
    return f"; {clause.replace(' and is ', ' and ') if ' is ' in clause.partition(' and is ')[0] else clause}"


UNSURE = {
    "flagged": "trained {} times as fast, by times that are flagged as unsteady",
    "once": "trained {} times as fast, measured once on a machine whose noise is unknown",
    "noise": "trained {} times as fast, which the noise of the times may explain",
}
"""Why it is not certain that a cell is cheaper -> what is said instead."""


def _behind(found: Cheaper) -> str:
    where = "" if found.figure.endswith("_test") else " on the validation images"
    apart = f"{points(found.behind)} {'lower' if found.behind > 0 else 'higher'}"
    if found.standing == "cannot say":
        return f"was {apart} here{where}, which may be chance with one seed,"
    if found.standing == "tied":
        same = not round(found.behind, 3)
        words = metric_of(found.figure)[0].words
        return f"cannot be told apart from it in {words} ({'the same' if same else apart} here{where})"
    if found.behind < 0:
        return f"is {points(found.behind)} better on the test images, by which nothing is chosen,"
    return f"is {points(found.behind)} worse{where}"
