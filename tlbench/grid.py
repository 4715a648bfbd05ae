"""A grid of axes, and the cells it expands to.

An axis is a field of `Cell` that takes several values. One table, `AXES`, serves the TOML grid, the command
line and the pytest options, so that an axis is added in one place. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tlbench.errors import UserError, lookup, unknown
from tlbench.policies import fixed_weights

TASKS = {
    "train": "train on the data set, one round an epoch; accuracy at the end",
    "infer": "throughput in batches and latency at batch size 1",
}
PRECISIONS = {
    "fp32": "32-bit floating point everywhere",
    "tf32": "fp32, matrix products and convolutions rounded to TF32 on CUDA",
    "bf16": "autocast to bfloat16; weights stay fp32",
    "fp16": "autocast to float16 with a scaled loss; weights stay fp32",
}
LAYOUTS = {
    "auto": "the faster one, measured once per backbone and machine",
    "contiguous": "torch's default, NCHW",
    "channels_last": "NHWC in memory",
}
COMPILE = {"off": "eager", "on": "torch.compile; the warm-up, which is not timed, compiles"}
FUSED = {
    "auto": "one kernel for the optimizer's step where the device has it",
    "on": "one kernel for the optimizer's step",
    "off": "torch's default step",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid: everything that decides what is computed, and nothing about how it is timed."""

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
    """Of the head. None: the optimizer's default; ``auto``: the best of a short grid on validation data."""
    backbone_lr: float | None = None
    """None: a tenth of the head's."""
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: float | None = None
    """Share of the steps over which the rate rises from 0; None: the policy's default."""
    label_smoothing: float = 0.0
    augment: str = "none"
    bn_momentum: float | str = "auto"
    """Of the BatchNorm layers that adapt. ``auto``: min(0.1, 10 / steps an epoch), as in Kornblith 2019; ``keep``:
    each layer's own. A backbone trained with 0.01 would evaluate a short run with statistics that have hardly moved."""
    layout: str = "auto"
    compile: str = "off"
    fused: str = "auto"

    @property
    def id(self) -> str:
        """The readable name (``resnet18-linear_probe-linear-digits-cpu-s0``); `key` is the exact one."""
        policy = [self.freeze] if self.task == "train" else []
        return "-".join([_short(self.backbone), *policy, self.head, _short(self.dataset), self.device, f"s{self.seed}"])

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all fields: equal exactly when the cells are equal."""
        text = json.dumps(vars(self), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _short(value: str) -> str:
    """A path shortened to its last part; node ids of pytest must not contain ``::`` or brackets."""
    kind, sep, rest = value.partition(":")
    name = Path(rest).resolve().name if kind == "folder" and rest else rest
    return re.sub(r"[^\w.+@()=,:-]", "_", kind + sep + name).replace("::", ":")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How one field of `Cell` is written by a person."""

    option: str
    """The option without dashes, which is also the key in a TOML grid."""
    help: str
    parse: Callable[[object], Any] = str
    label: Callable[[Any], str] = str
    """What an id shows where the grid has more than one value of this axis."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a name")
    return value.strip()


def whole(least: int) -> Callable[[object], int]:
    """Reads a whole number; the reader raises ValueError saying what it expects."""
    expected = f"a whole number of at least {least}"

    def parse(value: object) -> int:
        try:
            number = value if isinstance(value, int) else int(str(value))
        except ValueError:
            raise ValueError(expected) from None
        if isinstance(value, bool) or number < least or number > 2**31:
            raise ValueError(expected)
        return number

    return parse


def _number(least: float, most: float) -> Callable[[object], float]:
    expected = f"a number from {least:g} to {most:g}"

    def parse(value: object) -> float:
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except ValueError:
            number = math.nan
        if isinstance(value, bool) or not least <= number <= most:
            raise ValueError(expected)
        return number

    return parse


def size(value: object) -> int:
    """Bytes of ``50MB``, ``2 GB``, ``1.5GiB`` or a plain number. Errors: ValueError saying what is expected."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*", str(value), re.ASCII)
    if found is None or found[2].upper() not in units:
        raise ValueError("a size such as 50MB, 2GB or 1.5GiB")
    return int(float(found[1]) * units[found[2].upper()])


def _number_or(least: float, most: float, *words: str) -> Callable[[object], float | str]:
    number = _number(least, most)

    def parse(value: object) -> float | str:
        if isinstance(value, str) and value in words:
            return value
        try:
            return number(value)
        except ValueError as expected:
            raise ValueError(f"{expected}, or {' or '.join(words)}") from None

    return parse


AXES: dict[str, Axis] = {
    "task": Axis(option="task", help="train, infer", parse=_text),
    "backbone": Axis(option="backbone", help="see `tlbench list backbones`", parse=_text),
    "weights": Axis(
        option="weights",
        help="auto, pretrained, random, or a checkpoint file",
        parse=_text,
        label=lambda value: re.sub(r"\W", "_", Path(value).stem),
    ),
    "freeze": Axis(option="freeze", help="freeze policy; see `tlbench list policies`", parse=_text),
    "head": Axis(option="head", help="see `tlbench list heads`", parse=_text),
    "dataset": Axis(option="dataset", help="digits, synthetic, or folder:PATH", parse=_text),
    "device": Axis(option="device", help="cpu, cuda, or available (CPU, and CUDA if there)", parse=_text),
    "seed": Axis(option="seeds", help="whole numbers; a cell runs once for each", parse=whole(0)),
    "epochs": Axis(option="epochs", help="epochs of training", parse=whole(1), label="e{}".format),
    "batch_size": Axis(option="batch-size", help="images in a batch", parse=whole(1), label="b{}".format),
    "image_size": Axis(
        option="image-size",
        help="pixels a side (default: the size the weights were trained for)",
        parse=whole(8),
        label="{}px".format,
    ),
    "train_size": Axis(
        option="train-size",
        help="use at most this many training images (default: all)",
        parse=whole(2),
        label="n{}".format,
    ),
    "optimizer": Axis(option="optimizer", help="adamw, sgd, or auto (the policy's default)", parse=_text),
    "lr": Axis(
        option="lr",
        help="learning rate of the head; auto picks one on validation data",
        parse=_number_or(0, 1000, "auto"),
        label="lr{}".format,
    ),
    "backbone_lr": Axis(
        option="backbone-lr",
        help="learning rate of the backbone (default: a tenth of the head's)",
        parse=_number(0, 1000),
        label="blr{}".format,
    ),
    "weight_decay": Axis(
        option="weight-decay", help="default: the optimizer's", parse=_number(0, 100), label="wd{}".format
    ),
    "schedule": Axis(option="schedule", help="of the learning rate: cosine, constant", parse=_text),
    "warmup": Axis(
        option="warmup",
        help="share of the steps of linear warm-up (default: the policy's, mostly 0.1)",
        parse=_number(0, 1),
        label="wu{}".format,
    ),
    "label_smoothing": Axis(option="label-smoothing", help="0 to 1", parse=_number(0, 1), label="ls{}".format),
    "augment": Axis(option="augment", help="none, flip, randaugment; on tensors", parse=_text),
    "bn_momentum": Axis(
        option="bn-momentum",
        help="of BatchNorm layers that adapt: auto, keep (each layer's own), or a number",
        parse=_number_or(0, 1, "auto", "keep"),
        label="bnm{}".format,
    ),
    "precision": Axis(option="precision", help="fp32, tf32, bf16, fp16", parse=_text),
    "layout": Axis(option="layout", help="memory layout: auto (measured), contiguous, channels_last", parse=_text),
    "compile": Axis(option="compile", help="torch.compile: off, on", parse=_text, label="compile_{}".format),
    "fused": Axis(option="fused", help="fused optimizer: auto, on, off", parse=_text, label="fused_{}".format),
}
_IN_ID = ("backbone", "freeze", "head", "dataset", "device", "seed", "task")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Values for each axis; `expand` makes the cells."""

    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        defaults = {f.name: (f.default,) for f in fields(Cell) if f.name in AXES}
        for name, values in self.axes.items():
            lookup(AXES, "axis", name)
            if not values:
                raise UserError(f"axis '{AXES[name].option}' has no value; give at least one or leave it out")
            for value in values:
                if values.count(value) > 1:
                    raise UserError(
                        f"axis '{AXES[name].option}' has the value {str(value)!r} twice; give each value once"
                    )
        object.__setattr__(self, "axes", {**defaults, **self.axes})

    @classmethod
    def of(cls, cell: Cell) -> Grid:
        """The grid of one cell."""
        # Inference has no freeze policy, and "none" is the name of no other.
        axes = {name: (getattr(cell, name),) for name in AXES if cell.task == "train" or name != "freeze"}
        return cls(axes=axes)

    def with_axes(self, given: Mapping[str, tuple[Any, ...]]) -> Grid:
        """This grid with some axes replaced."""
        return Grid(axes={**self.axes, **given})

    def expand(self) -> list[Cell]:
        """Every cell, once. Inference does not depend on the freeze policy, on how long one trains or on the
        seed, so those axes collapse there: one cell for each backbone, head, data set, device, …. A policy that is
        defined for one kind of weights (`scratch`: random) collapses the axis of weights.
        """
        names = list(self.axes)
        collapsed = {**{name: self.axes[name][0] for name in _COLLAPSED}, "freeze": "none", "epochs": 1}
        cells: dict[Cell, None] = {}
        for values in itertools.product(*self.axes.values()):
            cell = Cell(**dict(zip(names, values, strict=True)))
            if cell.task == "infer":
                cell = replace(cell, **collapsed)
            elif weights := fixed_weights(cell.freeze):
                cell = replace(cell, weights=weights)
            cells[cell] = None
        return list(cells)

    def id_of(self, cell: Cell) -> str:
        """`Cell.id`, followed by the axes of this grid that have several values and are not in it already."""
        extra = [
            AXES[name].label(getattr(cell, name))
            for name, values in self.axes.items()
            if len(values) > 1 and name not in _IN_ID and not (cell.task == "infer" and name in _COLLAPSED)
        ]
        return "-".join([cell.id, *extra])


_RECIPE = (
    "optimizer", "lr", "backbone_lr", "weight_decay", "schedule", "warmup", "label_smoothing", "augment", "bn_momentum",
    "fused",
)  # fmt: skip
_COLLAPSED = ("freeze", "epochs", "seed", "train_size", *_RECIPE)


def split_values(text: str) -> list[str]:
    """Comma-separated values; a comma inside parentheses belongs to the value.

    >>> split_values("full, lora(r=8,alpha=16)")
    ['full', 'lora(r=8,alpha=16)']
    """
    parts, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]]]


def parse_axis(name: str, given: object) -> tuple[Any, ...]:
    """The values of one axis, from a comma-separated text, a single value or a list.

    Errors: UserError naming the value and what was expected.
    """
    axis = AXES[name]
    values: Iterable[object]
    if isinstance(given, str):
        values = split_values(given)
    elif isinstance(given, list | tuple):
        values = given
    else:
        values = [given]
    parsed = []
    for value in values:
        try:
            parsed.append(axis.parse(value))
        except ValueError as expected:
            raise UserError(f"axis '{axis.option}': {value!r} is not {expected} ({axis.help})") from None
    return tuple(parsed)


def load_grid(path: str | Path) -> Grid:
    """The grid of a TOML file: keys are the options of `AXES`, values a value or a list of values.

    Errors: UserError for a missing or unreadable file, bad TOML, an unknown key, a value of the wrong type.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"grid file {str(path)!r} does not exist; see bench/grids/ for examples") from None
    except OSError as error:
        raise UserError(f"grid file {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"grid file {str(path)!r} is not TOML: {error}") from None
    by_option = {axis.option.replace("-", "_"): name for name, axis in AXES.items()}
    axes = {}
    for key, value in table.items():
        name = by_option.get(key.replace("-", "_"))
        if name is None:
            raise unknown(f"key in {path.name}", key, by_option)
        try:
            axes[name] = parse_axis(name, value)
        except UserError as error:
            raise UserError(f"{path.name}: {error}") from None
    try:
        return Grid(axes=axes)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
