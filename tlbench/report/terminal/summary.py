"""Prints tables and verdict of runs, readable at 80 columns and wider. One file, since all of it shares its columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlbench.analysis import verdict
from tlbench.analysis.commands import reading
from tlbench.analysis.figures import column
from tlbench.analysis.frame import rows
from tlbench.analysis.learning import learned_nothing
from tlbench.analysis.metrics import ACCURACY, DECIDING
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.summary import Configuration, summarise
from tlbench.records.record import Record
from tlbench.report import noise_words, race_words, wording
from tlbench.report import verdict_words as words
from tlbench.report.elsewhere_words import table_of
from tlbench.report.ends import SHARES
from tlbench.report.headline import sentences
from tlbench.report.remarks import remarks
from tlbench.report.terminal.printing import MOST_ROWS, plain, say, say_below

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tlbench.analysis.stats import NoiseFloor


def print_summary(
    console: Console, records: Sequence[Record], path: Path | None = None, runs: str | Sequence[str] = ""
) -> None:
    """Prints tables, failures with their reasons, and last, where a terminal stops, the verdict and the report's path.
    ``runs`` names the run of each record.
    """
    table = rows(records, runs)
    summary = summarise(table)
    scopes = verdict.verdicts(summary, noise_floors(table))
    _tables(console, summary, scopes, titled=len(scopes) > 1)
    _verdicts(console, scopes)
    if path is not None:
        console.print(f"Report: {path}", markup=False, soft_wrap=True)


def print_tables(console: Console, records: Sequence[Record], runs: str | Sequence[str] = "") -> None:
    """Prints what stands above the verdicts: tables, failures with their reasons, remarks."""
    summary = summarise(rows(records, runs))
    _tables(console, summary, verdict.verdicts(summary), titled=True)


def print_verdicts(console: Console, records: Sequence[Record], runs: str | Sequence[str] = "") -> None:
    """Prints the verdicts alone. ``runs`` names the run of each record."""
    table = rows(records, runs)
    _verdicts(console, verdict.verdicts(summarise(table), noise_floors(table)))


def _tables(console: Console, summary: Sequence[Configuration], scopes: Sequence[verdict.Scope], titled: bool) -> None:
    for scope in scopes:
        if titled:  # no verdict follows that says at how many pixels, say, these accuracies are
            say(console, wording.scope_title(scope, scopes), style="bold")
        _rows(console, scope, wording.varying(scope.rows))
        _elsewhere(console, scope)
    _not_ok(console, summary)
    for text in [*remarks(summary), *wording.image_problems(summary)]:
        say(console, text)


def _verdicts(console: Console, scopes: Sequence[verdict.Scope]) -> None:
    for scope in scopes:
        say(console, f"Verdict for {wording.scope_title(scope, scopes)}", style="bold")
        for line in lines_of(scope):
            if line.form == "command":  # to be copied whole
                say_below(console, line.text, wrap=False)
            else:
                say(console, line.text, indent=line.indent, style="bold" if line.form == "headline" else None)
        console.print()


@dataclass(frozen=True, kw_only=True)
class Line:
    """Holds a line of a verdict, before it is wrapped."""

    text: str
    indent: int = 0
    form: Literal["headline", "text", "command"] = "text"


def verdict_text(records: Sequence[Record], runs: str | Sequence[str] = "") -> str:
    """Returns the verdict on records as text: the sentence, the three picks, the noise, what may decide."""
    table = rows(records, runs)
    return verdict_text_of(summarise(table), noise_floors(table))


def verdict_text_of(
    summary: Sequence[Configuration], floors: Mapping[tuple[str, str], NoiseFloor] | None = None
) -> str:
    """Returns the same of configurations (`tlbench.analysis.summary.summarise`) and their places' noise floors."""
    scopes = verdict.verdicts(summary, floors)
    parts = []
    for scope in scopes:
        head = [f"Verdict for {wording.scope_title(scope, scopes)}"] if len(scopes) > 1 else []
        parts.append("\n".join([*head, *(" " * line.indent + line.text for line in lines_of(scope))]))
    return "\n\n".join(parts)


def lines_of(scope: verdict.Scope) -> list[Line]:
    """Returns the lines of a scope's verdict: first what to make of it in a sentence, then the picks."""
    differs = wording.varying(scope.rows)
    first, *more = sentences(scope)
    found = [Line(text=first, form="headline"), *(Line(text=text) for text in more)]
    for pick, again in zip(scope.picks, words.told_again(scope.picks), strict=True):
        found.append(Line(text=f"{words.question(pick)}: {words.answer(pick, differs)}{' again' * again}"))
        evidence = "" if again else "; ".join(words.evidence(pick))  # its figures stand just above
        found += [Line(text=t, indent=2) for t in (evidence, words.certainty(pick, differs, most=2)) if t]
    found += [Line(text=f"{text}.") for text in words.set_aside(scope.candidates, differs)]
    found += [Line(text=text) for text in race_words.lines(scope.races)]
    found.append(Line(text=f"Noise of the times: {noise_words.of_scope(scope)}"))
    commands = dict.fromkeys(pick.command for pick in scope.picks if pick.command)
    if commands:
        # A race that goes on may find a better cell; more seeds of those it knows cannot.
        first = "First let the race go on, as above. " if any(one.ended and one.unseen for one in scope.races) else ""
        new = "latest" if len(commands) == 1 else " ".join(["RUN"] * len(commands))  # of several the last is the latest
        then = f"{reading(f'tlbench report {_runs(scope)} {new}', commands)} then takes them together"
        found.append(Line(text=f"{first}This may decide what is not; {then}:"))
    return [*found, *(Line(text=command, indent=2, form="command") for command in commands)]


def _runs(scope: verdict.Scope) -> str:
    """Names the runs of a scope's cells, as a command takes them."""
    known = dict.fromkeys(run for row in scope.rows for run in column(row["group"], "run") if run)
    return " ".join(map(shlex.quote, known)) or "RUN"


def _rows(console: Console, scope: verdict.Scope, differs: list[str]) -> None:
    for task, columns in (("train", {**_deciding(scope), **TRAIN}), ("infer", INFER)):
        finished = [row for row in scope.rows if row["task"] == task and row["records_ok"]]
        if finished:
            _table(console, finished, columns, differs)


def _deciding(scope: verdict.Scope) -> Columns:
    """Returns the columns of the metric that decides, where that is not accuracy."""
    metric = scope.metric
    if metric.name == ACCURACY:
        return {}
    short = SHORT[metric.name]
    return {
        f"{short} test": (metric.test, lambda row: _accuracy(row, metric.test), 0),
        f"{short} val": (metric.val, lambda row: _accuracy(row, metric.val), 0),
    }


SHORT = {"balanced_accuracy": "bal. %", "macro_f1": "F1 %"}
"""Metric -> what stands over its columns."""


def _elsewhere(console: Console, scope: verdict.Scope) -> None:
    """Prints what the configurations score in other tests."""
    from rich.table import Table

    if (told := table_of(scope)) is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("accuracy elsewhere, %", overflow="fold")
    for heading in told.headings:
        table.add_column(plain(heading), justify="right", no_wrap=True)
    for _, name, values in told.rows[:MOST_ROWS]:
        table.add_row(plain(name), *(plain(text.removesuffix(" %")) for text, _ in values))
    console.print(table)
    if len(told.rows) > MOST_ROWS:
        console.print(f"… and {len(told.rows) - MOST_ROWS} more rows (a report and an export have them all)")
    for note in told.notes:
        say(console, note)
    console.print()


Columns = dict[str, tuple[str, Any, int]]
"""Heading -> (figure, text, rank): where the terminal is too narrow for all, the highest ranks are left out first."""

TRAIN: Columns = {
    "test %": ("accuracy_test", lambda row: _accuracy(row, "accuracy_test"), 0),
    "clean %": ("accuracy_test_clean", lambda row: wording.percent(row["accuracy_test_clean"]).removesuffix(" %"), 1),
    "val %": ("accuracy_val", lambda row: _accuracy(row, "accuracy_val"), 0),
    "rung": ("race", lambda row: race_words.rung(row), 1),
    "epoch s": ("epoch_seconds", lambda row: wording.number(row["epoch_seconds"]), 2),
    "total s": ("training_seconds", lambda row: wording.number(row["training_seconds"]), 1),
    "train img/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), 4),
    "trainable": ("trainable_parameters", lambda row: _trainable(row), 3),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), 5),
}
INFER: Columns = {
    "infer img/s": ("images_per_second", lambda row: wording.number(row["images_per_second"]), 0),
    "p50 ms": ("latency_p50_ms", lambda row: wording.number(row["latency_p50_ms"]), 0),
    "p95 ms": ("latency_p95_ms", lambda row: wording.number(row["latency_p95_ms"]), 0),
    "parameters": ("total_parameters", lambda row: wording.short(row["total_parameters"]), 2),
    "memory": ("peak_memory_bytes", lambda row: wording.size(row["peak_memory_bytes"]), 1),
}


def _order(row: Configuration) -> float:
    """Returns what rows are ordered by, the most first: the metric that decides, whose column is never left out."""
    name = "images_per_second" if row["task"] == "infer" else DECIDING[row["metric"]].val
    return float(row[name] or 0)


def _trainable(row: Configuration) -> str:
    """Writes the parameters that train, and how many of them are no part of the model: ``9.20 M (adds 9.19 M)``."""
    added = row["added_parameters"]
    return wording.short(row["trainable_parameters"]) + (f" (adds {wording.short(added)})" if added else "")


WIDE = "±?"


def _accuracy(row: Configuration, figure: str) -> str:
    low, high = row[f"{figure}_low"], row[f"{figure}_high"]
    if row[figure] is None:
        return wording.UNKNOWN
    from tlbench.analysis.stats import says_nothing

    if low is None:
        return f"{100 * row[figure]:.1f}"
    if says_nothing(row[figure], low, high, SHARES):
        return f"{100 * row[figure]:.1f} {WIDE}"
    mean, below, above = row[figure], max(0.0, row[figure] - low), max(0.0, high - row[figure])
    longer = max(below, above)
    if mean - longer < 0 or mean + longer > 1:  # no accuracy lies there
        return f"{100 * mean:.1f} +{100 * above:.1f}/-{100 * below:.1f}"
    # Of an interval with unequal sides the longer one: what is written holds both.
    return f"{100 * mean:.1f} ±{100 * longer:.1f}"


def _table(console: Console, finished: list[Configuration], columns: Columns, differs: Sequence[str]) -> None:
    from rich.measure import Measurement

    finished = sorted(finished, key=_order, reverse=True)
    filled = {
        h: (draw, rank) for h, (figure, draw, rank) in columns.items() if any(r[figure] is not None for r in finished)
    }
    for most in sorted({rank for _, rank in filled.values()}, reverse=True):
        shown = {heading: draw for heading, (draw, rank) in filled.items() if rank <= most}
        table = _build(finished[:MOST_ROWS], shown, differs)
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)
    if len(finished) > MOST_ROWS:
        console.print(f"… and {len(finished) - MOST_ROWS} more rows in the report")
    for note in dict.fromkeys(note for row in finished for note in _notes(row)):
        say(console, note)
    from tlbench.analysis.stats import ANYTHING

    if over := wording.accuracies_over(finished):
        drawn = [draw(row) for draw in _accuracies(shown) for row in finished[:MOST_ROWS]]
        say(console, f"±{', +/-' if any('+' in text for text in drawn) else ''}: {over}")
        if any(WIDE in text for text in drawn):
            say(console, f"{WIDE}: {ANYTHING}")
    if "clean %" in shown:
        say(console, "clean %: test accuracy without copies of images seen before")
    for text in words.baselines(finished):
        say(console, text)
    console.print()


def _accuracies(shown: Mapping[str, Any]) -> list[Any]:
    return [draw for heading, draw in shown.items() if "%" in heading]


def _build(finished: Sequence[Configuration], shown: Mapping[str, Any], differs: Sequence[str]) -> Table:
    """Builds a table of these rows with these figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    names = ["backbone", *(["freeze"] if finished[0]["task"] == "train" else []), "head"]
    for name in [*names, *([""] if differs else [])]:
        table.add_column(name, overflow="fold")
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in finished:
        cells = [_marked(row) if name == "backbone" else row[name] for name in names]
        if differs:
            cells.append(", ".join(wording.SOMETIMES[d](row[d]) for d in differs if row[d] not in (None, "")))
        table.add_row(*map(plain, cells), *(draw(row) for draw in shown.values()))
    return table


MARKS = {"random": "*", "auto": "?"}
"""Marks of backbones whose weights are not pretrained: a column of their own would not fit into 80 characters."""
FLAGS = {"noisy": "!", "drifting": "~", "throttled": "^", "shared": "&"}
NOTHING = "°"


def _marked(row: Configuration) -> str:
    """Returns the backbone's name, or the checkpoint's, with marks for weights, flagged times and nothing learned."""
    marks = MARKS.get(row["weights"], "") + FLAGS.get(row["validity"], "") + NOTHING * learned_nothing(row)
    name = str(row["backbone"]) if row["weights"] in MARKS else wording.model(row)
    return f"{name} {marks}" if marks else name


def _notes(row: Configuration) -> list[str]:
    """Says what the marks of a row mean."""
    notes = [f"{MARKS[row['weights']]} {wording.weights(row)}"] if row["weights"] in MARKS else []
    if (validity := row["validity"]) in FLAGS:
        notes.append(f"{FLAGS[validity]} times {FLAGGED[validity]}")
    if learned_nothing(row):
        val = f"{SHORT[row['metric']]} val" if row["metric"] in SHORT else "val %"
        notes.append(f"{NOTHING} learned nothing that shows: {val} cannot be told from knowing nothing of the images")
    return notes


FLAGGED = {
    "noisy": "flagged as noisy: something else ran meanwhile, or rounds differ much",
    "drifting": "flagged as drifting: rounds became slower or faster one after another",
    "throttled": "flagged as throttled: power or heat held the clocks back",
    "shared": "flagged as shared: other cells of the run may have been measured on the same node meanwhile",
}
"""Flag of times -> what it means."""


def _not_ok(console: Console, summary: Sequence[Configuration]) -> None:
    """Prints failures and skips, grouped by what they have in common."""
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for row in summary:
        if row["status"] != "ok":
            groups.setdefault((row["status"], row["reason"]), []).append(row)
    for (status, reason), group in groups.items():
        names = ", ".join(wording.label(row) for row in group[:3]) + (
            f" and {len(group) - 3} more" if len(group) > 3 else ""
        )
        say(console, f"{status.replace('_', ' ')}: {names}: {reason}")
    if groups:
        console.print()
