"""What NVIDIA's management library tells about a GPU; what it does not tell is None."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from typing import Any

DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Files of a driver on Linux: NVIDIA's, that of Linux within Windows, and AMD's, whose GPUs are CUDA to torch."""


def may_have_gpu() -> bool:
    """Tells whether torch has to be asked for GPUs, which takes importing it; where that is done it can be asked."""
    return "torch" in sys.modules or sys.platform != "linux" or has_driver()


def has_driver() -> bool:
    """Tells whether a driver of GPUs is there. Without its library torch sees none, whoever has made them."""
    if any(map(os.path.exists, DEVICE_FILES)):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


# --- NVIDIA GPUs ----------------------------------------------------------------------------------------------

SLOWING = {
    # NVML's reasons that mean a fault of cooling or supply; a power limit is the card's own, and in the environment
    0x08: "the hardware slowed down",
    0x20: "the driver slowed down for the heat",
    0x40: "the hardware slowed down for the heat",
    0x80: "the power supply made it slow down",
}
REASONS = {
    0x01: "idle",
    0x02: "application clocks",
    0x04: "power limit",
    0x10: "sync boost",
    0x100: "display clocks",
    **SLOWING,
}

IDLE, LOCKED = 0x01, 0x02
"""Of NVML's reasons: clocks that somebody has set (nvidia-smi --lock-gpu-clocks, --applications-clocks)."""
LIMITS = {
    "NVML_PERF_POLICY_POWER": "the power limit",
    "NVML_PERF_POLICY_THERMAL": "the heat limit",
    "NVML_PERF_POLICY_BOARD_LIMIT": "the board's limit",
    "NVML_PERF_POLICY_RELIABILITY": "the limit of its voltage",
}
"""NVML's policies whose counters run while they hold the clocks back."""


@cache
def nvml() -> Any:
    """Returns NVIDIA's management library, started; None where there is no driver for it to ask."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or an old one
        return None
    return pynvml


class Gpu:
    """Asks NVML about one GPU; every answer is None where it does not tell."""

    def __init__(self, library: Any, uuid: str, bus: str = "") -> None:
        """Takes the ``uuid`` that CUDA gives. CUDA counts only the GPUs that are visible, so its number names another
        one. A part of a GPU (MIG) has a uuid of its own; where that is not known, the ``bus`` (0000:3b:00.0) names the
        GPU.
        """
        self._library, self.uuid = library, uuid
        plain = uuid.removeprefix("GPU-").removeprefix("MIG-")
        named = (self._ask("nvmlDeviceGetHandleByUUID", f"{kind}-{plain}") for kind in ("GPU", "MIG"))
        self._handle = next((handle for handle in named if handle is not None), None)
        if self._handle is None and bus:
            self._handle = self._ask("nvmlDeviceGetHandleByPciBusId", bus)

    def _ask(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._library, function)(*arguments)
        except Exception:  # NVML's errors: not supported, no permission; or no library at all
            return None

    def _get(self, function: str, *arguments: Any) -> Any:
        return None if self._handle is None else self._ask(f"nvmlDeviceGet{function}", self._handle, *arguments)

    def driver(self) -> str | None:
        """Returns the driver's version."""
        found = self._ask("nvmlSystemGetDriverVersion")
        return found.decode() if isinstance(found, bytes) else found

    def power_limit_watts(self) -> float | None:
        """Returns the power limit in force."""
        return _thousandth(self._get("EnforcedPowerLimit"))

    def max_clock_mhz(self) -> int | None:
        """Returns the highest clock of the multiprocessors."""
        found: int | None = self._get("MaxClockInfo", 1)
        return found

    def max_memory_clock_mhz(self) -> int | None:
        """Returns the highest clock of the memory."""
        found: int | None = self._get("MaxClockInfo", 2)
        return found

    def clock_mhz(self) -> int | None:
        """Returns the clock of the multiprocessors at this moment."""
        found: int | None = self._get("ClockInfo", 1)
        return found

    def memory_clock_mhz(self) -> int | None:
        """Returns the clock of the memory at this moment."""
        found: int | None = self._get("ClockInfo", 2)
        return found

    def temperature_celsius(self) -> int | None:
        """Returns the temperature of the chip."""
        found: int | None = self._get("Temperature", 0)
        return found

    def power_watts(self) -> float | None:
        """Returns the power that is drawn at this moment."""
        return _thousandth(self._get("PowerUsage"))

    def energy_joules(self) -> float | None:
        """Returns the energy that was used since the driver was loaded."""
        return _thousandth(self._get("TotalEnergyConsumption"))

    def utilisation(self) -> float | None:
        """Returns the share of the last moment in which a kernel ran."""
        found = self._get("UtilizationRates")
        return None if found is None else found.gpu / 100

    def reasons(self, names: dict[int, str] = REASONS) -> tuple[str, ...] | None:
        """Says why the clocks are below their highest."""
        bits = self._bits()
        return None if bits is None else tuple(name for bit, name in names.items() if bits & bit)

    def _bits(self) -> int | None:
        bits: int | None = self._get("CurrentClocksEventReasons")
        if bits is None:  # its name before driver 535
            bits = self._get("CurrentClocksThrottleReasons")
        return bits

    def locked(self) -> bool | None:
        """Tells whether somebody has set the clocks; None of an idle GPU, which does not tell."""
        bits = self._bits()
        return None if bits is None or bits & IDLE else bool(bits & LOCKED)

    def held_seconds(self) -> dict[str, float]:
        """Returns how long each limit has held the clocks back so far; without the limits that nothing counts here.

        A reason of this moment (`reasons`) says nothing of a round: when it is over, the GPU is idle.
        """
        found = {}
        for policy, name in LIMITS.items():
            counted = self._get("ViolationStatus", getattr(self._library, policy, None))
            if counted is not None:
                found[name] = counted.violationTime / 1e9
        return found

    def mig(self) -> bool | None:
        """Tells whether the GPU is divided into parts."""
        found = self._get("MigMode")
        return None if found is None else bool(found[0])

    def mig_profile(self) -> str | None:
        """Names the part of a divided GPU that it is (``1g.10gb``); None of a whole one."""
        name = self._get("Name")
        return profile_in(name.decode() if isinstance(name, bytes) else str(name or ""))

    def index(self) -> int | None:
        """Returns the number by which the driver counts it, whichever GPUs are visible here."""
        found: int | None = self._get("Index")
        return found

    def ecc(self) -> bool | None:
        """Tells whether its memory corrects errors, which takes a part of its speed."""
        found = self._get("EccMode")
        return None if found is None else bool(found[0])

    def persistent(self) -> bool | None:
        """Tells whether the driver stays loaded when nobody uses the GPU."""
        found = self._get("PersistenceMode")
        return None if found is None else bool(found)

    def foreign(self) -> int | None:
        """Counts the other processes that compute on it. This process is one of those listed, in a container under a
        number of the machine outside; so one is left out. None where nothing is listed.
        """
        found = self._get("ComputeRunningProcesses")
        return len(found) - 1 if found else None


def profile_in(name: str) -> str | None:
    """Returns the profile that the name of a part of a GPU ends with; None of any other name."""
    found = re.search(r"\bMIG (\d+\S*)$", name)
    return found[1] if found else None


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


@cache
def gpu(index: int | None) -> Gpu:
    """Returns the GPU that torch computes on under this number; None takes its current one."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index)
    place: list[Any] = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    bus = "" if any(part is None for part in place) else "{:04x}:{:02x}:{:02x}.0".format(*place)
    return Gpu(nvml(), str(getattr(properties, "uuid", "")), bus)
