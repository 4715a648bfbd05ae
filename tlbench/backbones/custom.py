"""Backbones from outside the package, each a row of `CUSTOM`. torch is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbench.errors import Unavailable

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import Anatomy, InputSpec, Parts


@dataclass(frozen=True, kw_only=True)
class Custom:
    """Describes a backbone from outside the package."""

    build: Callable[[], nn.Module]
    """The whole model with random weights."""
    input: InputSpec
    parts: Callable[[Any], Parts] | None = None
    """Its stages; None looks the model's class up in `tlbench.backbones.torchvision.FAMILIES`."""
    url: str | None = None
    """Address of a state dict; None: random weights or a checkpoint file only."""


CUSTOM: dict[str, Custom] = {}
"""Name -> a backbone of your own: ``CUSTOM["mynet"] = Custom(build=MyNet, input=InputSpec(…), parts=my_stages)``."""


def build(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    """Returns the whole model, and the source of its weights. Errors: Unavailable without the pretrained ones."""
    custom = CUSTOM[name]
    if not pretrained:
        return custom.build(), "random"
    if custom.url is None:
        raise Unavailable(f"{name} has no pretrained weights; use --weights random or a checkpoint file")
    from tlbench.backbones import weights

    state = weights.cached_or_downloaded(custom.url)
    model = custom.build()
    weights.load_into(model, state, f"the pretrained weights of {name}", open_up(name, model).head)
    return model, custom.url


def open_up(name: str, model: nn.Module) -> Anatomy:
    """Opens a model up by the row's own `parts`, or else by what is known of the model's class."""
    from tlbench.backbones.base import anatomy

    parts = CUSTOM[name].parts
    if parts is None:
        from tlbench.machine.lean import importing

        with importing():
            from tlbench.backbones import torchvision
        parts = torchvision.family_of(model)
    return anatomy(parts(model), CUSTOM[name].input)


def row(name: str) -> dict[str, Any]:
    """Returns what a list shows of a backbone: the rest would need it to be built."""
    return {"backbone": name, "image_size": CUSTOM[name].input.size}
