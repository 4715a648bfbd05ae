"""Hashes of tensors: equal exactly when names, types, shapes and every bit are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


TRANSFER_BYTES = 2**28
"""Tensors of a GPU come to the host in pieces of at most so many bytes, or one at a time where one is larger."""


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Returns the SHA-256 over (name, tensor) pairs in the order given, as 64 hexadecimal digits."""
    import torch

    digest = hashlib.sha256()
    for group in _groups(tensors):
        plain = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for _, tensor in group]
        # One transfer for all of them: a model has hundreds of small ones.
        found = torch.cat(plain).cpu() if len(plain) > 1 else plain[0].cpu()
        begin = 0
        for (name, tensor), part in zip(group, plain, strict=True):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            digest.update(found[begin : begin + len(part)].numpy().data)
            begin += len(part)
    return digest.hexdigest()


def _groups(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    """Yields what is transferred together: a tensor of the host by itself, since it is there."""
    group: list[tuple[str, Tensor]] = []
    for name, tensor in tensors:
        if group and (
            tensor.device != group[0][1].device
            or tensor.device.type == "cpu"
            or sum(one.nbytes for _, one in group) + tensor.nbytes > TRANSFER_BYTES
        ):
            yield group
            group = []
        group.append((name, tensor))
    if group:
        yield group
