"""A cell's training as a loop in plain torch, with rates, early stopping and the best epoch's weights: written without
the suite's stages, phases, sources, optimizer and rules. It shares the initial weights, the order of the images and the
resolved recipe with the cell, nothing else.
"""

import copy
import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18, shufflenet_v2_x0_5

from tlbench.train.loop import batches

CLASSES = 10
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


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    losses: list[float]
    """Of each epoch on the training images."""
    scores: list[tuple[float, float]]
    """Accuracy and loss of each epoch on the validation images."""
    best: int
    """The epoch, 0 first, whose weights are kept: with patience the best one, else the last."""
    predictions: Tensor
    """Classes (n,) of the test images, by the kept weights."""
    accuracy_test: float
    loss_test: float

    @property
    def predictions_sha256(self):
        return hashlib.sha256(self.predictions.numpy().tobytes()).hexdigest()


def with_head(backbone):
    """The torchvision model with a new last layer, and that layer."""
    model = MODELS[backbone](num_classes=CLASSES)
    model.fc = head = nn.Sequential(nn.Linear(model.fc.in_features, CLASSES))
    return model, head


def _groups(model, head, policy, rates, decay):
    heads = {id(p) for p in head.parameters()}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            in_head = id(parameter) in heads
            parameter.requires_grad_(in_head or TRAINS[policy](module))
            if parameter.requires_grad:
                rate = rates[0] if in_head else rates[1]
                decays = decay if parameter.ndim > 1 else 0.0
                yield {"params": [parameter], "rate": rate, "lr": rate, "weight_decay": decays}


def _set_modes(model, policy, momentum):
    """What is frozen is in evaluation mode."""
    model.train(policy != "linear_probe")
    for module in model.modules():
        if isinstance(module, NORMS):
            module.train(ADAPTS[policy])
            module.momentum = module.momentum if momentum is None else momentum


def _looked_at(model, images, mean, std, size):
    """Accuracy, loss and predicted classes."""
    model.eval()
    with torch.no_grad():
        logits, labels = [], []
        for positions in torch.arange(len(images)).split(size):
            pixels, classes = images.batch(positions)
            logits.append(model((pixels.float() / 255 - mean) / std))
            labels.append(classes)
        pairs = zip(logits, labels, strict=True)
        each = [functional.cross_entropy(a, b, reduction="none").double().sum() for a, b in pairs]
        found, right = torch.cat(logits).argmax(1), torch.cat(labels)
        count = len(images)
        return (
            int((found == right).sum()) / count,
            float(sum(each, torch.zeros((), dtype=torch.float64))) / count,
            found,
        )


def plain_training(job, recipe, rates=None, loss_of=functional.cross_entropy, order=None):
    """What a cell should do. ``rates``: of the head and of the backbone, in the place of the recipe's; ``loss_of``
    takes logits and labels; ``order`` gives the batches of an epoch, in the place of the suite's.
    """
    cell, train = job.cell, job.data.train
    rates = (recipe["lr"], recipe["backbone_lr"]) if rates is None else rates
    order = order or (lambda epoch: batches(len(train), cell.batch_size, cell.seed, epoch))
    model, head = with_head(cell.backbone)
    model.load_state_dict(dict(zip(model.state_dict(), job.model.state_dict().values(), strict=True)))
    groups = list(_groups(model, head, cell.freeze, rates, recipe["weight_decay"]))
    optimizer = torch.optim.AdamW(groups, fused=recipe["fused"])
    mean, std = job.sources["train"].mean, job.sources["train"].std
    steps, done = cell.epochs * math.ceil(len(train) / cell.batch_size), 0
    warm = math.ceil(round(recipe["warmup"] * steps, 6))
    losses, scores, kept = [], [], None
    for epoch in range(cell.epochs):
        _set_modes(model, cell.freeze, recipe["bn_momentum"])
        total = 0.0
        for positions in order(epoch):
            factor = min(1.0, (done + 1) / warm) if done < warm else 1.0
            if recipe["schedule"] == "cosine":
                factor *= 0.5 * (1 + math.cos(math.pi * (done / steps)))
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor
            images, labels = train.batch(positions)
            loss = loss_of(model((images.float() / 255 - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(positions)
            done += 1
        losses.append(total / len(train))
        accuracy, loss, _ = _looked_at(model, job.data.val, mean, std, cell.batch_size)
        scores.append((accuracy, loss))
        best = min(range(len(scores)), key=lambda n: (-scores[n][0], scores[n][1], n))
        if cell.patience is not None and best == epoch:
            kept = copy.deepcopy(model.state_dict())
        if epoch - best == cell.patience:
            break
    if kept is not None:
        model.load_state_dict(kept)
    accuracy, loss, found = _looked_at(model, job.data.test, mean, std, cell.batch_size)
    best = best if cell.patience is not None else len(scores) - 1
    return Trained(losses, scores, best, found, accuracy, loss)
