"""Augmentation on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from tlbench.machine.lean import importing
from tlbench.seeds import seed_for


def flips_of(count: int, seed: int) -> Tensor:
    """Returns which of so many images are flipped (n,), on the CPU; the seed alone decides."""
    generator = torch.Generator().manual_seed(seed_for(seed, "flip"))
    return torch.rand(count, generator=generator) < 0.5


def augment(images: Tensor, kind: str, seed: int, flips: Tensor | None = None) -> Tensor:
    """Returns images (n, 3, S, S) uint8, augmented one by one.

    The result depends on the seed alone; torch's random state stays as it was. ``flips`` are those of `flips_of`, where
    they are on the images' device already.
    """
    flips = flips_of(len(images), seed).to(images.device) if flips is None else flips
    images = torch.where(flips[:, None, None, None], images.flip(-1), images)
    if kind == "randaugment":
        with importing():
            from torchvision.transforms import v2

        transform = v2.RandAugment()
        # It draws from the CPU's global generator alone; torch.manual_seed would reset the GPU's as well.
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed_for(seed, "randaugment"))
            images = torch.stack([transform(image) for image in images])
        finally:
            torch.set_rng_state(state)
    return images
