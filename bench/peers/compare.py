"""The same job by several peers, alternated; ratios with intervals. See README.md beside this file."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tlbench.analysis import stats

JOBS = {
    "linear_probe": {"freeze": "linear_probe"},
    "last_1": {"freeze": "last_1"},
    "full": {"freeze": "full"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grid": {"heads": ["linear", "mlp", "cosine", "dropout_linear"], "seeds": 3},
    "bf16": {"precision": "bf16"},
}
"""``tlbench-grid`` does four heads × three seeds of a job, and is held against as many loops of the other peers, twelve
times the time of one. ``-bf16`` makes any peer train in bf16.
"""
PEERS = {
    "linear_probe": "plain,lightning,tlbench,tlbench-grid",
    "last_1": "plain,lightning,tlbench",
    "full": "plain,lightning,tlbench,plain-bf16,lightning-bf16,tlbench-bf16",
}
TOLERANCE = 0.06
"""The largest difference of the last validation accuracy: more would mean that the peers do not do the same job."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="a folder with train/ and val/")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--peers", help=f"default: {'; '.join(f'{job}: {peers}' for job, peers in PEERS.items())}")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    for name in given.jobs.split(","):
        if name not in JOBS:
            raise SystemExit(f"unknown job {name!r}; choose from: {', '.join(JOBS)}")
    wanted = {name: (given.peers or PEERS[name]).split(",") for name in given.jobs.split(",")}
    choices = list(dict.fromkeys(peer for peers in PEERS.values() for peer in peers.split(",")))
    for peer in (peer for peers in wanted.values() for peer in peers):
        if peer not in choices:
            raise SystemExit(f"unknown peer {peer!r}; choose from: {', '.join(choices)}")
    named = {peer.partition("-")[0] for peers in wanted.values() for peer in peers}
    if "lightning" in named and importlib.util.find_spec("lightning") is None:
        raise SystemExit("lightning is not installed: pip install -e '.[peers]', or leave it out with --peers")
    with tempfile.TemporaryDirectory() as folder:
        for name, peers in wanted.items():
            _compare(name, peers, _spec(given, Path(folder), JOBS[name]), Path(folder), given.runs)


def _spec(given: argparse.Namespace, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from torchvision import models

    data, weights = folder / "data", folder / "initial.pth"
    if not data.exists():
        shutil.copytree(given.data, data)
        for name in sorted(p.name for p in (data / "val").iterdir()):
            (data / "test" / name).mkdir(parents=True)
            for file in sorted((data / "val" / name).iterdir())[:4]:
                file.rename(data / "test" / name / file.name)
        torch.manual_seed(0)
        model = models.get_model(given.backbone, weights=None)
        _settle(model, data / "train", given.image_size)
        torch.save(model.state_dict(), weights)
    classes = len(list((data / "train").iterdir()))
    common = {"backbone": given.backbone, "image_size": given.image_size, "epochs": given.epochs, "batch_size": 32}
    return {
        **common, "data": str(data), "weights": str(weights), "classes": classes, "lr": 3e-4, "precision": "fp32", **job
    }  # fmt: skip


def _settle(model: Any, folder: Path, size: int, images: int = 64) -> None:
    """Sets BatchNorm's statistics from some images. Before, they say 0 and 1, so that in eval mode activations grow
    from layer to layer, a frozen backbone's features are huge, and rounding decides where the head ends up.
    """
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    steps = [
        v2.Resize((size, size)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.45] * 3, [0.23] * 3),
    ]
    dataset = datasets.ImageFolder(str(folder), v2.Compose(steps))
    batch = torch.stack([dataset[n * len(dataset) // images][0] for n in range(images)])
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)


def _compare(name: str, peers: list[str], spec: dict[str, Any], folder: Path, runs: int) -> None:
    results: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for run in range(runs):
        for peer in peers:
            path = folder / "spec.json"
            who, _, variant = peer.partition("-")
            path.write_text(json.dumps({**spec, **VARIANTS.get(variant, {})}))
            result = _run(who, path, folder)
            results[peer].append(result)
            print(f"  {name} run {run + 1} {peer}: {result['seconds']:.1f} s, val {result['val'][-1]:.3f}", flush=True)
    last = {peer: runs_of_peer[0]["val"][-1] for peer, runs_of_peer in results.items()}
    if max(last.values()) - min(last.values()) > TOLERANCE:
        raise SystemExit(f"{name}: the peers disagree on the accuracy, so they did not do the same job: {last}")
    seconds = {peer: [result["seconds"] for result in runs_of_peer] for peer, runs_of_peer in results.items()}
    for ours in (peer for peer in peers if peer.startswith("tlbench")):
        variant = VARIANTS.get(ours.partition("-")[2], {})
        times = len(variant.get("heads", [1])) * variant.get("seeds", 1)
        for peer in (peer for peer in peers if not peer.startswith("tlbench")):
            theirs = [times * value for value in seconds[peer]]
            ratio = stats.paired_ratio(theirs, seconds[ours]).interval
            bounds = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.low is not None else ""
            whose = f"{times} × {peer}" if times > 1 else peer
            print(
                f"{name}: {ours} is {ratio.estimate:.2f}{bounds} times as fast as {whose}; medians "
                f"{statistics.median(seconds[ours]):.1f} s and {statistics.median(theirs):.1f} s",
                flush=True,
            )


def _run(peer: str, path: Path, folder: Path) -> dict[str, Any]:
    # One cache for all runs: the memory layout is measured once per backbone and machine, in the first, and photographs
    # are decoded there.
    environment = {**os.environ, "TLBENCH_CACHE": str(folder / "cache")}
    command = [sys.executable, str(Path(__file__).with_name("jobs.py")), peer, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
