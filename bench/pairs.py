"""How often a duel calls two cells different: identical ones, and ones of which one is 10 % slower.

    python bench/pairs.py same 40
    python bench/pairs.py slower 20

Prints every pair's ratio and verdict, and exits with 1 where more than 2 of 40 identical pairs were called changed, or
fewer than 19 of 20 of the others. Training and inference take turns. A quiet machine takes some 15 seconds a pair; a
busy one widens the intervals.
"""

import sys
import time
from dataclasses import replace

from tlbench.campaign import duel
from tlbench.campaign.duel import BLOCKS, ROUNDS, Contender
from tlbench.campaign.duel_side import Side, checked, parse_side

CELL = "backbone=mobilenet_v3_small,weights=random,freeze=full,image-size=32,train-size=16,batch-size=16"
CELLS = (CELL, f"task=infer,{CELL}")
SLOWER = 0.1
WORST = {"same": 0.05, "slower": 0.05}
"""Share of wrong verdicts that is let pass."""


def slowed(contender: Contender) -> Contender:
    """Returns the contender with a sleep in every round, in proportion to what the round took."""

    def target() -> None:
        begin = time.perf_counter()
        contender.target()
        time.sleep(SLOWER * (time.perf_counter() - begin))

    return replace(contender, target=target)


def main(kind: str, pairs: int) -> int:
    start, b = duel.start, None

    def start_slower(side: Side, rounds: int) -> Contender:
        built = start(side, rounds)
        return slowed(built) if side is b else built

    if kind == "slower":
        duel.start = start_slower
    wrong = 0
    for number in range(pairs):
        a = checked(parse_side(CELLS[number % len(CELLS)]))
        b = replace(a)
        result = duel.duel(a, b, ROUNDS, BLOCKS)
        changed = result.verdict.outcome == "changed"
        wrong += changed == (kind == "same")
        noisy = [bool(reason) for block in result.blocks for reason in block.noisy]
        ratio = result.ratio
        print(
            f"{number + 1:2} {a.cell.task}  {ratio.estimate:.4f} ({ratio.low:.4f} to {ratio.high:.4f})  "
            f"floor {result.floor.relative:.2%}  {result.verdict.outcome}  {sum(noisy)} of {len(noisy)} rounds noisy",
            flush=True,
        )
    print(f"{kind}: {wrong} of {pairs} verdicts wrong")
    return int(wrong > WORST[kind] * pairs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
