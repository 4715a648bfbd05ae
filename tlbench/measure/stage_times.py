"""Watches a model stage by stage: what each one's forward and backward pass takes, and what it keeps in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.machine.clock import now


@dataclass(kw_only=True)
class StageTimes:
    """Holds the seconds of one step by stage, in order; a stage that no gradient passed has no backward pass."""

    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Returns what all stages took together."""
        return sum(self.forward.values()) + sum(self.backward.values())


class Watched:
    """Listens to the stages of a model while they run in training steps.

    A stage's backward pass begins when the gradient of its output is there, and ends when that of its input is: hooks
    on the tensors between stages tell. The first stage's ends with the whole.
    """

    def __init__(self, stages: nn.Sequential) -> None:
        self._names = [name for name, _ in stages.named_children()]
        self._stages = stages
        self._begun: dict[str, float] = {}
        self._graded: dict[str, float] = {}
        self._times = StageTimes()

    def step(self, work: Callable[[Callable[[str], None]], object]) -> tuple[StageTimes, dict[str, float]]:
        """Returns the seconds of a step by stage and by part; ``work`` calls what it is given with the name of each
        part that is done: forward, backward, optimizer.
        """
        self._times, self._begun, self._graded = StageTimes(), {}, {}
        marks = [("", now())]
        with self._listening():
            work(lambda part: marks.append((part, now())))
        parts = {part: end - begin for (_, begin), (part, end) in itertools.pairwise(marks)}
        self._divide(dict(marks).get("backward", marks[-1][1]))
        return self._times, parts

    def _divide(self, end: float) -> None:
        """Gives each stage its part of the backward pass, which ended at ``end``."""
        reached = [name for name in reversed(self._names) if name in self._graded]
        for name, before in zip(reached, [*reached[1:], None], strict=True):
            self._times.backward[name] = max((end if before is None else self._graded[before]) - self._graded[name], 0)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        handles = []
        for name, stage in self._stages.named_children():
            handles.append(stage.register_forward_pre_hook(self._before(name)))
            handles.append(stage.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Callable[..., None]:
        def before(*_: Any) -> None:
            self._begun[name] = now()

        return before

    def _after(self, name: str) -> Callable[..., None]:
        def graded(_: Tensor) -> None:
            self._graded[name] = now()

        def after(module: nn.Module, given: Any, output: Any) -> None:
            self._times.forward[name] = now() - self._begun[name]
            if isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(graded)

        return after


def saved_bytes(stages: nn.Sequential, work: Callable[[], object]) -> dict[str, int]:
    """Returns the bytes that each stage keeps for the backward pass while ``work`` runs a step: each memory counts
    once, at the stage that keeps it first, parameters and buffers not at all.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*stages.parameters(), *stages.buffers()]}
    seen: set[int] = set()
    found: dict[str, int] = {name: 0 for name, _ in stages.named_children()}
    at = [next(iter(found), "")]

    def entering(name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            at[0] = name

        return enter

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own | seen:
            seen.add(storage.data_ptr())
            found[at[0]] += storage.nbytes()
        return tensor

    handles = [stage.register_forward_pre_hook(entering(name)) for name, stage in stages.named_children()]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            work()
    finally:
        for handle in handles:
            handle.remove()
    return found


def forward_seconds(stages: Sequence[nn.Module], x: Tensor) -> list[float]:
    """Returns what each stage's forward pass takes of a batch, in turn."""
    seconds = []
    for stage in stages:
        begin = now()
        x = stage(x)
        seconds.append(now() - begin)
    return seconds
