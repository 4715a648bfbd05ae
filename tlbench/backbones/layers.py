"""Layers that torch does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelfAttention(nn.Module):
    """Stands in for a batch-first `nn.MultiheadAttention` of one input with itself, and calls its projections as linear
    layers, so that they can take low-rank factors. It holds the same parameters and computes the same.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.dropout = attention.num_heads, attention.dropout
        self.in_proj = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
        self.in_proj.weight, self.in_proj.bias = nn.Parameter(attention.in_proj_weight), attention.in_proj_bias
        self.out_proj = attention.out_proj
        self._original = (attention,)  # in a tuple, so that its parameters are not registered twice

    @staticmethod
    def suits(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TypeGuard[nn.MultiheadAttention]:
        """Tells whether a module is such an attention, and is called in the way that can be taken over."""
        return (
            isinstance(module, nn.MultiheadAttention)
            and module.batch_first
            and module._qkv_same_embed_dim
            and module.bias_k is None
            and not module.add_zero_attn
            and len(args) == 3
            and args[0] is args[1] is args[2]
            and kwargs == {"need_weights": False}
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        """Maps tokens (N, L, E), given three times, to tokens (N, L, E)."""
        assert query is key is value
        assert not need_weights
        q, k, v = self.in_proj(query).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def restore(self) -> nn.MultiheadAttention:
        """Returns the original module with the present parameters."""
        (attention,) = self._original
        attention.in_proj_weight, attention.in_proj_bias = nn.Parameter(self.in_proj.weight), self.in_proj.bias
        attention.out_proj = self.out_proj
        return attention


class ExactLinear(nn.Linear):
    """Stands for a linear layer whose weights were fitted, and computes in 32 bits whatever the precision: a strong
    penalty makes them too small for 16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, features) to logits (N, classes), float32."""
        device = x.device.type if x.device.type != "meta" else "cpu"
        with torch.autocast(device, enabled=False):
            return super().forward(x.float())


class CentredUnit(nn.Module):
    """Maps features (N, features) to their directions from a centre: differences of length 1, float32."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x.float() - self.centre, dim=1)


class Cosine(nn.Module):
    """Maps features (N, features) to scale x cosine similarity to each class's weight (N, classes)."""

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = nn.Parameter(torch.tensor(scale))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * functional.linear(functional.normalize(x, dim=1), functional.normalize(self.weight, dim=1))
