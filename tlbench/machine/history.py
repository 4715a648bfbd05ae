"""What earlier runs have told of this machine's noise: a line for each run, in the cache folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from tlbench.machine.lines import add_line, read_lines

NAME = "noise.jsonl"
MOST = 500
"""Most runs that are kept: the latest."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """Says what one run told of one device of one machine."""

    run: str
    """What tells runs apart."""
    machine: str
    device: str
    pairs: Sequence[float] = ()
    """Log ratios of identical cells."""
    cells: Mapping[str, float] = field(default_factory=dict)
    """What a cell is -> the log of the seconds that it measured itself, its mean over blocks."""


def read_past(machine: str, device: str) -> list[Past]:
    """Returns what earlier runs told of a device, oldest first; of a run that went on, what it told last. Lines that
    are damaged are passed over: all of it is knowledge that a run can do without.
    """
    return [past for past in _read().values() if (past.machine, past.device) == (machine, device)]


def remember(past: Past) -> None:
    """Keeps what a run has told; in place of what it told before. A cache that cannot be written is no error."""
    add_line(NAME, _line(past), MOST, lambda: [_line(one) for one in _read().values()])


def _line(past: Past) -> str:
    return json.dumps({**asdict(past), "cells": dict(past.cells)}, allow_nan=False)


def _read() -> dict[tuple[str, str, str], Past]:
    found: dict[tuple[str, str, str], Past] = {}
    for line in read_lines(NAME):
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            past = _parsed(json.loads(line))
            key = (past.run, past.machine, past.device)
            found.pop(key, None)  # the latest stands last
            found[key] = past
    return found


def _parsed(data: Mapping[str, Any]) -> Past:
    pairs = tuple(float(value) for value in data["pairs"])
    cells = {str(name): float(value) for name, value in data["cells"].items()}
    if not all(map(math.isfinite, [*pairs, *cells.values()])):
        raise ValueError("not finite")
    return Past(
        run=str(data["run"]), machine=str(data["machine"]), device=str(data["device"]), pairs=pairs, cells=cells
    )
