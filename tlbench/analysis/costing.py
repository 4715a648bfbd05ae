"""What a cell costs, from the profile of its backbone: seconds by parts, and the peak of memory. Arithmetic alone.

Stages are additive, and a batch costs a launch and so much an image, so that a policy's epoch follows from where it
cuts: the frozen stages run once where they are kept, the others go forward and backward, evaluation goes forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tlbench.backbones.known import BACKBONES
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.rates import trials
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine.profiles import Line, PhaseCost, Profile, Trained, head_mode, policy_name
from tlbench.policies.parse import parse_policy

FIT_SECONDS, FIT_SECONDS_AN_IMAGE = 0.01, 1e-5
"""What fitting a training-free head is taken for: no profile measures it."""
RECORD_SECONDS = 0.015
"""What a record takes from a cell's process to the disk (measured beside 60 cells: 12 ms)."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts the images of a cell."""

    train: int
    val: int
    test: int

    @property
    def all(self) -> int:
        """Returns how many images a frozen prefix runs on."""
        return self.train + self.val + self.test


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Holds the seconds of a cell by parts, as its profile has them: nothing has corrected them yet."""

    fill: float
    """Of the frozen stages over all images: paid once by all cells that share it."""
    epochs: tuple[float, ...]
    """Of each epoch of training."""
    evaluation: float
    """Of all evaluations, that of the test images among them; of inference all that is timed."""
    tries: float
    """Of the search for a learning rate."""
    own: float
    """Of building, planning and warming up, in a process that has the weights, and of writing the record."""

    @property
    def timed(self) -> float:
        """Returns the seconds that a record's own measurements take."""
        return sum(self.epochs) + self.evaluation + self.tries


def profile_key(cell: Cell) -> str:
    """Names what a cell's profile is measured of, and with. The machine, its device and its threads are the place of a
    profile; a policy that puts something into the model has one of its own.
    """
    parts = [cell.backbone, f"{size_of(cell) or 'own'} px", cell.precision, cell.layout, cell.device, _torch()]
    if cell.task == "train" and _adapts(cell.freeze):
        parts.append(cell.freeze)
    return ", ".join(parts)


@cache
def _torch() -> str:
    """Writes the version of torch, without loading it."""
    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return "torch"


def size_of(cell: Cell) -> int | None:
    """Returns the pixels a side of a cell's images; None where that is the backbone's own to say."""
    info = BACKBONES.get(cell.backbone.partition("@")[0])
    return cell.image_size or (info.image_size if info else None)


def phases_of(profile: Profile, cell: Cell) -> tuple[PhaseCost, ...] | None:
    """Returns the phases of a cell's policy; None where the profile does not know it."""
    for name in (cell.freeze, policy_name(cell.freeze, cell.epochs, 2)):
        if name in profile.policies:
            return profile.policies[name]
    return None


def is_fitted(cell: Cell) -> bool:
    """Tells whether a cell's head is fitted, not trained by steps."""
    return cell.head in HEADS and HEADS[cell.head].fit is not None


COVERED = ("none", "flip")
"""Augmentations that cost next to nothing."""


def can_be_profiled(cell: Cell) -> bool:
    """Tells whether a profile can say what a cell costs: neither compiled cells nor costly augmentation."""
    return cell.compile == "off" and cell.augment in COVERED


def covers(profile: Profile, cell: Cell) -> bool:
    """Tells whether a profile says what a cell costs."""
    if cell.head not in profile.heads or not can_be_profiled(cell):
        return False
    return cell.task == "infer" or is_fitted(cell) or phases_of(profile, cell) is not None


def _adapts(freeze: str) -> bool:
    try:
        return parse_policy(freeze).policy.adapter is not None
    except UserError:  # of a plugin that is not loaded here
        return False


# --- epochs and the frozen prefix -----------------------------------------------------------------------------


def plan_of(phases: Sequence[PhaseCost], epochs: int) -> list[PhaseCost]:
    """Returns the phase of each epoch, as `tlbench.train.loop.plan_epochs` does."""
    total, given = sum(phase.share for phase in phases), 0.0
    plan: list[PhaseCost] = []
    for index, phase in enumerate(phases):
        given += phase.share / total
        left = len(phases) - index - 1
        plan += [phase] * (min(max(round(epochs * given), len(plan) + 1), max(epochs - left, 0)) - len(plan))
    return plan


def kept_cuts(profile: Profile, cell: Cell, settings: Settings) -> frozenset[int]:
    """Returns the boundaries whose activations a cell takes from what is kept."""
    if cell.task != "train" or settings.prefix == "off" or cell.augment != "none":
        return frozenset()
    if is_fitted(cell):
        return _worth(profile, [len(profile.stages)], settings)
    cuts = [phase.cut for phase in phases_of(profile, cell) or ()]
    return _worth(profile, [cut for n, cut in enumerate(cuts) if cut == min(cuts[: n + 1])], settings)


def _worth(profile: Profile, cuts: Iterable[int], settings: Settings) -> frozenset[int]:
    return frozenset(cut for cut in cuts if cut > 0 and (settings.prefix == "on" or cut in profile.worth))


def filled_cuts(
    profile: Profile, cell: Cell, settings: Settings, siblings: Iterable[str], epochs: int
) -> frozenset[int]:
    """Returns the boundaries that are filled in one pass where a cell is the first to need some: its own, and those of
    the grid's other policies.
    """
    own = kept_cuts(profile, cell, settings)
    if not own or _adapts(cell.freeze):
        return own
    return own | all_cuts(profile, settings, siblings, epochs)


def all_cuts(profile: Profile, settings: Settings, siblings: Iterable[str], epochs: int) -> frozenset[int]:
    """Returns the boundaries that the grid's policies take activations of, each by its own phases."""
    cuts: set[int] = set()
    for freeze in siblings:
        if not _adapts(freeze):
            known = profile.policies.get(freeze) or profile.policies.get(policy_name(freeze, epochs, 2)) or ()
            cuts |= _worth(profile, [phase.cut for phase in known], settings)
    return frozenset(cuts)


def fill_seconds(profile: Profile, images: int, cuts: Iterable[int]) -> float:
    """Returns the seconds of running so many images through the stages up to the last of these cuts, each of whose
    outputs is kept.
    """
    kept = sorted(cuts)
    if not kept:
        return 0.0
    batches = math.ceil(images / profile.chunk)
    stages = (stage.filling.of(images, batches) for stage in profile.stages[: kept[-1]])
    return profile.pixels.of(images, batches) + sum(stages) + _moving(profile, images, kept)


def _moving(profile: Profile, images: int, cuts: Iterable[int]) -> float:
    """Returns the seconds of bringing the activations of so many images after these cuts to or from where they lie."""
    return profile.gather_seconds * images * sum(profile.stages[cut - 1].output_bytes for cut in cuts)


# --- seconds --------------------------------------------------------------------------------------------------


def parts_of(profile: Profile, cell: Cell, counts: Counts, settings: Settings, siblings: Sequence[str] = ()) -> Parts:
    """Returns the seconds of a cell that its profile `covers`."""
    if cell.task == "infer":
        return _inference(profile, cell, settings)
    cuts = filled_cuts(profile, cell, settings, siblings, cell.epochs)
    fill = fill_seconds(profile, counts.all, cuts)
    kept = kept_cuts(profile, cell, settings)
    own = profile.build_seconds + RECORD_SECONDS
    if is_fitted(cell):
        features = len(profile.stages)
        images = counts.all
        extracted = _input(profile, features, images, math.ceil(images / cell.batch_size), kept)
        fitted = FIT_SECONDS + FIT_SECONDS_AN_IMAGE * counts.train
        evaluated = _evaluation(profile, cell, features, counts.val + counts.test, kept)
        return Parts(fill=fill, epochs=(extracted, fitted), evaluation=evaluated, tries=0.0, own=own)
    plan = plan_of(phases_of(profile, cell) or (), cell.epochs)
    steps = math.ceil(counts.train / cell.batch_size)
    epochs, evaluated, pristine = [], 0.0, len(profile.stages)
    for phase in plan:
        pristine = min(pristine, phase.cut)
        taken = kept if phase.cut <= pristine else frozenset[int]()
        epochs.append(_epoch(profile, cell, phase, (counts.train, steps), taken))
        evaluated += _evaluation(profile, cell, pristine, counts.val, kept)
    last = _evaluation(profile, cell, pristine, counts.val, kept)
    tries = trials(cell) * (sum(epochs) + last)
    # Each phase runs its first and its last batch, and the first once more, to see the memory that it takes.
    ends = 2 * min(cell.batch_size, counts.train) + ((counts.train - 1) % cell.batch_size + 1 if counts.train else 0)
    warm = sum(
        _epoch(profile, cell, phase, (ends, 3), kept) + 2 * phase.cold.of(min(cell.batch_size, counts.train))
        for phase in dict.fromkeys(plan)
    )
    evaluated += _evaluation(profile, cell, pristine, counts.test, kept)
    return Parts(fill=fill, epochs=tuple(epochs), evaluation=evaluated, tries=tries, own=own + warm)


def _inference(profile: Profile, cell: Cell, settings: Settings) -> Parts:
    batch = _forward(profile, cell.head, 0).of(cell.batch_size)
    batches = settings.throughput_rounds * settings.throughput_batches
    timed = batch * batches + profile.single_seconds * settings.latency_rounds
    warm = 8 * batch + 12 * profile.single_seconds
    own = profile.build_seconds + RECORD_SECONDS
    return Parts(fill=0.0, epochs=(), evaluation=timed, tries=0.0, own=own + warm)


def _epoch(profile: Profile, cell: Cell, phase: PhaseCost, work: tuple[int, int], kept: frozenset[int]) -> float:
    """Returns the seconds of training on so many images in so many steps (``work``), in a phase."""
    images, steps = work
    modes = modes_of(profile, phase, cell.head)
    seconds = _input(profile, phase.cut, images, steps, kept) + profile.step.of(images, steps)
    passes = sum(mode.forward.of(images, steps) + mode.backward.of(images, steps) for mode in modes)
    again = min(phase.extra_batches, steps) / max(steps, 1)
    return seconds * (1 + again) + passes * (1 + again) + phase.optimizer_seconds * steps


def modes_of(profile: Profile, phase: PhaseCost, head: str) -> list[Trained]:
    """Returns what each stage from the cut to the head costs in a phase."""
    head_trains = profile.modes[head_mode(head, passes_on=phase.cut < len(profile.stages))]
    return [*(profile.modes[key] for key in phase.modes), head_trains]


def _input(profile: Profile, cut: int, images: int, batches: int, kept: frozenset[int]) -> float:
    """Returns the seconds of having what a model takes after so many stages: from what is kept, or computed anew."""
    if cut in kept:
        return _moving(profile, images, [cut])
    frozen = (stage.forward.of(images, batches) for stage in profile.stages[:cut])
    return profile.pixels.of(images, batches) + sum(frozen)


def _evaluation(profile: Profile, cell: Cell, pristine: int, images: int, kept: frozenset[int]) -> float:
    """Returns the seconds of evaluating a model on so many images, of which ``pristine`` stages are what they were."""
    if not images:
        return 0.0
    stored = pristine in kept
    batches = math.ceil(images / (max(cell.batch_size, profile.chunk) if stored else cell.batch_size))
    start = pristine if stored else 0
    return _input(profile, start, images, batches, kept) + _forward(profile, cell.head, start).of(images, batches)


def _forward(profile: Profile, head: str, start: int) -> Line:
    """Returns the seconds of a forward pass from a stage on, the head included."""
    return sum((stage.forward for stage in profile.stages[start:]), profile.heads[head].forward)
