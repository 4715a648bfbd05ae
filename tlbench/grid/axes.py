"""The axes of a grid: how each field of `Cell` is written, and what can be chosen on it.

An axis is a field of `Cell` that takes several values. One table, `AXES`, serves the TOML grid, the command
line and the pytest options, so that an axis is added in one place. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbench.errors import UserError
from tlbench.grid.values import _number, _number_or, _text, split_values, whole

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
class Axis:
    """How one field of `Cell` is written by a person."""

    option: str
    """The option without dashes, which is also the key in a TOML grid."""
    help: str
    parse: Callable[[object], Any] = str
    label: Callable[[Any], str] = str
    """What an id shows where the grid has more than one value of this axis."""


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


_RECIPE = (
    "optimizer", "lr", "backbone_lr", "weight_decay", "schedule", "warmup", "label_smoothing", "augment", "bn_momentum",
    "fused",
)  # fmt: skip
_COLLAPSED = ("freeze", "epochs", "seed", "train_size", *_RECIPE)


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
