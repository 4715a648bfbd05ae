"""torch.compile, held to what a cell says: graphs of its own, for the shapes that it has, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tlbench.errors import NotApplicable
from tlbench.machine.lean import set_deterministic, without_compiler
from tlbench.train.captured import CHOICE

MODES = {"on": "default", "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}
"""Choice for --compile -> torch's mode."""
MOST_GRAPHS = 64
"""Of a cell: each cut of a policy has two shapes of batches, and torch counts them all as forms of one function."""


def compiled(module: Callable[..., Any], choice: str) -> Callable[..., Any]:
    """Returns the compiled form of a module, which is compiled at its first call with each shape.

    Shapes are static: with dynamic ones, the smaller last batch would have every later batch run another, slower graph.
    """
    return torch.compile(module, mode=MODES[choice], dynamic=False)


def check_choice(choice: str, device: torch.device, task: str, precision: str) -> None:
    """Raises NotApplicable where a choice for --compile is none for such a cell."""
    if choice != CHOICE:
        return
    if task != "train":
        raise NotApplicable(f"--compile {CHOICE} is of training steps; inference has graphs with reduce-overhead")
    if device.type != "cuda":
        raise NotApplicable(f"--compile {CHOICE} needs a CUDA device, not {device}")
    if precision == "fp16":
        raise NotApplicable(f"--compile {CHOICE} cannot scale the loss of fp16, which looks at each step; use bf16")


class CompiledSuffixes:
    """Holds what was compiled of one model, by the cut."""

    def __init__(self, choice: str) -> None:
        self.choice = choice
        self.captures = choice == CHOICE
        """Whether nothing is compiled, but whole steps are captured as CUDA graphs."""
        self._by_cut: dict[int, Callable[..., Any]] = {}

    def of(self, cut: int, suffix: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the compiled form of the stages after a cut."""
        if self.captures:
            return suffix
        if cut not in self._by_cut:
            self._by_cut[cut] = compiled(suffix, self.choice)
        return self._by_cut[cut]


@contextmanager
def own_graphs(choice: str) -> Iterator[None]:
    """Lets what is compiled within have graphs of its own, which are dropped at its end.

    torch counts the graphs of a function in the whole process and beyond a limit runs it as it is, with a warning:
    here that is an error, so that no eager time is called a compiled one. Without compiling it does nothing.
    """
    if choice in ("off", CHOICE):
        with without_compiler():
            yield
        return
    import torch._dynamo as dynamo
    import torch._inductor.config as inductor

    # It is told now, since nothing has imported it before.
    set_deterministic(
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    )
    dynamo.reset()
    try:
        with (
            dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=MOST_GRAPHS),
            # Else the seconds of compiling would say whether somebody has compiled the same before, on the disk.
            inductor.patch(force_disable_caches=True),
        ):
            yield
    finally:
        dynamo.reset()
