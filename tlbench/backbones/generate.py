"""Writes table.json and timm_parameters.json, so that listing backbones builds none:
``python -m tlbench.backbones.generate``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm

from tlbench.backbones import BackboneInfo, lite, original, timm_list, torchvision
from tlbench.backbones.base import stage_costs, stages_of

# The EfficientNet-Lite authors' figures for these checkpoints (percent, ImageNet validation set).
LITE_TOP1 = {"efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7, "efficientnet_lite2": 77.6}


def describe(name: str) -> BackboneInfo:
    """Builds a backbone and measures it."""
    model, parts, spec = original(name)
    weights: dict[str, Any]
    if name in lite.MODELS:
        package = lite.MODELS[name].replace("_", "-")
        weights = {"top1": LITE_TOP1[name], "weights": (package,), "file": package}
    else:
        default = torchvision.weights_of(name, None)
        tags = [w.name for w in type(default) if w is not default]
        weights = {
            "top1": default.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            "weights": (default.name, *tags),
            "file": default.url.rsplit("/", 1)[1],
        }
    return BackboneInfo(
        name=name,
        family=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        features=parts.features,
        image_size=spec.size,
        input=spec,
        stages=len(parts.body),
        flops=sum(cost.flops for cost in stage_costs(stages_of(parts), spec.size)),
        **weights,
    )


def main() -> None:
    """Writes both files beside this one, a line for each backbone."""
    rows = []
    for name in sorted([*torchvision.names(), *lite.MODELS]):
        rows.append(asdict(describe(name)))
        print(name, flush=True)
    text = ",\n".join(json.dumps(row) for row in rows)
    (Path(__file__).parent / "table.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    counts = {name: timm_list.count(name) for name in timm.list_models()}
    table = json.dumps({"timm": timm.__version__, "parameters": counts}, indent=0)
    timm_list.PARAMETERS.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
