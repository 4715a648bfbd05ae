"""The memory that a cell takes, from the profile of its backbone, and the largest batch that fits. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tlbench.analysis.costing import is_fitted, modes_of, phases_of
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.machine.profiles import Line, PhaseCost, Profile
from tlbench.policies.parse import parse_policy

FLOAT = 4
"""Bytes of a parameter, of its gradient, and of each of its states in the optimizer."""
STATES = {"adamw": 2, "sgd": 1}
"""Optimizer -> numbers that it keeps for each parameter."""


def step_bytes(profile: Profile, cell: Cell, phase: PhaseCost) -> Line:
    """Returns the bytes that a training step takes at its peak, beyond the model and its images: gradients, the
    optimizer's state, what is kept for the backward pass, and workspace. ``fixed`` is what does not go by the batch.
    """
    trained = phase.trainable + profile.heads[cell.head].parameters
    held = Line(fixed=float(FLOAT * trained * (1 + STATES.get(optimizer_of(cell), 2))))
    saved = sum((mode.saved for mode in modes_of(profile, phase, cell.head)), Line())
    return held + saved + phase.workspace


def optimizer_of(cell: Cell) -> str:
    """Returns the optimizer of a cell, the policy's default spelt out."""
    if cell.optimizer != "auto":
        return cell.optimizer
    try:
        return parse_policy(cell.freeze).policy.optimizer
    except UserError:
        return "adamw"


def working_bytes(profile: Profile, cell: Cell) -> Line:
    """Returns the bytes that a cell takes at its peak beyond the model and its images, by the images of a batch."""
    if cell.task == "infer" or is_fitted(cell):
        return profile.forward_bytes
    lines = [step_bytes(profile, cell, phase) for phase in phases_of(profile, cell) or ()]
    return max(lines, key=lambda line: line.of(cell.batch_size))


def peak_bytes(profile: Profile, cell: Cell, images_bytes: int = 0, kept_bytes: int = 0) -> float:
    """Returns the peak of memory as a record has it: resident in the process on a CPU, whose libraries and second copy
    of the weights count; allocated by torch on a GPU. ``images_bytes`` are those of decoded images, ``kept_bytes``
    those of activations.
    """
    head = FLOAT * profile.heads[cell.head].parameters
    work = working_bytes(profile, cell).of(cell.batch_size)
    if cell.device == "cpu":
        return profile.process_bytes + 2 * profile.weights_bytes + head + images_bytes + kept_bytes + work
    return profile.weights_bytes + head + images_bytes + kept_bytes + work


def kept_bytes(profile: Profile, images: int, cuts: Iterable[int]) -> int:
    """Returns the bytes of the activations of so many images after these cuts."""
    return images * sum(profile.stages[cut - 1].output_bytes for cut in cuts)


PAD_BYTES, MAPPED = 2**26, 1.2
"""What the allocator maps ahead (`tlbench.machine.process`), and how many times as much as is in use it has mapped,
since what was freed lies in pieces: by the batches that ran, and those that did not, of ResNet-18 and MobileNetV3-Small
at 96 px (`bench/plan.py`)."""
CONTEXT_BYTES = 600_000_000
"""What CUDA and its libraries take of a card beside torch's own memory. Of no card: to be verified."""
USABLE = 0.95
"""Share of a card's other memory that torch can use, for it allocates in blocks. Of no card: to be verified."""


def room_on_card(card_bytes: int) -> int:
    """Returns the bytes of a card's memory that torch can hand out, as far as is known without one."""
    return int(max(card_bytes - CONTEXT_BYTES, 0) * USABLE)


def largest_batch(profile: Profile, cell: Cell, limit_bytes: int, fixed_bytes: int = 0, most: int = 65_536) -> int:
    """Returns the largest batch of a cell whose step fits ``limit_bytes`` together with ``fixed_bytes``; 0 where no
    batch of two does, which BatchNorm needs at least.

    On a CPU the limit is that of ``--memory-limit``, of mapped data. Where the profile has what was mapped in such
    cells, that decides; else the process counts, the weights as they were loaded and in the model, what is copied of it
    to warm up with, and what the allocator has mapped in vain.
    """
    if cell.device == "cpu" and (mapped := profile.mapped.get(mapped_name(cell))):
        found = _images_within(mapped, limit_bytes - PAD_BYTES - fixed_bytes, most)
        return found if found >= 2 else 0
    if cell.device == "cpu":
        limit_bytes = int((limit_bytes - profile.data_bytes - PAD_BYTES) / MAPPED)
    room = limit_bytes - fixed_bytes - _model_bytes(profile, cell)
    if cell.task == "infer" or is_fitted(cell):
        return _images_within(profile.forward_bytes, room, most)
    phases = phases_of(profile, cell) or ()
    if any(phase.cut in profile.worth for phase in phases) and profile.forward_bytes.of(profile.chunk) > room:
        return 0  # the frozen stages run in batches of their own
    least = min((phase.cut for phase in phases), default=0)
    clone = FLOAT * sum(stage.parameters for stage in profile.stages[least:])
    lines = [step_bytes(profile, cell, phase) for phase in phases]
    found = min((_images_within(line, room - clone, most) for line in lines), default=0)
    return found if found >= 2 else 0


def mapped_name(cell: Cell) -> str:
    """Names what trains of a cell, and how, in `Profile.mapped`."""
    return f"{cell.freeze}, {cell.head}, {optimizer_of(cell)}"


def _model_bytes(profile: Profile, cell: Cell) -> int:
    """Returns the bytes of a model with its head, and on a CPU those of the weights as they were loaded, and of what
    libraries keep once they have run.
    """
    model = profile.weights_bytes + FLOAT * profile.heads[cell.head].parameters
    return model if cell.device != "cpu" else model + profile.weights_bytes + profile.grown_bytes


def _images_within(line: Line, room: float, most: int) -> int:
    left = room - line.fixed
    if left < 0:
        return 0
    return most if line.each * most <= left else int(left / line.each)


def by_stage(profile: Profile, cell: Cell) -> Mapping[str, float]:
    """Returns the bytes that each stage keeps for the backward pass of a cell's largest phase, by its name."""
    phases = phases_of(profile, cell) or ()
    largest = max(phases, key=lambda phase: step_bytes(profile, cell, phase).of(cell.batch_size))
    names = [*(stage.name for stage in profile.stages[largest.cut :]), "head"]
    modes = modes_of(profile, largest, cell.head)
    return {name: mode.saved.of(cell.batch_size) for name, mode in zip(names, modes, strict=True)}
