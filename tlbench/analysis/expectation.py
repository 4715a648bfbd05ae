"""How long cells will take, and what memory: what physics says of them, corrected by what cells like them took.

A cell takes the time of its rounds and evaluations (``timed``), that of the frozen layers where it is the first to need
them (``fill``), and what is left of the clock's time: its ``own`` building and warming up, and in the first cell of a
process a ``start`` in the place of that (libraries, images, weights). Where the machine has a profile of the backbone,
that says what each takes (`tlbench.analysis.costing`); elsewhere a rule does that counts operations, which are known of
a backbone without building it, and is far off by itself. What is learned is how far: of each backbone and each policy,
in logarithms, drawn towards what is usual as far as little was measured (`tlbench.analysis.shrinkage`). One file, since
what is expected is what learning corrects.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tlbench.analysis import costing, footprint
from tlbench.analysis.costing import Counts, Parts, is_fitted
from tlbench.analysis.shrinkage import Effects, Kind, Spreads, nothing
from tlbench.backbones.known import BACKBONES
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.rates import trials
from tlbench.grid.settings import Settings
from tlbench.machine.profiles import Profile
from tlbench.machine.times import Told
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record

SPEED = 1e11
"""Operations a second of the machine that the rule is for."""
USED = 0.4
"""Share of them that a training step reaches on such a machine, in the median of ResNet-18's."""
LIGHT = ("EfficientNet", "MobileNetV2", "MobileNetV3", "MNASNet", "ShuffleNetV2")
USED_BY_LIGHT = 0.08
"""Share that is reached by architectures of few operations, which wait for memory."""
KEPT = {
    "linear_probe": 0.0, "last_K": 0.4, "stage_NAME": 2.0, "norm": 2.0, "bias": 2.0, "norm_bias": 2.0, "lp_ft": 1.5,
    "gradual": 1.5,
}  # fmt: skip
"""Policy -> forward passes that a training step is worth, less what is kept of the frozen layers."""
WHOLE = 3.0
"""The same of policies that train everything, or of which the rule knows nothing."""
SHARING = ("linear_probe", "last_K", "lp_ft", "gradual")
"""Policies that the rule takes to keep what frozen layers compute."""
PLAIN_FLOPS = 4e9
"""Operations of a backbone of which nothing is known, at 224 px."""
OWN_SECONDS, START_SECONDS = 1.0, 5.0
"""Seconds that the rule gives a cell for building, and the first of a process on top of that."""
START_OVER_IMPORTS = 2.6
"""What the first cell of a process takes on top, over what imports take, which a profile tells: it also describes the
machine, measures what it can do at most, takes its images and loads its weights. How far that is off `bench/plan.py`
shows."""
WARM_BATCHES = 3
"""Batches that a cell trains on before anything is timed."""
LATEST = 600
"""Most of what earlier runs told that counts: the latest."""
ANEW = 0.05
"""What is learned is fitted anew once this share of it is new."""
FROZEN = "frozen layers"
"""Stands for the policy of what all policies share: computing the frozen layers once."""
Splits = tuple[int, int, int]
"""Numbers of images to train, to validate and to test on."""
SYNTHETIC = 256
"""Random images to train on."""
UNKNOWN: Splits = (1258, 269, 270)
"""Those of a data set that was not read yet: of the digits."""

BY_PROFILE = "*"
"""Ends the name of a part, and of a family of parts, that a profile says something of."""
ODD = {"linear_probe": 1.5, "infer": 0.7, FROZEN: 0.35, "+fit": 1.5, "+auto": 0.3, "+patience": 0.8}
RULE = Spreads(mean=0.7, backbone=0.45, policy=0.45, pair=0.25, noise=0.15, odd=ODD)
"""How far the rule is off. Of a probe on stored features it knows next to nothing: one says little of others."""
ANY_SPEED = 2.0
"""The same of all cells together where nothing tells how fast the device is."""
PHYSICS = Spreads(
    mean=0.12,
    backbone=0.1,
    policy=0.07,
    pair=0.06,
    noise=0.06,
    odd={"linear_probe": 0.4, "infer": 0.2, "+fit": 1.5, "+patience": 0.8},
)
"""How far a profile is off (`bench/plan.py` measures it)."""
BESIDE = Spreads(mean=0.5, backbone=0.3, policy=0.25, pair=0.2, noise=0.3)
"""How far what is expected beside the timed parts is off."""
MEMORY = Spreads(mean=0.04, backbone=0.03, policy=0.04, pair=0.03, noise=0.02)
"""How far a profile's peak of memory is off."""
AGAIN = Spreads(
    mean=0.3,
    backbone=0.08,
    policy=0.05,
    pair=0.05,
    noise=0.15,
    odd={"linear_probe": 0.5, "+fit": 0.5, "+patience": 0.8},
)
"""How far a run is off what earlier runs told of the same kinds."""
TOGETHER = 0.5
"""Correlation of what is unknown of two cells: what is off for one is partly off for others."""

NINETY = 1.645
"""Standard deviations to either side that hold nine of ten."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describes parts whose corrections are learned together."""

    parts: tuple[str, ...]
    spreads: Spreads


FAMILIES = {
    "work": Family(parts=("timed", "fill"), spreads=RULE),
    "start": Family(parts=("start",), spreads=BESIDE),
    "own": Family(parts=("own",), spreads=BESIDE),
    "work*": Family(parts=("timed*", "fill*"), spreads=PHYSICS),
    "start*": Family(parts=("start*",), spreads=BESIDE),
    "own*": Family(parts=("own*",), spreads=BESIDE),
    "memory*": Family(parts=("memory*",), spreads=MEMORY),
}
"""Frozen layers and timed parts tell the same of a machine and of a backbone."""


def kind_of(cell: Cell) -> Kind:
    """Returns what says which cells are like a cell, a backbone and a policy: inference, a fitted head, a search for
    rates and a training that may stop early are policies of their own.
    """
    policy = cell.task if cell.task == "infer" else cell.freeze
    if cell.task == "train":
        policy += "+fit" if is_fitted(cell) else ""
        policy += "+auto" if cell.lr == "auto" else ""
        policy += "+patience" if cell.patience is not None else ""
    more = "" if cell.precision == "fp32" else f" {cell.precision}"
    return f"{cell.backbone}{more}", policy


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """Says what a cell is expected to take."""

    cell: Cell
    block: int
    fill: float
    """Seconds of the frozen layers; 0 where an earlier cell computes them, or none are kept."""
    epoch: float | None
    """Seconds of an epoch, on average over the epochs; None for inference, and where no profile tells."""
    timed: float
    """Seconds of all that is timed, evaluations included."""
    own: float
    """Seconds of building and warming up, of the process's start where it is the first in it."""
    spread: float
    """Standard deviation of the log of the whole."""
    memory_bytes: float | None = None
    """Peak of memory; None where no profile tells."""
    memory_spread: float = 0.0
    """Standard deviation of its log."""
    by: str = "rule"
    """What tells: profile, history (earlier cells like it) or rule."""

    @property
    def seconds(self) -> float:
        """Returns the seconds of the whole cell."""
        return self.fill + self.timed + self.own


def together(cells: Sequence[Foreseen]) -> tuple[float, float]:
    """Returns the seconds of cells one after another, and the standard deviation of their log."""
    seconds = sum(one.seconds for one in cells)
    each = [one.seconds * one.spread for one in cells]
    common, apart = TOGETHER * sum(each) ** 2, (1 - TOGETHER) * sum(value**2 for value in each)
    return seconds, math.sqrt(common + apart) / seconds if seconds else 0.0


def interval(value: float, spread: float) -> tuple[float, float]:
    """Returns what a value lies between in nine of ten cases, by the standard deviation of its log."""
    factor = math.exp(NINETY * spread)
    return value / factor, value * factor


@dataclass(kw_only=True)
class Expectation:
    """Expects the seconds of cells on one machine, and learns from each that is measured."""

    settings: Settings
    splits: dict[tuple[str, int | None], Splits] = field(default_factory=dict)
    """Data set and its train size -> what it has, as far as that is known."""
    stores: Mapping[str, int] = field(default_factory=dict)
    """Data set -> all images that it has, used or not, as far as that is known."""
    earlier: Mapping[str, Sequence[Told]] = field(default_factory=dict)
    """Device -> what earlier runs told."""
    speeds: Mapping[str, float] = field(default_factory=dict)
    """Device -> the operations a second that the rule may count with before anything was measured."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Key -> what a pass over a backbone has told (`tlbench.analysis.costing.profile_key`)."""
    siblings: Sequence[str] = ()
    """Freeze policies of the grid, whose frozen layers are computed in one pass."""
    learned: dict[str, list[Told]] = field(default_factory=dict)
    """Device -> what cells of this run told."""
    new: dict[str, list[Told]] = field(default_factory=dict)
    """Device -> what cells told since the last `begin`."""
    filled: set[tuple[object, ...]] = field(default_factory=set)
    started: set[tuple[object, ...]] = field(default_factory=set)
    _effects: dict[tuple[str, str], Effects] = field(default_factory=dict, repr=False)
    _since: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)
    """How much was told of a family and a device since its effects were fitted."""
    _parts: dict[Cell, Parts | None] = field(default_factory=dict, repr=False)
    """Cell without its seed -> what its profile says, until something is learned of its images."""

    # --- learning ---------------------------------------------------------------------------------------------

    def learn(self, record: Record, elapsed: float | None = None) -> None:
        """Takes in what a cell took: ``elapsed`` seconds of the clock, or those that its process saw itself."""
        cell = record.cell
        whole = elapsed if elapsed is not None else record.wall_seconds
        if record.samples:
            self._count(record)
        process = self._process(cell)
        fresh = process not in self.started
        if self.settings.isolate != "cell":
            self.started.add(process)
        if record.status != "ok" or not whole:
            return
        told = self._told(record, whole, "start" if fresh else "own")
        if self._shares(cell) or record.prefix.get("seconds"):
            # Whether it kept something or did without: those after it do as well.
            self.filled.add(_activations(cell, record.block))
        for kept in (self.learned, self.new):
            known = kept.setdefault(cell.device, [])
            known += told
            if len(known) > 2 * LATEST:  # a run may have a million cells
                del known[:-LATEST]
        self._forget(cell.device, told)

    def _forget(self, device: str, told: Sequence[Told]) -> None:
        """Has the effects of what was told fitted anew: each time while little is known, seldom once one more among
        hundreds changes hardly anything.
        """
        known = len(self.learned[device])
        for family, row in FAMILIES.items():
            if any(one[0] in row.parts for one in told):
                key = family, device
                self._since[key] = self._since.get(key, 0) + len(told)
                if self._since[key] >= ANEW * known:
                    self._effects.pop(key, None)
                    self._since[key] = 0

    def _count(self, record: Record) -> None:
        counts = record.samples
        found = (counts.get("train", 0), counts.get("val", 0), counts.get("test", 0))
        key = record.cell.dataset, record.cell.train_size
        if self.splits.get(key) != found:
            self.splits[key] = found
            self._parts.clear()

    def _told(self, record: Record, whole: float, beside: str) -> list[Told]:
        """Returns how far what a cell took was off what was expected, part by part; of what a profile knows twice, as
        the rule has it and as the profile does. ``beside`` names the part that is not timed.
        """
        cell, (backbone, policy) = record.cell, kind_of(record.cell)
        screened = float(record.prefix.get("screened_seconds") or 0.0)
        computed = float(record.prefix.get("seconds") or 0.0) - screened
        fill = min(computed, whole) if computed > 0 and not record.prefix.get("shared") else 0.0
        timed = min(timed_seconds(record), whole - fill)
        taken = {"fill": fill, "timed": timed, beside: max(whole - fill - timed, 0.05)}
        profile = self.profile_of(cell)  # how far one is off that was measured in a hurry says nothing of others
        by_profile = None if profile is not None and profile.quick else self._by_profile(cell)
        told: list[Told] = []
        for part, seconds in taken.items():
            if part == "fill" and screened:
                continue  # what a screen has left of a pass says nothing of a whole one
            named = FROZEN if part == "fill" else policy
            for ending, rules in (("", self._by_rule(cell)), (BY_PROFILE, by_profile)):
                if rules is not None and seconds > 0:
                    told.append((part + ending, backbone, named, _off(seconds, rules[part])))
        expected = self._memory_of(cell, record.block, self.filled)
        if expected and record.peak_memory_bytes:
            told.append(("memory*", backbone, policy, _off(record.peak_memory_bytes, expected)))
        return told

    def recall(self, records: Iterable[Record]) -> None:
        """Takes in what a run has told before this time."""
        for record in records:
            self.learn(record)
        self.begin()

    def begin(self) -> None:
        """Begins a new time of measuring: no process of an earlier one is there, and what it told is known already."""
        self.filled, self.started, self.new = set(), set(), {}

    # --- expecting --------------------------------------------------------------------------------------------

    def total(self, steps: Iterable[tuple[Cell, int]]) -> float | None:
        """Returns the seconds of cells, each with its block, that are measured in this order; None where nothing tells
        of them.
        """
        filled, started, total = set(self.filled), set(self.started), 0.0
        for cell, block in steps:
            seconds = self._expected(cell, block, filled, started)
            if seconds is None:
                return None
            total += sum(seconds)
        return total

    def seconds(self, cell: Cell, block: int = 0) -> float | None:
        """Returns the seconds of the next cell to be measured; None where nothing tells of it."""
        return self.total([(cell, block)])

    def foresee(self, steps: Iterable[tuple[Cell, int]]) -> list[Foreseen | None]:
        """Returns what each of these cells is expected to take, measured in this order; None where nothing tells."""
        filled, started = set(self.filled), set(self.started)
        found: list[Foreseen | None] = []
        # Of 50,000 seeds nearly all are told the same: only what decides it is in the key, and is noted as there.
        alike: dict[tuple[object, ...], tuple[Foreseen, bool]] = {}
        for cell, block in steps:
            process, activations = self._process(cell), _activations(cell, block)
            key = replace(cell, seed=0), process in started, activations in filled
            if key not in alike:
                if not self.tells(cell):
                    found.append(None)
                    continue
                memory = self._memory_of(cell, block, filled)
                expected = self._expected(cell, block, filled, started)
                assert expected is not None
                alike[key] = self._foreseen(cell, block, expected, memory), activations in filled
            one, keeps = alike[key]
            started.add(process)
            if keeps:
                filled.add(activations)
            found.append(replace(one, cell=cell, block=block))
        return found

    def _foreseen(self, cell: Cell, block: int, expected: tuple[float, float, float], memory: float | None) -> Foreseen:
        fill, timed, own = expected
        parts, kind = self._profiled(cell), kind_of(cell)
        ending = BY_PROFILE if parts is not None else ""
        work, beside = (self._family(name + ending, cell.device) for name in ("work", "own"))
        off = [(fill, work.spread((kind[0], FROZEN))), (timed, work.spread(kind)), (own, beside.spread(kind))]
        whole = fill + timed + own
        spread = math.sqrt(sum((seconds * one) ** 2 for seconds, one in off)) / whole if whole else 0.0
        epoch = None
        if parts is not None and parts.epochs:
            epoch = sum(parts.epochs) / len(parts.epochs) * timed / max(parts.timed, 1e-9)
        seen = self._family("memory*", cell.device)
        return Foreseen(
            cell=cell,
            block=block,
            fill=fill,
            epoch=epoch,
            timed=timed,
            own=own,
            spread=spread,
            memory_bytes=None if memory is None else memory * math.exp(seen.log(kind)),
            memory_spread=seen.spread(kind),
            by="profile" if parts is not None else "history" if self.knows(cell.device) else "rule",
        )

    def alone(self, cells: Sequence[Cell]) -> tuple[float, list[float]] | None:
        """Returns the seconds of cells that share a frozen prefix, in a process of their own: those of its start and of
        the prefix, and those of each cell beyond that; None where nothing tells of them.
        """
        if not all(map(self.tells, cells)):
            return None
        each = [self._corrected(cell, "own") + self._corrected(cell, "timed") for cell in cells]
        once = max(self._corrected(cells[0], "start") - self._corrected(cells[0], "own"), 0.0)
        if sharing := [cell for cell in cells if self._shares(cell)]:
            once += self._corrected(sharing[0], "fill")
        return once, each

    def knows(self, device: str) -> bool:
        """Tells whether cells were timed on a device, in this run or in earlier ones."""
        return bool(self.learned.get(device) or self.earlier.get(device))

    def has_met(self, cell: Cell) -> bool:
        """Tells whether cells of its backbone were timed on its device, in this run or in earlier ones."""
        backbone = kind_of(cell)[0]
        told = (*self.learned.get(cell.device, ()), *self.earlier.get(cell.device, ()))
        return any(one[1] == backbone for one in told)

    def tells(self, cell: Cell) -> bool:
        """Tells whether anything says how long a cell takes."""
        return self.knows(cell.device) or cell.device in self.speeds or self._profiled(cell) is not None

    def has_timed(self, cell: Cell) -> bool:
        """Tells whether a profile says how long a cell's policy takes, or cells of it were timed on its device; else
        the rule alone says it.
        """
        policy = kind_of(cell)[1]
        told = (one for known in (self.learned, self.earlier) for one in known.get(cell.device, ()))
        return self.by_profile(cell) or any(part == "timed" and one == policy for part, _, one, _ in told)

    def by_profile(self, cell: Cell) -> bool:
        """Tells whether a profile says what a cell takes."""
        return self._profiled(cell) is not None

    def _expected(
        self, cell: Cell, block: int, filled: set[tuple[object, ...]], started: set[tuple[object, ...]]
    ) -> tuple[float, float, float] | None:
        """Returns the seconds of the frozen layers, of what is timed and of the rest; notes what is there after it."""
        if not self.tells(cell):
            return None
        process, activations = self._process(cell), _activations(cell, block)
        part = "start" if process not in started else "own"
        started.add(process)
        fill = 0.0
        if activations not in filled and self._shares(cell):
            filled.add(activations)
            fill = self._corrected(cell, "fill")
        return fill, self._corrected(cell, "timed"), self._corrected(cell, part)

    def _corrected(self, cell: Cell, part: str) -> float:
        """Returns the seconds of a part of a cell: by its profile, or else by the rule, times how far that is off."""
        by_profile = self._by_profile(cell)
        ending, rules = ("", self._by_rule(cell)) if by_profile is None else (BY_PROFILE, by_profile)
        backbone, policy = kind_of(cell)
        family = f"{part if part in ('start', 'own') else 'work'}{ending}"
        kind = backbone, FROZEN if part == "fill" else policy
        return rules[part] * math.exp(self._family(family, cell.device).log(kind))

    def _family(self, family: str, device: str) -> Effects:
        """Returns how far parts of a family are off on a device: as this run tells, on top of what earlier ones did."""
        key = family, device
        if key not in self._effects:
            row = FAMILIES[family]
            past = self._told_of(row, self.earlier.get(device, ()))
            spreads = row.spreads
            prior: Callable[[Kind], float] = nothing
            if family == "work":
                if device in self.speeds:
                    prior = partial(_always, math.log(SPEED / self.speeds[device]))
                else:
                    spreads = replace(spreads, mean=ANY_SPEED)
            before = Effects(past, spreads, prior)
            again = AGAIN if past else None
            now = self._told_of(row, self.learned.get(device, ()))
            self._effects[key] = Effects(now, spreads, before.log, before, again)
        return self._effects[key]

    @staticmethod
    def _told_of(row: Family, told: Sequence[Told]) -> list[tuple[str, str, float]]:
        return [
            (backbone, FROZEN if part.startswith("fill") else policy, value)
            for part, backbone, policy, value in [*told][-LATEST:]
            if part in row.parts
        ]

    def _process(self, cell: Cell) -> tuple[object, ...]:
        """Names the process that a cell runs in."""
        if self.settings.isolate == "cell":
            return (cell.key, time.monotonic())  # each its own
        return (cell.backbone, cell.device) if self.settings.isolate == "backbone" else ()

    def forward_seconds(self, cell: Cell) -> float:
        """Returns the seconds of the forward pass of one image in a training step, by the rule and by what is learned
        of the machine.
        """
        return _forward(cell) * math.exp(self._family("work", cell.device).log((cell.backbone, FROZEN)))

    def frozen_seconds(self, cell: Cell) -> float:
        """Returns the seconds of computing the frozen layers of all images of a cell once."""
        return self._corrected(cell, "fill")

    def rule_seconds(self, cells: Sequence[Cell]) -> float:
        """Returns the seconds of cells that share frozen layers by the rule alone, whatever profiles and earlier cells
        tell: what backbones of one family take is to each other as this is.
        """
        rules = [self._by_rule(cell) for cell in cells]
        return max(rule["fill"] for rule in rules) + sum(rule["timed"] + rule["own"] for rule in rules)

    def share_to_look_at(self, cell: Cell) -> float:
        """Returns the share of a cell's images that it is validated and tested on, as far as that is known."""
        counts = self._counts(cell)
        return (counts.val + counts.test) / max(counts.all, 1)

    # --- what a profile says ----------------------------------------------------------------------------------

    def profile_of(self, cell: Cell) -> Profile | None:
        """Returns the profile that says what a cell costs; None without one."""
        if not self.profiles:
            return None
        found = self.profiles.get(costing.profile_key(cell))
        return found if found is not None and costing.covers(found, cell) else None

    def know(self, profiles: Mapping[str, Profile]) -> None:
        """Takes in profiles, by their keys, that were made meanwhile."""
        self.profiles = {**self.profiles, **profiles}
        self._parts.clear()

    def images_of(self, cell: Cell) -> int:
        """Returns how many images a cell uses in all, as far as that is known."""
        return self._counts(cell).all

    def held_of(self, cell: Cell) -> int:
        """Returns how many images lie in memory for a cell: those that it does not use are decoded as well."""
        known = self.stores.get(cell.dataset, sum(UNKNOWN) if cell.dataset == "digits" else 0)
        return max(known, self.images_of(cell))

    def _profiled(self, cell: Cell) -> Parts | None:
        """Returns the seconds of a cell by its profile; None without one."""
        if not self.profiles:
            return None
        like = replace(cell, seed=0)
        if like not in self._parts:
            profile = self.profile_of(cell)
            self._parts[like] = (
                None
                if profile is None
                else costing.parts_of(profile, cell, self._counts(cell), self.settings, self.siblings)
            )
        return self._parts[like]

    def _by_profile(self, cell: Cell) -> dict[str, float] | None:
        parts = self._profiled(cell)
        if parts is None:
            return None
        profile = self.profile_of(cell)
        imports = None if profile is None else profile.start_seconds
        start = START_SECONDS if imports is None else START_OVER_IMPORTS * imports
        return {"fill": parts.fill, "timed": parts.timed, "own": parts.own, "start": parts.own + start}

    def _memory_of(self, cell: Cell, block: int, filled: set[tuple[object, ...]]) -> float | None:
        """Returns the bytes of a cell's peak by its profile, what earlier cells of its process keep included."""
        profile = self.profile_of(cell)
        if profile is None or profile.quick:
            return None
        images = self.images_of(cell)
        cuts = costing.filled_cuts(profile, cell, self.settings, self.siblings, cell.epochs)
        if not cuts and _activations(cell, block) in filled:
            cuts = costing.all_cuts(profile, self.settings, self.siblings, cell.epochs)
        kept = footprint.kept_bytes(profile, images, cuts)
        return footprint.peak_bytes(profile, cell, 3 * profile.size**2 * self.held_of(cell), kept)

    # --- the rule ---------------------------------------------------------------------------------------------

    def _counts(self, cell: Cell) -> Counts:
        if cell.dataset == "synthetic":  # nothing can be learned of it, so nothing is evaluated
            return Counts(train=min(SYNTHETIC, cell.train_size or SYNTHETIC), val=0, test=0)
        known = self.splits.get((cell.dataset, cell.train_size)) or self.splits.get((cell.dataset, None))
        train, val, test = known or next(iter(self.splits.values()), UNKNOWN)
        return Counts(train=min(train, cell.train_size or train), val=val, test=test)

    def _by_rule(self, cell: Cell) -> dict[str, float]:
        """Returns the seconds of each part of a cell by the rule."""
        one, counts = _forward(cell), self._counts(cell)
        own = OWN_SECONDS
        if cell.task == "train" and not is_fitted(cell):
            own += WARM_BATCHES * min(cell.batch_size, counts.train) * _passes(cell) * one
        # Forward alone, without gradients, is nearer the ceiling.
        fill = counts.all * one / 3
        return {"fill": fill, "timed": self._rule_timed(cell, counts), "own": own, "start": own + START_SECONDS}

    def _rule_timed(self, cell: Cell, counts: Counts) -> float:
        one = _forward(cell)
        if cell.task == "infer":
            batched = self.settings.throughput_rounds * self.settings.throughput_batches * cell.batch_size
            return one * (batched + 2 * self.settings.latency_rounds) + 0.004 * self.settings.latency_rounds
        if is_fitted(cell):
            return costing.FIT_SECONDS + costing.FIT_SECONDS_AN_IMAGE * counts.train
        passes = _passes(cell)
        trained = counts.train * cell.epochs * passes
        evaluated = (counts.val * cell.epochs + counts.test) * min(1.0, passes / 2)
        tries = 1 + trials(cell)
        steps = cell.epochs * math.ceil(counts.train / cell.batch_size)
        return tries * ((trained + evaluated) * one + 0.0015 * steps)

    def _shares(self, cell: Cell) -> bool:
        """Tells whether a cell takes what frozen layers compute once."""
        if self.settings.prefix == "off":
            return False
        profile = self.profile_of(cell)
        if profile is not None:
            return bool(costing.kept_cuts(profile, cell, self.settings))
        return _shares_by_name(cell)


def timed_seconds(record: Record) -> float:
    """Returns the seconds that a record's own measurements took: of rounds, evaluations, images, rates, compiling."""
    rounds = sum(r.seconds + (r.evaluation_seconds or 0.0) for r in record.rounds)
    tried = sum(float(trial.get("seconds") or 0.0) for trial in record.lr_trials)
    single = sum(record.latency_seconds)
    return rounds + tried + single + (record.test_seconds or 0.0) + (record.compile_seconds or 0.0)


def _always(level: float, kind: Kind) -> float:
    """Returns the same level for each kind."""
    return level


def _off(seconds: float, rule: float) -> float:
    return math.log(max(seconds, 1e-4) / max(rule, 1e-4))


def _forward(cell: Cell) -> float:
    """Returns the seconds that the rule gives the forward pass of one image, as a training step runs it."""
    info = BACKBONES.get(cell.backbone.partition("@")[0])
    flops, size, light = PLAIN_FLOPS, 224, False
    if info is not None:
        flops, size, light = info.flops, info.image_size, info.family in LIGHT
    scale = ((cell.image_size or size) / size) ** 2
    return flops * scale / (SPEED * (USED_BY_LIGHT if light else USED))


def _passes(cell: Cell) -> float:
    try:
        expression = parse_policy(cell.freeze)
    except UserError:  # of a plugin that is not loaded here
        return WHOLE
    return KEPT.get(expression.name, WHOLE)


def _shares_by_name(cell: Cell) -> bool:
    if cell.task != "train" or cell.augment != "none":
        return False
    try:
        return is_fitted(cell) or parse_policy(cell.freeze).name in SHARING
    except UserError:
        return False


def _activations(cell: Cell, block: int) -> tuple[object, ...]:
    shared = (cell.backbone, cell.weights, cell.dataset, cell.device, cell.image_size, cell.precision)
    # Random weights are others with each seed.
    return (*shared, block, cell.seed if cell.weights == "random" else None)
