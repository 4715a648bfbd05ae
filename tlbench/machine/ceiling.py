"""The ceiling: how many floating-point operations a second a large matrix product reaches here."""

from __future__ import annotations

import torch

from tlbench.machine.arithmetic import DTYPES
from tlbench.machine.clock import now
from tlbench.machine.kept import KEPT

MATRIX_SIZE = {"cpu": 1536, "cuda": 8192}
"""Rows and columns of the matrices, by kind of device."""

LONGEST_S = 0.25
"""A product that is expected to take longer is not made: a processor without instructions for bfloat16 would need
a minute for what others do in a tenth of a second, and is as fast on smaller matrices."""


def ceiling(device: torch.device, precision: str) -> float | None:
    """Returns the FLOP/s of a large matrix product, measured once a process; None when it cannot be had."""
    key = (str(device), precision, torch.get_num_threads())
    if key not in KEPT.ceilings:
        try:
            KEPT.ceilings.put(key, measure_ceiling(device, precision))
        except (RuntimeError, MemoryError):
            KEPT.ceilings.put(key, None)
    found: float | None = KEPT.ceilings.get(key)
    return found


def measure_ceiling(device: torch.device, precision: str) -> float:
    """Measures the FLOP/s of a matrix product, as large a one as does not take long.

    Errors: RuntimeError, MemoryError.
    """
    dtype = DTYPES.get(precision, torch.float32)
    size = MATRIX_SIZE[device.type] // 8
    best = product_seconds(device, dtype, size, 2)
    while size * 2 <= MATRIX_SIZE[device.type] and 8 * best <= LONGEST_S:
        size *= 2
        best = product_seconds(device, dtype, size, 6)
    return 2 * size**3 / best


def product_seconds(device: torch.device, dtype: torch.dtype, size: int, times: int) -> float:
    """Returns the least seconds that a product of two square matrices took, the first product left out."""
    # Not ones: a GPU draws less power for equal bits, and so reaches a clock that no real product has.
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(times):
        begin = now()
        a @ b
        seconds.append(now() - begin)
    return min(seconds[1:])
