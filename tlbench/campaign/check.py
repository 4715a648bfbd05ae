"""Makes every check of a grid that can be made before anything expensive starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tlbench.backbones import WEIGHTS, check_backbone, check_weights, load_backbone
from tlbench.campaign.isolate import ISOLATION
from tlbench.data import BAD_IMAGES, DATASETS, Data, check_dataset, parse_dataset
from tlbench.errors import UserError, lookup
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.machine import device as machine
from tlbench.machine.process import ALLOCATORS
from tlbench.measure.build import load_images
from tlbench.policies.parse import parse_policy
from tlbench.records.identity import PLACES, same_place
from tlbench.train.activations import MODES

NEED_A_PROCESS = ("cell_timeout_seconds", "memory_limit_bytes")


def check(grid: Grid, settings: Settings, say: Callable[[str], None] = lambda line: None) -> Grid:
    """Returns the grid with its devices resolved, after every check that can be made before anything expensive starts;
    ``say`` is told, in lines, what was found of copies among the images that were read.

    Errors: UserError naming the value, the choices and the next step.
    """
    grid.check_size(settings.blocks)
    for name, values in grid.axes.items():
        for value in values:
            AXES[name].check(value)
    lookup(BAD_IMAGES, "choice for --bad-images", settings.bad_images)
    lookup(MODES, "choice for --prefix", settings.prefix)
    lookup(ALLOCATORS, "choice for --allocator", settings.allocator)
    lookup(ISOLATION, "choice for --isolate", settings.isolate)
    for name, setting in SETTINGS.items():
        if setting.field in NEED_A_PROCESS and getattr(settings, setting.field) and settings.isolate == "none":
            raise UserError(f"--{name} needs --isolate backbone or cell: it holds for a process of its own")
    for name in grid.axes["backbone"]:
        check_backbone(name)
    for spec in grid.axes["weights"]:
        check_weights(spec, grid.axes["backbone"])
    for name in PLACES:
        for one, other in itertools.combinations(grid.axes[name], 2):
            if same_place(one, other):
                raise UserError(
                    f"axis '{AXES[name].option}' has one place under two names, {one!r} and {other!r}; give it once"
                )
    for policy in grid.axes["freeze"]:
        parse_policy(policy)
    for dataset in grid.axes["dataset"]:
        check_dataset(dataset, grid.axes["train_size"])
    grid = grid.with_axes({"device": machine.resolve_devices(grid.axes["device"])})
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in grid.axes["weights"]:
        if spec not in WEIGHTS:
            for name in grid.axes["backbone"]:
                load_backbone(name, spec)
    for dataset in grid.axes["dataset"]:
        if DATASETS[parse_dataset(dataset)[0]].read_by_check:
            cells = _read_apart(grid.with_axes({"dataset": (dataset,)}).expand())
            spec = load_backbone(cells[0].backbone, "random").input
            try:
                read = [load_images(cell, settings, spec, cells[0].image_size or spec.size) for cell in cells]
            except (UserError, MemoryError):
                raise
            except Exception as error:  # of a data set from outside, which may raise anything
                raise UserError(f"data set {dataset!r} cannot be read: {type(error).__name__}: {error}") from None
            for line in about_copies(*read):
                say(line)
    return grid


def _read_apart(cells: Sequence[Cell]) -> list[Cell]:
    """Returns one cell for each split of a data set and each part of it that is trained on, which decide what leaks;
    the other axes are no matter of reading.
    """
    trained = [cell for cell in cells if cell.task == "train"] or cells[:1]
    first: dict[tuple[int, int | None], Cell] = {}
    for cell in trained:
        first.setdefault((cell.seed, cell.train_size), cell)
    return list(first.values())


NAMED = 3
"""How many photographs under two classes are named."""


def about_copies(data: Data, *others: Data) -> list[str]:
    """Says in lines what copies a data set has, whether they stay in one split, and what leaks where they do not: at
    the least and at the most where the others, of other seeds or train sizes, are told of as well.
    """
    copies = data.copies
    near = f", {_images(copies['near'])} that look like another" if "near" in copies else ""
    largest = f" of up to {copies['largest']} images" if copies["groups"] else ""
    groups = f"{copies['groups']} group{'s' * (copies['groups'] != 1)}{largest}"
    together = copies["groups"] - copies["apart"]
    counted = f"{_images(copies['exact'])} with the pixels of another{near}, in {groups}; {together} kept in one split"
    unknown = ""
    if data.alike:
        unknown = "; all look so much alike that near copies cannot be told"
    elif "near" not in copies:
        unknown = "; only exact copies were searched"
    elif few := copies["uncompared"]:
        be, their, them = ("are", "their", "them") if few != 1 else ("is", "its", "it")
        unknown = (
            f"; {_images(few)} {be} too small or too plain to be compared by {their} looks, so only exact copies of "
            f"{them} were searched"
        )
    lines = [(counted if copies["groups"] or data.alike else "no copies among the images") + unknown]
    for part, seen in zip(data.leaked, ("training", "training or validation"), strict=True):
        counts = [len(one.leaked[part]) for one in (data, *others)]
        least, most = min(counts), max(counts)
        if most:
            number = _images(most) if least == most else f"{least:,} to {_images(most)}, by seed and train size,"
            lines.append(
                f"{number} of the {part} split {'are copies' if most != 1 else 'is a copy'} of {seen} images; "
                "the accuracy without them is given beside"
            )
    if data.mixed:
        shown = [*data.mixed[:NAMED], *(["…"] if len(data.mixed) > NAMED else [])]
        what = "1 photograph is" if len(data.mixed) == 1 else f"{len(data.mixed)} photographs are"
        lines.append(f"{what} there under two classes: {'; '.join(shown)}; correct the labels")
    return [f"{data.name}: {line}" for line in lines]


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"
