"""One point of the grid. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbench.data.options import apart_by_text, shortened


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell is one point of the grid: everything that decides what is computed, and nothing about how it is timed."""

    task: str = "train"
    backbone: str = "resnet18"
    weights: str = "auto"
    freeze: str = "linear_probe"
    head: str = "linear"
    dataset: str = "digits"
    device: str = "cpu"
    seed: int = 0
    precision: str = "fp32"
    epochs: int = 5
    batch_size: int = 32
    image_size: int | None = None
    """Pixels a side; None takes the size the backbone's weights were trained for."""
    train_size: int | None = None
    """At most this many training images (stratified, by seed); None takes all."""
    optimizer: str = "auto"
    lr: float | str | None = None
    """Learning rate of the head. None: the optimizer's default; ``auto``: this and the backbone's are the best of a few
    on validation images (`tlbench.grid.rates`)."""
    backbone_lr: float | None = None
    """Learning rate of the backbone. None: a tenth of the head's."""
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: float | None = None
    """Share of the steps over which the rate rises from 0; None: the policy's default."""
    label_smoothing: float = 0.0
    class_weights: str = "none"
    """Weight of an image's loss by its class: ``none``, or ``balanced``, by the inverse of how often the class is."""
    sampler: str = "shuffle"
    """Which images an epoch takes: ``shuffle``, each once; ``balanced``, drawn so that all classes come as often."""
    augment: str = "none"
    bn_momentum: float | str = "auto"
    """Momentum of the BatchNorm layers that adapt. ``auto``: min(0.1, 10 / steps an epoch), as in Kornblith 2019;
    ``keep``: each layer's own. With one of 0.01, a short run would be evaluated with statistics that have hardly moved.
    """
    layout: str = "auto"
    compile: str = "off"
    fused: str = "auto"
    fold: str | None = None
    """Of a cross-validation: ``1of5`` is tested on the first of five parts of all images and trained on the others;
    None is the data set's own split."""
    split_seed: int | None = None
    """Seed of splits, folds and training subsets; None: that of the cell."""
    relabel: str | None = None
    """CSV file of corrected labels (`tlbench.data.relabel`); None: labels as the data set has them."""
    decode: str = "exact"
    """How large photographs are decoded (`tlbench.grid.choices.DECODE`): it decides their pixels."""
    patience: int | None = None
    """Epochs without a better score on the validation images after which training stops, the best epoch being kept
    (`tlbench.train.stopping`); None: all epochs are run, and the last one is kept."""

    @property
    def id(self) -> str:
        """Returns the readable name (``resnet18-linear_probe-linear-digits-cpu-s0``); `key` is the exact one."""
        policy = [self.freeze] if self.task == "train" else []
        return "-".join(
            [short_name(self.backbone), *policy, self.head, short_name(self.dataset), self.device, f"s{self.seed}"]
        )

    @property
    def said(self) -> dict[str, Any]:
        """Returns the fields by name, but those of `SINCE` at their defaults."""
        fields = {**vars(self)}
        for name, default in SINCE.items():
            if fields[name] == default:
                del fields[name]
        return fields

    @property
    def key(self) -> str:
        """Returns 16 hexadecimal digits of the SHA-256 of all fields, but those of `SINCE` at their defaults: equal
        exactly when the cells are equal.
        """
        return hashlib.sha256(_ENCODER.encode(self.said).encode()).hexdigest()[:16]


SINCE: dict[str, object] = {
    "fold": None,
    "split_seed": None,
    "relabel": None,
    "class_weights": "none",
    "sampler": "shuffle",
    "decode": "exact",
    "patience": None,
}
"""Fields that cells of 0.1.0 did not have -> their defaults, at which a cell is the same as one of 0.1.0."""
_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)


def at_seed(cell: Cell, seed: int) -> Cell:
    """Returns a cell with another seed: what `dataclasses.replace` does, in a tenth of the time."""
    made = object.__new__(Cell)
    object.__setattr__(made, "__dict__", {**vars(cell), "seed": seed})
    return made


def _last_part(path: str) -> str:
    """Returns the name of what a path leads to. All of it is resolved only where its own end does not say: 50,000 cells
    of a folder have names.
    """
    name = os.path.basename(path.rstrip(os.sep))
    return Path(path).resolve().name if name in ("", ".", "..") or os.path.islink(path.rstrip(os.sep)) else name


def short_name(value: str) -> str:
    """Shortens a path to its last part, with its options; node ids of pytest must not contain ``::`` or brackets."""
    kind, sep, rest = value.partition(":")
    if kind in ("folder", "list") and rest:
        plain, options = apart_by_text(rest)
        several = plain.split("+") if kind == "list" else [plain]
        rest = "+".join(map(_last_part, several)) + shortened(options)
    return re.sub(r"[^\w.+@()=,:-]", "_", kind + sep + rest).replace("::", ":")
