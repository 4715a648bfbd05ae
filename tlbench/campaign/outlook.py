"""What a campaign is about to measure, in a few lines of words, before anything trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tlbench.analysis.expectation import interval, together
from tlbench.backbones.known import BACKBONES
from tlbench.backbones.outlook import in_words
from tlbench.campaign.campaign import Campaign
from tlbench.campaign.engine import LOCAL
from tlbench.campaign.moved import cell_at
from tlbench.campaign.seen import Range, Seen
from tlbench.campaign.steps import Step
from tlbench.data import DATASETS, parse_dataset, short_names
from tlbench.data.data_root import data_root
from tlbench.data.groups import IN_ONE
from tlbench.data.options import apart, shortened
from tlbench.grid.cell import Cell
from tlbench.grid.folding import folds_of
from tlbench.grid.rates import trials
from tlbench.grid.values import about, written_size

Line = tuple[str, str]
"""A word for what a line is about, and the line."""
MOST_NAMES = 4
"""Most names that a line lists; of more it gives the number."""
ROUGH = 2.5
"""The rule of thumb is given as from this part of what it says to this many times as much."""


def outlook(campaign: Campaign, chosen: Sequence[Step] | None = None, folder: Path | None = None) -> list[Line]:
    """Says what a campaign is about to measure: images, splits, cells, weights, where results go, an estimate of the
    time; of a run that has nothing left, the notes alone. ``chosen`` are the steps that are measured of those that are
    left (None: all of them), ``folder`` is the run's (None: not made yet). Hosts of weights that are not on this disk
    are asked for a connection, once a run.
    """
    steps = list(campaign.left if chosen is None else chosen)
    cells = list(dict.fromkeys(step.cell for step in steps))
    if not cells:
        return [("note", note) for note in campaign.notes]
    begun = campaign.begun.folder if campaign.begun is not None else None
    where = str(folder or begun or campaign.asked.out or "results/<date and time>")
    now = [cell_at(cell, campaign.places) for cell in cells]  # where things lie that have moved
    with data_root(campaign.plan.settings.data_root):
        images = _images(campaign, now)
    return [
        *images,
        ("cells", _cells(campaign, steps, cells)),
        ("each", _each(cells)),
        *(("weights", line) for line in _weights(now)),
        ("results", where),
        ("time", _time(campaign, steps)),
    ]


# --- images ---------------------------------------------------------------------------------------------------


def _images(campaign: Campaign, cells: Sequence[Cell]) -> list[Line]:
    """Says what each data set has, how it was split and what was found in it; then the other notes."""
    lines: list[Line] = []
    told: list[str] = []
    every = list(dict.fromkeys(cell.dataset for cell in cells))
    longer = short_names.apart(every, short_name)
    for dataset in every:
        kind, path = parse_dataset(dataset)
        row = DATASETS[kind]
        found = campaign.seen.get(dataset)
        name = longer.get(dataset) or short_name(dataset)
        sizes = list(dict.fromkeys(cell.train_size for cell in cells if cell.dataset == dataset))
        pixels = [cell.image_size or _own_size(cell.backbone) for cell in cells if cell.dataset == dataset]
        counted = (
            _counted(found, sizes, max(filter(None, pixels), default=0)) if found else _at_most(row.summary, sizes)
        )
        lines.append(("images", f"{name}: {counted}"))
        split = row.split(path) if callable(row.split) else row.split
        if said := _splits(split, found, [cell for cell in cells if cell.dataset == dataset and cell.task == "train"]):
            lines.append(("splits", said))
        if found and found.decoding:
            lines.append(("decode", found.decoding))
        if found and found.depth:
            lines.append(("depth", found.depth))
        lines += [(kind, remark) for remark in row.remarks(path)]
        own = [note for note in campaign.notes if found and note.startswith(f"{found.name}: ")]
        told += own
        lines += [("copies", note.removeprefix(f"{found.name}: ")) for note in own if found]
    return [*lines, *(("note", note) for note in campaign.notes if note not in told)]


BY_SEED = "70/15/15"
"""What is said of images that have no splits of their own."""


def _splits(split: str, found: Seen | None, cells: Sequence[Cell]) -> str:
    """Says how a data set is split: in folds, as these cells have them, or as its row of the table says."""
    counts = dict.fromkeys(folds_of(cell.fold) for cell in cells)
    folds = " and ".join(str(count) for count in counts if count is not None)
    if not folds:
        return split
    divided = found is None or found.instead_of or BY_SEED in split
    own = "" if divided else " (its own splits put together)"
    text = (
        f"{folds} folds of all images{own}, by seed: each image is tested once, by a model without it; "
        "validation images are cut from the rest"
    )
    _, in_one, of_groups = split.partition(IN_ONE)
    if in_one:
        text += f"{in_one.replace('split', 'fold')}{of_groups}"
    if found is not None and found.instead_of:
        text += (
            f". One split would test on {found.instead_of} image{'s' * (found.instead_of != 1)} only; folds train "
            f"{folds} times as often, on frozen layers that are computed once. --folds off takes one split"
        )
    return f"{text}; and {split}" if None in counts and split else text


def short_name(dataset: str) -> str:
    """Writes a data set as people speak of it: a folder by its last part, with its options."""
    kind, colon, path = dataset.partition(":")
    path, options = apart(path)
    # Not `Path.expanduser`, which raises for ~ and ~name where there is no such home.
    name = Path(os.path.expanduser(path)).resolve().name
    return f"{name}{shortened(options)}" if colon and path and name else dataset if colon and path else kind


def _counted(found: Seen, sizes: Sequence[int | None], pixels: int) -> str:
    """Says what a data set has, and what it takes: its files, or decoded to so many ``pixels`` a side (0: unknown)."""
    train, val, test = (
        f"{'about ' * (part in found.about)}{_range(found.parts[part])}" for part in ("train", "val", "test")
    )
    size = f", {written_size(found.bytes)}" if found.bytes is not None else ""
    if pixels and not size:
        size = f", {written_size(found.images * 3 * pixels * pixels)} at {pixels} px"
    about_so = "about " * ("train" in found.about)
    of = " of its training images" if any(sizes) else ""
    dropped = f" ({found.dropped:,} more could not be read and are left out)" if found.dropped else ""
    corrected = f" ({found.corrected:,} label{'s' * (found.corrected != 1)} corrected)" if found.corrected else ""
    what = f"{found.images:,} images in {found.classes:,} classes{dropped}{corrected}{size}"
    return (
        f"{what}: {train}{of} to train on, {val} to validate on, {test} to test on; the smallest class, "
        f"{found.smallest}, has {about_so}{_range(found.fewest)} to train on"
    )


def _range(counts: Range) -> str:
    least, most = counts
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def _at_most(summary: str, sizes: Sequence[int | None]) -> str:
    """Writes what the table says of a data set that was not read yet, and how much of it is trained on."""
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return summary
    return f"{summary}; {_range((min(known), max(known)))} of them to train on, at most"


# --- cells ----------------------------------------------------------------------------------------------------


def _cells(campaign: Campaign, steps: Sequence[Step], cells: Sequence[Cell]) -> str:
    """Writes ``6 of training (efficientnet_lite0 × linear_probe, last_1 × linear × 3 seeds), 2 of inference``."""
    training = [cell for cell in cells if cell.task == "train"]
    parts = []
    if training:
        parts.append(f"{len(training):,} of training ({_product(training)})")
    if idle := [cell for cell in cells if cell.task == "infer"]:
        parts.append(f"{len(idle):,} of inference ({_product(idle)})")
    text = ", ".join(parts)
    if (blocks := campaign.plan.settings.blocks) > 1:
        text += f", in {blocks} blocks: {len(steps):,} measurements"
    elif len(steps) < len(campaign.planned):
        text += f"; {len(campaign.planned):,} are planned"
    return text


def _product(cells: Sequence[Cell]) -> str:
    kinds = ("backbone", "freeze", "head") if cells[0].task == "train" else ("backbone", "head")
    named = [_names([getattr(cell, kind) for cell in cells], many) for kind, many in _MANY.items() if kind in kinds]
    if cells[0].task == "train":
        named.append(_names([cell.seed for cell in cells], "seeds", one="seed {}".format))
        if folds := {cell.fold for cell in cells if cell.fold is not None}:
            named.append(f"{len(folds)} fold{'s' * (len(folds) > 1)}")
    for kind, many in _MORE.items():
        values = list(dict.fromkeys(getattr(cell, kind) for cell in cells))
        if len(values) > 1:
            named.append(f"{len(values)} {many}" if kind == "dataset" else _names(values, many))
    return " × ".join(named)


_MANY = {"backbone": "backbones", "freeze": "freeze policies", "head": "heads"}
_MORE = {"dataset": "data sets", "device": "devices", "precision": "precisions", "lr": "learning rates"}


def _names(values: Iterable[Any], many: str, one: Callable[[Any], str] = str) -> str:
    once = list(dict.fromkeys(values))
    if len(once) == 1:
        return one(once[0])
    return ", ".join(map(str, once)) if len(once) <= MOST_NAMES and many != "seeds" else f"{len(once)} {many}"


def _each(cells: Sequence[Cell]) -> str:
    """Writes ``224 px, 5 epochs, batches of 32, on cpu``."""
    sizes = dict.fromkeys(cell.image_size or _own_size(cell.backbone) for cell in cells)
    known = sorted(size for size in sizes if size)
    pixels = " or ".join(f"{size} px" for size in known) + (" or" if known and None in sizes else "")
    parts = [pixels + (" the size of the backbone's weights" if None in sizes else "")]
    training = [cell for cell in cells if cell.task == "train"]
    epochs = sorted({cell.epochs for cell in training})
    if epochs:
        most = "up to " * any(cell.patience is not None for cell in training)
        parts.append(f"{most}{' or '.join(map(str, epochs))} epoch{'s' * (epochs != [1])}")
    if tried := max(map(trials, training), default=0):
        parts.append(f"{tried} trials of learning rates before each training")
    batches = sorted({cell.batch_size for cell in cells})
    parts.append(f"batches of {' or '.join(map(str, batches))}")
    parts.append(f"on {' and '.join(dict.fromkeys(cell.device for cell in cells))}")
    return ", ".join(part.strip() for part in parts)


def _own_size(backbone: str) -> int | None:
    info = BACKBONES.get(backbone.partition("@")[0])
    return info.image_size if info else None


def _weights(cells: Sequence[Cell]) -> list[str]:
    asked: dict[str, dict[str, None]] = {}
    for cell in cells:
        asked.setdefault(cell.weights, {})[cell.backbone] = None
    return [line for weights, backbones in asked.items() for line in in_words(list(backbones), weights)]


# --- the time -------------------------------------------------------------------------------------------------


def _time(campaign: Campaign, steps: Sequence[Step]) -> str:
    said = _alone(campaign, steps)
    several = campaign.asked.engine.engine != LOCAL and not said.startswith("cannot")
    return (
        f"{said}; that is one cell after the other on this machine, and an engine has several at a time"
        if several
        else said
    )


def _alone(campaign: Campaign, steps: Sequence[Step]) -> str:
    """Says what cells take one after the other."""
    times = campaign.times
    found = times.foresee((step.cell, step.block) for step in steps)
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return "cannot say yet: nothing was measured on this device before; more after the first cell"
    total, spread = together(known)
    least, most = interval(total, spread)
    if all(one.by == "profile" for one in known):
        return f"about {about(total)} ({_between(least, most)}), by this machine's profiles of the backbones"
    said = _between(total / ROUGH, total * ROUGH)
    if all(times.knows(step.cell.device) or times.by_profile(step.cell) for step in steps):
        kinds = {(step.cell.backbone, step.cell.precision, step.cell.device): step.cell for step in steps}
        if all(times.has_met(cell) or times.by_profile(cell) for cell in kinds.values()):
            return f"about {about(total)}, by what cells took on this machine before"
        return f"roughly {said}, by what cells of other backbones took on this machine before"
    return f"roughly {said}, by a rule of thumb; better after the first cell (tlbench plan looks first)"


def _between(few: float, many: float) -> str:
    """Writes a time from one to another, the unit once where both have the same."""
    least, most = about(few), about(many)
    number, _, unit = least.partition(" ")
    return f"{number if most.endswith(f' {unit}') else least} to {most}"
