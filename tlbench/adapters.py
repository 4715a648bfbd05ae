"""Low-rank adaptation through peft."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from tlbench.errors import NotApplicable, Unavailable
from tlbench.policies import HEAD, Arguments


def inject_lora(model: nn.Sequential, arguments: Arguments, size: int) -> Any:
    """Puts low-rank factors (B = 0 at the start) beside the backbone's linear and convolution layers, in place.

    Left out are depthwise convolutions, other grouped ones unless ``r % groups == 0``, and layers that are never
    called because the model computes with their weights itself, past any factors (Swin's attention). ``size`` is
    the images' side in pixels. Returns peft's tuner, for `merge`.

    Errors: Unavailable without peft; NotApplicable when no layer takes factors.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise Unavailable("the policy lora needs the package peft; run pip install 'tlbench[lora]'") from None
    rank = int(arguments["r"])
    attention = [name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    called = _called(model, size)
    targets = [
        name
        for name, module in model.named_modules()
        if module in called
        and not name.startswith(f"{HEAD}.")
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


def _called(model: nn.Sequential, size: int) -> set[nn.Module]:
    """The modules that a forward pass calls."""
    called: set[nn.Module] = set()
    modes = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_pre_hook(lambda module, _: called.add(module)) for module, _ in modes]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it would compute whole encoder layers at once
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return called


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels > 1


def merge(tuner: Any) -> nn.Sequential:
    """The plain model with the factors multiplied into its weights: same architecture, same cost at inference."""
    merged: nn.Sequential = tuner.merge_and_unload()
    return merged
