"""A cell in, a record out: `run_cell` builds, warms up, times and evaluates a cell."""

from __future__ import annotations

import copy
import hashlib
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import tlbench
from tlbench import device as machine
from tlbench import freeze, sensors
from tlbench.compute import deterministic, own_garbage, release_memory, set_allocator, set_matmul_precision
from tlbench.errors import NotApplicable, Unavailable, UserError
from tlbench.grid import Cell
from tlbench.heads import HEADS, fit
from tlbench.job import Job, build, counted, cuts, forget_loaded, loaded_fingerprint, stages_of
from tlbench.policies import Expression, Phase, parse_policy
from tlbench.prefix import chunk_of
from tlbench.record import Record, Round, Settings
from tlbench.timing import Clock, Noise, Watch, energy, noisy, now, plain_clock, validity
from tlbench.train import Diverged, Evaluation, Recipe, Trainer, evaluate, plan_epochs, resolve, step_flops

LR_GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the default learning rates that ``--lr auto`` tries."""
KEEP = {
    "all": "activations of the frozen prefix stay in memory as far as the budget goes",
    "pretrained": "those of pretrained weights stay, which cells of other seeds share",
    "nothing": "the cell gives those that it used back",
}


@own_garbage()
def run_cell(
    cell: Cell,
    settings: Settings,
    clock: Clock = plain_clock,
    *,
    name: str | None = None,
    siblings: Iterable[str] = (),
    keep: str = "all",
    block: int = 0,
    role: str = "cell",
) -> Record:
    """Runs one cell. Whatever happens to it becomes a record with a status and a reason.

    ``siblings`` are the other freeze policies of the grid: what they will need of the frozen prefix is computed in
    the same pass. ``keep`` (`KEEP`) is what stays in memory of the frozen prefix for later cells. Errors: UserError
    alone, for bad input that shows only now (a broken image file).
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    device = torch.device(cell.device)
    facts: dict[str, Any] = {}
    used = None
    before = machine.volatile(device)
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        set_matmul_precision(cell.precision)
        allocator = set_allocator(settings.allocator)
        release_memory()
        with deterministic(settings.deterministic) as facts["nondeterministic"]:
            used = machine.settings(allocator)
            if cell.task == "train":
                _train(cell, settings, clock, facts, siblings, keep)
            else:
                _infer(cell, settings, clock, facts)
        status, reason = "ok", ""
    except UserError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        status, reason = _status_of(error, cell, facts)
        if status == "oom" and device.type == "cuda":
            torch.cuda.empty_cache()
    rounds = tuple(facts.get("rounds", ()))
    verdict, why = validity(
        [r.phase for r in rounds],
        [r.seconds for r in rounds],
        [r.noisy for r in rounds],
        [r.throttled for r in rounds],
    )
    follows = machine.arithmetic(cell.precision, facts.get("layout", {}).get("chosen"), cell.compile)
    return Record(
        id=name or cell.id,
        cell=cell,
        settings=settings,
        status=status,
        reason=reason,
        started=started.isoformat(timespec="seconds"),
        wall_seconds=time.perf_counter() - begin,
        suite_version=tlbench.__version__,
        suite_commit=machine.suite_commit(),
        block=block,
        role=role,
        validity=verdict,
        validity_reason=why,
        ceiling_flops_per_second=machine.ceiling(device, cell.precision),
        environment=machine.environment(device, used=used, follows=follows, before=before),
        **{**facts, "rounds": rounds, "nondeterministic": tuple(facts.get("nondeterministic", ()))},
    )


def _status_of(error: BaseException, cell: Cell, facts: dict[str, Any]) -> tuple[str, str]:
    """The status and the reason that an error gives a record."""
    if isinstance(error, NotApplicable):
        return "not_applicable", str(error)
    if isinstance(error, Unavailable):
        return "skipped", str(error)
    if isinstance(error, Diverged):
        epoch = len(facts.get("rounds", ())) + (not isinstance(error, DivergedAfter))
        return "diverged", f"epoch {epoch}: {error}" if epoch else str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped by the user"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        in_use = machine.memory_in_use(torch.device(cell.device))
        used = f"with {in_use / 1e9:.2f} GB in use: " if in_use else ""
        return "oom", f"batch size {cell.batch_size}, {used}{_first_line(error) or type(error).__name__}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return "failed", f"{type(error).__name__}: {_first_line(error)} ({Path(where.filename).name}:{where.lineno})"


# --- training -------------------------------------------------------------------------------------------------


def _train(
    cell: Cell, settings: Settings, clock: Clock, facts: dict[str, Any], siblings: Iterable[str], keep: str
) -> None:
    expression = parse_policy(cell.freeze)
    job = build(cell, settings, facts, expression)
    try:
        _train_job(job, clock, facts, siblings, expression)
    finally:
        if job.store is not None and keep != "all":
            job.store.forget(facts["weights"]["pretrained"], other_seeds=keep == "pretrained")


def _train_job(job: Job, clock: Clock, facts: dict[str, Any], siblings: Iterable[str], expression: Expression) -> None:
    cell = job.cell
    phases = expression.phases(job.described, cell.epochs)
    trained = set().union(*(phase.scales for phase in phases))
    facts["trainable_parameters"] = sum(p.numel for p in job.described.params if p.name in trained)
    frozen = freeze.untouched(job.model, phases)
    facts["frozen_sha256_before"] = loaded_fingerprint(job, frozen)
    costs, steps = stages_of(job), counted(job).steps
    facts["flops"] = {
        "forward": sum(cost.flops for cost in costs),
        "train_step": {phase.name: step_flops(job.model, phase, job.size, costs, steps) for phase in phases},
    }
    boundaries = cuts_of(job, phases)
    facts["cut"] = job.names()[boundaries[0]]

    try:
        store_prefix(job, boundaries, siblings)
        if HEADS[cell.head].fit is not None:
            if expression.name != "linear_probe" or expression.bn:
                raise NotApplicable(f"the head {cell.head} is fitted on frozen features: use it with linear_probe")
            _fit_head(job, clock, facts)
        else:
            _train_head(job, plan_epochs(phases, cell.epochs), clock, facts, expression)
    finally:
        if job.store is not None:
            facts["prefix"] = job.store.facts()
        facts["flops"]["prefix"] = _kept_flops(phases, boundaries, facts)

    facts["frozen_sha256_after"] = freeze.fingerprint(job.model, frozen)
    if facts["frozen_sha256_after"] != facts["frozen_sha256_before"]:
        # An earlier cell may have changed what this one got a copy of, and filled the store from.
        forget_loaded()
        if job.store is not None:
            job.store.discard()
        raise RuntimeError("the frozen part changed during training")
    if facts["rounds"][-1].accuracy_val is not None:
        facts["accuracy_val"] = facts["rounds"][-1].accuracy_val
    # The test split is looked at once, here, and nothing is chosen on it.
    if test := _evaluate(job, "test", min(boundaries), _merged(job)):
        facts["accuracy_test"], facts["loss_test"] = test.accuracy, test.loss
        facts["predictions_sha256"] = hashlib.sha256(test.predictions.numpy().tobytes()).hexdigest()


def cuts_of(job: Job, phases: Iterable[Phase]) -> list[int]:
    """The cut of each phase."""
    found = []
    for phase in phases:
        freeze.apply(job.model, phase)
        found.append(freeze.cut(job.model))
    return found


def store_prefix(job: Job, boundaries: Sequence[int], siblings: Iterable[str] = ()) -> None:
    """Computes what the phases with these cuts will take of the frozen prefix, and what the policies ``siblings``
    will, before any weight has moved.
    """
    if job.store is not None:
        own = {b for b, holds in zip(boundaries, _pristine(boundaries), strict=True) if holds}
        also = partial(cuts, job, siblings) if job.cell.augment == "none" else frozenset[int]
        job.store.prepare(own, also, job.data.train.index)


def _pristine(boundaries: Sequence[int]) -> list[bool]:
    """Whether no phase before has trained anything before a phase's cut: what was stored before training holds."""
    return [b == min(boundaries[: i + 1]) for i, b in enumerate(boundaries)]


def _kept_flops(phases: Sequence[Phase], boundaries: Sequence[int], facts: dict[str, Any]) -> dict[str, int]:
    """FLOPs of the stages whose stored output each phase took, for one image; 0 where it took none."""
    kept = facts.get("prefix", {}).get("boundaries", ())
    return {
        phase.name: sum(stage["flops"] for stage in facts["stages"][:b]) if holds and b in kept else 0
        for phase, b, holds in zip(phases, boundaries, _pristine(boundaries), strict=True)
    }


class Timed:
    """The timed rounds of a cell and what was seen during each; the finished ones are kept whatever comes after."""

    def __init__(self, job: Job) -> None:
        device = job.compute.device
        self.cuda, self.limit = device.type == "cuda", job.settings.noise_limit
        self.read = sensors.reader(device.type, device.index)
        self.counter_seconds = sensors.ENERGY_RESOLUTION_SECONDS[device.type]
        self.seconds: list[float] = []
        self.watches: list[Watch] = []
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def run(self, clock: Clock, setup: Callable[[], None], target: Callable[[], None], rounds: int) -> None:
        """Errors: whatever ``target`` raises."""
        watch = Watch(setup, self.read)
        self.watches.append(watch)
        try:
            clock(watch.setup, self._between_events(target) if self.cuda else target, rounds, self.seconds)
        finally:
            watch.close()

    def _between_events(self, target: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            target()
            end.record()
            self.events.append((start, end))

        return call

    def rounds(self) -> list[dict[str, Any]]:
        """Fields of `Round`, for each finished one."""
        found = [
            {
                "seconds": s,
                "pressure": n.pressure,
                "switches": n.switches,
                "noisy": noisy(n, s, self.limit),
                "throttled": ", ".join(n.throttled),
                "clock_mhz": n.clock_mhz,
            }
            for s, n in zip(self.seconds, self._seen(), strict=False)
        ]
        for fields, (start, end) in zip(found, self.events, strict=False):
            fields["event_seconds"] = start.elapsed_time(end) / 1000
        return found

    def energy(self) -> float | None:
        """Joules of the finished rounds."""
        return energy(self._seen()[: len(self.seconds)], self.seconds, self.counter_seconds)

    def _seen(self) -> list[Noise]:
        return [noise for watch in self.watches for noise in watch.rounds]


def _train_head(job: Job, plan: list[Phase], clock: Clock, facts: dict[str, Any], expression: Expression) -> None:
    """One round an epoch."""
    facts["rounds"] = []
    trainer = start_training(job, plan, facts, expression)
    finished: list[tuple[float, int]] = []  # loss and images of each epoch
    evaluations: list[Evaluation | None] = []

    def setup() -> None:
        if finished:
            evaluations.append(_evaluate(job, "val", trainer.pristine))  # untimed
        trainer.start_epoch()

    def epoch() -> None:
        finished.append(trainer.run_epoch())

    timed = Timed(job)
    try:
        timed.run(clock, setup, epoch, len(plan))  # the timed calls
        evaluations.append(_evaluate(job, "val", trainer.pristine))
    finally:
        facts["energy_joules"] = timed.energy()
        counts = {id(phase): freeze.count_trainable(job.described, phase) for phase in plan}
        evaluations += [None] * len(plan)
        facts["rounds"] = [
            Round(
                phase=phase.name,
                samples=samples,
                trainable_parameters=counts[id(phase)],
                loss=loss,
                accuracy_val=evaluation.accuracy if evaluation else None,
                loss_val=evaluation.loss if evaluation else None,
                **seen,
            )
            for phase, (loss, samples), evaluation, seen in zip(
                plan, finished, evaluations, timed.rounds(), strict=False
            )
        ]
    if job.settings.detail:
        facts["detail"] = _detail(job, plan, trainer.recipe)


def start_training(job: Job, plan: list[Phase], facts: dict[str, Any], expression: Expression) -> Trainer:
    """What trains the cell's model, a phase an epoch; every phase is warmed up."""
    recipe = _recipe(job, plan, facts, expression)
    facts["recipe"] = asdict(recipe)
    facts["peak_memory_bytes"] = _warm_up(job, plan, recipe)
    return _trainer(job, job.model, plan, recipe)


def _fit_head(job: Job, clock: Clock, facts: dict[str, Any]) -> None:
    """A training-free head: one round extracts the features (or takes them, where they are kept), another fits."""
    facts["rounds"] = []
    if not job.data.measures_accuracy:
        raise NotApplicable(
            f"the head {job.cell.head} is fitted to labels, and {job.data.name} has none that mean anything"
        )
    job.model.eval()
    samples = len(job.data.train)
    features: dict[str, Any] = {}
    _features(job, "train", limit=job.cell.batch_size)  # warm-up
    facts["peak_memory_bytes"] = machine.peak_memory(
        job.compute.device, lambda: _features(job, "train", limit=job.cell.batch_size) and None
    )
    extraction, fitting = Timed(job), Timed(job)
    extraction.run(clock, _nothing, lambda: features.update(train=_features(job, "train")), 1)
    features["val"] = _features(job, "val")
    fitting.run(
        plain_clock,
        _nothing,
        lambda: features.update(fitted=fit(job.cell.head, *features["train"], *features["val"])),
        1,
    )
    facts["energy_joules"] = _sum(extraction.energy(), fitting.energy())
    fitted = features["fitted"]
    layer = job.model[-1][0]  # type: ignore[index]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.weight))
        layer.bias.copy_(torch.from_numpy(fitted.bias))
    facts["recipe"] = dict(fitted.chosen)
    val = _evaluate(job, "val", len(job.model) - 1)
    facts["rounds"] = [
        Round(phase="features", samples=samples, **extraction.rounds()[0]),
        Round(
            phase="fit",
            samples=samples,
            trainable_parameters=facts["trainable_parameters"],
            accuracy_val=val.accuracy if val else None,
            loss_val=val.loss if val else None,
            **fitting.rounds()[0],
        ),
    ]


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _features(job: Job, split: str, limit: int | None = None) -> tuple[Any, Any]:
    """Features (n, d) float64 and labels (n,) of a split, as numpy arrays."""
    source, trunk = job.sources[split], job.model[:-1]
    stored = source.stored(len(trunk), None)
    parts, labels = [], []
    with torch.inference_mode(), job.compute.autocast():
        for positions in torch.arange(min(len(source), limit or len(source))).split(job.cell.batch_size):
            if stored:
                found, own = stored(positions)
            else:
                images, own = source.raw(positions)
                found = trunk(source.normalise(images))
            parts.append(found.double().cpu())
            labels.append(own.cpu())
    return torch.cat(parts).numpy(), torch.cat(labels).numpy()


def _recipe(job: Job, plan: list[Phase], facts: dict[str, Any], expression: Expression) -> Recipe:
    """The cell's recipe. With ``--lr auto`` the learning rate with the best validation accuracy (the lower loss
    decides ties), each tried on a clone; the test split is never seen.
    """
    cell = job.cell
    rest = {name: getattr(cell, name) for name in ("weight_decay", "schedule", "label_smoothing", "augment", "warmup")}
    rest["fused"] = cell.fused != "off"
    if cell.bn_momentum == "auto":
        # Kornblith 2019, A.5: what it writes as a decay of max(1 - 10 / s, 0.9) with s steps an epoch.
        steps = -(-len(job.data.train) // cell.batch_size)
        rest["bn_momentum"] = min(0.1, 10 / steps)
    elif cell.bn_momentum != "keep":
        rest["bn_momentum"] = float(cell.bn_momentum)
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
            result = _evaluate(job, "val", trainer.pristine, model)
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
    compiled = job.compiled if model is job.model else None
    return Trainer(model, plan, recipe, source, len(source), job.cell.batch_size, job.cell.seed, compiled)


def _warm_up(job: Job, plan: list[Phase], recipe: Recipe) -> int | None:
    """Visits every phase and batch shape: first calls are slow. Returns the peak memory of a training step, in bytes,
    less what the clone below takes, which training itself does not have.

    On a throwaway clone: a warm-up that trained the measured model would change its accuracy. What torch.compile
    has compiled holds for one model only, so there the model itself is taken and put back to the last bit.
    """
    peak, pristine = None, len(job.model)
    phases = {id(phase): phase for phase in plan}.values()
    frozen = min(cuts_of(job, phases)) if job.compiled is None else 0
    with _restored(job.model) if job.compiled is not None else _cloned(job.model, frozen) as model:
        for phase in phases:
            trainer = _trainer(job, model, [phase], recipe)
            trainer.pristine = pristine  # what earlier phases trained is live in this one
            trainer.start_epoch()
            order, pristine = trainer.order, trainer.pristine
            trainer.order = [*order[:1], *order[-1:]]
            _visit(trainer)
            trainer.order = order[:1]
            measured = machine.peak_memory(job.compute.device, partial(_visit, trainer))
            peak = max(peak or 0, measured) if measured else peak
    return None if peak is None else peak - _bytes_of(job.model[frozen:])


def _visit(trainer: Trainer) -> None:
    with suppress(Diverged):  # training itself will tell when
        trainer.run_epoch()


def _bytes_of(model: nn.Module) -> int:
    """Of parameters and buffers, a shared one counted once."""
    return sum({t.data_ptr(): t.nbytes for t in model.state_dict().values()}.values())


@contextmanager
def _cloned(model: nn.Sequential, frozen: int) -> Iterator[nn.Sequential]:
    """A copy that shares the first ``frozen`` stages, which training does not change."""
    yield copy.deepcopy(model, {id(stage): stage for stage in model[:frozen]})


@contextmanager
def _restored(model: nn.Sequential) -> Iterator[nn.Sequential]:
    """The model itself; afterwards its parameters and buffers are as they were, without gradients."""
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield model
    finally:
        model.load_state_dict(saved)
        model.zero_grad(set_to_none=True)


def _detail(job: Job, plan: list[Phase], recipe: Recipe) -> dict[str, float]:
    """Seconds of a training step by part (medians over an epoch of the first phase), in a pass of its own on a clone:
    waiting for the device after each part costs time that the measured epochs do not have.

    ``launch`` is a share of forward and backward: what they would still take of no images, from steps of two.
    """
    trainer = _trainer(job, copy.deepcopy(job.model), plan[:1], recipe)
    trainer.start_epoch()
    for module, training in trainer.modes:
        module.training = training
    size = len(trainer.order[0])
    whole = [_parts(trainer, number, positions) for number, positions in enumerate(trainer.order)]
    found = {name: median(parts[name] for parts in whole) for name in whole[0]}
    if size > FEW_IMAGES:
        few = [_parts(trainer, 0, trainer.order[0][:FEW_IMAGES]) for _ in range(1 + FEW_ROUNDS)][1:]
        both, both_few = (median(p["forward"] + p["backward"] for p in parts) for parts in (whole, few))
        found["launch"] = max(0.0, (size * both_few - FEW_IMAGES * both) / (size - FEW_IMAGES))
    return found


FEW_IMAGES, FEW_ROUNDS = 2, 9
"""Of the steps that tell what a step takes whatever the batch: BatchNorm cannot train on less."""


def _parts(trainer: Trainer, number: int, positions: Tensor) -> dict[str, float]:
    """Seconds of one training step by part."""
    assert trainer.optimizer is not None
    marks = [now()]
    activations, labels = trainer.batch(number, positions)
    marks.append(now())
    loss = trainer.loss(activations, labels)
    marks.append(now())
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    marks.append(now())
    trainer.optimizer.step()
    marks.append(now())
    names = ("data", "forward", "backward", "optimizer")
    return {name: end - begin for name, begin, end in zip(names, marks, marks[1:], strict=False)}


class DivergedAfter(Diverged):
    """An evaluation shows it first."""


def _evaluate(job: Job, split: str, pristine: int, model: nn.Sequential | None = None) -> Evaluation | None:
    if not job.data.measures_accuracy:
        return None
    source = job.sources[split]
    model = job.model if model is None else model
    # The batches of the prefix are known to fit.
    found = evaluate(model, source, len(source), job.cell.batch_size, pristine, chunk_of(job.size))
    if not math.isfinite(found.loss):
        raise DivergedAfter(f"after it, the loss on the {split} images is {found.loss}")
    return found


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
    job = build(cell, settings, facts)
    facts["flops"] = {"forward": sum(stage["flops"] for stage in facts["stages"])}
    forward = start_inference(job)
    warm_up = forward(cell.batch_size, 2)
    warm_up()
    facts["peak_memory_bytes"] = machine.peak_memory(job.compute.device, warm_up)
    forward(1, 3)()
    latency, throughput = Timed(job), Timed(job)
    try:
        latency.run(clock, _nothing, forward(1, 1), settings.latency_rounds)
        warm_up()  # the caches now hold the single image's sizes
        many = forward(cell.batch_size, settings.throughput_batches)
        throughput.run(clock, _nothing, many, settings.throughput_rounds)
    finally:
        facts["energy_joules"] = throughput.energy()
        images = cell.batch_size * settings.throughput_batches
        facts["latency_seconds"] = tuple(latency.seconds)
        facts["latency_noisy"] = sum(1 for seen in latency.rounds() if seen["noisy"])
        facts["rounds"] = [Round(phase="throughput", samples=images, **seen) for seen in throughput.rounds()]


def start_inference(job: Job) -> Callable[[int, int], Callable[[], None]]:
    """What makes a call that runs a batch of so many images (at most the cell's) so many times."""
    job.model.eval()
    model: Any = torch.compile(job.model) if job.compiled is not None else job.model
    source = job.sources["train"]
    batch = source.normalise(source.raw(torch.arange(job.cell.batch_size) % len(source))[0])

    def forward(images: int, times: int) -> Callable[[], None]:
        taken = batch if images == len(batch) else batch[:images].clone()

        def call() -> None:
            with torch.inference_mode(), job.compute.autocast():
                for _ in range(times):
                    model(taken)

        return call

    return forward


def _nothing() -> None:
    pass


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
