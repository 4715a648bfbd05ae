"""First calls are slow: every phase and batch shape is visited before anything is timed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from tlbench.machine.clock import now
from tlbench.machine.device import peak_memory
from tlbench.measure.build import BuiltCell
from tlbench.measure.frozen import cuts_of
from tlbench.measure.outcome import make_trainer
from tlbench.measure.peaks import kept_by_others
from tlbench.policies.base import Phase
from tlbench.train.loop import Diverged, Trainer
from tlbench.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Says what the first calls told."""

    peak_memory_bytes: int | None
    """Of a training step, less what the clone takes, which training itself does not have, and what other cells have
    left on the device; None where the machine does not tell."""
    compile_seconds: float | None
    """What the first calls of compiled phases took beyond the second ones; None where nothing is compiled."""


def warm_up(built: BuiltCell, plan: Sequence[Phase], recipe: Recipe) -> WarmUp:
    """Trains on the first and the last batch of an epoch in every phase of the plan.

    It works on a throwaway clone: a warm-up that trained the measured model would change its accuracy. What
    torch.compile has compiled holds for one model only, so there the model itself is taken and put back bit for bit.
    """
    peak, compiling = None, 0.0
    phases = list({id(phase): phase for phase in plan}.values())
    frozen = min(cuts_of(built, phases)) if built.compiled is None else 0
    with _restored(built.model) if built.compiled is not None else _cloned(built.model, frozen) as model:
        trainer = make_trainer(built, model, phases, recipe)
        for _ in phases:
            trainer.start_epoch()
            order = trainer.order
            ends = [*order[:1], *order[-1:]]
            first = _visit(trainer, ends)
            if built.compiled is not None:
                # With CUDA graphs the second call of a shape records what the later ones replay.
                second = _visit(trainer, ends)
                compiling += max(0.0, first + second - 2 * _visit(trainer, ends))
            measured = peak_memory(built.arithmetic.device, partial(_visit, trainer, order[:1]))
            peak = max(peak or 0, measured) if measured else peak
    not_its_own = _bytes_of(built.model[frozen:]) + kept_by_others(built)
    return WarmUp(
        peak_memory_bytes=None if peak is None else peak - not_its_own,
        compile_seconds=None if built.compiled is None else compiling,
    )


def _visit(trainer: Trainer, order: Sequence[Tensor]) -> float:
    """Returns the seconds of one pass over these batches."""
    begin = now()
    with suppress(Diverged):  # training itself will tell when
        trainer.run_epoch(order)
    return now() - begin


def _bytes_of(model: nn.Module) -> int:
    """Counts the bytes of parameters and buffers, a shared one once."""
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


@contextmanager
def _cloned(model: nn.Sequential, frozen: int) -> Iterator[nn.Sequential]:
    """Gives a copy that shares the first ``frozen`` stages, which training does not change."""
    yield copy.deepcopy(model, {id(stage): stage for stage in model[:frozen]})


@contextmanager
def _restored(model: nn.Sequential) -> Iterator[nn.Sequential]:
    """Gives the model itself; afterwards its parameters and buffers are as they were, without gradients."""
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield model
    finally:
        model.load_state_dict(saved)
        model.zero_grad(set_to_none=True)
