"""What fastai answers within a budget: `fine_tune`, as its own lessons have it. Run by `answers.py`, by the Python of
an environment that has fastai and timm; nothing of tlbench is in it.

    python fastai_answer.py JOB.json

The number of epochs, which a person would choose by hand, is what fits the budget by a few timed batches. Validation
images are watched and choose nothing; test images are looked at once, when all is done.
"""

import copy
import json
import sys
import time
from pathlib import Path

BATCH_SIZE = 64
"""fastai's own."""
TIMED = 4
"""Batches that are timed, after one that is not: workers start in it."""
LEFT = 0.92
"""Share of the time left that epochs may be planned for: batches that are timed vary, and the model is saved."""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    deadline = job["started"] + job["budget_seconds"]
    import pandas as pd
    from fastai.vision.all import Callback, CancelFitException, Learner, accuracy, default_split, load_learner

    parts = {part: pd.read_csv(job[part], dtype=str) for part in ("train", "val", "test")}
    dls = loaders(pd.concat([parts["train"].assign(valid=False), parts["val"].assign(valid=True)]), job)
    model = network(job["weights"], dls.c)
    learner = Learner(dls, model, metrics=accuracy, splitter=default_split, path=job["folder"])

    class Stop(Callback):
        """Ends training where the budget does, whatever was planned."""

        stopped = False

        def after_batch(self) -> None:
            if self.training and time.time() > deadline:
                self.stopped = True
                raise CancelFitException

    epoch = epoch_seconds(learner)
    epochs = job.get("epochs") or max(1, int(LEFT * (deadline - time.time()) / epoch) - 1)  # one with a frozen body
    stop = Stop()
    with learner.no_bar():
        learner.fine_tune(epochs, cbs=[stop])
    model_file = Path(job["folder"]) / "export.pkl"
    learner.export(model_file)
    began = time.time()
    kept = load_learner(model_file)
    predictions = predicted(kept, parts["test"])
    result = {
        "right": int((predictions == parts["test"]["label"].to_numpy()).sum()),
        "images": len(predictions),
        "testing_seconds": time.time() - began,
        "about": f"{epochs} epochs" + (", cut short by the budget" if stop.stopped else ""),
        "versions": versions("fastai", "torch", "timm"),
    }
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def loaders(table, job):
    """Returns the images of train and val, augmented as fastai does by default."""
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, aug_transforms

    return ImageDataLoaders.from_df(
        table,
        path="/",
        fn_col="image",
        label_col="label",
        valid_col="valid",
        item_tfms=Resize(job["image_size"]),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(job["mean"], job["std"])],
        bs=BATCH_SIZE,
        num_workers=job["workers"],
        seed=0,
    )


def network(folder, classes):
    """Returns the backbone of a local folder (timm's names, no classifier) behind fastai's own head."""
    import timm
    import torch
    from fastai.vision.learner import TimmBody, add_head

    told = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(told["architecture"], pretrained=False, num_classes=0)
    model.load_state_dict(torch.load(Path(folder) / "pytorch_model.bin", weights_only=True))
    body = TimmBody(model, False, None, 3)
    return add_head(body, model.num_features, classes)


def epoch_seconds(learner):
    """Returns what an epoch takes in which everything trains, by a few batches through a copy of the model."""
    model = copy.deepcopy(learner.model).train()
    began, batches = 0.0, 0
    for number, (images, labels) in enumerate(learner.dls.train):
        if number == 1:
            began = time.time()
        learner.loss_func(model(images), labels).backward()
        model.zero_grad()
        batches += number > 0
        if batches == TIMED:
            break
    a_batch = (time.time() - began) / max(batches, 1)
    watched = len(learner.dls.valid) / 3  # forward alone
    return a_batch * (len(learner.dls.train) + watched)


def predicted(learner, table):
    """Returns the classes (n,) of photographs."""
    loader = learner.dls.test_dl(table["image"].tolist())
    with learner.no_bar():
        shares, _ = learner.get_preds(dl=loader)
    return learner.dls.vocab[shares.argmax(1).numpy()].items


def versions(*packages):
    from importlib.metadata import version

    return {name: version(name) for name in packages}


if __name__ == "__main__":
    main()
