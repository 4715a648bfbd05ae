"""Puts a verdict's picks into words: what was picked, its figures, how sure that is, and what can be no pick."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.learning import Candidates, ignorance
from tlbench.analysis.metrics import ACCURACY, DECIDING
from tlbench.analysis.summary import Configuration
from tlbench.analysis.times import flagged
from tlbench.analysis.verdict import QUESTIONS, Pick
from tlbench.heads import HEADS
from tlbench.report import wording


def question(pick: Pick) -> str:
    """Writes the question of a pick: ``Most accurate``, or ``Best in balanced accuracy`` where that decides."""
    other = pick.question == "accurate" and pick.metric != ACCURACY
    return f"Best in {DECIDING[pick.metric].words}" if other else QUESTIONS[pick.question]


def answer(pick: Pick, differs: Sequence[str] = ()) -> str:
    """Names the configuration, or says that there is none and why."""
    return f"none: {pick.reason}" if pick.row is None else wording.label(pick.row, differs)


def evidence(pick: Pick) -> list[str]:
    """Returns the figures behind a pick, with their intervals."""
    row = pick.row
    if row is None:
        return []
    if row["task"] == "infer":
        one = f"{wording.interval(row, 'latency_p50_ms')} for one image{unsteady(row)}"
        return [wording.interval(row, "images_per_second"), one]
    metric = DECIDING[row["metric"]]
    both = {"validation": metric.val, "test": metric.test} if metric.name != ACCURACY else {}
    return [
        *(f"{split} {metric.words} {wording.interval(row, name)}" for split, name in both.items()),
        f"validation accuracy {wording.interval(row, 'accuracy_val')}{_clean(row, 'accuracy_val')}{chosen_by_it(row)}",
        f"test accuracy {wording.interval(row, 'accuracy_test')}{_clean(row, 'accuracy_test')}{knowing_nothing(row)}",
        f"{wording.interval(row, 'training_seconds')} of training{stopped(row)}{unsteady(row)}",
    ]


def chosen_by_it(row: Configuration) -> str:
    """Says what was chosen by the validation images, by which the cell is judged as well; nothing where nothing was."""
    head = HEADS.get(str(row["head"]).partition("@")[0])
    chosen = [f"its {head.chooses}"] if head is not None and head.chooses else []
    chosen += ["its learning rate"] if row["lr_trials"] else []
    chosen += ["its epoch"] if row["best_epoch"] is not None else []
    return f", which also chose {' and '.join(chosen)} and so flatters it" if chosen else ""


def knowing_nothing(row: Configuration, name: str = "accuracy_test") -> str:
    """Writes what to put behind an accuracy: ``, where always naming the most frequent class gets 53.6 %``."""
    least = ignorance(row, name) if row[name] is not None else None
    return "" if least is None else f", where {IGNORANCE[least.kind].format(wording.percent(least.share))}"


IGNORANCE = {
    "majority": "always naming the most frequent class gets {}",
    "chance": "guessing gets {}",
}
"""What a model does that knows nothing of the images -> its words."""


def stopped(row: Configuration) -> str:
    """Says how many epochs a training took that may stop early, and which is kept; nothing of one that may not."""
    if row["epochs_used"] is None or row["best_epoch"] is None:
        return ""
    mean = " in the mean" if row["records_ok"] > 1 else ""
    used, best = (f"{row[name]:.3g}" for name in ("epochs_used", "best_epoch"))
    return f", {used} of {row['epochs']} epochs, number {best} of them kept{mean}"


def unsteady(row: Configuration) -> str:
    """Says that a configuration's times are flagged, where all of them are."""
    return f" (flagged as {flag})" if (flag := flagged(row)) else ""


def baselines(rows: Sequence[Configuration]) -> list[str]:
    """Says once what knowing nothing scores on the images of these configurations, a sentence a data set and kind."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for name, split in SPLIT_WORDS.items():
            if row[name] is not None and (least := ignorance(row, name)) is not None:
                found.setdefault((row["dataset"], least.kind, split), []).append(least.share)
    texts: dict[tuple[str, str], list[str]] = {}
    for (dataset, kind, split), shares in found.items():
        low, high = wording.percent(min(shares)), wording.percent(max(shares))
        value = low if low == high else f"{low.removesuffix(' %')} to {high}"
        whose = f" of the {split} images" if kind == "majority" else ""
        texts.setdefault((dataset, kind), []).append(f"{value}{whose}")
    several = len({dataset for dataset, _ in texts}) > 1
    return [
        f"{f'{dataset}: ' * several}{capital(IGNORANCE[kind].format(' and '.join(dict.fromkeys(values))))} right"
        f"{UNCOUNTED if kind == 'chance' else _guessing(rows, dataset, values)}"
        for (dataset, kind), values in texts.items()
    ]


def _guessing(rows: Sequence[Configuration], dataset: str, known: Sequence[str]) -> str:
    """Says what guessing gets right of a data set, where that is another share than those that are ``known``."""
    counts = {row["classes"] for row in rows if row["dataset"] == dataset and row["classes"]}
    texts = [f"; guessing among {count} classes gets {wording.percent(1 / count)}" for count in sorted(counts)]
    return "".join(text for text in texts if not any(one.startswith(text.rpartition(" gets ")[2]) for one in known))


UNCOUNTED = " (these records do not say how many images each class has)"
SPLIT_WORDS = {"accuracy_test": "test", "accuracy_val": "validation"}


def capital(text: str) -> str:
    """Begins a text with a capital."""
    return text[:1].upper() + text[1:]


def set_aside(choice: Candidates, differs: Sequence[str] = ()) -> list[str]:
    """Says which trained configurations can be no pick, and why: that they learned nothing, or their random weights."""
    texts = ignorant(choice, differs)
    if choice.random:
        names = wording.few(list(dict.fromkeys(row["backbone"] for row in choice.random)))
        texts.append(f"Random weights, and so no pick beside others: {names}")
    return texts


def ignorant(choice: Candidates, differs: Sequence[str] = ()) -> list[str]:
    """Says which configurations learned nothing; no text where all did."""
    if not choice.ignorant:
        return []
    names = wording.few([wording.label(row, differs) for row in choice.ignorant])
    whose = "its" if len(choice.ignorant) == 1 else "their"
    metric = DECIDING[choice.ignorant[0]["metric"]].words
    return [
        f"Learned nothing that shows, and so no pick, since {whose} validation {metric} cannot be told from knowing "
        f"nothing of the images: {names}"
    ]


def _clean(row: Configuration, name: str) -> str:
    """Writes the accuracy without the images that leaked into the split, where some did."""
    clean = row[f"{name}_clean"]
    return "" if clean is None else f", {wording.figure(name, clean)} without copies of images seen before"


def told_again(picks: Sequence[Pick]) -> list[bool]:
    """Says of each pick whether one before it is the same configuration, so that its figures stand there."""
    rows = [pick.row for pick in picks]
    return [row is not None and any(row is before for before in rows[:place]) for place, row in enumerate(rows)]


def certainty(pick: Pick, differs: Sequence[str] = (), most: int = 5) -> str:
    """Says how sure the pick is: nothing where it is decided, else the ties or what is missing."""
    if pick.standing == "tied":
        return f"Tied with {_listed(pick.ties, differs, most)}: {pick.reason}."
    if pick.standing == "cannot say":
        maybe = f" ({_listed(pick.maybe, differs, most)})" if pick.maybe else ""
        return f"Not decided: {pick.reason}{maybe}."
    return ""


def _listed(rows: Sequence[Configuration], differs: Sequence[str], most: int) -> str:
    return wording.few([wording.label(row, differs) for row in rows], most)
