"""Puts figures, configurations and verdicts into words, the same in the terminal, in HTML and in Markdown.

A figure that a sentence or the report's table shows is rounded here. Others round for themselves: the terminal's table,
which has no room for units, the ticks of plots, the page's curves, and the reasons of a judgement, which give the
numbers that it was made on to as many digits as it needs. Nothing is computed from what was rounded, and no rounded
figure is stored. What is unknown is a dash, never a zero. One file, since every word for a figure is
looked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tlbench.analysis.averages import IMAGES_AND_FOLDS, IMAGES_AND_SEEDS, JUDGED, SEEDS_ONLY
from tlbench.analysis.figures import FIGURES, Kind
from tlbench.analysis.scores import SeedDiscordance
from tlbench.analysis.stats import Interval
from tlbench.analysis.summary import Configuration
from tlbench.analysis.verdict import Scope
from tlbench.data.short_names import data_sets
from tlbench.errors import printable
from tlbench.grid.cell import Cell
from tlbench.grid.values import taken, three_digits, written_size
from tlbench.records.identity import short_sha
from tlbench.report.ends import SHARES, ends

UNKNOWN = "–"


# --- figures --------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Writes three significant digits, without an exponent: 0.0123, 1.23, 12.3, 1,230."""
    return UNKNOWN if value is None else three_digits(value)


def percent(value: float | None) -> str:
    """Writes a share as ``95.3 %``."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Writes seconds as ``12.3 s``, ``4 min 5 s``."""
    return UNKNOWN if value is None else taken(value)


def milliseconds(value: float | None) -> str:
    """Writes milliseconds as ``12.3 ms``."""
    return UNKNOWN if value is None else f"{number(value)} ms"


def speed(value: float | None) -> str:
    """Writes images a second as ``1,230 images/s``."""
    return UNKNOWN if value is None else f"{number(value)} images/s"


def promise(value: float) -> str:
    """Writes how many times as fast FLOPs promise something to be: beyond `MOST_PROMISED` no measurement tells."""
    return number(value) if value <= MOST_PROMISED else f"over {MOST_PROMISED:,}"


MOST_PROMISED = 1000
"""An epoch of a head on kept features has next to no FLOPs: a larger promise says that they are not what takes time."""


def whole(value: float | None) -> str:
    """Writes a whole number as ``11,188,311``."""
    return UNKNOWN if value is None else f"{int(value):,}"


def short(value: float | None) -> str:
    """Writes a large number as ``11.2 M``, ``803 k``, ``512``."""
    if value is None:
        return UNKNOWN
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{number(value / factor)} {letter}"
    return f"{value:g}"


def size(value: float | None) -> str:
    """Writes bytes as ``980 MB``, of 10⁶ bytes."""
    return UNKNOWN if value is None else written_size(value)


def count(number: int, noun: str) -> str:
    """Writes ``1 configuration``, ``12 configurations``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def threads(number: int | None) -> str:
    """Writes ``2 threads``, or that their number is unknown."""
    return "an unknown number of threads" if number is None else count(number, "thread")


def text(value: Any) -> str:
    """Writes a value as it is; what is empty is unknown."""
    return UNKNOWN if value is None or value == "" else printable(str(value), keep="\n")


def share_end(value: float) -> str:
    """Writes the end of an interval of an accuracy, in percent without the sign."""
    return f"{100 * min(1.0, max(0.0, value)):.1f}"


IN_WORDS: dict[Kind, Callable[[Any], str]] = {
    "text": text,
    "list": text,
    "number": number,
    "count": short,
    "share": percent,
    "seconds": seconds,
    "milliseconds": milliseconds,
    "speed": speed,
    "bytes": size,
    "flops": short,
}
"""Kind of figure -> how it is written in a sentence, with its unit."""
IN_TABLE: dict[Kind, Callable[[Any], str]] = {
    **IN_WORDS,
    "count": whole,
    "seconds": number,
    "milliseconds": number,
    "speed": number,
}
"""Kind of figure -> how it is written under a heading that has the unit."""


def figure(name: str, value: float | None) -> str:
    """Writes a figure with its unit, by the name of its column."""
    return IN_WORDS[FIGURES[name].kind](value)


def interval(row: Configuration, name: str) -> str:
    """Writes ``95.3 % (94.1 to 96.5)``; without the brackets where repetitions are too few for an interval."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    shown = figure(name, row[name])
    if low is None:
        return shown
    if FIGURES[name].points:
        only = f", {SEEDS_ONLY}" if row.get("accuracy_over") == SEEDS_ONLY and name not in JUDGED else ""
        return f"{shown} ({ends(row[name], low, high or 1.0, share_end, whole=SHARES)}{only})"
    return f"{shown} ({ends(row[name], low, high or low, number)})"


def accuracies_over(rows: Sequence[Configuration]) -> str:
    """Says what the intervals of these configurations' accuracies are over; nothing where there are none."""
    there = {row["accuracy_over"] for row in rows}
    first, *others = [kind for kind in ACCURACIES_OVER if kind in there] or [""]
    apart = [f"of {few(_labels_over(rows, kind))} {ACCURACIES_OVER[kind]}" for kind in others]
    return "; ".join([ACCURACIES_OVER.get(first, ""), *apart])


ACCURACIES_OVER = {
    IMAGES_AND_SEEDS: "95 % for new images and a new seed",
    IMAGES_AND_FOLDS: "95 % for new images, of models that are trained as those of the folds are",
    SEEDS_ONLY: f"{SEEDS_ONLY}, since no results on single images are kept, so the images' share of chance is left out",
}
"""What intervals of accuracies are over -> how that is said."""


def _labels_over(rows: Sequence[Configuration], kind: str) -> list[str]:
    return list(dict.fromkeys(label(row) for row in rows if row["accuracy_over"] == kind))


def image_problems(rows: Sequence[Configuration]) -> list[str]:
    """Names the files with results on single images that cannot be used."""
    problems = list(dict.fromkeys(problem for row in rows for problem in row["problems"]))
    what = "Results on single images cannot be read, so intervals are over seeds only"
    return [f"{what}: {few(problems)}"] if problems else []


def few(names: Sequence[str], most: int = 3) -> str:
    """Lists names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- configurations -------------------------------------------------------------------------------------------

SPOKEN = {
    "class-weights=balanced": "balanced class weights",
    "sampler=balanced": "balanced sampling",
}
"""Setting as a row's `variant` has it -> how it is said."""


def settings(variant: str) -> str:
    """Writes the settings of a `variant` with those of `SPOKEN` in words: ``lr=0.1 with balanced class weights``."""
    given = variant.split(" ")
    spoken = [SPOKEN[one] for one in given if one in SPOKEN]
    plain = [one for one in given if one not in SPOKEN]
    return " ".join([*plain, *([f"with {' and '.join(spoken)}"] if spoken else [])])


SOMETIMES: dict[str, Callable[[Any], str]] = {
    "dataset": str,
    "device": str,
    "precision": str,
    "memory_format": str,
    "batch_size": "batch {}".format,
    "image_size": "{} px".format,
    "epochs": "{} epochs".format,
    "variant": settings,
    "machine": "machine {}".format,
    "weights_requested": "weights {}".format,
    "weights_sha256": lambda value: f"weights {short_sha(value)}",
}
"""Columns that are part of a configuration's name only where they differ."""


WITHIN = {
    "machine": ("device",),
    "memory_format": ("backbone", "device", "precision", "batch_size", "image_size"),
    "weights_requested": ("backbone", "weights", "weights_sha256"),
    "weights_sha256": ("backbone", "weights"),
}
"""Columns within which another is compared: another device is another machine anyway, and each backbone takes the
layout that is faster for it; what weights were asked for matters only where the same ones came twice, and their hash
only where two have one name.
"""


def varying(rows: Sequence[Configuration]) -> list[str]:
    """Returns the columns of `SOMETIMES` that differ between rows of the same task."""
    differing = []
    for name in SOMETIMES:
        if len({row[name] for row in rows} - {None}) < 2:
            continue  # as most do: thousands of rows need not be put into groups
        values: dict[tuple[Any, ...], set[Any]] = {}
        for row in rows:
            group = tuple(row[column] for column in ("task", *WITHIN.get(name, ())))
            if row[name] is not None:
                values.setdefault(group, set()).add(row[name])
        if any(len(seen) > 1 for seen in values.values()):
            differing.append(name)
    return differing


def model(row: Configuration) -> str:
    """Names the backbone, and what its weights are where they are not pretrained."""
    return row["backbone"] if row["weights"] == "pretrained" else f"{row['backbone']} ({weights(row)})"


def weights(row: Configuration) -> str:
    """Writes ``random weights``, ``auto weights`` before they are known, ``weights of head.pt``."""
    named = row["weights"] in ("random", "auto", "pretrained")
    return f"{row['weights']} weights" if named else f"weights of {row['weights']}"


def label(row: Configuration, differs: Sequence[str] = ()) -> str:
    """Writes ``resnet18 · last_1 · linear``, followed by the columns named, where the row has a value there."""
    parts = [model(row), *([row["freeze"]] if row["task"] == "train" else []), row["head"]]
    parts += [SOMETIMES[name](row[name]) for name in differs if row[name] not in (None, "")]
    return printable(" · ".join(parts))


def discordances(found: Sequence[SeedDiscordance], ours: str, theirs: str) -> str:
    """Says, seed by seed, on how many images exactly one of two configurations is right; nothing where none was
    tested."""
    seeds = []
    for one in found:
        counts = f"{one.counts.only_a} and {one.counts.only_b} of {one.counts.images:,}"
        seeds.append(f"seed {one.seed}: {counts}, p = {one.p_adjusted:.2g}")
    if not seeds:
        return ""
    how = "McNemar's exact test" + (", each seed by itself, by Holm over the seeds" if len(seeds) > 1 else "")
    return f"images that only {ours} and only {theirs} has right: {'; '.join(seeds)} ({how})"


# --- places and ratios -----------------------------------------------------------------------------------------


def scope_name(scope: Scope, scopes: Sequence[Scope]) -> str:
    """Writes ``digits on cpu``, and the machine where several of its kind are reported."""
    return f"{data_sets({one.dataset for one in scopes})[scope.dataset]} on {place_name(scope, scopes)}"


OF_IMAGES: dict[str, Callable[[Any], str]] = {
    "image_size": "{} px".format,
    "train_size": "{:,} training images".format,
    "epochs": lambda epochs: count(epochs, "epoch"),
    "patience": "patience {}".format,
}
"""Axis that suits the images (`tlbench.grid.axes.Axis.of_images`) -> how its value is said."""


def scope_title(scope: Scope, scopes: Sequence[Scope]) -> str:
    """Writes ``digits on cpu, at 64 px, 3 epochs``: what no accuracy can be read without follows the scope's name where
    all its cells have it and it is not the default. Where cells differ, each says its own.
    """
    return f"{scope_name(scope, scopes)}{conditions(scope.rows)}"


def conditions(rows: Iterable[Configuration]) -> str:
    """Writes ``, at 64 px, 3 epochs``: what no accuracy can be read without, where all cells of these rows have it and
    it is not the default; empty without any.
    """
    cells, default = [row["record"].cell for row in rows], Cell()
    held = {name: {getattr(c, name) for c in cells if name == "image_size" or c.task == "train"} for name in OF_IMAGES}
    said = [
        OF_IMAGES[name](value)
        for name, values in held.items()
        if len(values) == 1 and (value := next(iter(values))) != getattr(default, name)
    ]
    return f"{', at ' * bool(said)}{', '.join(said)}"


def place_name(scope: Scope, scopes: Sequence[Scope]) -> str:
    """Writes ``cpu``, and the machine where several of its kind are reported."""
    several = len({s.machine for s in scopes if s.device == scope.device}) > 1
    return scope.device + (f", machine {scope.machine}" if several else "")


def ratio(value: Interval) -> str:
    """Writes ``12.3 (10.1 to 15.0)``."""
    if value.low is None or value.high is None:
        return number(value.estimate)
    return f"{number(value.estimate)} ({ends(value.estimate, value.low, value.high, number)})"
