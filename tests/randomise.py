"""Models whose every number is random, built without paying for an initialisation that is overwritten at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def no_initialisation() -> Iterator[None]:
    """Parameters keep whatever memory holds. Of the 80 classifiers' time to build this leaves a tenth."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (nn.init, activation):
            for name in dir(nn.init):
                if name.endswith("_") and not name.startswith("_") and hasattr(module, name):
                    patch.setattr(module, name, lambda tensor, *_, **__: tensor)
        yield


class Stream:
    """Normal numbers without end: a pool of prime length, so that equal shapes do not get equal values."""

    def __init__(self, seed: int) -> None:
        self.pool = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed))
        self.position = 0

    def fill(self, tensor: Tensor) -> Tensor:
        flat = tensor.view(-1)
        done = 0
        while done < len(flat):
            part = self.pool[self.position : self.position + len(flat) - done]
            flat[done : done + len(part)] = part
            done += len(part)
            self.position = (self.position + len(part)) % len(self.pool)
        return tensor


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, tokens, scales, shifts and BatchNorm statistics; heads too, which may start at zero."""
    stream = Stream(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            stream.fill(parameter)
            if parameter.ndim > 1 and len(parameter) > 1:
                parameter.mul_(math.sqrt(2 / parameter[0].numel()))
            elif parameter.ndim == 1 and name == "weight":
                parameter.abs_().clamp_(0.5, 1.5)
            else:
                parameter.mul_(0.3)
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            stream.fill(module.running_mean).mul_(0.3)
            stream.fill(module.running_var).abs_().clamp_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return model


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Puts BatchNorm statistics back."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
