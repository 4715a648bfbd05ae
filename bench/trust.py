"""How often what tlbench says is true: every simulation behind its sentences, with its table.

    python bench/trust.py [--trials N] [--only floor,gate,accuracy,learning,folds,metrics,splits]

Noise is like that of real machines: drift, offsets between runs, few seeds, fixed test splits. CI runs them small (as
tests); the tables in docs/trust.md are this script's, with as many trials as stands below each.
"""

from __future__ import annotations

import argparse
import time

from simulations import accuracy, floor, folds, gate, learning, metrics, splits

PARTS = {
    "floor": ("The noise floor", floor.table),
    "gate": ("Comparing runs", gate.table),
    "accuracy": ("Accuracies over images and seeds", accuracy.lines),
    "learning": ("Who learned nothing", learning.lines),
    "folds": ("Cross-validation", folds.lines),
    "metrics": ("Balanced accuracy and macro F1", metrics.lines),
    "splits": ("Splits that are not alike", splits.lines),
}
"""Name -> heading, and what makes the lines of its table for so many trials."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="simulated cases of each row (default 1000)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated: {', '.join(PARTS)}")
    given = parser.parse_args()
    names = given.only.split(",")
    for name in names:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; choose among {', '.join(PARTS)}")
    for name in names:
        heading, table = PARTS[name]
        began = time.monotonic()
        print(f"## {heading}\n", flush=True)
        print("\n".join(table(given.trials)))
        print(f"\n{given.trials} trials a row, {time.monotonic() - began:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
