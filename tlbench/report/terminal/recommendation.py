"""Prints the pick under limits, and why the others are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tlbench.analysis.commands import reading
from tlbench.analysis.learning import fell_back
from tlbench.analysis.metrics import ACCURACY, DECIDING, metric_of
from tlbench.analysis.recommend import Reason, Recommendation
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Pick, verdicts
from tlbench.report import verdict_words as words
from tlbench.report import wording
from tlbench.report.terminal.printing import MOST_ROWS, say, say_below

if TYPE_CHECKING:
    from rich.console import Console


def print_recommendation(console: Console, recommendation: Recommendation, summary: Sequence[Configuration]) -> None:
    """Prints the pick, the runner-up, and what excluded each of the others."""
    differs = wording.varying([row for row in summary if row["task"] == "train"])
    metric = DECIDING[recommendation.metric]
    if metric.name != ACCURACY:
        say(console, f"Decided by {metric.words} on the validation images, not by accuracy.")
    if (pick := recommendation.pick) is not None:
        here = [row for row in summary if all(row[name] == pick[name] for name in ("dataset", "device", "machine"))]
        for scope in (scopes := verdicts([row for row in here if row["metric"] == recommendation.metric])):
            say(console, f"For {wording.scope_title(scope, scopes)}:")
    if recommendation.pick is None:
        console.print(_none(recommendation), style="bold")
    else:
        _named(console, "Pick", recommendation.pick, summary)
        for caveat in recommendation.caveats:
            say_below(console, f"{CAVEATS[caveat.kind]}: {told(recommendation.pick, caveat)}.")
        if fell_back(recommendation.pick):
            say_below(console, "No pretrained weights were at hand: it is the best of random weights, and no advice.")
    if recommendation.runner_up is not None:
        _named(console, "Runner-up", recommendation.runner_up, summary)
        if recommendation.tied:
            told_apart = f"Its {metric.words} cannot be told from the pick's"
            if recommendation.command:
                both = reading("tlbench recommend RUN latest", [recommendation.command])
                say_below(console, f"{told_apart}. This may decide it; then {both} takes both runs together:")
                say_below(console, recommendation.command, wrap=False)
            elif recommendation.hindrance:
                say_below(console, f"{told_apart}; {recommendation.hindrance}.")
            else:
                say_below(console, f"{told_apart}, nor would more seeds tell: that takes more validation images.")
    if (cheap := recommendation.cheapest_tie) is not None:
        say(
            console,
            "Of those that cannot be told from the pick, and came out within a point of it, "
            f"{wording.label(cheap, differs)} trains in the least time"
            + (": it is what a verdict names, and what tlbench fit keeps." if recommendation.unlimited else "."),
        )
    if recommendation.excluded:
        console.print()
        console.print("The others:", style="bold")
    groups: dict[tuple[str, ...], list[Configuration]] = {}
    for one in recommendation.excluded:
        groups.setdefault(tuple(told(one.row, reason) for reason in one.reasons), []).append(one.row)
    for reasons, group in groups.items():
        for row in group[:MOST_ROWS]:
            say(console, f"{wording.label(row, differs)}: {'; '.join(reasons)}", indent=2)
        if len(group) > MOST_ROWS:
            say(console, f"… and {len(group) - MOST_ROWS} more for the same reason", indent=2)


CAVEATS = {"close": "Close", "flagged": "Uncertain"}


def _none(recommendation: Recommendation) -> str:
    """Says why there is no pick."""
    kinds = {reason.kind for one in recommendation.excluded for reason in one.reasons}
    if kinds <= {"unfinished", "no accuracy"}:
        return "No cell has an accuracy to choose by."
    if kinds <= {"unfinished", "no accuracy", "not told"}:
        return "No cell tells the metric to choose by; --metric accuracy chooses without results on single images."
    limited = kinds & {"unknown", "broken"}
    return "No cell keeps to the limits." if limited else "No cell can be recommended."


def _named(console: Console, what: str, row: Configuration, summary: Sequence[Configuration]) -> None:
    differs = wording.varying([row for row in summary if row["task"] == "train"])
    say(console, f"{what}: {wording.label(row, differs)}", style="bold")
    figures = words.evidence(Pick(question="accurate", row=row, standing="alone", metric=row["metric"]))
    if row["inference_latency_p95_ms"] is not None:
        source = [one for one in summary if one["task"] == "infer" and one["inference"] == row["inference"]]
        flag = words.unsteady(source[-1]) if source else ""
        figures.append(f"p95 latency {wording.milliseconds(row['inference_latency_p95_ms'])}{flag}")
    if row["peak_memory_bytes"] is not None:
        figures.append(f"peak memory {wording.size(row['peak_memory_bytes'])}")
    say_below(console, "; ".join(figures))


# --- reasons --------------------------------------------------------------------------------------------------

LIMITED = {
    "latency_p95_ms": ("p95 latency", "its latency was not measured; run it with --task train,infer"),
    "peak_memory_bytes": ("peak memory", "its memory is unknown"),
    "training_seconds": ("training time", "its training time is unknown"),
    "accuracy_val": ("validation accuracy", "its accuracy was not measured"),
}
"""Figure that a limit holds for -> its name, and what is said where it is not known."""
CHANCE = {"tied": ", which may be chance", "cannot say": " on one seed"}


def _broken(row: Configuration, reason: Reason) -> str:
    side = "above" if reason.value > reason.limit else "below"
    told, limit = (wording.figure(reason.figure, value) for value in (reason.value, reason.limit))
    flag = f" (a time flagged as {reason.flag})" if reason.flag else ""
    return f"{LIMITED[reason.figure][0]} of {told}{flag} is {side} {limit}"


def _close(row: Configuration, reason: Reason) -> str:
    told, limit, end = (wording.figure(reason.figure, value) for value in (reason.value, reason.limit, reason.end))
    return f"{LIMITED[reason.figure][0]} of {told} keeps to {limit}, but its interval reaches {end}"


def _flagged(row: Configuration, reason: Reason) -> str:
    name = LIMITED[reason.figure][0]
    told, limit = (wording.figure(reason.figure, value) for value in (reason.value, reason.limit))
    return f"{name} of {told} keeps to {limit}, but is flagged as {reason.flag}"


def _nothing(row: Configuration, reason: Reason) -> str:
    return "learned nothing that shows: its validation accuracy cannot be told from knowing nothing of the images"


def _behind(row: Configuration, reason: Reason) -> str:
    metric, _ = metric_of(reason.figure)
    less = "less accurate" if metric.name == ACCURACY else f"lower in {metric.words}"
    return f"{100 * reason.value:.1f} points {less} than the pick{CHANCE.get(reason.standing, '')}"


def _untold(row: Configuration, reason: Reason) -> str:
    metric, _ = metric_of(reason.figure)
    return f"its records do not tell its {metric.words}: results on single images are missing"


OTHER_SIZE = "accuracies are weighed at one train size, the largest or that of --train-size"

REASONS: dict[str, Callable[[Configuration, Reason], str]] = {
    "unfinished": lambda row, _: f"{row['status']}: {row['reason']}",
    "no accuracy": lambda row, _: "it measures no accuracy",
    "not told": _untold,
    "train size": lambda row, _: f"trained on {wording.whole(row['train_images'])} images: {OTHER_SIZE}",
    "unknown": lambda row, reason: LIMITED[reason.figure][1],
    "broken": _broken,
    "close": _close,
    "behind": _behind,
    "flagged": _flagged,
    "learned nothing": _nothing,
    "raced": lambda row, _: f"in its race {row['race']}",
    "random weights": lambda row, _: "its weights are random, and others here are not",
}
"""Kind of a reason -> its words, of the configuration that it is about."""


def told(row: Configuration, reason: Reason) -> str:
    """Writes a reason in words."""
    return REASONS[reason.kind](row, reason)
