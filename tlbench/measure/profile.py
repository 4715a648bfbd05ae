"""Profiles a backbone: one pass of a few steps at two batch sizes tells what each stage costs, and when it trains.

The steps are those of training itself (`tlbench.train.loop.Trainer.train_on`), on random images. One file, since a
profile is one order of measurements, each of which takes from what those before it left.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.errors import NotApplicable, lookup
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine import sensors
from tlbench.machine.clock import now
from tlbench.machine.device import kilobytes, memory_in_use, peak_memory, resolved
from tlbench.machine.environment import environment
from tlbench.machine.process import own_garbage, release_memory, set_up
from tlbench.machine.profiles import Line, PhaseCost, Profile, Stage, Trained, head_mode, policy_name
from tlbench.measure.build import build
from tlbench.measure.phases import plan_training
from tlbench.measure.rates import recipe_of
from tlbench.measure.stage_times import StageTimes, Watched, forward_seconds, saved_bytes
from tlbench.policies import freezing
from tlbench.policies.base import HEAD, Phase
from tlbench.policies.parse import Expression, parse_policy
from tlbench.train.chunks import chunk_of
from tlbench.train.loop import GRADIENT_BATCHES, Batching, Trainer
from tlbench.train.pooling import faster_pooling
from tlbench.train.prefix import worth_keeping
from tlbench.train.recipe import Recipe

SMALL_IMAGES_PX = 128
"""Up to so many pixels a side a batch is small, and a launch counts."""
BATCHES = {True: (8, 32), False: (4, 16)}
"""Images of the two batches of a training step, for small images and for others."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Says how often something is timed, beside the first time, which warms up."""

    usual: int
    most: int
    least_seconds: float
    """It is timed more than the usual times, up to the most, until it has taken so long."""
    enough_seconds: float
    """It is timed only once where it has taken so long by then."""

    def again(self, seconds: Sequence[float]) -> bool:
        """Tells whether something that took so many seconds each time is to be timed once more."""
        if len(seconds) < self.usual + 1:
            return len(seconds) < 2 or sum(seconds) < self.enough_seconds
        return len(seconds) < self.most and sum(seconds) < self.least_seconds


WHOLE = Rounds(usual=3, most=25, least_seconds=0.25, enough_seconds=2.0)
QUICK = Rounds(usual=1, most=2, least_seconds=0.0, enough_seconds=0.0)
STEP_SECONDS = 2.5e-4
"""What Python takes of a step to choose the batch and to set the rates."""
GATHERED_ROWS, GATHERED_BYTES = 64, 2**20
"""Rows, and bytes of each, that taking kept activations is measured with."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Says what a profile is to cover."""

    cell: Cell
    """One of the cells: backbone, weights, image size, precision, layout and device are taken from it."""
    key: str
    place: str
    policies: tuple[tuple[str, int], ...]
    """Freeze policies, each with its epochs."""
    heads: tuple[str, ...]
    quick: bool = False
    """Whether everything is timed once, and no memory measured: for a race that cannot wait, and not to be kept."""


def measure_profile(wanted: Wanted, settings: Settings) -> Profile:
    """Measures a profile. A policy that means nothing for the backbone is left out of it.

    Errors: NotApplicable, Unavailable, UserError as `tlbench.measure.build.build`; MemoryError, RuntimeError.
    """
    cell, began = wanted.cell, now()
    device = resolved(cell.device)
    with (
        own_garbage(),
        set_up(settings.threads, cell.precision, settings.deterministic, settings.allocator, device),
    ):
        release_memory()
        made = replace(_Pass(wanted, settings).run(), seconds=now() - began)
    gc.collect()  # what the pass has frozen was not looked at when that ended
    return made


class _Pass:
    """Is one pass over a backbone."""

    def __init__(self, wanted: Wanted, settings: Settings) -> None:
        self._wanted, self._rounds = wanted, QUICK if wanted.quick else WHOLE
        self._settings = replace(settings, prefix="off", also_test=(), corrupt=(), detail=False, data_root=None)
        first = next(iter(wanted.policies), ("linear_probe", wanted.cell.epochs))
        self._cell = replace(
            wanted.cell, task="train", dataset="synthetic", train_size=None, fold=None, split_seed=None, relabel=None,
            augment="none", class_weights="none", sampler="shuffle", lr=None, backbone_lr=None,
            schedule=Cell().schedule, patience=None, freeze=first[0], epochs=first[1],
            head=_stepped(wanted), decode="exact",
        )  # fmt: skip
        # Later it says less: what is freed is still mapped, though it takes no memory.
        self._data, self._own = (
            kilobytes(sensors.PROCESS / "self/status", name) or 0 for name in ("VmData", "RssAnon")
        )
        self._modes: dict[str, Trained] = {}
        self._phases: list[PhaseCost] = []
        self._rest: dict[int, list[float]] = {}
        """Images of a batch -> what steps took beyond stages and optimizer."""

    def run(self) -> Profile:
        """Measures everything."""
        adapter = self._adapter()
        built = build(self._cell, self._settings, adapter)
        self.built = built
        small = built.size <= SMALL_IMAGES_PX
        self._batches = BATCHES[small]
        build_seconds = self._build_again(adapter)
        stages, pixels, single, forward_bytes = self._forwards()
        heads = {name: self._head(name) for name in self._wanted.heads}
        policies, refused = {}, {}
        for freeze, epochs in self._wanted.policies:
            try:
                phases = self._policy(parse_policy(freeze), epochs)
            except NotApplicable as error:
                refused[freeze] = str(error)
            else:
                policies[policy_name(freeze, epochs, len(phases))] = phases
        rest = {size: min(values) for size, values in self._rest.items()}
        weights = sum({t.data_ptr(): t.nbytes for t in built.model[:-1].state_dict().values()}.values())
        process, grown = self._process(weights)
        return Profile(
            key=self._wanted.key,
            place=self._wanted.place,
            backbone=self._cell.backbone,
            size=built.size,
            stages=stages,
            worth=tuple(sorted(worth_keeping(built.stages))),
            chunk=chunk_of(built.size, built.arithmetic.device),
            pixels=pixels,
            step=(Line.through(rest) if rest else Line()) + Line(STEP_SECONDS),
            gather_seconds=self._gather_seconds(),
            single_seconds=single,
            forward_bytes=forward_bytes,
            build_seconds=build_seconds,
            weights_bytes=weights,
            process_bytes=process,
            data_bytes=self._data,
            grown_bytes=grown,
            heads=heads,
            modes=self._modes,
            policies=policies,
            refused=refused,
            quick=self._wanted.quick,
        )

    def _adapter(self) -> Expression | None:
        """Returns the policy whose adapter the model gets; all policies of a profile have the same one, or none."""
        expression = parse_policy(self._cell.freeze)
        return expression if expression.policy.adapter else None

    def _build_again(self, adapter: Expression | None) -> float:
        """Returns the seconds of what a cell does beside computing, once its weights are loaded, its operations counted
        and its layout known: building and planning it, describing the machine when it begins and in its record, and
        setting each phase up, to warm up and to train.
        """
        seconds = []
        gc.freeze()  # of what imports and the first cell have left a later one's collections see nothing
        for _ in range(self._rounds.usual):  # the least: the first one looks for what is kept then
            begin = now()
            release_memory()
            environment(self.built.arithmetic.device)
            again = build(self._cell, self._settings, adapter)
            with suppress(NotApplicable):
                for phase in [*plan_training(again, parse_policy(self._cell.freeze)).phases] * 2:
                    freezing.apply(again.model, phase)
                    freezing.modes(again.model, phase)
            environment(self.built.arithmetic.device)
            freezing.fingerprint(again.model, list(again.model.state_dict()))
            del again
            release_memory()
            seconds.append(now() - begin)
        return min(seconds)

    def _process(self, weights: int) -> tuple[int, int]:
        """Returns the bytes that the process takes without model and images, and by how much its own have grown."""
        device = self.built.arithmetic.device
        if device.type != "cpu":
            return 0, 0
        images = self.built.data.train.images
        held = images.nbytes if isinstance(images, Tensor) else 0
        self.built.model.zero_grad(set_to_none=True)
        release_memory()
        used = memory_in_use(device) or 0
        own = kilobytes(sensors.PROCESS / "self/status", "RssAnon") or 0
        return max(used - held - 2 * weights, 0), max(own - self._own - held - 2 * weights, 0)

    # --- forward alone ----------------------------------------------------------------------------------------

    def _forwards(self) -> tuple[tuple[Stage, ...], Line, float, Line]:
        """Returns the stages, the seconds of making what they take, those of one image, and the peak of the bytes."""
        built = self.built
        source, trunk = built.sources["train"], list(built.model[:-1])
        built.model.eval()
        pools = any(isinstance(module, nn.MaxPool2d) for module in built.model.modules())
        by_size: dict[int, list[float]] = {}
        filling: dict[int, list[float]] = {}
        pixels: dict[int, float] = {}
        peaks: dict[int, float] = {}
        few, many = self._batches[0], max(self._batches[1], chunk_of(built.size, built.arithmetic.device))
        with torch.inference_mode(), built.arithmetic.autocast():
            for size in (few, many):
                positions = torch.arange(size)
                pixels[size] = self._timed(lambda at=positions: source.normalise(source.raw(at)[0]))  # type: ignore[misc]
                x = source.normalise(source.raw(positions)[0])
                by_size[size] = self._by_part(lambda x=x: forward_seconds(trunk, x))  # type: ignore[misc]
                filling[size] = by_size[size]
                if pools:
                    with faster_pooling(built.model):
                        filling[size] = self._by_part(lambda x=x: forward_seconds(trunk, x))  # type: ignore[misc]
                peaks[size] = self._peak(lambda x=x: built.model(x), self._before())  # type: ignore[misc]
            one = source.normalise(source.raw(torch.arange(1))[0])
            single = self._timed(lambda: built.model(one))
        lines, filled = (
            [Line.through({size: seconds[n] for size, seconds in found.items()}) for n in range(len(trunk))]
            for found in (by_size, filling)
        )
        width = built.arithmetic.dtype.itemsize
        stages = tuple(
            Stage(
                name=cost.name,
                parameters=cost.parameters,
                output_bytes=width * int(torch.Size(cost.output).numel()),
                forward=line,
                filling=fill,
            )
            for cost, line, fill in zip(built.stages[:-1], lines, filled, strict=True)
        )
        return stages, Line.through(pixels), single, Line.through(peaks)

    def _head(self, name: str) -> Stage:
        """Measures a head, alone and in training steps, on random features; its modes are kept."""
        from tlbench.measure.build import assemble

        built = self.built
        classes = len(built.data.classes)
        stepped = lookup(HEADS, "head", name).fit is None
        backbone = _Features(self._cell.backbone, built.stages[-2].output[-1])
        head: Any = assemble(backbone, name, classes)[-1]  # type: ignore[arg-type]
        built.arithmetic.place(head)
        forward: dict[int, float] = {}
        trained: dict[bool, dict[int, tuple[float, float]]] = {False: {}, True: {}}
        for size in self._batches:
            x = torch.rand(size, backbone.features, device=built.arithmetic.device, dtype=built.arithmetic.dtype)
            head.eval()
            with torch.inference_mode(), built.arithmetic.autocast():
                forward[size] = self._timed(lambda x=x: head(x))  # type: ignore[misc]
            head.train()
            for passes_on in (False, True) if stepped else ():
                given = x.clone().requires_grad_(passes_on)
                parts = self._by_part(lambda given=given: _both_ways(head, given, built.arithmetic.autocast))  # type: ignore[misc]
                trained[passes_on][size] = (parts[0], parts[1])
        saved = Line(0.0, 4.0 * backbone.features)
        for passes_on, seconds in trained.items():
            if seconds:
                self._modes[head_mode(name, passes_on)] = Trained(
                    forward=Line.through({size: both[0] for size, both in seconds.items()}),
                    backward=Line.through({size: both[1] for size, both in seconds.items()}),
                    saved=saved,
                )
        parameters = sum(p.numel() for p in head.parameters())
        line = Line.through(forward)
        return Stage(name=HEAD, parameters=parameters, output_bytes=4 * classes, forward=line, filling=line)

    # --- training ---------------------------------------------------------------------------------------------

    def _policy(self, expression: Expression, epochs: int) -> tuple[PhaseCost, ...]:
        """Measures the phases of a policy, as far as what they are made of is not known. Errors: NotApplicable."""
        recipe = recipe_of(replace(self.built, cell=replace(self._cell, freeze=expression.text)), expression)
        phases = expression.phases(self.built.described, epochs)
        return tuple(self._phase(phase, replace(recipe, lr=0.0, backbone_lr=0.0)) for phase in phases)

    def _phase(self, phase: Phase, recipe: Recipe) -> PhaseCost:
        model = self.built.model
        freezing.apply(model, phase)
        cut = freezing.cut(model)
        modes = tuple(mode_of(model, n, cut) for n in range(cut, len(model) - 1))
        trainable = sum(p.numel() for name, p in model[:-1].named_parameters() if name in phase.scales)
        extra = GRADIENT_BATCHES if phase.by_gradient else 0
        common: dict[str, Any] = {"name": phase.name, "share": phase.share, "cut": cut, "modes": modes}
        common |= {"trainable": trainable, "extra_batches": extra}
        if all(mode in self._modes for mode in modes) and (like := self._measured_like(cut)) is not None:
            seconds = like.optimizer_seconds * (trainable + 1) / (like.trainable + 1)
            return PhaseCost(**common, optimizer_seconds=seconds, workspace=like.workspace, cold=like.cold)
        steps = {size: self._steps(replace(phase, by_gradient=False), recipe, size) for size in self._batches}
        names = [name for name, _ in model[cut:-1].named_children()]
        for name, mode in zip(names, modes, strict=True):
            if mode not in self._modes:
                self._modes[mode] = Trained(
                    forward=Line.through({size: step.forward.get(name, 0.0) for size, step in steps.items()}),
                    backward=Line.through({size: step.backward.get(name, 0.0) for size, step in steps.items()}),
                    saved=Line.through({size: step.saved[name] for size, step in steps.items()}),
                )
        for size, step in steps.items():
            self._rest.setdefault(size, []).append(step.rest)
        held = self._held(trainable, recipe)
        found = PhaseCost(
            **common,
            optimizer_seconds=min(step.optimizer for step in steps.values()),
            cold=Line.through({size: step.cold for size, step in steps.items()}),
            workspace=Line.through(
                {
                    size: max(step.peak - held - sum(self._modes[mode].saved.of(size) for mode in modes), 0.0)
                    for size, step in steps.items()
                }
            ),
        )
        self._phases.append(found)
        return found

    def _held(self, trainable: int, recipe: Recipe) -> int:
        """Counts the bytes of gradients and of the optimizer's state."""
        head = sum(p.numel() for p in self.built.model[-1].parameters())
        return 4 * (trainable + head) * (2 if recipe.optimizer == "sgd" else 3)

    def _measured_like(self, cut: int) -> PhaseCost | None:
        """Returns the measured phase with the nearest cut at this one or before it; None without any. A head alone is
        like no other phase.
        """
        alone = cut == len(self.built.model) - 1
        before = [phase for phase in self._phases if phase.cut == cut or (phase.cut < cut and not alone)]
        return max(before, key=lambda phase: phase.cut, default=None)

    def _steps(self, phase: Phase, recipe: Recipe, size: int) -> _Steps:
        """Trains a few steps on a batch of so many images, and says what they took."""
        built = self.built
        built.model.zero_grad(set_to_none=True)
        source = built.sources["train"]
        trainer = Trainer(built.model, [phase], recipe, source, Batching(size=size, seed=0))
        trainer.start_epoch()
        trainer.set_modes()
        activations, labels = trainer.batch(0, torch.arange(size))
        before = self._before()
        suffix = trainer.suffix
        names = [name for name, _ in suffix.named_children()]
        saved = dict.fromkeys(names, 0)
        if not self._wanted.quick:
            saved = saved_bytes(suffix, lambda: trainer.train_on(activations.clone(), labels))
        watched = Watched(suffix)
        parts: list[dict[str, float]] = []
        times: list[StageTimes] = []
        while self._rounds.again([sum(part.values()) for part in parts]):
            stages, one = watched.step(lambda mark: trainer.train_on(activations, labels, mark))
            parts.append(one)
            times.append(stages)
        cold: list[float] = []

        def step_anew() -> None:
            begin = now()
            trainer.train_on(activations.clone(), labels)
            cold.append(now() - begin)

        peak = self._peak(step_anew, before)  # which has given back all that was free
        # What threads free late differs from one step to the next: the most of a few, where they are quick.
        few = built.arithmetic.device.type == "cpu" and not self._wanted.quick
        while few and len(cold) < self._rounds.usual and sum(cold) < self._rounds.enough_seconds:
            peak = max(peak, self._peak(step_anew, before))
        rest = [
            max(part["forward"] + part["backward"] - stages.seconds, 0.0)
            for part, stages in zip(parts, times, strict=True)
        ]
        built.model.zero_grad(set_to_none=True)
        return _Steps(
            forward={name: median(one.forward[name] for one in times) for name in times[0].forward},
            backward={name: median(one.backward[name] for one in times) for name in times[0].backward},
            optimizer=median(part["optimizer"] for part in parts),
            rest=median(rest),
            cold=max(cold[0] - median(sum(part.values()) for part in parts), 0.0) if cold else 0.0,
            saved=saved,
            peak=peak,
        )

    # --- timing and memory ------------------------------------------------------------------------------------

    def _timed(self, work: Callable[[], object]) -> float:
        """Returns the median seconds of some work."""
        seconds: list[float] = []
        while self._rounds.again(seconds):
            begin = now()
            work()
            seconds.append(now() - begin)
        return median(seconds[1:])

    def _by_part(self, work: Callable[[], Sequence[float]]) -> list[float]:
        """Returns the median seconds of each part of some work."""
        parts: list[Sequence[float]] = []
        while self._rounds.again([sum(one) for one in parts]):
            parts.append(work())
        return [median(values) for values in zip(*parts[1:], strict=True)]

    def _gather_seconds(self) -> float:
        """Returns the seconds of taking a byte of activations that lie on the device, by position."""
        device = self.built.arithmetic.device
        rows = torch.zeros(GATHERED_ROWS, GATHERED_BYTES, dtype=torch.uint8, device=device)
        index = torch.randperm(GATHERED_ROWS, device=device)[: GATHERED_ROWS // 2]
        return self._timed(lambda: rows.index_select(0, index)) / (len(index) * GATHERED_BYTES)

    def _before(self) -> int:
        """Returns the bytes in use before something, once what was freed is given back."""
        if self._wanted.quick:
            return 0
        release_memory()
        return memory_in_use(self.built.arithmetic.device) or 0

    def _peak(self, work: Callable[[], object], before: int) -> float:
        """Returns the most bytes in use during some work beyond those before; 0 where the machine does not tell, and
        in a quick pass.
        """
        if self._wanted.quick:
            return 0.0
        peak = peak_memory(self.built.arithmetic.device, work)
        return 0.0 if peak is None else float(max(peak - before, 0))


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Says what steps on batches of one size took, in the median."""

    forward: dict[str, float]
    backward: dict[str, float]
    optimizer: float
    rest: float
    cold: float
    """Seconds that a step takes longer with memory that is new to the process."""
    saved: dict[str, int]
    peak: float
    """Bytes beyond what was there before the optimizer was made."""


@dataclass(frozen=True)
class _Features:
    """Stands in for a backbone of which a head needs the width alone."""

    name: str
    features: int

    @property
    def stages(self) -> nn.Sequential:
        return nn.Sequential()


def _stepped(wanted: Wanted) -> str:
    """Returns the head that training steps are measured with: none of those that are fitted."""
    trained = [name for name in wanted.heads if name in HEADS and HEADS[name].fit is None]
    return "linear" if "linear" in trained or not trained else trained[0]


def mode_of(model: nn.Sequential, index: int, cut: int) -> str:
    """Names how a stage of a model takes part in a phase that was applied: by what of it trains, which of its modules
    are in train mode, and whether a gradient is passed on to the stage before it.
    """
    stage = model[index]
    trains = [name for name, p in stage.named_parameters() if p.requires_grad]
    active = [name for name, module in stage.named_modules() if module.training]
    digest = hashlib.sha256(repr((trains, active, index > cut)).encode()).hexdigest()[:12]
    name = [name for name, _ in model.named_children()][index]
    return f"{name} {digest}"


def _both_ways(head: nn.Module, x: Tensor, autocast: Callable[[], Any]) -> tuple[float, float]:
    begin = now()
    with autocast():
        outputs = head(x)
    middle = now()
    outputs.float().sum().backward()
    return middle - begin, now() - middle
