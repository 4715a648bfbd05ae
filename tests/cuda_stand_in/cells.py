"""Runs cells on the CPU and on the stand-in and says whether they computed the same to the last bit, and which lines of
tlbench copied between the devices and waited. Without names, all cells; ``--json FILE`` keeps what was computed.

    python tests/cuda_stand_in/launch.py python tests/cuda_stand_in/cells.py linear_probe full
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import stand_in
import torch
from bits import results
from digits import few_digits

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.train import chunks

BASE = Cell(
    backbone="resnet18", weights="random", image_size=32, train_size=60, epochs=2, batch_size=16, layout="contiguous"
)
SETTINGS = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
CELLS = {
    "linear_probe": {},
    "last_1": {"freeze": "last_1"},
    "full": {"freeze": "full"},
    "norm": {"freeze": "norm"},
    "vit": {"backbone": "timm:test_vit", "image_size": None, "freeze": "last_1"},
    "mlp": {"head": "mlp"},
    "cosine": {"head": "cosine"},
    "ridge": {"head": "ridge"},
    "logreg": {"head": "logreg"},
    "nearest_mean": {"head": "nearest_mean"},
    "lora": {"freeze": "lora(r=4)"},
    "lp_ft": {"freeze": "lp_ft"},
    "l2_sp": {"freeze": "l2_sp"},
    "auto_rgn": {"freeze": "auto_rgn"},
    "gradual": {"freeze": "gradual"},
    "freeze_out": {"freeze": "freeze_out", "epochs": 4},
    "bf16": {"freeze": "last_1", "precision": "bf16"},
    "fp16": {"freeze": "last_1", "precision": "fp16", "train_size": 20, "epochs": 1},
    "fp16_small": {
        "backbone": "mobilenet_v3_small",
        "precision": "fp16",
        "train_size": 12,
        "epochs": 1,
        "batch_size": 6,
    },
    "channels_last": {"freeze": "last_1", "layout": "channels_last"},
    "layout_auto": {"freeze": "full", "layout": "auto"},
    "lr_auto": {"lr": "auto"},
    "patience": {"freeze": "last_1", "epochs": 5, "lr": 0.03, "patience": 1},
    "sgd": {"freeze": "full", "optimizer": "sgd"},
    "label_smoothing": {"label_smoothing": 0.1},
    "balanced": {"freeze": "last_1", "class_weights": "balanced", "sampler": "balanced"},
    "flip": {"freeze": "last_1", "augment": "flip"},
    "randaugment": {"freeze": "last_1", "augment": "randaugment"},
    "infer": {"task": "infer", "freeze": "none", "epochs": 1},
    "infer_bf16": {"task": "infer", "freeze": "none", "epochs": 1, "precision": "bf16"},
}
"""Name -> how the cell differs from `BASE`."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums are added up in one order
    # Sums depend on how many images are in a batch: here both devices take the same.
    chunks.CHUNKS["cuda"] = chunks.CHUNKS["cpu"]
    computed, different = {}, 0
    for name in options.names or CELLS:
        found = computed[name] = {}
        for device in ("cpu", "cuda"):
            stand_in.COPIES.clear()
            begin = time.monotonic()
            with few_digits():
                record = run_cell(replace(BASE, **CELLS[name], device=device), SETTINGS)
            found[device] = results(record)
            seconds = time.monotonic() - begin
            print(f"{name:16s} {device:5s} {seconds:5.1f} s  {record.status} {record.reason}", flush=True)
        found["crossings"] = [[what, where, times] for (what, where), times in stand_in.COPIES.items()]
        different += found["cpu"] != found["cuda"]
        print(f"{name:16s} {'equal' if found['cpu'] == found['cuda'] else 'DIFFERENT'}")
        for (what, where), times in stand_in.COPIES.most_common(12):
            print(f"{times:20d} {what:28s} {where}")
    if options.json:
        options.json.write_text(json.dumps(computed), encoding="utf-8")
    return different


if __name__ == "__main__":
    sys.exit(main())
