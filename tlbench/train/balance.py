"""What evens out classes of which one has many images and another few: weights of the loss, or how images are drawn.

Both look at the training images that the cell uses, and at nothing else. Validation and test images count the same,
whatever was chosen here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int = 0) -> Tensor:
    """Returns the weight of each class up to the last that has images, or of ``classes``, float32, from labels (n,):
    n / (k * count), where k is the number of classes that have images, as scikit-learn's `balanced` has it. The mean
    over the images is 1. A class without any image has the weight 0: no image's loss is multiplied by it, and what
    label smoothing gives it counts nothing.
    """
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    weights = len(labels) / (int((counts > 0).sum()) * counts)
    return torch.where(counts > 0, weights, 0.0).float().to(labels.device)


def draw_balanced(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns n positions (n,) of labels (n,), drawn with replacement so that each class is as likely as any other:
    what torch's `WeightedRandomSampler` gives for weights of 1 / count and the same generator.
    """
    labels = labels.cpu()
    counts = torch.bincount(labels).double()
    return torch.multinomial(1 / counts[labels], len(labels), replacement=True, generator=generator)
