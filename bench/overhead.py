"""What the suite itself costs: its epoch against a bare loop of torch that does the same operations.

    pytest bench/overhead.py -s

Not part of `pytest bench/`: it measures this program, not a backbone. Both train the same architecture on the same
batches, with the same optimizer, layout and allocator, taken in turns, and built anew in every block. The loop knows
nothing of stages, phases, sources, policies or records. Takes two minutes on two cores; a busy machine shows in the
interval.
"""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch.nn import functional
from torchvision.models import mobilenet_v3_small, resnet18

from tlbench.analysis import stats
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.clock import now, plain_clock
from tlbench.machine.process import release_memory, set_up
from tlbench.measure import timed as timed_module
from tlbench.measure import training
from tlbench.measure.build import BuiltCell, build
from tlbench.policies.parse import parse_policy
from tlbench.train.loop import Trainer, batches

BLOCKS, ROUNDS = 5, 12
BARE = {"resnet18": resnet18, "mobilenet_v3_small": mobilenet_v3_small}
CELL = {"weights": "random", "dataset": "digits", "image_size": 64, "batch_size": 32}
IMAGES = {
    ("resnet18", "full"): 64,
    ("resnet18", "linear_probe"): 160,
    ("mobilenet_v3_small", "full"): 160,
    ("mobilenet_v3_small", "linear_probe"): 480,
}
"""Images of an epoch, which takes some 0.2 to 0.4 seconds on two cores, as short epochs of small data do."""
LOW, HIGH = 0.98, 1.02


def suite(backbone: str, policy: str) -> tuple[Trainer, BuiltCell]:
    """Returns the suite's training run, warmed up, as `tlbench run` makes it."""
    expression = parse_policy(policy)
    built = build(
        Cell(backbone=backbone, freeze=policy, train_size=IMAGES[backbone, policy], **CELL),
        Settings(prefix="off"),
        expression,
    )
    phases = expression.phases(built.described, ROUNDS)
    return training.start_training(built, [*phases] * ROUNDS, expression), built


def bare(backbone: str, policy: str, trainer: Trainer, built: BuiltCell) -> Callable[[int], Callable[[], float]]:
    """Returns the same in plain torch: a function from an epoch's number to what is timed."""
    model = BARE[backbone](num_classes=10)
    last = model.fc if backbone == "resnet18" else model.classifier[-1]
    everything = policy == "full"
    for parameter in model.parameters():
        parameter.requires_grad_(everything)
    for parameter in last.parameters():
        parameter.requires_grad_(True)
    if built.arithmetic.channels_last:
        model.to(memory_format=torch.channels_last)
    recipe = trainer.recipe
    groups = []
    for in_head, decays in product((False, True), repeat=2):
        head = {id(p) for p in last.parameters()}
        chosen = [
            p for p in model.parameters()
            if p.requires_grad and (id(p) in head) == in_head and (p.ndim > 1) == decays
        ]  # fmt: skip
        rate = recipe.lr if in_head else recipe.backbone_lr
        if chosen:
            groups.append({"params": chosen, "rate": rate, "weight_decay": recipe.weight_decay if decays else 0.0})
    optimizer = torch.optim.AdamW(groups, fused=recipe.fused)
    images, labels, index = built.data.train.images, built.data.train.labels, built.data.train.index
    mean, std = built.sources["train"].mean, built.sources["train"].std
    layout = torch.channels_last if built.arithmetic.channels_last else torch.contiguous_format
    steps = ROUNDS * len(batches(len(index), CELL["batch_size"], 0, 0))
    warm = math.ceil(recipe.warmup * steps)
    done = 0

    def epoch(order: list[torch.Tensor]) -> float:
        nonlocal done
        losses = []
        for positions in order:
            factor = (done + 1) / warm if done < warm else 1.0
            factor *= 0.5 * (1 + math.cos(math.pi * done / steps))
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor
            x = images[index[positions]].to(torch.float32, memory_format=layout).div_(255).sub_(mean).div_(std)
            loss = functional.cross_entropy(model(x), labels[positions])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            done += 1
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def start(number: int) -> Callable[[], float]:
        order = batches(len(index), CELL["batch_size"], 0, number)
        model.train(everything)  # else frozen, as the suite freezes: in eval mode
        return lambda: epoch(order)

    start(0)()
    done = 0
    return start


def seconds(call: Callable[[], object]) -> float:
    begin = now()
    call()
    return now() - begin


@pytest.mark.parametrize(("backbone", "policy"), IMAGES)
def test_overhead(backbone: str, policy: str) -> None:
    measured, steps = [], 0
    for block in range(BLOCKS):
        release_memory()
        with set_up(None, "fp32", True, "keep"):
            trainer, built = suite(backbone, policy)
            start = bare(backbone, policy, trainer, built)
            timed = timed_module.Timed(built)
            bare_seconds: list[float] = []
            for number in range(ROUNDS):
                for is_suite in ((True, False), (False, True))[(number + block) % 2]:
                    if is_suite:
                        timed.run(plain_clock, trainer.start_epoch, lambda trainer=trainer: trainer.run_epoch(), 1)
                    else:
                        bare_seconds.append(seconds(start(number)))
        steps = len(trainer.order)
        measured.append((timed.seconds, bare_seconds))
    ratio = stats.alternated_ratio(measured).interval
    step = sum(sum(bare_seconds) for _, bare_seconds in measured) / (BLOCKS * ROUNDS * steps)
    print(
        f"\n{backbone} {policy}: the suite takes {ratio.estimate:.4f} ({ratio.low:.4f} to {ratio.high:.4f}) times as "
        f"long as a bare loop, whose step takes {1000 * step:.1f} ms"
    )
    assert LOW <= ratio.low <= ratio.high <= HIGH
