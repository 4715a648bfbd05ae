"""The axes of a grid: how each field of `Cell` is written, and what can be chosen on it.

An axis is a field of `Cell` that takes several values. One table, `AXES`, serves the TOML grid, the command line, the
pytest options, the check before a run, the ids and all that tells cells apart afterwards, so that an axis is added in
one place. Nothing here imports torch. One file, since all axes are one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbench.backbones.checkpoint import parse_checkpoint
from tlbench.data.named import canonical
from tlbench.errors import UserError, lookup
from tlbench.grid.choices import (
    AUGMENTATIONS,
    CLASS_WEIGHTS,
    COMPILE,
    DECODE,
    FUSED,
    LAYOUTS,
    OPTIMIZERS,
    PRECISIONS,
    SAMPLERS,
    SCHEDULES,
    TASKS,
)
from tlbench.grid.folding import fold_label, folds_of, parse_fold, spread_folds
from tlbench.grid.rates import TRIALS
from tlbench.grid.values import ALL, OFF, number, number_or, or_none, quoted, split_values, spread, text, whole
from tlbench.heads import HEADS


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Says how one field of `Cell` is written by a person, and what depends on it."""

    option: str
    """The option without dashes, which is also the key in a TOML grid."""
    help: str
    parse: Callable[[object], Any] = str
    spread: Callable[[object], Iterable[object]] | None = None
    """Takes one value as it is written for several; None where each is one."""
    label: Callable[[Any], str] = str
    """What an id shows where the grid has more than one value of this axis."""
    choices: Mapping[str, object] | None = None
    """The table that a value is a name of, where it can be nothing else."""
    kind: str = ""
    """What an error calls a value that is not in the table; the option where this is left out."""
    in_id: bool = False
    """Every id tells it (the task by the name of the test), so that it need not be added where it varies."""
    training_only: bool = False
    """Inference does not depend on it."""
    of_images: bool = False
    """Suits the images it was chosen for: what a grid's file says of it holds for the data set that the file names."""
    alike: Callable[[Any], Any] | None = None
    """Takes of a value what cells are told apart by: of a fold, how many there are, since all are pooled; of a file,
    its name. None: the value itself."""
    none: str = ""
    """How None is written where a person may choose it beside other values; empty where it is a default alone."""

    def written(self, value: Any) -> Any:
        """Returns a value as `parse` reads it: None by its name."""
        return self.none if value is None and self.none else value

    def check(self, value: Any) -> None:
        """Raises UserError with the choices and the nearest of them where a value is none of the axis's."""
        if self.choices is not None:
            lookup(self.choices, self.kind or self.option, value)


def weights_label(value: str) -> str:
    """Writes weights for an id: a checkpoint's name without its ending, and the key that chooses in it."""
    checkpoint = parse_checkpoint(value)
    name = Path(checkpoint.path).stem + (f"_{checkpoint.key}" if checkpoint.key else "")
    return re.sub(r"\W", "_", name)


LARGEST_IMAGE = 8192
"""Pixels a side; with the border that is cut off, an image is then still one that is decoded."""
MOST_EPOCHS = 1_000_000


def compile_mode(value: object) -> str:
    """Reads a choice for --compile; torch's own name of the first mode is taken, too."""
    return "on" if text(value) == "default" else text(value)


def relabelling(value: object) -> str | None:
    """Reads the path of a file of corrections; None for ``none``."""
    return None if text(value) == "none" else text(value)


def name_of(path: str | None) -> str | None:
    """Returns the name of a file, without its folder."""
    return None if path is None else Path(path).name


def relabel_label(value: str | None) -> str:
    """Writes a file of corrections for an id: its name without its ending."""
    return "as-labelled" if value is None else re.sub(r"\W", "_", Path(value).stem)


def dataset(value: object) -> str:
    """Reads a data set; timm's way to write those of torchvision and of Hugging Face becomes ours."""
    return canonical(text(value))


AXES: dict[str, Axis] = {
    "task": Axis(option="task", help="train, infer", parse=text, in_id=True, choices=TASKS),
    "backbone": Axis(option="backbone", help="see `tlbench list backbones`", parse=text, in_id=True),
    "weights": Axis(
        option="weights",
        help="auto, pretrained, random, or a checkpoint file (a comma in its name as \\,); FILE?key=NAME takes one of "
        "several weights in it, such as state_dict_ema",
        parse=text,
        label=weights_label,
    ),
    "freeze": Axis(
        option="freeze", help="freeze policy; see `tlbench list policies`", parse=text, in_id=True, training_only=True
    ),
    "head": Axis(option="head", help="see `tlbench list heads`", parse=text, in_id=True, choices=HEADS),
    "dataset": Axis(
        option="dataset",
        help="folder:PATH, list:PATH (a comma in it as \\,), torchvision:NAME, hf:NAME, digits, synthetic",
        parse=dataset,
        in_id=True,
    ),
    "device": Axis(option="device", help="cpu, cuda, or available (CPU, and CUDA if there)", parse=text, in_id=True),
    "seed": Axis(
        option="seeds",
        help="whole numbers, or ranges such as 0-4; a cell runs once for each",
        parse=whole(0),
        spread=spread,
        in_id=True,
        training_only=True,
    ),
    "epochs": Axis(
        option="epochs",
        help="epochs of training",
        parse=whole(1, MOST_EPOCHS),
        label="e{}".format,
        training_only=True,
        of_images=True,
    ),
    "batch_size": Axis(option="batch-size", help="images in a batch", parse=whole(1), label="b{}".format),
    "image_size": Axis(
        option="image-size",
        help="pixels a side (default: the size the weights were trained for)",
        parse=whole(8, LARGEST_IMAGE),
        label="{}px".format,
        of_images=True,
    ),
    "train_size": Axis(
        option="train-size",
        help="use at most this many training images, or all (default)",
        parse=or_none(whole(2), ALL),
        label=lambda size: "nall" if size is None else f"n{size}",
        none=ALL,
        training_only=True,
        of_images=True,
    ),
    "optimizer": Axis(
        option="optimizer",
        help="adamw, sgd, or auto (the policy's default)",
        parse=text,
        training_only=True,
        choices={"auto": "the policy's default", **OPTIMIZERS},
    ),
    "lr": Axis(
        option="lr",
        help=f"learning rate of the head; auto chooses it and the backbone's on validation data, in {TRIALS} trials",
        parse=number_or(number(0, 1000, above=True), "auto"),
        label="lr{}".format,
        training_only=True,
    ),
    "backbone_lr": Axis(
        option="backbone-lr",
        help="learning rate of the backbone (default: a tenth of the head's)",
        parse=number(0, 1000, above=True),
        label="blr{}".format,
        training_only=True,
    ),
    "weight_decay": Axis(
        option="weight-decay",
        help="default: the optimizer's",
        parse=number(0, 100),
        label="wd{}".format,
        training_only=True,
    ),
    "schedule": Axis(
        option="schedule",
        help="of the learning rate: cosine, constant",
        parse=text,
        training_only=True,
        choices=SCHEDULES,
    ),
    "warmup": Axis(
        option="warmup",
        help="share of the steps of linear warm-up (default: the policy's, mostly 0.1)",
        parse=number(0, 1),
        label="wu{}".format,
        training_only=True,
    ),
    "patience": Axis(
        option="patience",
        help="stop after so many epochs without a better validation accuracy, and keep the best one; off (default)",
        parse=or_none(whole(1, MOST_EPOCHS), OFF),
        label=lambda epochs: "no-patience" if epochs is None else f"patience{epochs}",
        none=OFF,
        training_only=True,
        of_images=True,
    ),
    "label_smoothing": Axis(
        option="label-smoothing", help="0 to 1", parse=number(0, 1), label="ls{}".format, training_only=True
    ),
    "class_weights": Axis(
        option="class-weights",
        help="of the loss: none, or balanced (n / (k * count of the class), for uneven classes)",
        parse=text,
        label="cw_{}".format,
        training_only=True,
        choices=CLASS_WEIGHTS,
        kind="choice for --class-weights",
    ),
    "sampler": Axis(
        option="sampler",
        help="shuffle (each image once an epoch), or balanced (drawn so that all classes come as often)",
        parse=text,
        label="sampler_{}".format,
        training_only=True,
        choices=SAMPLERS,
        kind="choice for --sampler",
    ),
    "augment": Axis(
        option="augment",
        help="none, flip, randaugment; on tensors",
        parse=text,
        training_only=True,
        choices=AUGMENTATIONS,
        kind="augmentation",
    ),
    "bn_momentum": Axis(
        option="bn-momentum",
        help="of BatchNorm layers that adapt: auto, keep (each layer's own), or a number",
        parse=number_or(number(0, 1), "auto", "keep"),
        label="bnm{}".format,
        training_only=True,
    ),
    "precision": Axis(option="precision", help="fp32, tf32, bf16, fp16, bf16_weights", parse=text, choices=PRECISIONS),
    "layout": Axis(
        option="layout", help="memory layout: auto (measured), contiguous, channels_last", parse=text, choices=LAYOUTS
    ),
    "compile": Axis(
        option="compile",
        help="torch.compile: off, on (its mode default), reduce-overhead, max-autotune; cuda-graph captures the steps "
        "of a head on stored activations",
        parse=compile_mode,
        label="compile_{}".format,
        choices=COMPILE,
        kind="choice for --compile",
    ),
    "fused": Axis(
        option="fused",
        help="fused optimizer: auto, on, off",
        parse=text,
        label="fused_{}".format,
        training_only=True,
        choices=FUSED,
        kind="choice for --fused",
    ),
    "fold": Axis(
        option="folds",
        help="cross-validation: 5 tests every image once, by a model that has not seen it; off; auto (default) takes 5 "
        "where one split of your images leaves fewer than 100 to test on",
        parse=parse_fold,
        spread=spread_folds,
        label=fold_label,
        training_only=True,
        of_images=True,
        alike=folds_of,
    ),
    "split_seed": Axis(
        option="split-seed",
        help="seed of splits and folds alone (default: that of --seeds, so that each seed has its own)",
        parse=whole(0),
        spread=spread,
        label="split{}".format,
        training_only=True,
    ),
    "relabel": Axis(
        option="relabel",
        help="CSV file with columns file and class that corrects labels, or none (see `tlbench suspects`)",
        parse=relabelling,
        label=relabel_label,
        training_only=True,
        of_images=True,
        alike=name_of,
    ),
    "decode": Axis(
        option="decode",
        help="large photographs: exact (default), scaled (JPEGs at a fraction of their size, much faster), auto",
        parse=text,
        label="decode_{}".format,
        choices=DECODE,
        kind="choice for --decode",
        of_images=True,
    ),
}
TRAINING_ONLY = tuple(name for name, axis in AXES.items() if axis.training_only)
"""Axes that inference does not depend on."""


DECIMAL_COMMA = re.compile(r"0,\d+")
"""What is a decimal in half of the world."""


def parse_axis(name: str, given: object) -> tuple[Any, ...]:
    """Reads the values of one axis from a comma-separated text, a single value or a list.

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
    if axis.spread is not None:
        values = [one for value in values for one in axis.spread(value)]
    for value in values:
        try:
            parsed.append(axis.parse(value))
        except ValueError as expected:
            raise UserError(f"axis '{axis.option}': {quoted(value)} is not {expected} ({axis.help})") from None
    if (
        isinstance(given, str)
        and DECIMAL_COMMA.fullmatch(given.strip())
        and all(isinstance(one, float) for one in parsed)
    ):
        one, both = given.strip().replace(",", "."), ",".join(map(str, parsed))
        named = " and ".join(map("{:g}".format, parsed))
        raise UserError(
            f"axis '{axis.option}': {quoted(given)} would be two values, {named}; write {one} for one, or {both} for "
            f"both ({axis.help})"
        )
    return tuple(parsed)
