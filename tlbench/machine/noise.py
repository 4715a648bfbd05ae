"""What else the machine did while something was timed, and whether the times can be trusted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tlbench.machine.usage import usage, waited_seconds

# --- what else the machine did --------------------------------------------------------------------------------

_PRESSURE = "/proc/pressure/cpu"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A reading is the state of the machine at one moment; None is what it does not tell. Counts run on."""

    seconds: float
    stalled_seconds: float | None
    """So far, some runnable task of the machine has waited for a processor; not told of a machine that is shared."""
    waited_seconds: float | None = None
    """So far, the threads of this process have waited for one; told of a machine that is shared."""
    switches: int | None
    """So far, this process was made to give up its processor."""
    disk_waits: int = 0
    """So far, this process has waited for a page of a file (major page faults)."""
    thread_seconds: float | None = None
    """So far, this thread has run; not told where it waits for a GPU."""
    throttles: Mapping[str, int] = field(default_factory=dict)
    """So far, the processors were held back, by cause."""
    held_back: tuple[str, ...] = ()
    """Why the GPU is slower than its clocks allow, at this moment."""
    held_seconds: Mapping[str, float] = field(default_factory=dict)
    """So far, the GPU's clocks were held back, by the limit that did it."""
    clock_mhz: int | None = None
    """The GPU's, at this moment."""
    foreign: int | None = None
    """Other processes that compute on the GPU, at this moment."""
    energy_joules: float | None = None
    """So far, of the processors, or of the GPU where that is what computes."""


_neighbours = [False]
"""Whether cells of the same run may be measured on this machine now."""


@contextmanager
def witnessing(shared: bool) -> Iterator[None]:
    """Has everything that is witnessed until its end be that of a ``shared`` machine: there, what other processes wait
    for and compute may be cells of the same run, so that only this process is a witness.
    """
    before, _neighbours[0] = _neighbours[0], shared
    try:
        yield
    finally:
        _neighbours[0] = before


def shares_node() -> bool:
    """Tells whether what is measured now may have cells of the same run beside it."""
    return _neighbours[0]


def read_machine() -> Reading:
    """Takes a reading. It costs some 20 µs, so it is taken outside the timed calls. `tlbench.machine.sensors` adds what
    a device tells.
    """
    used, shared = usage(), _neighbours[0]
    return Reading(
        seconds=time.perf_counter(),
        stalled_seconds=None if shared else _stalled(),
        waited_seconds=waited_seconds() if shared else None,
        switches=used.switches_forced,
        disk_waits=used.disk_waits,
        thread_seconds=time.thread_time(),
    )


def _stalled() -> float | None:
    try:
        with open(_PRESSURE, encoding="ascii") as file:
            some = file.readline()
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Holds what a `Watch` saw during one round."""

    pressure: float | None
    """Share of the round that something runnable waited for a processor."""
    switches: int | None
    waited: float | None = None
    """The same of this process alone: of all its threads together, where the machine is shared."""
    idle: float | None = None
    """Share of the round that the thread which computes did not run; unknown where it waited for the disk, as it may
    with activations that lie there."""
    throttled: tuple[str, ...] = ()
    """What held the processors or the GPU back."""
    clock_mhz: int | None = None
    """The GPU's at the end of the round."""
    foreign: int | None = None
    """Other processes on the GPU: the more of its beginning and its end."""
    energy_joules: float | None = None
    shared: bool = False
    """Whether cells of the same run may have been measured on the machine meanwhile."""


HELD = 0.05
"""Share of a round that a limit may hold the GPU's clocks back."""


class Watch:
    """A watch witnesses the rounds of one clock: `setup` and `close` bracket each timed call, outside of it."""

    def __init__(self, setup: Callable[[], None], read: Callable[[], Reading] = read_machine) -> None:
        self._setup, self._read = setup, read
        self._before: Reading | None = None
        self.rounds: list[Noise] = []

    def setup(self) -> None:
        """Begins a round; the clock calls it in the place of the setup that it wraps."""
        self.close()
        self._setup()
        self._before = self._read()

    def close(self) -> None:
        """Ends the round that is open, if one is."""
        if self._before is None:
            return
        before, after = self._before, self._read()
        self._before = None
        stalled = _less(after.stalled_seconds, before.stalled_seconds)
        waited = _less(after.waited_seconds, before.waited_seconds)
        ran, whole = _less(after.thread_seconds, before.thread_seconds), max(after.seconds - before.seconds, 1e-9)
        held = [name for name, count in after.throttles.items() if count > before.throttles.get(name, count)]
        for limit, seconds in after.held_seconds.items():
            share = (seconds - before.held_seconds.get(limit, seconds)) / whole
            if share > HELD:
                held.append(f"{limit} held the GPU back for {min(share, 1):.0%} of it")
        self.rounds.append(
            Noise(
                pressure=None if stalled is None else stalled / whole,
                waited=None if waited is None else max(0.0, waited / whole),
                idle=None if ran is None or after.disk_waits > before.disk_waits else max(0.0, 1 - ran / whole),
                switches=None
                if after.switches is None or before.switches is None
                else after.switches - before.switches,
                throttled=tuple(dict.fromkeys([*held, *before.held_back, *after.held_back])),
                clock_mhz=after.clock_mhz,
                foreign=max((n for n in (before.foreign, after.foreign) if n is not None), default=None),
                # The counters are of the whole package, or the GPU, whoever computes there.
                energy_joules=None if _neighbours[0] else _less(after.energy_joules, before.energy_joules),
                shared=_neighbours[0],
            )
        )


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


SWITCHES_PER_SECOND = 50
"""Beyond these a round is noisy where the kernel tells no pressure."""
IDLE = 0.2
"""Share of a round that the thread which computes may stand still. One that was stopped waits for no processor, so that
the kernel's pressure does not know of it."""


def noisy(noise: Noise, seconds: float, limit: float) -> str:
    """Says why a round is not to be trusted; empty when it is. ``limit`` is the share of waiting that is let pass."""
    if noise.foreign and not noise.shared:
        return f"{noise.foreign} other process{'es' * (noise.foreign > 1)} on the GPU"
    if noise.pressure is not None and noise.pressure > limit:
        return f"{min(noise.pressure, 1):.0%} of it, something waited for a processor"
    if noise.waited is not None and noise.waited > limit:
        return f"for {min(noise.waited, 1):.0%} of it, the process waited for a processor"
    if noise.idle is not None and noise.idle > IDLE:
        return f"the process did not run for {noise.idle:.0%} of it: it was stopped, or waited"
    if noise.pressure is not None or noise.waited is not None or noise.switches is None:
        return ""
    rate = noise.switches / max(seconds, 1e-9)
    return f"the process lost its processor {rate:.0f} times a second" if rate > SWITCHES_PER_SECOND else ""


def energy(rounds: Sequence[Noise], seconds: Sequence[float], resolution_seconds: float) -> float | None:
    """Returns the joules of all rounds; None where one is unknown, or so short that the counter's steps blur it: it
    moves once in ``resolution_seconds``, and a round must last ten of these steps.
    """
    known = [noise.energy_joules for noise in rounds if noise.energy_joules is not None]
    if not known or len(known) < len(rounds) or min(seconds) < 10 * resolution_seconds:
        return None
    return sum(known)


SHARE_OF_NOISY_ROUNDS = 1 / 3
SHARED = "other cells of the run may have been measured on this node at the same time"
DRIFT, DRIFT_ROUNDS = 0.1, 9
OUTLIER, OUTLIER_ROUNDS = 1.5, 3


def validity(
    phases: Sequence[str],
    seconds: Sequence[float],
    reasons: Sequence[str],
    throttled: Sequence[str] = (),
    fill: Mapping[str, Any] = MappingProxyType({}),
    shared: bool = False,
) -> tuple[str, str]:
    """Says whether a cell's times can be trusted: (ok, throttled, noisy, drifting or shared, why). ``reasons`` are of
    `noisy`, ``throttled`` what held the machine back, one text a round, empty where nothing did. ``fill`` says the
    same of the pass that computed the frozen prefix, under ``noisy`` and ``throttled``, where there was one. Of a
    ``shared`` node nothing else is said: whatever disturbed the cell there may have been others of its run.

    Noisy is also a phase of at least three rounds where one that took 1.5 times the median or more, whatever the
    reason, makes the sum a tenth larger. Drifting: in a phase of at least nine rounds the last third is a tenth slower
    or faster than the first, and the two do not overlap in their middle halves.
    """
    if shared:
        disturbed = [text for text in reasons if text]
        told = f"; {len(disturbed)} of {len(reasons)} rounds: {disturbed[0]}" if disturbed else ""
        return ("shared", SHARED + told) if phases else ("ok", "")
    for word, texts in (("throttled", throttled), ("noisy", reasons)):
        flagged = [text for text in texts if text]
        if len(flagged) > SHARE_OF_NOISY_ROUNDS * len(texts):  # beyond it the median is no longer of quiet rounds
            return word, f"{len(flagged)} of {len(texts)} rounds: {flagged[0]}"
        if why := fill.get(word):
            return word, f"the frozen prefix: {why}"
    for phase in dict.fromkeys(phases):
        own = [s for p, s in zip(phases, seconds, strict=True) if p == phase]
        usual = statistics.median(own)
        if len(own) >= OUTLIER_ROUNDS and max(own) > OUTLIER * usual:
            excess = sum(s - usual for s in own if s > OUTLIER * usual)
            if excess > DRIFT * usual * len(own):
                return "noisy", f"{phase}: a round took {max(own) / usual:.1f} times as long as the median"
        if len(own) < DRIFT_ROUNDS:
            continue
        third = len(own) // 3
        first, last = sorted(own[:third]), sorted(own[-third:])
        ratio = statistics.median(last) / statistics.median(first)
        apart = last[third // 4] > first[-1 - third // 4] or last[-1 - third // 4] < first[third // 4]
        if abs(ratio - 1) > DRIFT and apart:
            return "drifting", f"{phase}: the last rounds take {ratio:.2f} times as long as the first"
    return "ok", ""
