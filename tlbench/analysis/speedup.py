"""Says what a device or a precision buys: ratios of times on matched cells, which differ in that one axis alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from tlbench.analysis import stats
from tlbench.analysis.figures import FIGURES
from tlbench.analysis.grouping import identity
from tlbench.analysis.summary import Configuration
from tlbench.errors import UserError, lookup
from tlbench.records.identity import Facts, differences

ROUNDING = 1e-9


SPEEDUPS: dict[str, tuple[str, str]] = {name: one.speedup for name, one in FIGURES.items() if one.speedup}
"""Figure that a speed-up is taken from -> its task, and what it is a speed-up of. The whole training stands in for an
epoch where epochs differ: schedules and training-free heads.
"""

AXES: dict[str, str] = {"device": "cpu", "precision": "fp32"}
"""Axes that can be compared, and the value that the others are held against unless one is named."""


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """A speed-up is one matched pair: how many times faster ``new`` is than ``base``."""

    base: Configuration
    new: Configuration
    figure: str
    ratio: stats.Interval

    @property
    def what(self) -> str:
        """Names what became faster: ``an epoch of training``."""
        return SPEEDUPS[self.figure][1]

    def standing(self, least: float) -> str:
        """Returns how it stands against a required speed-up: ``reached``, ``missed``, or ``cannot say``."""
        low, high = self.ratio.low, self.ratio.high
        if low is None or high is None:
            return "cannot say"
        if low >= least * (1 - ROUNDING):
            return "reached"
        return "missed" if high < least else "cannot say"


@dataclass(frozen=True, kw_only=True)
class Speedups:
    """Holds all matched pairs of two values of an axis."""

    axis: str
    base: str
    new: str
    pairs: tuple[Speedup, ...]
    unmatched: tuple[Configuration, ...]
    """Finished configurations of either value without a partner."""
    unlike: tuple[str, ...] = ()
    """What keeps some of them from being partners: ``weights of ck.pth: 6e2d85f0 and f637518e``."""

    def by(self, column: str) -> dict[Any, stats.Interval]:
        """Maps each value of a column to the geometric mean of the pairs' ratios, the interval over cells."""
        groups: dict[Any, list[float]] = {}
        for pair in self.pairs:
            groups.setdefault(pair.base[column], []).append(pair.ratio.estimate)
        return {value: stats.geometric_mean(ratios) for value, ratios in groups.items()}

    def overall(self) -> stats.Interval | None:
        """Returns the geometric mean over all pairs, the interval over cells; None without pairs."""
        ratios = [pair.ratio.estimate for pair in self.pairs]
        return stats.geometric_mean(ratios) if ratios else None


def speedups(summary: Sequence[Configuration], axis: str = "device", base: str | None = None) -> list[Speedups]:
    """Returns the speed-ups of every other value of the axis over ``base`` (default: that of `AXES`, or the first one).

    Errors: UserError for an axis or a value that is not there.
    """
    lookup(AXES, "axis", axis)
    good = [row for row in summary if row["status"] == "ok"]
    values = list(dict.fromkeys(str(row[axis]) for row in good if row[axis] is not None))
    held = base or (AXES[axis] if AXES[axis] in values else next(iter(values), ""))
    if base is not None and base not in values:
        raise UserError(f"no finished cell has {axis} {base!r}; there are: {', '.join(values) or 'none'}")
    return [_between(good, axis, held, value) for value in values if value != held]


def _between(rows: Iterable[Configuration], axis: str, base: str, new: str) -> Speedups:
    sides: dict[str, dict[tuple[Any, ...], list[Configuration]]] = {base: {}, new: {}}
    for row in rows:
        if str(row[axis]) in sides:
            # On the same hardware, unless the axis is the device.
            place = () if axis == "device" else (row["hardware"],)
            key = (*identity(row, (axis,)).values(), *place)
            sides[str(row[axis])].setdefault(key, []).append(row)
    pairs: list[Speedup] = []
    unmatched: list[Configuration] = []
    alone: dict[str, list[Configuration]] = {base: [], new: []}
    for key in dict.fromkeys([*sides[base], *sides[new]]):
        left, right = sides[base].get(key, []), sides[new].get(key, [])
        matched = [pair for old in left for other in right for pair in _pairs(old, other)]
        pairs += matched
        if not matched:
            unmatched += [*left, *right]
            alone[base] += left
            alone[new] += right
    unlike = _differences(alone[base], alone[new], axis)
    return Speedups(axis=axis, base=base, new=new, pairs=tuple(pairs), unmatched=tuple(unmatched), unlike=unlike)


def _differences(left: Iterable[Configuration], right: Iterable[Configuration], axis: str) -> tuple[str, ...]:
    """Names, each once, why configurations that were asked for alike are not the same thing."""

    def asked(row: Configuration) -> tuple[Any, ...]:
        return tuple({**identity(row, (axis, "image_size")), "images": "", "weights": ""}.items())

    partners = {asked(row): row for row in right}
    lines = []
    for row in left:
        other = partners.get(asked(row))
        if other is not None and row["record"] is not None and other["record"] is not None:
            lines += differences(*(Facts.of(item.record for item in one["group"]) for one in (row, other)))
    return tuple(dict.fromkeys(lines))


def _pairs(base: Configuration, new: Configuration) -> list[Speedup]:
    """Returns the speed-ups in figures that both have, unpaired: blocks of different devices do not belong together."""
    pairs = {}
    for name, (task, _) in SPEEDUPS.items():
        old, other = (_told(row, name) for row in (base, new))
        if task == base["task"] and old and other:
            slow, fast = (old, other) if FIGURES[name].better == "lower" else (other, old)
            pairs[name] = Speedup(base=base, new=new, figure=name, ratio=stats.ratio_of(slow, fast).interval)
    if "epoch_seconds" in pairs:
        pairs.pop("training_seconds", None)
    return list(pairs.values())


def _told(row: Configuration, name: str) -> list[float]:
    """Returns a configuration's values of a figure. Where seeds share one measurement of the frozen layers, their times
    are one, and tell no spread.
    """
    values = list(row["values"][name].values())
    shared = name == "training_seconds" and len(values) > 1 and row["training_seconds_low"] is None
    return [geometric_mean(values)] if shared else values


def gate(
    groups: Sequence[Speedups], least: float, named: Callable[[Speedup], str] | None = None
) -> tuple[int, list[str]]:
    """Returns exit status and reasons: 0 where every pair reaches the speed-up, 1 where one misses it, 2 where some
    cannot say or there is no pair. ``named`` names a pair (default: `name`).
    """
    named = named or name
    pairs = [pair for group in groups for pair in group.pairs]
    if not pairs:
        return 2, ["no matched pair of finished cells, so there is nothing to hold against the speed-up asked for"]
    reasons: dict[str, list[str]] = {"missed": [], "cannot say": []}
    for pair in pairs:
        standing = pair.standing(least)
        if standing in reasons:
            reasons[standing].append(f"{standing}: {named(pair)}: {_against(pair.ratio, least)}")
    status = 1 if reasons["missed"] else 2 if reasons["cannot say"] else 0
    return status, [*reasons["missed"], *reasons["cannot say"]]


def _against(ratio: stats.Interval, least: float) -> str:
    """Says where a speed-up that does not reach the one asked for lies."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.estimate:.3g} without an interval; measure with 2 blocks or seeds or more"
    if ratio.high < least:
        return f"at most {ratio.high:.3g}, less than {least:g}"
    told = f"{ratio.low:.3g} to {ratio.high:.3g}"
    if stats.says_nothing(ratio.estimate, ratio.low, ratio.high):
        told = stats.ANYTHING
    return f"{told}, on both sides of {least:g}; measure more blocks"


def name(pair: Speedup) -> str:
    """Names a pair: ``resnet18 · last_1 · linear, an epoch of training``."""
    row = pair.base
    parts = [row["backbone"], *([row["freeze"]] if row["task"] == "train" else []), row["head"]]
    return f"{' · '.join(parts)}, {pair.what}"
