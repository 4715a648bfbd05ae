"""A cell's training as a loop in plain torch, with rates, early stopping and the best epoch's weights: written without
the suite's stages, phases, sources, optimizer and rules. It shares initial weights, the order of the images and the
recipe less its rates with the cell.
"""

import copy
import hashlib
import math

import torch
from test_plain_loop import with_head
from torch import nn
from torch.nn import functional

from tlbench.train.loop import batches


def _groups(model, head, policy, rates, decay):
    heads = {id(p) for p in head.parameters()}
    for parameter in (p for module in model.modules() for p in module.parameters(recurse=False)):
        in_head = id(parameter) in heads
        parameter.requires_grad_(in_head or policy == "full")
        if parameter.requires_grad:
            rate = rates[0] if in_head else rates[1]
            decays = decay if parameter.ndim > 1 else 0.0
            yield {"params": [parameter], "rate": rate, "lr": rate, "weight_decay": decays}


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


def plain_training(job, recipe, rates):
    """What a cell should do at these rates (of the head, of the backbone): training losses, what each epoch scored on
    the validation images, the best epoch (0 first), and of the kept weights the hash of the predicted test images with
    the loss on them.
    """
    cell = job.cell
    model, head = with_head(cell.backbone)
    model.load_state_dict(dict(zip(model.state_dict(), job.model.state_dict().values(), strict=True)))
    optimizer = torch.optim.AdamW(
        list(_groups(model, head, cell.freeze, rates, recipe["weight_decay"])), fused=recipe["fused"]
    )
    train, mean, std = job.data.train, job.sources["train"].mean, job.sources["train"].std
    per_epoch = math.ceil(len(train) / cell.batch_size)
    steps, done = cell.epochs * per_epoch, 0
    warm = math.ceil(round(recipe["warmup"] * steps, 6))
    losses, scores, kept = [], [], None
    for epoch in range(cell.epochs):
        model.train(cell.freeze == "full")
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe["bn_momentum"]
        total = 0.0
        for positions in batches(len(train), cell.batch_size, cell.seed, epoch):
            factor = min(1.0, (done + 1) / warm) if done < warm else 1.0
            if recipe["schedule"] == "cosine":
                factor *= 0.5 * (1 + math.cos(math.pi * (done / steps)))
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor
            images, labels = train.batch(positions)
            loss = functional.cross_entropy(model((images.float() / 255 - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(positions)
            done += 1
        losses.append(total / len(train))
        accuracy, loss, _ = _looked_at(model, job.data.val, mean, std, cell.batch_size)
        scores.append((accuracy, loss))
        order = sorted(range(len(scores)), key=lambda n: (-scores[n][0], scores[n][1], n))
        if cell.patience is None:
            continue
        if order[0] == epoch:
            kept = copy.deepcopy(model.state_dict())
        if epoch - order[0] == cell.patience:
            break
    best = order[0] if cell.patience is not None else len(scores) - 1
    if kept is not None:
        model.load_state_dict(kept)
    _, loss, found = _looked_at(model, job.data.test, mean, std, cell.batch_size)
    return losses, scores, best, (hashlib.sha256(found.numpy().tobytes()).hexdigest(), loss)
