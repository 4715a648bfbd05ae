"""A grid of axes, and the cells that it expands to."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tlbench.data.short_names import apart
from tlbench.errors import UserError, lookup, unknown
from tlbench.grid.axes import AXES, TRAINING_ONLY, parse_axis
from tlbench.grid.cell import Cell, short_name
from tlbench.grid.settings import SETTINGS, parse_given
from tlbench.policies.parse import fixed_weights

MOST_CELLS = 10_000_000
"""Most measurements of a grid, blocks counted."""
IDLE: Mapping[str, Any] = {"freeze": "none", "epochs": 1, "fold": None, "split_seed": None, "relabel": None}
"""What an inference cell has on these axes whatever the grid: no policy has that name, and nothing is trained."""


def without_training(cell: Cell) -> Cell:
    """Returns an inference cell with every axis that it does not depend on at its default; a training cell as it is.

    Cells keep the first value that their grid has on such an axis, so that cells of two grids may differ there and
    are the same measurement nevertheless: exactly when this makes them equal.
    """
    if cell.task != "infer":
        return cell
    default = Cell()
    return replace(cell, **{**{name: getattr(default, name) for name in TRAINING_ONLY}, **IDLE})


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid holds values for each axis; `expand` makes the cells."""

    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    named: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Axes that were given; the others have their defaults."""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Fields of `Settings` that a file names beside the axes: other tests, which belong to its data sets."""

    def __post_init__(self) -> None:
        defaults = {f.name: (f.default,) for f in fields(Cell) if f.name in AXES}
        for name, values in self.axes.items():
            lookup(AXES, "axis", name)
            if not values:
                raise UserError(f"axis '{AXES[name].option}' has no value; give at least one or leave it out")
            if len(set(values)) < len(values):
                twice = AXES[name].written(next(value for value, count in Counter(values).items() if count > 1))
                raise UserError(f"axis '{AXES[name].option}' has the value {str(twice)!r} twice; give each value once")
        object.__setattr__(self, "named", self.named or frozenset(self.axes))
        object.__setattr__(self, "axes", {**defaults, **self.axes})

    @classmethod
    def of(cls, cell: Cell) -> Grid:
        """Returns the grid of one cell."""
        # Inference has no freeze policy, and "none" is the name of no other.
        axes = {name: (getattr(cell, name),) for name in AXES if cell.task == "train" or name != "freeze"}
        return cls(axes=axes)

    def with_axes(self, given: Mapping[str, tuple[Any, ...]]) -> Grid:
        """Returns this grid with some axes replaced."""
        return Grid(axes={**self.axes, **given}, named=self.named | given.keys(), settings=self.settings)

    def asked_for(self, given: Mapping[str, tuple[Any, ...]]) -> Grid:
        """Returns this grid with the axes that someone gives replaced, and those of `freed_by` at their defaults."""
        defaults, freed = Grid().axes, self.freed_by(given)
        made = self.with_axes({**{name: defaults[name] for name in freed}, **given})
        return Grid(axes=made.axes, named=made.named - set(freed), settings=made.settings)

    def freed_by(self, given: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """Returns the axes that this grid names for its own data set's images (`Axis.of_images`), where another data
        set is given in its place: 64 pixels and three epochs that suit scanned digits say nothing of photographs.
        """
        others = set(given.get("dataset", ())) - set(self.axes["dataset"])
        if not others or "dataset" not in self.named:
            return []
        return [name for name in AXES if AXES[name].of_images and name in self.named and name not in given]

    def check_size(self, blocks: int = 1) -> None:
        """Raises UserError where there would be more measurements than a run could hold; none of them is made."""
        count = math.prod(len(values) for values in self.axes.values()) * blocks
        if count > MOST_CELLS:
            longest = max(self.axes, key=lambda name: len(self.axes[name]))
            many = f"axis '{AXES[longest].option}' has {len(self.axes[longest]):,} values"
            raise UserError(
                f"the axes, {blocks:,} times over, come to {count:,} measurements, more than {MOST_CELLS:,}; {many}, "
                f"--blocks is {blocks:,}: split the grid into several runs"
            )

    def expand(self) -> list[Cell]:
        """Returns every cell, once. Inference does not depend on the freeze policy, on how long one trains or on the
        seed, so those axes collapse there: one cell for each backbone, head, data set, device, …. A policy that is
        defined for one kind of weights (`scratch`: random) collapses the axis of weights.
        """
        names = list(self.axes)
        collapsed = {**{name: self.axes[name][0] for name in TRAINING_ONLY}, **IDLE}
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
        """Returns `Cell.id`, followed by the axes of this grid that have several values and are not in it already, and
        by those that an accuracy cannot be read without, where they are not at their defaults. Two places of one last
        name have more of their paths.
        """
        default = Cell()
        extra = [self._apart["dataset"][cell.dataset]] if cell.dataset in self._apart["dataset"] else []
        extra += [
            self._apart.get(name, {}).get(getattr(cell, name)) or AXES[name].label(getattr(cell, name))
            for name, values in self.axes.items()
            if (len(values) > 1 or (AXES[name].of_images and getattr(cell, name) != getattr(default, name)))
            and not AXES[name].in_id
            and not (cell.task == "infer" and AXES[name].training_only)
        ]
        return "-".join([cell.id, *extra])

    @cached_property
    def _apart(self) -> dict[str, dict[str, str]]:
        """Maps data sets and checkpoints whose last names are those of others to names that tell them apart."""
        found: dict[str, dict[str, str]] = {}
        for name, short in (("dataset", short_name), ("weights", AXES["weights"].label)):
            told = apart(self.axes[name], short, "" if name == "dataset" else "folder:")
            texts = {value: re.sub(r"[^\w.+-]", "_", text) for value, text in told.items()}
            twice = Counter(texts.values())
            found[name] = {
                value: text if twice[text] == 1 else f"{text}-{place}"
                for place, (value, text) in enumerate(texts.items(), start=1)
            }
        return found


FIRST = Grid(
    axes={
        "task": ("train", "infer"),
        "backbone": ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18"),
        "weights": ("pretrained",),
        "freeze": ("linear_probe", "last_1", "norm", "full"),
        "head": ("linear", "mlp"),
        "dataset": ("digits",),
        "device": ("available",),
        "image_size": (64,),
        "train_size": (600,),
        "epochs": (3,),
    }
)
"""What is measured where nobody says what: the grid of ``bench/grids/quick.toml``. The first three backbones have their
ImageNet weights inside packages; those of resnet18 are downloaded, or its cells skipped."""
SHAPE = ("task", "backbone", "freeze", "head")
"""Axes that make a grid: with none of them given, it is `FIRST`."""


def load_grid(path: str | Path) -> Grid:
    """Reads a grid from a TOML file: keys are the options of `AXES`, values a value or a list of values.

    Errors: UserError for a missing or unreadable file, bad TOML, an unknown key, a value of the wrong type.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin a file with a mark
    except FileNotFoundError:
        raise UserError(f"grid file {str(path)!r} does not exist; see bench/grids/ for examples") from None
    except OSError as error:
        raise UserError(f"grid file {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of a number of thousands of digits, too
        raise UserError(f"grid file {str(path)!r} is not TOML: {error}") from None
    by_option = {axis.option.replace("-", "_"): name for name, axis in AXES.items()}
    tests = {option.replace("-", "_"): option for option, setting in SETTINGS.items() if setting.in_grid}
    axes: dict[str, tuple[Any, ...]] = {}
    settings: dict[str, object] = {}
    for key, value in table.items():
        plain = key.replace("-", "_")
        name = by_option.get(plain) or tests.get(plain)
        if name is None:
            raise unknown(f"key in {path.name}", key, {**by_option, **tests})
        if name in axes or name in settings:
            raise UserError(f"{path.name}: {key!r} is there twice, once written with - and once with _; give it once")
        try:
            if plain in tests:
                settings |= {name: value}
                parse_given(settings)
            else:
                axes[name] = parse_axis(name, value)
        except UserError as error:
            raise UserError(f"{path.name}: {error}") from None
    try:
        return Grid(axes=axes, settings=parse_given(settings))
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None
