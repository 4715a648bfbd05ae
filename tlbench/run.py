"""A cell in, a record out. `run_cell` builds, warms up, times and evaluates a cell; `run_grid` all of a grid."""

from __future__ import annotations

import copy
import hashlib
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tlbench
from tlbench import device as machine
from tlbench import freeze
from tlbench.backbones import WEIGHTS, check_backbone, check_weights, load_backbone
from tlbench.backbones.base import Backbone, InputSpec
from tlbench.data import BAD_IMAGES, Data, Split, check_dataset, load_data
from tlbench.errors import NotApplicable, Unavailable, UserError, lookup
from tlbench.grid import PRECISIONS, TASKS, Cell, Grid
from tlbench.heads import HEADS, fit
from tlbench.policies import Expression, Model, Phase, parse_policy
from tlbench.record import Record, Round, Settings
from tlbench.seeds import seed_for
from tlbench.store import Store
from tlbench.timing import Clock, now, plain_clock
from tlbench.train import (
    AUGMENTATIONS,
    OPTIMIZERS,
    SCHEDULES,
    Diverged,
    Evaluation,
    Recipe,
    Trainer,
    evaluate,
    plan_epochs,
    resolve,
)

LR_GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the default learning rates that ``--lr auto`` tries."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell, built and ready to run."""

    cell: Cell
    device: torch.device
    data: Data
    model: nn.Sequential
    """The backbone's stages and the head, on the device."""
    tuner: Any
    """peft's, where the policy puts adapters into the model; else None."""
    described: Model
    sources: dict[str, Feed]
    """One for each split."""

    def names(self) -> list[str]:
        """Of the stages and the head."""
        return [name for name, _ in self.model.named_children()]


class Feed:
    """Images of a split, moved to the device and normalised there (`tlbench.train.Source`)."""

    def __init__(self, split: Split, spec: InputSpec, device: torch.device) -> None:
        self.split, self.device = split, device
        self.mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.split)

    def raw(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.split.batch(positions)
        return images.to(self.device), labels.to(self.device)

    def normalise(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self.mean).div_(self.std)


def run_cell(cell: Cell, settings: Settings, clock: Clock = plain_clock, *, name: str | None = None) -> Record:
    """Runs one cell. Whatever happens to it becomes a record with a status and a reason.

    Errors: UserError alone, for bad input that shows only now (a broken image file).
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    facts: dict[str, Any] = {}
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        {"train": _train, "infer": _infer}[cell.task](cell, settings, clock, facts)
        status, reason = "ok", ""
    except UserError:
        raise
    except NotApplicable as error:
        status, reason = "not_applicable", str(error)
    except Unavailable as error:
        status, reason = "skipped", str(error)
    except Diverged as error:
        status, reason = "diverged", f"epoch {len(facts['rounds']) + 1}: {error}"
    except (torch.OutOfMemoryError, MemoryError) as error:
        status, reason = "oom", f"batch size {cell.batch_size}: {_first_line(error)}"
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped by the user"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        status = "failed"
        reason = f"{type(error).__name__}: {_first_line(error)} ({Path(where.filename).name}:{where.lineno})"
    return Record(
        id=name or cell.id,
        cell=cell,
        settings=settings,
        status=status,
        reason=reason,
        started=started.isoformat(timespec="seconds"),
        wall_seconds=time.perf_counter() - begin,
        suite_version=tlbench.__version__,
        environment=machine.environment(torch.device(cell.device)),
        **{**facts, "rounds": tuple(facts.get("rounds", ()))},
    )


# --- training -------------------------------------------------------------------------------------------------


def _train(cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any]) -> None:
    expression = parse_policy(cell.freeze)
    job = _build(cell, settings, facts, expression)
    phases = expression.phases(job.described, cell.epochs)
    plan = plan_epochs(phases, cell.epochs)
    trained = set().union(*(phase.scales for phase in phases))
    facts["trainable_parameters"] = sum(p.numel for p in job.described.params if p.name in trained)
    frozen = freeze.untouched(job.model, phases)
    facts["frozen_sha256_before"] = freeze.fingerprint(job.model, frozen)
    freeze.apply(job.model, phases[0])
    facts["cut"] = job.names()[freeze.cut(job.model)]

    if HEADS[cell.head].fit is not None:
        if expression.name != "linear_probe" or expression.bn:
            raise NotApplicable(f"the head {cell.head} is fitted on frozen features: use it with linear_probe")
        _fit_head(job, clock, facts)
    else:
        _train_head(job, plan, clock, facts, expression)

    facts["frozen_sha256_after"] = freeze.fingerprint(job.model, frozen)
    if facts["frozen_sha256_after"] != facts["frozen_sha256_before"]:
        raise RuntimeError("the frozen part changed during training")
    if facts["rounds"][-1].accuracy_val is not None:
        facts["accuracy_val"] = facts["rounds"][-1].accuracy_val
    # The test split is looked at once, here, and nothing is chosen on it.
    model = _merged(job)
    if test := _evaluate(job, "test", model):
        facts["accuracy_test"], facts["loss_test"] = test.accuracy, test.loss
        facts["predictions_sha256"] = hashlib.sha256(test.predictions.numpy().tobytes()).hexdigest()


def _train_head(job: Job, plan: list[Phase], clock: Clock, facts: dict[str, Any], expression: Expression) -> None:
    """One round an epoch; whatever interrupts them, the finished ones are kept."""
    recipe = _recipe(job, plan, facts, expression)
    facts["recipe"] = asdict(recipe)
    facts["peak_memory_bytes"] = _warm_up(job, plan, recipe)
    trainer = _trainer(job, job.model, plan, recipe)
    finished: list[tuple[float, int]] = []  # loss and images of each epoch
    evaluations: list[Evaluation | None] = []
    seconds: list[float] = []

    def setup() -> None:
        if finished:
            evaluations.append(_evaluate(job, "val"))  # untimed
        trainer.start_epoch()

    def epoch() -> None:
        finished.append(trainer.run_epoch())

    try:
        clock(setup, epoch, len(plan), seconds)  # the timed calls
        evaluations.append(_evaluate(job, "val"))
    finally:
        counts = {id(phase): freeze.count_trainable(job.described, phase) for phase in plan}
        evaluations += [None] * len(plan)
        facts["rounds"] = [
            Round(
                phase=phase.name,
                seconds=took,
                samples=samples,
                trainable_parameters=counts[id(phase)],
                loss=loss,
                accuracy_val=evaluation.accuracy if evaluation else None,
                loss_val=evaluation.loss if evaluation else None,
            )
            for phase, took, (loss, samples), evaluation in zip(plan, seconds, finished, evaluations, strict=False)
        ]


def _fit_head(job: Job, clock: Clock, facts: dict[str, Any]) -> None:
    """A training-free head: one round extracts the features, another fits."""
    facts["rounds"] = []
    if not job.data.measures_accuracy:
        raise NotApplicable(
            f"the head {job.cell.head} is fitted to labels, and {job.data.name} has none that mean anything"
        )
    job.model.eval()
    trunk, samples = job.model[:-1], len(job.data.train)
    _features(job, trunk, "train", limit=job.cell.batch_size)  # warm-up
    facts["peak_memory_bytes"] = machine.peak_memory(
        job.device, lambda: _features(job, trunk, "train", limit=job.cell.batch_size) and None
    )
    features: dict[str, Any] = {}
    seconds: list[float] = []
    clock(_nothing, lambda: features.update(train=_features(job, trunk, "train")), 1, seconds)
    features["val"] = _features(job, trunk, "val")
    begin = now()
    fitted = fit(job.cell.head, *features["train"], *features["val"])
    seconds.append(now() - begin)
    layer = job.model[-1][0]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.weight))
        layer.bias.copy_(torch.from_numpy(fitted.bias))
    facts["recipe"] = dict(fitted.chosen)
    val = _evaluate(job, "val")
    trainable = facts["trainable_parameters"]
    facts["rounds"] = [
        Round(phase="features", seconds=seconds[0], samples=samples),
        Round(
            phase="fit",
            seconds=seconds[1],
            samples=samples,
            trainable_parameters=trainable,
            accuracy_val=val.accuracy if val else None,
            loss_val=val.loss if val else None,
        ),
    ]


def _features(job: Job, trunk: nn.Module, split: str, limit: int | None = None) -> tuple[Any, Any]:
    """Features (n, d) float64 and labels (n,) of a split, as numpy arrays."""
    source = job.sources[split]
    parts, labels = [], []
    with torch.inference_mode():
        for positions in torch.arange(min(len(source), limit or len(source))).split(job.cell.batch_size):
            images, own = source.raw(positions)
            parts.append(trunk(source.normalise(images)).double().cpu())
            labels.append(own.cpu())
    return torch.cat(parts).numpy(), torch.cat(labels).numpy()


def _recipe(job: Job, plan: list[Phase], facts: dict[str, Any], expression: Expression) -> Recipe:
    """The cell's recipe. With ``--lr auto`` the learning rate with the best validation accuracy (the lower loss
    decides ties), each tried on a clone; the test split is never seen.
    """
    cell = job.cell
    rest = {name: getattr(cell, name) for name in ("weight_decay", "schedule", "warmup", "label_smoothing", "augment")}
    if cell.lr != "auto":
        lr = None if cell.lr is None else float(cell.lr)
        return resolve(expression, cell.optimizer, lr, cell.backbone_lr, rest)
    if not job.data.measures_accuracy:
        raise NotApplicable(f"--lr auto chooses by validation accuracy, which {job.data.name} does not have")
    base = resolve(expression, cell.optimizer, None, cell.backbone_lr, rest)
    trials: list[dict[str, Any]] = []
    for factor in LR_GRID:
        # A backbone rate of the user's stays as it is.
        backbone_lr = base.backbone_lr * (factor if cell.backbone_lr is None else 1)
        recipe = replace(base, lr=base.lr * factor, backbone_lr=backbone_lr)
        begin = now()
        model = copy.deepcopy(job.model)
        trial: dict[str, Any] = {"lr": recipe.lr, "backbone_lr": recipe.backbone_lr}
        try:
            trainer = _trainer(job, model, plan, recipe)
            for _ in plan:
                trainer.start_epoch()
                trainer.run_epoch()
            result = _evaluate(job, "val", model)
            assert result is not None
            trial |= {"accuracy_val": result.accuracy, "loss_val": result.loss}
        except Diverged:
            trial |= {"accuracy_val": None, "loss_val": None}
        trials.append({**trial, "seconds": now() - begin})
    facts["lr_trials"] = tuple(trials)
    finished = [t for t in trials if t["accuracy_val"] is not None]
    if not finished:
        raise Diverged("every learning rate of --lr auto diverged")
    best = max(finished, key=lambda t: (t["accuracy_val"], -t["loss_val"]))
    return replace(base, lr=best["lr"], backbone_lr=best["backbone_lr"])


def _trainer(job: Job, model: nn.Sequential, plan: list[Phase], recipe: Recipe) -> Trainer:
    source = job.sources["train"]
    return Trainer(model, plan, recipe, source, len(source), job.cell.batch_size, job.cell.seed)


def _warm_up(job: Job, plan: list[Phase], recipe: Recipe) -> int | None:
    """Visits every phase and batch shape on a throwaway clone: first calls are slow, and a warm-up that trained
    the measured model would change its accuracy. Returns the peak memory of a training step, in bytes.
    """
    peak = None
    for phase in {id(phase): phase for phase in plan}.values():
        trainer = _trainer(job, copy.deepcopy(job.model), [phase], recipe)
        trainer.start_epoch()
        order = trainer.order
        trainer.order = [*order[:1], *order[-1:]]
        trainer.run_epoch()
        trainer.order = order[:1]
        measured = machine.peak_memory(job.device, lambda trainer=trainer: trainer.run_epoch() and None)  # type: ignore[misc]
        peak = max(peak or 0, measured) if measured else peak
    return peak


def _evaluate(job: Job, split: str, model: nn.Module | None = None) -> Evaluation | None:
    if not job.data.measures_accuracy:
        return None
    source = job.sources[split]
    return evaluate(model or job.model, source, len(source), job.cell.batch_size)


def _merged(job: Job) -> nn.Sequential:
    """The model without adapters. Errors: RuntimeError when merging changed what it computes."""
    if job.tuner is None:
        return job.model
    from tlbench.adapters import merge

    job.model.eval()
    source = job.sources["val"]
    images = source.normalise(source.raw(torch.arange(min(len(source), job.cell.batch_size)))[0])
    with torch.inference_mode():
        before = job.model(images)
    merged = merge(job.tuner)
    with torch.inference_mode():
        after = merged.eval()(images)
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
        raise RuntimeError(f"the merged model's logits differ by {float((before - after).abs().max()):.2g}")
    return merged


# --- inference ------------------------------------------------------------------------------------------------


def _infer(cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any]) -> None:
    job = _build(cell, settings, facts)
    job.model.eval()
    source = job.sources["train"]
    batch = source.normalise(source.raw(torch.arange(cell.batch_size) % len(source))[0])
    single = batch[:1].clone()

    def forward(images: Tensor, times: int) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                for _ in range(times):
                    job.model(images)

        return call

    warm_up = forward(batch, 2)
    warm_up()
    facts["peak_memory_bytes"] = machine.peak_memory(job.device, warm_up)
    forward(single, 3)()
    latency: list[float] = []
    throughput: list[float] = []
    try:
        clock(_nothing, forward(single, 1), settings.latency_rounds, latency)
        warm_up()  # the caches now hold the single image's sizes
        clock(_nothing, forward(batch, settings.throughput_batches), settings.throughput_rounds, throughput)
    finally:
        facts["latency_seconds"] = tuple(latency)
        images = cell.batch_size * settings.throughput_batches
        facts["rounds"] = [Round(phase="throughput", seconds=s, samples=images) for s in throughput]


# --- building -------------------------------------------------------------------------------------------------


def _build(cell: Cell, settings: Settings, facts: dict[str, Any], policy: Expression | None = None) -> Job:
    """Weights first, then stages that share the modules, then the new head, then what the policy adds."""
    device = torch.device(cell.device)
    facts["baseline_memory_bytes"] = machine.memory_in_use(device)
    backbone = load_backbone(cell.backbone, cell.weights, seed=cell.seed)
    facts["weights"] = asdict(backbone.weights)
    size = facts["image_size"] = image_size_of(cell, backbone)
    data = load(cell, settings, backbone.input, size)
    facts["classes"], facts["data_sha256"] = len(data.classes), data.sha256
    facts["dropped_images"] = len(data.dropped)
    splits = {"train": data.train, "val": data.val, "test": data.test}
    facts["samples"] = {name: len(split) for name, split in splits.items()}
    model = assemble(backbone, cell.head, len(data.classes), cell.seed)
    facts["total_parameters"] = sum(p.numel() for p in model.parameters())
    tuner = None
    if policy is not None and policy.policy.adapter == "lora":
        from tlbench.adapters import inject_lora

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(cell.seed, "lora-init", cell.backbone))
            tuner = inject_lora(model, policy.arguments)
    model.to(device)
    return Job(
        cell=cell,
        device=device,
        data=data,
        model=model,
        tuner=tuner,
        described=freeze.describe(model, backbone.group_of),
        sources={name: Feed(split, backbone.input, device) for name, split in splits.items()},
    )


def assemble(backbone: Backbone, head: str, classes: int, seed: int = 0) -> nn.Sequential:
    """The backbone's stages followed by a new head, whose initialisation depends on seed, backbone and head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "head-init", backbone.name, head))
        built = lookup(HEADS, "head", head).build(backbone.features, classes)
    return nn.Sequential(OrderedDict([*backbone.stages.named_children(), ("head", built)]))


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


# --- a grid ---------------------------------------------------------------------------------------------------


def check(grid: Grid, settings: Settings) -> Grid:
    """The grid with its devices resolved, after every check that can be made before anything expensive starts.

    Errors: UserError naming the value, the choices and the next step.
    """
    tables: dict[str, tuple[str, Any]] = {
        "task": ("task", TASKS),
        "precision": ("precision", PRECISIONS),
        "head": ("head", HEADS),
        "optimizer": ("optimizer", {"auto": None, **OPTIMIZERS}),
        "schedule": ("schedule", SCHEDULES),
        "augment": ("augmentation", AUGMENTATIONS),
    }
    for axis, (kind, table) in tables.items():
        for value in grid.axes.get(axis, ()):
            lookup(table, kind, value)
    lookup(BAD_IMAGES, "choice for --bad-images", settings.bad_images)
    for name in grid.axes["backbone"]:
        check_backbone(name)
    for spec in grid.axes["weights"]:
        check_weights(spec, grid.axes["backbone"])
    for policy in grid.axes["freeze"]:
        parse_policy(policy)
    for dataset in grid.axes["dataset"]:
        check_dataset(dataset)
    grid = grid.with_axes({"device": machine.resolve_devices(grid.axes["device"])})
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in grid.axes["weights"]:
        if spec not in WEIGHTS:
            for name in grid.axes["backbone"]:
                load_backbone(name, spec)
    for cell in _one_for_each_folder(grid):
        spec = load_backbone(cell.backbone, "random").input
        load(cell, settings, spec, cell.image_size or spec.size)
    return grid


def _one_for_each_folder(grid: Grid) -> Iterator[Cell]:
    """A cell of each folder and training size: what a seed changes is no matter of reading."""
    seen = set()
    for cell in grid.expand():
        key = (cell.dataset, cell.train_size)
        if (cell.dataset.startswith("folder:") or cell.train_size) and key not in seen:
            seen.add(key)
            yield cell


def run_grid(
    grid: Grid,
    settings: Settings,
    store: Store,
    on_start: Callable[[Cell], None] = lambda cell: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Runs every cell of a checked grid; each record is on disk before the next cell starts.

    An interrupted cell is the last.
    """
    records = []
    for cell in grid.expand():
        on_start(cell)
        record = run_cell(cell, settings, name=grid.id_of(cell))
        store.append(record)
        records.append(record)
        on_record(record)
        if record.status == "interrupted":
            break
    return records


def _nothing() -> None:
    pass


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
