"""A cell, built: weights first, then stages that share the modules, then the new head, then what the policy adds."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlbench import device as machine
from tlbench import freeze, prefix
from tlbench.backbones import WEIGHTS, load_backbone
from tlbench.backbones.base import Backbone, InputSpec, StageCost, stage_costs
from tlbench.compute import Compute, Layout, check_precision, choose_layout, layout_facts, measure_layouts
from tlbench.data import Data, Split, load_data
from tlbench.errors import NotApplicable, UserError, lookup
from tlbench.grid import Cell
from tlbench.heads import HEADS
from tlbench.policies import HEAD, Expression, Model, parse_policy
from tlbench.prefix import Prefix, Stored
from tlbench.record import Settings
from tlbench.seeds import seed_for
from tlbench.train import Take, augment

SHARE_WORTH_KEEPING = 0.05
"""Of the forward FLOPs: a prefix that computes less is not worth the room its activations take."""
SHARE_THAT_RUNS_ALL = 0.9
"""Of a store's images: a cell that uses at least as many has the prefix run on all."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell, built and ready to run."""

    cell: Cell
    settings: Settings
    compute: Compute
    data: Data
    model: nn.Sequential
    """The backbone's stages and the head, on the device."""
    tuner: Any
    """peft's, where the policy puts adapters into the model; else None."""
    described: Model
    sources: dict[str, Feed]
    """One for each split."""
    store: PrefixStore | None
    compiled: dict[int, Any] | None
    """Filled by the trainer with what torch.compile gives; None without it."""
    size: int
    """Pixels a side."""

    def names(self) -> list[str]:
        """Of the stages and the head."""
        return [name for name, _ in self.model.named_children()]


class PrefixStore:
    """The kept activations of a cell's frozen stages: those of the plain images, and of augmented views."""

    def __init__(self, cell: Cell, settings: Settings, plain: Prefix) -> None:
        self.cell, self.settings, self.plain = cell, settings, plain
        self.worth: frozenset[int] = frozenset()
        """Boundaries after which it pays to keep the activations."""
        self._also: frozenset[int] = frozenset()
        self._views: dict[int, Prefix] = {}
        self._used: dict[tuple[int, int | None], Stored] = {}

    def prepare(self, boundaries: Iterable[int], also: Callable[[], Iterable[int]], rows: Tensor) -> None:
        """Computes what a run with these cuts will take, before any weight has moved; in the same pass, as far as
        there is room, what other cells will take (``also``). ``rows`` are the training images (n,).
        """
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
        """None where nothing is kept. Errors: RuntimeError with ``--prefix on`` where there is no room."""
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
        """Positions (n,) in the store of images -> rows of the activations."""
        rows = self.plain.rows
        return index if rows is None else torch.searchsorted(rows, index)

    def facts(self) -> dict[str, Any]:
        """For the record; empty when nothing was kept."""
        if not self._used:
            return {"notes": list(self.plain.notes)} if self.plain.notes else {}
        views = {view for _, view in self._used}
        # One pass fills all boundaries of a view, and takes as long as the last of them.
        seconds = sum(max(s.seconds for (_, v), s in self._used.items() if v == view) for view in views)
        return {
            "boundaries": sorted({boundary for boundary, _ in self._used}),
            "seconds": seconds,
            "bytes": sum(stored.bytes for stored in self._used.values()),
            "images": max(stored.images for stored in self._used.values()),
            "where": ", ".join(sorted({stored.where for stored in self._used.values()})),
            "shared": all(stored.shared for stored in self._used.values()),
            "views": len(views - {None}),
            "notes": list(self.plain.notes),
        }

    def forget(self, pretrained: bool, other_seeds: bool) -> None:
        """Gives back the memory of what no later cell takes, where those that follow, if any, have other seeds: they
        share the plain images' activations alone, and these only of pretrained weights and of all images.
        """
        keys = {view.key for view in self._views.values()}
        if not (other_seeds and pretrained and self.plain.rows is None):
            keys.add(self.plain.key)
        prefix.forget(keys)

    def discard(self) -> None:
        """Nothing of what this cell kept or took is there any more, for the stages were not what they should be."""
        prefix.discard({self.plain.key, *(view.key for view in self._views.values())})

    def _view(self, view: int, rows: Tensor) -> Prefix:
        """Training images as they look in one augmented view; depends on seed, view and position alone."""
        if view not in self._views:
            cell, plain = self.cell, self.plain

            def prepare(images: Tensor, start: int) -> Tensor:
                seed = seed_for(cell.seed, "view", f"{view}/{start}")
                return plain.prepare(augment(images, cell.augment, seed), start)

            key = prefix.key_of(plain=plain.key, augment=cell.augment, view=view, seed=cell.seed, rows=rows.tolist())
            self._views[view] = replace(plain, prepare=prepare, key=key, rows=rows)
        return self._views[view]


class Feed:
    """Images of a split, moved to the device and normalised there (`tlbench.train.Source`)."""

    def __init__(self, split: Split, spec: InputSpec, compute: Compute) -> None:
        self.split, self.compute = split, compute
        self.labels = split.labels.to(compute.device)
        self.mean = torch.tensor(spec.mean, device=compute.device).view(1, 3, 1, 1)
        self.std = torch.tensor(spec.std, device=compute.device).view(1, 3, 1, 1)
        self.store: PrefixStore | None = None

    def __len__(self) -> int:
        return len(self.split)

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        images = self.split.images[self.split.index[positions]]
        return images.to(self.compute.device, non_blocking=True), self.labels[positions.to(self.compute.device)]

    def normalise(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.compute.channels_last else torch.contiguous_format
        return images.to(torch.float32, memory_format=layout).div_(255).sub_(self.mean).div_(self.std)

    def stored(self, boundary: int, epoch: int | None) -> Take | None:
        store = self.store
        if store is None or boundary < 1:
            return None
        index, device = self.split.index, self.compute.device
        if epoch is not None and store.cell.augment != "none":
            kept, index = store.at(boundary, epoch % store.settings.views, index), torch.arange(len(index))
            # A view holds the training images alone, in the order of the split.
        else:
            kept, index = store.at(boundary, None, index), store.row_of(index)
        if kept is None:
            return None
        return lambda positions: (kept.take(index[positions], device), self.labels[positions.to(device)])


def build(cell: Cell, settings: Settings, facts: dict[str, Any], policy: Expression | None = None) -> Job:
    """Builds a cell; what is found out on the way goes into ``facts``, the fields of its record.

    Errors: NotApplicable, Unavailable; UserError for bad input that shows only now.
    """
    device = torch.device(cell.device)
    check_precision(cell.precision, device)
    facts["baseline_memory_bytes"] = machine.memory_in_use(device)
    backbone = _load(cell.backbone, cell.weights, cell.seed)
    facts["weights"] = asdict(backbone.weights)
    size = facts["image_size"] = image_size_of(cell, backbone)
    data = load(cell, settings, backbone.input, size)
    facts["classes"], facts["data_sha256"] = len(data.classes), data.sha256
    facts["dropped_images"], facts["passed_over_files"] = len(data.dropped), len(data.passed_over)
    facts["repeated_images"] = dict(data.repeated)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    facts["samples"] = {name: len(split) for name, split in splits.items()}
    model = assemble(backbone, cell.head, len(data.classes), cell.seed)
    facts["total_parameters"] = sum(p.numel() for p in model.parameters())

    layout = _layout(cell, backbone, size, device)
    facts["layout"] = layout_facts(layout)
    compute = Compute(device=device, precision=cell.precision, channels_last=layout.chosen == "channels_last")
    tuner = None
    if policy is not None and policy.policy.adapter == "lora":
        from tlbench.adapters import inject_lora

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(cell.seed, "lora-init", cell.backbone))
            tuner = inject_lora(model, policy.arguments, size)
    compute.place(model)
    job = Job(
        cell=cell,
        settings=settings,
        compute=compute,
        data=data,
        model=model,
        tuner=tuner,
        described=freeze.describe(model, backbone.group_of),
        sources={name: Feed(split, backbone.input, compute) for name, split in splits.items()},
        store=None,
        compiled={} if cell.compile == "on" else None,
        size=size,
    )
    stages = stages_of(job)
    facts["stages"] = tuple(asdict(cost) for cost in stages)
    if policy is not None and settings.prefix != "off" and (cell.augment == "none" or settings.views):
        store = _prefix_store(job, backbone)
        store.worth = _worth_keeping(stages)
        for source in job.sources.values():
            source.store = store
        job = replace(job, store=store)
    return job


_last_loaded: dict[tuple[Any, ...], Backbone] = {}
_last_frozen: dict[tuple[str, ...], str] = {}
"""SHA-256 of parts of it, by the names of their tensors."""


def _load(name: str, weights: str, seed: int) -> Backbone:
    """`load_backbone`, keeping the last one: the cells of a grid that share it get copies."""
    stamp = Path(weights).stat().st_mtime_ns if weights not in WEIGHTS else None
    # Pretrained weights do not depend on the seed, but the ones that `auto` falls back to do.
    for key in ((name, weights, stamp, None), (name, weights, stamp, seed)):
        if key in _last_loaded:
            kept = _last_loaded[key]
            return replace(kept, stages=copy.deepcopy(kept.stages))
    backbone = load_backbone(name, weights, seed=seed)
    forget_loaded()
    _last_loaded[name, weights, stamp, None if backbone.weights.pretrained else seed] = backbone
    return replace(backbone, stages=copy.deepcopy(backbone.stages))


def forget_loaded() -> None:
    """The next cell loads its weights anew."""
    _last_loaded.clear()
    _last_frozen.clear()


def loaded_fingerprint(job: Job, names: Sequence[str]) -> str:
    """`freeze.fingerprint` of a model that `build` has just given: computed once for all cells that have these
    tensors of the same loaded weights, so that it also shows when an earlier cell has changed the kept ones.
    """
    if any(name.startswith(f"{HEAD}.") for name in names):
        return freeze.fingerprint(job.model, names)  # the head is each cell's own
    key = tuple(names)
    if key not in _last_frozen:
        _last_frozen[key] = freeze.fingerprint(job.model, names)
    return _last_frozen[key]


def assemble(backbone: Backbone, head: str, classes: int, seed: int = 0) -> nn.Sequential:
    """The backbone's stages followed by a new head, whose initialisation depends on seed, backbone and head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "head-init", backbone.name, head))
        built = lookup(HEADS, "head", head).build(backbone.features, classes)
    return nn.Sequential(OrderedDict([*backbone.stages.named_children(), (HEAD, built)]))


def image_size_of(cell: Cell, backbone: Backbone) -> int:
    """Pixels a side. Errors: NotApplicable for a size this backbone cannot take."""
    spec = backbone.input
    size = cell.image_size or spec.size
    if spec.fixed_size and size != spec.size:
        raise NotApplicable(f"{cell.backbone} takes images of {spec.size} px only, not {size}")
    if size < spec.min_size:
        raise NotApplicable(f"{cell.backbone} needs images of at least {spec.min_size} px, not {size}")
    return size


def load(cell: Cell, settings: Settings, spec: InputSpec, size: int) -> Data:
    """The cell's data at ``size`` px, the border cut in the proportion that the weights were evaluated with."""
    return load_data(
        cell.dataset,
        size=size,
        resize=round(spec.resize * size / spec.size),
        interpolation=spec.interpolation,
        seed=cell.seed,
        train_size=cell.train_size,
        bad_images=settings.bad_images,
    )


# --- layout, stages, prefix -----------------------------------------------------------------------------------


def _layout(cell: Cell, backbone: Backbone, size: int, device: torch.device) -> Layout:
    key = prefix.key_of(
        backbone=backbone.name,
        size=size,
        precision=cell.precision,
        device=device.type,
        threads=torch.get_num_threads(),
        machine=machine.stable(device),
    )
    return choose_layout(
        cell.layout,
        f"{backbone.name} {size}px {cell.precision} {device.type} {key}",
        lambda: measure_layouts(lambda: copy.deepcopy(backbone.stages), size, device, cell.precision),
    )


@dataclass(frozen=True)
class Counted:
    """What was counted of a backbone, whatever its head."""

    stages: tuple[StageCost, ...]
    steps: dict[frozenset[str], int] = field(default_factory=dict)
    """As `tlbench.train.step_flops` keeps them."""


_counted: dict[tuple[Any, ...], Counted] = {}


def counted(job: Job) -> Counted:
    """The stages' costs, and what training steps took that were counted already."""
    key = (job.cell.backbone, job.size, job.cell.freeze if job.tuner else None)
    if key not in _counted:
        _counted[key] = Counted(tuple(stage_costs(job.model[:-1], job.size)))
    return _counted[key]


def stages_of(job: Job) -> tuple[StageCost, ...]:
    """Name, parameters and forward FLOPs of each stage and the head, for one image."""
    trunk = counted(job).stages
    return (*trunk, *stage_costs(job.model[-1:], trunk[-1].output))


def _worth_keeping(stages: Iterable[StageCost]) -> frozenset[int]:
    flops = [stage.flops for stage in stages][:-1]
    total = max(sum(flops), 1)
    return frozenset(b for b in range(1, len(flops) + 1) if sum(flops[:b]) >= SHARE_WORTH_KEEPING * total)


def _prefix_store(job: Job, backbone: Backbone) -> PrefixStore:
    compute, feed, spec, data = job.compute, job.sources["train"], backbone.input, job.data
    # Where nearly all images are used, all are run, so that every seed's splits share the result.
    used = torch.cat([data.train.index, data.val.index, data.test.index]).unique()
    rows = used if len(used) < SHARE_THAT_RUNS_ALL * len(data.train.images) else None
    key = prefix.key_of(
        weights=backbone.weights.sha256,
        backbone=backbone.name,
        images=data.images_sha256,
        rows=None if rows is None else rows.tolist(),
        mean=spec.mean,
        std=spec.std,
        precision=compute.precision,
        channels_last=compute.channels_last,
        threads=torch.get_num_threads(),
        machine=machine.stable(compute.device),
    )
    plain = Prefix(
        stages=job.model[:-1],
        images=data.train.images,
        rows=rows,
        prepare=lambda images, _: feed.normalise(images),
        compute=compute,
        key=key,
        budget=prefix.Budget(ram_bytes=job.settings.prefix_ram_bytes, disk_bytes=job.settings.prefix_disk_bytes),
    )
    return PrefixStore(job.cell, job.settings, plain)


def cuts(job: Job, policies: Iterable[str]) -> frozenset[int]:
    """Where other freeze policies would cut this model."""
    found: set[int] = set()
    for text in policies:
        try:
            expression = parse_policy(text)
            if expression.policy.adapter or expression.policy.weights:
                continue  # another model
            for phase in expression.phases(job.described, job.cell.epochs):
                freeze.apply(job.model, phase)
                found.add(freeze.cut(job.model))
        except (NotApplicable, UserError):
            continue
    return frozenset(found)
