"""Backbones: names, what is known of them, and how to load one. torch is imported when one is loaded."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.errors import Unavailable, UserError, unknown
from tlbench.hashing import hash_tensors
from tlbench.seeds import seed_for

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import Backbone, InputSpec, Parts

WEIGHTS = ("auto", "pretrained", "random")
TIMM = "timm:"


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What is known of a backbone without building it (a row of the generated table.json)."""

    name: str
    family: str
    parameters: int
    """Of the original model, ImageNet head included."""
    features: int
    image_size: int
    stages: int
    """Stem included, neck not."""
    flops: int
    """Of the stages' forward pass for one image of that size."""
    top1: float | None
    """ImageNet accuracy of the default weights in percent, from their own metadata."""
    weights: tuple[str, ...]
    """Names of the weights; the default one first."""
    file: str
    """File name of the default weights in torch hub's cache, or the package that carries them."""


@cache
def _table() -> dict[str, BackboneInfo]:
    rows = json.loads((Path(__file__).parent / "table.json").read_text(encoding="utf-8"))
    return {row["name"]: BackboneInfo(**{**row, "weights": tuple(row["weights"])}) for row in rows}


class _Backbones(Mapping[str, BackboneInfo]):
    """The table, read when it is first needed."""

    def __getitem__(self, name: str) -> BackboneInfo:
        return _table()[name]

    def __iter__(self) -> Any:
        return iter(_table())

    def __len__(self) -> int:
        return len(_table())


BACKBONES: Mapping[str, BackboneInfo] = _Backbones()


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A backbone from outside the package."""

    build: Callable[[], nn.Module]
    """The whole model with random weights."""
    input: InputSpec
    parts: Callable[[Any], Parts] | None = None
    """Its stages; None looks the model's class up in `tlbench.backbones.torchvision.FAMILIES`."""
    url: str | None = None
    """Of a state dict; None: random weights or a checkpoint file only."""


CUSTOM: dict[str, Custom] = {}
"""Name -> a backbone of your own: ``CUSTOM["mynet"] = Custom(build=MyNet, input=InputSpec(…), parts=my_stages)``."""


def check_backbone(name: str) -> None:
    """Errors: UserError for an unknown backbone or weights tag, with the nearest match."""
    base, at, tag = name.partition("@")
    if at and (base in CUSTOM or base.startswith(TIMM)):
        how = "a dot: timm:resnet18.a1_in1k" if base.startswith(TIMM) else "--weights PATH"
        raise UserError(f"backbone {name!r}: only torchvision's weights are chosen by @TAG; choose these by {how}")
    if base in CUSTOM:
        return
    if base.startswith(TIMM):
        from tlbench.backbones import timm

        return timm.check(base)
    if base not in BACKBONES:
        raise unknown("backbone", base, [*BACKBONES, *CUSTOM])
    if at and tag not in BACKBONES[base].weights:
        raise unknown(f"weights tag of {base}", tag, BACKBONES[base].weights)


def check_weights(spec: str, backbones: Iterable[str] = ()) -> None:
    """Errors: UserError for weights that are neither one of `WEIGHTS` nor an existing checkpoint file."""
    if spec in WEIGHTS:
        return
    path = Path(spec)
    if not path.suffix and not path.exists():
        raise unknown("weights", spec, [*WEIGHTS, "PATH of a checkpoint"])
    if not path.is_file():
        raise UserError(f"checkpoint {spec!r} does not exist; give a .pth or .safetensors file, or one of {_choices()}")
    if path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        raise UserError(f"checkpoint {spec!r} has an unknown ending; use .pth, .pt, .bin or .safetensors")


def _choices() -> str:
    return ", ".join(WEIGHTS)


def list_backbones(pattern: str | None = None) -> list[dict[str, Any]]:
    """Rows for people, without torch; ``at_hand`` tells whether the default weights need no download.

    A pattern without wildcards is a part of the name; with some (``resnet*``) it is the whole name.
    """
    whole = pattern if pattern and set(pattern) & set("*?[") else f"*{pattern or ''}*"
    names = [name for name in BACKBONES if fnmatch.fnmatch(name, whole)]
    rows = []
    for info in (BACKBONES[name] for name in names):
        row = {f.name: getattr(info, f.name) for f in fields(info)}
        rows.append(
            {
                "backbone": info.name,
                **{key: row[key] for key in ("parameters", "features", "image_size", "stages", "top1")},
                "at_hand": at_hand(info),
            }
        )
    return rows


def at_hand(info: BackboneInfo) -> bool:
    """Whether the default weights are cached or installed. torch's own lookup of its folder, without torch."""
    if not info.file.endswith(".pth"):
        return importlib.util.find_spec(info.file.replace("-", "_")) is not None
    cache_home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache_home, "torch")))
    return Path(home, "hub", "checkpoints", info.file).is_file()


def load_backbone(name: str, weights: str = "auto", *, seed: int = 0) -> Backbone:
    """Builds a backbone, loads its weights, and only then re-expresses it as stages.

    Random weights depend on seed and name alone. Errors: UserError for a wrong name, tag or checkpoint;
    Unavailable when ``pretrained`` weights cannot be had.
    """
    check_backbone(name)
    check_weights(weights, [name])
    import torch

    from tlbench.backbones.base import Backbone, WeightsInfo

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "backbone-init", name.partition("@")[0]))
        loader = _load_timm if name.startswith(TIMM) else _load_staged
        stages, features, spec, groups, group_of, note, source, reason = loader(name, weights)
    info = WeightsInfo(
        requested=weights,
        source=source,
        pretrained=source != "random",
        sha256=hash_tensors(stages.state_dict().items()),
        reason=reason,
    )
    return Backbone(
        name=name,
        stages=stages,
        features=features,
        input=spec,
        weights=info,
        groups=groups,
        group_of=group_of,
        note=note,
    )


def original(name: str) -> tuple[nn.Module, Parts, InputSpec]:
    """The whole model with random weights, its parts (which share its modules) and its input."""
    base, _, tag = name.partition("@")
    from tlbench.backbones import lite, torchvision

    if base in CUSTOM:
        custom = CUSTOM[base]
        model = custom.build()
        return model, (custom.parts or torchvision.family_of(model))(model), custom.input
    if base in lite.MODELS:
        model = lite.build(base)
        return model, lite.stages(model), lite.input_spec(model)
    enum = torchvision.weights_of(base, tag or None)
    model = torchvision.build(base, enum)
    return model, torchvision.family_of(model)(model), torchvision.input_spec(model, enum)


def _pretrained(name: str, model: nn.Module, head: list[nn.Module]) -> str:
    """Loads the weights; returns their source. Errors: Unavailable."""
    base, _, tag = name.partition("@")
    from tlbench.backbones import lite, torchvision
    from tlbench.backbones.weights import cached_or_downloaded, load_into

    if base in lite.MODELS:
        return lite.load_pretrained(base, model)
    if base in CUSTOM:
        url, source = CUSTOM[base].url, CUSTOM[base].url
        if url is None:
            raise Unavailable(f"{base} has no pretrained weights; use --weights random or a checkpoint file")
    else:
        enum = torchvision.weights_of(base, tag or None)
        url, source = enum.url, enum.name
    load_into(model, cached_or_downloaded(url), f"the pretrained weights of {base}", head)
    return str(source)


def _load_staged(name: str, weights: str) -> Any:
    from tlbench.backbones.base import stages_of
    from tlbench.backbones.weights import load_into, read_state

    model, parts, spec = original(name)
    head = [module for _, module in parts.head]
    source, reason = "random", None
    if weights in ("auto", "pretrained"):
        try:
            source = _pretrained(name, model, head)
        except Unavailable as error:
            if weights == "pretrained":
                raise
            reason = str(error)
    elif weights != "random":
        state = read_state(Path(weights), f"checkpoint {weights!r} cannot be read")
        load_into(model, state, f"checkpoint {weights!r}", head)
        source = weights
    stages = stages_of(parts)
    group_of = {n: n.partition(".")[0] for n, _ in stages.named_parameters()}
    return stages, parts.features, spec, tuple(dict.fromkeys(group_of.values())), group_of, None, source, reason


def _load_timm(name: str, weights: str) -> Any:
    from tlbench.backbones import timm
    from tlbench.backbones.weights import load_into, read_state

    source, reason = "random", None
    model: Any = None
    if weights in ("auto", "pretrained"):
        try:
            model = timm.build(name, pretrained=True)
            source = timm.source(model)
        except Unavailable as error:
            if weights == "pretrained":
                raise
            reason = str(error)
    if model is None:
        model = timm.build(name, pretrained=False)
    if weights not in WEIGHTS:
        state = read_state(Path(weights), f"checkpoint {weights!r} cannot be read")
        load_into(model, state, f"checkpoint {weights!r}", timm.classifiers(model))
        source = weights
    spec = timm.input_spec(model)
    split = timm.split(model, spec)
    return split.stages, split.features, spec, split.groups, split.group_of, split.note, source, reason
