"""Small helpers that write a model's modules down as stages: lists of (name, module), shared with the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn import functional

from tlbench.backbones.base import Named


def named(model: nn.Module, *names: str) -> Named:
    """Returns children by name."""
    return [(name, model.get_submodule(name)) for name in names]


def children(model: nn.Module, start: int = 0, stop: int | None = None) -> Named:
    """Returns children by position."""
    return list(model.named_children())[start:stop]


def starting(model: nn.Module, *prefixes: str) -> Named:
    """Returns the children whose names start with one of the prefixes, in order."""
    return [(name, child) for name, child in model.named_children() if name.startswith(prefixes)]


def flatten() -> tuple[str, nn.Module]:
    """Returns a layer that flattens (N, C, …) to (N, features), with its name."""
    return "flatten", nn.Flatten(1)


def pool(x: Tensor) -> Tensor:
    """Averages each map: (N, C, H, W) -> (N, C, 1, 1)."""
    return functional.adaptive_avg_pool2d(x, (1, 1))


def mean(x: Tensor) -> Tensor:
    """Averages each map: (N, C, H, W) -> (N, C)."""
    return x.mean([2, 3])


def class_token(x: Tensor) -> Tensor:
    """Takes the first token: (N, tokens, C) -> (N, C)."""
    return x[:, 0]


def split_after(modules: Named, last: Callable[[nn.Module], bool]) -> list[Named]:
    """Cuts modules into runs, each ending with one for which ``last`` holds."""
    runs: list[Named] = [[]]
    for item in modules:
        runs[-1].append(item)
        if last(item[1]):
            runs.append([])
    return [run for run in runs if run]


def split_before(modules: Named, first: Callable[[nn.Module], bool]) -> list[Named]:
    """Cuts modules into runs, each but the first starting with one for which ``first`` holds."""
    runs: list[Named] = []
    for item in modules:
        if not runs or first(item[1]):
            runs.append([])
        runs[-1].append(item)
    return runs


def is_pool(module: nn.Module) -> bool:
    """Tells whether a module is a max pooling."""
    return isinstance(module, nn.MaxPool2d)


def has_stride(module: nn.Module) -> bool:
    """Tells whether a convolution in a module has a stride above 1."""
    return any(m.stride[0] > 1 for m in module.modules() if isinstance(m, nn.Conv2d))


def each(modules: Iterable[tuple[str, nn.Module]]) -> list[Named]:
    """Makes a stage of each module."""
    return [[item] for item in modules]


def blocks(*stages: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Makes a block of each module of the stages."""
    return [[module] for stage in stages for module in stage]


def with_last(counted: list[list[nn.Module]], *modules: nn.Module) -> list[list[nn.Module]]:
    """Counts further modules with the last block."""
    *before, last = counted
    return [*before, [*last, *modules]]


def prefixed(prefix: str, modules: Named) -> Named:
    """Puts a prefix before the names, so that they cannot clash with those of another container."""
    return [(f"{prefix}_{name}", module) for name, module in modules]
