"""Whether competing load is noticed: rounds of training, quiet ones and ones beside a busy loop.

    python bench/busy.py

Prints how many of each the suite flagged as noisy, and exits with 1 where it was fewer than 9 of 10 busy ones or any
quiet one. Wants a machine that nothing else uses, and as many threads as processors (torch's default).
"""

import subprocess
import sys
import time

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.clock import plain_clock
from tlbench.machine.process import set_allocator
from tlbench.measure import timed as timed_module
from tlbench.measure import training
from tlbench.measure.build import build
from tlbench.policies.parse import parse_policy

ROUNDS = 10
CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", freeze="full", image_size=64, train_size=96, layout="contiguous"
)
BUSY = "while True: pass"


def main() -> int:
    """Runs quiet and busy rounds, prints both and returns the exit code."""
    set_allocator("keep")
    policy = parse_policy(CELL.freeze)
    built = build(CELL, Settings(), policy)
    phases = policy.phases(built.described, ROUNDS)
    trainer = training.start_training(built, [*phases] * 2 * ROUNDS, policy)

    def rounds() -> list[dict]:
        timed = timed_module.Timed(built)
        timed.run(plain_clock, trainer.start_epoch, lambda: trainer.run_epoch() and None, ROUNDS)
        return timed.rounds()

    quiet = rounds()
    beside = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(1)
        busy = rounds()
    finally:
        beside.kill()
        beside.wait()
    for name, seen in (("quiet", quiet), ("busy", busy)):
        print(f"{name}: {sum(bool(r['noisy']) for r in seen)} of {ROUNDS} rounds flagged")
        print("  waiting: " + " ".join("–" if r["pressure"] is None else f"{r['pressure']:.1%}" for r in seen))
        print("  seconds: " + " ".join(f"{r['seconds']:.3f}" for r in seen))
    flagged = [sum(bool(r["noisy"]) for r in seen) for seen in (quiet, busy)]
    return int(flagged[0] > 0 or flagged[1] < 0.9 * ROUNDS)


if __name__ == "__main__":
    sys.exit(main())
