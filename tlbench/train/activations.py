"""Activations at the cut: what a frozen prefix computes, computed once and shared by every cell that needs it.

A frozen prefix in eval mode maps an image to the same activations in every epoch, so heads, policies with the same
cut, seeds and learning-rate trials can share them. What decides them is in the key: weights, pixels, normalisation,
stages, precision, layout, device and threads. Images are always taken in the same batches (`chunk_of`), whoever asks
first, so that a result does not depend on which cells ran before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlbench.data.store import free_bytes
from tlbench.machine.arithmetic import Compute
from tlbench.machine.cache import cache_folder
from tlbench.train.pooling import faster_pooling

CHUNK, LARGEST_CHUNK = 32, 128
"""Images in a batch of the prefix: at 224 px, and of small ones, whose maps would leave the processor waiting."""
RAM_SHARE, DISK_SHARE = 0.25, 0.1
"""Of what is free: the default budgets."""
MODES = {
    "auto": "keep the frozen prefix's activations where there is room for them",
    "on": "keep them, or fail when there is no room",
    "off": "compute the prefix in every epoch",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much room activations may take, in bytes; None takes the default share of what is free."""

    ram_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The activations of all images of a store at one boundary."""

    activations: Tensor
    """(M, …): channels last in memory where the layout is."""
    boundary: int
    """Number of stages that have run."""
    seconds: float
    """What computing them took: all stages from the images on."""
    images: int
    where: str
    """memory, disk or the device's name."""
    shared: bool = False
    """Computed earlier, for another cell."""
    channels_last: bool = False
    """Kept as (M, H, W, C)."""

    @property
    def bytes(self) -> int:
        """Of the activations."""
        return self.activations.numel() * self.activations.element_size()

    def take(self, index: Tensor, device: torch.device) -> Tensor:
        """The activations (n, …) of images of the store, on the device."""
        found = self.activations.index_select(0, index.to(self.activations.device))
        if found.ndim == 4 and self.channels_last:
            found = found.permute(0, 3, 1, 2)
        return found.to(device, non_blocking=True)


@dataclass(kw_only=True)
class Prefix:
    """The stages before a model's head, in eval mode with their initial weights, over one store of images."""

    stages: nn.Sequential
    images: Tensor
    """(M, 3, S, S) uint8."""
    prepare: Callable[[Tensor, int], Tensor]
    """(uint8 images on the device, the number of the first one) -> what the backbone takes."""
    compute: Compute
    key: str
    """Hash of everything that decides the activations but the boundary."""
    budget: Budget = field(default_factory=Budget)
    rows: Tensor | None = None
    """Positions (n,) of the images to run; None: all, in order."""
    notes: list[str] = field(default_factory=list)
    """What a person should know: a store that did not fit, a damaged file."""

    def at(self, boundary: int, also: Iterable[int] = ()) -> Stored | None:
        """The activations after ``boundary`` stages; None where there is no room for them.

        ``also`` names boundaries that others will ask for: they are filled in the same pass.
        """
        if boundary < 1:
            return None
        if found := self._find(boundary):
            return found
        wanted = sorted({boundary, *(b for b in also if b >= 1 and not self._find(b))})
        self._fill(wanted, needed=boundary)
        kept = _kept.get(self._name(boundary))
        return kept[0] if kept else None

    def has(self, boundary: int) -> bool:
        """Whether the activations after ``boundary`` stages are in memory."""
        return boundary < 1 or self._name(boundary) in _kept

    @property
    def _count(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def _name(self, boundary: int) -> str:
        return f"{self.key}-{boundary}"

    def _find(self, boundary: int) -> Stored | None:
        name = self._name(boundary)
        if name in _kept:
            _kept.move_to_end(name)
            stored = _kept[name][0]
            return replace(stored, shared=True)
        stored_file = self._open_file(name, boundary)
        if stored_file is not None:
            _kept[name] = (stored_file, 0)
        return stored_file

    def _fill(self, wanted: list[int], needed: int) -> None:
        """Runs all images through the stages up to the last wanted boundary, keeping what fits."""
        targets: dict[int, _Target] = {}
        seconds = dict.fromkeys(wanted, 0.0)
        self.stages.eval()
        with torch.inference_mode(), self.compute.autocast(), faster_pooling(self.stages):
            step = chunk_of(self.images.shape[-1])
            for start in range(0, self._count, step):
                begin = self._now()
                chunk = slice(start, start + step)
                pixels = self.images[chunk if self.rows is None else self.rows[chunk]]
                x = self.prepare(pixels.to(self.compute.device, non_blocking=True), start)
                done, first = 0, {}
                for boundary in sorted(targets) if start else wanted:
                    x = self.stages[done:boundary](x)
                    done = boundary
                    if start:
                        targets[boundary].put(start, x)
                    else:
                        first[boundary] = x
                    seconds[boundary] += self._now() - begin
                if not start:  # the first batch tells how much room they need
                    targets = self._make_room(first, needed)
                    for boundary, target in targets.items():
                        target.put(0, first[boundary])
                    if not targets:
                        return
        for boundary, target in targets.items():
            stored = target.finish(boundary, seconds[boundary], self._count)
            _kept[self._name(boundary)] = (stored, target.ram_bytes)

    def _make_room(self, outputs: dict[int, Tensor], needed: int) -> dict[int, _Target]:
        """For the activations of which ``outputs`` are the first, as far as there is room; for none where the needed
        ones do not fit.
        """
        targets: dict[int, _Target] = {}
        # What was asked for comes first; what others will need takes the room that is left.
        for boundary in sorted(outputs, key=lambda b: b != needed):
            target = self._allocate(boundary, tuple(outputs[boundary].shape[1:]), outputs[boundary].dtype)
            if target is not None:
                targets[boundary] = target
        if needed in targets:
            return targets
        for target in targets.values():
            target.drop()
        return {}

    def _allocate(self, boundary: int, shape: tuple[int, ...], dtype: torch.dtype) -> _Target | None:
        last = self.compute.channels_last and len(shape) == 3
        shape = (shape[1], shape[2], shape[0]) if last else shape
        whole = (self._count, *shape)
        size = int(np.prod(whole, dtype=np.int64)) * dtype.itemsize
        common: dict[str, Any] = {"channels_last": last, "device": self.compute.device}
        if self.compute.device.type == "cuda" and size <= RAM_SHARE * torch.cuda.mem_get_info(self.compute.device)[0]:
            tensor = torch.empty(whole, dtype=dtype, device=self.compute.device)
            return _Target(tensor=tensor, where=str(self.compute.device), ram_bytes=0, **common)
        kept = sum(taken for _, taken in _kept.values())
        budget = self.budget.ram_bytes
        budget = int(RAM_SHARE * (free_bytes() + kept)) if budget is None else budget
        while _kept and kept + size > budget >= size and _forget_oldest():
            kept = sum(taken for _, taken in _kept.values())
        if kept + size <= budget:
            return _Target(tensor=torch.empty(whole, dtype=dtype), where="memory", ram_bytes=size, **common)
        return self._allocate_file(boundary, whole, dtype, size, budget, common)

    # --- files ------------------------------------------------------------------------------------------------

    def _allocate_file(
        self, boundary: int, whole: tuple[int, ...], dtype: torch.dtype, size: int, ram: int, common: dict[str, Any]
    ) -> _Target | None:
        folder = cache_folder() / "prefix"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stores = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
            taken = sum(path.stat().st_size for path in stores)
            budget = self.budget.disk_bytes
            budget = int(DISK_SHARE * (shutil.disk_usage(folder).free + taken)) if budget is None else budget
            while stores and taken + size > budget >= size:  # those of the longest ago give way
                taken -= stores[0].stat().st_size
                _remove(stores.pop(0))
            if taken + size > budget:
                self._note(
                    f"activations of {_size(size)} fit neither into memory ({_size(ram)}) nor onto the disk "
                    f"({_size(max(budget - taken, 0))} left of {_size(budget)}): the prefix is computed in every epoch"
                )
                return None
            path = folder / f"{self._name(boundary)}.{os.getpid()}.part"
            array = np.lib.format.open_memmap(path, "w+", dtype=_NUMPY[dtype], shape=whole)
            with path.open("rb+") as file:  # a full disk must show now: later it would kill the process
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            self._note(
                f"activations of {_size(size)} do not fit into memory ({_size(ram)}), and {folder} cannot take them "
                f"({error.strerror}): the prefix is computed in every epoch"
            )
            return None
        self._note(f"activations of {_size(size)} exceed the memory for them ({_size(ram)}) and lie on the disk")
        return _Target(
            tensor=torch.from_numpy(array).view(dtype),
            where="disk",
            ram_bytes=0,
            path=path,
            final=folder / f"{self._name(boundary)}.npy",
            **common,
        )

    def _open_file(self, name: str, boundary: int) -> Stored | None:
        """A store that an earlier run left, checked bit for bit; a damaged one is removed, with a word."""
        path = cache_folder() / "prefix" / f"{name}.npy"
        facts_path = path.with_suffix(".json")
        if not path.exists():
            return None
        try:
            facts = json.loads(facts_path.read_text(encoding="utf-8"))
            if facts["sha256"] != _hash_file(path):
                raise ValueError("its hash does not fit")
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            dtype = getattr(torch, str(facts["dtype"]))
            tensor = torch.from_numpy(array).view(dtype)
            return Stored(
                activations=tensor,
                boundary=boundary,
                seconds=float(facts["seconds"]),
                images=int(facts["images"]),
                where="disk",
                shared=True,
                channels_last=bool(facts["channels_last"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._note(f"the stored activations {path.name} are damaged ({error}): computed again")
            _remove(path)
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _now(self) -> float:
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize(self.compute.device)
        return time.perf_counter()


@dataclass(kw_only=True)
class _Target:
    """Room for a store that is being filled."""

    tensor: Tensor
    where: str
    ram_bytes: int
    channels_last: bool
    device: torch.device
    path: Path | None = None
    final: Path | None = None

    def put(self, start: int, x: Tensor) -> None:
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        self.tensor[start : start + len(x)] = x.to(self.tensor.device)

    def drop(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def finish(self, boundary: int, seconds: float, images: int) -> Stored:
        stored = Stored(
            activations=self.tensor,
            boundary=boundary,
            seconds=seconds,
            images=images,
            where=self.where,
            channels_last=self.channels_last,
        )
        if self.path is None or self.final is None:
            return stored
        # Written aside and renamed, with its hash: a killed process leaves no file that looks whole.
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        facts = {
            "sha256": _hash_file(self.path),
            "dtype": str(self.tensor.dtype).removeprefix("torch."),
            "seconds": seconds,
            "images": images,
            "channels_last": self.channels_last,
        }
        facts_path = self.final.with_suffix(".json")
        aside = facts_path.with_suffix(f".facts.{os.getpid()}.part")
        aside.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(aside, facts_path)
        os.replace(self.path, self.final)
        return stored


_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}

_kept: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
"""Name -> store, and the bytes it takes of the memory budget; the one used longest ago is first."""


def _remove(path: Path) -> None:
    for file in (path, path.with_suffix(".json")):
        with contextlib.suppress(OSError):
            file.unlink()


def _forget_oldest() -> bool:
    for name, (_, taken) in _kept.items():
        if taken:
            del _kept[name]
            return True
    return False


def forget(keys: Iterable[str] | None = None) -> None:
    """Keeps in memory nothing any more of what has these keys, or nothing at all; files stay."""
    for name in list(_kept):
        if keys is None or name.rpartition("-")[0] in keys:
            del _kept[name]


def discard(keys: set[str]) -> None:
    """Keeps nothing of what has these keys, neither in memory nor on the disk: it is wrong."""
    forget(keys)
    for path in (cache_folder() / "prefix").glob("*.npy"):
        if path.stem.rpartition("-")[0] in keys:
            _remove(path)


def chunk_of(pixels: int) -> int:
    """Images in a batch of the prefix, where they have so many pixels a side: always the same for a size."""
    return min(max(CHUNK, CHUNK * 224**2 // pixels**2), LARGEST_CHUNK)


def key_of(**facts: Any) -> str:
    """32 hexadecimal digits for everything that decides the activations."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def clear_files() -> tuple[int, int]:
    """Removes the stored activations. Returns how many files there were, and their bytes."""
    count = size = 0
    for path in (cache_folder() / "prefix").glob("*"):
        size += path.stat().st_size
        count += path.suffix == ".npy"
        path.unlink()
    return count, size


def files() -> tuple[int, int]:
    """How many stored activations there are in the cache folder, and their bytes."""
    sizes = [path.stat().st_size for path in (cache_folder() / "prefix").glob("*.npy")]
    return len(sizes), sum(sizes)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
