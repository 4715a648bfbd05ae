"""What frozen stages make of the images of a test, kept in memory for other cells with the same frozen stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tlbench.data import Split
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.kept import KEPT
from tlbench.machine.memory import free_bytes
from tlbench.train.activations import Prefix
from tlbench.train.room import RAM_SHARE
from tlbench.train.source import Source, Taking
from tlbench.train.stored import Budget


class Featured:
    """Gives the images of another source, and what is kept of them (`tlbench.train.source.Source`)."""

    def __init__(self, source: Source, prefix: Prefix, labels: Tensor) -> None:
        """``prefix`` runs the source's images, in their order; ``labels`` (n,) are on the device."""
        self.source, self.prefix, self.labels = source, prefix, labels

    def __len__(self) -> int:
        return len(self.source)

    @property
    def arithmetic(self) -> Arithmetic:
        return self.source.arithmetic

    @property
    def place(self) -> torch.device:
        return self.source.place

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.source.raw(positions)

    def follow(self, batches: Sequence[Tensor]) -> None:
        self.source.follow(batches)

    def normalise(self, images: Tensor) -> Tensor:
        return self.source.normalise(images)

    def stored(self, boundary: int, epoch: int | None) -> Taking | None:
        kept = self.prefix.at(boundary)
        if kept is None:
            return None
        rows = torch.arange(len(self.source), device=kept.activations.device)
        return Taking(kept=kept, index=rows, labels=self.labels)


def prefix_over(plain: Prefix, split: Split, prepare: Callable[[Tensor], Tensor], key: str) -> Prefix:
    """Returns what runs a cell's frozen stages over the images of a test, each ``prepare``-d; ``key`` is the hash of
    all that decides what comes out. It is kept in memory or not at all, and for all blocks of a run: it is not timed.
    """
    return replace(
        plain,
        images=split.images,
        rows=split.index,
        prepare=lambda images, _: prepare(images),
        key=key,
        budget=Budget(ram_bytes=plain.budget.ram_bytes, disk_bytes=0),
        notes=[],
        block=0,
        quiet=False,
    )


def has_room(plain: Prefix, needed: int) -> bool:
    """Tells whether so many bytes have room beside all that is kept of frozen stages: nothing that cells are timed with
    may have to go for a test.
    """
    kept, budget = KEPT.activations.bytes(), plain.budget.ram_bytes
    return kept + needed <= (RAM_SHARE * (free_bytes() + kept) if budget is None else budget)
