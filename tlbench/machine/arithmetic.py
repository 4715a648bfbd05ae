"""How the same arithmetic is carried out: on which device, in which precision, in which memory layout."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.errors import NotApplicable

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
WEIGHTS = {"bf16_weights": torch.bfloat16}
"""Precisions whose weights are no fp32, for inference alone: what is cast once need not be cast at each call."""
DTYPES = {**_AUTOCAST, **WEIGHTS}
"""Precision -> what matrix products take; fp32 where it is not here."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Says how the same arithmetic is carried out: device, precision and memory layout."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context that every forward pass runs in."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else contextlib.nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        """Says what weights and images are."""
        return WEIGHTS.get(self.precision, torch.float32)

    def arrange(self, images: Tensor) -> Tensor:
        """Returns images or maps (N, C, H, W) in the layout of this cell; what has other dimensions stays as it is."""
        if self.channels_last and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def place(self, model: nn.Module) -> None:
        """Moves a model to the device, in this layout and with weights of this precision."""
        model.to(self.device)
        if self.dtype != torch.float32:
            model.to(self.dtype)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def scaler(self) -> torch.amp.GradScaler | None:
        """Returns what scales the loss for fp16, whose few exponents would let small gradients vanish; else None."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None


def check_precision(precision: str, device: torch.device, task: str = "infer") -> None:
    """Raises NotApplicable where the device does not have the precision, or the task does not take it."""
    if precision in WEIGHTS and task != "infer":
        raise NotApplicable(f"{precision} is for inference: small steps of training would be lost in it; use bf16")
    if precision == "tf32" and device.type != "cuda":
        raise NotApplicable("tf32 is a mode of CUDA's matrix units; a CPU has fp32, bf16 and fp16")
    if (
        precision in ("bf16", *WEIGHTS)
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise NotApplicable("this GPU has no bf16; use fp16")
