"""Two cells measured in turns, round by round, in one process: what a headline ratio rests on.

One after the other, two identical cells differ by several percent, because a machine's mood lasts longer than a cell.
In turns they share it. A twin of the first cell runs along: how far the two identical ones come out apart, measured
in the same way, is the floor below which a ratio says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from typing import Any

import torch

from tlbench.analysis import stats
from tlbench.campaign.check import check
from tlbench.errors import NotApplicable, UserError, nearest, unknown
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings, parse_settings
from tlbench.grid.values import split_values
from tlbench.heads import HEADS
from tlbench.machine import environment as machine
from tlbench.machine.clock import Clock, plain_clock
from tlbench.machine.noise import validity
from tlbench.machine.process import (
    deterministic,
    release_memory,
    set_allocator,
    set_deterministic,
    set_matmul_precision,
)
from tlbench.measure import inference, training
from tlbench.measure import timed as timed_module
from tlbench.measure.build import build
from tlbench.policies.parse import parse_policy
from tlbench.records.record import Record

ROUNDS, BLOCKS = 36, 5
OWN_SETTINGS = ("threads", "deterministic", "prefix", "views")
"""Settings that a side may have to itself; the others belong to the process."""


# --- what is measured -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Side:
    """A cell, and how it is measured."""

    cell: Cell
    settings: Settings = field(default_factory=Settings)


def parse_side(text: str, records: Sequence[Record] = ()) -> Side:
    """A side from the id or the key of one of the records, or from ``backbone=resnet18,freeze=full,threads=1``: axes,
    and the settings of `OWN_SETTINGS`; what is left out is at its default.

    Errors: UserError naming the value, the choices and the next step.
    """
    for record in records:
        if text in (record.id, record.key):
            return Side(cell=record.cell, settings=record.settings)
    if "=" not in text:
        names = list(dict.fromkeys(record.id for record in records))
        guess = nearest(text, names)
        hint = f"; did you mean {guess!r}?" if guess else ""
        where = "is no cell of the run" if records else "is no cell; give --run for the ids of a run"
        raise UserError(f"{text!r} {where}{hint}; a cell is also written as backbone=resnet18,freeze=full")
    options = {axis.option.replace("_", "-"): name for name, axis in AXES.items()} | {"seed": "seed"}
    axes: dict[str, tuple[Any, ...]] = {}
    settings: dict[str, object] = {}
    for part in split_values(text):
        key, _, value = part.partition("=")
        key = key.strip().replace("_", "-")
        if key not in options and key not in OWN_SETTINGS:
            raise unknown(f"axis in {text!r}:", key, [*options, *OWN_SETTINGS])
        name = options.get(key, key)
        if name in axes or name in settings:
            raise UserError(f"{text!r} gives {key!r} twice")
        if key in options:
            axes[name] = parse_axis(name, value)
            if len(axes[name]) > 1:
                raise UserError(f"{text!r} gives {key!r} several values; one side of a duel is one cell")
        else:
            settings[key] = value.strip()
    return Side(cell=Grid(axes=axes).expand()[0], settings=parse_settings(settings))


def checked(side: Side) -> Side:
    """The side with its device and number of threads resolved.

    Errors: UserError and NotApplicable, before anything is built.
    """
    cell = side.cell
    grid = check(Grid.of(cell), side.settings)
    if cell.task == "train" and HEADS[cell.head].fit is not None:
        raise NotApplicable(
            f"the head {cell.head} is fitted in one go, and a duel compares epochs; choose another head"
        )
    # Which rate a cell trains at does not change how long that takes.
    cell = replace(grid.expand()[0], lr=None if cell.lr == "auto" else cell.lr)
    threads = side.settings.threads or torch.get_num_threads()
    return Side(cell=cell, settings=replace(side.settings, threads=threads))


def names(a: Side, b: Side) -> tuple[str, str]:
    """What tells the sides apart: ``freeze=full`` against ``freeze=norm``; all of the cell where nothing does."""
    found = []
    for own, other in ((_facts(a), _facts(b)), (_facts(b), _facts(a))):
        found.append(" ".join(f"{key}={_word(value)}" for key, value in own.items() if value != other[key]))
    return (found[0], found[1]) if all(found) else (a.cell.id, f"{b.cell.id} (the same)")


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _facts(side: Side) -> Mapping[str, Any]:
    own = {name: getattr(side.settings, SETTINGS[name].field) for name in OWN_SETTINGS}
    return {axis.option: getattr(side.cell, name) for name, axis in AXES.items()} | own


# --- measuring ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A side, built and warmed up."""

    setup: Callable[[], None]
    target: Callable[[], None]
    images: int
    """Of one round."""
    timed: timed_module.Timed


def start(side: Side, rounds: int) -> Contender:
    """Builds a side for so many rounds: epochs of training, or a few batches of inference.

    Errors: NotApplicable for a policy with several phases: their epochs cost different amounts.
    """
    _activate(side)
    return (_start_training if side.cell.task == "train" else _start_inference)(side, rounds)


def _start_training(side: Side, rounds: int) -> Contender:
    facts: dict[str, Any] = {}
    expression = parse_policy(side.cell.freeze)
    job = build(side.cell, side.settings, facts, expression)
    phases = expression.phases(job.described, side.cell.epochs)
    if len(phases) > 1:
        raise NotApplicable(
            f"{side.cell.freeze} has the phases {', '.join(p.name for p in phases)}, whose epochs cost different "
            "amounts; a duel needs a policy of one phase"
        )
    training.store_prefix(job, training.cuts_of(job, phases))
    trainer = training.start_training(job, [*phases] * rounds, facts, expression)

    def setup() -> None:
        _activate(side)
        trainer.start_epoch()

    def epoch() -> None:
        trainer.run_epoch()

    return Contender(setup=setup, target=epoch, images=len(job.data.train), timed=timed_module.Timed(job))


def _start_inference(side: Side, rounds: int) -> Contender:
    cell, batches = side.cell, side.settings.throughput_batches
    job = build(cell, side.settings, {})
    call = inference.start_inference(job)(cell.batch_size, batches)
    call()
    return Contender(
        setup=lambda: _activate(side), target=call, images=cell.batch_size * batches, timed=timed_module.Timed(job)
    )


def _activate(side: Side) -> None:
    """What a side needs of the process: its neighbour may have left something else."""
    threads = side.settings.threads
    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
        torch.ones(2**18).add_(1)  # the threads start here, not in the timed call
    set_matmul_precision(side.cell.precision)
    set_deterministic(side.settings.deterministic)


ORDERS = tuple(permutations(range(3)))
"""Of A, its twin and B: in six rounds each is first, second and last as often as the others."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Seconds an image, round by round, of A, its twin and B."""

    a: tuple[float, ...]
    twin: tuple[float, ...]
    b: tuple[float, ...]
    noisy: tuple[str, ...] = ()
    """Why, for each round of any of them; empty texts for the quiet ones."""
    throttled: tuple[str, ...] = ()


def measure_block(a: Side, b: Side, rounds: int, number: int = 0, clock: Clock = plain_clock) -> Block:
    """Builds all three anew, in an order that changes from block to block, and takes their rounds in turns.

    Errors: whatever building or running a cell raises.
    """
    release_memory()
    sides = (a, a, b)
    built: dict[int, Contender] = {}
    for place in ORDERS[number % len(ORDERS)]:
        built[place] = start(sides[place], rounds)
    for turn in range(rounds):
        for place in ORDERS[(turn + number) % len(ORDERS)]:
            contender = built[place]
            contender.timed.run(clock, contender.setup, contender.target, 1)
    seen = [built[place].timed.rounds() for place in range(3)]
    seconds = [tuple(r["seconds"] / built[place].images for r in seen[place]) for place in range(3)]
    everything = [r for rounds_ in seen for r in rounds_]
    return Block(
        a=seconds[0],
        twin=seconds[1],
        b=seconds[2],
        noisy=tuple(r["noisy"] for r in everything),
        throttled=tuple(r["throttled"] for r in everything),
    )


# --- judging --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Duel:
    """What the blocks say: ``ratio`` is the time of B over the time of A."""

    a: Side
    b: Side
    blocks: tuple[Block, ...]
    ratio: stats.Interval
    p_value: float | None
    floor: stats.NoiseFloor
    verdict: stats.Verdict
    validity: str
    validity_reason: str
    environment: Mapping[str, Any]

    def seconds(self, name: str) -> float:
        """Median seconds an image of ``a``, ``twin`` or ``b`` over all blocks."""
        return float(statistics.median(s for block in self.blocks for s in getattr(block, name)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all that was measured and what it says."""
        return {**asdict(self), "a": _written(self.a), "b": _written(self.b)}


def _written(side: Side) -> dict[str, Any]:
    return {"cell": asdict(side.cell), "settings": asdict(side.settings)}


def judge(blocks: Sequence[Block]) -> tuple[stats.Comparison, stats.NoiseFloor, stats.Verdict]:
    """Ratio B / A from the rounds' ratios, the floor from the twins' in the same way, and whether one exceeds the
    other.
    """
    ratio = stats.alternated_ratio([(block.b, block.a) for block in blocks])
    floor = stats.noise_floor(stats.block_ratios([(block.twin, block.a) for block in blocks]), len(blocks))
    return ratio, floor, stats.verdict(ratio.interval, floor.relative)


def duel(
    a: Side,
    b: Side,
    rounds: int = ROUNDS,
    blocks: int = BLOCKS,
    clock: Clock = plain_clock,
    on_block: Callable[[int], None] = lambda number: None,
) -> Duel:
    """Measures both sides, checked, in turns. ``on_block`` hears of every finished block.

    Errors: UserError, NotApplicable, Unavailable; Diverged, RuntimeError, MemoryError from the cells themselves.
    """
    threads, allocator = torch.get_num_threads(), set_allocator(a.settings.allocator)
    before = machine.volatile(torch.device(b.cell.device))
    measured = []
    try:
        with deterministic(a.settings.deterministic):  # puts back what was set before
            for number in range(blocks):
                measured.append(measure_block(a, b, rounds, number, clock))
                on_block(number)
            _activate(a)
            used = machine.settings(allocator)
    finally:
        torch.set_num_threads(threads)
    ratio, floor, verdict = judge(measured)
    # Drift is no matter here: both sides share it.
    noisy, throttled = ([text for block in measured for text in getattr(block, n)] for n in ("noisy", "throttled"))
    word, why = validity([], [], noisy, throttled)
    return Duel(
        a=a,
        b=b,
        blocks=tuple(measured),
        ratio=ratio.interval,
        p_value=ratio.p_value,
        floor=floor,
        verdict=verdict,
        validity=word,
        validity_reason=why,
        environment=machine.environment(torch.device(b.cell.device), used=used, before=before),
    )
