"""Activations at the cut: what a frozen prefix computes, computed once and shared by every cell that needs it.

A frozen prefix in eval mode maps an image to the same activations in every epoch, so heads, policies with the same
cut, seeds and learning-rate trials can share them. What decides them is in the key: weights, pixels, normalisation,
stages, code, precision, layout, device and threads. Images are always taken in the same batches (`chunk_of`), whoever
asks first, so that a result does not depend on which cells ran before. One file, since who may take activations
is decided by how they were filled.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlbench.data.streaming import Ahead, Streamed
from tlbench.grid.values import written_size
from tlbench.machine import sensors
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.kept import KEPT, MEMORY
from tlbench.machine.memory import free_bytes
from tlbench.machine.noise import SHARED, Noise, Watch, noisy, shares_node
from tlbench.train import files, inventory
from tlbench.train.chunks import chunk_of
from tlbench.train.filling import Target
from tlbench.train.pooling import faster_pooling
from tlbench.train.room import RAM_SHARE, make_room_on
from tlbench.train.stored import Budget, Fill, Stored

LIVE = "the prefix is computed in every epoch"
"""What follows where activations are not kept."""
MOSTLY = 0.8
"""Share of a batch's images that somebody has to look at for the whole batch to be run, and left for a later fill."""
SOME = "some"
"""What follows the key in names of files that hold the activations of some batches alone."""


@dataclass(kw_only=True)
class Prefix:
    """Runs the stages before a model's head, in eval mode with their initial weights, over one store of images."""

    stages: nn.Sequential
    images: Tensor | Streamed
    """(M, 3, S, S) uint8, on the device or in main memory, or what brings them there."""
    prepare: Callable[[Tensor, int], Tensor]
    """(uint8 images on the device, the number of the first one) -> what the backbone takes."""
    arithmetic: Arithmetic
    key: str
    """Hash of everything that decides the activations but the boundary."""
    budget: Budget = field(default_factory=Budget)
    rows: Tensor | None = None
    """Positions (n,) of the images to run; None: all, in order."""
    notes: list[str] = field(default_factory=list)
    """What a person should know: a store that did not fit, a damaged file."""
    block: int = 0
    """Of the run: each has a fill of its own, or takes a file that the same block of an earlier run left."""
    quiet: bool = False
    """A fill that was noisy is measured again."""
    noise_limit: float = 0.02
    """Share of a pass that something may wait for a processor."""
    taken: set[str] = field(default_factory=set)
    """Names of what the cell takes, of all its images and views: none of it makes room for more."""
    _own: set[str] = field(default_factory=set, init=False)
    """Names of the fills that were measured here."""
    _rows_there: Tensor | None = field(default=None, init=False)
    """`rows`, where the images are."""
    _ahead: Ahead | None = field(default=None, init=False)
    """Brings the batches of a pass, of images that are in no memory."""

    def at(self, boundary: int, also: Iterable[int] = ()) -> Stored | None:
        """Returns the activations after ``boundary`` stages; None where there is no room for them.

        ``also`` names boundaries that others will ask for: they are filled in the same pass.
        """
        if boundary < 1:
            return None
        self.taken.add(self._name(boundary))
        if found := self._find(boundary):
            return found
        wanted = sorted({boundary, *(b for b in also if b >= 1 and not self._find(b))})
        self._fill(wanted, needed=boundary)
        kept: Stored | None = KEPT.activations.get(self._name(boundary))
        return kept

    def has(self, boundary: int) -> bool:
        """Tells whether the activations after ``boundary`` stages are in memory, as this cell may take them."""
        return boundary < 1 or self._holds(KEPT.activations.get(self._name(boundary)))

    def glimpse(self, boundary: int, positions: Tensor) -> tuple[Tensor, float]:
        """Returns the activations (n, …) of some images alone, as float32 on the CPU, by their positions (n,) in the
        store of images; and the seconds that this took.

        Batches of a fill that consist of them for the most part run whole, and a file keeps what comes of them: a later
        fill takes them from it, to the last bit, and computes the others. The other images run by themselves: what
        comes of a batch that no fill has is not kept.
        """
        if self.arithmetic.device.type == "cuda":
            self._warm(boundary)
        batches, rest = self._divided(positions)
        watch = Watch(lambda: None, sensors.reader(self.arithmetic.device.type, self.arithmetic.device.index))
        watch.setup()
        begin = self._now()
        self._look_ahead([self._positions(start) for start, _ in batches] + [one.numpy() for one in rest])
        found, rows, seconds = [], [], 0.0
        self.stages.eval()
        with torch.inference_mode(), self.arithmetic.autocast(), faster_pooling(self.stages):
            for start, _ in batches:
                found.append(self.stages[:boundary](self._chunk(start)))
                rows.append(torch.from_numpy(self._positions(start)))
            if batches:
                seconds = self._now() - begin
            for some in rest:
                found.append(self.stages[:boundary](self._images_at(some)))
                rows.append(some)
            whole = self._now() - begin
        watch.close()
        self._ahead = None
        if batches:
            self._keep_some(boundary, batches, found[: len(batches)], seconds, self._fill_of(watch.rounds[0], whole))
        place = torch.empty(int(torch.cat(rows).max()) + 1, dtype=torch.int64)
        place[torch.cat(rows)] = torch.arange(sum(map(len, rows)))
        return torch.cat([one.float().cpu() for one in found])[place[positions]], whole

    def _divided(self, positions: Tensor) -> tuple[list[tuple[int, int]], list[Tensor]]:
        """Divides images of the store into batches of a fill that run whole (first one, how many), and batches of what
        is left (their positions).
        """
        step = chunk_of(self.images.shape[-1], self.arithmetic.device)
        wanted = positions.sort().values
        numbers = wanted if self.rows is None else torch.searchsorted(self.rows, wanted)
        starts, counts = (numbers // step * step).unique(return_counts=True)
        sizes = [min(step, self._count - start) for start in starts.tolist()]
        mostly = [count >= MOSTLY * size for count, size in zip(counts.tolist(), sizes, strict=True)]
        batches = [one for one, kept in zip(zip(starts.tolist(), sizes, strict=True), mostly, strict=True) if kept]
        alone = ~torch.tensor(mostly).repeat_interleave(counts)
        return batches, [some for some in wanted[alone].split(step) if len(some)]

    def _images_at(self, positions: Tensor) -> Tensor:
        """Returns images by their positions in the store, as the backbone takes them."""
        if self._ahead is not None:
            pixels = self._ahead.take(positions.numpy())
        else:
            pixels = self.images.index_select(0, positions.to(self.images.device))
        return self.prepare(pixels.to(self.arithmetic.device, non_blocking=True), 0)

    def _keep_some(
        self, boundary: int, batches: list[tuple[int, int]], found: list[Tensor], seconds: float, fill: Fill
    ) -> None:
        """Keeps whole batches in a file, since what asks for them later is mostly another process."""
        rows = torch.cat([one.cpu() for one in found])
        if rows.ndim != 2:  # channels lie otherwise in a store
            return
        facts = {"seconds": seconds, "images": len(rows), "channels_last": False, "batches": batches}
        try:
            room = files.reserve(self._name_of_some(boundary), tuple(rows.shape), rows.dtype, self.budget.disk_bytes, 0)
            try:
                room.put(0, rows)
                room.publish({**facts, "fill": asdict(fill)})
            finally:
                room.drop()
        except files.NoRoom:
            pass  # a run computes them, as it does without a screen

    def _some(self, boundary: int) -> Stored | None:
        """Returns the activations of some batches that a screen has left; None where there are none for this cell."""
        try:
            found = files.read(self._name_of_some(boundary), None)
        except files.Damaged as error:
            self._note(f"{error}: computed again")
            return None
        if found is None:
            return None
        tensor, facts = found
        batches = tuple(facts.pop("batches"))
        stored = Stored(activations=tensor, boundary=boundary, where=inventory.DISK, batches=batches, **facts)
        return stored if self._holds(stored) else None

    def _name_of_some(self, boundary: int) -> str:
        return f"{self.key}{SOME}-{boundary}"

    def _holds(self, stored: Stored | None) -> bool:
        """Tells whether the measurement of a fill is one for this cell. Its own always is: training has begun then."""
        if stored is None:
            return False
        fill = stored.fill
        of_others = fill.block != self.block or (fill.noisy == SHARED and not shares_node())
        return fill.name in self._own or not (of_others or (self.quiet and (fill.noisy or fill.throttled)))

    @property
    def _count(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    def _name(self, boundary: int) -> str:
        return f"{self.key}-{boundary}"

    def _find(self, boundary: int) -> Stored | None:
        name = self._name(boundary)
        stored: Stored | None = KEPT.activations.get(name)
        if self._holds(stored):
            assert stored is not None
            return replace(stored, shared=True)
        KEPT.activations.forget(lambda key: key == name)
        stored_file = self._open_file(name, boundary)
        if not self._holds(stored_file):
            return None
        KEPT.activations.put(name, stored_file)
        return stored_file

    def _fill(self, wanted: list[int], needed: int) -> None:
        """Runs all images through the stages up to the last wanted boundary, keeping what fits."""
        device = self.arithmetic.device
        if device.type == "cuda":
            self._warm(max(wanted))
        inventory.expire()
        watch = Watch(lambda: None, sensors.reader(device.type, device.index))
        watch.setup()
        begin = self._now()
        targets: dict[int, Target] = {}
        some = self._some(max(wanted))
        try:
            seconds = self._run(wanted, needed, targets, some)
            whole = self._now() - begin
            watch.close()
            (seen,) = watch.rounds
            self._finish(targets, seconds, self._fill_of(seen, whole), some)
        finally:
            _drop(targets)

    def _fill_of(self, seen: Noise, whole: float) -> Fill:
        """Returns what is told of a pass of so many seconds; from now on it is one of our own."""
        fill = Fill(
            name=uuid.uuid4().hex[:16],
            block=self.block,
            # Its file may be taken later, by a cell that has the node to itself.
            noisy=SHARED if seen.shared else noisy(seen, whole, self.noise_limit),
            throttled=", ".join(seen.throttled),
        )
        self._own.add(fill.name)
        return fill

    def _finish(
        self, targets: Mapping[int, Target], seconds: Mapping[int, float], fill: Fill, some: Stored | None
    ) -> None:
        """Keeps what was filled; what a disk does not take after all is not kept, with a word. What a screen has left
        ``some`` of took its seconds there, and is as noisy as they were.
        """
        for boundary, target in targets.items():
            before, told = 0.0, fill
            if some is not None and boundary == some.boundary:
                before, seen = some.seconds, some.fill
                told = replace(fill, noisy=fill.noisy or seen.noisy, throttled=fill.throttled or seen.throttled)
            try:
                stored = target.finish(boundary, seconds[boundary] + before, self._count, told)
            except files.NoRoom as error:
                self._note(f"{error}: {LIVE}")
            else:
                stored = replace(stored, screened_seconds=before)
                KEPT.activations.put(self._name(boundary), stored, target.taken, target.pool)

    def _warm(self, last: int) -> None:
        """Runs the first batch and the last, which is smaller, and forgets what comes of them: on CUDA, the first call
        with a shape loads and chooses kernels.
        """
        self.stages.eval()
        step = chunk_of(self.images.shape[-1], self.arithmetic.device)
        with torch.inference_mode(), self.arithmetic.autocast():
            for start in {0, (self._count - 1) // step * step}:
                self.stages[:last](self._chunk(start))
        self._now()

    def _chunk(self, start: int) -> Tensor:
        """Returns the batch that begins with an image, as the backbone takes it."""
        device = self.arithmetic.device
        chunk = slice(start, start + chunk_of(self.images.shape[-1], device))
        if self.rows is not None and self._rows_there is None:
            self._rows_there = self.rows.to(self.images.device)
        there = self._rows_there
        if self._ahead is not None:
            pixels = self._ahead.take(self._positions(start))
            return self.prepare(pixels.to(device, non_blocking=True), start)
        pixels = self.images[chunk] if there is None else self.images.index_select(0, there[chunk])
        return self.prepare(pixels.to(device, non_blocking=True), start)

    def _positions(self, start: int) -> NDArray[np.int64]:
        """Returns where the images of the batch lie that begins with one."""
        stop = min(start + chunk_of(self.images.shape[-1], self.arithmetic.device), self._count)
        return np.arange(start, stop) if self.rows is None else self.rows[start:stop].numpy()

    def _look_ahead(self, batches: Iterable[NDArray[np.int64]]) -> None:
        """Has the batches of a pass (positions of their images) brought ahead, of images that are in no memory."""
        if isinstance(self.images, Streamed):
            self._ahead = self.images.ahead(iter(batches), self.arithmetic.device.type == "cuda")

    def _run(self, wanted: list[int], needed: int, targets: dict[int, Target], some: Stored | None) -> dict[int, float]:
        """Makes targets, none where the needed does not fit, and fills them; takes what there is ``some`` of. Returns
        the seconds to each boundary.
        """
        seconds = dict.fromkeys(wanted, 0.0)
        step = chunk_of(self.images.shape[-1], self.arithmetic.device)
        starts = range(0, self._count, step)
        known = {start: None if some is None else some.batch(start, min(step, self._count - start)) for start in starts}
        spared = {start for start in starts if known[start] is not None and len(wanted) == 1}
        self._look_ahead(self._positions(start) for start in starts if start not in spared)
        self.stages.eval()
        with torch.inference_mode(), self.arithmetic.autocast(), faster_pooling(self.stages):
            for start in starts:
                begin, there = self._now(), known[start]
                x = torch.empty(0) if start in spared else self._chunk(start)
                done, first = 0, {}
                for boundary in sorted(targets) if start else wanted:
                    if there is not None and some is not None and boundary == some.boundary:
                        x = there
                    else:
                        x = self.stages[done:boundary](x)
                    done = boundary
                    if start:
                        self._put(targets, boundary, start, x)
                    else:
                        first[boundary] = x
                    seconds[boundary] += self._now() - begin
                if not start:  # the first batch tells how much room they need
                    self._make_room(targets, first, needed)
                    for boundary in list(targets):
                        self._put(targets, boundary, 0, first[boundary])
                if needed not in targets:
                    _drop(targets)
                    break
        return seconds

    def _put(self, targets: dict[int, Target], boundary: int, start: int, x: Tensor) -> None:
        """Keeps the activations of a batch; a target whose disk takes no more after all goes, with a word."""
        try:
            targets[boundary].put(start, x)
        except files.NoRoom as error:
            targets.pop(boundary).drop()
            self._note(f"{error}: {LIVE}")

    def _make_room(self, targets: dict[int, Target], outputs: Mapping[int, Tensor], needed: int) -> None:
        """Makes targets for the activations that begin with ``outputs``, as far as there is room, that for the needed
        ones first.
        """
        # What was asked for comes first; what others will need takes the room that is left.
        for boundary in sorted(outputs, key=lambda b: b != needed):
            target = self._allocate(boundary, outputs[boundary][0], targets.values())
            if target is not None:
                targets[boundary] = target
            elif boundary == needed:
                return

    def _allocate(self, boundary: int, one: Tensor, others: Iterable[Target]) -> Target | None:
        """Makes room for activations of which ``one`` is that of an image, beside ``others`` of the same pass."""
        shape, dtype = tuple(one.shape), one.dtype
        last = self.arithmetic.channels_last and len(shape) == 3
        shape = (shape[1], shape[2], shape[0]) if last else shape
        whole = (self._count, *shape)
        size = int(np.prod(whole, dtype=np.int64)) * dtype.itemsize
        device = self.arithmetic.device
        common: dict[str, Any] = {"channels_last": last, "device": device}
        taken = {pool: sum(other.taken for other in others if other.pool == pool) for pool in (MEMORY, str(device))}
        if device.type == "cuda" and make_room_on(device, size, taken[str(device)], self.taken):
            tensor = torch.empty(whole, dtype=dtype, device=device)
            return Target(room=tensor, where=str(device), taken=size, pool=str(device), **common)
        kept, budget = KEPT.activations, self.budget.ram_bytes
        budget = int(RAM_SHARE * (free_bytes() + kept.bytes())) if budget is None else budget
        budget -= taken[MEMORY]
        while kept.bytes() + size > budget >= size and kept.drop_oldest(besides=self.taken):
            pass
        if kept.bytes() + size <= budget:
            return Target(room=torch.empty(whole, dtype=dtype), where="memory", taken=size, **common)
        try:
            room = files.reserve(self._name(boundary), whole, dtype, self.budget.disk_bytes, memory=budget)
        except files.NoRoom as error:
            self._note(f"{error}: {LIVE}")
            return None
        self._note(
            f"activations of {written_size(size)} exceed the memory for them ({written_size(budget)}) and "
            "lie on the disk"
        )
        return Target(room=room, where=inventory.DISK, taken=0, **common)

    def _open_file(self, name: str, boundary: int) -> Stored | None:
        """Returns a store that an earlier run left; a damaged one costs a word."""
        try:
            found = files.read(name, self._count)
        except files.Damaged as error:
            self._note(f"{error}: computed again")
            return None
        if found is None:
            return None
        tensor, facts = found
        return Stored(activations=tensor, boundary=boundary, where=inventory.DISK, shared=True, **facts)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _now(self) -> float:
        if self.arithmetic.device.type == "cuda":
            torch.cuda.synchronize(self.arithmetic.device)
        return time.perf_counter()


def _drop(targets: dict[int, Target]) -> None:
    """Gives the room of targets back that were not finished, and forgets them."""
    for target in targets.values():
        target.drop()
    targets.clear()


def forget(keys: set[str]) -> None:
    """Drops from memory what has these keys; files stay."""
    KEPT.activations.forget(lambda name: name.rpartition("-")[0] in keys)


def discard(keys: set[str]) -> None:
    """Drops what has these keys from memory and from the disk, since it is wrong."""
    forget(keys)
    inventory.discard(keys)


def key_of(**facts: Any) -> str:
    """Returns 32 hexadecimal digits for everything that decides the activations."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
