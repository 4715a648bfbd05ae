"""A cell in, a record out. `run_cell` builds, warms up, times and evaluates one cell; `run_grid` all of a grid."""

from __future__ import annotations

import copy
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tlbench
from tlbench import device as machine
from tlbench import freeze
from tlbench.backbones import check_backbone, check_weights, load_backbone
from tlbench.backbones.base import Backbone, InputSpec
from tlbench.data import Data, Split, check_dataset, load_data
from tlbench.errors import NotApplicable, Unavailable, UserError, lookup
from tlbench.grid import PRECISIONS, TASKS, Cell, Grid
from tlbench.heads import HEADS
from tlbench.policies import Model, Phase, parse_policy
from tlbench.record import Record, Round, Settings
from tlbench.seeds import seed_for
from tlbench.store import Store
from tlbench.timing import Clock, plain_clock
from tlbench.train import (
    Diverged,
    Evaluation,
    Source,
    batches,
    epochs_of,
    evaluate,
    make_optimizer,
    train_epoch,
)

NAMED_WEIGHTS = ("auto", "pretrained", "random")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell, built and ready to run."""

    cell: Cell
    device: torch.device
    data: Data
    model: nn.Sequential
    """The backbone's stages and the head, on the device."""
    described: Model
    sources: dict[str, Source]
    """One for each split."""


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
        environment=machine.environment(_device(cell.device)),
        **{**facts, "rounds": tuple(facts.get("rounds", ()))},
    )


def _train(cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any]) -> None:
    job = _build(cell, facts)
    phases = parse_policy(cell.freeze).phases(job.described)
    try:
        plan = list(epochs_of(phases, cell.epochs))
    except ValueError as error:
        raise NotApplicable(f"{cell.freeze}: {error}") from None
    trained = set().union(*(phase.scales for phase in phases))
    facts["trainable_parameters"] = sum(p.numel for p in job.described.params if p.name in trained)

    frozen = freeze.untouched(job.model, phases)
    facts["frozen_sha256_before"] = freeze.fingerprint(job.model, frozen)
    freeze.apply(job.model, phases[0])
    facts["cut"] = [name for name, _ in job.model.named_children()][freeze.cut(job.model)]
    facts["peak_memory_bytes"] = _warm_up(job, phases)

    rounds: list[Round] = facts.setdefault("rounds", [])
    finished: list[tuple[float, int]] = []  # loss and images of each epoch
    seconds: list[float] = []
    evaluations: list[Evaluation | None] = []
    current: Phase | None = None
    optimizer: torch.optim.Optimizer
    order: list[Tensor]

    def validate() -> None:
        while len(evaluations) < len(finished):
            evaluations.append(_evaluate(job, "val"))

    def setup() -> None:
        nonlocal current, optimizer, order
        validate()
        epoch, phase = plan[len(finished)]
        if phase is not current:
            freeze.apply(job.model, phase)
            optimizer, current = make_optimizer(job.model, phase), phase
        order = batches(len(job.data.train), cell.batch_size, cell.seed, epoch)
        torch.manual_seed(seed_for(cell.seed, "stochastic-layers", str(epoch)))

    def one_epoch() -> None:
        assert current is not None
        finished.append(train_epoch(job.model, current, optimizer, job.sources["train"], order))

    try:
        clock(setup, one_epoch, len(plan), seconds)  # the timed call
        validate()
    finally:
        for (loss, samples), took, (_, phase), evaluation in zip(
            finished, seconds, plan, [*evaluations, *[None] * len(plan)], strict=False
        ):
            rounds.append(
                Round(
                    phase=phase.name,
                    seconds=took,
                    samples=samples,
                    trainable_parameters=freeze.count_trainable(job.described, phase),
                    loss=loss,
                    accuracy_val=evaluation.accuracy if evaluation else None,
                    loss_val=evaluation.loss if evaluation else None,
                )
            )
    facts["frozen_sha256_after"] = freeze.fingerprint(job.model, frozen)
    if facts["frozen_sha256_after"] != facts["frozen_sha256_before"]:
        raise RuntimeError("the frozen part changed during training")
    facts["accuracy_val"] = rounds[-1].accuracy_val
    # The test split is looked at once, here, and nothing is chosen on it.
    if test := _evaluate(job, "test"):
        facts["accuracy_test"], facts["loss_test"] = test.accuracy, test.loss
        facts["predictions_sha256"] = _sha256(test.predictions)


def _infer(cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any]) -> None:
    job = _build(cell, facts)
    job.model.eval()
    samples = len(job.data.train)
    batch, _ = job.sources["train"](torch.arange(cell.batch_size) % samples)
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
    for _ in range(3):
        forward(single, 1)()
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
    facts["trainable_parameters"] = None


def _build(cell: Cell, facts: dict[str, Any]) -> Job:
    """Weights first, then stages that share the modules, then the new head."""
    device = _device(cell.device)
    facts["baseline_memory_bytes"] = machine.memory_in_use(device)
    backbone = load_backbone(cell.backbone, cell.weights, seed=cell.seed)
    size = image_size_of(cell, backbone)
    facts["image_size"] = size
    facts["weights"] = {
        "requested": backbone.weights.requested,
        "source": backbone.weights.source,
        "pretrained": backbone.weights.pretrained,
        "sha256": backbone.weights.sha256,
        "reason": backbone.weights.reason,
    }
    data = load(cell, backbone.input, size)
    facts["classes"], facts["data_sha256"] = len(data.classes), data.sha256
    facts["samples"] = {name: len(split) for name, split in _splits(data).items()}
    model = assemble(backbone, cell.head, len(data.classes), cell.seed).to(device)
    facts["total_parameters"] = sum(p.numel() for p in model.parameters())
    sources = {name: _source(split, backbone.input, device) for name, split in _splits(data).items()}
    return Job(
        cell=cell,
        device=device,
        data=data,
        model=model,
        described=freeze.describe(model, backbone.group_of),
        sources=sources,
    )


def assemble(backbone: Backbone, head: str, classes: int, seed: int = 0) -> nn.Sequential:
    """The backbone's stages followed by a new head, whose initialisation depends on seed, backbone and head."""
    with torch.random.fork_rng():
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


def load(cell: Cell, spec: InputSpec, size: int) -> Data:
    """The cell's data at ``size`` px, the border cut in the proportion that the weights were evaluated with."""
    return load_data(
        cell.dataset,
        size=size,
        resize=round(spec.resize * size / spec.size),
        interpolation=spec.interpolation,
        seed=cell.seed,
        train_size=cell.train_size,
    )


def _splits(data: Data) -> dict[str, Split]:
    return {n: s for n, s in (("train", data.train), ("val", data.val), ("test", data.test)) if s is not None}


def _source(split: Split, spec: InputSpec, device: torch.device) -> Source:
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1)

    def source(positions: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = split.batch(positions)
        scaled = images.to(device).float().div_(255)
        return scaled.sub_(mean).div_(std), labels.to(device)

    return source


def _warm_up(job: Job, phases: Sequence[Phase]) -> int | None:
    """Visits every phase and batch shape on a throwaway clone: first calls are slow, and a warm-up that trained
    the measured model would change its accuracy. Returns the peak memory of a training step.
    """
    order = batches(len(job.data.train), job.cell.batch_size, job.cell.seed, epoch=0)
    shapes = [*order[:1], *order[-1:]]
    peak = None
    for phase in phases:
        clone = copy.deepcopy(job.model)
        freeze.apply(clone, phase)
        optimizer = make_optimizer(clone, phase)
        train_epoch(clone, phase, optimizer, job.sources["train"], shapes)

        def step(clone: nn.Sequential = clone, phase: Phase = phase, opt: Any = optimizer) -> None:
            train_epoch(clone, phase, opt, job.sources["train"], order[:1])

        measured = machine.peak_memory(job.device, step)
        peak = max(peak or 0, measured) if measured else peak
    return peak


def _evaluate(job: Job, split: str) -> Evaluation | None:
    if split not in job.sources or not job.data.measures_accuracy:
        return None
    return evaluate(job.model, job.sources[split], len(_splits(job.data)[split]), job.cell.batch_size)


def check(grid: Grid) -> Grid:
    """The grid with its devices resolved, after every check that can be made before anything expensive starts.

    Errors: UserError naming the value, the choices and the next step.
    """
    axes = grid.axes
    for task in axes["task"]:
        lookup(TASKS, "task", task)
    for precision in axes.get("precision", ()):
        lookup(PRECISIONS, "precision", precision)
    for name in axes["backbone"]:
        check_backbone(name)
    for spec in axes["weights"]:
        check_weights(spec, axes["backbone"])
    for policy in axes["freeze"]:
        parse_policy(policy)
    for head in axes["head"]:
        lookup(HEADS, "head", head)
    for dataset in axes["dataset"]:
        check_dataset(dataset)
    grid = grid.with_axes({"device": machine.resolve_devices(axes["device"])})
    # A checkpoint that does not fit and an image that cannot be read are found here, not after an hour.
    for spec in axes["weights"]:
        if spec not in NAMED_WEIGHTS:
            for name in axes["backbone"]:
                load_backbone(name, spec)
    for cell in _one_for_each_folder(grid):
        backbone = load_backbone(cell.backbone, "random")
        load(cell, backbone.input, cell.image_size or backbone.input.size)
    return grid


def _one_for_each_folder(grid: Grid) -> Iterator[Cell]:
    seen = set()
    for cell in grid.expand():
        if cell.dataset.startswith("folder:") and cell.dataset not in seen:
            seen.add(cell.dataset)
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


def _device(name: str) -> torch.device:
    return torch.device(name)


def _nothing() -> None:
    pass


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _sha256(predictions: Tensor) -> str:
    import hashlib

    return hashlib.sha256(predictions.numpy().tobytes()).hexdigest()
