"""What NVIDIA's management library tells about a GPU; what it does not tell is None."""

from __future__ import annotations

from functools import cache
from typing import Any

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

    def __init__(self, library: Any, uuid: str) -> None:
        """Takes the ``uuid`` that CUDA gives. CUDA counts only the GPUs that are visible, so its number names another
        one.
        """
        self._library = library
        self._handle = self._ask("nvmlDeviceGetHandleByUUID", f"GPU-{uuid.removeprefix('GPU-')}")

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
        bits = self._get("CurrentClocksEventReasons")
        if bits is None:  # its name before driver 535
            bits = self._get("CurrentClocksThrottleReasons")
        return None if bits is None else tuple(name for bit, name in names.items() if bits & bit)

    def foreign(self) -> int | None:
        """Counts the other processes that compute on it. This process is one of those listed, in a container under a
        number of the machine outside; so one is left out. None where nothing is listed.
        """
        found = self._get("ComputeRunningProcesses")
        return len(found) - 1 if found else None


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


@cache
def gpu(index: int | None) -> Gpu:
    """Returns the GPU that torch computes on under this number; None takes its current one."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device() if index is None else index)
    return Gpu(nvml(), str(getattr(properties, "uuid", "")))
