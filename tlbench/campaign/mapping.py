"""Adds to a profile what the processes of such cells map for their data, by two batch sizes, each measured in a process
of its own. What is in use tells too little of it: freed memory lies in pieces, differently for each network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tlbench.analysis import costing, footprint
from tlbench.errors import text_of
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import sensors
from tlbench.machine.memory import free_bytes
from tlbench.machine.profiles import Line, Profile, keep_profile

SMALL_IMAGES_PX = 128
MOST_IMAGES = {True: 96, False: 24}
"""Images of the larger batch at most, of small images and of others: so that a cell takes a few seconds."""
LEAST_IMAGES = 8
"""A larger batch of fewer images tells too little of one more."""
PARTS = 4
"""How many times the larger batch has the images of the smaller one."""
STEPS, EPOCHS = 3, 2
"""Steps of the larger batch in an epoch, and epochs at least: what is mapped grows in the first few."""
SYNTHETIC_IMAGES, EVALUATED_IMAGES = 384, 128
"""Images of the data set synthetic, all of which lie in memory, and those that it does not train on."""


def with_mapped(
    profile: Profile,
    cell: Cell,
    limit_bytes: int,
    settings: Settings,
    plugins: Sequence[str],
    say: Callable[[str], None],
) -> Profile:
    """Returns the profile with what such cells map, measured and kept where it is not known; as it is where that tells
    no more than the profile does (a step of so many images takes less than is mapped ahead), or cannot be measured.
    """
    name = footprint.mapped_name(cell)
    largest = images_to_measure(profile, cell, limit_bytes)
    if name in profile.mapped or not largest or os.name != "posix":
        return profile
    from tlbench.campaign.profiling import mapped_bytes

    say(f"{cell.backbone} {cell.freeze}: batches of {largest // PARTS} and {largest}, to see what a process maps")
    settings = replace(settings, prefix="auto", also_test=(), corrupt=(), detail=False, data_root=None, logits=False)
    images = min(STEPS * largest, SYNTHETIC_IMAGES - EVALUATED_IMAGES)
    beside = _beside(profile, cell, images, settings)
    points: dict[int, float] = {}
    try:
        for batch in (largest // PARTS, largest):
            points[batch] = mapped_bytes(_asked(profile, cell, batch, images), settings, plugins) - beside
    except (MemoryError, RuntimeError, OSError) as error:
        first = (text_of(error).strip().splitlines() or [type(error).__name__])[0][:200]
        say(f"{cell.backbone} {cell.freeze}: what it maps could not be measured, so its profile alone tells: {first}")
        return profile
    found = replace(
        profile, mapped={**profile.mapped, name: _line(points, footprint.working_bytes(profile, cell).each)}
    )
    if largest == _most(profile):  # else a later time may see more of it
        keep_profile(found)
    return found


def _line(points: Mapping[int, float], least: float) -> Line:
    """Returns the line through what two batches have mapped. No image maps less than the ``least``, which it uses."""
    line, many = Line.through(points), max(points)
    return line if line.each >= least else Line(points[many] - many * least, least)


def _most(profile: Profile) -> int:
    return MOST_IMAGES[profile.size <= SMALL_IMAGES_PX]


def images_to_measure(profile: Profile, cell: Cell, limit_bytes: int) -> int:
    """Returns the images of the larger batch that is measured: at most about as many as will fit, here too; 0 where
    measuring tells nothing: where no system tells what is mapped, and where frozen stages run in batches of their own
    before, which may map more than these steps.
    """
    phases = costing.phases_of(profile, cell) or ()
    if cell.task != "train" or costing.is_fitted(cell) or any(phase.cut in profile.worth for phase in phases):
        return 0
    if sensors.field_of(sensors.PROCESS / "self/status", "VmData") is None:
        return 0
    guess = footprint.largest_batch(profile, cell, min(limit_bytes, free_bytes() // 2))
    images = min(guess, _most(profile))
    worth = footprint.working_bytes(profile, cell).each * images >= footprint.PAD_BYTES
    return images if worth and images >= LEAST_IMAGES else 0


def _asked(profile: Profile, cell: Cell, batch: int, images: int) -> Cell:
    """Returns a short cell like this one on random images."""
    epochs = max(EPOCHS, len(costing.phases_of(profile, cell) or ()))
    return replace(
        cell, dataset="synthetic", weights="random", batch_size=batch, train_size=images, epochs=epochs, fold=None,
        split_seed=None, relabel=None, augment="none", class_weights="none", sampler="shuffle", lr=None,
        backbone_lr=None, patience=None, decode="exact",
    )  # fmt: skip


def _beside(profile: Profile, cell: Cell, images: int, settings: Settings) -> int:
    """Returns the bytes of the images of such a cell that trains on so many, and of the activations that it keeps."""
    cuts = costing.filled_cuts(profile, cell, settings, (), cell.epochs)
    kept = footprint.kept_bytes(profile, images + EVALUATED_IMAGES, cuts)
    return 3 * profile.size**2 * SYNTHETIC_IMAGES + kept
