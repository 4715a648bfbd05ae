"""Runs cells on the processor and on the device and says whether losses are close and runs on the device equal to the
last bit, what the record calls nondeterministic, and which lines of the suite wait for the device in an epoch.
"""

import collections
import warnings
from dataclasses import replace
from pathlib import Path

from common import CUDA, DEVICE, TINY, guarded, left, say, torch

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.measure.frozen import cuts_of, fill_prefix
from tlbench.measure.training import start_training
from tlbench.policies.parse import parse_policy

SETTINGS = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
SIZE, IMAGES = (32, 40) if TINY else (64, 200)
BASE = Cell(weights="random", image_size=SIZE, train_size=IMAGES, epochs=2, batch_size=16, layout="contiguous")
VIT = {"backbone": "timm:vit_tiny_patch16_224", "image_size": 224, "train_size": 20 if TINY else 100}
CELLS = {
    "resnet18 linear_probe": {},
    "resnet18 last_1": {"freeze": "last_1"},
    "resnet18 full": {"freeze": "full"},
    "mobilenet_v3_small norm mlp": {"backbone": "mobilenet_v3_small", "freeze": "norm", "head": "mlp"},
    "shufflenet full sgd flip": {
        "backbone": "shufflenet_v2_x0_5",
        "freeze": "full",
        "optimizer": "sgd",
        "augment": "flip",
    },
    "vit_tiny last_1": {**VIT, "freeze": "last_1"},
}
"""These are compared with the processor."""
MORE = {
    "vit_tiny full fp32": {**VIT, "freeze": "full"},
    "vit_tiny full bf16": {**VIT, "freeze": "full", "precision": "bf16"},
    "resnet18 full bf16 channels_last": {"freeze": "full", "precision": "bf16", "layout": "channels_last"},
    "resnet18 full fp16": {"freeze": "full", "precision": "fp16"},
    "resnet18 lora tf32": {"freeze": "lora(r=4)", "precision": "tf32" if CUDA else "fp32"},
    "vgg11 full": {"backbone": "vgg11", "freeze": "full"},
    "googlenet full": {"backbone": "googlenet", "freeze": "full"},
    "resnet18 last_1 randaugment": {"freeze": "last_1", "augment": "randaugment"},
    "resnet18 ridge": {"head": "ridge"},
    "swin_t last_1": {"backbone": "swin_t", "freeze": "last_1", "image_size": 224, "train_size": 20 if TINY else 100},
    "resnet18 lr auto": {"lr": "auto"},
    "resnet18 last_1 patience": {"freeze": "last_1", "patience": 1},
}
"""These run on the device alone."""


def losses(record):
    return [r.loss for r in record.rounds if r.loss is not None]


def same(first, again):
    """Tells whether two runs are equal to the last bit; None where one did not finish."""
    if first.status != "ok" or again.status != "ok":
        return None
    return losses(first) == losses(again) and first.predictions_sha256 == again.predictions_sha256


def cell(changes, device):
    return run_cell(replace(BASE, **changes, device=device), SETTINGS)


def facts_of(first, again):
    return {
        "status": first.status,
        "reason": first.reason,
        "device": losses(first),
        "repeats": same(first, again),
        "nondeterministic": list(first.nondeterministic),
        "validity": first.validity_reason,
        "epoch_ms": [1000 * r.seconds for r in first.rounds],
        "peak_mb": (first.peak_memory_bytes or 0) / 1e6,
        "prefix": (first.prefix or {}).get("where"),
        "wall": first.wall_seconds,
    }


def pair(name, changes):
    cpu, first, again = cell(changes, "cpu"), cell(changes, DEVICE), cell(changes, DEVICE)
    off = [abs(a - b) / max(abs(a), 1e-9) for a, b in zip(losses(cpu), losses(first), strict=False)]
    say(
        "losses",
        name,
        cpu=losses(cpu),
        relative=off,
        close=bool(off) and off[0] < 2e-2,  # of the first epoch alone, since rounding grows with the epochs
        accuracy=[cpu.accuracy_test, first.accuracy_test],
        cpu_epoch_ms=[1000 * r.seconds for r in cpu.rounds],
        **facts_of(first, again),
    )


def alone(name, changes):
    first, again = cell(changes, DEVICE), cell(changes, DEVICE)
    say("losses", name, accuracy=first.accuracy_test, **facts_of(first, again))


def waits(name, changes):
    """Counts the lines that wait for the device during one epoch, as torch's own debug mode names them."""
    asked = replace(BASE, **changes, device=DEVICE)
    expression = parse_policy(asked.freeze)
    built = build(asked, SETTINGS, expression)
    phases = expression.phases(built.described, asked.epochs)
    fill_prefix(built, cuts_of(built, phases))
    trainer = start_training(built, [phases[0]] * 2, expression)
    trainer.start_epoch()
    counts = collections.Counter()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.run_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            counts[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
    say("losses", f"waits in an epoch, {name}", steps=len(trainer.order), lines=dict(counts.most_common(12)))


for name, changes in CELLS.items():
    guarded("losses", name, lambda name=name, changes=changes: pair(name, changes))
if CUDA:
    for name in ("resnet18 linear_probe", "resnet18 full"):
        guarded("losses", f"waits {name}", lambda name=name: waits(name, CELLS[name]))
for name, changes in MORE.items():
    if left() > 8 and (CUDA or changes.get("precision") != "fp16"):
        guarded("losses", name, lambda name=name, changes=changes: alone(name, changes))
    else:
        say("losses", name, left_out="no time")
