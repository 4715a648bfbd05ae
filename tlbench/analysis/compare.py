"""Run against run: matched cells, ratios with intervals, and a gate that a build can fail on.

Blocks of one run share that run's offset, so that what counts as a repetition is a run: several a side, or pairs that
were measured in turns, or what earlier runs on the machine tell of how runs vary. Where none of these is there, nothing
is said of a time. A gate passes only where the whole interval stays within its limit, and fails only where the whole
interval is beyond it. Cells of one side that the other lacks are listed, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.changes import Change, judge
from tlbench.analysis.gate import Gate, Gated, few, gated, parse_gate, undecided
from tlbench.analysis.matching import align
from tlbench.analysis.repetitions import CLAIM, Sides
from tlbench.analysis.scores import SeedDiscordance, discordance
from tlbench.analysis.sides import METRICS, Run, check_apart, timed_alike
from tlbench.errors import UserError

__all__ = ["CLAIM", "Change", "Comparison", "Gate", "Gated", "compare", "parse_gate"]

DEFAULT = {
    "train": ("epoch_seconds", "training_seconds", "accuracy_test"),
    "infer": ("images_per_second", "latency_p50_ms"),
}
"""What is compared where no gate says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds what came of comparing two sides."""

    base: tuple[str, ...]
    new: tuple[str, ...]
    in_turns: bool
    """Whether the runs are pairs, measured in turns."""
    changes: tuple[Change, ...]
    overall: Mapping[str, stats.Interval]
    """Metric -> geometric mean of the cells' ratios (of an accuracy, the mean difference); an interval only where runs
    are the repetitions."""
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    failed: Mapping[str, str]
    """Cells that have figures on one side and failed on the other, with the reason."""
    lacking: Mapping[str, tuple[str, ...]]
    """Which figure some run lacks of cells that have it in another one -> their names."""
    floors: Mapping[str, float]
    """Cell -> the largest noise floor of the runs."""
    machines: Mapping[str, tuple[Any, Any]]
    """What differs between the sides' machines: key -> (base, new)."""
    gated: tuple[Gated, ...]
    undecided: tuple[str, ...]
    """Reasons beside those of single cells why a gate cannot decide."""

    unlike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What keeps cells of both runs from being compared -> their names; they are in nothing else here."""
    noise_floor: float | None = None
    """How far apart somebody says that two runs of the same come out in a time."""
    cautions: tuple[str, ...] = ()
    """What a reader should know of how cells were matched."""
    image_by_image: Mapping[str, tuple[SeedDiscordance, ...]] = field(default_factory=dict)
    """Cell -> the test images of each seed that only one side's first run has right."""

    @property
    def regressions(self) -> tuple[Gated, ...]:
        """Returns what a gate fails on."""
        return tuple(one for one in self.gated if one.outcome == "fail")

    @property
    def exit_status(self) -> int:
        """Returns 0: every gate passes; 1: one fails; 2: one cannot say."""
        if self.regressions:
            return 1
        return 2 if self.undecided or any(one.outcome == "cannot say" for one in self.gated) else 0

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, ready for strict JSON."""
        return {**asdict(self), "exit_status": self.exit_status}


def compare(
    base: Sequence[Run],
    new: Sequence[Run],
    gates: Sequence[Gate] = (),
    *,
    noise_floor: float | None = None,
    in_turns: bool = False,
) -> Comparison:
    """Compares the cells that both sides have; each run is one repetition.

    ``noise_floor`` says how far apart two runs of the same may come out, and widens every interval of a time by it.
    ``in_turns``: the i-th runs of both sides were measured in turns, and what they share cancels. Errors: UserError
    when no cell matches.
    """
    check_apart([*base, *new])
    aligned = align(base, new)
    runs, conditions = timed_alike([*aligned.base, *aligned.new])
    base, new = runs[: len(base)], runs[len(base) :]
    sides = Sides(base=base, new=new, noise_floor=noise_floor, in_turns=in_turns)
    of_new = sides.cells(new)
    common = [name for name in sides.cells(base) if name in of_new]
    if not common and aligned.unlike:
        raise UserError(f"no cell of {_names(base)} is the same thing in {_names(new)}: {'; '.join(aligned.unlike)}")
    if not common:
        raise UserError(
            f"no cell of {_names(base)} is in {_names(new)}, so there is nothing to compare: "
            f"{_some(base)} against {_some(new)}"
        )
    wanted = tuple(dict.fromkeys(gate.metric for gate in gates))
    asked = {name: wanted or _default(name, (*base, *new)) for name in common}
    pairs = [
        (metric, name)
        for metric in METRICS
        for name in common
        if metric in asked[name] and sides.values(base, name, metric) and sides.values(new, name, metric)
    ]
    margins = {gate.metric: gate.limit for gate in gates}
    changes = judge(sides, pairs, margins)
    only_base, only_new, failed = unmatched = _unmatched(sides)
    lacking = _lacking(sides, asked)
    return Comparison(
        base=tuple(run.name for run in base),
        new=tuple(run.name for run in new),
        in_turns=in_turns,
        changes=tuple(changes),
        overall={metric: sides.overall(metric, [n for m, n in pairs if m == metric]) for metric in dict(pairs)},
        only_base=only_base,
        only_new=only_new,
        failed=failed,
        lacking=lacking,
        floors=sides.floors(common),
        noise_floor=noise_floor,
        machines=_machines_differ(base[0].machine, new[0].machine),
        gated=gated(sides, gates, changes),
        undecided=(*_cells_told(aligned.unlike, lacking), *undecided(gates, changes, *unmatched)) if gates else (),
        unlike=aligned.unlike,
        cautions=(*aligned.cautions, *conditions, *_left_out(sides, pairs)),
        image_by_image=_image_by_image(base[0], new[0]),
    )


def _machines_differ(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (base[key], new[key]) for key in base if key in new and base[key] != new[key]}


def _image_by_image(base: Run, new: Run) -> dict[str, tuple[SeedDiscordance, ...]]:
    both = {name: (base.rows[name], rows) for name, rows in new.rows.items() if name in base.rows}
    found = {name: tuple(discordance(old, rows, "accuracy_test")) for name, (old, rows) in both.items()}
    return {name: seeds for name, seeds in found.items() if seeds}


def _unmatched(sides: Sides) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Returns the cells that only one side has, and those that failed on one of them."""
    base, new = sides.cells(sides.base), sides.cells(sides.new)
    failed_base, failed_new = (
        {name: f"in {run.name}: {why}" for run in runs for name, why in run.failed.items()}
        for runs in (sides.base, sides.new)
    )
    only_base = tuple(n for n in dict.fromkeys([*base, *failed_base]) if n not in new and n not in failed_new)
    only_new = tuple(n for n in dict.fromkeys([*new, *failed_new]) if n not in base and n not in failed_base)
    failed = {n: why for n, why in failed_new.items() if n in base} | {
        n: why for n, why in failed_base.items() if n in new
    }
    return only_base, only_new, failed


def _lacking(sides: Sides, asked: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Names the cells of a run that lack a figure which another run has of them: it was lost, or never measured."""
    runs = (*sides.base, *sides.new)
    found: dict[str, list[str]] = {}
    for name, metrics in asked.items():
        for metric in metrics:
            without = [run.name for run in runs if name in run.values and not sides.values([run], name, metric)]
            if without and sides.values(runs, name, metric):
                found.setdefault(f"no {metric} in {', '.join(without)}", []).append(name)
    return {why: tuple(names) for why, names in found.items()}


def _left_out(sides: Sides, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Says which seeds of an accuracy only one side has, and which are therefore in nothing that is shown."""
    lines: dict[str, list[str]] = {}
    for metric, name in pairs:
        if not METRICS[metric].points:
            continue
        shared, *others = sides.seeds(name, metric)
        told = [
            f"{', '.join(map(str, seeds))} of {what}"
            for what, seeds in zip(("the new run", "the base"), others, strict=True)
            if seeds
        ]
        if shared and told:
            line = f"{METRICS[metric].compared} is over the seeds that both sides have, without {' and '.join(told)}"
            lines.setdefault(line, []).append(name)
    return tuple(f"{line}: {few(names)}" for line, names in lines.items())


def _cells_told(unlike: Mapping[str, Sequence[str]], lacking: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Says what keeps gates from deciding on cells that are not the same thing, or lack a figure, each reason once."""
    return (
        *(f"not the same thing, {len(cells)} of the cells: {why}" for why, cells in unlike.items()),
        *(f"{why}: {few(cells)}" for why, cells in lacking.items()),
    )


def _default(cell: str, base: Sequence[Run]) -> Sequence[str]:
    task = cell.split(" ", 1)[0]
    return DEFAULT.get(task) or [m for m in METRICS if any(run.values.get(cell, {}).get(m) for run in base)]


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)


def _some(runs: Sequence[Run]) -> str:
    return few(list(dict.fromkeys(name for run in runs for name in (*run.values, *run.failed))))
