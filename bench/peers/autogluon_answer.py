"""What AutoGluon MultiModal answers within a budget: `fit(time_limit=…)`, its own recipe. Run by `answers.py`, by the
Python of an environment that has it; nothing of tlbench is in it.

    python autogluon_answer.py JOB.json

It is told the backbone (a local folder) and that there is no GPU, and nothing else. It stops early and chooses its
checkpoint by the validation images; test images are looked at once, when all is done.
"""

import json
import sys
import time
from pathlib import Path

LEFT = 5
"""Seconds of the budget that are not given to `fit`: the process ends within them."""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    parts = {part: pd.read_csv(job[part], dtype=str) for part in ("train", "val", "test")}
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=str(Path(job["folder"]) / "model"))
    predictor.fit(
        train_data=parts["train"],
        tuning_data=parts["val"],
        time_limit=max(1, int(job["started"] + job["budget_seconds"] - time.time() - LEFT)),
        seed=0,
        hyperparameters={
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": job["weights"],
            "env.accelerator": "cpu",
        },
    )
    began = time.time()
    predictions = predictor.predict(parts["test"][["image"]])
    result = {
        "right": int((predictions.astype(str).to_numpy() == parts["test"]["label"].to_numpy()).sum()),
        "images": len(predictions),
        "testing_seconds": time.time() - began,
        "about": "its default recipe",
        "versions": versions("autogluon.multimodal", "torch", "timm"),
    }
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def versions(*packages):
    from importlib.metadata import version

    return {name: version(name) for name in packages}


if __name__ == "__main__":
    main()
