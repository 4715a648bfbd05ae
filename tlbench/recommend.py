"""From one row a configuration to a pick: the verdict of a report, and the pick under a user's limits.

Cells are chosen by validation accuracy; the test accuracy of what was chosen is the figure to expect. Cells of
different data sets, devices or machines are never weighed against each other: each has its own verdict.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlbench import stats
from tlbench.errors import UserError
from tlbench.grid import AXES, Cell
from tlbench.record import SETTINGS, Record, Settings

Row = Mapping[str, Any]
Place = tuple[str, str]
"""Device and machine."""

ONE_POINT = 0.01
"""Of accuracy: what one may give up for a cheaper cell."""
SEEDS = 5
"""What an accuracy should rest on; 3 are enough for a look."""
BLOCKS = 3
"""What a time should rest on."""
CONTENDERS = 4
"""Configurations that a command to decide runs at most."""
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The answer to one question about the cells of a scope."""

    question: str
    """A key of `QUESTIONS`."""
    row: Row | None
    """The configuration; None where no cell can answer."""
    standing: str
    """``decided``, ``tied``, ``cannot say`` (too few repetitions to tell), ``alone`` (one cell, nothing to weigh it
    against) or ``nothing`` (no cell)."""
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
    floor: stats.NoiseFloor | None
    """Measured on this device and machine."""
    picks: tuple[Pick, ...]
    left_out: tuple[Row, ...]
    """Configurations that no pick considers, since a record of theirs is not ok."""
    budgets: Mapping[str, tuple[Any, ...]]
    """What the training cells were not given alike: column -> values."""


QUESTIONS: dict[str, str] = {
    "accurate": "Most accurate",
    "cheapest": "Cheapest within one point of it",
    "fastest": "Fastest at inference",
}
BUDGETS = ("epochs", "train_images", "lr_trials")
HIGHER_IS_BETTER = {"accuracy_val": True, "training_seconds": False, "images_per_second": True}


# --- the verdict ----------------------------------------------------------------------------------------------


def verdicts(summary: Sequence[Row], floors: Mapping[Place, stats.NoiseFloor] | None = None) -> list[Scope]:
    """A verdict for each data set, device and machine, in order of appearance. ``floors``: of `noise_floors`."""
    scopes: dict[tuple[str, str, str], list[Row]] = {}
    for row in summary:
        scopes.setdefault((row["dataset"], row["device"], row["machine"]), []).append(row)
    return [
        _scope(dataset, device, machine, rows, (floors or {}).get((device, machine)))
        for (dataset, device, machine), rows in scopes.items()
    ]


def _scope(dataset: str, device: str, machine: str, rows: Sequence[Row], floor: stats.NoiseFloor | None) -> Scope:
    trained = [r for r in rows if r["task"] == "train" and r["records_ok"]]
    budgets = {name: tuple(dict.fromkeys(r[name] for r in trained if r[name] is not None)) for name in BUDGETS}
    return Scope(
        dataset=dataset,
        device=device,
        machine=machine,
        rows=tuple(rows),
        floor=floor,
        picks=_picks(rows, floor),
        left_out=tuple(r for r in rows if r["status"] not in ("ok", "not_applicable")),
        budgets={name: values for name, values in budgets.items() if len(values) > 1},
    )


def _picks(rows: Sequence[Row], floor: stats.NoiseFloor | None) -> tuple[Pick, ...]:
    good = [r for r in rows if r["status"] == "ok"]
    measured = [r for r in good if r["task"] == "train" and r["accuracy_val"] is not None]
    accurate = _pick("accurate", measured, "accuracy_val", floor, _why_no_accuracy(rows))
    best = -math.inf if accurate.row is None else accurate.row["accuracy_val"]
    near = [r for r in measured if r["accuracy_val"] >= best - ONE_POINT - ROUNDING]
    cheapest = _pick("cheapest", near, "training_seconds", floor, accurate.reason)
    inferring = [r for r in good if r["task"] == "infer"]
    fastest = _pick("fastest", inferring, "images_per_second", floor, _why_no_inference(rows))
    return accurate, cheapest, fastest


def _why_no_accuracy(rows: Sequence[Row]) -> str:
    if not any(r["task"] == "train" for r in rows):
        return "no cell was trained; run with --task train,infer"
    if any(r["task"] == "train" and r["status"] == "ok" for r in rows):
        return f"{rows[0]['dataset']} has no labels that mean anything; run with a data set of real images"
    return "no training cell finished; the failures below say why"


def _why_no_inference(rows: Sequence[Row]) -> str:
    if any(r["task"] == "infer" for r in rows):
        return "no inference cell finished; the failures below say why"
    return "inference was not measured; run with --task train,infer"


def _pick(question: str, rows: Sequence[Row], figure: str, floor: stats.NoiseFloor | None, otherwise: str) -> Pick:
    rows = [r for r in rows if r["values"][figure]]
    if not rows:
        return Pick(question=question, row=None, standing="nothing", reason=otherwise)
    if len(rows) == 1:
        return Pick(question=question, row=rows[0], standing="alone")
    ranked = ranking(rows, figure)
    (best, leader), others = ranked[0], ranked[1:]
    unknown = [row for row, r in others if r.standing == "cannot say"]
    if unknown:
        what = "seed" if figure == "accuracy_val" else "measurement"
        known = f"one {what} tells no spread" if leader.n < 2 else f"{len(unknown)} others have one {what} only"
        return Pick(
            question=question,
            row=best,
            standing="cannot say",
            reason=f"{known}, so the lead may be chance",
            command=_to_decide([best, *unknown], figure),
        )
    within = floor.relative if floor is not None and figure != "accuracy_val" else None
    tied = tuple(row for row, r in others if r.standing == "tied" or _within(r.gap, within))
    if not tied:
        return Pick(question=question, row=best, standing="decided")
    chance = any(r.standing == "tied" for _, r in others)
    return Pick(
        question=question,
        row=best,
        standing="tied",
        ties=tied,
        reason="the differences may be chance" if chance else "the differences are within the noise floor",
        command=_to_decide([best, *tied], figure),
    )


def ranking(rows: Sequence[Row], figure: str) -> list[tuple[Row, stats.Ranked]]:
    """Configurations by a figure, best first; compared seed by seed or block by block where all have the same ones."""
    by_name = {f"{n:06}": row for n, row in enumerate(rows)}
    samples = {name: row["values"][figure] for name, row in by_name.items()}
    units = next(iter(samples.values()))
    paired = all(own.keys() == units.keys() for own in samples.values())
    ranked = stats.rank(
        {name: [own[unit] for unit in (units if paired else own)] for name, own in samples.items()},
        HIGHER_IS_BETTER[figure],
        paired=paired,
        logarithmic=figure != "accuracy_val",
    )
    return [(by_name[r.name], r) for r in ranked]


def _within(gap: stats.Interval | None, floor: float | None) -> bool:
    return gap is not None and floor is not None and abs(math.log(gap.estimate)) <= math.log1p(floor)


def noise_floors(table: Iterable[Row]) -> dict[Place, stats.NoiseFloor]:
    """(device, machine) -> how far apart two identical measurements of a block came out there; no entry without A/A
    pairs whose times are valid.
    """
    pairs: dict[Place, dict[tuple[Any, ...], list[float]]] = {}
    for row in table:
        names = ("epoch_seconds", "training_seconds") if row["task"] == "train" else ("images_per_second",)
        value = next((row[name] for name in names if row[name]), None)
        if row["role"] == "aa" and row["status"] == "ok" and row["validity"] in (None, "ok") and value:
            own = pairs.setdefault((row["device"], row["machine"]), {})
            own.setdefault((row["run"], row["key"], row["block"]), []).append(value)
    floors = {}
    for place, own in pairs.items():
        twins = {key: values for key, values in own.items() if len(values) == 2}
        if twins:
            blocks = len({(run, block) for run, _, block in twins})
            floors[place] = stats.noise_floor([second / first for first, second in twins.values()], blocks)
    return floors


# --- commands that run something again ------------------------------------------------------------------------


def _to_decide(rows: Sequence[Row], figure: str) -> str:
    """The command that repeats these configurations: with new seeds for an accuracy, in blocks for a time."""
    rows = rows[:CONTENDERS]
    records = [row["record"] for row in rows]
    if figure != "accuracy_val":
        return command(records, blocks=max(BLOCKS, *(row["units"] for row in rows)))
    known = {seed for row in rows for seed in row["values"][figure]}
    more = SEEDS - len(known) if len(known) < SEEDS else SEEDS
    return command(records, [seed for seed in range(max(known) + 1 + more) if seed not in known][:more])


SHOWN_AXES = ("task", "backbone", "freeze", "head", "dataset", "device", "seed")
"""Written into a command even where they are at their defaults."""
NOT_FOR_INFERENCE = ("freeze", "epochs")


def command(records: Iterable[Record], seeds: Sequence[int] | None = None, blocks: int | None = None) -> str:
    """The command that runs the records' cells again, and what else their axes span."""
    records, default = list(records), Cell()
    cells = [record.cell for record in records]
    words = ["tlbench", "run"]
    for name, axis in AXES.items():
        values = [getattr(c, name) for c in cells if not (c.task == "infer" and name in NOT_FOR_INFERENCE)]
        values = list(dict.fromkeys(values if name != "seed" or seeds is None else seeds))
        if None not in values and values and (name in SHOWN_AXES or values != [getattr(default, name)]):
            words += [f"--{axis.option}", ",".join(map(str, values))]
    for option, setting in SETTINGS.items():
        values = list(dict.fromkeys(getattr(record.settings, setting.field) for record in records))
        value = blocks if setting.field == "blocks" and blocks is not None else values[0]
        if value != getattr(Settings(), setting.field):
            words += [f"--{option}", {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)]
    return " ".join(map(shlex.quote, words))


# --- the pick under limits ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a cell must keep to. None: no limit."""

    max_latency_ms: float | None = None
    """Of the 95th percentile of single images."""
    max_memory_bytes: float | None = None
    """Of the peak in training."""
    max_training_seconds: float | None = None
    min_accuracy: float | None = None
    """Of the validation accuracy, by which cells are chosen."""
    device: str | None = None
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A configuration that was not picked, and why: every limit that it breaks, or how far it lies behind."""

    row: Row
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The pick under limits."""

    pick: Row | None
    runner_up: Row | None
    tied: bool
    """Pick and runner-up cannot be told apart in accuracy."""
    caveats: tuple[str, ...]
    """Limits that the pick keeps to, but the ends of its intervals may not."""
    excluded: tuple[Excluded, ...]
    command: str = ""
    """What to run to tell pick and runner-up apart."""


@dataclass(frozen=True, kw_only=True)
class _Limit:
    field: str
    figure: str
    what: str
    most: bool
    """An upper limit."""
    unknown: str


_LIMITS = (
    _Limit(
        field="max_latency_ms",
        figure="latency_p95_ms",
        what="p95 latency",
        most=True,
        unknown="its latency was not measured; run it with --task train,infer",
    ),
    _Limit(
        field="max_memory_bytes",
        figure="peak_memory_bytes",
        what="peak memory",
        most=True,
        unknown="its memory is unknown",
    ),
    _Limit(
        field="max_training_seconds",
        figure="training_seconds",
        what="training time",
        most=True,
        unknown="its training time is unknown",
    ),
    _Limit(
        field="min_accuracy",
        figure="accuracy_val",
        what="validation accuracy",
        most=False,
        unknown="its accuracy was not measured",
    ),
)


def recommend(summary: Sequence[Row], limits: Limits, show: Any = None) -> Recommendation:
    """The most accurate configuration that keeps to the limits, the runner-up, and why each other is neither.

    ``show``: figure name, value -> text (`tlbench.wording.figure`). Errors: UserError when there is nothing to choose
    from, or the cells are of several data sets, whose accuracies cannot be compared.
    """
    show = show or (lambda _, value: f"{value:g}")
    rows = _candidates(summary, limits)
    inference = {r["inference"]: r for r in summary if r["task"] == "infer" and r["status"] == "ok"}
    excluded, kept, caveats = [], [], {}
    for row in rows:
        reasons, close = _judge(row, inference.get(row["inference"]), limits, show)
        if reasons:
            excluded.append(Excluded(row=row, reasons=tuple(reasons)))
        else:
            kept.append(row)
            caveats[row["configuration"]] = tuple(close)
    if not kept:
        return Recommendation(pick=None, runner_up=None, tied=False, caveats=(), excluded=tuple(excluded))
    ranked = ranking(kept, "accuracy_val")
    pick = ranked[0][0]
    for row, r in ranked[2:]:
        behind = f"{100 * (pick['accuracy_val'] - row['accuracy_val']):.1f} points less accurate than the pick"
        note = {"tied": ", which may be chance", "cannot say": " on one seed"}
        excluded.append(Excluded(row=row, reasons=(behind + note.get(r.standing, ""),)))
    second = ranked[1] if len(ranked) > 1 else None
    tied = second is not None and second[1].standing != "behind"
    return Recommendation(
        pick=pick,
        runner_up=second[0] if second else None,
        tied=tied,
        caveats=caveats[pick["configuration"]],
        excluded=tuple(excluded),
        command=_to_decide([pick, second[0]], "accuracy_val") if second and tied else "",
    )


def _candidates(summary: Sequence[Row], limits: Limits) -> list[Row]:
    rows = [r for r in summary if r["task"] == "train"]
    for name, wanted in (("device", limits.device), ("dataset", limits.dataset)):
        choices = list(dict.fromkeys(r[name] for r in rows))
        if wanted is not None and wanted not in choices:
            raise UserError(f"no training cell on {name} {wanted!r} in these runs; there are: {', '.join(choices)}")
        rows = [r for r in rows if wanted in (None, r[name])]
    if not rows:
        raise UserError("these runs have no training cell, and so no accuracy to choose by; run with --task train")
    datasets = list(dict.fromkeys(r["dataset"] for r in rows))
    if len(datasets) > 1:
        raise UserError(
            f"these runs have cells of several data sets, whose accuracies cannot be compared: {', '.join(datasets)}; "
            "choose one with --dataset"
        )
    return rows


def _judge(row: Row, inference: Row | None, limits: Limits, show: Any) -> tuple[list[str], list[str]]:
    """Why a row is excluded, and which limits the ends of its intervals break."""
    if row["status"] != "ok":
        return [f"{row['status']}: {row['reason']}"], []
    if row["accuracy_val"] is None:
        return ["it measures no accuracy"], []
    broken, close = [], []
    for limit in _LIMITS:
        bound = getattr(limits, limit.field)
        if bound is None:
            continue
        source = inference if limit.figure == "latency_p95_ms" else row
        value = source[limit.figure] if source is not None else None
        if value is None:
            broken.append(limit.unknown)
            continue
        assert source is not None
        sign = 1 if limit.most else -1
        far = source.get(f"{limit.figure}_{'high' if limit.most else 'low'}")
        told, bounded = show(limit.figure, value), show(limit.figure, bound)
        if sign * value > sign * bound:
            broken.append(f"{limit.what} of {told} is {'above' if limit.most else 'below'} {bounded}")
        elif far is not None and sign * far > sign * bound:
            close.append(
                f"{limit.what} of {told} keeps to {bounded}, but its interval reaches {show(limit.figure, far)}"
            )
    return broken, close


# --- how limits are written -----------------------------------------------------------------------------------

_BYTES = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECONDS = {"": 1, "S": 1, "MIN": 60, "M": 60, "H": 3600}
_SHARE = {"": 1, "%": 0.01}


def parse_bytes(text: str) -> float:
    """``2GB``, ``500 MiB``, ``1e9``. Errors: UserError."""
    return _quantity(text, _BYTES, "a size such as 2GB or 500MB")


def parse_seconds(text: str) -> float:
    """``90``, ``90s``, ``5min``, ``2h``. Errors: UserError."""
    return _quantity(text, _SECONDS, "a time such as 90s, 5min or 2h")


def parse_share(text: str) -> float:
    """``0.9``, ``90%``. Errors: UserError."""
    share = _quantity(text, _SHARE, "a share such as 0.9 or 90%")
    if share > 1:
        raise UserError(f"{text!r} is more than all; write a share such as 0.9 or 90%")
    return share


def _quantity(text: str, units: Mapping[str, float], expected: str) -> float:
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)\s*", text, re.IGNORECASE | re.ASCII)
    factor = units.get(found[2].upper()) if found else None
    if found is None or factor is None or not math.isfinite(value := float(found[1]) * factor):
        raise UserError(f"{text!r} is not {expected}")
    return value
