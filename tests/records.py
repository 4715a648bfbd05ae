"""Hand-made records, and whole runs of them, for the tests of what is made from records."""

import random
from dataclasses import fields, replace

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.records.record import Record, Round

CPU = {
    "stable": {"os": "Linux", "cpu_model": "Example CPU", "cpu_count": 2, "python": "3.12.0", "torch": "2.11.0"},
    "settings": {"threads": 2, "variables": {}},
    "volatile": {"load_1min": 0.5},
}
CUDA = {**CPU, "stable": {**CPU["stable"], "gpu": "Example GPU", "gpu_memory_bytes": 80 * 10**9}}
ENVIRONMENTS = {"cpu": CPU, "cuda": CUDA}

KNOWN = {f.name for f in fields(Record)}


PRETRAINED = {"source": "example weights", "pretrained": True, "sha256": "00" * 32, "reason": ""}
RANDOM = {"source": "random", "pretrained": False, "sha256": "00" * 32, "reason": "no network"}


def record(seconds=(1.0, 1.1, 1.2), accuracies=(0.5, 0.8, 0.9), latency=(), initial=PRETRAINED, **given) -> Record:
    """A finished record; ``initial`` are its weights. Fields of the cell may be given as they are; what `Record` does
    not know is left out.
    """
    cell = Cell(**{f.name: given.pop(f.name) for f in fields(Cell) if f.name in given})
    if cell.task == "infer":
        cell = replace(cell, freeze="none", epochs=1)
        rounds = tuple(Round(phase="throughput", seconds=s, samples=2 * cell.batch_size) for s in seconds)
        accuracies = ()
    else:
        cell = replace(cell, epochs=len(seconds) or cell.epochs)
        rounds = tuple(
            Round(
                phase=cell.freeze, seconds=s, samples=100, trainable_parameters=5130, loss=1 / (n + 1), accuracy_val=a
            )
            for n, (s, a) in enumerate(zip(seconds, accuracies, strict=True))
        )
    plain = {
        "id": cell.id,
        "cell": cell,
        "settings": Settings(),
        "status": "ok",
        "started": "2026-01-01T00:00:00+00:00",
        "wall_seconds": 10.0,
        "suite_version": "0.1.0",
        "weights": initial,
        "image_size": cell.image_size or 224,
        "classes": 10,
        "samples": {"train": 100, "val": 200, "test": 200},
        "total_parameters": 11_181_642,
        "trainable_parameters": 5130 if cell.task == "train" else None,
        "cut": "head" if cell.task == "train" else None,
        "recipe": {"optimizer": "adamw", "lr": 0.003, "backbone_lr": 0.0003} if cell.task == "train" else {},
        "rounds": rounds,
        "latency_seconds": tuple(latency),
        "accuracy_val": accuracies[-1] if accuracies else None,
        "accuracy_test": accuracies[-1] if accuracies else None,
        "peak_memory_bytes": 500_000_000,
        "environment": ENVIRONMENTS[cell.device],
    }
    return Record(**{name: value for name, value in {**plain, **given}.items() if name in KNOWN})


def failure(status: str, reason: str, **given) -> Record:
    """A record of a cell that did not finish."""
    return replace(
        record(seconds=(), accuracies=(), **given),
        status=status, reason=reason, accuracy_val=None, accuracy_test=None, peak_memory_bytes=None, rounds=(),
    )  # fmt: skip


# How good and how fast the cells of the example run are: made up, but in the order that one would expect.
QUALITY = {"resnet18": 0.90, "efficientnet_lite0": 0.92, "mobilenet_v3_small": 0.86, "vgg16": 0.89}
COST = {"resnet18": 1.8, "efficientnet_lite0": 0.8, "mobilenet_v3_small": 0.2, "vgg16": 15.0}
PARAMETERS = {
    "resnet18": 11_176_512,
    "efficientnet_lite0": 3_371_008,
    "mobilenet_v3_small": 927_008,
    "vgg16": 134_260_544,
}
POLICIES = {
    # gain in accuracy, cost of a step in forward passes, share of the parameters
    "linear_probe": (0.0, 1.0, 0.002),
    "last_1": (0.03, 1.5, 0.4),
    "norm": (0.01, 2.2, 0.004),
    "full": (0.05, 3.0, 1.0),
    "lora": (0.02, 2.5, 0.03),
    "lp_ft": (0.045, 2.0, 1.0),
}


def example_run(
    backbones=("efficientnet_lite0", "resnet18", "mobilenet_v3_small"),
    policies=tuple(POLICIES),
    heads=("linear", "mlp"),
    seeds=(0, 1, 2),
    devices=("cpu",),
    blocks=(0,),
    dataset="digits",
    batch_sizes=(32,),
    epochs=5,
    slow=1.0,
) -> list[Record]:
    """A whole grid of made-up records: training and inference, some that failed, one that was skipped."""
    records = []
    for device in devices:
        speed = {"cpu": 1.0, "cuda": 40.0}[device]
        for block in blocks:
            for backbone in backbones:
                for head in heads:
                    for batch_size in batch_sizes:
                        common = {
                            "backbone": backbone, "head": head, "device": device, "dataset": dataset,
                            "batch_size": batch_size, "image_size": 64,
                        }  # fmt: skip
                        records.append(_inference(common, COST[backbone] * slow / speed, block))
                        for policy in policies:
                            for seed in seeds:
                                records.append(_training(common, policy, seed, block, speed / slow, epochs))
    return records


def _inference(common, cost, block):
    rng = random.Random(f"{common}{block}")
    rounds = [0.064 * cost * rng.uniform(0.97, 1.05) for _ in range(10)]
    latency = [0.004 * cost * rng.lognormvariate(0, 0.12) + 0.001 for _ in range(60)]
    return record(
        task="infer", seconds=rounds, latency=latency, total_parameters=PARAMETERS[common["backbone"]] + 5130,
        block=block, initial=_initial(common), flops={"forward": COST[common["backbone"]] * 1e9},
        ceiling_flops_per_second=1.8e12 * (40 if common["device"] == "cuda" else 1), **common,
    )  # fmt: skip


def _initial(common):
    return RANDOM if common["backbone"] == "resnet18" else PRETRAINED


def _training(common, policy, seed, block, speed, epochs):
    backbone, head = common["backbone"], common["head"]
    gain, passes, share = POLICIES[policy]
    given = {**common, "freeze": policy, "seed": seed, "block": block, "initial": _initial(common)}
    if backbone == "vgg16" and policy == "norm":
        return failure("not_applicable", "norm: vgg16 has no normalisation layers", **given)
    if backbone == "mobilenet_v3_small" and policy == "lora" and head == "mlp":
        return failure(
            "failed" if seed else "oom", "batch size 32: out of memory" if not seed else "RuntimeError: x", **given
        )
    if backbone == "resnet18" and policy == "lp_ft" and head == "mlp":
        return failure("skipped", "no pretrained weights; put them into place", **given)
    rng = random.Random(f"{common}{policy}{seed}{block}")
    accuracy = min(0.99, QUALITY[backbone] + gain + random.Random(f"{backbone}{policy}{head}{seed}").gauss(0, 0.01))
    curve = [accuracy * (1 - 0.4 * 0.45**n) for n in range(epochs - 1)] + [accuracy]
    step = COST[backbone] * passes / speed
    seconds = [step * rng.lognormvariate(0, 0.03) for _ in range(epochs)]
    made = record(
        seconds=seconds, accuracies=[round(a, 3) for a in curve],
        accuracy_test=round(accuracy - rng.uniform(0, 0.02), 3), total_parameters=PARAMETERS[backbone] + 5130,
        trainable_parameters=int(PARAMETERS[backbone] * share) + (5130 if head == "linear" else 267_786),
        peak_memory_bytes=int(3e8 + 4 * PARAMETERS[backbone] * passes),
        flops={"forward": COST[backbone] * 1e9, "train_step": {policy: COST[backbone] * passes * 1e9}},
        ceiling_flops_per_second=2.6e11 * speed,
        detail={"data": 0.004, "forward": step / 10, "backward": step / 10 * (passes - 1), "optimizer": 0.002},
        validity="noisy" if backbone == "resnet18" and policy == "full" and seed == 1 else "ok",
        validity_reason="pressure above 2 % in 2 of 5 rounds"
        if backbone == "resnet18" and policy == "full" and seed == 1
        else "",
        **given,
    )  # fmt: skip
    if policy == "lp_ft":
        half = epochs // 2
        phases = ["head"] * half + ["all"] * (epochs - half)
        made = replace(made, rounds=tuple(replace(r, phase=p) for r, p in zip(made.rounds, phases, strict=True)))
    return made
