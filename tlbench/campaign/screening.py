"""Screens backbones: one forward pass of each over some training images, and what their features are worth.

Nothing is trained, and no score looks at validation or test images. The features of training images are left for a
later run, as far as they lie in whole batches of its pass over all images (`tlbench.train.activations.Prefix.glimpse`):
where the training set is no larger than what a screen looks at. Images of other splits in such batches go along.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from tlbench.analysis import transferability
from tlbench.analysis.screens import Screened
from tlbench.backbones import BACKBONES, WEIGHTS, list_backbones
from tlbench.backbones.timm_list import rows as timm_rows
from tlbench.backbones.torchvision import top1_of
from tlbench.data import DATASETS, parse_dataset
from tlbench.errors import LostInput, NotApplicable, Unavailable, UserError, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.process import release_memory, set_up
from tlbench.measure.build import Building, BuiltCell
from tlbench.policies.parse import parse_policy

MOST_IMAGES = 1000
"""Training images that a screen looks at: more tell hardly more, and cost as much more."""
FROZEN = "linear_probe"
"""The policy whose frozen part is the whole backbone: what it takes of the prefix is what a screen computes."""
WILD = set("*?[")


def wanted(patterns: Sequence[str]) -> list[str]:
    """Returns the backbones that names and patterns (``resnet*``, ``timm:convnext*``) stand for, each once, in order.

    Errors: UserError for a pattern that nothing matches.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if not WILD & set(pattern):
            found[pattern] = None  # a check of its own says whether there is such a backbone
            continue
        if pattern.startswith("timm:"):
            names = [
                f"timm:{row['backbone'].removeprefix('timm:')}" for row in timm_rows(pattern.removeprefix("timm:"))
            ]
        else:
            names = [row["backbone"] for row in list_backbones() if fnmatch.fnmatch(row["backbone"], pattern)]
        if not names:
            raise UserError(
                f"no backbone matches {pattern!r}; `tlbench list backbones` shows all, --timm PATTERN timm's"
            )
        found.update(dict.fromkeys(names))
    return list(found)


def cells(backbones: Sequence[str], cell: Cell) -> list[Cell]:
    """Returns the cells of a screen: those of each backbone, on at most `MOST_IMAGES` training images, or as many as
    there are classes.
    """
    name, path = parse_dataset(cell.dataset)
    count = DATASETS[name].classes
    most = max(MOST_IMAGES, count(path) if callable(count) else count)
    size = min(cell.train_size or most, most)
    return [replace(cell, backbone=name, train_size=size) for name in backbones]


def screen(
    some: Sequence[Cell], settings: Settings, begin: Callable[[Cell], None] = lambda cell: None
) -> Iterator[tuple[Screened, str | None]]:
    """Yields a row for each cell, with the SHA-256 of the images (None where they were not read). What is wrong with
    one backbone is said in its row.

    Errors: UserError for what is wrong with the data set.
    """
    plain = replace(settings, detail=False)
    for cell in some:
        begin(cell)
        with set_up(plain.threads, cell.precision, plain.deterministic, plain.allocator):
            yield _screened(cell, plain)
        release_memory()


def _screened(cell: Cell, settings: Settings) -> tuple[Screened, str | None]:
    base, _, tag = cell.backbone.partition("@")  # what the table has is of the default weights
    info = BACKBONES.get(base)
    known = Screened(
        backbone=cell.backbone,
        top1=top1_of(base, tag) if info and tag else info.top1 if info else None,
        parameters=info.parameters if info else None,
    )
    building = Building()
    weights = "pretrained" if cell.weights == "auto" else cell.weights
    asked = replace(cell, weights=weights, freeze=FROZEN, augment="none")
    try:
        return _looked_at(building, asked, settings, known)
    except (Unavailable, NotApplicable) as error:
        return replace(known, problem=str(error)), None
    except MemoryError:
        return replace(known, problem="not enough memory"), None
    except RuntimeError as error:  # also what a GPU has no memory for
        return replace(known, problem=_first_line(error)), None
    except LostInput as error:
        if building.backbone is not None:  # it is the images that are lost, and to all other backbones as well
            raise
        return replace(known, problem=_first_line(error)), None


def _first_line(error: Exception) -> str:
    return (text_of(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _looked_at(building: Building, cell: Cell, settings: Settings, known: Screened) -> tuple[Screened, str | None]:
    """Returns the row of a backbone and the SHA-256 of its images. Errors: as `Building.build`; MemoryError,
    RuntimeError.
    """
    built = building.build(cell, settings, parse_policy(FROZEN))
    assert building.backbone is not None
    given = building.backbone.weights
    features, seconds = features_of(built)
    labels = built.data.train.classes
    stages = built.model[:-1]
    row = replace(
        known,
        weights=given.source,
        weights_sha256=given.sha256,
        image_size=built.size,
        images=len(labels),
        parameters=sum(one.numel() for one in stages.parameters()),
        features=features.shape[1],
        seconds=seconds,
    )
    try:
        task = transferability.task(features.numpy(), labels)
    except ValueError as error:
        return replace(row, problem=str(error)), built.data.images_sha256
    row = replace(
        row,
        ridge=transferability.ridge_accuracy(task),
        knn=transferability.knn_accuracy(task),
        logme=transferability.logme(task),
    )
    return row, built.data.images_sha256


def features_of(built: BuiltCell) -> tuple[torch.Tensor, float]:
    """Returns the features (n, d) of a built cell's training images, in order, as float32 on the CPU, and the seconds
    that they took.
    """
    stages, source = built.model[:-1], built.sources["train"]
    if built.store is not None:
        return built.store.plain.glimpse(len(stages), built.data.train.index)
    stages.eval()
    began, found = time.perf_counter(), []
    with torch.inference_mode(), built.arithmetic.autocast():
        for positions in torch.arange(len(source)).split(built.cell.batch_size):
            images, _ = source.raw(positions.to(source.place))
            found.append(stages(source.normalise(images)).float().cpu())
    return torch.cat(found), time.perf_counter() - began


def check_weights_of(weights: str) -> None:
    """Raises UserError for weights that a screen cannot take: one checkpoint fits one backbone."""
    if weights not in WEIGHTS:
        raise UserError(
            f"--weights {weights}: a screen compares backbones, and a checkpoint is one's own; choose among "
            f"{', '.join(WEIGHTS)}"
        )
