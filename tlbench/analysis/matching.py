"""Which cell of one run is which of another: the same thing on both sides, or unlike, and in what.

Cells are matched by what they measured (`tlbench.records.identity`), whatever they are called and wherever their images
and checkpoints lay. What has the same axes and is not the same thing is unlike: it is never compared, and never part of
an average. A side that says nothing of what it measured (tests that are no cells) is matched by names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.analysis.sides import Run
from tlbench.records.identity import Facts, differences

Difference = str
"""A line such as ``weights of ck.pth: 6e2d85f0 and f637518e``."""


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Holds the runs of two sides, whose cells have the same name exactly where they are the same thing."""

    base: tuple[Run, ...]
    new: tuple[Run, ...]
    unlike: Mapping[Difference, tuple[str, ...]]
    """What keeps cells from being compared -> their names in the base; no run has them any more."""
    cautions: tuple[str, ...]
    """What a reader should know of how they were matched, a line each."""


def align(base: Sequence[Run], new: Sequence[Run]) -> Aligned:
    """Matches the cells of all runs with those of the first one of the base, and takes out those that are unlike."""
    first = base[0]
    reasons: dict[Difference, dict[str, None]] = defaultdict(dict)
    renamed: dict[int, Run] = {}
    for run in (*base[1:], *new):
        partners, unlike = _partners(first, run)
        renamed[id(run)] = _named_alike(first, run, partners, {other for _, other, _ in unlike})
        for old, _, why in unlike:
            reasons["; ".join(why)][old] = None
    out = {name for names in reasons.values() for name in names}

    def of(runs: Sequence[Run]) -> tuple[Run, ...]:
        aligned = (run if run is first else renamed[id(run)] for run in runs)
        return tuple(
            _renamed(run, {name: name for name in (*run.values, *run.failed) if name not in out}) for run in aligned
        )

    return Aligned(
        base=of(base),
        new=of(new),
        unlike={why: tuple(cells) for why, cells in reasons.items()},
        cautions=tuple(dict.fromkeys(caution for run in (*base, *new) for caution in run.cautions)),
    )


def _named_alike(first: Run, run: Run, partners: Mapping[str, str], unlike: set[str]) -> Run:
    """Returns a run whose cells are called as their partners in the first one are, without those that are unlike."""
    taken = {*first.values, *first.failed}
    names: dict[str, str] = {}
    for name in (*run.values, *run.failed):
        # What has no partner must not be taken for another cell of its name.
        alone = f"{name} (another cell)" if name in taken else name
        names[name] = partners.get(name, alone)
    return _renamed(run, {name: now for name, now in names.items() if name not in unlike})


def _partners(base: Run, new: Run) -> tuple[dict[str, str], list[tuple[str, str, list[str]]]]:
    """Returns the name in the base of each cell of the new run that has a partner there; and what is unlike: its name
    in the base, its name in the new run, the differences.
    """
    olds, news = ({name: run.facts.get(name) for name in (*run.values, *run.failed)} for run in (base, new))
    partners = {name: name for name in news if name in olds and (olds[name] is None or news[name] is None)}
    left = {name: facts for name, facts in olds.items() if facts is not None and name not in partners}
    by_axes: dict[str, dict[str, Facts]] = defaultdict(dict)
    for name, facts in news.items():
        if facts is not None and name not in partners:
            by_axes[facts.axes][name] = facts
    rest: dict[str, dict[str, Facts]] = defaultdict(dict)
    for old, facts in left.items():
        same = [name for name, other in by_axes[facts.axes].items() if not differences(facts, other)]
        if same:
            # Of several, the one on the same machine, or of the same name.
            best = max(same, key=lambda n: (by_axes[facts.axes][n].machine == facts.machine, n == old))
            partners[best] = old
            del by_axes[facts.axes][best]
        else:
            rest[facts.axes][old] = facts
    return partners, [pair for axes in rest for pair in _unlike(rest[axes], by_axes[axes])]


def _unlike(olds: dict[str, Facts], news: dict[str, Facts]) -> Iterable[tuple[str, str, list[str]]]:
    """Pairs what is left of cells with the same axes: those of one name, then one that is alone on either side."""
    pairs = [(name, name) for name in olds if name in news]
    olds_left = [name for name in olds if name not in news]
    news_left = [name for name in news if name not in olds]
    if len(olds_left) == len(news_left) == 1:
        pairs.append((olds_left[0], news_left[0]))
    return [(old, new, differences(olds[old], news[new])) for old, new in pairs]


def _renamed(run: Run, names: Mapping[str, str]) -> Run:
    """Returns a run with the cells of these names alone, under their new ones."""

    def of(table: Mapping[str, Any]) -> dict[str, Any]:
        return {names[name]: value for name, value in table.items() if name in names}

    return replace(
        run,
        values=of(run.values),
        failed=of(run.failed),
        floors=of(run.floors),
        facts=of(run.facts),
        known=of(run.known),
        predictions=of(run.predictions),
        rows=of(run.rows),
        shared=of(run.shared),
    )
