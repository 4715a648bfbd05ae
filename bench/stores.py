"""What the kept activations and the measured layout save: the quick grid with both, and without either.

    python bench/stores.py [PASSES] [POLICY ...]

Each cell is run as it is and with ``--prefix off --layout contiguous``, one right after the other and the other way
round in every second cell, so that a machine that is faster for a minute is so for both. Prints, for every pass, how
many times as long the second takes: all cells together, and those of a linear probe and of last_1 together. A pass of
the whole grid takes six minutes on two cores; POLICY leaves only these freeze policies' training cells.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tlbench.analysis import stats
from tlbench.campaign import check, steps
from tlbench.grid.cell import Cell
from tlbench.grid.grid import load_grid
from tlbench.grid.settings import Settings
from tlbench.machine.clock import now
from tlbench.machine.kept import KEPT
from tlbench.measure.cell import run_cell
from tlbench.measure.place import Place
from tlbench.records.plan import Plan

FROZEN = ("linear_probe", "last_1")


def main(passes: int, policies: tuple[str, ...]) -> None:
    grid = check.check(load_grid(Path(__file__).parent / "grids" / "quick.toml"), Settings())
    siblings = steps.siblings([grid])
    cells = [step.cell for step in steps.steps(Plan(grids=(grid,), settings=Settings())) if step.role == "cell"]
    choices = grid.axes["freeze"]
    if passes < 1 or not set(policies) <= set(choices):
        given = " ".join((str(passes), *policies))
        sys.exit(f"bench/stores.py {given}: PASSES is at least 1, POLICY one of {', '.join(choices)}")
    cells = [c for c in cells if not policies or (c.task == "train" and c.freeze in policies)]
    _seconds(cells[0], "plain", siblings)  # not counted: imports, and the images decoded
    seconds: list[dict[tuple[Cell, str], float]] = []
    begin = now()
    for number in range(passes):
        KEPT.activations.forget()
        seconds.append({})
        for place, cell in enumerate(cells):
            for mode in ("kept", "plain") if (number + place) % 2 else ("plain", "kept"):
                seconds[-1][cell, mode] = _seconds(cell, mode, siblings)
            done, whole = number * len(cells) + place + 1, passes * len(cells)
            left = (now() - begin) / done * (whole - done)
            print(f"\r{done} of {whole} pairs, about {left / 60:.0f} min left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    frozen = [c for c in cells if c.task == "train" and c.freeze in FROZEN]
    for what, some in (("all cells", cells), (" and ".join(FROZEN), frozen)):
        if not some or (some == cells and what != "all cells"):
            continue
        sums = [{mode: sum(taken[cell, mode] for cell in some) for mode in ("kept", "plain")} for taken in seconds]
        ratios = [each["plain"] / each["kept"] for each in sums]
        print(f"{what}: {len(some)} cells")
        for each, ratio in zip(sums, ratios, strict=True):
            print(f"  {each['kept']:.1f} s against {each['plain']:.1f} s: {ratio:.2f} times")
        if passes > 1:
            mean = stats.geometric_mean(ratios)
            print(f"  geometric mean {mean.estimate:.2f} ({mean.low:.2f} to {mean.high:.2f})")


def _seconds(cell: Cell, mode: str, siblings: Iterable[str]) -> float:
    if mode == "plain":
        record = run_cell(replace(cell, layout="contiguous"), Settings(prefix="off"), place=Place(siblings=siblings))
    else:
        record = run_cell(cell, Settings(), place=Place(siblings=siblings))
    if record.status != "ok":
        sys.exit(f"{cell.id}: {record.status}: {record.reason}")
    return record.wall_seconds


if __name__ == "__main__":
    passes = sys.argv[1] if len(sys.argv) > 1 else "3"
    if not passes.isdecimal():
        sys.exit(f"bench/stores.py {passes}: PASSES is a number")
    main(int(passes), tuple(sys.argv[2:]))
