"""Hashes of tensors: equal exactly when names, types, shapes and every bit are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Returns the SHA-256 over (name, tensor) pairs in the order given, as 64 hexadecimal digits."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in tensors:
        plain = tensor.detach().to("cpu").contiguous()
        digest.update(f"{name}:{plain.dtype}:{tuple(plain.shape)}:".encode())
        if plain.numel():
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
