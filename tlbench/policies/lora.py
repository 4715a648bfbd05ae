"""Low-rank adaptation through peft. torch is imported when a model is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tlbench.errors import NotApplicable, Unavailable
from tlbench.policies.base import HEAD, Adapter, Arguments

if TYPE_CHECKING:
    from torch import nn


_BROKEN_PEFT = "the package peft is here, but cannot be imported; run pip install --upgrade peft transformers"


def inject_lora(model: nn.Sequential, arguments: Arguments, size: int) -> Any:
    """Puts low-rank factors (B = 0 at the start) beside the backbone's linear and convolution layers, in place.

    Left out are grouped convolutions, depthwise ones among them, whose factors peft cannot merge, and layers that
    are never called because the model computes with their weights itself, past any factors (Swin's attention).
    ``size`` is the images' side in pixels. Returns peft's tuner, for `merge`.

    Errors: Unavailable without peft; NotApplicable when no layer takes factors.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise Unavailable(f"the policy lora: {_BROKEN_PEFT} ({error})") from None
        raise Unavailable("the policy lora needs the package peft; run pip install 'tlbench[lora]'") from None
    except ImportError as error:  # an old one beside a new transformers, of which it imports what is gone
        raise Unavailable(f"the policy lora: {_BROKEN_PEFT} ({error})") from None
    from torch import nn

    from tlbench.backbones.layers import SelfAttention

    # peft's own way with attention adds the factors to the frozen weights and takes them off again in every pass,
    # which loses their last bits.
    attention: dict[nn.Module, nn.Module] = {
        module: SelfAttention(module)
        for module, (args, kwargs) in _calls(model, size).items()
        if SelfAttention.suits(module, args, kwargs)
    }
    _replace(model, attention)
    called = _calls(model, size)
    targets = [
        name
        for name, module in model.named_modules()
        if module in called
        and not name.startswith(f"{HEAD}.")
        and (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
    ]
    if not targets:
        raise NotApplicable("lora: this backbone has no layer that takes low-rank factors")
    config = LoraConfig(
        r=int(arguments["r"]),
        lora_alpha=int(arguments["alpha"]),
        # One expression that must match a whole name: in a list, each entry matches every name that ends with it.
        target_modules="|".join(map(re.escape, targets)),
        lora_dropout=0.0,
        bias="none",
    )
    return LoraModel(model, {"default": config}, "default")


def merge(tuner: Any) -> nn.Sequential:
    """Returns the plain model with the factors multiplied into its weights: same architecture, same cost at
    inference.
    """
    from tlbench.backbones.layers import SelfAttention

    merged: nn.Sequential = tuner.merge_and_unload()
    _replace(merged, {m: m.restore() for m in merged.modules() if isinstance(m, SelfAttention)})
    return merged


def _replace(model: nn.Module, by: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in by:
                setattr(parent, name, by[child])


def _calls(model: nn.Sequential, size: int) -> dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Returns the modules that a forward pass calls, and what it gives them."""
    import torch

    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = args, kwargs

    modes = [(module, module.training) for module in model.modules()]
    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module, _ in modes]
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
    return calls


ADAPTER = Adapter(inject=inject_lora, owns=lambda name: ".lora_" in name, merge=merge)
