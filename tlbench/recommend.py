"""From one row a configuration to a pick: the verdict of a report, and the pick under limits.

Cells are chosen by validation accuracy; the test accuracy of what was chosen is the figure to expect. Cells of
different data sets, devices or machines are never weighed against each other: each has its own verdict.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlbench import stats
from tlbench.grid import AXES, Cell

Row = Mapping[str, Any]
ONE_POINT = 0.01
"""Of accuracy: what one may give up for a cheaper cell."""
SEEDS = 5
"""What an accuracy should rest on; 3 are enough for a look."""
BLOCKS = 3


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The answer to one question about the cells of a scope."""

    question: str
    """A key of `QUESTIONS`."""
    row: Row | None
    """The configuration; None where no cell can answer."""
    standing: str
    """``decided``, ``tied``, ``cannot say`` (too few repetitions to tell), or ``nothing`` (no cell)."""
    ties: tuple[Row, ...] = ()
    """Those that cannot be told from it, best first."""
    reason: str = ""
    """Why it is not decided."""
    command: str = ""
    """What to run for a decision."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Cells that may be weighed against each other: one data set, one device, one machine."""

    dataset: str
    device: str
    machine: str
    rows: tuple[Row, ...]
    picks: tuple[Pick, ...]
    left_out: tuple[Row, ...] = ()
    """Configurations that no pick considers, since a record of theirs is not ok."""


QUESTIONS: dict[str, str] = {
    "accurate": "Most accurate",
    "cheapest": "Cheapest within one point of it",
    "fastest": "Fastest at inference",
}


def verdicts(summary: Sequence[Row], noise_floor: float | None = None) -> list[Scope]:
    """A verdict for each data set, device and machine, in order of appearance.

    ``noise_floor``: the relative difference below which two times are one (`tlbench.stats.NoiseFloor.relative`).
    """
    scopes: dict[tuple[str, str, str], list[Row]] = {}
    for row in summary:
        scopes.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    return [
        Scope(
            dataset=dataset,
            device=device,
            machine=machine,
            rows=tuple(rows),
            picks=_picks(rows, noise_floor),
            left_out=tuple(r for r in rows if r["status"] not in ("ok", "not_applicable")),
        )
        for (dataset, device, machine), rows in scopes.items()
    ]


def _picks(rows: Sequence[Row], noise_floor: float | None) -> tuple[Pick, ...]:
    good = [r for r in rows if r["status"] == "ok"]
    trained = [r for r in good if r["task"] == "train"]
    measured = [r for r in trained if r["accuracy_val"] is not None]
    accurate = _pick("accurate", measured, "accuracy_val", None, _why_no_accuracy(rows, trained))
    near = []
    if accurate.row is not None:
        near = [r for r in measured if r["accuracy_val"] >= accurate.row["accuracy_val"] - ONE_POINT - 1e-12]
    cheapest = _pick("cheapest", near, "training_seconds", noise_floor, accurate.reason)
    inferring = [r for r in good if r["task"] == "infer"]
    fastest = _pick(
        "fastest", inferring, "images_per_second", noise_floor, "no cell of task infer finished; add --task train,infer"
    )
    return accurate, cheapest, fastest


def _why_no_accuracy(rows: Sequence[Row], trained: Sequence[Row]) -> str:
    if trained:
        return f"{rows[0]['dataset']} has no labels that mean anything; choose a data set of images"
    return "no training cell finished" + ("" if any(r["task"] == "train" for r in rows) else "; add --task train")


HIGHER_IS_BETTER = {"accuracy_val": True, "training_seconds": False, "images_per_second": True, "latency_p50_ms": False}


def _pick(question: str, rows: Sequence[Row], figure: str, noise_floor: float | None, otherwise: str) -> Pick:
    rows = [r for r in rows if r["values"][figure]]
    if not rows:
        return Pick(question=question, row=None, standing="nothing", reason=otherwise)
    if len(rows) == 1:
        return Pick(question=question, row=rows[0], standing="decided", reason="the only cell that can answer")
    by_name = {str(n): row for n, row in enumerate(rows)}
    samples = {name: row["values"][figure] for name, row in by_name.items()}
    units = list(next(iter(samples.values())))
    paired = all(sorted(map(str, own)) == sorted(map(str, units)) for own in samples.values())
    ranked = stats.rank(
        {name: [own[unit] for unit in (units if paired else own)] for name, own in samples.items()},
        HIGHER_IS_BETTER[figure],
        paired=paired,
        logarithmic=figure != "accuracy_val",
    )
    leader, others = ranked[0], ranked[1:]
    best = by_name[leader.name]
    if leader.n < 2 or any(o.standing == "cannot say" for o in others):
        close = [by_name[r.name] for r in ranked[:4]]
        few = "one seed tells" if figure == "accuracy_val" else "one measurement tells"
        return Pick(
            question=question,
            row=best,
            standing="cannot say",
            reason=f"{few} no spread, so a lead may be chance",
            command=_to_decide(close, figure),
        )
    tied = [o for o in others if o.standing == "tied" or _within(o.gap, noise_floor)]
    if tied:
        ties = tuple(by_name[o.name] for o in tied)
        return Pick(
            question=question,
            row=best,
            standing="tied",
            ties=ties,
            reason="the intervals of their differences include none"
            if all(o.standing == "tied" for o in tied)
            else "their differences are within the noise",
            command=_to_decide([best, *ties[:3]], figure),
        )
    return Pick(question=question, row=best, standing="decided")


def _within(gap: stats.Interval | None, noise_floor: float | None) -> bool:
    return gap is not None and noise_floor is not None and abs(math.log(gap.estimate)) <= math.log1p(noise_floor)


def _to_decide(rows: Sequence[Row], figure: str) -> str:
    """The command that repeats these configurations: with new seeds for an accuracy, once more for a time."""
    cells = [row["record"].cell for row in rows]
    seeds = None
    if figure == "accuracy_val":
        known = {seed for row in rows for seed in row["values"][figure]}
        more = SEEDS - len(known) if len(known) < SEEDS else SEEDS
        seeds = [seed for seed in range(max(known) + 1 + more) if seed not in known][:more]
    return command(cells, seeds)


def command(cells: Iterable[Cell], seeds: Sequence[int] | None = None) -> str:
    """The command that runs these cells (and what lies between them on the axes): each axis at its values.

    Axes at their defaults are left out, except those that a reader looks for.
    """
    cells, default = list(cells), Cell()
    words = ["tlbench", "run"]
    for name, axis in AXES.items():
        values = list(dict.fromkeys(getattr(c, name) for c in cells if not (c.task == "infer" and name in TRAINING)))
        if name == "seed" and seeds is not None:
            values = list(seeds)
        named = name in ("task", "backbone", "freeze", "head", "dataset", "device", "seed")
        if values and (named or values != [getattr(default, name)]) and None not in values:
            words += [f"--{axis.option}", ",".join(map(_written, values))]
    return " ".join(map(shlex.quote, words))


TRAINING = ("freeze", "epochs")
"""Axes that inference does not have."""


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def noise_floor(table: Iterable[Row]) -> stats.NoiseFloor | None:
    """The A/A noise floor of some records: how far apart two identical cells of a block came out.

    None where no A/A pair was measured.
    """
    places: dict[tuple[Any, ...], list[float]] = {}
    for row in sorted(table, key=lambda r: r["role"] == "aa"):
        value = row["epoch_seconds"] if row["task"] == "train" else row["images_per_second"]
        if row["status"] == "ok" and value:
            places.setdefault((row["run"], row["key"], row["block"]), []).append(value)
    twins = {place: values for place, values in places.items() if len(values) == 2}
    if not twins:
        return None
    ratios = [second / first for first, second in twins.values()]
    return stats.noise_floor(ratios, blocks=len(ratios))
