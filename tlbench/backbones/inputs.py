"""The images that weights were trained for. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlbench.errors import unknown

CROP_MODES = ("center", "squash", "border")
"""How an image is brought to its size, in timm's words (`tlbench.data.store.fit`)."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Describes the images that the weights were trained for."""

    size: int
    """Pixels a side."""
    resize: int
    """Pixels before the centre is cut out: of the shorter side (``center``), of both (``squash``), or of the longer one
    (``border``)."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    fixed_size: bool = False
    """Whether no other size works (position embeddings)."""
    min_size: int = 1
    crop_mode: str = "center"
    """One of `CROP_MODES`."""
    crop_share: float | None = None
    """``size`` as a share of ``resize`` before it was rounded, where the weights' authors gave it so."""

    def __post_init__(self) -> None:
        """Raises UserError for a crop mode that there is not."""
        if self.crop_mode not in CROP_MODES:
            raise unknown("crop mode", self.crop_mode, CROP_MODES)

    def resized(self, size: int) -> int:
        """Returns ``resize`` for images of another size: as timm computes it, or in proportion."""
        if self.crop_share is not None:
            return math.floor(size / self.crop_share)
        return round(self.resize * size / self.size)

    @property
    def fill(self) -> tuple[int, int, int]:
        """Returns the colour of what an image does not reach: the mean where timm puts a border around it, or black."""
        if self.crop_mode != "border":
            return 0, 0, 0
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue
