"""What a run takes from the runs before it on the same machine, and leaves to those after it: how noisy it is, and how
long cells take; and what it takes from its own records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlbench.analysis.expectation import Expectation, Splits
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.machine.cache import cache_folder
from tlbench.machine.history import Past, read_past, remember
from tlbench.machine.profiles import read_profiles
from tlbench.machine.times import place, read_times, remember_times, rough_speed
from tlbench.records.machine import machine_key
from tlbench.records.record import Record

Place = tuple[str, str]
"""Machine and device."""


class Memory:
    """Holds what was known of each machine and device when the run began."""

    def __init__(self, run: str) -> None:
        """``run`` tells this run from others: what it has told itself, before it went on, is nothing earlier."""
        self.run = run
        self._pasts: dict[Place, list[Past]] = {}

    def of(self, record: Record) -> Mapping[str, Any]:
        """Returns what is known of the place that a record was measured at, and of how its cell varies from run to run
        (`tlbench.analysis.noise.known`).
        """
        from tlbench.analysis.frame import row
        from tlbench.analysis.noise import known

        if not record.environment or record.shares_node:
            return {}
        machine, device = place = machine_key(record), record.cell.device
        if place not in self._pasts:
            self._pasts[place] = [past for past in read_past(machine, device) if past.run != self.run]
        return known(self._pasts[place], row(record)) if self._pasts[place] else {}

    def keep(self, records: Sequence[Record]) -> None:
        """Keeps what all current records of the run tell."""
        from tlbench.analysis.frame import rows
        from tlbench.analysis.noise import told

        for past in told(rows(records), self.run):
            remember(past)


# --- how long cells take --------------------------------------------------------------------------------------


def expectation(
    settings: Settings,
    devices: Iterable[str],
    splits: Mapping[tuple[str, int | None], Splits],
    earlier: Sequence[Record],
    siblings: Sequence[str] = (),
    stores: Mapping[str, int] | None = None,
) -> Expectation:
    """Returns what tells how long cells will take: by the profiles that the machine has of backbones, by what earlier
    runs told of these devices, or else by how fast the processor is; and by the records that the run has. ``siblings``
    are the freeze policies of the grid, ``stores`` says how many images each data set has in all.
    """
    told = {device: read_times(place(device, settings.threads)) for device in devices}
    profiles = {key: one for device in told for key, one in read_profiles(place(device, settings.threads)).items()}
    cpu = [device for device, known in told.items() if device == "cpu" and not known]
    speed = rough_speed(settings.threads) if cpu else None
    made = Expectation(
        settings=settings,
        splits=dict(splits),
        earlier=told,
        speeds={name: speed for name in cpu if speed},
        profiles=profiles,
        siblings=siblings,
        stores=stores or {},
    )
    made.recall(earlier)
    return made


def keep_times(times: Expectation) -> None:
    """Keeps what cells of this run took for later ones."""
    for device, told in times.new.items():
        remember_times(place(device, times.settings.threads), told)


# --- what its own records say ---------------------------------------------------------------------------------


def remember_layouts(records: Iterable[Record]) -> None:
    """Has cells that are still measured take the layouts that those of the run took which were measured of the same,
    whatever has become of the cache since.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for record in records:
        if key := record.layout.get("key"):
            found.setdefault(
                str(key), (record.layout.get("contiguous_seconds"), record.layout.get("channels_last_seconds"))
            )
    layouts.hear(found)


def about_the_cache() -> list[str]:
    """Says, in a line or none, that nothing can be kept for later runs."""
    if not (why := layouts.why_not_kept()):
        return []
    return [
        f"nothing can be kept in the cache folder {str(cache_folder())!r} ({why}): what is measured of this machine "
        "holds for this run alone; set TLBENCH_CACHE to a folder that can be written"
    ]
