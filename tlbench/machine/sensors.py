"""What the hardware tells about itself: clocks, heat, energy, limits. Everything is read from the kernel's files or
NVIDIA's management library; what is not there, or not for this user to read, is None. psutil knows nothing of
throttling, pressure, energy or a container's limits, so it could not take the place of this.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from tlbench.machine.noise import Reading, read_machine
from tlbench.machine.nvidia import SLOWING, Gpu, gpu

Limit = TypeVar("Limit", int, float)

SYSTEM = Path("/sys")
PROCESS = Path("/proc")

UNLIMITED = "unlimited"
NONE_FOUND = "none found"

ENERGY_RESOLUTION_SECONDS = {"cpu": 0.001, "cuda": 0.1}
"""How often the energy counters move."""


def read_text(path: Path) -> str | None:
    """Returns the text of a file of the kernel's; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """Returns the whole number that a file holds; None where there is none."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def field_of(path: Path, name: str) -> str | None:
    """Returns the first value that a file of lines ``name: value`` or ``name value`` gives a name."""
    found = re.search(rf"^{re.escape(name)}(?:\s*:|\s)\s*(.*)$", read_text(path) or "", re.MULTILINE)
    return found[1].strip() if found else None


# --- the processors -------------------------------------------------------------------------------------------


def _processors() -> list[Path]:
    return sorted((SYSTEM / "devices/system/cpu").glob("cpu[0-9]*"))


def physical_cores() -> int | None:
    """Counts the cores of this machine, however many threads each of them runs."""
    siblings = {read_text(cpu / "topology/thread_siblings_list") for cpu in _processors()}
    return len(siblings - {None}) or None


def governor() -> str | None:
    """Names what chooses the clocks (``performance``, ``schedutil``); several where processors differ."""
    found = {read_text(cpu / "cpufreq/scaling_governor") for cpu in _processors()} - {None, ""}
    return ", ".join(sorted(map(str, found))) or None


def max_clock_mhz() -> float | None:
    """Returns the highest clock of any processor."""
    found = [kilohertz for cpu in _processors() if (kilohertz := read_number(cpu / "cpufreq/cpuinfo_max_freq"))]
    return max(found) / 1000 if found else None


def clock_mhz() -> float | None:
    """Returns the mean clock of the processors at this moment."""
    found = [k / 1000 for cpu in _processors() if (k := read_number(cpu / "cpufreq/scaling_cur_freq"))]
    if not found:
        found = [float(f) for f in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _cpuinfo(), re.MULTILINE)]
    return sum(found) / len(found) if found else None


def _cpuinfo() -> str:
    return read_text(PROCESS / "cpuinfo") or ""


_HEAT = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc_thermal", "coretemp", "k10temp", "zenpower")


def temperature_celsius() -> float | None:
    """Returns what the hottest sensor of the processors says."""
    zones = [z for z in (SYSTEM / "class/thermal").glob("thermal_zone*") if (read_text(z / "type") or "") in _HEAT]
    chips = [c for c in (SYSTEM / "class/hwmon").glob("hwmon*") if (read_text(c / "name") or "") in _HEAT]
    files = [*(zone / "temp" for zone in zones), *(f for chip in chips for f in chip.glob("temp*_input"))]
    found = [thousandths for file in files if (thousandths := read_number(file)) is not None]
    return max(found) / 1000 if found else None


def pressure(resource: str) -> float | None:
    """Returns the share of the last ten seconds in which something waited for cpu, memory or io."""
    found = re.search(r"^some avg10=([\d.]+)", read_text(PROCESS / "pressure" / resource) or "", re.MULTILINE)
    return float(found[1]) / 100 if found else None


# --- limits of a container ------------------------------------------------------------------------------------


TRACES = {Path("/.dockerenv"): "docker", Path("/run/.containerenv"): "podman"}
SYSTEMD = Path("/run/systemd/container")


def container() -> str | None:
    """Names the container: ``docker``, ``podman``, ``kubernetes``, …; ``none found`` on a Linux that shows no trace of
    one.
    """
    if not sys.platform.startswith("linux"):
        return None
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for path, name in TRACES.items():
        if path.exists():
            return name
    said = read_text(SYSTEMD) or os.environ.get("container")  # noqa: SIM112 (its name)
    if said:
        return said
    found = re.search(r"docker|kubepods|libpod|containerd|lxc", read_text(PROCESS / "1/cgroup") or "")
    return found[0] if found else NONE_FOUND


def control_groups(controller: str) -> list[Path] | None:
    """Returns the folders of the control groups that this process is in, its own first, then those around it; of either
    version. None where there are none to read.
    """
    lines = (read_text(PROCESS / "self/cgroup") or "").splitlines()
    found: list[Path] = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "":
            roots = [SYSTEM / "fs/cgroup", SYSTEM / "fs/cgroup/unified"]
        elif controller in names.split(","):
            roots = [SYSTEM / "fs/cgroup" / names, SYSTEM / "fs/cgroup" / controller]
        else:
            continue
        for root in roots:
            inside = root / path.lstrip("/")
            found += [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root) and folder.is_dir()]
    return list(dict.fromkeys(found)) or None


def cpu_quota() -> float | str | None:
    """Returns the processors' worth of time that this process may use, by the tightest limit around it; ``unlimited``
    where nothing limits it.
    """
    limits = []
    for folder in control_groups("cpu") or ():
        quota, period = (read_text(folder / "cpu.max") or "max 0").split()
        if quota != "max":
            limits.append(int(quota) / int(period))
        old, old_period = (read_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if old is not None and old > 0 and old_period:
            limits.append(old / old_period)
    return _tightest(limits, "cpu")


def memory_limit_bytes() -> int | str | None:
    """Returns the tightest limit of memory around this process; ``unlimited`` where nothing limits it."""
    files = (f / name for f in control_groups("memory") or () for name in ("memory.max", "memory.limit_in_bytes"))
    # Version 1 writes "no limit" as the largest multiple of a page.
    return _tightest([n for file in files if (n := read_number(file)) is not None and n < 2**60], "memory")


def _tightest(limits: list[Limit], controller: str) -> Limit | str | None:
    if limits:
        return min(limits)
    return None if control_groups(controller) is None else UNLIMITED


@cache
def _throttle_files() -> dict[str, list[tuple[Path, str | None]]]:
    """Maps causes to the files that count them, with the name of the line where there are several."""
    packages = {read_text(cpu / "topology/physical_package_id"): cpu for cpu in reversed(_processors())}
    heat = [cpu / "thermal_throttle/package_throttle_count" for cpu in packages.values()]
    quota = [folder / "cpu.stat" for folder in control_groups("cpu") or ()]
    return {
        "heat held the processors back": [(file, None) for file in heat if file.is_file()],
        "the container's share of the processors was used up": [
            (file, "nr_throttled") for file in quota if field_of(file, "nr_throttled") is not None
        ],
    }


def throttles() -> dict[str, int]:
    """Counts how often the processors were held back so far, by cause; without the causes that nothing counts here."""
    found = {}
    for cause, files in _throttle_files().items():
        numbers = [int((field_of(file, name) if name else read_text(file)) or 0) for file, name in files]
        if numbers:
            found[cause] = sum(numbers)
    return found


# --- energy ---------------------------------------------------------------------------------------------------


class Rapl:
    """Joins the energy counters of the processors' packages (Linux's powercap) into one that only grows."""

    def __init__(self) -> None:
        zones = sorted((SYSTEM / "class/powercap").glob("*rapl:[0-9]*"))
        self._zones = [z for z in zones if (read_text(z / "name") or "").startswith("package")]
        self._last = [read_number(zone / "energy_uj") for zone in self._zones]
        self._microjoules = 0

    def joules(self) -> float | None:
        """Returns the joules since this object was made; None where the counters are not there or not for this user to
        read.
        """
        if not self._zones:
            return None
        for index, zone in enumerate(self._zones):
            now, last = read_number(zone / "energy_uj"), self._last[index]
            if now is None or last is None:
                return None
            wraps_at = read_number(zone / "max_energy_range_uj") or 0
            self._microjoules += now - last + (wraps_at if now < last else 0)
            self._last[index] = now
        return self._microjoules / 1e6


# --- the witness ----------------------------------------------------------------------------------------------


def cpu_reader() -> Callable[[], Reading]:
    """Reads the machine, its throttling and its energy."""
    rapl = Rapl()
    return lambda: replace(read_machine(), throttles=throttles(), energy_joules=rapl.joules())


def gpu_reader(card: Gpu) -> Callable[[], Reading]:
    """Reads the machine and a GPU: what feeds it can be disturbed as well."""

    def read() -> Reading:
        return replace(
            read_machine(),
            thread_seconds=None,  # it may sleep until the GPU is done
            throttles=throttles(),
            held_back=card.reasons(SLOWING) or (),
            held_seconds=card.held_seconds(),
            clock_mhz=card.clock_mhz(),
            foreign=card.foreign(),
            energy_joules=card.energy_joules(),
        )

    return read


def reader(device_type: str, index: int | None = None) -> Callable[[], Reading]:
    """Returns what a `tlbench.machine.noise.Watch` reads for a device."""
    return gpu_reader(gpu(index)) if device_type == "cuda" else cpu_reader()


def ranges(numbers: Iterable[int]) -> str:
    """Writes whole numbers as ranges: ``0-3,8``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in found)
