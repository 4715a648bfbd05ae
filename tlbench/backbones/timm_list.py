"""What a list shows of timm's models: names, parameters, image size, and whether the weights are on this disk.

Nothing is downloaded, and no model is built for it but one that timm_parameters.json does not know, which is generated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tlbench.backbones.sources import TIMM

PARAMETERS = Path(__file__).parent / "timm_parameters.json"
"""Architecture -> parameters of the whole model with the head that timm gives it, as of one version of timm."""
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What timm's weights are called in a repository of the Hugging Face hub, unless its configuration says otherwise."""


def rows(pattern: str) -> list[dict[str, Any]]:
    """Returns a row for each model whose name matches, with or without wildcards; a pattern with a dot is one of names
    with the tag of their weights, such as ``resnet18.*``. None stands for what is not known.
    """
    import timm

    pattern = pattern.removeprefix(TIMM)
    whole = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    tagged = "." in pattern
    return [_row(name) for name in timm.list_models(whole, pretrained=tagged, include_tags=tagged)]


def _row(name: str) -> dict[str, Any]:
    import timm

    config = timm.get_pretrained_cfg(name)
    return {
        "backbone": f"{TIMM}{name}",
        "parameters": _parameters(name.partition(".")[0]),
        "image_size": None if config is None else int(config.input_size[-1]),
        "weights": None if config is None or not config.has_weights else config.tag or "untagged",
        "at_hand": config is not None and at_hand(config),
    }


@cache
def known() -> Mapping[str, int]:
    """Returns the parameters of each architecture of timm's that was there when the file was generated."""
    parameters: dict[str, int] = json.loads(PARAMETERS.read_text(encoding="utf-8"))["parameters"]
    return parameters


def _parameters(architecture: str) -> int:
    return known()[architecture] if architecture in known() else count(architecture)


def count(architecture: str) -> int:
    """Returns the parameters of a model that is built without memory for them and without filling them, where that can
    be done.
    """
    import timm
    import torch

    try:
        with torch.device("meta"), _unfilled():
            model = timm.create_model(architecture, pretrained=False)
    except RuntimeError:  # some ask for values while they are built, which the meta device has none of
        model = timm.create_model(architecture, pretrained=False)
    return sum(parameter.numel() for parameter in model.parameters())


FILLING = frozenset({"normal_", "uniform_", "trunc_normal_", "fill_", "zero_", "mul_", "add_", "clamp_", "erfinv_"})


@contextmanager
def _unfilled() -> Iterator[None]:
    """Lets tensors of the meta device, which hold nothing, go unfilled: that is what most of the time went into."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            filling = getattr(func, "__name__", "") in FILLING
            if filling and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
                return args[0]
            return func(*args, **(kwargs or {}))

    with Unfilled():
        yield


def at_hand(config: Any) -> bool:
    """Tells whether the weights that timm would load are in the Hugging Face cache, or in torch hub's for those that
    are not on the hub. ``config`` is timm's configuration of them.
    """
    if not config.has_weights:
        return False
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = repository_of(config).partition("@")
        files = [config.hf_hub_filename] if config.hf_hub_filename else FILES
        found = (try_to_load_from_cache(repository, file, revision=revision or None) for file in files)
        return any(isinstance(path, str) for path in found)
    if config.file:
        return Path(config.file).is_file()
    if config.url:
        from tlbench.backbones.weights import hub_folder

        return (hub_folder() / Path(urlparse(str(config.url)).path).name).is_file()
    return False


def repository_of(config: Any) -> str:
    """Returns the repository of a model's weights on the hub: ``timm/resnet18.a1_in1k``."""
    repository = config.hf_hub_id or "timm/"
    # "timm/" stands for a repository of the model's own name, tag included.
    return f"{repository}{config.architecture}.{config.tag}" if repository.endswith("/") else str(repository)
