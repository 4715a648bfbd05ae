"""A cell trains as a loop in plain torch does that follows the same recipe: the same losses, the same predictions.

The loop is written without the suite's stages, phases, sources and optimizer. It shares the initial weights, the order
of the images and the resolved recipe with the cell, nothing else.
"""

import hashlib
import math

import pytest
import torch
from tiers import sweep
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18, shufflenet_v2_x0_5

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import cell as run
from tlbench.measure.build import build
from tlbench.policies.parse import parse_policy
from tlbench.train.loop import batches

EPOCHS, CLASSES = 3, 10
MODELS = {"resnet18": resnet18, "shufflenet_v2_x0_5": shufflenet_v2_x0_5}  # neither has dropout
NORMS = (nn.BatchNorm2d,)
TRAINS = {
    "linear_probe": lambda module: False,
    "norm": lambda module: isinstance(module, NORMS),
    "full": lambda module: True,
    "full+bn=freeze": lambda module: True,  # the norms' statistics hold still, their weights train
}
"""Policy -> whether it trains the parameters that lie directly in a module of the backbone."""
ADAPTS = {"linear_probe": False, "norm": True, "full": True, "full+bn=freeze": False}
"""Policy -> whether BatchNorm normalises by the batch and updates its statistics."""


def with_head(backbone):
    """The torchvision model with a new last layer, and that layer."""
    model = MODELS[backbone](num_classes=CLASSES)
    model.fc = head = nn.Sequential(nn.Linear(model.fc.in_features, CLASSES))
    return model, head


def plain_loop(backbone, policy, job, recipe):
    """Losses of the epochs, and the predicted classes of the test images."""
    model, head = with_head(backbone)
    model.load_state_dict(dict(zip(model.state_dict(), job.model.state_dict().values(), strict=True)))
    heads = {id(p) for p in head.parameters()}
    groups = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            in_head = id(parameter) in heads
            parameter.requires_grad_(in_head or TRAINS[policy](module))
            if parameter.requires_grad:
                rate = recipe["lr"] if in_head else recipe["backbone_lr"]
                decay = recipe["weight_decay"] if parameter.ndim > 1 else 0.0
                groups.append({"params": [parameter], "rate": rate, "lr": rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, fused=recipe["fused"])

    train, mean, std = job.data.train, job.sources["train"].mean, job.sources["train"].std
    per_epoch = math.ceil(len(train) / job.cell.batch_size)
    steps, warm, done = EPOCHS * per_epoch, math.ceil(recipe["warmup"] * EPOCHS * per_epoch), 0
    losses = []
    for epoch in range(EPOCHS):
        model.train(policy != "linear_probe")
        for module in model.modules():
            if isinstance(module, NORMS):
                module.train(ADAPTS[policy])
                module.momentum = recipe["bn_momentum"] or module.momentum
        total = 0.0
        for positions in batches(len(train), job.cell.batch_size, job.cell.seed, epoch):
            factor = min(1.0, (done + 1) / warm) if done < warm else 1.0
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor * 0.5 * (1 + math.cos(math.pi * done / steps))
            images, labels = train.batch(positions)
            loss = functional.cross_entropy(model((images.float() / 255 - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(positions)
            done += 1
        losses.append(total / len(train))
    model.eval()
    with torch.no_grad():
        test = job.data.test
        chunks = torch.arange(len(test)).split(job.cell.batch_size)
        found = torch.cat([model((test.batch(p)[0].float() / 255 - mean) / std).argmax(1) for p in chunks])
    return losses, found, float((found == test.labels).double().mean())


@pytest.mark.exhaustive
@pytest.mark.parametrize("policy", sweep(TRAINS, {"linear_probe"}))
@pytest.mark.parametrize("backbone", sweep(MODELS, {"shufflenet_v2_x0_5"}))
def test_a_cell_trains_as_a_plain_loop_does(backbone, policy):
    cell = Cell(
        backbone=backbone, weights="random", freeze=policy, dataset="digits", image_size=32, train_size=100,
        epochs=EPOCHS, layout="contiguous", seed=3,
    )  # fmt: skip
    settings = Settings(prefix="off")
    record = run.run_cell(cell, settings)
    assert record.status == "ok", record.reason
    job = build(cell, settings, parse_policy(policy))
    losses, predictions, accuracy = plain_loop(backbone, policy, job, record.recipe)
    assert [r.loss for r in record.rounds] == losses
    assert record.predictions_sha256 == hashlib.sha256(predictions.numpy().tobytes()).hexdigest()
    assert record.accuracy_test == accuracy
