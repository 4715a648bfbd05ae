"""A cell's images, and the kept activations of its frozen stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tlbench.backbones.base import InputSpec, StageCost
from tlbench.data import Split
from tlbench.data.streaming import Ahead, Streamed
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.arithmetic import Arithmetic
from tlbench.seeds import seed_for
from tlbench.train import activations
from tlbench.train.activations import Prefix
from tlbench.train.augment import augment
from tlbench.train.placed import gather
from tlbench.train.source import Taking
from tlbench.train.stored import Stored

SHARE_WORTH_KEEPING = 0.05
"""Of the forward FLOPs: a prefix that computes less is not worth the room its activations take."""


@dataclass(frozen=True, kw_only=True)
class PrefixUse:
    """Says what a cell took of kept activations; without boundaries it took nothing."""

    boundaries: list[int]
    """Numbers of stages whose outputs were taken."""
    seconds: float
    """What computing them took, once."""
    training_seconds: float
    """Of these, the share of the images that training takes; the others are for evaluation."""
    screened_seconds: float
    """Of ``seconds``, those of a screen before the run, whose features were taken."""
    bytes: int
    images: int
    where: str
    """memory, disk or the device's name."""
    shared: bool
    """Whether all of it was computed for an earlier cell."""
    views: int
    """Augmented views among it."""
    notes: list[str]
    """What a person should know: a store that did not fit, a damaged file."""
    fills: list[str]
    """Names of the passes that it was computed in: cells that name the same one share one measurement."""
    noisy: str
    """Why the seconds are not to be trusted; empty when they are."""
    throttled: str

    def to_dict(self) -> dict[str, Any]:
        """Returns what the record says; it is empty where there is nothing to say."""
        if self.boundaries:
            told = asdict(self)
            if not self.screened_seconds:
                del told["screened_seconds"]
            return told
        return {"notes": self.notes} if self.notes else {}


class PrefixStore:
    """Holds the kept activations of a cell's frozen stages: those of the plain images, and of augmented views."""

    def __init__(self, cell: Cell, settings: Settings, plain: Prefix, worth: frozenset[int]) -> None:
        self.cell, self.settings, self.plain = cell, settings, plain
        self.worth = worth
        """Boundaries after which it pays to keep the activations."""
        self.tests: set[str] = set()
        """Keys of what is kept of the images of other tests (`tlbench.train.featured`)."""
        self._also: frozenset[int] = frozenset()
        self._views: dict[int, Prefix] = {}
        self._used: dict[tuple[int, int | None], Stored] = {}
        self._training = 0
        """Training images among those of the plain pass that training takes from it."""

    def prepare(self, boundaries: Iterable[int], also: Callable[[], Iterable[int]], rows: Tensor) -> None:
        """Computes what a run with these cuts will take, before any weight has moved; in the same pass, as far as
        there is room, what other cells will take (``also``). ``rows`` are the training images (n,).
        """
        self._training = len(rows) if self.cell.augment == "none" else 0  # else it takes views, of these images alone
        own = frozenset(boundaries) & self.worth if self.settings.prefix == "auto" else frozenset(boundaries)
        self._also = own
        if not all(self.plain.has(boundary) for boundary in own):
            self._also |= frozenset(also()) & self.worth
        for boundary in sorted(own - {0}, reverse=True):
            self.at(boundary, None, rows)
            if self.cell.augment != "none":
                for view in range(self.settings.views):
                    self.at(boundary, view, rows)
        self._also = frozenset()

    def at(self, boundary: int, view: int | None, rows: Tensor) -> Stored | None:
        """Returns the activations after a boundary; None where nothing is kept. Errors: RuntimeError with ``--prefix
        on`` where there is no room.
        """
        if self.settings.prefix == "auto" and boundary not in self.worth:
            return None
        source = self.plain if view is None else self._view(view, rows)
        stored = source.at(boundary, self._also)
        if stored is None:
            if self.settings.prefix == "on":
                raise RuntimeError(f"--prefix on: {'; '.join(self.plain.notes)}")
            return None
        self._used.setdefault((boundary, view), stored)
        return stored

    def row_of(self, index: Tensor) -> Tensor:
        """Maps positions (n,) in the store of images to rows of the activations."""
        rows = self.plain.rows
        return index if rows is None else torch.searchsorted(rows, index)

    def use(self) -> PrefixUse:
        """Says what the cell took of the store so far."""
        # One pass fills all boundaries of a view, and takes as long as the last of them.
        passes = {
            view: max((s for (_, v), s in self._used.items() if v == view), key=lambda s: s.seconds)
            for view in {view for _, view in self._used}
        }
        stores = list(self._used.values())
        fills = [s.fill for s in passes.values()]
        return PrefixUse(
            boundaries=sorted({boundary for boundary, _ in self._used}),
            seconds=sum(s.seconds for s in passes.values()),
            training_seconds=sum(
                s.seconds * (1 if view is not None else self._training / s.images) for view, s in passes.items()
            ),
            screened_seconds=sum(s.screened_seconds for s in passes.values()),
            bytes=sum(stored.bytes for stored in stores),
            images=max((stored.images for stored in stores), default=0),
            where=", ".join(sorted({stored.where for stored in stores})),
            shared=all(stored.shared for stored in stores),
            views=len(passes.keys() - {None}),
            notes=list(self.plain.notes),
            fills=sorted({fill.name for fill in fills}),
            noisy=next((fill.noisy for fill in fills if fill.noisy), ""),
            throttled=next((fill.throttled for fill in fills if fill.throttled), ""),
        )

    def bytes_on(self, device: torch.device) -> int:
        """Counts the bytes of what the cell has taken that lie on a device."""
        return sum(s.bytes for s in self._used.values() if s.activations.device == device)

    def forget(self, pretrained: bool, other_seeds: bool) -> None:
        """Gives back the memory of what no later cell takes, where those that follow, if any, have other seeds: they
        share the plain images' activations alone, and these only of pretrained weights and of all images.
        """
        keys = {view.key for view in self._views.values()}
        if not (other_seeds and pretrained and self.plain.rows is None):
            keys |= {self.plain.key, *self.tests}
        activations.forget(keys)

    def discard(self) -> None:
        """Drops all that this cell kept or took, since its stages were not what they should be."""
        views = (view.key for view in self._views.values())
        activations.discard({self.plain.key, self.plain.key + activations.SOME, *self.tests, *views})

    def _view(self, view: int, rows: Tensor) -> Prefix:
        """Returns the training images as they look in one augmented view, by seed, view and position alone."""
        if view not in self._views:
            cell, plain = self.cell, self.plain

            def prepare(images: Tensor, start: int) -> Tensor:
                seed = seed_for(cell.seed, "view", f"{view}/{start}")
                return plain.prepare(augment(images, cell.augment, seed), start)

            key = activations.key_of(
                plain=plain.key, augment=cell.augment, view=view, seed=cell.seed, rows=rows.tolist()
            )
            self._views[view] = replace(plain, prepare=prepare, key=key, rows=rows)
        return self._views[view]


class Feed:
    """Feeds the images of a split, moved to the device and normalised there (`tlbench.train.source.Source`)."""

    def __init__(
        self, split: Split, spec: InputSpec, arithmetic: Arithmetic, images: Tensor | Streamed | None = None
    ) -> None:
        """``images``: the store of the split (M, 3, S, S) where it also lies on the device."""
        self.split, self.arithmetic = split, arithmetic
        self.images = split.images if images is None else images
        self.index = split.index.to(self.images.device)
        self.labels = split.labels.to(arithmetic.device)
        self.mean = torch.tensor(spec.mean, device=arithmetic.device).view(1, 3, 1, 1)
        self.std = torch.tensor(spec.std, device=arithmetic.device).view(1, 3, 1, 1)
        self.store: PrefixStore | None = None
        self._ahead: Ahead | None = None
        self._takings: dict[tuple[int, int | None], Taking] = {}

    def __len__(self) -> int:
        return len(self.split)

    @property
    def place(self) -> torch.device:
        return self.images.device

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        device = self.arithmetic.device
        index = self.index[positions.to(self.place)]
        if self._ahead is not None:
            pixels = self._ahead.take(index.numpy()).to(device, non_blocking=True)
        else:
            pixels = gather(self.images, index, device)
        return pixels, self.labels[positions.to(device, non_blocking=True)]

    def follow(self, batches: Sequence[Tensor]) -> None:
        if isinstance(self.images, Streamed):
            index, pinned = self.index, self.arithmetic.device.type == "cuda"
            self._ahead = self.images.ahead((index[batch.to(self.place)].numpy() for batch in batches), pinned)

    def normalise(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.arithmetic.channels_last else torch.contiguous_format
        scaled = images.to(torch.float32, memory_format=layout).div_(255).sub_(self.mean).div_(self.std)
        return scaled.to(self.arithmetic.dtype)

    def stored(self, boundary: int, epoch: int | None) -> Taking | None:
        store = self.store
        if store is None or boundary < 1:
            return None
        index = self.split.index
        view = epoch % store.settings.views if epoch is not None and store.cell.augment != "none" else None
        kept = store.at(boundary, view, index)
        if kept is None:
            return None
        taking = self._takings.get((boundary, view))
        if taking is None or taking.kept.activations is not kept.activations:
            # A view holds the training images alone, in the order of the split.
            rows = store.row_of(index) if view is None else torch.arange(len(index))
            taking = Taking(kept=kept, index=rows.to(kept.activations.device), labels=self.labels)
            self._takings[boundary, view] = taking
        return taking


def worth_keeping(stages: Iterable[StageCost]) -> frozenset[int]:
    """Returns the boundaries after which it pays to keep the activations; the last of ``stages`` is the head."""
    flops = [stage.flops for stage in stages][:-1]
    total = max(sum(flops), 1)
    return frozenset(b for b in range(1, len(flops) + 1) if sum(flops[:b]) >= SHARE_WORTH_KEEPING * total)
