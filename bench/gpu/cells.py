"""Runs torch.compile and fp16 on two cells, against eager and bf16, and a head's steps as CUDA graphs."""

from dataclasses import replace

from common import CUDA, DEVICE, TINY, guarded, left, median, say
from torch._dynamo.utils import counters

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell

SETTINGS = Settings(throughput_rounds=5, throughput_batches=2, latency_rounds=30)
SIZE, IMAGES, BATCH = (32, 40, 16) if TINY else (128, 640, 64)
TRAIN = Cell(
    backbone="resnet18",
    weights="random",
    freeze="full",
    image_size=SIZE,
    train_size=IMAGES + BATCH // 2,  # the last batch is smaller: a second shape to compile for
    epochs=3,
    batch_size=BATCH,
    layout="channels_last",
    device=DEVICE,
    precision="bf16",
)
INFER = replace(TRAIN, task="infer", freeze="none", epochs=1)
PROBE = replace(TRAIN, freeze="linear_probe", head="mlp", precision="fp32", batch_size=32)
CELLS = {
    "train eager bf16": TRAIN,
    "train eager fp16": replace(TRAIN, precision="fp16"),
    "infer eager bf16": INFER,
    "infer eager fp16": replace(INFER, precision="fp16"),
    "infer compiled bf16": replace(INFER, compile="on"),
    "train compiled bf16": replace(TRAIN, compile="on"),
    "train compiled fp16": replace(TRAIN, compile="on", precision="fp16"),
    "train eager probe": PROBE,
    "train captured probe": replace(PROBE, compile="cuda-graph"),
    "train captured last_1": replace(PROBE, freeze="last_1", compile="cuda-graph"),
}


def one(name, cell):
    before = counters["stats"].get("unique_graphs", 0)
    record = run_cell(cell, SETTINGS)
    rounds = record.rounds
    say(
        "cells",
        name,
        status=record.status,
        reason=record.reason,
        wall=record.wall_seconds,
        round_ms=[1000 * r.seconds for r in rounds],
        latency_ms=1000 * median(record.latency_seconds) if record.latency_seconds else None,
        images_per_second=rounds[-1].samples / median([r.seconds for r in rounds[1:]]) if len(rounds) > 1 else None,
        losses=[r.loss for r in rounds],
        graphs=counters["stats"].get("unique_graphs", 0) - before,
        nondeterministic=list(record.nondeterministic),
        validity=record.validity_reason,
    )


def why_not(name):
    if not CUDA and "fp16" in name:
        return "a processor takes too long for fp16"
    if "captured" in name and not CUDA:
        return "a processor has no CUDA graphs"
    if "compiled" in name and left() < (5 if TINY else 25):
        return "no time"
    return None


for name, cell in CELLS.items():
    if reason := why_not(name):
        say("cells", name, left_out=reason)
    else:
        guarded("cells", name, lambda name=name, cell=cell: one(name, cell))
