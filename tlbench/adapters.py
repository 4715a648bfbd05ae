"""Low-rank adaptation through peft."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from tlbench.errors import NotApplicable, Unavailable
from tlbench.policies import HEAD, Arguments


def inject_lora(model: nn.Sequential, arguments: Arguments) -> Any:
    """Puts low-rank factors (B = 0 at the start) beside the backbone's linear and convolution layers, in place.

    Depthwise convolutions are left out, and other grouped ones unless ``r % groups == 0``. Returns peft's tuner, for
    `merge`. Errors: Unavailable without peft; NotApplicable when no layer takes factors.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise Unavailable("the policy lora needs the package peft; run pip install 'tlbench[lora]'") from None
    rank = int(arguments["r"])
    attention = [name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    targets = [
        name
        for name, module in model.named_modules()
        if not name.startswith(f"{HEAD}.")
        # Attention calls its output projection's weight directly, so it is adapted as a whole.
        and not any(name.startswith(f"{inside}.") for inside in attention)
        and (
            isinstance(module, nn.Linear | nn.MultiheadAttention)
            or (isinstance(module, nn.Conv2d) and rank % module.groups == 0 and not _is_depthwise(module))
        )
    ]
    if not targets:
        raise NotApplicable("lora: this backbone has no layer that takes low-rank factors")
    # One expression that must match a whole name: in a list, each entry would match every name that ends with it.
    exact = "|".join(map(re.escape, targets))
    config = LoraConfig(r=rank, lora_alpha=int(arguments["alpha"]), target_modules=exact, lora_dropout=0.0, bias="none")
    return LoraModel(model, {"default": config}, "default")


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels > 1


def merge(tuner: Any) -> nn.Sequential:
    """The plain model with the factors multiplied into its weights: same architecture, same cost at inference."""
    merged: nn.Sequential = tuner.merge_and_unload()
    return merged
