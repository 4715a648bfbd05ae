"""Rows of single records -> one row a configuration. Records are grouped (`tlbench.analysis.grouping`); their
accuracies are averaged over seeds, their times over blocks, each with its interval. One file, since a row's figures
rest on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, geometric_mean
from typing import Any

from tlbench.analysis import folded
from tlbench.analysis.averages import (
    ACCURACIES,
    IMAGES_AND_FOLDS,
    IMAGES_AND_SEEDS,
    JUDGED,
    SEEDS_ONLY,
    intervals,
)
from tlbench.analysis.deciding import asked_by_run
from tlbench.analysis.figures import (
    FIGURES,
    STEP_PARTS,
    VALID,
    Average,
    Figure,
    Row,
    column,
    each_column,
    first_known,
    same_known,
)
from tlbench.analysis.folded import OTHERS
from tlbench.analysis.grouping import data_set_names, group, of_one_condition, resolved_images
from tlbench.analysis.image_figures import READERS_OF_IMAGES
from tlbench.analysis.metrics import ACCURACY, DECIDING
from tlbench.analysis.pooled import means, of_folds
from tlbench.analysis.raced import counted, rung_of
from tlbench.analysis.scores import SPLITS, Numbers, majority_shares, scores_of
from tlbench.records.machine import short_hash

OF_IMAGES = frozenset(name for name, figure in FIGURES.items() if figure.value in READERS_OF_IMAGES)
"""Figures that nothing but results on single images tells."""
Configuration = Mapping[str, Any]
"""A configuration's row: the columns of `SUMMARY`, and ``group``, ``record`` and ``values`` (see `summarise`)."""

STATUS_ORDER = ("ok", "stopped", "not_applicable", "skipped", "interrupted", "diverged", "timeout", "oom", "failed")
GRADES = ("ok", "shared", "drifting", "noisy", "throttled")


# --- the columns ----------------------------------------------------------------------------------------------


def _averaged(average: Average) -> list[str]:
    return [name for name, figure in FIGURES.items() if figure.average == average]


FIRST, SAME = _averaged("first"), _averaged("same")
MEANS, TIMES = _averaged("mean"), _averaged("units")
FINISHED = _averaged("finished")
IN_USE = [name for name, figure in FIGURES.items() if figure.in_use]
OWN = {
    figure.name: figure
    for figure in (
        Figure(name="status", meaning="ok when every record is; else the worst of them", heading="status"),
        Figure(name="reason", meaning="why it is not ok"),
        Figure(name="validity", meaning="of the timing: ok, or the worst of the records"),
        Figure(
            name="validity_reason",
            meaning="why it is not ok, and how many of the records are left out of the times for it",
        ),
        Figure(name="records", meaning="of this configuration, over seeds and blocks", kind="count"),
        Figure(name="records_ok", meaning="of them with status ok; the figures are theirs", kind="count"),
        Figure(
            name="seeds", meaning="seeds with status ok: what the accuracies are averaged over", kind="count",
            heading="seeds", hidden=True,
        ),
        Figure(
            name="units", meaning="blocks, or where there is one block, seeds: what the times are averaged over",
            kind="count", heading="blocks or seeds timed", hidden=True,
        ),
        replace(FIGURES["accuracy_val"], meaning="mean over seeds; cells are chosen by it"),
        replace(FIGURES["accuracy_test"], meaning="mean over seeds; nothing is chosen by it"),
        *(
            Figure(
                name=f"accuracy_test_wilson_{end}",
                meaning="95 % interval that the number of test images leaves (Wilson)", kind="share",
            )
            for end in ("low", "high")
        ),
        Figure(
            name="accuracy_over",
            meaning=f"what the intervals of the accuracies are over: {IMAGES_AND_SEEDS}, of one seed with folds "
            f"{IMAGES_AND_FOLDS}, or {SEEDS_ONLY} where records hold no results on single images; none for one seed",
        ),
        Figure(
            name="run", meaning="folders of the runs that the records come from", heading="run", hidden=True
        ),
        Figure(
            name="race", meaning="how far a race went with it, and why no further; nothing of what was not raced",
            heading="race", seldom=True,
        ),
    )
}  # fmt: skip
"""Figures that a configuration has beside, or otherwise than, its records."""

ORDER = (
    "task", "backbone", "weights", "freeze", "head", "dataset", "device", "precision", "memory_format", "batch_size",
    "image_size", "epochs", "variant", "status", "reason", "validity", "validity_reason", "records", "records_ok",
    "seeds", "units", "accuracy_val", "accuracy_test", "accuracy_test_wilson_low", "accuracy_test_wilson_high",
    *(name for name in TIMES if name != "own_seconds"),  # a later column: it comes behind
    *(f"inference_{name}" for name in IN_USE), "peak_memory_bytes", "total_parameters", "trainable_parameters",
    "train_images", "val_images", "test_images", "classes", "cut", "optimizer", "lr", "backbone_lr", "lr_trials",
    "flops_forward", "flops_train_step", "flops_prefix", "prefix_where", "prefix_bytes", "weights_requested",
    "weights_source", "weights_reason", "machine", "hardware", "configuration", "inference",
    *(f"{part}_seconds" for part in STEP_PARTS), "ceiling_share", "energy_joules", "loss_test", "prefix_seconds",
    "epoch_iqr_seconds", "run",
)  # fmt: skip
"""Order of the columns of report.csv, which people also read by their place; what is not named here comes after them.
"""
LATER = (
    "accuracy_over", "majority_share", "majority_share_val", *JUDGED, "top5_accuracy_val", "top5_accuracy_test",
    "nll_val", "nll_test", "ece_val", "ece_test",
)  # fmt: skip

OVER = {
    "seeds": "for new images and a new seed, or over seeds only (accuracy_over says which)",
    "units": "over blocks or seeds",
}
"""How a figure is averaged -> what its interval answers."""


def _columns() -> Iterator[Figure]:
    """Yields every figure of a configuration, the ends of intervals behind what they are intervals of."""
    in_use = {f"inference_{name}": FIGURES[name] for name in IN_USE}
    averaged = [name for name, figure in FIGURES.items() if figure.average and name not in (*ORDER, *LATER)]
    others, seldom = ([n for n in averaged if FIGURES[n].seldom is wanted] for wanted in (False, True))
    for name in (*ORDER, *others, *LATER, *seldom, "race"):
        if name in in_use:
            meaning = "of the inference cell with the same backbone, head and settings; " + in_use[name].meaning
            yield replace(in_use[name], name=name, meaning=meaning, average=None)
            continue
        figure = OWN.get(name) or FIGURES[name]
        said = {"units": "geometric mean over blocks or seeds; ", "most": "the most of all records; "}
        yield replace(figure, meaning=said.get(figure.average or "", "") + figure.meaning)
        over = OVER.get(figure.average or "", "")
        for end in ("low", "high") if over else ():
            unless = "; none where they share one computation of the frozen prefix" * (name == "training_seconds")
            unless += "; of the metric that decides alone" * (name in JUDGED)
            meaning = f"95 % interval {over}{unless}"
            yield Figure(name=f"{name}_{end}", meaning=meaning, kind=figure.kind, seldom=figure.seldom)


SUMMARY_FIGURES = {figure.name: figure for figure in _columns()}
"""Name -> figure of a configuration, in the order of the columns of report.csv."""
SUMMARY: dict[str, str] = {name: figure.meaning for name, figure in SUMMARY_FIGURES.items() if not figure.seldom}
"""Columns of `summarise` and of report.csv, which has seldom ones where it needs them -> what they mean."""


# --- one row a configuration ----------------------------------------------------------------------------------


def summarise(table: Iterable[Row]) -> list[dict[str, Any]]:
    """Returns one row for each configuration, in order of appearance, with the keys of `SUMMARY`, and beside them what
    they are made of: ``group`` (the rows), ``timed`` (those whose times count: `of_one_condition`), ``record`` (the
    first record), ``values`` ({figure: {unit: value}}), ``metric`` (the name of the one that decides), ``scores`` (of
    accuracy and of that metric, {figure: which images each seed has right, or what they add to it; or None}),
    ``problems`` with their files. A/A measurements are left out.
    """
    rows = without_twins(table)
    images = resolved_images(rows)
    names = dict(zip(map(id, rows), data_set_names(rows, images), strict=True))
    numbers = Numbers()
    summary: list[dict[str, Any]] = []
    for of_one, alike, metric in _configurations(rows, images):
        summary.append({**_summary(of_one, alike, numbers, metric), "dataset": names[id(of_one[0])]})
    _tell_apart(summary)
    inferring = {row["inference"]: row for row in summary if row["task"] == "infer" and row["status"] == "ok"}
    for row in summary:
        in_use = inferring.get(row["inference"], {})
        row |= {f"inference_{name}": in_use.get(name) for name in IN_USE}
    return summary


def values_of(table: Sequence[Row], columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns one row for each configuration, as `summarise` does, of what runs are held against each other by alone:
    of the keys of `SUMMARY` those of `KNOWN_BY`, ``status`` and ``reason``; ``group``, ``timed`` and ``record``; and
    ``values`` of those figures that are averages over seeds or units. To make the others takes most of its time.
    ``columns`` are figures of the rows of the table, by name.
    """
    rows = without_twins(table)
    places = {id(row): place for place, row in enumerate(table)}
    numbers, configurations = Numbers(), []
    for of_one, alike, _ in _configurations(rows, resolved_images(rows)):
        good = _ok(of_one)
        timed = _valid(alike) or alike
        units, seeds = _units(timed), column(good, "seed")
        in_folds = any(column(good, "fold"))
        values: dict[str, Mapping[Any, float]] = {}
        of_good, of_timed = ([places[id(r)] for r in each] for each in (good, timed))
        for name, every in columns.items():
            if name in TIMES:
                values[name] = _by([every[place] for place in of_timed], units, geometric_mean)
            elif name in ACCURACIES:
                whole = _by([every[place] for place in of_good], seeds, fmean)
                values[name] = (in_folds and folded.by_seed(good, name)) or whole
        if in_folds:
            _in_folds(values, {name: scores_of(good, name, numbers)[0] for name in SPLITS if name in values})
        best_first = good if len(good) == len(of_one) else [*good, *(r for r in of_one if r.status != "ok")]
        configurations.append(
            {
                **{name: first_known(best_first, name) for name in KNOWN_BY},
                "status": _worst(of_one).status,
                "reason": _reason(of_one),
                "values": values,
                "group": of_one,
                "timed": alike,
                "record": of_one[0].record,
            }
        )
    _tell_apart(configurations)
    return configurations


KNOWN_BY = ("device", "machine", "weights_sha256", "images_sha256", "configuration")
"""Columns that tell configurations of one name apart."""


def _configurations(rows: Sequence[Row], images: Sequence[str]) -> Iterator[tuple[list[Row], list[Row], str]]:
    """Yields the rows of each configuration that count, those of them whose times may stand in one table, and the name
    of the metric that decides. ``images``: of `resolved_images`.
    """
    alike = set(map(id, of_one_condition(rows)))
    asked = asked_by_run(rows)
    for every in group(rows, images):
        of_one = counted(every)
        yield of_one, [r for r in of_one if id(r) in alike], asked.get(of_one[-1].run, ACCURACY)


def _tell_apart(configurations: Iterable[dict[str, Any]]) -> None:
    """Gives each its own hash: of some, hashes differ at one seed, which no single record tells."""
    taken: set[str] = set()
    for row in configurations:
        if row["configuration"] in taken:
            row["configuration"] = short_hash([row["configuration"], len(taken)])
        taken.add(row["configuration"])


def without_twins(table: Iterable[Row]) -> list[Row]:
    """Returns the rows less the A/A measurements, which repeat a cell only to measure the noise."""
    every = list(table)
    return [item for item, role in zip(every, column(every, "role"), strict=True) if role != "aa"]


def _summary(group: Sequence[Row], alike: Sequence[Row], numbers: Numbers, metric: str) -> dict[str, Any]:
    """Returns the row of a group; ``alike`` are those of it whose times may stand in the table, ``metric`` decides."""
    good = _ok(group)
    seeds = column(good, "seed")
    best_first = good if len(good) == len(group) else [*good, *(r for r in group if r.status != "ok")]
    timed = _valid(alike) or alike
    units = _units(timed)
    untold = OF_IMAGES if _no_images(good) else frozenset()
    told = [name for name in ACCURACIES if name not in untold]
    nothing: list[Any] = []
    accuracies = {**dict.fromkeys(ACCURACIES, nothing), **dict(zip(told, each_column(good, told), strict=True))}
    in_folds = any(column(good, "fold"))
    values = {
        **{
            name: (in_folds and folded.by_seed(good, name)) or _by(known, seeds if known else (), fmean)
            for name, known in accuracies.items()
        },
        **{
            name: _by(known, units, geometric_mean)
            for name, known in zip(TIMES, each_column(timed, TIMES), strict=True)
        },
    }
    decides = [f"{metric}_{split}" for split in SPLITS.values() if metric in DECIDING]
    found = {name: scores_of(good, name, numbers) for name in dict.fromkeys((*SPLITS, *decides))}
    scores = {name: each for name, (each, _) in found.items()}
    pooled = of_folds(good, numbers)
    values |= {name: pooled[name] for name in JUDGED if name in pooled}
    _in_folds(values, scores)
    finished = [name for name in FINISHED if name not in untold]
    return {
        **{name: first_known(best_first, name) for name in FIRST},
        **{name: same_known(best_first, name) for name in SAME},
        "status": _worst(group).status,
        "reason": _reason(group),
        "validity": max(filter(None, column(good, "validity")), key=_grade, default=None),
        "validity_reason": _validity_reason(good, timed),
        "records": len(group),
        "records_ok": len(good),
        "seeds": len(set(seeds)),
        "units": len(set(units)),
        **(counts := folded.totals(good)),
        **intervals(values, scores, counts.get("test_images", first_known(good, "test_images"))),
        **(dict.fromkeys(("training_seconds_low", "training_seconds_high")) if _share_a_fill(timed, units) else {}),
        "peak_memory_bytes": max(filter(None, column(good, "peak_memory_bytes")), default=None),
        **dict(zip(MEANS, map(_mean, each_column(timed, MEANS)), strict=True)),
        **dict.fromkeys(FINISHED),
        **dict(zip(finished, map(_mean, each_column(good, finished)), strict=True)),
        **{name: value for name, value in means(pooled).items() if name in FINISHED},
        **_by_images(good),
        **majority_shares(good, numbers),
        "run": ", ".join(dict.fromkeys(column(group, "run"))),
        "race": rung_of(group),
        "values": values,
        "scores": scores,
        "metric": metric,
        "problems": tuple(dict.fromkeys(text for _, texts in found.values() for text in texts)),
        "group": group,
        "timed": alike,
        "record": group[0].record,
    }


def _ok(group: Sequence[Row]) -> list[Row]:
    return [row for row, status in zip(group, column(group, "status"), strict=True) if status == "ok"]


def _valid(group: Sequence[Row]) -> list[Row]:
    """Returns the rows whose times are valid."""
    return [row for row, validity in zip(group, column(group, "validity"), strict=True) if validity in VALID]


def _worst(group: Iterable[Row]) -> Row:
    statuses = column(every := list(group), "status")
    return every[max(range(len(every)), key=lambda place: STATUS_ORDER.index(statuses[place]))]


def _in_folds(values: dict[str, Any], scores: Mapping[str, Any]) -> None:
    """Puts accuracies over all images of all folds in the place of those over folds, where single images are known."""
    for name, known in scores.items():
        if known is not None and known.folds is not None and len(known.images) == len(values[name]):
            values[name] = dict(zip(values[name], known.accuracies.tolist(), strict=True))


def _no_images(rows: Iterable[Row]) -> bool:
    """Tells whether these rows are of records none of which has results on single images."""
    return all(r.source is not None and r.source.record.per_image is None for r in rows)


def _units(timed: Sequence[Row]) -> list[Any]:
    """Returns what counts as one timing, of each row: the block, in which all seeds share the machine's mood; else the
    seed.
    """
    blocks = list(zip(column(timed, "run"), column(timed, "block"), strict=True))
    return blocks if len(set(blocks)) > 1 else column(timed, "seed")


def _share_a_fill(timed: Sequence[Row], units: Sequence[Any]) -> bool:
    """Tells whether units took a frozen prefix that was computed, and timed, once: their spread says nothing of it."""
    fills: dict[Any, set[str]] = {}
    for names, unit in zip(column(timed, "fills"), units, strict=True):
        if names is None:
            return True
        fills.setdefault(unit, set()).update(names)
    return sum(map(len, fills.values())) > len(set().union(*fills.values()))


def _by(values: Sequence[Any], units: Sequence[Any], middle: Callable[..., float]) -> dict[Any, float]:
    numbers_of: dict[Any, list[float]] = {}
    for value, unit in zip(values, units, strict=True):
        if value is not None and value == value:  # NaN is how a DataFrame says unknown
            numbers_of.setdefault(unit, []).append(value)
    return {key: middle(numbers) if len(numbers) > 1 else numbers[0] for key, numbers in numbers_of.items()}


def _by_images(good: Sequence[Row]) -> dict[str, float | None]:
    """Returns means that are no plain ones over records: of folds each image counts alike, and accuracies without
    copies are of the same records as those beside them. One that has no copies has none to leave out.
    """
    folds = {name: by for name in OTHERS if (by := folded.by_seed(good, name))}
    found: dict[str, float | None] = {name: fmean(by.values()) for name, by in folds.items()}
    for name in ("accuracy_val", "accuracy_test"):
        clean = column(good, f"{name}_clean")
        if any(value is not None for value in clean):
            both = zip(clean, column(good, name), strict=True)
            found[f"{name}_clean"] = _mean(plain if value is None else value for value, plain in both)
    return found


def _mean(known: Iterable[float | None]) -> float | None:
    values = [value for value in known if value is not None]
    return fmean(values) if values else None


def _grade(validity: str) -> int:
    return GRADES.index(validity) if validity in GRADES else len(GRADES)


def _reason(group: Sequence[Row]) -> str:
    """Returns ``seed 1, 2: the loss is not a number``, each reason once."""
    seeds: dict[str, list[str]] = {}
    for r, status in zip(group, column(group, "status"), strict=True):
        if status != "ok":
            seeds.setdefault(r.reason, []).append(str(r.seed))
    if not seeds:
        return ""
    if len(seeds) == 1 and all(r.status != "ok" for r in group):
        return next(iter(seeds))
    return "; ".join(f"seed {', '.join(dict.fromkeys(failed))}: {reason}" for reason, failed in seeds.items())


def _validity_reason(good: Sequence[Row], timed: Sequence[Row]) -> str | None:
    bad = [r for r, validity in zip(good, column(good, "validity"), strict=True) if validity not in VALID]
    if not bad:
        return None
    reasons = "; ".join(dict.fromkeys(r.validity_reason or r.validity or "" for r in bad))
    left_out = "left out of the times"
    if not timed:
        left_out += ", which are of cells that had their node to themselves"
    elif not any(r.has_valid_times for r in timed):
        left_out = "all there is"
    return f"{len(bad)} of {len(good)}, {left_out}: {reasons}"
