"""The images of a cell. Nothing here imports torch, so that checking them waits for nothing."""

from __future__ import annotations

from tlbench.backbones.inputs import InputSpec
from tlbench.data import Data, Request, load_data
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings


def load_images(cell: Cell, settings: Settings, spec: InputSpec, size: int) -> Data:
    """Loads the cell's data at ``size`` px, the border cut in the proportion that the weights were evaluated with."""
    request = Request(
        size=size,
        resize=spec.resized(size),
        interpolation=spec.interpolation,
        crop_mode=spec.crop_mode,
        fill=spec.fill,
        seed=cell.seed,
        bad_images=settings.bad_images,
    )
    return load_data(cell.dataset, request, cell.train_size)
