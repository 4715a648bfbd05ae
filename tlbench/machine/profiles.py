"""What a pass over a backbone has told of its cost on this machine, kept in the cache folder, a line for each profile.

A profile is additive over stages and linear in the images of a batch, so that what any policy costs at any batch size
follows from it (`tlbench.analysis.costing`); `tlbench.measure.profile` makes it. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tlbench.machine.lines import add_line, read_lines

NAME = "profiles.jsonl"
MOST = 200
"""Most lines that are kept: the latest."""
VERSION = 3


@dataclass(frozen=True)
class Line:
    """Says what something takes by the images of a batch: ``fixed`` for each batch, ``each`` for an image more."""

    fixed: float = 0.0
    each: float = 0.0

    def of(self, images: float, batches: float = 1.0) -> float:
        """Returns what so many images take in so many batches."""
        return self.fixed * batches + self.each * images

    def __add__(self, other: Line) -> Line:
        return Line(self.fixed + other.fixed, self.each + other.each)

    @classmethod
    def through(cls, points: Mapping[int, float]) -> Line:
        """Returns the line through what two batch sizes took. A launch that would cost less than nothing costs nothing,
        and the larger batch, which says more of an image, decides alone then; neither does an image give anything back.
        """
        (few, little), (many, much) = sorted(points.items())[0], sorted(points.items())[-1]
        if few == many:
            return cls(0.0, much / many)
        each = max((much - little) / (many - few), 0.0)
        fixed = much - many * each
        return cls(fixed, each) if fixed >= 0 else cls(0.0, max(much, 0.0) / many)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Says what one stage of a backbone, or its head, is and costs when nothing of it trains."""

    name: str
    parameters: int
    output_bytes: int
    """Bytes of what it hands on, for one image."""
    forward: Line
    """Seconds of its forward pass in eval mode and without gradients."""
    filling: Line
    """The same in the pass that keeps what frozen stages compute, which pools its own way (`tlbench.train.pooling`)."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Says what one stage costs in a training step, when certain parameters of it train."""

    forward: Line
    """Seconds."""
    backward: Line
    """Seconds."""
    saved: Line
    """Bytes that its forward pass keeps for the backward pass, parameters apart."""


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """Says what a phase of a policy is made of."""

    name: str
    share: float
    """Share of the epochs."""
    cut: int
    """Number of stages before the first that trains or adapts."""
    modes: tuple[str, ...]
    """Keys of `Profile.modes`, one for each stage from the cut to the features."""
    trainable: int
    """Parameters that train, those of the head apart."""
    optimizer_seconds: float
    """Seconds of the optimizer in a step."""
    workspace: Line
    """Bytes of a step's peak beyond gradients, optimizer state and what is kept for the backward pass."""
    cold: Line = Line()
    """Seconds that a step takes longer when its memory is still to be had from the system."""
    extra_batches: int = 0
    """Batches of each epoch that go forward and backward once more (Auto-RGN)."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Holds what was measured of a backbone with a head, at one image size and in one precision, on one machine."""

    key: str
    """What it was measured of (`tlbench.analysis.costing.profile_key`)."""
    place: str
    """Where (`tlbench.machine.times.place`)."""
    backbone: str
    size: int
    """Pixels a side."""
    stages: tuple[Stage, ...]
    """From the input to the features."""
    worth: tuple[int, ...]
    """Boundaries after which it pays to keep what the frozen stages compute."""
    chunk: int
    """Images in a batch of the frozen prefix."""
    pixels: Line
    """Seconds of making what the backbone takes of stored pixels."""
    step: Line
    """Seconds of a training step beyond its stages and its optimizer."""
    gather_seconds: float
    """Seconds of taking a byte of kept activations."""
    single_seconds: float
    """Seconds of a forward pass of one image."""
    forward_bytes: Line
    """Bytes of a forward pass's peak beyond what was there before."""
    build_seconds: float
    """Seconds of building a cell whose weights are loaded, of planning it, describing the machine and setting up its
    phases.
    """
    weights_bytes: int
    """Bytes of the backbone's parameters and buffers."""
    process_bytes: int
    """Resident bytes of a process that has done such steps, without the model and the images."""
    data_bytes: int
    """Bytes that a process has mapped for its data before it has done any such step: what ``--memory-limit`` counts."""
    grown_bytes: int
    """Bytes of its own that such a process then has more in memory, without the model and the images."""
    heads: Mapping[str, Stage] = field(default_factory=dict)
    """Head -> what it is and costs."""
    modes: Mapping[str, Trained] = field(default_factory=dict)
    """What trains of a stage, in a hash (of a head `head_mode`) -> what it costs then."""
    policies: Mapping[str, tuple[PhaseCost, ...]] = field(default_factory=dict)
    """Policy, with its epochs where its phases depend on them -> its phases in order."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Policy -> why it means nothing for this backbone."""
    mapped: Mapping[str, Line] = field(default_factory=dict)
    """What trains (`tlbench.analysis.footprint.mapped_name`) -> bytes that the process of such a cell maps for data,
    its images and kept activations apart, by the images of a batch. Only of what was asked for.
    """
    start_seconds: float | None = None
    """From the beginning of a process until it has imported all that cells need; None where that was not measured."""
    seconds: float = 0.0
    """What measuring it took."""
    quick: bool = False
    """Whether it was measured in a hurry: it knows nothing of memory, corrects nothing, and is not kept."""

    def extended(self, other: Profile) -> Profile:
        """Returns this with what another profile of the same key knows of further policies."""
        joined: dict[str, Any] = {name: {**getattr(self, name), **getattr(other, name)} for name in JOINED}
        return replace(self, **joined, seconds=self.seconds + other.seconds)

    def completed(self, other: Profile) -> Profile:
        """Returns this with what another profile of the same key knows beyond it; what it knows itself stays."""
        joined: dict[str, Any] = {name: {**getattr(other, name), **getattr(self, name)} for name in JOINED}
        return replace(self, **joined, seconds=self.seconds + other.seconds)


JOINED = ("heads", "modes", "policies", "refused", "mapped")
"""Fields of a profile to which later passes add."""


def head_mode(head: str, passes_on: bool) -> str:
    """Names the mode of a head; ``passes_on``: the stages before it need the gradient of what it takes."""
    return f"head {head}{' passes on' * passes_on}"


def policy_name(freeze: str, epochs: int, phases: int) -> str:
    """Names a policy of so many phases in a profile: where they are several, they go by the epochs too."""
    return freeze if phases == 1 else f"{freeze} in {epochs} epochs"


def read_profiles(place: str) -> dict[str, Profile]:
    """Returns the profiles of a place by key, the latest of each. Damaged lines, and those of another version, are
    passed over: they are measured again.
    """
    found: dict[str, Profile] = {}
    for line in read_lines(NAME):
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            data = json.loads(line)
            if data["place"] == place and data["version"] == VERSION:
                profile = profile_of(data)
                found[profile.key] = profile
    return found


def keep_profile(profile: Profile) -> None:
    """Keeps a profile for later runs. A cache that cannot be written is no error."""
    with suppress(ValueError):  # a figure that is no number
        add_line(NAME, json.dumps({"version": VERSION, **asdict(profile)}, allow_nan=False), MOST)


def profile_of(data: Mapping[str, Any]) -> Profile:
    """Reads the plain values of a profile that was measured whole.

    Errors: ValueError, TypeError, KeyError, AttributeError for what is none.
    """
    lines: dict[str, Any] = {name: _line(data[name]) for name in ("pixels", "step", "forward_bytes")}
    numbers: dict[str, Any] = {
        name: float(data[name]) for name in ("gather_seconds", "single_seconds", "build_seconds", "seconds")
    }
    if not all(math.isfinite(value) and value >= 0 for value in numbers.values()):
        raise ValueError("no number")
    lines |= {name: str(data[name]) for name in ("key", "place", "backbone")}
    whole = ("size", "chunk", "weights_bytes", "process_bytes", "data_bytes", "grown_bytes")
    lines |= {name: int(data[name]) for name in whole}
    return Profile(
        **lines,
        **numbers,
        stages=tuple(map(_stage, data["stages"])),
        heads={str(name): _stage(one) for name, one in data["heads"].items()},
        worth=tuple(map(int, data["worth"])),
        modes={
            str(key): Trained(**{name: _line(one[name]) for name in ("forward", "backward", "saved")})
            for key, one in data["modes"].items()
        },
        policies={str(key): tuple(map(_phase, phases)) for key, phases in data["policies"].items()},
        refused={str(key): str(why) for key, why in data["refused"].items()},
        mapped={str(key): _line(one) for key, one in data.get("mapped", {}).items()},  # earlier versions had none
        start_seconds=_maybe(data.get("start_seconds")),  # as above
    )


def _maybe(seconds: Any) -> float | None:
    if seconds is None:
        return None
    if not math.isfinite(float(seconds)) or seconds < 0:
        raise ValueError("no number")
    return float(seconds)


def _stage(one: Mapping[str, Any]) -> Stage:
    return Stage(
        name=str(one["name"]),
        parameters=int(one["parameters"]),
        output_bytes=int(one["output_bytes"]),
        forward=_line(one["forward"]),
        filling=_line(one["filling"]),
    )


def _phase(one: Mapping[str, Any]) -> PhaseCost:
    return PhaseCost(
        name=str(one["name"]),
        share=float(one["share"]),
        cut=int(one["cut"]),
        modes=tuple(map(str, one["modes"])),
        trainable=int(one["trainable"]),
        optimizer_seconds=float(one["optimizer_seconds"]),
        workspace=_line(one["workspace"]),
        cold=_line(one["cold"]),
        extra_batches=int(one["extra_batches"]),
    )


def _line(one: Mapping[str, Any]) -> Line:
    line = Line(float(one["fixed"]), float(one["each"]))
    if not (math.isfinite(line.fixed) and math.isfinite(line.each)):
        raise ValueError("no number")
    return line
