"""From one row a configuration to the verdict of a report: rows are put into scopes, and each answers the questions.

Cells are chosen by their accuracy on validation images, or by another metric that was asked for there
(`tlbench.analysis.deciding`); that of what was chosen on test images is the figure to expect. Cells of different data
sets, devices or machines are never weighed against each other: each has its own verdict.
Nor are cells of different train sizes: a verdict is about those with the most images. One file, since its questions are
asked of the same ranked rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.commands import hindrance, to_decide
from tlbench.analysis.deciding import metric_for, told
from tlbench.analysis.elsewhere import Elsewhere, elsewhere
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.label_efficiency import Crossing, crossings, curves, of_the_most_images
from tlbench.analysis.learning import Candidates, candidates
from tlbench.analysis.metrics import ACCURACY, DECIDING, Metric
from tlbench.analysis.noise import Place
from tlbench.analysis.raced import Raced, is_stopped, races_of
from tlbench.analysis.scores import standings
from tlbench.analysis.splits import Unlike, unlike_splits
from tlbench.analysis.summary import Configuration
from tlbench.analysis.times import Cheaper, cheaper_than, ranking, within
from tlbench.analysis.why import ONE_POINT, of_one_image, these_images, why_no_accuracy, why_no_inference


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A pick is the answer to one question about the cells of a scope."""

    question: str
    """A key of `QUESTIONS`."""
    row: Configuration | None
    """The configuration; None where no cell can answer."""
    standing: str
    """``decided``, ``tied``, ``cannot say`` (too few repetitions to tell), ``alone`` (one cell, nothing to weigh it
    against) or ``nothing`` (no cell)."""
    ties: tuple[Configuration, ...] = ()
    """Configurations that cannot be told from it, best first."""
    maybe: tuple[Configuration, ...] = ()
    """Configurations that may be the answer instead, being within one point and cheaper, which the intervals cannot
    say."""
    reason: str = ""
    """The reason why it is not decided."""
    command: str = ""
    """Command to run for a decision."""
    metric: str = ACCURACY
    """What the most accurate one was chosen by: a key of `tlbench.analysis.metrics.DECIDING`."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A scope holds cells that may be weighed against each other: one data set, one device, one machine."""

    dataset: str
    device: str
    machine: str
    rows: tuple[Configuration, ...]
    floor: stats.NoiseFloor | None
    """Noise floor measured on this device and machine."""
    picks: tuple[Pick, ...]
    candidates: Candidates
    """Trained configurations with an accuracy: those that may be recommended, and those that may not."""
    cheaper: Cheaper | None
    """What to name beside the most accurate one: it trains in less time."""
    cheapest_tie: Pick | None
    """Of the most accurate one and those that cannot be told from it and came out within a point of it
    (`ties_within_a_point`) the one that trains in the least time; None where no other can be told from it."""
    left_out: tuple[Configuration, ...]
    """Configurations that no pick considers, since a record of theirs is not ok."""
    smaller: tuple[Configuration, ...]
    """Configurations that asked for fewer training images than others: no picks, being weighed at one size alone."""
    crossings: tuple[Crossing, ...]
    """Where policies overtake each other as the training images grow in number."""
    budgets: Mapping[str, tuple[Any, ...]]
    """Budgets that differ between the training cells: column -> values."""
    metric: Metric = DECIDING[ACCURACY]
    """What decides, on validation images."""
    untold: tuple[Configuration, ...] = ()
    """Trained configurations that cannot be judged by it: records of theirs have no results on single images."""
    unlike: tuple[Unlike, ...] = ()
    """Trained configurations whose validation and test accuracies disagree beyond chance."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """What they score on other data sets and on corrupted images, where they were tested on any."""
    stopped: tuple[Configuration, ...] = ()
    """Trained configurations that a race did not continue, so that no pick is made of them."""
    races: tuple[Raced, ...] = ()
    """The races that its configurations were measured in."""


QUESTIONS: dict[str, str] = {
    "accurate": "Most accurate",
    "cheapest": "Cheapest shown to be within one point of it",
    "fastest": "Fastest at inference",
}
BUDGETS = ("epochs", "train_images", "lr_trials")
TINY = 1e-9
"""Of a point, so that arithmetic does not decide: 0.79 - 0.78 is more than 0.01."""


# --- the verdict ----------------------------------------------------------------------------------------------


def verdicts(summary: Sequence[Configuration], floors: Mapping[Place, stats.NoiseFloor] | None = None) -> list[Scope]:
    """Gives a verdict for each data set, device and machine, in order of appearance, with their noise floors.

    Errors: UserError where the runs were asked to be decided by different metrics.
    """
    metric = metric_for(summary)
    scopes: dict[tuple[str, str, str], list[Configuration]] = {}
    for row in summary:
        scopes.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    return [
        _scope((dataset, device, machine), rows, (floors or {}).get((device, machine)), metric)
        for (dataset, device, machine), rows in scopes.items()
    ]


def _scope(
    place: tuple[str, str, str], rows: Sequence[Configuration], floor: stats.NoiseFloor | None, metric: Metric
) -> Scope:
    dataset, device, machine = place
    trained = [r for r in rows if r["task"] == "train" and r["records_ok"]]
    budgets = {name: tuple(dict.fromkeys(r[name] for r in trained if r[name] is not None)) for name in BUDGETS}
    good = [r for r in rows if r["status"] == "ok"]
    measured = [r for r in good if r["task"] == "train" and r["accuracy_val"] is not None]
    compared, smaller = of_the_most_images(measured)
    stopped = [row for row in compared if is_stopped(row)]
    raced_on = [row for row in compared if not any(row is one for one in stopped)]
    choice = candidates([r for r in raced_on if told(r, metric)])
    ranked = standings(choice.rows, metric.val)
    accurate = _most_accurate(ranked, why_no_accuracy(rows, choice, metric), measured)
    accurate = replace(accurate, metric=metric.name)
    cheapest = _cheapest(ranked, accurate, floor, measured)
    inferring = choice.of_inference([r for r in good if r["task"] == "infer"])
    fastest = _pick("fastest", inferring, "images_per_second", floor, why_no_inference(rows))
    of_ties = None
    if accurate.row is not None and accurate.ties:
        tied = ties_within_a_point(accurate.row, accurate.ties, metric.val)
        of_ties = _pick("cheapest", tied, "training_seconds", floor, "", measured)
    best = of_ties.row if of_ties is not None and of_ties.row is not None else accurate.row
    others = [row for row, _ in ranked]
    return Scope(
        dataset=dataset,
        device=device,
        machine=machine,
        rows=tuple(rows),
        floor=floor,
        picks=(accurate, cheapest, fastest),
        candidates=choice,
        cheaper=cheaper_than(best, others, floor, cheapest.row) if best is not None else None,
        cheapest_tie=of_ties,
        left_out=tuple(r for r in rows if r["status"] not in ("ok", "not_applicable")),
        smaller=tuple(smaller),
        crossings=tuple(crossings(curves(rows))),
        budgets={name: values for name, values in budgets.items() if len(values) > 1},
        metric=metric,
        untold=tuple(r for r in measured if not told(r, metric)),
        unlike=unlike_splits(measured),
        elsewhere=tuple(elsewhere(rows, choice.rows, accurate.row)),
        stopped=tuple(stopped),
        races=tuple(races_of(rows)),
    )


def _most_accurate(
    ranked: Sequence[tuple[Configuration, stats.Against]], otherwise: str, known: Sequence[Configuration]
) -> Pick:
    """Answers by comparisons with the best, over images and seeds; ``known`` are all configurations with accuracies."""
    if not ranked:
        return Pick(question="accurate", row=None, standing="nothing", reason=otherwise)
    (best, leader), others = ranked[0], ranked[1:]
    if not others:
        return Pick(question="accurate", row=best, standing="alone")
    unknown = [row for row, one in others if one.standing == "cannot say"]
    if unknown:
        too_few = "one seed tells no spread" if leader.n < 2 else f"{_others(unknown)} one seed only"
        return Pick(
            question="accurate",
            row=best,
            standing="cannot say",
            reason="; ".join([f"{too_few}, so the lead may be chance", *_hindrance([best, *unknown], known)]),
            command=to_decide([best, *unknown], "accuracy_val", known),
        )
    tied = [(row, one) for row, one in others if one.standing == "tied"]
    if not tied:
        return Pick(question="accurate", row=best, standing="decided")
    helped = [row for row, one in tied if one.seeds_help]
    reasons = ["the differences may be chance", *of_one_image(best)]
    reasons += (
        _hindrance([best, *helped], known) if helped else [f"more seeds cannot tell them apart on {these_images(best)}"]
    )
    return Pick(
        question="accurate",
        row=best,
        standing="tied",
        ties=tuple(row for row, _ in tied),
        reason="; ".join(reasons),
        command=to_decide([best, *helped], "accuracy_val", known) if helped else "",
    )


def _others(rows: Sequence[Configuration]) -> str:
    return f"{len(rows)} others have" if len(rows) > 1 else "1 other has"


def ties_within_a_point(best: Configuration, ties: Sequence[Configuration], figure: str) -> list[Configuration]:
    """Returns the best and, of those that cannot be told from it, those that came out at most a point below it: of
    these a person may take the cheapest. That a cell 10 points behind cannot be told from the best on few images is no
    reason to name it: it says how few the images are.
    """
    return [best, *(row for row in ties if best[figure] - row[figure] <= ONE_POINT + TINY)]


def _hindrance(rows: Sequence[Configuration], known: Sequence[Configuration]) -> list[str]:
    return [why] if (why := hindrance(rows, known)) else []


def _cheapest(
    ranked: Sequence[tuple[Configuration, stats.Against]],
    accurate: Pick,
    floor: stats.NoiseFloor | None,
    known: Sequence[Configuration],
) -> Pick:
    """Answers among the leader and those that lie within a point of the best by their intervals. It is decided only
    where the leader is, and no cheaper one may lie within a point as well.
    """
    if not ranked:
        return replace(accurate, question="cheapest")
    (best, _), others = ranked[0], ranked[1:]
    near = [best, *(row for row, one in others if one.within(ONE_POINT))]
    pick = _pick("cheapest", near, "training_seconds", floor, "no training time is known", known)
    if pick.row is None or not others:
        return pick
    seconds = pick.row["training_seconds"]
    maybe = [
        (row, one)
        for row, one in others
        if one.within(ONE_POINT) is None and row["training_seconds"] is not None and row["training_seconds"] < seconds
    ]
    reasons, commands = [], [pick.command]
    if accurate.standing != "decided":
        reasons.append("the lead itself is not decided")
        commands.append(accurate.command)
    if maybe and accurate.standing == "cannot say":  # nothing is known of any of them, and to name them says nothing
        reasons.append("nor is which cheaper ones lie within a point of it")
        maybe = []
    if maybe:
        reasons += ["cheaper ones may lie within one point, which the intervals cannot say", *of_one_image(best)]
        helped = [row for row, one in maybe if one.seeds_help]
        reasons += _hindrance([best, *helped], known) if helped else [f"more seeds cannot tell on {these_images(best)}"]
        commands.append(to_decide([best, *helped], "accuracy_val", known) if helped else "")
    if not reasons:
        return replace(pick, standing="decided") if pick.standing == "alone" else pick
    reasons += [pick.reason] if pick.reason else []
    return replace(
        pick,
        standing="cannot say",
        maybe=tuple(row for row, _ in maybe),
        reason="; ".join(reasons),
        command=next(filter(None, reversed(commands)), ""),
    )


def _pick(
    question: str,
    rows: Sequence[Configuration],
    figure: str,
    floor: stats.NoiseFloor | None,
    otherwise: str,
    known: Sequence[Configuration] = (),
) -> Pick:
    """Answers by a time or a speed; ``known`` are all configurations that may stand at the same places."""
    known = known or rows
    rows = [r for r in rows if r["values"][figure]]
    if not rows:
        return Pick(question=question, row=None, standing="nothing", reason=otherwise)
    if len(rows) == 1:
        return Pick(question=question, row=rows[0], standing="alone")
    ranked = ranking(rows, figure)
    (best, leader), others = ranked[0], ranked[1:]
    unknown = [row for row, r in others if r.standing == "cannot say"]
    if unknown:
        few = f"{_others(unknown)} one measurement only"
        too_few = "one measurement tells no spread" if leader.n < 2 else few
        return Pick(
            question=question,
            row=best,
            standing="cannot say",
            reason="; ".join([f"{too_few}, so the lead may be chance", *_hindrance([best, *unknown], known)]),
            command=to_decide([best, *unknown], figure, known),
        )
    limit = floor.relative if floor is not None and FIGURES[figure].timed else None
    tied = tuple(row for row, r in others if r.standing == "tied" or within(r.gap, limit))
    if not tied:
        return Pick(question=question, row=best, standing="decided")
    chance = any(r.standing == "tied" for _, r in others)
    why = "the differences may be chance" if chance else "the differences are within the noise of the times"
    return Pick(
        question=question,
        row=best,
        standing="tied",
        ties=tied,
        reason="; ".join([why, *_hindrance([best, *tied], known)]),
        command=to_decide([best, *tied], figure, known),
    )
