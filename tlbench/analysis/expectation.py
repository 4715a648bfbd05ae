"""How long cells will take: a rule from their names, corrected by what cells like them took.

A cell takes the time of its rounds and evaluations (``timed``), that of the frozen layers where it is the first to need
them (``fill``), and what is left of the clock's time: of the first cell of a process (``first``: libraries, images,
weights), or of a later one (``next``). The rule counts operations, which are known of a backbone without building it,
and is far off by itself. What is learned is how far: for each backbone and each policy, as in a table of two ways, so
that cells of neither kind seen before are told from the others. One file, since what the rule expects is what learning
corrects.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from tlbench.backbones.known import BACKBONES
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
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
KEPT = {"linear_probe": 0.0, "last_K": 0.4, "stage_NAME": 2.0, "norm": 2.0, "bias": 2.0, "norm_bias": 2.0}
"""Policy -> forward passes that a training step is worth, less what is kept of the frozen layers."""
WHOLE = 3.0
"""The same of policies that train everything, or of which the rule knows nothing."""
SHARING = ("linear_probe", "last_K")
"""Policies that the rule takes to keep what frozen layers compute."""
PLAIN_FLOPS = 4e9
"""Operations of a backbone of which nothing is known, at 224 px."""
RATES = 5
"""Rates that ``--lr auto`` tries."""
OVERHEAD = {"first": 6.0, "next": 1.0}
"""Seconds that the rule gives a cell for all that is not timed, in a process that has just started and later."""
LATEST = 600
"""Most of what earlier runs told that counts: the latest."""
Splits = tuple[int, int, int]
"""Numbers of images to train, to validate and to test on."""
UNKNOWN: Splits = (1258, 269, 270)
"""Those of a data set that was not read yet: of the digits."""


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Says which cells are like a cell."""

    backbone: str
    policy: str

    @classmethod
    def of(cls, cell: Cell) -> Kinds:
        """Returns the kinds of a cell: inference, a fitted head and a search for rates are policies of their own."""
        policy = cell.task if cell.task == "infer" else cell.freeze
        if cell.task == "train":
            policy += "+fit" if _is_fitted(cell) else ""
            policy += "+auto" if cell.lr == "auto" else ""
        more = "" if cell.precision == "fp32" else f" {cell.precision}"
        return cls(backbone=f"{cell.backbone}{more}", policy=policy)


@dataclass(kw_only=True)
class Expectation:
    """Expects the seconds of cells on one machine, and learns from each that is measured."""

    settings: Settings
    splits: dict[tuple[str, int | None], Splits] = field(default_factory=dict)
    """Data set and its train size -> what it has, as far as that is known."""
    earlier: Mapping[str, Sequence[Told]] = field(default_factory=dict)
    """Device -> what earlier runs told."""
    speeds: Mapping[str, float] = field(default_factory=dict)
    """Device -> the operations a second that the rule may count with before anything was measured."""
    learned: dict[str, list[Told]] = field(default_factory=dict)
    """Device -> what cells of this run told."""
    new: dict[str, list[Told]] = field(default_factory=dict)
    """Device -> what cells told since the last `begin`."""
    filled: set[tuple[object, ...]] = field(default_factory=set)
    started: set[tuple[object, ...]] = field(default_factory=set)
    _corrections: dict[tuple[str, Kinds, str], float] = field(default_factory=dict, repr=False)
    _tables: dict[tuple[str, str, bool], _Table] = field(default_factory=dict, repr=False)
    """Part, device, and whether earlier runs told it -> what was told."""

    # --- learning ---------------------------------------------------------------------------------------------

    def learn(self, record: Record, elapsed: float | None = None) -> None:
        """Takes in what a cell took: ``elapsed`` seconds of the clock, or those that its process saw itself."""
        cell = record.cell
        whole = elapsed if elapsed is not None else record.wall_seconds
        if record.samples:
            counts = record.samples
            self.splits[cell.dataset, cell.train_size] = (
                counts.get("train", 0), counts.get("val", 0), counts.get("test", 0)
            )  # fmt: skip
        process, kind = self._process(cell), Kinds.of(cell)
        fresh = process not in self.started
        if self.settings.isolate != "cell":
            self.started.add(process)
        if record.status != "ok" or not whole:
            return
        told: list[Told] = []
        fill = 0.0
        if _shares(cell):  # whether it kept something or did without: those after it do as well
            self.filled.add(_activations(cell, record.block))
        if seconds := float(record.prefix.get("seconds") or 0.0):
            self.filled.add(_activations(cell, record.block))
            if not record.prefix.get("shared"):
                fill = min(seconds, whole)
                told.append(_told("fill", kind, fill, self._rule_fill(cell)))
        timed = min(timed_seconds(record), whole - fill)
        if timed > 0:
            told.append(_told("timed", kind, timed, self._rule_timed(cell)))
        part = "first" if fresh else "next"
        told.append(_told(part, kind, max(whole - fill - timed, 0.05), OVERHEAD[part]))
        for kept in (self.learned, self.new):
            known = kept.setdefault(cell.device, [])
            known += told
            if len(known) > 2 * LATEST:  # a run may have a million cells
                del known[:-LATEST]
        self._corrections.clear()
        for part in {"light", *(one[0] for one in told)}:
            self._tables.pop((part, cell.device, False), None)

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
            total += seconds
        return total

    def seconds(self, cell: Cell, block: int = 0) -> float | None:
        """Returns the seconds of the next cell to be measured; None where nothing tells of it."""
        return self.total([(cell, block)])

    def alone(self, cells: Sequence[Cell]) -> tuple[float, list[float]] | None:
        """Returns the seconds of cells that share a frozen prefix, in a process of their own: those of its start and of
        the prefix, and those of each cell beyond that; None where nothing tells of them.
        """
        device = cells[0].device
        if not self.knows(device) and device not in self.speeds:
            return None
        kinds = [Kinds.of(cell) for cell in cells]
        each = [
            OVERHEAD["next"] * self._correction("next", kind, device)
            + self._rule_timed(cell) * self._correction("timed", kind, device)
            for cell, kind in zip(cells, kinds, strict=True)
        ]
        start, later = (OVERHEAD[part] * self._correction(part, kinds[0], device) for part in ("first", "next"))
        once = max(start - later, 0.0)
        if self.settings.prefix != "off" and (sharing := [n for n, cell in enumerate(cells) if _shares(cell)]):
            once += self._rule_fill(cells[sharing[0]]) * self._correction("fill", kinds[sharing[0]], device)
        return once, each

    def knows(self, device: str) -> bool:
        """Tells whether cells were timed on a device, in this run or in earlier ones."""
        return bool(self.learned.get(device) or self.earlier.get(device))

    def has_timed(self, cell: Cell) -> bool:
        """Tells whether cells of this policy were timed on its device: else the rule alone says how long it takes."""
        kind, part = Kinds.of(cell), "light" if _is_light(Kinds.of(cell).policy) else "timed"
        return any(kind.policy in self._table(part, cell.device, earlier).policies for earlier in (True, False))

    def _expected(
        self, cell: Cell, block: int, filled: set[tuple[object, ...]], started: set[tuple[object, ...]]
    ) -> float | None:
        kind, device = Kinds.of(cell), cell.device
        if not self.knows(device) and device not in self.speeds:
            return None
        process, activations = self._process(cell), _activations(cell, block)
        part = "first" if process not in started else "next"
        started.add(process)
        seconds = OVERHEAD[part] * self._correction(part, kind, device)
        seconds += self._rule_timed(cell) * self._correction("timed", kind, device)
        if _shares(cell) and activations not in filled and self.settings.prefix != "off":
            filled.add(activations)
            seconds += self._rule_fill(cell) * self._correction("fill", kind, device)
        return seconds

    def _correction(self, part: str, kind: Kinds, device: str) -> float:
        """Returns how many times as long as by the rule a part takes: by what this run told of such cells, or else
        earlier runs, or else the speed of the device.
        """
        # Epochs on stored features wait for the processor's overheads: they tell nothing of layers that run.
        key = ("light" if part == "timed" and _is_light(kind.policy) else part, kind, device)
        if key not in self._corrections:
            self._corrections[key] = self._learned_correction(*key)
        return self._corrections[key]

    def _learned_correction(self, part: str, kind: Kinds, device: str) -> float:
        mine, past = self._table(part, device, False), self._table(part, device, True)
        if not mine.told and not past.told:
            return math.exp(self._unlearned(part, device))
        if not mine.told or kind in mine.both:
            return math.exp((mine if mine.told else past).log(kind))
        weight = len(mine.told) / (len(mine.told) + 1)  # one cell of another kind is little to go by
        if not past.told:
            known = weight if kind.policy not in mine.policies else 1.0
            return math.exp((1 - known) * self._unlearned(part, device) + known * mine.log(kind))
        # Earlier runs tell how kinds differ, this one how it differs from them.
        return math.exp(past.log(kind) + weight * mine.apart_from(past))

    def _table(self, part: str, device: str, earlier: bool) -> _Table:
        key = part, device, earlier
        if key not in self._tables:
            told = [*(self.earlier if earlier else self.learned).get(device, ())][-LATEST:]
            if part in ("timed", "light"):
                told = [one for one in told if one[0] == "timed" and _is_light(one[2]) == (part == "light")]
            self._tables[key] = _Table([one for one in told if part in ("timed", "light") or one[0] == part], part)
        return self._tables[key]

    def _unlearned(self, part: str, device: str) -> float:
        """Returns the log of a correction of a part that none has shown: the others tell how fast the machine is."""
        other = {"fill": "timed", "timed": "fill"}.get(part)
        for known in (self.learned, self.earlier):
            told = [one[3] for one in known.get(device, ()) if one[0] == other and not _is_light(one[2], other)]
            if told:
                return median(told)
        return 0.0 if part in OVERHEAD else math.log(SPEED / self.speeds.get(device, SPEED))

    def _process(self, cell: Cell) -> tuple[object, ...]:
        """Names the process that a cell runs in."""
        if self.settings.isolate == "cell":
            return (cell.key, time.monotonic())  # each its own
        return (cell.backbone, cell.device) if self.settings.isolate == "backbone" else ()

    # --- the rule ---------------------------------------------------------------------------------------------

    def _images(self, cell: Cell) -> Splits:
        known = self.splits.get((cell.dataset, cell.train_size)) or self.splits.get((cell.dataset, None))
        train, val, test = known or next(iter(self.splits.values()), UNKNOWN)
        return min(train, cell.train_size or train), val, test

    def _rule_fill(self, cell: Cell) -> float:
        return sum(self._images(cell)) * _forward(cell) / 3  # forward alone, without gradients, is nearer the ceiling

    def _rule_timed(self, cell: Cell) -> float:
        one = _forward(cell)
        if cell.task == "infer":
            batched = self.settings.throughput_rounds * self.settings.throughput_batches * cell.batch_size
            return one * (batched + 2 * self.settings.latency_rounds) + 0.004 * self.settings.latency_rounds
        train, val, test = self._images(cell)
        if _is_fitted(cell):
            return 0.01 + 1e-5 * train
        passes = _passes(cell)
        trained = train * cell.epochs * passes
        evaluated = (val * cell.epochs + test) * min(1.0, passes / 2)
        tries = 1 + RATES * (cell.lr == "auto")
        return tries * ((trained + evaluated) * one + 0.0015 * cell.epochs * math.ceil(train / cell.batch_size))


def timed_seconds(record: Record) -> float:
    """Returns the seconds that a record's own measurements took: of rounds, evaluations, images, rates, compiling."""
    rounds = sum(r.seconds + (r.evaluation_seconds or 0.0) for r in record.rounds)
    tried = sum(float(trial.get("seconds") or 0.0) for trial in record.lr_trials)
    single = sum(record.latency_seconds)
    return rounds + tried + single + (record.test_seconds or 0.0) + (record.compile_seconds or 0.0)


def _is_light(policy: str, part: str | None = "timed") -> bool:
    """Tells whether cells of a policy, as `Kinds` has it, time nothing but a head on stored features."""
    return part == "timed" and (policy.startswith("linear_probe") or "+fit" in policy)


def _told(part: str, kind: Kinds, seconds: float, rule: float) -> Told:
    return part, kind.backbone, kind.policy, math.log(max(seconds, 1e-4) / max(rule, 1e-4))


class _Table:
    """Holds what was told of a part, as a table of two ways: by backbone and by policy."""

    def __init__(self, told: Sequence[Told], part: str) -> None:
        self.told, self._part = told, part
        self.both: dict[Kinds, list[float]] = {}
        self.backbones: dict[str, list[float]] = {}
        self.policies: dict[str, list[float]] = {}
        for _, backbone, policy, value in told:
            self.both.setdefault(Kinds(backbone=backbone, policy=policy), []).append(value)
            self.backbones.setdefault(backbone, []).append(value)
            self.policies.setdefault(policy, []).append(value)
        self._centre = fmean(value for *_, value in told) if told else 0.0
        self._apart: float | None = None
        self._logs: dict[Kinds, float] = {}

    def log(self, kind: Kinds) -> float:
        """Returns the log of a correction: that of the same backbone and policy where there is one; else the backbone's
        and the policy's over the mean of all, as far as they are known.
        """
        if kind not in self._logs:
            self._logs[kind] = self._log(kind)
        return self._logs[kind]

    def _log(self, kind: Kinds) -> float:
        if both := self.both.get(kind):
            return median(both[-5:])
        rows = self.backbones.get(kind.backbone)
        columns = self.policies.get(kind.policy) if self._part != "fill" else None
        return self._centre + sum(fmean(values) - self._centre for values in (rows, columns) if values)

    def apart_from(self, past: _Table) -> float:
        """Returns how far what is told here is from what another table says of the same, in the median."""
        if self._apart is None:
            self._apart = median(value - past.log(kind) for kind, values in self.both.items() for value in values)
        return self._apart


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


def _shares(cell: Cell) -> bool:
    if cell.task != "train" or cell.augment != "none":
        return False
    try:
        return _is_fitted(cell) or parse_policy(cell.freeze).name in SHARING
    except UserError:
        return False


def _is_fitted(cell: Cell) -> bool:
    return cell.head in HEADS and HEADS[cell.head].fit is not None


def _activations(cell: Cell, block: int) -> tuple[object, ...]:
    shared = (cell.backbone, cell.weights, cell.dataset, cell.device, cell.image_size, cell.precision)
    # Random weights are others with each seed.
    return (*shared, block, cell.seed if cell.weights == "random" else None)
