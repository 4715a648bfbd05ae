"""Comparing runs: how often the gate passes a change at its limit, fails no change, and finds a slowdown."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tlbench.analysis.compare import Gate, compare
from tlbench.analysis.sides import Run

OFFSET, NOISE = 0.03, 0.01
"""Standard deviations of logs: what a run adds to all of its times, and what a block adds to one."""
LIMIT = 0.10
GATE = Gate(metric="epoch_seconds", limit=LIMIT)
FREEDOM = 8
"""Degrees of freedom of what earlier runs tell, where they do."""

KNOWLEDGE = {
    # (runs a side, whether earlier runs of the machine tell, measured in turns)
    "one run a side": (1, False, False),
    "one run a side, earlier runs known": (1, True, False),
    "two runs a side": (2, False, False),
    "three runs a side": (3, False, False),
    "three runs a side, earlier runs known": (3, True, False),
    "five runs a side": (5, False, False),
    "three blocks in turns": (3, False, True),
    "five blocks in turns": (5, False, True),
}


def runs_of(
    rng: np.random.Generator, names: int, offsets: np.ndarray, factor: float, known: bool, blocks: int
) -> list[Run]:
    """Draws a run for each offset, which its cells share; the truth is ``factor`` seconds an epoch."""
    made = []
    for number, offset in enumerate(offsets):
        times = factor * np.exp(offset + rng.normal(0, NOISE, (names, blocks)))
        earlier = {}
        if known:
            spread = (OFFSET**2 + NOISE**2 / blocks) * rng.chisquare(FREEDOM) / FREEDOM
            earlier = {"runs": FREEDOM + 1, "run_freedom": FREEDOM, "run_log_sd": float(np.sqrt(spread))}
        cells = [f"train cell {n}" for n in range(names)]
        made.append(
            Run(
                name=str(number),
                values={
                    c: {"epoch_seconds": dict(enumerate(map(float, row)))} for c, row in zip(cells, times, strict=True)
                },
                known=dict.fromkeys(cells, earlier),
            )
        )
    return made


def once(rng: np.random.Generator, what: str, factor: float, cells: int, offset: float) -> tuple[int, bool, bool]:
    """Returns the exit status of one comparison, whether a cell is called changed, and whether a cell fails."""
    count, known, in_turns = KNOWLEDGE[what]
    blocks = 1 if in_turns else 3
    base_offsets = rng.normal(0, offset, count)
    # What happens to the machine in a block happens to both versions.
    new_offsets = base_offsets if in_turns else rng.normal(0, offset, count)
    base = runs_of(rng, cells, base_offsets, 1.0, known, blocks)
    new = runs_of(rng, cells, new_offsets, factor, known, blocks)
    found = compare(base, new, [GATE], in_turns=in_turns)
    return found.exit_status, any(c.verdict in ("worse", "better") for c in found.changes), bool(found.regressions)


def rates(
    what: str, factor: float, trials: int, cells: int = 1, offset: float = OFFSET, seed: int = 0
) -> dict[str, float]:
    """Returns how often comparisons pass, fail, cannot be told, and call a cell changed."""
    rng = np.random.default_rng([seed, list(KNOWLEDGE).index(what), round(1000 * factor), cells, round(1000 * offset)])
    found = [once(rng, what, factor, cells, offset) for _ in range(trials)]
    statuses = Counter(status for status, _, _ in found)
    return {
        "pass": statuses[0] / trials,
        "fail": statuses[1] / trials,
        "cannot say": statuses[2] / trials,
        "changed": sum(changed for _, changed, _ in found) / trials,
    }


def table(trials: int) -> list[str]:
    """Returns the lines of a table: what is known, the truth, and how often the gate of 10 % answers what."""
    lines = [
        "| what is known | cells | truth | pass | fail | cannot say | called changed |",
        "|---|---|---|---|---|---|---|",
    ]
    for what in KNOWLEDGE:
        for cells in (1, 6):
            for factor, truth in ((1.0, "no change"), (1 + LIMIT, "10 % slower, the limit"), (1.25, "25 % slower")):
                seen = rates(what, factor, trials, cells)
                figures = " | ".join(f"{100 * value:.1f} %" for value in seen.values())
                lines.append(f"| {what} | {cells} | {truth} | {figures} |")
    return lines
