"""What is known of the backbones without building one: the generated table.json. torch is not needed for it."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tlbench.backbones.inputs import InputSpec


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """Says what is known of a backbone without building it (a row of the generated table.json)."""

    name: str
    family: str
    parameters: int
    """Parameters of the original model, ImageNet head included."""
    features: int
    image_size: int
    input: InputSpec
    """The images that the default weights were trained for."""
    stages: int
    """Number of stages, stem included, neck not."""
    flops: int
    """FLOPs of the stages' forward pass for one image of ``image_size`` px."""
    top1: float | None
    """ImageNet accuracy of the default weights in percent, from their own metadata."""
    weights: tuple[str, ...]
    """Names of the weights; the default one first."""
    file: str
    """File name of the default weights in torch hub's cache, or the package that carries them."""


@cache
def _table() -> dict[str, BackboneInfo]:
    rows = json.loads((Path(__file__).parent / "table.json").read_text(encoding="utf-8"))
    return {row["name"]: _info(row) for row in rows}


def _info(row: dict[str, Any]) -> BackboneInfo:
    given = {**row["input"], "mean": tuple(row["input"]["mean"]), "std": tuple(row["input"]["std"])}
    return BackboneInfo(**{**row, "weights": tuple(row["weights"]), "input": InputSpec(**given)})


class _Backbones(Mapping[str, BackboneInfo]):
    """Holds the table, which is read when it is first needed."""

    def __getitem__(self, name: str) -> BackboneInfo:
        return _table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_table())

    def __len__(self) -> int:
        return len(_table())


BACKBONES: Mapping[str, BackboneInfo] = _Backbones()


def at_hand(info: BackboneInfo) -> bool:
    """Tells whether the default weights are cached or installed: torch's own lookup of its folder, without torch."""
    if not info.file.endswith(".pth"):
        return importlib.util.find_spec(info.file.replace("-", "_")) is not None
    return (hub_folder() / info.file).is_file()


def hub_folder() -> Path:
    """Returns the folder where torch hub keeps weights, looked up as torch does it."""
    cache_home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache_home, "torch")))
    return Path(home, "hub", "checkpoints")


def row(name: str) -> dict[str, Any]:
    """Returns what a list shows of a backbone; ``at_hand`` tells whether the default weights need no download."""
    info = BACKBONES[name]
    shown = {key: getattr(info, key) for key in COLUMNS}
    return {"backbone": name, **shown, "at_hand": at_hand(info)}


COLUMNS = ("parameters", "features", "image_size", "stages", "top1")
