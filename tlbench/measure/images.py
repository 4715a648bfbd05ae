"""The images of a cell. Nothing here imports torch, so that checking them waits for nothing."""

from __future__ import annotations

from tlbench.backbones.inputs import InputSpec
from tlbench.data import Data, Described, Request, Split, describe_data, load_data
from tlbench.data.data_root import data_root
from tlbench.data.elsewhere import Elsewhere, describe_elsewhere, load_elsewhere
from tlbench.grid.cell import Cell
from tlbench.grid.folding import fold_of
from tlbench.grid.settings import Settings


def load_images(cell: Cell, settings: Settings, spec: InputSpec, size: int) -> Data:
    """Loads the cell's data at ``size`` px, the border cut in the proportion that the weights were evaluated with."""
    with data_root(settings.data_root):
        return load_data(cell.dataset, _request(cell, settings, spec, size), cell.train_size)


def describe_images(
    cell: Cell, settings: Settings, spec: InputSpec, size: int, *, decode: bool = True
) -> Described | None:
    """Returns what `load_images` does without the pixels, as `tlbench.data.describe_data`."""
    with data_root(settings.data_root):
        return describe_data(cell.dataset, _request(cell, settings, spec, size), cell.train_size, decode=decode)


def _request(cell: Cell, settings: Settings, spec: InputSpec, size: int) -> Request:
    return Request(
        size=size,
        resize=spec.resized(size),
        interpolation=spec.interpolation,
        crop_mode=spec.crop_mode,
        fill=spec.fill,
        seed=cell.seed if cell.split_seed is None else cell.split_seed,
        bad_images=settings.bad_images,
        fold=None if cell.fold is None else fold_of(cell.fold),
        relabel=cell.relabel or "",
        decode=cell.decode,
        ram_bytes=settings.data_ram_bytes,
        disk_bytes=settings.data_disk_bytes,
    )


def load_other_images(
    cell: Cell, settings: Settings, taken: tuple[InputSpec, int], dataset: str, own: Described
) -> tuple[Elsewhere, Split]:
    """Loads another data set that the cell's model is tested on, brought to size as its own images are: ``taken`` says
    what the weights were trained for, and the pixels a side. Errors: as `tlbench.data.elsewhere.load_elsewhere`.
    """
    with data_root(settings.data_root):
        return load_elsewhere(dataset, _request(cell, settings, *taken), own)


def describe_other_images(
    cell: Cell,
    settings: Settings,
    taken: tuple[InputSpec, int],
    dataset: str,
    own: Described,
    *,
    decode: bool = True,
) -> Elsewhere | None:
    """Returns what `load_other_images` does without the pixels, as `tlbench.data.elsewhere.describe_elsewhere`."""
    with data_root(settings.data_root):
        return describe_elsewhere(dataset, _request(cell, settings, *taken), own, decode=decode)
