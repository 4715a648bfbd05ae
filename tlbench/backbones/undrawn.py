"""Builds models whose initial weights nobody draws, for what depends on their shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWS = {torch.Tensor.normal_: "mean", torch.Tensor.uniform_: "from"}
"""What fills a tensor with random values -> the name of its first argument, which such a value may be: what draws until
all values lie within bounds (torch's truncated normal) comes to an end.
"""


@contextmanager
def undrawn() -> Iterator[None]:
    """Gives all values of a tensor the mean or the lower bound of what would be drawn."""
    with _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draws nothing, also where one of torch's own initialisations asks for it as a whole."""
        given = dict(kwargs or {})
        if func in DRAWS:
            return args[0].fill_(args[1] if len(args) > 1 else given.get(DRAWS[func], 0.0))
        if func is torch.Tensor.erfinv_:  # timm's truncated normal, which is slow
            return args[0]
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
