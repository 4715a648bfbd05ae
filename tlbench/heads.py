"""Heads: what is put on top of a backbone's pooled features. Each builder takes (features, classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Head:
    """A row of the table."""

    summary: str
    build: Callable[[int, int], nn.Sequential]
    """(features, classes) -> a module that maps (N, features) to logits (N, classes)."""


MLP_WIDTH = 512


def linear(features: int, classes: int) -> nn.Sequential:
    """One linear layer: features x classes + classes parameters."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, classes))


def mlp(features: int, classes: int) -> nn.Sequential:
    """One hidden layer of `MLP_WIDTH` units with ReLU."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, classes))


HEADS: dict[str, Head] = {
    "linear": Head(summary="one linear layer on the pooled features", build=linear),
    "mlp": Head(summary=f"a hidden layer of {MLP_WIDTH} units with ReLU, then a linear layer", build=mlp),
}
