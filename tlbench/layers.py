"""Layers that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cosine(nn.Module):
    """Features (N, features) -> scale x cosine similarity to each class's weight (N, classes)."""

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = nn.Parameter(torch.tensor(scale))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * functional.linear(functional.normalize(x, dim=1), functional.normalize(self.weight, dim=1))
