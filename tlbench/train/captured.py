"""Steps of training as CUDA graphs: a step is captured once for each size of batch, and then is one launch.

A small head's step on stored activations is some thirty kernels of a few microseconds each, which a processor launches
more slowly than a GPU runs them; a graph launches them all at once. It computes what the step computes: before anything
is timed, its losses are held against those of the same steps without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tlbench.errors import NotApplicable
from tlbench.machine.clock import now
from tlbench.policies.base import Phase
from tlbench.train.recipe import Recipe
from tlbench.train.source import Taking

CHOICE = "cuda-graph"
"""For --compile."""
CLOSE = 1e-6
"""How far a loss may be off, as a share of it, or where it is below 1, of 1: a rate is a float32 on the device here."""
TRIED = 3
"""Steps that are taken both ways; also what torch asks for before a capture."""


def check_capture(phase: Phase, recipe: Recipe, stored: Taking | None) -> None:
    """Raises NotApplicable where the steps of a phase cannot be captured."""
    if stored is None or stored.kept.activations.device.type != "cuda":
        raise NotApplicable(
            f"--compile {CHOICE} replays steps on stored activations that lie on the GPU, and this cell has none "
            "there: it is for policies that freeze the first stages, with --prefix auto and room on the GPU"
        )
    if phase.by_gradient:
        raise NotApplicable(f"--compile {CHOICE}: this policy sets its rates by gradients in every epoch; leave it out")
    if recipe.optimizer == "sgd" and not recipe.fused:
        raise NotApplicable(f"--compile {CHOICE} takes the rate from the device, which SGD does with --fused on alone")


class CapturedSteps:
    """Captures the steps of a phase and replays them: `start` before an epoch, `step` for each of its batches."""

    def __init__(
        self,
        train_on: Callable[[Tensor, Tensor], Tensor],
        taking: Taking,
        optimizer: torch.optim.Optimizer,
        changed: Sequence[Tensor],
    ) -> None:
        """Takes what trains on activations and labels (n,) and returns the loss, a scalar, with the optimizer's step;
        where the activations are taken from; and the tensors that training changes beside the optimizer's own.
        """
        self._train_on, self._taking = train_on, taking  # held, since a graph reads from where they lay
        self._optimizer, self._changed = optimizer, list(changed)
        device = self._changed[0].device
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._rates = torch.tensor(rates, dtype=torch.float32, device=device)
        for number, group in enumerate(optimizer.param_groups):
            group["lr"] = self._rates[number]  # a view: what a captured step reads
        self._table = self._rates[None]
        self._replays: dict[int, tuple[Tensor, Tensor, Callable[[], None]]] = {}
        """Size of a batch -> its positions, its loss, what replays a step."""

    def reads(self, taking: Taking) -> bool:
        """Tells whether these are the activations that the graphs read; each augmented view has others."""
        mine, other = self._taking.kept.activations, taking.kept.activations
        return mine.data_ptr() == other.data_ptr() and mine.shape == other.shape

    def start(self, batches: Sequence[Tensor], rates: Sequence[Sequence[float]], seed: int) -> float:
        """Prepares an epoch of these batches, with the rates of each step, a number a group of parameters.

        Returns the seconds that capturing took: 0 where every size of batch is known. ``seed`` draws the stochastic
        layers of the steps that are tried. Errors: RuntimeError where a captured step gives another loss.
        """
        self._table = torch.tensor(rates, dtype=torch.float32).to(self._rates.device)
        new = {len(batch): batch for batch in batches if len(batch) not in self._replays}
        if not new:
            return 0.0
        begin = now()
        tried = [*batches[:TRIED], *new.values()]
        before, state = [tensor.clone() for tensor in self._changed], self._copied_state()
        torch.manual_seed(seed)
        self._rates.copy_(self._table[0])
        plain = self._aside(tried)
        self._reset(before, state)
        for size, batch in new.items():
            positions = batch.clone()
            loss, replay = capture(self._of(positions))
            self._replays[size] = positions, loss, replay
        self._reset(before, state)
        torch.manual_seed(seed)
        replayed = torch.stack([self.step(0, batch) for batch in tried])
        self._reset(before, state)
        _check(plain.double().cpu(), replayed.double().cpu())
        return now() - begin

    def step(self, number: int, positions: Tensor) -> Tensor:
        """Trains on one batch, the ``number``-th of the epoch. Returns its loss, a scalar on the device."""
        static, loss, replay = self._replays[len(positions)]
        static.copy_(positions)
        self._rates.copy_(self._table[number])
        replay()
        return loss.clone()

    def _compute(self, positions: Tensor) -> Tensor:
        return self._train_on(*self._taking(positions))

    def _of(self, positions: Tensor) -> Callable[[], Tensor]:
        return lambda: self._compute(positions)

    def _aside(self, batches: Sequence[Tensor]) -> Tensor:
        """Takes steps as they are, on another stream than the default one, as torch wants before a capture."""
        if self._rates.device.type != "cuda":
            return torch.stack([self._compute(batch) for batch in batches])
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            losses = torch.stack([self._compute(batch) for batch in batches])
        torch.cuda.current_stream().wait_stream(aside)
        return losses

    def _copied_state(self) -> dict[tuple[Tensor, str], Tensor]:
        return {
            (parameter, name): value.clone()
            for parameter, values in self._optimizer.state.items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }

    def _reset(self, before: Sequence[Tensor], state: dict[tuple[Tensor, str], Tensor]) -> None:
        """Puts back what the steps have changed, in place. State that they made begins with zeros, as an optimizer's
        does: AdamW's moments and its count of steps, and a momentum, whose first step then takes the gradient alone.
        """
        with torch.no_grad():
            for tensor, value in zip(self._changed, before, strict=True):
                tensor.copy_(value)
            for parameter, values in self._optimizer.state.items():
                for name, value in values.items():
                    if isinstance(value, Tensor):
                        value.copy_(state[parameter, name]) if (parameter, name) in state else value.zero_()
        self._optimizer.zero_grad(set_to_none=True)


def _check(plain: Tensor, replayed: Tensor) -> None:
    """Raises RuntimeError where losses differ; a loss that is no number is none both ways."""
    off = (plain - replayed).abs() / plain.abs().clamp_min(1.0)
    off = torch.where(plain.isfinite() | replayed.isfinite(), off, 0.0)
    if not bool((off <= CLOSE).all()):
        step = int((~(off <= CLOSE)).nonzero()[0])
        raise RuntimeError(
            f"the CUDA graph of a step gives another loss than the step itself: {replayed[step].item():.9g} instead of "
            f"{plain[step].item():.9g} at step {step + 1}; leave --compile {CHOICE} out"
        )


def capture(step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Captures a step on the present CUDA device. Returns its loss, which each replay fills, and what replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    return loss, graph.replay
