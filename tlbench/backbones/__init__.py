"""Backbones: names, what is known of them, and how to load one. torch is imported when one is loaded.

A name goes to its source (`sources`), which builds the original model (`torchvision`, `timm`, `lite`, `custom`) and
opens it up. Weights are loaded into the whole model (`weights`); only then is it cut into named stages (`base`).
`load_backbone` goes all this way.
"""

from __future__ import annotations

import fnmatch
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tlbench.backbones.checkpoint import WEIGHTS, check_weights, parse_checkpoint
from tlbench.backbones.custom import CUSTOM, Custom
from tlbench.backbones.known import BACKBONES, COLUMNS, BackboneInfo
from tlbench.backbones.sources import SOURCES, Source, names, source_of
from tlbench.errors import Unavailable
from tlbench.hashing import hash_tensors
from tlbench.seeds import seed_for

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import Anatomy, Backbone, InputSpec, Parts, Split, WeightsInfo

__all__ = [
    "BACKBONES",
    "CUSTOM",
    "SOURCES",
    "WEIGHTS",
    "BackboneInfo",
    "Custom",
    "Source",
    "check_backbone",
    "check_weights",
    "list_backbones",
    "load_backbone",
    "original",
    "parse_checkpoint",
    "shapes_of",
]


def check_backbone(name: str) -> None:
    """Raises UserError for an unknown backbone or weights tag, with the nearest match."""
    base, at, tag = name.partition("@")
    source_of(name).check(base, tag if at else None)


def list_backbones(pattern: str | None = None) -> list[dict[str, Any]]:
    """Returns a row for each backbone, without torch; None stands for what only building it would tell.

    A pattern without wildcards is a part of the name; with some (``resnet*``) it is the whole name.
    """
    whole = pattern if pattern and set(pattern) & set("*?[") else f"*{pattern or ''}*"
    rows = [source_of(name).row(name) for name in names() if fnmatch.fnmatch(name, whole)]
    return [{key: row.get(key) for key in ("backbone", *COLUMNS, "at_hand")} for row in rows]


def input_of(name: str) -> InputSpec:
    """Returns the images that a backbone's weights were trained for; only what is in no table is built to know it.

    Errors: UserError for a wrong name or tag.
    """
    check_backbone(name)
    if name in CUSTOM:
        return CUSTOM[name].input
    return BACKBONES[name].input if name in BACKBONES else load_backbone(name, "random").input


def load_backbone(name: str, weights: str = "auto", *, seed: int = 0) -> Backbone:
    """Builds a backbone, loads its weights, and only then re-expresses it as stages.

    Random weights depend on seed and name alone. Errors: UserError for a wrong name, tag or checkpoint;
    NotApplicable for a checkpoint of another model; Unavailable when ``pretrained`` weights cannot be had.
    """
    check_backbone(name)
    check_weights(weights)
    import torch

    from tlbench.backbones.base import WeightsInfo

    source = source_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "backbone-init", name.partition("@")[0]))
        taken = None
        model, origin, reason = _build(source, name, weights)
        opened = source.open_up(name, model)
        if weights not in WEIGHTS:
            from tlbench.backbones.weights import load_checkpoint

            taken, origin = load_checkpoint(model, weights, opened.head, name), weights
        split = opened.split()
    info = WeightsInfo(
        requested=weights,
        source=origin,
        pretrained=origin != "random",
        sha256=hash_tensors(split.stages.state_dict().items()),
        reason=reason,
        taken=taken.name if taken else None,
        averaged=taken.averaged if taken else None,
        notes=taken.notes if taken else (),
    )
    return _cut(name, opened, split, info)


def shapes_of(name: str) -> Backbone:
    """Returns a backbone for what depends on shapes alone: the values of its weights and their hash, which is empty,
    mean nothing. None are drawn for those of libraries, which takes a fraction of the time.

    Errors: UserError for a wrong name or tag; NotApplicable for what cannot be cut into stages.
    """
    check_backbone(name)
    import torch

    from tlbench.backbones.base import WeightsInfo
    from tlbench.backbones.undrawn import undrawn

    source = source_of(name)
    # A plugin's model may draw until it has what it wants, which it would never get.
    with torch.random.fork_rng(devices=[]), nullcontext() if name in CUSTOM else undrawn():
        model, origin = source.build(name, False)
        opened = source.open_up(name, model)
        split = opened.split()
    return _cut(name, opened, split, WeightsInfo(requested="random", source=origin, pretrained=False, sha256=""))


def _cut(name: str, opened: Anatomy, split: Split, weights: WeightsInfo) -> Backbone:
    from tlbench.backbones.base import Backbone

    return Backbone(
        name=name,
        stages=split.stages,
        features=split.features,
        input=opened.input,
        weights=weights,
        groups=split.groups,
        group_of=split.group_of,
        below_head=split.below_head,
        note=split.note,
    )


def _build(source: Source, name: str, weights: str) -> tuple[nn.Module, str, str | None]:
    """Returns the whole model, the source of its weights, and the reason why ``auto`` fell back to random ones."""
    reason = None
    if weights in ("auto", "pretrained"):
        try:
            return *source.build(name, True), None
        except Unavailable as error:
            if weights == "pretrained":
                raise
            reason = str(error)
    return *source.build(name, False), reason


def original(name: str) -> tuple[nn.Module, Parts, InputSpec]:
    """Returns the whole model with random weights, its parts (which share its modules) and its input."""
    source = source_of(name)
    model, _ = source.build(name, False)
    opened = source.open_up(name, model)
    assert opened.parts is not None, f"{name} is not cut by a list of its modules"
    return model, opened.parts, opened.input
