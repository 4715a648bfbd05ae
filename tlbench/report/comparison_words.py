"""What a comparison of two sides says, in words and in the cells of a table: for the terminal and for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tlbench.analysis.compare import CLAIM, Change, Comparison
from tlbench.analysis.sides import METRICS
from tlbench.analysis.stats import Interval
from tlbench.machine.markdown import markdown as escaped
from tlbench.report import wording
from tlbench.report.ends import DIFFERENCES, ends


def headings(metric: str) -> tuple[str, ...]:
    """Returns the headings of the table of a figure."""
    effect = "difference" if METRICS[metric].points else "new / base"
    return ("cell", "base", "new", effect, f"{100 * CLAIM:g} % interval", "verdict")


VERDICTS = ("worse", "better", "cannot say", "same")
"""In the order in which they are shown."""
MOST_ROWS = 40
"""Most cells whose images are told."""
NAMED = 4
"""Most cells that a line names."""


def sides(comparison: Comparison) -> list[str]:
    """Names both sides, and how they were measured."""
    how = ", measured in turns" if comparison.in_turns else ""
    return [
        f"Base: {_runs(comparison.base)}",
        f"New:  {_runs(comparison.new)}{how}",
    ]


def _runs(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} runs ({', '.join(names)})"


def conditions(comparison: Comparison) -> list[str]:
    """Says how noisy the runs were, and how their machines differ."""
    lines = [] if comparison.in_turns and comparison.noise_floor is None else [_floor(comparison)]
    lines += [
        f"Not the same machine: {name} was {wording.text(old)}, is {wording.text(new)}"
        for name, (old, new) in comparison.machines.items()
    ]
    lines += comparison.cautions
    return lines + [
        f"Not the same thing, so not compared: {why}: {_named(cells)}" for why, cells in comparison.unlike.items()
    ]


def _floor(comparison: Comparison) -> str:
    floors = sorted(set(comparison.floors.values()))
    told = " to ".join(dict.fromkeys(f"{100 * floor:.1f} %" for floor in floors[:1] + floors[-1:]))
    line = f"Noise floor of times within a run: {told or 'unknown'}"
    if comparison.noise_floor is None:
        return line
    return f"{line}; between runs, as given: {100 * comparison.noise_floor:.1f} %; intervals are wider by the larger"


def by_metric(comparison: Comparison) -> dict[str, list[Change]]:
    """Returns the changes of each figure, those first that say something."""
    found: dict[str, list[Change]] = {}
    for change in comparison.changes:
        found.setdefault(change.metric, []).append(change)
    for changes in found.values():
        changes.sort(key=lambda change: (VERDICTS.index(change.verdict), -change.worse_by))
    return found


def heading(comparison: Comparison, metric: str) -> str:
    """Writes ``seconds an epoch: 4 cells: 1 worse, 3 same; geometric mean of new / base 1.05``."""
    changes = [change for change in comparison.changes if change.metric == metric]
    counts = Counter(change.verdict for change in changes)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    overall = comparison.overall[metric]
    mean = (
        f"mean difference {_points(overall)}"
        if METRICS[metric].points
        else f"geometric mean of new / base {wording.ratio(overall)}"
    )
    return f"{METRICS[metric].compared}: {wording.count(len(changes), 'cell')}: {told}; {mean}"


def common(changes: Sequence[Change]) -> list[str]:
    """Returns what all these cells have in common of their names: ``train``, ``digits``, ``cpu``. Names of other
    benchmarks have no parts, and so nothing in common.
    """
    parts = [_parts(change.cell) for change in changes]
    alike = [part for part in parts[0] if all(part in other for other in parts)]
    if len(parts) > 1:
        return alike
    own = 4 if parts[0][0] == "train" else 3  # of a cell that is alone: its backbone, policy and head
    return [parts[0][0], *parts[0][own:]] if len(alike) > 1 else []


def _parts(cell: str) -> list[str]:
    task, _, rest = cell.partition(" ")
    return [task, *rest.split(" · ")] if " · " in rest else [cell]


def cells(change: Change, without: Sequence[str] = ()) -> list[str]:
    """Writes the cells of a row of the table; the name leaves out what is said elsewhere."""
    effect, points = change.effect, METRICS[change.metric].points
    write = _signed if points else wording.number
    interval = ""
    if effect.low is not None and effect.high is not None:
        interval = ends(effect.estimate, effect.low, effect.high, write, whole=DIFFERENCES if points else None)
    figures = [wording.figure(change.metric, value) for value in (change.base, change.new)]
    same = f"same ({change.reason})" if change.verdict == "same" else change.verdict
    left = [part for part in _parts(change.cell) if part not in without]
    name = " · ".join(left) if without and left else change.cell
    return [name, *figures, f"{write(effect.estimate)}{' points' * points}", interval, same]


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _points(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{_signed(interval.estimate)} points"
    told = ends(interval.estimate, interval.low, interval.high, _signed, whole=DIFFERENCES)
    return f"{_signed(interval.estimate)} points ({told})"


def reasons(comparison: Comparison) -> list[str]:
    """Says once for each reason why it cannot be said what became of some cells."""
    groups: dict[str, list[str]] = {}
    for change in comparison.changes:
        if change.verdict == "cannot say":
            groups.setdefault(change.reason, []).append(METRICS[change.metric].compared)
    lines = []
    for reason, names in groups.items():
        told = ", ".join(f"{name} of {wording.count(n, 'cell')}" for name, n in Counter(names).items())
        lines.append(f"Cannot say ({told}): {reason}")
    return lines


def image_by_image(comparison: Comparison) -> list[str]:
    """Says on how many test images exactly one side is right, where both tell."""
    lines = []
    for name, seeds in comparison.image_by_image.items():
        if any(seed.counts.only_a or seed.counts.only_b for seed in seeds):
            lines.append(f"{name}: {wording.discordances(seeds, 'the base', 'the new run')}")
    same = len(comparison.image_by_image) - len(lines)
    shown = [*lines[:MOST_ROWS], *([f"and {len(lines) - MOST_ROWS} more"] if len(lines) > MOST_ROWS else [])]
    return [*shown, *([f"right on the very same test images: {wording.count(same, 'cell')}"] if same else [])]


def unmatched(comparison: Comparison) -> list[str]:
    """Names the cells that only one side has, those that failed, and those that lack a figure."""
    lines = [
        f"Only in the {what}: {_named(names)}"
        for what, names in (("base", comparison.only_base), ("new run", comparison.only_new))
        if names
    ]
    groups: dict[str, list[str]] = {}
    for name, why in comparison.failed.items():
        groups.setdefault(why, []).append(name)
    lines += [f"Without figures {why}: {_named(names)}" for why, names in groups.items()]
    return [*lines, *(f"Figures are missing: {why}: {_named(names)}" for why, names in comparison.lacking.items())]


def gates(comparison: Comparison) -> list[str]:
    """Says what each gate answers, and why: each reason once."""
    lines = []
    for gate in dict.fromkeys(one.gate for one in comparison.gated):
        here = [one for one in comparison.gated if one.gate == gate]
        counts = Counter(one.outcome for one in here)
        failed = [one.cell for one in here if one.outcome == "fail"]
        told = ", ".join(f"{counts[o]} {o}" for o in ("fail", "cannot say", "pass") if counts[o])
        lines.append(f"Gate {gate}: {told}")
        changes = {change.cell: change for change in comparison.changes if change.metric == gate.metric}
        if failed:
            lines.append(f"Fails {gate}: {_named([f'{cell} is {_worse(changes[cell])} worse' for cell in failed])}")
        groups: dict[str, list[str]] = {}
        for one in here:
            if one.outcome == "cannot say":
                groups.setdefault(one.reason, []).append(f"{one.cell} ({one.needs})" if one.needs else one.cell)
        lines += [f"Cannot decide {gate}: {reason}: {_named(names)}" for reason, names in groups.items()]
        if any(one.needs for one in here):
            lines.append("In brackets: what would decide it, if the truth is where the estimate is.")
    return lines + [f"Cannot decide: {reason}" for reason in comparison.undecided]


def _worse(change: Change) -> str:
    return f"{100 * change.worse_by:.1f} {'points' if METRICS[change.metric].points else '%'}"


def _named(names: Sequence[str]) -> str:
    return "; ".join(names[:NAMED]) + (f"; and {len(names) - NAMED} more" if len(names) > NAMED else "")


def markdown(comparison: Comparison) -> str:
    """Returns all of it as Markdown, every cell in it."""
    lines = ["# Comparison", "", *_items([*sides(comparison), *conditions(comparison)])]
    for metric, changes in by_metric(comparison).items():
        lines += ["", f"## {heading(comparison, metric)}", "", *_table(changes)]
    rest = [*reasons(comparison), *image_by_image(comparison), *unmatched(comparison), *gates(comparison)]
    return "\n".join([*lines, "", *_items(rest)]).rstrip() + "\n"


def _table(changes: Iterable[Change]) -> list[str]:
    changes = list(changes)
    rows = [" | ".join(map(escaped, cells(change))) for change in changes]
    return [
        f"| {' | '.join(headings(changes[0].metric))} |",
        f"|---{'|---:' * 4}|---|",
        *(f"| {row} |" for row in rows),
    ]


def _items(lines: Iterable[str]) -> list[str]:
    return [f"- {escaped(line)}" for line in lines]
