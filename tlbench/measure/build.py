"""A cell, built: weights first, then stages that share the modules, then the new head, then what the policy adds."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlbench.backbones import WEIGHTS, load_backbone
from tlbench.backbones.base import Backbone, InputSpec, StageCost, stage_costs
from tlbench.data import Data, load_data
from tlbench.errors import NotApplicable, UserError, lookup
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine import device as device_module
from tlbench.machine import environment
from tlbench.machine.arithmetic import Compute, check_precision
from tlbench.machine.layout import Layout, choose_layout, layout_facts, measure_layouts
from tlbench.policies import freezing
from tlbench.policies.base import HEAD, Adapter, Model
from tlbench.policies.parse import Expression, parse_policy
from tlbench.seeds import seed_for
from tlbench.train import activations
from tlbench.train.activations import Prefix
from tlbench.train.prefix import SHARE_THAT_RUNS_ALL, Feed, PrefixStore, _worth_keeping


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell, built and ready to run."""

    cell: Cell
    settings: Settings
    compute: Compute
    data: Data
    model: nn.Sequential
    """The backbone's stages and the head, on the device."""
    adapter: Adapter | None
    """What the policy has put into the model."""
    injected: Any
    """What its `merge` takes."""
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


def build(cell: Cell, settings: Settings, facts: dict[str, Any], policy: Expression | None = None) -> Job:
    """Builds a cell; what is found out on the way goes into ``facts``, the fields of its record.

    Errors: NotApplicable, Unavailable; UserError for bad input that shows only now.
    """
    device = torch.device(cell.device)
    check_precision(cell.precision, device)
    facts["baseline_memory_bytes"] = device_module.memory_in_use(device)
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
    adapter = policy.policy.adapter if policy else None
    injected = None
    if policy and adapter:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(cell.seed, f"{policy.name}-init", cell.backbone))
            injected = policy.inject(model, size)
    compute.place(model)
    job = Job(
        cell=cell,
        settings=settings,
        compute=compute,
        data=data,
        model=model,
        adapter=adapter,
        injected=injected,
        described=freezing.describe(model, backbone.group_of, adapter.owns if adapter else None),
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
    own = job.adapter.owns if job.adapter else lambda _: False
    if any(name.startswith(f"{HEAD}.") or own(name) for name in names):
        return freezing.fingerprint(job.model, names)  # the head and the adapter are each cell's own
    key = tuple(names)
    if key not in _last_frozen:
        _last_frozen[key] = freezing.fingerprint(job.model, names)
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
    key = activations.key_of(
        backbone=backbone.name,
        size=size,
        precision=cell.precision,
        device=device.type,
        threads=torch.get_num_threads(),
        machine=environment.stable(device),
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
    """As `tlbench.train.flops.step_flops` keeps them."""


_counted: dict[tuple[Any, ...], Counted] = {}


def counted(job: Job) -> Counted:
    """The stages' costs, and what training steps took that were counted already."""
    key = (job.cell.backbone, job.size, job.cell.freeze if job.adapter else None)
    if key not in _counted:
        _counted[key] = Counted(tuple(stage_costs(job.model[:-1], job.size)))
    return _counted[key]


def stages_of(job: Job) -> tuple[StageCost, ...]:
    """Name, parameters and forward FLOPs of each stage and the head, for one image."""
    trunk = counted(job).stages
    return (*trunk, *stage_costs(job.model[-1:], trunk[-1].output))


def _prefix_store(job: Job, backbone: Backbone) -> PrefixStore:
    compute, feed, spec, data = job.compute, job.sources["train"], backbone.input, job.data
    # Where nearly all images are used, all are run, so that every seed's splits share the result.
    used = torch.cat([data.train.index, data.val.index, data.test.index]).unique()
    rows = used if len(used) < SHARE_THAT_RUNS_ALL * len(data.train.images) else None
    key = activations.key_of(
        weights=backbone.weights.sha256,
        backbone=backbone.name,
        images=data.images_sha256,
        rows=None if rows is None else rows.tolist(),
        mean=spec.mean,
        std=spec.std,
        precision=compute.precision,
        channels_last=compute.channels_last,
        threads=torch.get_num_threads(),
        machine=environment.stable(compute.device),
        # What an adapter puts before the cut, frozen, is no part of the loaded weights.
        **({"adapter": (job.cell.freeze, job.cell.seed)} if job.adapter else {}),
    )
    plain = Prefix(
        stages=job.model[:-1],
        images=data.train.images,
        rows=rows,
        prepare=lambda images, _: feed.normalise(images),
        compute=compute,
        key=key,
        budget=activations.Budget(ram_bytes=job.settings.prefix_ram_bytes, disk_bytes=job.settings.prefix_disk_bytes),
    )
    return PrefixStore(job.cell, job.settings, plain)


def cuts(job: Job, policies: Iterable[str]) -> frozenset[int]:
    """Where other freeze policies would cut this model. Nothing is kept for them of a model with an adapter in it."""
    found: set[int] = set()
    if job.adapter:
        return frozenset()
    for text in policies:
        try:
            expression = parse_policy(text)
            if expression.policy.adapter or expression.policy.weights:
                continue  # another model
            for phase in expression.phases(job.described, job.cell.epochs):
                freezing.apply(job.model, phase)
                found.add(freezing.cut(job.model))
        except (NotApplicable, UserError):
            continue
    return frozenset(found)
