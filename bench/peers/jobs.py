"""One job, done by one peer in this process: ``python jobs.py PEER SPEC.json`` prints a JSON line.

The clock runs from after the imports to the last evaluation: building, decoding, training and evaluating count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def plain(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs the tutorial's loop, with the frozen part in eval mode, so that it computes what a frozen part means."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    begin = time.perf_counter()
    model, trained = _model(spec)
    sets = {part: _image_folder(spec, part) for part in ("train", "val", "test")}
    train = DataLoader(sets["train"], batch_sampler=Batches(spec, len(sets["train"])), num_workers=2)
    held_out = {part: DataLoader(sets[part], batch_size=spec["batch_size"], num_workers=2) for part in ("val", "test")}
    optimizer = torch.optim.SGD(trained, lr=spec["lr"], momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def accuracy(loader: Any) -> float:
        model.eval()
        correct = total = 0
        with torch.no_grad():
            for images, labels in loader:
                correct += int((model(images).argmax(1) == labels).sum())
                total += len(labels)
        return correct / total

    accuracies = []
    for _ in range(spec["epochs"]):
        _train_mode(model, spec["freeze"])
        for images, labels in train:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=spec["precision"] == "bf16"):
                loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        accuracies.append(accuracy(held_out["val"]))
    test = accuracy(held_out["test"])
    return {"seconds": time.perf_counter() - begin, "val": accuracies, "test": test}


def lightning(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs Lightning's trainer, progress bar, logger and checkpoints off."""
    import logging
    import warnings

    import lightning as L
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    begin = time.perf_counter()
    model, trained = _model(spec)
    accuracies: list[float] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.correct, self.total = model, 0, 0

        def on_train_epoch_start(self) -> None:
            _train_mode(self.model, spec["freeze"])

        def training_step(self, batch: Any, _: int) -> Any:
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.correct += int((self.model(batch[0]).argmax(1) == batch[1]).sum())
            self.total += len(batch[1])

        def on_validation_epoch_end(self) -> None:
            accuracies.append(self.correct / self.total)
            self.correct = self.total = 0

        test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(trained, lr=spec["lr"], momentum=0.9)

    sets = {part: _image_folder(spec, part) for part in ("train", "val", "test")}
    train = DataLoader(sets["train"], batch_sampler=Batches(spec, len(sets["train"])), num_workers=2)
    val, test = (DataLoader(sets[p], batch_size=spec["batch_size"], num_workers=2) for p in ("val", "test"))
    trainer = L.Trainer(
        max_epochs=spec["epochs"],
        accelerator="cpu",
        precision="bf16-mixed" if spec["precision"] == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    module = Module()
    trainer.fit(module, train, val)
    trainer.test(module, test, verbose=False)
    return {"seconds": time.perf_counter() - begin, "val": accuracies[:-1], "test": accuracies[-1]}


def tlbench(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs one cell, or ``heads`` × ``seeds`` cells."""
    from tlbench.grid.cell import Cell
    from tlbench.grid.settings import Settings
    from tlbench.measure.cell import run_cell

    begin = time.perf_counter()
    records = []
    for seed in range(spec.get("seeds", 1)):
        for head in spec.get("heads", ["linear"]):
            cell = Cell(
                backbone=spec["backbone"],
                weights=spec["weights"],
                freeze=spec["freeze"] if spec["freeze"] != "full" else "full(scale=1)",
                head=head,
                dataset=f"folder:{spec['data']}",
                seed=seed,
                epochs=spec["epochs"],
                batch_size=spec["batch_size"],
                image_size=spec["image_size"],
                precision=spec["precision"],
                optimizer="sgd",
                lr=spec["lr"],
                weight_decay=0.0,
                schedule="constant",
                warmup=0.0,
                bn_momentum="keep",
            )
            records.append(run_cell(cell, Settings()))
    seconds = time.perf_counter() - begin
    for record in records:
        assert record.status == "ok", record.reason
    first = records[0]
    return {"seconds": seconds, "val": [r.accuracy_val for r in first.rounds], "test": first.accuracy_test}


class Batches:
    """Gives tlbench's batches, epoch after epoch."""

    def __init__(self, spec: dict[str, Any], samples: int) -> None:
        self.spec, self.samples, self.epoch = spec, samples, 0

    def __iter__(self) -> Iterator[list[int]]:
        from tlbench.train.loop import batches

        # A generator, so that an epoch counts when its first batch is drawn: a loader makes two iterators and uses one.
        order = batches(self.samples, self.spec["batch_size"], 0, self.epoch)
        self.epoch += 1
        for positions in order:
            yield positions.tolist()

    def __len__(self) -> int:
        return -(-self.samples // self.spec["batch_size"])


def _model(spec: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Returns torchvision's model with its new head, and what trains."""
    import torch
    from torch import nn
    from torchvision import models

    from tlbench.seeds import seed_for

    model = models.get_model(spec["backbone"], weights=None)
    model.load_state_dict(torch.load(spec["weights"], weights_only=True))
    for parameter in model.parameters():
        parameter.requires_grad = spec["freeze"] == "full"
    if spec["freeze"] == "last_1":
        for parameter in model.layer4.parameters():
            parameter.requires_grad = True
    torch.manual_seed(seed_for(0, "head-init", spec["backbone"], "linear"))
    model.fc = nn.Sequential(nn.Linear(model.fc.in_features, spec["classes"]))
    return model, [parameter for parameter in model.parameters() if parameter.requires_grad]


def _train_mode(model: Any, freeze: str) -> None:
    model.train(freeze == "full")
    if freeze == "last_1":
        model.layer4.train()


def _image_folder(spec: dict[str, Any], part: str) -> Any:
    from torchvision import datasets, models

    preset = models.get_model_weights(spec["backbone"]).DEFAULT.transforms()
    return datasets.ImageFolder(str(Path(spec["data"]) / part), preset)


PEERS = {"plain": plain, "lightning": lightning, "tlbench": tlbench}
IMPORTS = {
    "plain": ("torchvision", "tlbench.train.loop"),
    "lightning": ("torchvision", "lightning", "tlbench.train.loop"),
    "tlbench": ("tlbench.measure.cell", "torchvision"),
}


def main() -> None:
    import importlib

    name, path = sys.argv[1:]
    for module in IMPORTS[name]:
        importlib.import_module(module)
    print(json.dumps(PEERS[name](json.loads(Path(path).read_text()))))


if __name__ == "__main__":
    main()
