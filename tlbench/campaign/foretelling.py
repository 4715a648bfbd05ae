"""Says what cells will cost before they are measured: makes the profiles that are missing, and asks what is expected.

A profile is one pass over a backbone, kept for later runs of this machine. What earlier cells took corrects it.
One file, since which profile tells of a cell is one question, whatever is asked of it then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlbench.analysis import costing, footprint
from tlbench.analysis.expectation import Expectation, Foreseen, interval, together
from tlbench.campaign.campaign import Campaign
from tlbench.campaign.mapping import with_mapped
from tlbench.campaign.steps import Step
from tlbench.data.data_root import data_root
from tlbench.errors import NotApplicable, Unavailable, UserError, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.grid.values import taken
from tlbench.machine.memory import free_bytes
from tlbench.machine.profiles import Profile, keep_profile, read_profiles
from tlbench.machine.times import place

FITS = ("yes", "perhaps", "no")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Says what one cell will cost."""

    step: Step
    foreseen: Foreseen | None
    """None where nothing tells."""
    fits: str = ""
    """yes, perhaps (its interval reaches beyond the memory), no; empty where nothing tells."""
    note: str = ""
    """Why nothing tells, or what a person should know."""

    def values(self) -> dict[str, Any]:
        """Returns the columns of a plan's table; unknown is None."""
        cell, found = self.step.cell, self.foreseen
        row: dict[str, Any] = {"id": self.step.name, "block": self.step.block}
        row |= {name: getattr(cell, name) for name in COLUMNS}
        seconds = (None, None) if found is None else interval(found.seconds, found.spread)
        known = found is not None and found.memory_bytes is not None
        memory = interval(found.memory_bytes or 0.0, found.memory_spread) if known and found else (None, None)
        return row | {
            "prefix_seconds": found.fill if found else None,
            "epoch_seconds": found.epoch if found else None,
            "total_seconds": found.seconds if found else None,
            "total_seconds_low": seconds[0],
            "total_seconds_high": seconds[1],
            "peak_memory_bytes": found.memory_bytes if found else None,
            "peak_memory_bytes_low": memory[0],
            "peak_memory_bytes_high": memory[1],
            "fits": self.fits or None,
            "by": found.by if found else None,
            "note": self.note,
        }


COLUMNS = (
    "task", "backbone", "freeze", "head", "dataset", "device", "seed", "batch_size", "image_size", "epochs",
    "lr", "patience",
)  # fmt: skip
"""Fields of the cell that a plan's table shows."""


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """Says what a whole campaign will cost."""

    rows: tuple[Row, ...]
    seconds: float | None
    """Of all cells; None where nothing tells of one."""
    spread: float
    """Standard deviation of its log."""

    @property
    def interval(self) -> tuple[float, float]:
        """Returns the seconds that nine of ten such grids take."""
        return interval(self.seconds or 0.0, self.spread)


def foretell(campaign: Campaign, say: Say = lambda line: None) -> Foretold:
    """Returns what the cells that are left of a campaign will cost. Backbones of which this machine has no profile are
    profiled first, which ``say`` is told.

    Errors: UserError for a name that this process does not know.
    """
    steps = [step for step in campaign.left if step.role == "cell"]
    settings = campaign.plan.settings
    with data_root(settings.data_root):
        cells = [step.cell for step in steps]
        profiles, problems = profiles_for(cells, settings, say, plugins=campaign.asked.plugins)
    campaign.know(profiles)
    times = campaign.times
    found = times.foresee((step.cell, step.block) for step in steps)
    rows = tuple(_row(step, one, times, problems) for step, one in zip(steps, found, strict=True))
    known = [row.foreseen for row in rows if row.foreseen is not None]
    told = len(known) == sum(1 for row in rows if not _refused(row.step.cell, problems))
    seconds, spread = together(known)
    return Foretold(rows=rows, seconds=seconds if told else None, spread=spread)


def _refused(cell: Cell, problems: Mapping[tuple[str, str], str]) -> str:
    """Returns why a cell will not be measured; empty where it will."""
    key = costing.profile_key(cell)
    own = problems.get((key, cell.freeze)) if cell.task == "train" else None
    return own or problems.get((key, ""), "")


def _row(step: Step, found: Foreseen | None, times: Expectation, problems: Mapping[tuple[str, str], str]) -> Row:
    cell = step.cell
    if why := _refused(cell, problems):
        return Row(step=step, foreseen=None, note=why)
    if found is None:
        return Row(step=step, foreseen=None, note="nothing was measured on this device before")
    note = ""
    if found.by != "profile" and costing.can_be_profiled(cell):
        note = "its profile could not be measured, so this goes by a rule and by what cells took"
    elif found.by != "profile":
        what = f"--compile {cell.compile}" if cell.compile != "off" else f"--augment {cell.augment}"
        note = f"no profile covers {what}, so this goes by a rule and by what cells took"
    return Row(step=step, foreseen=found, fits=_fits(cell, found, times), note=note)


def _fits(cell: Cell, found: Foreseen, times: Expectation) -> str:
    """Tells whether a cell's peak fits the memory that it may take."""
    profile, limit = times.profile_of(cell), times.settings.memory_limit_bytes
    if profile is None or found.memory_bytes is None:
        return ""
    if cell.device == "cpu" and limit is not None:
        # The limit is on what is mapped, of which more than the resident peak counts.
        largest = footprint.largest_batch(profile, cell, limit, _beside(profile, cell, times))
        return "yes" if 1.1 * cell.batch_size <= largest else "perhaps" if 0.9 * cell.batch_size <= largest else "no"
    room = memory_of(cell.device)
    if room is None:
        return ""
    if found.memory_bytes > room:
        return "no"
    return "perhaps" if interval(found.memory_bytes, found.memory_spread)[1] > room else "yes"


def _beside(profile: Profile, cell: Cell, times: Expectation) -> int:
    """Returns the bytes of a cell's images and of what frozen layers keep."""
    images = times.images_of(cell)
    cuts = costing.filled_cuts(profile, cell, times.settings, times.siblings, cell.epochs)
    return 3 * profile.size**2 * times.held_of(cell) + footprint.kept_bytes(profile, images, cuts)


def memory_of(device: str) -> int | None:
    """Returns the bytes that a cell may take on a device: on a CPU what is free, with what this process has itself."""
    if device == "cpu":
        from tlbench.machine.device import memory_in_use, resolved

        return free_bytes() + (memory_in_use(resolved(device)) or 0)
    import torch

    if not torch.cuda.is_available():
        return None
    return footprint.room_on_card(torch.cuda.get_device_properties(torch.device(device)).total_memory)


# --- profiles -------------------------------------------------------------------------------------------------


def profiles_for(
    cells: Iterable[Cell],
    settings: Settings,
    say: Say = lambda line: None,
    quick: bool = False,
    plugins: Sequence[str] = (),
) -> tuple[dict[str, Profile], dict[tuple[str, str], str]]:
    """Returns the profiles that cells need, by key, measured where the machine does not have them; and why cells have
    none, by key and policy (an empty policy: all cells of the key). Each is measured in a process of its own, which
    loads these plugins, where the settings have cells measured so (`tlbench.campaign.profiling`). What is measured in a
    hurry (``quick``) is measured here, and not kept for later.

    Errors: UserError for a name that this process does not know.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if costing.can_be_profiled(cell):
            groups.setdefault(costing.profile_key(cell), []).append(cell)
    known: dict[str, dict[str, Profile]] = {}
    found: dict[str, Profile] = {}
    problems: dict[tuple[str, str], str] = {}
    for key, together_ in groups.items():
        where = place(together_[0].device, settings.threads)
        here = known.setdefault(where, read_profiles(where) if where not in known else {})
        try:
            profile = _profile(key, where, together_, settings, (here.get(key), say, quick), plugins)
        except (NotApplicable, Unavailable) as error:
            problems[key, ""] = str(error)
        except (MemoryError, RuntimeError) as error:
            first = (text_of(error).strip().splitlines() or [type(error).__name__])[0][:200]
            # The cell itself may be measured all the same: the rule, or earlier cells, tell of it.
            say(f"{together_[0].backbone}: its profile cannot be measured: {first}")
        else:
            found[key] = profile
            problems |= {(key, freeze): why for freeze, why in profile.refused.items()}
    return found, problems


def _profile(
    key: str,
    where: str,
    cells: Sequence[Cell],
    settings: Settings,
    there: tuple[Profile | None, Say, bool],
    plugins: Sequence[str],
) -> Profile:
    """Returns a profile that covers these cells: the one that is ``there``, or one that was measured to add to it.

    Errors: as `tlbench.measure.profile.measure_profile`.
    """
    have, say, quick = there
    missing = [cell for cell in cells if have is None or not _known(have, cell)]
    if not missing and have is not None:
        return have
    from tlbench.campaign.profiling import profiled
    from tlbench.measure.profile import Wanted, measure_profile

    trained = [cell for cell in missing if cell.task == "train" and not costing.is_fitted(cell)]
    heads = tuple(dict.fromkeys(cell.head for cell in missing))
    wanted = Wanted(
        cell=replace(missing[0], weights="random"),
        key=key,
        place=where,
        policies=tuple(dict.fromkeys((cell.freeze, cell.epochs) for cell in trained)),
        heads=heads,
        quick=quick,
    )
    if quick:
        made = measure_profile(wanted, settings)
        # What is known well stays as it is.
        return made if have is None else replace(have.completed(made), quick=True)
    say(f"profile of {key}: a few steps of training, which this machine keeps for later")
    made = profiled(wanted, settings, plugins)
    say(f"profile of {key}: took {taken(made.seconds)}")
    whole = made if have is None else have.extended(made)
    keep_profile(whole)
    return whole


def _known(profile: Profile, cell: Cell) -> bool:
    """Tells whether a profile says what a cell costs, or why it means nothing."""
    return costing.covers(profile, cell) or (cell.task == "train" and cell.freeze in profile.refused)


# --- the largest batch ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Says the largest batch of a cell for each size of memory."""

    cell: Cell
    batches: Mapping[int, int]
    """Bytes of memory -> images; 0 where no batch fits."""
    problem: str = ""
    """Why there are none."""


MOST_BATCH = 65_536
"""Batches beyond this are not told apart."""


def largest_batches(
    cells: Sequence[Cell],
    memories: Sequence[int],
    settings: Settings,
    say: Say = lambda line: None,
    beside_bytes: int = 0,
    plugins: Sequence[str] = (),
) -> list[Fit]:
    """Returns the largest batch of each cell for each size of memory, of which ``beside_bytes`` are taken by images. A
    card that is not here is no matter: what a step takes is measured on the processor then. The process that measures
    it is a new one: what this one has mapped is not what a cell's has.

    Errors: as `profiles_for`.
    """
    settings = replace(settings, isolate="backbone")
    measured = [replace(cell, device=measured_on(cell.device), precision=_precision(cell)) for cell in cells]
    profiles, problems = profiles_for(measured, settings, say, plugins=plugins)
    found = []
    for cell, like in zip(cells, measured, strict=True):
        key = costing.profile_key(like)
        profile = profiles.get(key)
        if (why := _refused(like, problems)) or profile is None:
            found.append(Fit(cell=cell, batches={}, problem=why or "nothing tells"))
            continue
        rooms = {size: size if cell.device == "cpu" else footprint.room_on_card(size) for size in memories}
        if cell.device == "cpu":
            profile = profiles[key] = with_mapped(profile, like, max(memories), settings, plugins, say)
        batches = {
            size: footprint.largest_batch(profile, cell, space, beside_bytes, MOST_BATCH)
            for size, space in rooms.items()
        }
        found.append(Fit(cell=cell, batches=batches))
    return found


def measured_on(device: str) -> str:
    """Returns the device that tells what a step takes on a device: the processor, where there is no such GPU."""
    if device == "cpu":
        return device
    import torch

    return device if torch.cuda.is_available() else "cpu"


def _precision(cell: Cell) -> str:
    """Returns the precision to measure in: a mode of a card's matrix units changes no memory."""
    return "fp32" if cell.precision == "tf32" and measured_on(cell.device) == "cpu" else cell.precision


def check_memories(texts: Sequence[str]) -> list[int]:
    """Reads sizes of memory. Errors: UserError naming the value and what was expected."""
    from tlbench.grid.values import quoted, size

    found = []
    for text in texts:
        try:
            value = size(text)
        except ValueError as expected:
            raise UserError(f"--memory: {quoted(text)} is not {expected}") from None
        if value < 10**8:
            raise UserError(f"--memory: {quoted(text)} is less than a model takes; give a size such as 8GB")
        found.append(value)
    if not found:
        raise UserError("--memory: name at least one size, such as 8GB,16GB,24GB")
    return list(dict.fromkeys(found))
