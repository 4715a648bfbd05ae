"""Measures two cells in turns, round by round, in one process: what a headline ratio rests on.

One after the other, two identical cells differ by several percent, because a machine's mood lasts longer than a cell.
In turns they share it. A twin of the first cell runs along: how far the two identical ones come out apart, measured
in the same way, is the floor below which a ratio says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import torch

from tlbench.analysis import stats
from tlbench.campaign.duel_side import Side
from tlbench.errors import NotApplicable
from tlbench.machine import environment as machine
from tlbench.machine.clock import Clock, now, plain_clock
from tlbench.machine.noise import validity
from tlbench.machine.process import apply, release_memory, set_up
from tlbench.measure import inference, training
from tlbench.measure.build import build
from tlbench.measure.frozen import cuts_of, fill_prefix
from tlbench.measure.timed import Timed
from tlbench.policies.parse import parse_policy
from tlbench.train.compiling import own_graphs

ROUNDS, BLOCKS = 36, 5
MARGIN = 0.05
"""What is called the same: a change of less than 5 %. Where one that large may hide, that cannot be said."""

# --- measuring ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A contender is a side, built and warmed up."""

    setup: Callable[[], None]
    target: Callable[[], None]
    images: int
    """Images of one round."""
    timed: Timed


def start(side: Side, rounds: int) -> Contender:
    """Builds a side for so many rounds: epochs of training, or a few batches of inference.

    Errors: NotApplicable for a policy with several phases: their epochs cost different amounts.
    """
    _activate(side)
    return (_start_training if side.cell.task == "train" else _start_inference)(side, rounds)


def _start_training(side: Side, rounds: int) -> Contender:
    expression = parse_policy(side.cell.freeze)
    built = build(side.cell, side.settings, expression)
    phases = expression.phases(built.described, side.cell.epochs)
    if len(phases) > 1:
        raise NotApplicable(
            f"{side.cell.freeze} has the phases {', '.join(p.name for p in phases)}, whose epochs cost different "
            "amounts; a duel needs a policy of one phase"
        )
    fill_prefix(built, cuts_of(built, phases))
    trainer = training.start_training(built, [*phases] * rounds, expression)

    def setup() -> None:
        _activate(side)
        trainer.start_epoch()

    def epoch() -> None:
        trainer.run_epoch()

    return Contender(setup=setup, target=epoch, images=len(built.data.train), timed=Timed(built))


def _start_inference(side: Side, rounds: int) -> Contender:
    cell = side.cell
    built = build(cell, side.settings)
    forward = inference.start_inference(built)
    forward(cell.batch_size, 2)()
    begin = now()
    forward(cell.batch_size, 2)()
    batches = inference.batches_of_a_round(built, (now() - begin) / 2)
    call = forward(cell.batch_size, batches)
    call()
    return Contender(setup=lambda: _activate(side), target=call, images=cell.batch_size * batches, timed=Timed(built))


def _activate(side: Side) -> None:
    """Gives a side what it needs of the process: its neighbour may have left something else."""
    apply(side.settings.threads, side.cell.precision, side.settings.deterministic)
    device = torch.device(side.cell.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # the clock waits for the current one


ORDERS = tuple(permutations(range(3)))
"""Orders of A, its twin and B: in six rounds each is first, second and last as often as the others."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Holds seconds an image, round by round, of A, its twin and B."""

    a: tuple[float, ...]
    twin: tuple[float, ...]
    b: tuple[float, ...]
    noisy: tuple[str, ...] = ()
    """Reason why each round of any of them is noisy; empty texts for the quiet ones."""
    throttled: tuple[str, ...] = ()


def measure_block(a: Side, b: Side, rounds: int, number: int = 0, clock: Clock = plain_clock) -> Block:
    """Builds all three anew, in an order that changes from block to block, and takes their rounds in turns.

    Errors: whatever building or running a cell raises.
    """
    release_memory()
    sides = (a, a, b)
    built: dict[int, Contender] = {}
    with own_graphs(a.cell.compile if a.cell.compile != "off" else b.cell.compile):
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
    """Holds what the blocks say: ``ratio`` is the time of B over the time of A."""

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
        """Returns the median seconds an image of ``a``, ``twin`` or ``b`` over all blocks."""
        return float(statistics.median(s for block in self.blocks for s in getattr(block, name)))

    def to_dict(self) -> dict[str, Any]:
        """Returns, for JSON, all that was measured and what it says."""
        return {**asdict(self), "a": _written(self.a), "b": _written(self.b)}


def _written(side: Side) -> dict[str, Any]:
    return {"cell": asdict(side.cell), "settings": asdict(side.settings)}


def judge(blocks: Sequence[Block]) -> tuple[stats.Comparison, stats.NoiseFloor, stats.Verdict]:
    """Returns the ratio B / A of the rounds, the twins' floor in the same way, and whether one exceeds the other."""
    ratio = stats.alternated_ratio([(block.b, block.a) for block in blocks])
    floor = stats.noise_floor(stats.block_ratios([(block.twin, block.a) for block in blocks]), len(blocks))
    return ratio, floor, stats.verdict(ratio.interval, floor.relative, margin=MARGIN)


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
    before = machine.volatile(torch.device(b.cell.device))
    measured = []
    settings, device = a.settings, torch.device(a.cell.device)
    with set_up(settings.threads, a.cell.precision, settings.deterministic, settings.allocator, device) as process:
        for number in range(blocks):
            try:
                measured.append(measure_block(a, b, rounds, number, clock))
            except RuntimeError as error:
                if not process.accept(error):
                    raise
            else:
                on_block(number)
                continue
            measured.append(measure_block(a, b, rounds, number, clock))  # with what has no deterministic form let run
            on_block(number)
        _activate(a)
        used = machine.settings(process.allocator)
        environment = machine.environment(torch.device(b.cell.device), used=used, before=before)
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
        environment=environment,
    )
