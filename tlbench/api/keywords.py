"""The keywords of `tlbench.run`: the axes of a grid, the settings and a run's own, and what is given for them as the
options of the command line, so that both mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from tlbench.data import names_a_path
from tlbench.data.named import canonical
from tlbench.errors import UserError, unknown
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS
from tlbench.grid.values import join_values

Names = str | Sequence[str]
"""One or several; a text may hold several with commas between them, as on the command line, an item of a list is one.
"""
Places = str | Path | Sequence[str | Path]
Whole = int | str | Sequence[int | str]
Number = float | str | Sequence[float | str]
Switch = bool | str
Switches = Switch | Sequence[Switch]
Size = int | str
"""Bytes, or a text such as ``2GB``."""
Tests = Mapping[str, str | Path] | str | Sequence[str]
"""Name -> data set or folder, or ``NAME=DATASET``, one or several."""


class Axes(TypedDict, total=False):
    """Lists the axes of a grid (`tlbench.grid.axes.AXES`) as keywords: each takes a value or several."""

    task: Names
    backbone: Names
    weights: Places
    freeze: Names
    head: Names
    dataset: Places
    device: Names
    seeds: Whole
    epochs: Whole
    batch_size: Whole
    image_size: Whole
    train_size: Whole
    optimizer: Names
    lr: Number
    backbone_lr: Number
    weight_decay: Number
    schedule: Names
    warmup: Number
    label_smoothing: Number
    class_weights: Names
    sampler: Names
    augment: Names
    bn_momentum: Number
    precision: Names
    layout: Names
    compile: Switches
    fused: Switches
    folds: Whole
    split_seed: Whole
    relabel: Places
    decode: Names


class Measuring(TypedDict, total=False):
    """Lists the settings (`tlbench.grid.settings.SETTINGS`) as keywords: they say how cells are measured."""

    threads: int | str
    bad_images: str
    logits: Switch
    thumbnails: Switch
    data_root: str | Path
    deterministic: Switch
    allocator: str
    prefix: Switch
    prefix_ram: Size
    prefix_disk: Size
    data_ram: Size
    data_disk: Size
    views: int | str
    blocks: int | str
    twins: int | str
    retry_noisy: int | str
    detail: Switch
    isolate: str
    cell_timeout: int | str
    memory_limit: Size
    max_failures: int | str
    metric: str
    also_test: Tests
    corrupt: Names


class Own(TypedDict, total=False):
    """Lists the keywords of a run itself."""

    grid: str | Path
    out: str | Path
    resume: str | Path
    rerun: Names
    plugins: Places
    download: bool
    keep: str


class Keywords(Axes, Measuring, Own):
    """Lists all that `run` takes."""


OWN: dict[str, str] = {
    "grid": "TOML file with the axes; keywords override it",
    "out": "the run's folder (default: results/<date and time>)",
    "resume": "go on with a run; axes that are given add cells to it",
    "rerun": "with resume, measure again what is noisy, drifting, diverged, …",
    "plugins": "Python files or modules with backbones, policies, heads, data sets or plots of yours",
    "download": "True: download data sets that are known by a name and are not on this disk",
    "keep": "best: keep the model of the cell that the verdict names in the run's folder",
}


def keyword(option: str) -> str:
    """Returns the keyword of an option: that of ``batch-size`` is ``batch_size``."""
    return option.replace("-", "_")


HELP: dict[str, str] = {
    **{keyword(axis.option): axis.help for axis in AXES.values()},
    **{keyword(name): setting.help for name, setting in SETTINGS.items()},
    **OWN,
}
"""Keyword -> what it means."""


# --- what is given --------------------------------------------------------------------------------------------


def options_of(images: str | Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keywords as the options of the command line. Errors: UserError for a keyword or a value of no meaning."""
    for name in given:
        if name not in HELP:
            raise unknown("keyword", name, HELP, shown=len(HELP))
    named = {name: value for name, value in given.items() if value is not None}
    if images is not None:
        if "dataset" in named:
            raise UserError(f"the images are named twice, as {str(images)!r} and as dataset; give one of them")
        named["dataset"] = [images if names_a_path(canonical(str(images))) else Path(images)]
    options: dict[str, Any] = {}
    for axis in AXES.values():
        if (name := keyword(axis.option)) in named:
            options[axis.option] = _axis(name, named[name], switch=axis.choices is not None and "on" in axis.choices)
    for option in SETTINGS:
        if (name := keyword(option)) in named:
            given_for = OTHERS.get(name, partial(_single, name, switch=name in SWITCHES))
            options[option] = given_for(named[name])
    options |= {name: _path(name, named[name]) for name in ("grid", "out", "resume") if name in named}
    if "rerun" in named:
        options["rerun"] = join_values(map(str, _several(named["rerun"])))
    if "plugins" in named:
        options["plugin"] = tuple(map(str, _several(named["plugins"])))
    if named.get("download"):
        options["download"] = True
    if "keep" in named:
        options["keep"] = str(named["keep"])
    return options


SWITCHES = ("logits", "thumbnails", "deterministic", "detail", "prefix")
"""Settings that are True or False as well."""


def _tests(value: object) -> object:
    """Returns other data sets to test on as the command line has them; a path is a folder of images."""
    if isinstance(value, Mapping):
        return [f"{name}={f'folder:{one}' if isinstance(one, Path) else one}" for name, one in value.items()]
    return value if isinstance(value, str) else _several(value)


def _names(value: object) -> object:
    return value if isinstance(value, str) else _several(value)


OTHERS: Mapping[str, Callable[[object], object]] = {"also_test": _tests, "corrupt": _names}
"""Settings that may be several texts -> what returns these."""


def _axis(name: str, value: object, switch: bool) -> str | list[object]:
    """Returns the values of an axis: a text that the command line would be given, or a list."""
    if isinstance(value, str):
        return value
    return [_single(name, one, switch) for one in _several(value)]


def _several(value: object) -> list[object]:
    """Returns the values of a list, a range, an array or a column of a frame; what is one value as a list of it."""
    single = isinstance(value, str | bytes | Mapping | Path) or getattr(value, "ndim", 1) == 0
    return list(value) if isinstance(value, Iterable) and not single else [value]


def _single(name: str, value: object, switch: bool) -> object:
    """Returns a value as a grid's file or the command line has it: paths and switches as texts, numpy's numbers as
    Python's. What it means is for the axis or the setting to say.
    """
    if isinstance(value, Path):
        return f"folder:{value}" if name == "dataset" else str(value)
    if switch and isinstance(value, bool):
        return "on" if value else "off"
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _path(name: str, value: object) -> str:
    if isinstance(value, str | Path):
        return str(value)
    raise UserError(f"{name}: {value!r} is not a path ({OWN[name]})")


OPTIONS = {axis.option: keyword(axis.option) for axis in AXES.values()}
OPTIONS |= {**{name: keyword(name) for name in SETTINGS}, **{name: name for name in OWN}, "plugin": "plugins"}
OPTIONS |= {"budget": "budget", "max-latency-ms": "max_latency_ms"}
"""Option of the command line -> keyword."""
OPTION = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)")


def in_python(message: str) -> str:
    """Returns an error's words with keywords in place of options; a command in it is left as it is.

    >>> in_python("--cell-timeout: 0 is not a whole number of at least 1")
    '`cell_timeout`: 0 is not a whole number of at least 1'
    """
    if "tlbench " in message:
        return message
    return OPTION.sub(lambda found: f"`{OPTIONS[found[1]]}`" if found[1] in OPTIONS else found[0], message)
