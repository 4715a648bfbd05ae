"""Whose memory it is: a cell's own peak, without what other cells have left on the device."""

from __future__ import annotations

from tlbench.machine.kept import KEPT
from tlbench.measure.build import BuiltCell


def kept_by_others(built: BuiltCell) -> int:
    """Counts the bytes on the cell's GPU that are kept for other cells; 0 on a CPU, whose peak is the process's."""
    if built.arithmetic.device.type == "cpu":
        return 0
    pool = str(built.arithmetic.device)
    own = 0 if built.store is None else built.store.bytes_on(built.arithmetic.device)
    return max(0, KEPT.activations.bytes(pool) - own)
