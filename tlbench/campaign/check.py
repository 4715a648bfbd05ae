"""Makes every check of a grid that can be made before anything expensive starts. One file, since their order matters:
what is cheap and what names everything else come first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from tlbench.analysis.metrics import DECIDING
from tlbench.backbones import WEIGHTS, check_backbone, check_weights, input_of
from tlbench.backbones.checkpoint import check_commas
from tlbench.backbones.inputs import InputSpec
from tlbench.campaign.checkpoints import about_checkpoint
from tlbench.campaign.few import folds_by_themselves, in_folds, is_few
from tlbench.campaign.images_room import about_room
from tlbench.campaign.isolate import ISOLATION, start_ahead
from tlbench.campaign.other_tests import check_other_tests, decode_other_images
from tlbench.campaign.seen import Seen, seen, seen_by_name
from tlbench.data import (
    BAD_IMAGES,
    DATASETS,
    Described,
    check_dataset,
    check_dataset_commas,
    check_decode,
    parse_dataset,
    plain_name,
)
from tlbench.data.data_root import data_root
from tlbench.data.fetching import fetch_where_asked
from tlbench.data.folds import FOLDS
from tlbench.data.lent import lending
from tlbench.data.relabel import read_corrections
from tlbench.data.scan import listed_once
from tlbench.data.splits import HELD_OUT
from tlbench.errors import NotApplicable, UserError, lookup, text_of
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.choices import ALLOCATORS, PREFIX
from tlbench.grid.grid import Grid
from tlbench.grid.other_tests import named
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.machine.nvidia import may_have_gpu
from tlbench.measure.images import describe_images, load_images
from tlbench.policies.parse import parse_policy
from tlbench.records.identity import PLACES, same_place

MOST_SPLITS = 200
"""Splits of a data set (by seed, train size, fold) that are looked at for copies, of which each takes a while."""
NEED_A_PROCESS = ("cell_timeout_seconds", "memory_limit_bytes")


def check(
    grid: Grid,
    settings: Settings,
    say: Callable[[str], None] = lambda line: None,
    see: Callable[[str, Seen], None] = lambda dataset, found: None,
    decode: bool = True,
    elsewhere: bool = False,
) -> Grid:
    """Returns the grid with its devices resolved, after every check that can be made before anything expensive starts;
    ``say`` is told, in lines, what was found of copies among the images, and ``see`` gets what each data set of a
    person's own has. Images are decoded where no earlier check has told what is in them, and not at all without
    ``decode``: then names and sizes of files have to do. ``elsewhere``: other machines measure the cells, and
    whether they have a GPU is for their engine to say.

    Errors: UserError naming the value, the choices and the next step.
    """
    with listed_once(), data_root(settings.data_root):
        return _check(grid, settings, say, see, decode, elsewhere)


def _check(
    grid: Grid,
    settings: Settings,
    say: Callable[[str], None],
    see: Callable[[str, Seen], None],
    decode: bool,
    elsewhere: bool,
) -> Grid:
    automatic = folds_by_themselves(grid)
    grid = grid.with_axes({"fold": (None,)}) if automatic else grid
    grid.check_size(settings.blocks)
    for name, values in grid.axes.items():
        for value in values:
            AXES[name].check(value)
    _check_settings(settings)
    for name in grid.axes["backbone"]:
        check_backbone(name)
    check_commas(grid.axes["weights"])
    for spec in grid.axes["weights"]:
        check_weights(spec)
    check_dataset_commas(grid.axes["dataset"])
    for name in PLACES:
        for one, other in itertools.combinations(grid.axes[name], 2):
            if same_place(one, other):
                raise UserError(
                    f"axis '{AXES[name].option}' has one place under two names, {one!r} and {other!r}; give it once"
                )
    for policy in grid.axes["freeze"]:
        parse_policy(policy)
    for path in filter(None, grid.axes["relabel"]):
        read_corrections(path)
    fetch_where_asked([*grid.axes["dataset"], *(named(text)[1] for text in settings.also_test)])
    for dataset in grid.axes["dataset"]:
        check_dataset(dataset, grid.axes["train_size"])
        check_decode(dataset, grid.axes["decode"])
    grid = grid.with_axes({"device": _devices(grid.axes["device"], elsewhere)})
    if decode and not elsewhere:
        start_ahead(settings, grid.axes["backbone"][0])
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in grid.axes["weights"]:
        if spec not in WEIGHTS:
            for line in about_checkpoint(spec, grid.axes["backbone"]):
                say(line)
    _check_images(grid, settings, say, see, decode, automatic)
    check_other_tests(grid, settings, say, decode)
    return grid


def _check_images(
    grid: Grid,
    settings: Settings,
    say: Callable[[str], None],
    see: Callable[[str, Seen], None],
    decode: bool,
    in_few_folds: bool,
) -> None:
    """Reads the data sets of a grid that may have faults; few images of a person's own are read ``in_few_folds``."""
    for dataset in grid.axes["dataset"]:
        if DATASETS[parse_dataset(dataset)[0]].read_by_check or any(grid.axes["relabel"]):
            of_one = grid.with_axes({"dataset": (dataset,)})
            apart = _read_apart(of_one.expand())
            cells = apart[:MOST_SPLITS]
            if (spec := _first_input(grid.axes["backbone"])) is None:  # no cell is applicable, as each will say
                continue
            found, lines = _read(cells, spec, settings, decode)
            if in_few_folds and found is not None and is_few(found, cells[0], spec, settings, decode):
                found, lines = _read_folds(of_one, found, lines, spec, settings, decode)
            if found is not None:
                found = _with_other_decoding(found, cells[0], grid.axes["decode"], spec, settings, decode)
                see(dataset, found)
                lines += about_sizes(found, grid.axes["train_size"])
                lines += _not_all(found.name, apart)
                lines += about_room(found, cells[0].image_size or spec.size, dataset, grid, settings)
            for line in lines:
                say(line)


def _not_all(name: str, apart: Sequence[Cell]) -> list[str]:
    """Says in a line that not all splits were looked at, which may be thousands."""
    left = len(apart) > MOST_SPLITS
    return [f"{name}: looked at the first {MOST_SPLITS} of {len(apart):,} ways to split it"] if left else []


def _check_settings(settings: Settings) -> None:
    """Raises UserError for a value that is none of a setting's choices, and for settings that mean nothing together."""
    lookup(BAD_IMAGES, "choice for --bad-images", settings.bad_images)
    lookup(DECIDING, "metric", settings.metric)
    lookup(PREFIX, "choice for --prefix", settings.prefix)
    lookup(ALLOCATORS, "choice for --allocator", settings.allocator)
    lookup(ISOLATION, "choice for --isolate", settings.isolate)
    for name, setting in SETTINGS.items():
        if setting.field in NEED_A_PROCESS and getattr(settings, setting.field) and settings.isolate == "none":
            raise UserError(f"--{name} needs --isolate backbone or cell: it holds for a process of its own")


def _unreadable(dataset: str, error: BaseException) -> UserError:
    if isinstance(error, MemoryError):
        return UserError(f"not enough memory to read the images of {dataset!r}")
    return UserError(f"data set {dataset!r} cannot be read: {type(error).__name__}: {text_of(error)}")


UNOPENED = "not looked for: that takes opening the files, which only a run does"


def _first_input(backbones: Sequence[str]) -> InputSpec | None:
    """Returns what the first backbone takes of which that is known; None where it is of none."""
    for name in backbones:
        with suppress(NotApplicable):
            return input_of(name)
    return None


def _read(cells: Sequence[Cell], spec: InputSpec, settings: Settings, decode: bool) -> tuple[Seen | None, list[str]]:
    """Returns what one data set has, for each of these cells, and lines about copies in it. Errors: UserError."""
    dataset, size = cells[0].dataset, cells[0].image_size or spec.size
    try:
        with lending(settings.isolate != "none"):
            read = [describe_images(cell, settings, spec, size, decode=decode) for cell in cells]
        known = [one for one in read if one is not None]
        if known:
            return seen(known, cells[0].decode), about_copies(*known)
        name, path = parse_dataset(dataset)
        if (listed := DATASETS[name].listed) is None:
            return None, []
        shown = plain_name(dataset)
        return seen_by_name(shown, listed(path), [cell.train_size for cell in cells]), [f"{shown}: {UNOPENED}"]
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of a data set from outside, which may raise anything
        raise _unreadable(dataset, error) from None


def _with_other_decoding(
    found: Seen, cell: Cell, choices: Sequence[str], spec: InputSpec, settings: Settings, decode: bool
) -> Seen:
    """Returns what a data set has, with words on each way in which the grid decodes it; one was looked at before."""
    others = [replace(cell, decode=choice) for choice in choices if choice != cell.decode]
    read = [_read([other], spec, settings, decode)[0] for other in others]
    words = [one.decoding for one in (found, *read) if one is not None and one.decoding]
    return replace(found, decoding="; ".join(words))


def decode_images(cells: Sequence[Cell], settings: Settings) -> None:
    """Decodes what the first of the cells that are about to be measured takes of each data set, where the check has not
    since an earlier one had told what is in the files: processes of cells are lent it, and its time has it not in it.
    Images of another size, the first cell that takes them decodes. What cannot be read any more, cells say themselves.
    """
    by_dataset: dict[str, list[Cell]] = {}
    for cell in cells:
        by_dataset.setdefault(cell.dataset, []).append(cell)
    for dataset, several in by_dataset.items():
        if settings.also_test and (trained := [cell for cell in several if cell.task == "train"]):
            decode_other_images(trained[0], settings)
        if DATASETS[parse_dataset(dataset)[0]].describe is not None:
            first = _read_apart(several)[0]
            ways = [replace(first, decode=choice) for choice in dict.fromkeys(cell.decode for cell in several)]
            # Whatever is wrong with the images or the backbone is the cells' to say.
            with suppress(Exception), lending(settings.isolate != "none"):
                spec = input_of(first.backbone)
                for cell in ways:
                    load_images(cell, settings, spec, cell.image_size or spec.size)


def _read_folds(
    grid: Grid, found: Seen, lines: list[str], spec: InputSpec, settings: Settings, decode: bool
) -> tuple[Seen, list[str]]:
    """Returns what a data set has in folds, and lines about copies in it, in the place of those of one split; these
    with a word where it cannot be put into folds.
    """
    alone = found.parts["test"][0]
    try:
        apart = _read_apart(in_folds(grid).expand())
        folded, of_folds = _read(apart[:MOST_SPLITS], spec, settings, decode)
        of_folds += _not_all(found.name, apart)
    except UserError as error:
        few = f"{found.name}: {_images(alone)} to test on tell little, but {FOLDS} folds cannot be had: {error}"
        return found, [*lines, few]
    if folded is None or found.bytes is not None:
        test = round(found.images / FOLDS)
        val = round(HELD_OUT * (found.images - test))
        parts = {"train": found.images - test - val, "val": val, "test": test}
        ranges = {part: (count, count) for part, count in parts.items()}
        return replace(found, instead_of=alone, parts=ranges, about=frozenset(parts)), lines
    return replace(folded, instead_of=alone), of_folds


def _devices(names: tuple[str, ...], elsewhere: bool) -> tuple[str, ...]:
    """Returns the devices of a grid with ``available`` spelt out. Nobody has to ask torch for the CPU alone, nor where
    there can be nothing else, nor for a GPU of another machine, of which torch here knows nothing.
    """
    if set(names) == {"cpu"} or (set(names) <= {"cpu", "available"} and not may_have_gpu()):
        return ("cpu",)
    if elsewhere and set(names) <= {"cpu", "cuda"}:
        return tuple(dict.fromkeys(names))
    from tlbench.machine.device import resolve_devices

    return resolve_devices(names)


def _read_apart(cells: Sequence[Cell]) -> list[Cell]:
    """Returns one cell for each split of a data set and each part of it that is trained on, which decide what leaks,
    and for each file of corrections; the other axes are no matter of reading.
    """
    trained = [cell for cell in cells if cell.task == "train"] or cells[:1]
    first: dict[tuple[object, ...], Cell] = {}
    for cell in trained:
        seed = cell.seed if cell.split_seed is None else cell.split_seed
        first.setdefault((seed, cell.train_size, cell.fold, cell.relabel), cell)
    return list(first.values())


def about_sizes(found: Seen, sizes: Sequence[int | None]) -> list[str]:
    """Says in lines which train sizes are all that a data set has, beside others or beyond it."""
    _, most = found.parts["train"]
    beyond = [size for size in sizes if size is not None and (size > most or (size == most and None in sizes))]
    beside = ", as all does" if None in sizes else ""
    return [
        f"{found.name}: --train-size {size} takes all {_images(most)} there are to train on{beside}" for size in beyond
    ]


NAMED = 3
"""How many photographs under two classes are named."""


def about_copies(data: Described, *others: Described) -> list[str]:
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
    for part, before in zip(data.leaked, ("training", "training or validation"), strict=True):
        counts = [len(one.leaked[part]) for one in (data, *others)]
        least, most = min(counts), max(counts)
        if most:
            number = _images(most) if least == most else f"{least:,} to {_images(most)}, by seed and train size,"
            lines.append(
                f"{number} of the {part} split {'are copies' if most != 1 else 'is a copy'} of {before} images; "
                "the accuracy without them is given beside"
            )
    if data.mixed:
        shown = [*data.mixed[:NAMED], *(["…"] if len(data.mixed) > NAMED else [])]
        what = "1 photograph is" if len(data.mixed) == 1 else f"{len(data.mixed)} photographs are"
        lines.append(f"{what} there under two classes: {'; '.join(shown)}; correct the labels")
    return [f"{data.name}: {line}" for line in lines]


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"
