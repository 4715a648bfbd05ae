"""The images that weights were trained for. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Describes the images that the weights were trained for."""

    size: int
    """Pixels a side."""
    resize: int
    """The shorter side before the centre is cut out, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    fixed_size: bool = False
    """Whether no other size works (position embeddings)."""
    min_size: int = 1
