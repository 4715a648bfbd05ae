"""The frozen part of a cell: where each phase cuts the model, and what is kept of the stages before the cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from tlbench.backbones.base import Backbone
from tlbench.machine.environment import stable
from tlbench.measure.place import ALONE, Place
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import parse_policy
from tlbench.train.activations import Prefix, key_of
from tlbench.train.code import code_of
from tlbench.train.prefix import PrefixStore, worth_keeping
from tlbench.train.stored import Budget

if TYPE_CHECKING:
    from tlbench.measure.build import BuiltCell

SHARE_THAT_RUNS_ALL = 0.9
"""A cell that uses at least this share of a store's images has the prefix run on all of them."""


def cuts_of(built: BuiltCell, phases: Iterable[Phase]) -> list[int]:
    """Returns the cut of each phase: the number of stages before the first that trains or adapts."""
    cuts = []
    for phase in phases:
        freezing.apply(built.model, phase)
        cuts.append(freezing.cut(built.model))
    return cuts


def cuts_of_others(built: BuiltCell, policies: Iterable[str]) -> frozenset[int]:
    """Returns where other freeze policies would cut this model; those that mean nothing for it cut nowhere.

    A model with an adapter in it is another one than theirs.
    """
    if built.adapter:
        return frozenset()
    cuts: set[int] = set()
    for text in policies:
        try:
            expression = parse_policy(text)
            if expression.policy.adapter or expression.policy.weights:
                continue  # another model
            cuts.update(cuts_of(built, expression.phases(built.described, built.cell.epochs)))
        except Exception:  # one from outside may raise anything, which its own cell will tell
            continue
    return frozenset(cuts)


def holds(boundaries: Sequence[int]) -> list[bool]:
    """Tells for each phase whether what was stored before training holds: no phase before it trains before its cut."""
    return [b == min(boundaries[: i + 1]) for i, b in enumerate(boundaries)]


def keep_prefix(built: BuiltCell, backbone: Backbone) -> None:
    """Gives the cell's images a store of what its frozen stages compute, where the settings ask for one."""
    cell, settings = built.cell, built.settings
    if settings.prefix == "off" or (cell.augment != "none" and not settings.views):
        return
    arithmetic, feed, spec, data = built.arithmetic, built.sources["train"], backbone.input, built.data
    # Where nearly all images are used, all are run, so that every seed's splits share the result.
    used = torch.cat([data.train.index, data.val.index, data.test.index]).unique()
    # Together, folds use all images, whatever one of them is trained on.
    few = cell.fold is None and len(used) < SHARE_THAT_RUNS_ALL * len(data.train.images)
    rows = used if few else None
    key = key_of(
        weights=backbone.weights.sha256,
        backbone=backbone.name,
        code=code_of(built.model[:-1]),
        images=data.pixels_sha256,
        rows=None if rows is None else rows.tolist(),
        mean=spec.mean,
        std=spec.std,
        precision=arithmetic.precision,
        channels_last=arithmetic.channels_last,
        threads=torch.get_num_threads(),
        machine=stable(arithmetic.device),
        # What an adapter puts before the cut is no part of the loaded weights.
        **({"adapter": (cell.freeze, cell.seed)} if built.adapter else {}),
    )
    plain = Prefix(
        stages=built.model[:-1],
        images=feed.images,
        rows=rows,
        prepare=lambda images, _: feed.normalise(images),
        arithmetic=arithmetic,
        key=key,
        budget=Budget(ram_bytes=settings.prefix_ram_bytes, disk_bytes=settings.prefix_disk_bytes),
    )
    store = PrefixStore(cell, settings, plain, worth_keeping(built.stages))
    for source in built.sources.values():
        source.store = store


def fill_prefix(built: BuiltCell, boundaries: Sequence[int], place: Place = ALONE) -> None:
    """Computes what the phases with these cuts will take of the frozen stages, before any weight has moved.

    In the same pass it computes what the other policies of the grid will take. Each block of a run measures this anew.
    Errors: RuntimeError with ``--prefix on`` where there is no room.
    """
    if built.store is not None:
        plain = built.store.plain
        plain.block, plain.quiet, plain.noise_limit = place.block, place.again, built.settings.noise_limit
        needed = {b for b, kept in zip(boundaries, holds(boundaries), strict=True) if kept}
        also = partial(cuts_of_others, built, place.siblings) if built.cell.augment == "none" else frozenset[int]
        built.store.prepare(needed, also, built.data.train.index)


def kept_flops(
    built: BuiltCell, phases: Sequence[Phase], boundaries: Sequence[int], kept: Iterable[int]
) -> dict[str, int]:
    """Counts the FLOPs of the stages whose stored output each phase took, for one image; 0 where it took none.

    ``kept`` are the boundaries after which activations were stored.
    """
    stored = set(kept)
    return {
        phase.name: sum(stage.flops for stage in built.stages[:b]) if good and b in stored else 0
        for phase, b, good in zip(phases, boundaries, holds(boundaries), strict=True)
    }
